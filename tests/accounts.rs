//! Accounts: reading, changing and writing the users file, `pop3d passwd`, and logins by AUTH and APOP.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use md5::{Digest, Md5};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{ChildGuard, Client, PASSWORD, PATIENCE, PROGRAM, Server, USER, eventually, lines_of};

/// Hashes of the password `secret`, made by `doveadm pw` of Dovecot 2.3.19. They take few rounds, because tests run a
/// build without optimisation.
const SHA512_CRYPT: &str = "{SHA512-CRYPT}$6$0miakcR2CiTv2ytv$2zqgEFMO0wDI6Kv8Q0RnhIJaCgIOcbTfL5rWXE3/SYimWJdSjztXpM70D7zX\
     sqjHyiS5/1PRn6wpkKmCSwNdf0";
const BLF_CRYPT: &str = "{BLF-CRYPT}$2y$05$fo4ZtJ06qtxQCNjuaPwbYObJC/5Td6vfua19SxBVXAyn6p2g/5QLS";
const SSHA256: &str = "{SSHA256}ZDtM04yJhDY6o7/GS4HA/TqIBkLbuNo5InfxYBdOPtU1+JbZ";
const SCRAM: &str = "{SCRAM-SHA-256}4096,kVyMtzthNJKcB4iTArdbfg==,oAjq4OZgkXOEbdCc+FrvJlspIEF67yNfbYQXF3nNb1I=,\
     Ejg4meCK0byKwE+2GPFB3ZmqQvmZheu5Xe1rhGelJJc=";

/// A users file in a directory of its own.
struct UsersFile {
    _directory: TempDir,
    path: PathBuf,
}

impl UsersFile {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("users");
        let file = Self { _directory: directory, path };
        file.write(text);
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    fn serve(&self) -> Server {
        Server::builder().users_file(&self.path).start()
    }

    /// Writes the file with an old modification time, as `cp -p` does, so that the server takes it for complete.
    fn write(&self, text: impl AsRef<[u8]>) {
        fs::write(&self.path, text).unwrap();
        let yesterday = SystemTime::now() - Duration::from_secs(86_400);
        File::open(&self.path).unwrap().set_modified(yesterday).unwrap();
    }

    /// Writes the file in place line by line, as a slow program does, and calls `between` after each line.
    fn write_slowly(&self, text: &str, mut between: impl FnMut(usize)) {
        let mut file = File::create(&self.path).unwrap();
        for (number, line) in text.split_inclusive('\n').enumerate() {
            file.write_all(line.as_bytes()).unwrap();
            between(number);
        }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }
}

/// Returns true if this user can log in.
#[track_caller]
fn can_log_in(server: &Server, name: &str, password: &str) -> bool {
    let mut client = server.pop3();
    client.call(&format!("USER {name}"));
    client.send(&format!("PASS {password}"));
    let line = client.line();
    assert!(line.starts_with("+OK ") || line.starts_with("-ERR [AUTH] "), "{line}");
    line.starts_with("+OK ")
}

/// Sends a PEEP command and expects this answer.
#[track_caller]
fn peep(admin: &mut Client, command: &str, answer: &str) {
    admin.send(command);
    admin.expect(answer);
}

// ---------------------------------------------------------------------------------------------------------------------
// The users file

#[test]
fn passwords_of_every_scheme_are_accepted() {
    let fields =
        [SHA512_CRYPT, BLF_CRYPT, SSHA256, SCRAM, "{PLAIN}secret", "{PLAIN.b64}c2VjcmV0:1:1::/home::", "{CLEAR}secret"];
    let lines: String = fields.iter().enumerate().map(|(n, field)| format!("user{n}:{field}\n")).collect();
    let file = UsersFile::new(lines);
    let server = file.serve();
    for (n, field) in fields.iter().enumerate() {
        let name = format!("user{n}");
        // The second login uses the remembered result of the first verification.
        assert!(can_log_in(&server, &name, "secret") && can_log_in(&server, &name, "secret"), "{field}");
        assert!(!can_log_in(&server, &name, "Secret"), "{field}");
    }
    assert!(!can_log_in(&server, "user99", "secret"));
}

