//! A users file that the server itself does not read (`kind = "separate-users-file"`).

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::harness::processes::{capabilities, children_of, is_running, kill, memory_has, signal};
use crate::harness::{Builder, Client, MailRoot, NOBODY, PROGRAM, Server, bounded_output, eventually};
use crate::owners::threads_by;

/// The password `secret`, made by `doveadm pw` of Dovecot 2.3.19, with few rounds.
const HASH: &str = "{BLF-CRYPT}$2y$05$fo4ZtJ06qtxQCNjuaPwbYObJC/5Td6vfua19SxBVXAyn6p2g/5QLS";

/// CAP_DAC_READ_SEARCH.
const READ_ALL: u64 = 1 << 2;

/// A users file in a directory of its own, which only its owner can read.
struct Accounts(TempDir);

impl Accounts {
    fn new(text: &str) -> Self {
        let this = Self(TempDir::new().unwrap());
        fs::set_permissions(this.0.path(), Permissions::from_mode(0o755)).unwrap();
        this.write(text);
        this
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("users")
    }

    /// Writes the file with an old modification time, so that it is taken for complete.
    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
        fs::set_permissions(self.path(), Permissions::from_mode(0o600)).unwrap();
        File::open(self.path()).unwrap().set_modified(SystemTime::now() - Duration::from_secs(86_400)).unwrap();
    }

    /// The keys and values of the source.
    fn source(&self, keys: &str) -> String {
        format!("kind = 'separate-users-file', file = '{}'{keys}", self.path().display())
    }

    fn builder(&self, keys: &str) -> Builder {
        Server::builder().user("own", "o").flags(["--accounts", &self.source(keys)])
    }

    /// Starts a server that becomes an ordinary user, if the tests have the rights for that.
    fn serve(&self) -> Server {
        let mail = MailRoot::new();
        fs::set_permissions(mail.path(), Permissions::from_mode(0o755)).unwrap();
        let builder = self.builder("").mail(&mail);
        if geteuid().is_root() { builder.flags(["--run-as", "nobody"]).start() } else { builder.start() }
    }
}

/// What the server answers instead of a login, up to the end of the code.
#[track_caller]
fn refusal(server: &Server, user: &str, password: &str) -> String {
    let line = server.log_in(user, password).map(drop).unwrap_err();
    line.split_inclusive(']').next().unwrap().to_owned()
}

/// The monitor and the process that reads the file.
#[track_caller]
fn processes(server: &Server) -> (u32, u32) {
    let [monitor] = children_of(server.pid())[..] else { panic!("there is one monitor") };
    let mut workers = Vec::new();
    eventually("the file is read by a process", || {
        workers = children_of(monitor);
        workers.len() == 1
    });
    (monitor, workers[0])
}

#[test]
fn users_log_in_to_a_server_that_cannot_read_the_file() {
    if !geteuid().is_root() {
        return;
    }
    let accounts = Accounts::new(&format!("ana:{HASH}\n"));
    let server = accounts.serve();
    server.log_in("ana", "secret").unwrap().quit();
    server.log_in("own", "o").unwrap().quit();
    for (user, password, why) in [("ana", "wrong", "wrong password"), ("eve", "secret", "unknown user")] {
        assert_eq!(refusal(&server, user, password), "-ERR [AUTH]");
        server.expect_log("WARN", &format!("login failed: user={user:?} reason={why:?}"));
    }

    // No thread of the server has a right to read the file, and the hash is nowhere in its memory.
    let file = fs::metadata(accounts.path()).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o777), (0, 0o600));
    let ids = [NOBODY; 4].map(|id| id.to_string()).join(" ");
    for (field, value) in [("Uid", &ids[..]), ("CapPrm", "0000000000000000"), ("CapEff", "0000000000000000")] {
        assert_eq!(threads_by(&server, field).iter().map(|(value, _)| value).collect::<Vec<_>>(), [value], "{field}");
    }
    let (monitor, worker) = processes(&server);
    let hash = HASH.rsplit('$').next().unwrap().as_bytes();
    assert!(!memory_has(server.pid(), hash) && !memory_has(monitor, hash));
    assert!(memory_has(worker, hash));
    assert!(memory_has(server.pid(), b"login failed: user="));
}

#[test]
fn the_process_that_reads_the_file_can_do_nothing_else() {
    let accounts = Accounts::new("ana:{PLAIN}secret\n");
    let server = accounts.serve();
    let (monitor, worker) = processes(&server);
    server.log_in("ana", "secret").unwrap().quit();
    for process in [monitor, worker] {
        for field in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(capabilities(process, field) & !READ_ALL, 0, "{field} of {process}");
        }
    }
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned);
    assert_eq!(field("NoNewPrivs:").as_deref(), Some("1"));
    assert_eq!(field("Seccomp:").as_deref(), Some("2"));
    // The server asks each question by a socket of its own, and one may not have been closed yet.
    eventually("the process has one socket", || {
        let descriptors = fs::read_dir(format!("/proc/{worker}/fd")).unwrap();
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count() == 1
    });
}

