//! Accounts: the users file while it is read, changed and written, and the ways to log in beside USER and PASS.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
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

use crate::harness::{Client, PASSWORD, PATIENCE, PROGRAM, Server, USER, eventually};

/// Of `secret`, by `doveadm pw` of Dovecot 2.3.19; quick ones, as tests run without optimisation.
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

    /// Writes it as `cp -p` does: its times say that it is whole.
    fn write(&self, text: impl AsRef<[u8]>) {
        fs::write(&self.path, text).unwrap();
        let yesterday = SystemTime::now() - Duration::from_secs(86_400);
        File::open(&self.path).unwrap().set_modified(yesterday).unwrap();
    }

    /// Has a program write it in place that takes its time: line by line, with `between` after each.
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

/// Whether the server lets this user in.
#[track_caller]
fn lets_in(server: &Server, name: &str, password: &str) -> bool {
    let mut client = server.pop3();
    client.call(&format!("USER {name}"));
    client.send(&format!("PASS {password}"));
    let line = client.line();
    assert!(line.starts_with("+OK ") || line.starts_with("-ERR [AUTH] "), "{line}");
    line.starts_with("+OK ")
}

#[track_caller]
fn peep(admin: &mut Client, command: &str, answer: &str) {
    admin.send(command);
    admin.expect(answer);
}

// ---------------------------------------------------------------------------------------------------------------------
// The users file

#[test]
fn users_of_any_scheme_are_let_in() {
    let fields =
        [SHA512_CRYPT, BLF_CRYPT, SSHA256, SCRAM, "{PLAIN}secret", "{PLAIN.b64}c2VjcmV0:1:1::/home::", "{CLEAR}secret"];
    let lines: String = fields.iter().enumerate().map(|(n, field)| format!("user{n}:{field}\n")).collect();
    let file = UsersFile::new(lines);
    let server = file.serve();
    for (n, field) in fields.iter().enumerate() {
        let name = format!("user{n}");
        // Once more, when it is remembered.
        assert!(lets_in(&server, &name, "secret") && lets_in(&server, &name, "secret"), "{field}");
        assert!(!lets_in(&server, &name, "Secret"), "{field}");
    }
    assert!(!lets_in(&server, "user99", "secret"));
}

#[test]
fn a_line_without_a_scheme_is_told_of_and_the_others_count() {
    let file = UsersFile::new("# users\nana:hunter2\nbob:{PLAIN}b\neve:{MD5}hunter2\n");
    let server = file.serve();
    assert!(lets_in(&server, "bob", "b"));
    assert!(!lets_in(&server, "ana", "hunter2"));
    let path = file.path.display();
    eventually("two lines of the log", || {
        let stderr = server.stderr();
        stderr.contains(&format!("{path} line 2: the password has no {{SCHEME}} in front"))
            && stderr.contains(&format!("{path} line 4: the scheme \"MD5\" is not supported"))
    });
    assert!(!server.stderr().contains("hunter2"));
}

#[test]
fn a_users_file_that_is_none_ends_the_start() {
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
fn a_file_that_others_can_read_is_warned_of() {
    let file = UsersFile::new("ana:{PLAIN}a\n");
    let own = file.serve();
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644)).unwrap();
    let server = file.serve();
    eventually("the warning", || server.stderr().contains("can be read or written by others"));
    assert!(!own.stderr().contains("by others"));
}

#[test]
fn a_file_that_changes_is_read_again() {
    let file = UsersFile::new("ana:{PLAIN}a\n");
    let server = file.serve();
    let mut admin = server.admin();
    assert!(lets_in(&server, "ana", "a"));
    file.write("ana:{PLAIN}b\nbob:{PLAIN}b\n");
    assert!(!lets_in(&server, "ana", "a") && lets_in(&server, "ana", "b") && lets_in(&server, "bob", "b"));
    assert_eq!(admin.values("u?"), ["ana", "bob"]);

    // What cannot be used leaves everything as it was, and is told once.
    file.write("# cut off by a full disk\n");
    assert!(lets_in(&server, "ana", "b") && lets_in(&server, "bob", "b"));
    peep(&mut admin, "u+ eve e", "-8");
    file.write("\0\0\0\n");
    assert!(lets_in(&server, "ana", "b") && lets_in(&server, "bob", "b"));
    fs::remove_file(&file.path).unwrap();
    assert!(lets_in(&server, "ana", "b") && lets_in(&server, "bob", "b"));
    file.write("bob:{PLAIN}c\n");
    assert!(!lets_in(&server, "ana", "b") && lets_in(&server, "bob", "c"));
    eventually("it is told that it can be used", || server.stderr().contains("can be used again"));
    assert_eq!(server.stderr().matches("cannot be used, the accounts stay as they were").count(), 3);

    // PEEP may delete the last one.
    peep(&mut admin, "u- bob", "+");
    assert!(!lets_in(&server, "bob", "c"));
    assert_eq!(file.text(), "");
}