#[test]
fn a_line_without_a_known_scheme_is_logged_and_the_other_lines_count() {
    let file = UsersFile::new("# users\nana:hunter2\nbob:{PLAIN}b\neve:{MD5}hunter2\n");
    let server = file.serve();
    assert!(can_log_in(&server, "bob", "b"));
    assert!(!can_log_in(&server, "ana", "hunter2"));
    let path = file.path.display();
    eventually("the log has a line for each of the two", || {
        let stderr = server.stderr();
        stderr.contains(&format!("{path} line 2: the password has no {{SCHEME}} in front"))
            && stderr.contains(&format!("{path} line 4: the scheme \"MD5\" is not supported"))
    });
    assert!(!server.stderr().contains("hunter2"));
}

#[test]
fn a_server_with_an_unusable_users_file_does_not_start() {
    let directory = TempDir::new().unwrap();
    let nothing = directory.path().join("nothing");
    let file = UsersFile::new("hunter2\n");
    for path in [&nothing, directory.path(), &file.path] as [&Path; 3] {
        let output = Server::builder().users_file(path).refused();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let start = format!("pop3d: cannot use {} as users file: ", path.display());
        assert!(stderr.starts_with(&start) && stderr.lines().count() == 1 && !stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn a_users_file_that_others_can_read_gets_a_warning() {
    let file = UsersFile::new("ana:{PLAIN}a\n");
    let own = file.serve();
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644)).unwrap();
    let server = file.serve();
    eventually("the log has the warning", || server.stderr().contains("other users can read or write"));
    assert!(!own.stderr().contains("by others"));
}

#[test]
fn a_changed_users_file_is_read_again() {
    let file = UsersFile::new("ana:{PLAIN}a\n");
    let server = file.serve();
    let mut admin = server.admin();
    assert!(can_log_in(&server, "ana", "a"));
    file.write("ana:{PLAIN}b\nbob:{PLAIN}b\n");
    assert!(!can_log_in(&server, "ana", "a") && can_log_in(&server, "ana", "b") && can_log_in(&server, "bob", "b"));
    assert_eq!(admin.values("u?"), ["ana", "bob"]);

    // A file that cannot be used changes no account, and is logged once.
    file.write("# cut off by a full disk\n");
    assert!(can_log_in(&server, "ana", "b") && can_log_in(&server, "bob", "b"));
    peep(&mut admin, "u+ eve e", "-8");
    file.write("\0\0\0\n");
    assert!(can_log_in(&server, "ana", "b") && can_log_in(&server, "bob", "b"));
    fs::remove_file(&file.path).unwrap();
    assert!(can_log_in(&server, "ana", "b") && can_log_in(&server, "bob", "b"));
    file.write("bob:{PLAIN}c\n");
    assert!(!can_log_in(&server, "ana", "b") && can_log_in(&server, "bob", "c"));
    eventually("the log says that the file can be used", || server.stderr().contains("can be used again"));
    assert_eq!(server.stderr().matches("cannot be used, the accounts stay as they were").count(), 3);

    // PEEP may delete the last one.
    peep(&mut admin, "u- bob", "+");
    assert!(!can_log_in(&server, "bob", "c"));
    assert_eq!(file.text(), "");
}

/// Two hundred accounts, each with the password `secret`.
fn two_hundred() -> String {
    (0..200).map(|number| format!("user{number}:{{PLAIN}}secret\n")).collect()
}

/// While another program empties the file and writes it again, all accounts of the old file can log in.
#[test]
fn accounts_can_log_in_while_their_file_is_written_in_place() {
    let file = UsersFile::new(two_hundred());
    let server = file.serve();
    file.write_slowly(&two_hundred(), |number| {
        if number % 20 == 0 {
            let written = Instant::now();
            let all = ["user0", "user99", "user199"].iter().all(|name| can_log_in(&server, name, "secret"));
            // A file that nothing has been written to for two seconds counts as whole.
            assert!(all || written.elapsed() > Duration::from_secs(1), "{number}");
        }
    });
    // If the program stops in the middle, its file counts after a while, and the log says how many accounts are
    // missing.
    file.write_slowly(&two_hundred()[..two_hundred().len() / 2], |_| {});
    eventually("the incomplete file counts", || !can_log_in(&server, "user199", "secret"));
    assert!(can_log_in(&server, "user0", "secret"));
    server.expect_log("WARN", "of the 200 accounts that it had");
}

/// A change by PEEP waits until the other program has written the file. If that takes too long, it changes nothing.
#[test]
fn a_change_while_another_program_writes_the_file_loses_no_account() {
    for command in ["u+ eve e", "u- user199"] {
        let file = UsersFile::new(two_hundred());
        let server = file.serve();
        let mut admin = server.admin();
        let path = file.path.clone();
        file.write_slowly(&two_hundred(), |number| {
            if number == 100 {
                admin.send(command);
            }
            if number > 100 {
                // This is the pace of the other program: a server that does not wait for it would change the file now.
                thread::sleep(Duration::from_millis(5));
            }
        });
        // On a very busy machine the server may have waited for too long and have given up.
        let deadline = Instant::now() + 2 * PATIENCE;
        while admin.line() == "-8" {
            assert!(Instant::now() < deadline, "the server never changes the file");
            assert_eq!(fs::read_to_string(&path).unwrap(), two_hundred());
            admin.send(command);
        }
        let text = file.text();
        match command {
            "u- user199" => assert_eq!(text + "user199:{PLAIN}secret\n", two_hundred()),
            _ => assert!(text.starts_with(&two_hundred()) && text.lines().count() == 201, "{text}"),
        }
        assert!(can_log_in(&server, "user198", "secret"));
    }
}

/// PEEP refuses to change a file that another program does not stop writing. Logins and other admins do not wait
/// meanwhile.
#[test]
fn a_file_that_is_written_all_the_time_is_not_changed() {
    let file = UsersFile::new(two_hundred());
    let server = file.serve();
    let (mut admin, mut other) = (server.admin(), server.admin());
    let mut writer = File::options().append(true).open(&file.path).unwrap();
    let writing = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + 2 * PATIENCE;
            while writing.load(Ordering::Relaxed) && Instant::now() < deadline {
                writer.write_all(b"# more\n").unwrap();
                thread::sleep(Duration::from_millis(20)); // This is the pace of the other program.
            }
        });
        admin.send("u+ eve e");
        assert!(can_log_in(&server, "user0", "secret"));
        assert_eq!(other.values("u?").len(), 200);
        let answer = admin.line();
        writing.store(false, Ordering::Relaxed);
        assert_eq!(answer, "-8");
    });
    server.expect_log("ERROR", "the users file cannot be changed: another program is writing it");
    assert!(!file.text().contains("eve"));
}