#[test]
fn a_changed_file_counts_at_once() {
    let accounts = Accounts::new(&format!("ana:{HASH}\nbob:{{PLAIN}}b\n"));
    let server = accounts.serve();
    for _ in 0..2 {
        server.log_in("ana", "secret").unwrap().quit();
    }
    accounts.write("ana:{PLAIN}new\nbad:\ndora:{PLAIN}d\n");
    assert_eq!(refusal(&server, "ana", "secret"), "-ERR [AUTH]");
    server.log_in("ana", "new").unwrap().quit();
    server.log_in("dora", "d").unwrap().quit();
    assert_eq!(refusal(&server, "bob", "b"), "-ERR [AUTH]");
    server.expect_log("ERROR", "line 2: there is no password");
    server.expect_log("WARN", "has lost 1 of the 2 accounts that it had");
    // A file that has gone leaves all accounts as they were.
    fs::remove_file(accounts.path()).unwrap();
    server.log_in("ana", "new").unwrap().quit();
    server.expect_log("ERROR", "cannot be used, the accounts stay as they were");
}

#[test]
fn all_that_the_file_says_of_a_user_counts() {
    if !geteuid().is_root() {
        return;
    }
    let mail = MailRoot::new();
    fs::set_permissions(mail.path(), Permissions::from_mode(0o755)).unwrap();
    let home = mail.path().join("far/away");
    let [new, message] = ["new", "new/1"].map(|name| home.join("Maildir").join(name));
    fs::create_dir_all(&new).unwrap();
    fs::write(&message, "Subject: one\n\nOne\n").unwrap();
    for path in [&home.join("Maildir"), &new, &message] {
        chown(path, Some(2001), Some(3001)).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
    }
    let text = format!(
        "ana:{HASH}:2001:3001::{}::userdb_mail=maildir:~/Maildir userdb_expire_all=90\nbroken:{{NONE}}x\n",
        home.display()
    );
    let accounts = Accounts::new(&text);
    let flags = ["--run-as", "nobody", "--as-owner"];
    let server = accounts.builder("").mail(&mail).allow(mail.path()).flags(flags).start();
    assert!(server.pop3().listing("CAPA").contains(&"EXPIRE 90 USER".to_owned()));
    let mut session = server.log_in("ana", "secret").unwrap();
    assert_eq!(session.call("STAT"), "1 21");
    assert_eq!(threads_by(&server, "Uid")[1].0, format!("{NOBODY} 2001 {NOBODY} 2001"));
    assert_eq!(refusal(&server, "broken", "x"), "-ERR [AUTH]");
    server.expect_log("WARN", "login failed: user=\"broken\" reason=\"line 2");
}

#[test]
fn only_mechanisms_with_a_password_are_announced() {
    let accounts = Accounts::new("ana:{PLAIN}secret\n");
    let server = accounts.serve();
    let mut client = Client::connect(server.pop3_address());
    assert!(!client.ok().contains('<'));
    let sasl: Vec<_> = client.listing("CAPA").into_iter().filter(|line| line.starts_with("SASL")).collect();
    assert_eq!(sasl, ["SASL PLAIN LOGIN"]);
}

/// The names of many users do not fit into one message of the process.
#[test]
fn peep_lists_the_users_and_changes_none() {
    let names: Vec<_> = (0..500).map(|n| format!("user{n:03}")).collect();
    let text: String = names.iter().map(|name| format!("{name}:{{PLAIN}}x\n")).collect();
    let accounts = Accounts::new(&text);
    let server = accounts.serve();
    let mut admin = server.admin();
    let mut listed = admin.values("u?");
    listed.retain(|name| name != "own");
    assert_eq!(listed, names);
    for (command, answer) in [("u+ eve e", "-8"), ("u+ user007 e", "-3"), ("u- user007", "-8")] {
        admin.send(command);
        admin.expect(answer);
    }
    assert_eq!(fs::read_to_string(accounts.path()).unwrap(), text);
}

/// An account whose password takes many seconds to verify.
fn costly() -> String {
    format!("slow:{{SHA512-CRYPT}}$6$rounds=9000000$saltsalt${}\nana:{{PLAIN}}secret\n", ".".repeat(86))
}

/// Waits until the process verifies a password.
fn expect_work(process: u32) {
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(11).unwrap().parse::<u64>().unwrap()
    };
    let before = ticks();
    eventually("the process verifies a password", || ticks() > before + 5);
}

#[test]
fn a_process_that_is_killed_is_started_again() {
    let accounts = Accounts::new(&costly());
    let server = accounts.serve();
    let (monitor, worker) = processes(&server);
    thread::scope(|scope| {
        let answer = scope.spawn(|| refusal(&server, "slow", "x"));
        expect_work(worker);
        kill(worker);
        assert_eq!(answer.join().unwrap(), "-ERR [SYS/TEMP]");
    });
    server.expect_log("ERROR", "is unavailable: the process that was asked has ended");
    server.expect_log("WARN", "has ended (signal 9); another is started");
    server.log_in("ana", "secret").unwrap().quit();
    server.expect_log("INFO", "answers again");
    let (same, another) = processes(&server);
    assert!(same == monitor && another != worker);
}

