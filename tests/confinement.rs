//! The rights that the server gives up at its start, the rights and limits of transforms, and the maildrop's lock as
//! other programs see it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::harness::{
    Builder, ChildGuard, Client, MailRoot, NOBODY, PASSWORD, PATIENCE, PROGRAM, Server, USER, bounded_output,
    can_unshare, copy_of_program, eventually, lines_of, unshare,
};

/// Starts a server that has one small message.
fn with_mail(builder: Builder) -> Server {
    let server = builder.start();
    server.maildrop().put("1", "Subject: one\n\nbody\n");
    server
}

/// A server that sends messages through the transform `program`.
fn through(program: &str) -> Builder {
    Server::builder().flags(["-t", program])
}

/// The output of the transform `program` as RETR sends it.
#[track_caller]
fn output(program: &str, flags: &[&str]) -> String {
    let server = with_mail(through(program).flags(flags.iter().copied()));
    String::from_utf8(server.session().fetch("RETR 1")).unwrap()
}

/// A field of `/proc/PID/task/TID/status`, for each thread of the process.
fn statuses(process: u32, field: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let status = |thread: PathBuf| fs::read_to_string(thread.join("status")).unwrap();
    let value = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    threads.map(|thread| value(status(thread.unwrap().path()))).collect()
}

/// Checks that a field has this value in each thread of a server.
#[track_caller]
fn expect_in_all_threads(process: u32, field: &str, value: &str) {
    let statuses = statuses(process, field);
    assert!(statuses.len() > 998 && statuses.iter().all(|status| status == value), "{field}: {:?}", statuses[0]);
}

/// The message of a server that has refused to start.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text.lines().find_map(|line| line.strip_prefix("pop3d: ")).unwrap().to_owned()
}

// ---------------------------------------------------------------------------------------------------------------------
// The user

#[test]
fn no_thread_can_gain_rights_by_setuid() {
    for flags in [&[][..], &["--no-landlock"]] {
        let server = Server::builder().flags(flags.iter().copied()).start();
        server.session().quit();
        expect_in_all_threads(server.pid(), "NoNewPrivs", "1");
    }
}

#[test]
fn run_as_gives_up_root_for_good() {
    if !geteuid().is_root() {
        return;
    }
    let mail = MailRoot::new();
    mail.maildrop(USER).put("1", "one");
    for path in [mail.path().to_owned(), mail.path().join(USER)] {
        chown(path, Some(NOBODY), None).unwrap();
    }
    let server = through("id -G").mail(&mail).flags(["--run-as", &format!("{NOBODY}:12345")]).start();
    let mut client = server.session();
    assert_eq!(client.fetch("RETR 1"), b"12345\r\n");
    client.call("DELE 1");
    client.quit();
    assert!(server.maildrop().messages().is_empty());
    expect_in_all_threads(server.pid(), "Uid", &[NOBODY; 4].map(|user| user.to_string()).join(" "));
    expect_in_all_threads(server.pid(), "Gid", "12345 12345 12345 12345");
    expect_in_all_threads(server.pid(), "Groups", "");
    expect_in_all_threads(server.pid(), "CapEff", "0000000000000000");
    expect_in_all_threads(server.pid(), "CapPrm", "0000000000000000");
    assert!(!server.stderr().contains("running as root"), "{}", server.stderr());
}