#[test]
fn a_byte_order_mark_is_skipped_with_a_warning() {
    let file = UsersFile::new("\u{feff}ana:{PLAIN}a\nbob:{PLAIN}b\n");
    let server = file.serve();
    assert!(can_log_in(&server, "ana", "a") && can_log_in(&server, "bob", "b"));
    server.expect_log("WARN", "begins with a byte order mark, which is skipped");
    let mut admin = server.admin();
    assert_eq!(admin.values("u?"), ["ana", "bob"]);
    peep(&mut admin, "u+ ana x", "-3");
    peep(&mut admin, "u- ana", "+");
    assert_eq!(file.text(), "\u{feff}bob:{PLAIN}b\n");
}

#[test]
fn a_server_without_users_says_so() {
    let file = UsersFile::new("# nobody yet\n");
    let server = file.serve();
    peep(&mut server.admin(), "u+ ana a", "+");
    assert!(can_log_in(&server, "ana", "a"));
    let text = format!("[WARN] {} has no users yet\n", file.path.display());
    eventually("the log has the warning", || server.stderr().contains(&text));
    assert!(!file.serve().stderr().contains("no users"));

    let mut command = Command::new(PROGRAM);
    command.args(["-p", "0", "-P", "0", "--address", "127.0.0.1"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = ChildGuard(command.spawn().unwrap());
    let lines = lines_of(child.0.stderr.take().unwrap());
    let mut log = std::iter::from_fn(|| lines.recv_timeout(PATIENCE).ok());
    assert!(log.any(|line| line.contains("there are no users")));
}

/// Each verification takes 19 MiB. A login that waits for its verification has none of this memory yet, and one whose
/// verification has ended has released it.
#[test]
fn many_wrong_passwords_take_the_memory_of_a_few() {
    const CLIENTS: usize = 64;
    let field = String::from_utf8(passwd(&[], "secret\n").stdout).unwrap();
    let file = UsersFile::new(format!("ana:{field}"));
    let server = file.serve();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.pop3()).collect();
    for client in &mut clients {
        client.send_all(["USER ana", "PASS wrong"]);
    }
    for client in &mut clients {
        client.ok();
        client.err();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 600 << 10, "{peak} KiB; all verifications at once would take 1,216 MiB");
}

/// PEEP writes its changes to the users file, where the next server finds them, and keeps the rest of the file as it
/// was.
#[test]
fn users_that_peep_adds_survive_a_restart() {
    let before = "# ours\r\n\nbob:{PLAIN}b:1000:1000:Bob,,:/home/bob:/bin/sh:userdb_quota=1G\nnonsense\n#end";
    let file = UsersFile::new(before);
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o640)).unwrap();
    let mut server = Server::builder().users_file(&file.path).user("own", "o").start();
    let mut admin = server.admin();
    peep(&mut admin, "u+ ana s:e{c}ret", "+");
    assert!(can_log_in(&server, "ana", "s:e{c}ret"));
    for taken in ["ana", "bob", "own", "nonsense"] {
        peep(&mut admin, &format!("u+ {taken} x"), "-3");
    }
    assert_eq!(admin.values("u?"), ["ana", "bob", "own"]);
    peep(&mut admin, "u- own", "+");
    peep(&mut admin, "u- own", "-4");
    peep(&mut admin, "u+ #x x", "-1");
    let text = file.text();
    let added = text.strip_prefix(before).unwrap().strip_prefix("\nana:{ARGON2ID}$argon2id$v=19$").unwrap();
    assert!(added.ends_with('\n') && added.lines().count() == 1, "{text}");
    assert_eq!(fs::metadata(&file.path).unwrap().mode() & 0o7777, 0o640);

    server.signal(Signal::KILL);
    server.wait();
    let server = file.serve();
    let mut admin = server.admin();
    assert!(can_log_in(&server, "ana", "s:e{c}ret"));
    assert!(!can_log_in(&server, "ana", "s:e{c}re") && !can_log_in(&server, "own", "o"));
    assert_eq!(admin.values("u?"), ["ana", "bob"]);
    peep(&mut admin, "u- ana", "+");
    assert!(!can_log_in(&server, "ana", "s:e{c}ret"));
    assert_eq!(file.text(), format!("{before}\n"));
}