/// Two hundred accounts, each with the password `secret`.
fn two_hundred() -> String {
    (0..200).map(|number| format!("user{number}:{{PLAIN}}secret\n")).collect()
}

/// Another program empties the file and writes it again; whoever was in it can log in all the time.
#[test]
fn a_file_that_is_written_in_place_keeps_nobody_out() {
    let file = UsersFile::new(two_hundred());
    let server = file.serve();
    file.write_slowly(&two_hundred(), |number| {
        if number % 20 == 0 {
            let written = Instant::now();
            let all = ["user0", "user99", "user199"].iter().all(|name| lets_in(&server, name, "secret"));
            // A file that nothing has been written to for two seconds counts as whole.
            assert!(all || written.elapsed() > Duration::from_secs(1), "{number}");
        }
    });
    // A program that stops in the middle has its way, and the log tells what is missing.
    file.write_slowly(&two_hundred()[..two_hundred().len() / 2], |_| {});
    eventually("the half file is believed", || !lets_in(&server, "user199", "secret"));
    assert!(lets_in(&server, "user0", "secret"));
    server.expect_log("WARN", "of the 200 accounts that it had");
}

/// A change by PEEP while another program writes the file waits for it, or changes nothing.
#[test]
fn a_change_while_another_program_writes_the_file_loses_nobody() {
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
                thread::sleep(Duration::from_millis(5)); // it would be changed meanwhile
            }
        });
        // On a machine that is very busy it may have waited for too long, and says so.
        while admin.line() == "-8" {
            assert_eq!(fs::read_to_string(&path).unwrap(), two_hundred());
            admin.send(command);
        }
        let text = file.text();
        match command {
            "u- user199" => assert_eq!(text + "user199:{PLAIN}secret\n", two_hundred()),
            _ => assert!(text.starts_with(&two_hundred()) && text.lines().count() == 201, "{text}"),
        }
        assert!(lets_in(&server, "user198", "secret"));
    }
}

/// PEEP refuses to change a file that another program goes on writing, and keeps nobody waiting meanwhile.
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
                thread::sleep(Duration::from_millis(20));
            }
        });
        admin.send("u+ eve e");
        assert!(lets_in(&server, "user0", "secret"));
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
    assert!(lets_in(&server, "ana", "a") && lets_in(&server, "bob", "b"));
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
    assert!(lets_in(&server, "ana", "a"));
    let text = format!("[WARN] {} has no users yet\n", file.path.display());
    eventually("the file is warned of", || server.stderr().contains(&text));
    assert!(!file.serve().stderr().contains("no users"));

    let mut child = Command::new(PROGRAM)
        .args(["-p", "0", "-P", "0", "--address", "127.0.0.1"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let told = stderr.lines().map_while(Result::ok).any(|line| line.contains("there are no users"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told);
}

/// Each verification takes 19 MiB; many who wait for theirs have none, and who has had one has given it back.
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
    assert!(peak < 600 << 10, "{peak} KiB; at once they would take 1,216 MiB");
}

/// PEEP's changes are in the file, where the next server finds them, and nothing else in it has changed.
#[test]
fn users_that_peep_adds_survive_a_restart() {
    let before = "# ours\r\n\nbob:{PLAIN}b:1000:1000:Bob,,:/home/bob:/bin/sh:userdb_quota=1G\nnonsense\n#end";
    let file = UsersFile::new(before);
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o640)).unwrap();
    let mut server = Server::builder().users_file(&file.path).user("own", "o").start();
    let mut admin = server.admin();
    peep(&mut admin, "u+ ana s:e{c}ret", "+");
    assert!(lets_in(&server, "ana", "s:e{c}ret"));
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
    assert!(lets_in(&server, "ana", "s:e{c}ret"));
    assert!(!lets_in(&server, "ana", "s:e{c}re") && !lets_in(&server, "own", "o"));
    assert_eq!(admin.values("u?"), ["ana", "bob"]);
    peep(&mut admin, "u- ana", "+");
    assert!(!lets_in(&server, "ana", "s:e{c}ret"));
    assert_eq!(file.text(), format!("{before}\n"));
}