#[test]
fn privileged_ports_are_bound_before_root_is_given_up() {
    if !geteuid().is_root() {
        return;
    }
    // In a network namespace of its own, the ports are free.
    let set_up = "ip link set lo up";
    if !can_unshare(&["--net"], set_up) {
        return;
    }
    let mail = MailRoot::new();
    fs::set_permissions(mail.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = unshare(&["--net"]);
    command.args(["bash", "-c", &format!("{set_up} && exec \"$0\" \"$@\""), PROGRAM]);
    command.args(["--run-as", "nobody", "-p", "110", "-P", "111", "-u", "ana:x", "-m"]).arg(mail.path());
    let mut server = ChildGuard(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let lines = lines_of(server.0.stdout.take().unwrap());
    let line = lines.recv_timeout(PATIENCE).expect("the server prints its addresses");
    let users = fs::read_to_string(format!("/proc/{}/status", server.0.id())).unwrap();
    assert_eq!(line, "POP3 listening on 0.0.0.0:110");
    assert!(users.contains(&format!("Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n")), "{users}");
}

#[test]
fn a_server_that_cannot_become_the_user_of_run_as_does_not_start() {
    let (program, _directory) = copy_of_program();
    let mut command = Command::new(program);
    command.args(["-p", "0", "-P", "0", "--address", "127.0.0.1", "--run-as", "54321:54321"]).current_dir("/tmp");
    if geteuid().is_root() {
        command.uid(NOBODY);
    }
    let text = refusal(&bounded_output(command.stdin(Stdio::null())));
    assert!(text.starts_with("cannot run as 54321:54321 (uid 54321, gid 54321): "), "{text}");
}

#[test]
fn a_user_of_run_as_without_access_to_the_mail_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let mail = MailRoot::new();
    fs::set_permissions(mail.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let text = refusal(&Server::builder().mail(&mail).flags(["--run-as", "54321:54321"]).refused());
    let expected = format!(
        "54321:54321 (uid 54321, gid 54321) cannot use {} as mail directory: Permission denied (os error 13)",
        mail.path().display()
    );
    assert_eq!(text, expected);
}

// ---------------------------------------------------------------------------------------------------------------------
// Landlock

#[test]
fn peep_moves_the_mail_directory_only_below_allowed_directories() {
    let (allowed, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let server = Server::builder().allow(allowed.path()).start();
    fs::create_dir(server.mail().path().join("below")).unwrap();
    let mut admin = server.admin();
    for (path, answer) in [
        (server.mail().path().join("below"), "+"),
        (server.mail().path().to_owned(), "+"),
        (allowed.path().to_owned(), "+"),
        (elsewhere.path().to_owned(), "-6"),
        (PathBuf::from("/etc"), "-6"),
        (PathBuf::from("/"), "-6"),
    ] {
        admin.send(&format!("m= {}", path.display()));
        admin.expect(answer);
    }
    assert_eq!(admin.value("m?"), allowed.path().to_str().unwrap());
    eventually("the log names the flag that allows it", || server.stderr().matches("--allow-dir").count() == 1);
    for why in ["it is /etc, which is the system's", "it is /, which is the system's"] {
        server.expect_log("WARN", why);
    }
}

#[test]
fn a_system_directory_is_refused_as_mail_directory() {
    for directory in ["/", "/etc", "/tmp/../etc", "/proc/self/cwd/../../../../../../../../usr"] {
        let text = refusal(&Server::builder().seen_from(Path::new("/tmp"), directory).refused());
        assert!(text.starts_with(&format!("cannot use {directory} as mail directory: it is /")), "{text}");
        assert!(text.ends_with("name the directory that holds a directory of mail for each user"), "{text}");
    }
    let server = Server::builder().flags(["-u", "etc:x"]).start();
    let mut admin = server.admin();
    for directory in ["/", "/etc", "/etc/../etc", "/usr/bin"] {
        admin.send(&format!("m= {directory}"));
        admin.expect("-6");
    }
    let mut client = server.pop3();
    client.login("etc", "x");
    assert_eq!(client.call("STAT"), "0 0");
}

/// Returns true if PEEP may move the mail directory to a directory that is not below the first one.
fn mail_may_be_elsewhere(flags: &[&str]) -> bool {
    let (server, elsewhere) = (Server::builder().flags(flags.iter().copied()).start(), TempDir::new().unwrap());
    let mut admin = server.admin();
    admin.send(&format!("m= {}", elsewhere.path().display()));
    match admin.line().as_str() {
        "+" => true,
        "-6" => false,
        other => panic!("{other}"),
    }
}

#[test]
fn only_a_service_is_confined_to_its_files() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    assert!(mail_may_be_elsewhere(&[]));
    assert!(mail_may_be_elsewhere(&["-t", "cat", "--transform-limit", "files=20"]));
    assert!(mail_may_be_elsewhere(&["--no-landlock"]));
    assert!(!mail_may_be_elsewhere(&["--confine"]));
    assert!(!mail_may_be_elsewhere(&["--allow-dir", path]));
    assert!(!mail_may_be_elsewhere(&["-t", "cat", "--transform-path", path]));
}

#[test]
fn the_log_says_at_the_start_whether_the_server_is_confined() {
    let quick = Server::start();
    quick.expect_log("INFO", "it can use all files that its user can use (see --confine)");
    let service = Server::builder().flags(["--confine"]).start();
    service.expect_log("INFO", "confined by Landlock to the files that it serves");
    assert!(!service.stderr().contains("--confine"), "{}", service.stderr());
}

#[test]
fn a_transform_may_write_and_move_files_if_the_server_is_not_confined() {
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (one, other) = (one.path().join("file"), other.path().join("file"));
    let program = format!("sh -c 'cat >{0} && mv {0} {1} && cat {1}'", one.display(), other.display());
    assert_eq!(output(&program, &[]), "Subject: one\r\n\r\nbody\r\n");
}

#[test]
fn a_transform_of_a_confined_server_reads_and_writes_only_allowed_files() {
    let elsewhere = TempDir::new().unwrap();
    let (secret, new) = (elsewhere.path().join("secret"), elsewhere.path().join("new"));
    fs::write(&secret, "secret\n").unwrap();
    let program = |what: &str| format!("sh -c 'exec 2>/dev/null; {what} || echo no'");
    let read = program(&format!("cat {}", secret.display()));
    let write = program(&format!("echo yes >{0} && cat {0}", new.display()));
    assert_eq!(output(&program("cat /etc/shadow"), &["--confine"]), "no\r\n");
    assert_eq!(output(&read, &["--confine"]), "no\r\n");
    assert_eq!(output(&write, &["--confine"]), "no\r\n");
    assert!(!new.exists());
    let path = elsewhere.path().to_str().unwrap();
    assert_eq!(output(&read, &["--transform-path", path]), "secret\r\n");
    assert_eq!(output(&write, &["--transform-path", path]), "no\r\n");
    assert_eq!(output(&write, &["--allow-dir", path]), "yes\r\n");
    assert_eq!(output(&write, &["--no-landlock"]), "yes\r\n");
}

/// The transform is a script in a temporary directory. It runs another script beside it and reads a file that is an
/// argument.
#[test]
fn a_transform_can_read_its_own_directory_and_its_arguments() {
    let (programs, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let script = programs.path().join("script");
    fs::write(programs.path().join("helper"), "cat \"$1\"\n").unwrap();
    fs::write(&script, "#!/bin/sh\n. \"${0%/*}/helper\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let words = data.path().join("words");
    fs::write(&words, "from a file\n").unwrap();
    assert_eq!(output(&format!("{} {}", script.display(), words.display()), &[]), "from a file\r\n");
    let limited = ["--transform-limit", "files=32"];
    assert_eq!(output(&format!("{} {}", script.display(), words.display()), &limited), "from a file\r\n");
}

#[test]
fn a_missing_transform_is_logged_at_the_start() {
    for program in ["no-such-program", "./no-such-program", "/no/such/program"] {
        let server = through(program).start();
        eventually("the log names the program", || {
            server.stderr().contains(&format!("program {program:?} was not found"))
        });
    }
}

#[test]
fn a_path_to_allow_that_does_not_exist_is_refused() {
    for (flag, value, why) in [
        ("--allow-dir", "/no/such", "cannot use /no/such for --allow-dir: No such file"),
        ("--allow-dir", PROGRAM, &format!("cannot use {PROGRAM} for --allow-dir: not a directory")),
        ("--transform-path", "/no/such", "cannot use /no/such for --transform-path: No such file"),
        ("--stats-log", "/no/such/file.csv", "cannot use /no/such for --stats-log: No such file"),
    ] {
        let text = refusal(&through("cat").flags([flag, value]).refused());
        assert!(text.starts_with(why), "{text}");
    }
}

/// A transform can neither connect by TCP nor send signals to other processes.
#[test]
fn a_transform_has_no_network_and_no_signals() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("bash -c 'exec 2>/dev/null; (exec 3<>/dev/tcp/127.0.0.1/{port}) && echo yes || echo no'");
    assert_eq!(output(&connect, &[]), "no\r\n");
    assert_eq!(output(&connect, &["--transform-network"]), "yes\r\n");
    let signal = format!("sh -c 'kill -0 {} 2>/dev/null && echo yes || echo no'", std::process::id());
    assert_eq!(output(&signal, &[]), "no\r\n");
}

// ---------------------------------------------------------------------------------------------------------------------
// Limits of transforms

#[test]
fn a_transform_has_the_limits_that_are_set() {
    let limits = "cpu=7,memory=640M,file-size=8K,files=17";
    let limits_of_the_transform =
        output("bash -c 'ulimit -t; ulimit -v; ulimit -f; ulimit -n; ulimit -Hn'", &["--transform-limit", limits]);
    assert_eq!(limits_of_the_transform, "7\r\n655360\r\n8\r\n17\r\n17\r\n");
}

#[test]
fn the_limits_of_a_transform_do_not_apply_to_the_server() {
    let server = with_mail(through("cat").flags(["--transform-limit", "files=9", "--transform-limit", "cpu=1"]));
    assert_eq!(server.session().fetch("RETR 1"), b"Subject: one\r\n\r\nbody\r\n");
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max cpu time              unlimited")), "{limits}");
}

#[test]
fn a_transform_beyond_its_limits_fails() {
    for (program, limit) in [
        ("sh -c 'while :; do :; done'", "cpu=1"),
        ("python3 -c 'bytearray(10**9)'", "memory=400M"),
        ("no-such-program", "cpu=1"),
    ] {
        let server = with_mail(through(program).flags(["--transform-limit", limit]));
        let text = server.session().refused("RETR 1");
        assert!(text.starts_with("[SYS/TEMP]"), "{program}: {text}");
    }
}

/// The kernel counts the server's threads for the same user. They do not count against the transform's limit.
#[test]
fn the_limit_of_processes_does_not_count_the_servers_threads() {
    // No other test uses this user, because the kernel counts all processes of a user.
    const OWN_USER: u32 = NOBODY - 2;
    let fork = r#"python3 -c "
import os, signal
children = 0
try:
    while children < 50:
        if os.fork() == 0:
            signal.pause()
        children += 1
except BlockingIOError:
    pass
print(children)
""#;
    let server = with_mail(through(fork).flags(["--transform-limit", "processes=5"]).unprivileged_as(OWN_USER));
    if geteuid().is_root() {
        assert_eq!(server.session().fetch("RETR 1"), b"4\r\n");
    }

    let server = with_mail(through("bash -c 'ulimit -u'").flags(["--transform-limit", "processes=5"]));
    // A session is served only after all threads were started.
    let limit = server.session().fetch("RETR 1");
    let threads = statuses(server.pid(), "Pid").len();
    assert_eq!(String::from_utf8(limit).unwrap(), format!("{}\r\n", threads + 5));
}

#[test]
fn malformed_limits_are_refused() {
    for limit in ["cpu", "cpu=x", "speed=1", "cpu=1,memory"] {
        let output = through("cat").flags(["--transform-limit", limit]).refused();
        assert_eq!(output.status.code(), Some(2), "{limit}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The lock

/// Checks that a login is refused because the maildrop is in use.
#[track_caller]
fn expect_in_use(server: &Server) {
    let mut client = server.pop3();
    client.call(&format!("USER {USER}"));
    let text = client.refused(&format!("PASS {PASSWORD}"));
    assert!(text.starts_with("[IN-USE]"), "{text}");
}

#[test]
fn a_maildrop_is_locked_for_other_servers() {
    let mail = MailRoot::new();
    let one = with_mail(Server::builder().mail(&mail));
    let other = Server::builder().mail(&mail).start();
    let session = one.session();
    expect_in_use(&other);
    session.quit();
    let session = other.session();
    expect_in_use(&one);
    drop(session);
    one.session().quit();
    let says = fs::read_to_string(one.maildrop().path(".pop3d-lock")).unwrap();
    assert!(says.starts_with("host=") && says.contains(&format!(" pid={} session=", one.pid())), "{says}");
}

#[test]
fn the_lock_of_a_killed_server_is_free() {
    let mail = MailRoot::new();
    let mut one = with_mail(Server::builder().mail(&mail));
    let other = Server::builder().mail(&mail).start();
    let _session = one.session();
    expect_in_use(&other);
    one.signal(Signal::KILL);
    one.wait();
    other.session().quit();
}

/// Another program that holds the maildrop's lock.
struct Locker(ChildGuard);

impl Locker {
    /// Starts the program and waits until it has the lock.
    fn lock(file: &Path) -> Self {
        let script = "import fcntl, struct, sys\n\
            file = open(sys.argv[1], 'a')\n\
            fcntl.fcntl(file, 37, struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 0, 0))\n\
            print('locked', flush=True)\n\
            sys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = ChildGuard(command.spawn().unwrap());
        let lines = lines_of(child.0.stdout.take().unwrap());
        assert_eq!(lines.recv_timeout(PATIENCE).as_deref(), Ok("locked"));
        Self(child)
    }

    fn unlock(self) {
        drop(self.0);
    }
}

#[test]
fn other_programs_can_take_the_lock() {
    let server = with_mail(Server::builder());
    let locker = Locker::lock(&server.maildrop().path(".pop3d-lock"));
    expect_in_use(&server);
    // The lock is released within the time that a login waits.
    let mut client = server.pop3();
    client.send_all([&*format!("USER {USER}"), &*format!("PASS {PASSWORD}")]);
    client.ok();
    locker.unlock();
    client.ok();
}

#[test]
fn processes_that_a_transform_leaves_do_not_keep_the_lock() {
    let mail = MailRoot::new();
    let notes = TempDir::new().unwrap();
    let note = notes.path().join("note");
    // The process leaves the transform's process group, so the server does not end it.
    let program = format!("sh -c 'setsid sleep 20 >/dev/null 2>&1 & echo $! >{}; cat'", note.display());
    let one = with_mail(through(&program).mail(&mail).allow(notes.path()));
    let other = Server::builder().mail(&mail).start();
    let mut client = one.session();
    client.fetch("RETR 1");
    client.quit();
    other.session().quit();
    let left = fs::read_to_string(&note).unwrap();
    let _ = Command::new("kill").arg(left.trim()).status();
}

/// Messages of a maildrop that cannot be locked can be read and not removed.
#[test]
fn a_maildrop_that_cannot_be_locked_is_read_only() {
    for (name, unwritable) in [("1", ""), ("new/1000000000.a", "cur")] {
        let server = Server::builder().unprivileged().start();
        let maildrop = server.maildrop();
        maildrop.put(name, "one\r\n");
        let directory = maildrop.path(unwritable);
        if geteuid().is_root() {
            chown(&directory, Some(0), Some(0)).unwrap();
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).unwrap();
        let mut client = server.session();
        assert_eq!(client.fetch("RETR 1"), b"one\r\n");
        assert_eq!(client.refused("DELE 2"), "no such message");
        assert_eq!(client.refused("DELE 1"), "[SYS/PERM] the maildrop is read-only: the server cannot lock it");
        client.quit();
        server.expect_log("WARN", "cannot be locked, so its messages can be read and not deleted");
        assert_eq!(maildrop.messages(), [name]);
        assert!(!directory.join(".pop3d-lock").exists());
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// The user's directory belongs to root and its folders to an unprivileged user. Two servers run as that user and one
/// as root.
#[test]
fn servers_of_different_users_share_one_lock() {
    if !geteuid().is_root() {
        return;
    }
    for root_is_first in [false, true] {
        let mail = MailRoot::new();
        let ordinary = || Server::builder().mail(&mail).unprivileged().start();
        let (one, other) = (ordinary(), ordinary());
        let root = Server::builder().mail(&mail).start();
        let maildrop = mail.maildrop(USER);
        maildrop.put("new/1000000000.a", "one\r\n");
        for folder in ["new", "cur"] {
            chown(maildrop.path(folder), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let servers = if root_is_first { [&root, &one, &other] } else { [&one, &other, &root] };
        for holder in servers {
            let session = holder.session();
            for server in servers.into_iter().filter(|server| server.pid() != holder.pid()) {
                expect_in_use(server);
            }
            session.quit();
        }
        let mut session = one.session();
        session.call("DELE 1");
        session.quit();
        assert!(maildrop.messages().is_empty());
    }
}

/// A server that runs as root gives its files to the mail's owner, so that a server with --run-as can use them. Files
/// that belong to root, as earlier versions have left them, do not stop such a server.
#[test]
fn files_left_by_a_server_run_as_root_can_be_used_by_run_as() {
    if !geteuid().is_root() {
        return;
    }
    for (name, folder) in [("1", ""), ("new/1000000000.a", "cur")] {
        let mail = MailRoot::new();
        let maildrop = mail.maildrop(USER);
        maildrop.put(name, "one\r\n");
        maildrop.set_modified(name, 1_000_000_000);
        maildrop.put(&format!("{name}2"), "two\r\n");
        for path in [mail.path().to_owned(), maildrop.path(""), maildrop.path("new"), maildrop.path("cur")] {
            if path.exists() {
                chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let lock = maildrop.path(folder).join(".pop3d-lock");
        let index = maildrop.path(".pop3d-index");
        let ordinary = || Server::builder().mail(&mail).flags(["--run-as", &NOBODY.to_string()]).start();
        Server::builder().mail(&mail).start().session().quit();
        // A flat maildrop gets no index while its messages have just been written.
        let left: Vec<_> = [&lock, &index].into_iter().filter(|path| path.exists()).collect();
        assert!(left.contains(&&lock) && (folder.is_empty() || left.len() == 2));
        for path in &left {
            let made = fs::metadata(path).unwrap();
            assert_eq!((made.uid(), made.gid()), (NOBODY, NOBODY), "{}", path.display());
        }
        let server = ordinary();
        let mut session = server.session();
        session.call("DELE 1");
        session.quit();
        drop(server);
        for path in left {
            chown(path, Some(0), Some(0)).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        let server = ordinary();
        let mut session = server.session();
        assert_eq!(session.fetch("RETR 1"), b"two\r\n");
        session.call("DELE 1");
        session.quit();
        assert!(maildrop.messages().is_empty());
        assert_eq!(fs::metadata(&lock).unwrap().uid(), NOBODY);
    }
}

/// Without the lock file, another server may have locked the maildrop meanwhile.
#[test]
fn a_session_whose_lock_file_was_removed_removes_nothing() {
    let server = with_mail(Server::builder());
    let mut client = server.session();
    client.call("DELE 1");
    fs::remove_file(server.maildrop().path(".pop3d-lock")).unwrap();
    assert_eq!(client.refused("QUIT"), "[SYS/TEMP] some deleted messages were not removed");
    server.expect_log(
        "ERROR",
        "no message is removed: the maildrop's lock file was deleted or replaced during the session",
    );
    assert_eq!(server.maildrop().messages(), ["1"]);
}

#[test]
fn a_login_is_refused_if_the_lock_file_is_a_directory() {
    let server = with_mail(Server::builder());
    fs::create_dir(server.maildrop().path(".pop3d-lock")).unwrap();
    let mut client = server.pop3();
    client.call(&format!("USER {USER}"));
    assert!(client.refused(&format!("PASS {PASSWORD}")).starts_with("[SYS/"));
    eventually("the log has the reason", || server.stderr().contains(".pop3d-lock\" cannot be used for locking"));
}

/// Many clients log in as one user on two servers. There are never two sessions at the same time.
#[test]
fn two_servers_never_serve_one_maildrop_at_the_same_time() {
    let mail = MailRoot::new();
    let servers = [with_mail(Server::builder().mail(&mail)), Server::builder().mail(&mail).start()];
    let inside = parking_lot::Mutex::new(());
    thread::scope(|scope| {
        for round in 0..6 {
            let (address, inside) = (servers[round % 2].pop3_address(), &inside);
            scope.spawn(move || {
                for _ in 0..5 {
                    let mut client = Client::connect(address);
                    client.ok();
                    client.call(&format!("USER {USER}"));
                    client.send(&format!("PASS {PASSWORD}"));
                    if client.line().starts_with("+OK") {
                        let only_session = inside.try_lock().expect("no other session is open");
                        client.call("STAT");
                        drop(only_session);
                        client.quit();
                    }
                }
            });
        }
    });
}