#[test]
fn peep_answers_minus_8_if_the_users_file_cannot_be_written() {
    let file = UsersFile::new("ana:{PLAIN}a\n");
    let server = file.serve();
    let mut admin = server.admin();
    fs::remove_file(&file.path).unwrap();
    peep(&mut admin, "u+ bob b", "-8");
    peep(&mut admin, "u- ana", "-8");
    assert_eq!(admin.values("u?"), ["ana"]);
    file.write("ana:{PLAIN}a\n");
    peep(&mut admin, "u+ bob b", "+");
    assert!(can_log_in(&server, "bob", "b"));
}

/// A server that is killed while it writes the file, or right after that, leaves the old file or the new one. The file
/// has every user whose addition was answered by `+`.
#[test]
fn a_killed_server_leaves_a_whole_users_file() {
    let before = "# kept\nbob:{PLAIN}b\n";
    let file = UsersFile::new(before);
    let new = file.path.with_file_name("users.new");
    let mut confirmed = vec!["bob".to_owned()];
    for round in 0..20 {
        let mut server = file.serve();
        let mut admin = server.admin();
        peep(&mut admin, &format!("u+ first{round} secret"), "+");
        confirmed.push(format!("first{round}"));
        let inode = fs::metadata(&file.path).unwrap().ino();
        admin.send(&format!("u+ second{round} secret"));
        let deadline = Instant::now() + PATIENCE;
        let is_replaced = || fs::metadata(&file.path).unwrap().ino() != inode;
        while if round % 2 == 0 { !new.exists() && !is_replaced() } else { !is_replaced() } {
            assert!(Instant::now() < deadline, "the server does not write the file");
        }
        server.signal(Signal::KILL);
        server.wait();
        let text = file.text();
        assert!(text.starts_with(before) && text.ends_with('\n'), "{text}");
        for line in text.lines().skip(2) {
            let whole = line.split_once(":{ARGON2ID}$argon2id$v=19$").is_some_and(|(_, rest)| rest.len() == 82);
            assert!(whole, "{line}");
        }
    }
    let server = file.serve();
    let names = server.admin().values("u?");
    assert!(confirmed.iter().all(|name| names.contains(name)), "{confirmed:?} {names:?}");
    assert!(can_log_in(&server, &confirmed[confirmed.len() - 1], "secret"));
    // The next change succeeds in spite of the file that the crash has left, and removes it.
    peep(&mut server.admin(), "u+ last secret", "+");
    assert!(!new.exists());
}