#[test]
fn a_file_that_cannot_be_written_has_an_error_of_its_own() {
    let file = UsersFile::new("ana:{PLAIN}a\n");
    let server = file.serve();
    let mut admin = server.admin();
    fs::remove_file(&file.path).unwrap();
    peep(&mut admin, "u+ bob b", "-8");
    peep(&mut admin, "u- ana", "-8");
    assert_eq!(admin.values("u?"), ["ana"]);
    file.write("ana:{PLAIN}a\n");
    peep(&mut admin, "u+ bob b", "+");
    assert!(lets_in(&server, "bob", "b"));
}

/// A server that is killed while it writes, or right behind that, leaves the old file or the new one, with all that it
/// has said to be in it.
#[test]
fn a_killed_server_leaves_a_whole_file() {
    let before = "# kept\nbob:{PLAIN}b\n";
    let file = UsersFile::new(before);
    let new = file.path.with_file_name("users.new");
    let mut promised = vec!["bob".to_owned()];
    for round in 0..20 {
        let mut server = file.serve();
        let mut admin = server.admin();
        peep(&mut admin, &format!("u+ first{round} secret"), "+");
        promised.push(format!("first{round}"));
        let inode = fs::metadata(&file.path).unwrap().ino();
        admin.send(&format!("u+ second{round} secret"));
        let deadline = Instant::now() + PATIENCE;
        let is_replaced = || fs::metadata(&file.path).unwrap().ino() != inode;
        while if round % 2 == 0 { !new.exists() && !is_replaced() } else { !is_replaced() } {
            assert!(Instant::now() < deadline, "nothing is written");
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
    assert!(promised.iter().all(|name| names.contains(name)), "{promised:?} {names:?}");
    assert!(lets_in(&server, &promised[promised.len() - 1], "secret"));
    // What a crash has left is no trouble, and goes with the next change.
    peep(&mut server.admin(), "u+ last secret", "+");
    assert!(!new.exists());
}

#[test]
fn two_servers_add_to_one_file() {
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
    assert!(lets_in(&servers[0], "user1-0", "secret") && lets_in(&servers[1], "user0-0", "secret"));
}

// ---------------------------------------------------------------------------------------------------------------------
// pop3d passwd

fn passwd(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(PROGRAM)
        .arg("passwd")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that has ended over its arguments reads no password.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn passwd_makes_fields_for_the_file() {
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
        assert!(lets_in(&server, &format!("user{n}"), "a b:c"), "{scheme}");
    }
}

#[test]
fn passwd_refuses_what_is_no_password_or_no_scheme() {
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
fn auth_plain_in_one_line_or_two() {
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

    // All in one segment.
    let mut client = server.pop3();
    client.send_all(["CAPA", "AUTH PLAIN", &plain(USER, PASSWORD), "STAT", "QUIT"]);
    client.ok();
    client.multiline();
    client.expect("+ ");
    (0..3).for_each(|_| drop(client.ok()));
    client.closed();
}

/// RFC 4616 section 2: each part has up to 255 octets; in base64 they are longer than any command.
#[test]
fn auth_plain_of_the_longest_parts() {
    let (name, password) = ("n".repeat(128), "p".repeat(1200));
    let file = UsersFile::new(format!("{name}:{{PLAIN}}{password}\n"));
    let server = file.serve();
    let mut client = server.pop3();
    client.send("AUTH PLAIN");
    client.expect("+ ");
    client.call(&BASE64.encode(format!("{name}\0{name}\0{password}")));
    client.quit();
}

/// RFC 4616 section 2, checklist 90: nobody acts for somebody else.
#[test]
fn auth_plain_is_for_oneself() {
    let server = Server::builder().user(USER, PASSWORD).user("other", "pass").start();
    let mut client = server.pop3();
    let text = client.refused(&format!("AUTH PLAIN {}", BASE64.encode(format!("other\0{USER}\0{PASSWORD}"))));
    assert!(text.starts_with("[AUTH] "));
    client.call(&format!("AUTH PLAIN {}", BASE64.encode(format!("{USER}\0{USER}\0{PASSWORD}"))));
    assert_eq!(server.admin().values("cu?"), [USER]);
}

/// RFC 1939 section 7, checklist 57 and 58.
#[test]
fn apop_with_the_timestamp_of_the_greeting() {
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
    eventually("a line for each failure", || server.stderr().matches("login failed").count() == 4);
}

/// Checklist 59, 65: nothing is announced that a user cannot use.
#[test]
fn what_is_announced_is_what_all_users_can_use() {
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
        let sasl = if scram { "SASL PLAIN SCRAM-SHA-256" } else { "SASL PLAIN" };
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

/// RFC 5802 section 5.1: who is not there has a salt as well, and the same one each time.
#[test]
fn scram_does_not_tell_who_exists() {
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