/// Questions wait for the next process.
#[test]
fn a_login_that_no_process_has_taken_yet_fails_by_no_kill() {
    let accounts = Accounts::new("ana:{PLAIN}secret\n");
    let server = accounts.serve();
    let (_, worker) = processes(&server);
    server.log_in("ana", "secret").unwrap().quit();
    signal(worker, Signal::STOP);
    thread::scope(|scope| {
        let login = scope.spawn(|| server.log_in("ana", "secret").map(Client::quit));
        kill(worker);
        assert_eq!(login.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_process_that_gives_no_answer_in_time_is_killed() {
    let accounts = Accounts::new(&costly());
    let server = accounts.builder(", timeout = '1s'").start();
    let (_, worker) = processes(&server);
    assert_eq!(refusal(&server, "slow", "x"), "-ERR [SYS/TEMP]");
    server.expect_log("WARN", &format!("process {worker} was killed, because it took longer than 1 s"));
    server.log_in("ana", "secret").unwrap().quit();
}

#[test]
fn when_nobody_has_the_rights_any_more_logins_fail_for_the_time_being_and_other_accounts_go_on() {
    let accounts = Accounts::new("ana:{PLAIN}secret\n");
    let server = accounts.serve();
    server.log_in("ana", "secret").unwrap().quit();
    let (monitor, worker) = processes(&server);
    kill(monitor);
    server.expect_log("ERROR", "logins by the users file");
    eventually("the process has ended", || !is_running(worker));
    for password in ["secret", "wrong"] {
        assert_eq!(refusal(&server, "ana", password), "-ERR [SYS/TEMP]");
    }
    server.log_in("own", "o").unwrap().quit();
}

#[test]
fn the_processes_end_with_the_server() {
    let accounts = Accounts::new("ana:{PLAIN}secret\n");
    let server = accounts.serve();
    let (monitor, worker) = processes(&server);
    kill(server.pid());
    eventually("they have ended", || !is_running(monitor) && !is_running(worker));
}

#[test]
fn a_reload_keeps_the_process_and_cannot_start_another() {
    let accounts = Accounts::new("ana:{PLAIN}secret\n");
    let configuration = accounts.0.path().join("pop3d.toml");
    let configure = |keys: &str| {
        let table = accounts.source(keys).replace(", ", "\n");
        fs::write(&configuration, format!("[[accounts]]\n{table}\n")).unwrap();
    };
    configure("");
    let server = Server::builder().user("own", "o").flags(["--config", configuration.to_str().unwrap()]).start();
    let before = processes(&server);
    server.signal(Signal::HUP);
    server.expect_log("INFO", "the configuration has been read again");
    configure(", at-once = 3");
    server.signal(Signal::HUP);
    server.expect_log("ERROR", "an account source with a process of its own can only be added when the server starts");
    server.log_in("ana", "secret").unwrap().quit();
    assert_eq!(processes(&server), before);
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_of_the_start_and_of_the_check() {
    let accounts = Accounts::new("ana:secret\n");
    for (text, why) in [(Some("ana:secret\n"), "no line is an account; line 1"), (None, "No such file")] {
        match text {
            Some(text) => accounts.write(text),
            None => fs::remove_file(accounts.path()).unwrap(),
        }
        let refused = accounts.builder("").refused();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && text.contains(why), "{text}");
        let (good, text) = check(&accounts);
        assert!(!good && text.contains(why), "{text}");
    }
    accounts.write("ana:{PLAIN}a\n");
    let (good, text) = check(&accounts);
    assert!(good && text.contains("users, read by a process of its own"), "{text}");
}

/// Runs `pop3d check`.
fn check(accounts: &Accounts) -> (bool, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["check", "-p", "0", "-P", "0", "-m", ".", "--accounts", &accounts.source("")]);
    let output = bounded_output(command.current_dir(accounts.0.path()));
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// As root, `pop3d check-user` asks the file through such a process, too.
#[test]
fn check_user_tells_what_the_file_says() {
    let accounts = Accounts::new("ana:{PLAIN}secret\nbroken:{NONE}x\n");
    fs::create_dir(accounts.0.path().join("ana")).unwrap();
    let source = format!("users file {}, read by a process of its own: ", accounts.path().display());
    for (name, said) in [("ana", "accepted ("), ("eve", "unknown user ("), ("broken", "line 2 cannot be used (")] {
        let mut command = Command::new(PROGRAM);
        command.args(["check-user", "--no-password", "-m", ".", "--accounts", &accounts.source(""), name]);
        let output = bounded_output(command.current_dir(accounts.0.path()));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("{source}{said}")), "{name}: {text}");
    }
}