#[test]
fn two_servers_can_add_users_to_one_file() {
    const EACH: usize = 10;
    let file = UsersFile::new("");
    let servers = [file.serve(), file.serve()];
    let mut admins = [servers[0].admin(), servers[1].admin()];
    for (which, admin) in admins.iter_mut().enumerate() {
        let commands: Vec<String> = (0..EACH).map(|n| format!("u+ user{which}-{n} secret")).collect();
        admin.send_all(commands.iter().map(String::as_str));
    }
    for admin in &mut admins {
        (0..EACH).for_each(|_| admin.expect("+"));
    }
    for admin in &mut admins {
        assert_eq!(admin.values("u?").len(), 2 * EACH);
    }
    assert!(can_log_in(&servers[0], "user1-0", "secret") && can_log_in(&servers[1], "user0-0", "secret"));
}

// ---------------------------------------------------------------------------------------------------------------------
// pop3d passwd

/// Runs `pop3d passwd` with this input, and kills it after a minute.
fn passwd(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("timeout")
        .args(["-s", "KILL", "60", PROGRAM, "passwd"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // This fails if the program has refused its arguments and has ended without reading a password.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn passwd_prints_password_fields_that_the_users_file_accepts() {
    let schemes = ["", "argon2id", "BLF-CRYPT", "SHA512-CRYPT", "SCRAM-SHA-256", "PLAIN"];
    let mut lines = String::new();
    for (n, scheme) in schemes.iter().enumerate() {
        let arguments: &[&str] = if scheme.is_empty() { &[] } else { &["--scheme", scheme] };
        let output = passwd(arguments, "a b:c\n");
        assert!(output.status.success() && output.stderr.is_empty(), "{scheme} {output:?}");
        lines += &format!("user{n}:{}", String::from_utf8(output.stdout).unwrap());
    }
    assert_eq!(lines.lines().count(), schemes.len());
    let file = UsersFile::new(lines);
    let server = file.serve();
    for (n, scheme) in schemes.iter().enumerate() {
        assert!(can_log_in(&server, &format!("user{n}"), "a b:c"), "{scheme}");
    }
}

#[test]
fn passwd_refuses_unusable_passwords_and_unknown_schemes() {
    let longest = "x".repeat(72);
    assert!(passwd(&["--scheme", "BLF-CRYPT"], &longest).status.success());
    for (scheme, input, why) in [
        ("ARGON2ID", "\n", "the password is empty"),
        ("PLAIN", "\r\n", "the password is empty"),
        ("PLAIN", "", "the password is empty"),
        ("BLF-CRYPT", &format!("{longest}x"), "the scheme takes 72 octets of a password, and this one has 73"),
    ] {
        let output = passwd(&["--scheme", scheme], input);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{scheme}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("pop3d: {why}\n"));
    }
    for arguments in [&["--scheme", "MD5"][..], &["hunter2"], &["--", "hunter2"]] {
        let output = passwd(arguments, "hunter2\n");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(!String::from_utf8(output.stderr).unwrap().contains("hunter2"), "{arguments:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// AUTH and APOP

fn plain(name: &str, password: &str) -> String {
    BASE64.encode(format!("\0{name}\0{password}"))
}

fn apop(client: &mut Client, greeting: &str, name: &str, password: &str) -> String {
    let timestamp = &greeting[greeting.find('<').expect(greeting)..];
    let digest: String =
        Md5::digest(format!("{timestamp}{password}")).iter().map(|octet| format!("{octet:02x}")).collect();
    client.send(&format!("APOP {name} {digest}"));
    client.line()
}

#[test]
fn auth_plain_works_with_and_without_an_initial_response() {
    let server = Server::start();
    let mut client = server.pop3();
    client.call(&format!("AUTH PLAIN {}", plain(USER, PASSWORD)));
    client.call("STAT");
    client.quit();

    let mut client = server.pop3();
    client.send("AUTH PLAIN");
    client.expect("+ ");
    client.send(&plain(USER, "wrong"));
    assert!(client.err().starts_with("[AUTH] "));
    client.send("auth plain");
    client.expect("+ ");
    client.call(&plain(USER, PASSWORD));
    client.quit();

    // The client sends all lines in one segment.
    let mut client = server.pop3();
    client.send_all(["CAPA", "AUTH PLAIN", &plain(USER, PASSWORD), "STAT", "QUIT"]);
    client.ok();
    client.multiline();
    client.expect("+ ");
    (0..3).for_each(|_| drop(client.ok()));
    client.closed();
}

/// draft-murchison-sasl-login section 2: the server asks for the name, unless the command has it, and for the password.
#[test]
fn auth_login_works_with_and_without_the_name_in_the_command() {
    let server = Server::start();
    let mut client = server.pop3();
    client.send(&format!("auth login {}", BASE64.encode(USER)));
    client.expect("+ UGFzc3dvcmQ6");
    client.call(&BASE64.encode(PASSWORD));
    client.call("STAT");
    client.quit();

    let mut client = server.pop3();
    let mut refused = Vec::new();
    for (name, password) in [(USER, "wrong"), ("nobody", PASSWORD)] {
        client.send("AUTH LOGIN");
        client.expect("+ VXNlcm5hbWU6");
        client.send(&BASE64.encode(name));
        client.expect("+ UGFzc3dvcmQ6");
        client.send(&BASE64.encode(password));
        refused.push(client.err());
    }
    assert!(refused[0].starts_with("[AUTH] ") && refused[0] == refused[1], "{refused:?}");
    client.send_all(["AUTH LOGIN", &BASE64.encode(USER), &BASE64.encode(PASSWORD), "STAT", "QUIT"]);
    client.expect("+ VXNlcm5hbWU6");
    client.expect("+ UGFzc3dvcmQ6");
    (0..3).for_each(|_| drop(client.ok()));
    client.closed();
}

/// RFC 4616 section 2: each part may have 255 octets or more. In base64 the response is longer than any command line.
#[test]
fn auth_plain_accepts_a_response_longer_than_a_command_line() {
    let (name, password) = ("n".repeat(128), "p".repeat(1200));
    let file = UsersFile::new(format!("{name}:{{PLAIN}}{password}\n"));
    let server = file.serve();
    let mut client = server.pop3();
    client.send("AUTH PLAIN");
    client.expect("+ ");
    client.call(&BASE64.encode(format!("{name}\0{name}\0{password}")));
    client.quit();
}

/// RFC 4616 section 2: a client may ask to act as another user. No user is authorized to do that here.
#[test]
fn auth_plain_refuses_another_authorization_identity() {
    let server = Server::builder().user(USER, PASSWORD).user("other", "pass").start();
    let mut client = server.pop3();
    let text = client.refused(&format!("AUTH PLAIN {}", BASE64.encode(format!("other\0{USER}\0{PASSWORD}"))));
    assert!(text.starts_with("[AUTH] "));
    client.call(&format!("AUTH PLAIN {}", BASE64.encode(format!("{USER}\0{USER}\0{PASSWORD}"))));
    assert_eq!(server.admin().values("cu?"), [USER]);
}

/// RFC 1939 section 7, APOP: the digest is made of the greeting's timestamp, which is another one in each connection.
#[test]
fn apop_accepts_only_a_digest_of_this_connections_timestamp() {
    let server = Server::start();
    let connect = || {
        let mut client = Client::connect(server.pop3_address());
        let greeting = client.line();
        (client, greeting)
    };
    let (_, other_greeting) = connect();
    for (name, password) in [(USER, "wrong"), ("nobody", PASSWORD), ("..", "")] {
        let (mut client, greeting) = connect();
        assert_ne!(greeting, other_greeting);
        assert_eq!(apop(&mut client, &greeting, name, password), "-ERR [AUTH] wrong user name or password");
    }
    let (mut client, greeting) = connect();
    assert_eq!(apop(&mut client, &other_greeting, USER, PASSWORD), "-ERR [AUTH] wrong user name or password");
    let line = apop(&mut client, &greeting, USER, PASSWORD);
    assert!(line.starts_with("+OK"), "{line}");
    client.call("STAT");
    client.quit();
    eventually("the log has a line for each failure", || server.stderr().matches("login failed").count() == 4);
}

/// A mechanism is announced only if every account can use it: APOP by the greeting's timestamp, the others by CAPA.
#[test]
fn only_mechanisms_that_all_accounts_can_use_are_announced() {
    let mixed = format!("{SSHA256}\nbob:{{PLAIN}}secret");
    for (text, apop, scram) in [
        ("", false, false),
        (SSHA256, false, false),
        (&mixed, false, false),
        (SCRAM, false, true),
        ("{PLAIN}secret", true, true),
    ] {
        let file = UsersFile::new(if text.is_empty() { String::new() } else { format!("ana:{text}\n") });
        let server = file.serve();
        let mut client = Client::connect(server.pop3_address());
        assert_eq!(client.line().contains('<'), apop, "{text}");
        let sasl = if scram { "SASL PLAIN LOGIN SCRAM-SHA-256" } else { "SASL PLAIN LOGIN" };
        assert!(client.listing("CAPA").contains(&sasl.to_owned()), "{text}");
        let mechanisms: Vec<&str> = sasl.split(' ').skip(1).collect();
        assert_eq!(client.listing("AUTH"), mechanisms, "{text}");
        if !scram {
            assert_eq!(client.refused("AUTH SCRAM-SHA-256"), "unknown mechanism, see CAPA");
        }
        if !apop {
            client.refused("APOP ana c4c9334bac560ecc979e58001b3e22fb");
        }
    }
}

/// RFC 5802 section 5.1: the server sends a salt to unknown users as well, the same one each time.
#[test]
fn scram_does_not_reveal_which_users_exist() {
    let file = UsersFile::new(format!("ana:{SCRAM}\nbob:{{PLAIN}}b\n"));
    let server = file.serve();
    let first = |name: &str| {
        let mut client = server.pop3();
        client.send(&format!("AUTH SCRAM-SHA-256 {}", BASE64.encode(format!("n,,n={name},r=nonce"))));
        let line = client.line();
        let challenge = String::from_utf8(BASE64.decode(line.strip_prefix("+ ").unwrap()).unwrap()).unwrap();
        let (nonce, rest) = challenge.split_once(',').unwrap();
        client.send(&BASE64.encode(format!("c=biws,{nonce},p=AAAA")));
        let answer = client.err();
        (rest.to_owned(), rest.len(), answer)
    };
    let (salt, length, answer) = first("ana");
    assert_eq!(salt, "s=kVyMtzthNJKcB4iTArdbfg==,i=4096");
    for name in ["bob", "nobody", "../x"] {
        assert_eq!(first(name), first(name));
        assert_eq!((first(name).1, first(name).2), (length, answer.clone()));
        assert_ne!(first(name).0, salt);
    }
}
