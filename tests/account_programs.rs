//! Accounts of programs with the interface of checkpassword.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use tempfile::TempDir;

use crate::harness::{Client, Server, eventually};

/// Reads name and password as a program in bash does, and counts how often it runs in the file `runs`.
const HEAD: &str = "#!/bin/bash\ncd \"${0%/*}\"\nIFS= read -r -d '' -u 3 name\nIFS= read -r -d '' -u 3 password\n\
     IFS= read -r -d '' -u 3 time\necho \"$name\" >> runs\n";

/// A directory with a program.
struct Script(TempDir);

impl Script {
    /// A program in bash, which has `$name`, `$password` and `$time`, and is to execute `"$@"`.
    fn new(text: &str) -> Self {
        Self::of(&format!("{HEAD}{text}\n"))
    }

    fn of(text: &str) -> Self {
        let script = Self(TempDir::new().unwrap());
        script.write(text);
        script
    }

    fn write(&self, text: &str) {
        let (new, path) = (self.path("new"), self.program());
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self) -> PathBuf {
        self.path("check")
    }

    /// The value of `--accounts`, with further keys.
    fn source(&self, keys: &str) -> String {
        format!("kind = 'program', command = '{}', {keys}", self.program().display())
    }

    /// Starts a server whose only other account is own:o.
    fn serve(&self, keys: &str) -> Server {
        Server::builder().user("own", "o").flags(["--accounts", &self.source(keys)]).start()
    }

    /// The names for which the program has run.
    fn runs(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("runs")).unwrap_or_default();
        let _ = fs::remove_file(self.path("runs"));
        text.lines().map(str::to_owned).collect()
    }
}

/// The answer to a login.
fn log_in(server: &Server, name: &str, password: &str) -> String {
    let mut client = server.pop3();
    client.call(&format!("USER {name}"));
    client.send(&format!("PASS {password}"));
    client.line()
}

/// The same by AUTH PLAIN, whose lines may be longer.
fn log_in_by_auth(server: &Server, name: &[u8], password: &[u8]) -> String {
    let mut client = server.pop3();
    client.send("AUTH PLAIN");
    client.expect("+ ");
    client.send(&BASE64.encode([b"\0", name, b"\0", password].concat()));
    client.line()
}

const UNAVAILABLE: &str = "-ERR [SYS/TEMP]";
const REFUSED: &str = "-ERR [AUTH]";

#[track_caller]
fn assert_begins(line: &str, beginning: &str) {
    assert!(line.starts_with(beginning), "{line}");
}

#[test]
fn a_program_accepts_and_refuses_and_says_where_the_mail_is() {
    let script = Script::new(
        "[ \"$password\" = \"right '%s\\\"\" ] && [[ $time =~ ^[0-9]+$ ]] && [ \"$TCPREMOTEIP\" = 127.0.0.1 ] || exit 1\n\
         echo noise; echo $$ >&2\nexport HOME=\"$PWD/home\" EXTRA='userdb_mail other' userdb_mail='maildir:~/Mail'\n\
         exec \"$@\"",
    );
    fs::create_dir_all(script.path("home/Mail/new")).unwrap();
    fs::write(script.path("home/Mail/new/1"), "Subject: one\n\nHello\n").unwrap();
    let server = script.serve("");
    for name in ["ana", "ana'\"%$(id)`", "a@b.example"] {
        let mut client = server.pop3();
        client.login(name, "right '%s\"");
        assert_eq!(client.call("STAT"), "1 23");
        client.quit();
        assert_begins(&log_in(&server, name, "wrong"), REFUSED);
        assert_eq!(script.runs(), [name, name]);
    }
    server.expect_log("WARN", "unknown user or wrong password");
    // The interface cannot say these.
    assert_begins(&log_in(&server, "ana", "right '%s\"\0"), REFUSED);
    assert_begins(&log_in_by_auth(&server, b"ana", &[b'x'; 1000]), REFUSED);
    assert_begins(&log_in_by_auth(&server, &[b'x'; 1000], b"right"), REFUSED);
    assert!(script.runs().is_empty());
    // No mechanism is offered that needs the stored password.
    let capabilities = server.pop3().listing("CAPA");
    assert!(capabilities.contains(&"SASL PLAIN LOGIN".to_owned()), "{capabilities:?}");
}

#[test]
fn a_program_in_python_may_give_the_user_another_name() {
    let script = Script::of(
        "#!/usr/bin/env python3\nimport os, sys\nname, password, time, end = os.fdopen(3, 'rb').read().split(b'\\0')\n\
         if password != b'p': sys.exit(1)\nos.environb[b'USER'] = name.lower()\nos.execv(sys.argv[1], sys.argv[1:])\n",
    );
    let server = script.serve("");
    server.mail().maildrop("ana").put("1", "Hello\n");
    let mut client = server.pop3();
    client.login("ANA", "p");
    assert_eq!(client.call("STAT"), "1 7");
    server.expect_log("INFO", "ana");
    assert_begins(&log_in(&server, "ANA", "q"), REFUSED);
}

/// What fails is no failed login of the client: it may try again at once, and nothing is remembered.
#[test]
fn a_program_that_fails_is_unavailable() {
    let script = Script::new("exit 111");
    let server = script.serve("timeout = '30s', cache = 'off'");
    for (text, why) in [
        ("exit 111", "it cannot tell at present (exit status 111)"),
        ("exit 0", "it has not become the program that its arguments name"),
        ("echo USER=ana; exit 0", "it has not become"),
        ("exit 2", "it ended with exit status: 2"),
        ("kill -9 $$", "it ended with signal: 9 (SIGKILL)"),
        ("yes 'much output'", "it wrote more than 65536 octets"),
        ("exec 3<&-; exit 111", "(exit status 111)"),
    ] {
        script.write(&format!("{HEAD}{text}\n"));
        script.runs();
        for _ in 0..4 {
            assert_begins(&log_in(&server, "ana", "p"), UNAVAILABLE);
        }
        assert_eq!(script.runs().len(), 4, "{text}");
        let told = |text: &str| server.stderr().matches(text).count();
        eventually("the log tells of it", || told(why) > 0);
        script.write(&format!("{HEAD}exec \"$@\"\n"));
        assert_begins(&log_in(&server, "bob", "p"), "+OK");
        server.expect_log("INFO", "answers again");
    }
    fs::remove_file(script.program()).unwrap();
    assert_begins(&log_in(&server, "ana", "p"), UNAVAILABLE);
    assert_begins(&log_in(&server, "own", "o"), "+OK");
}

/// The whole process group is killed when the time is over.
#[test]
fn a_program_that_takes_too_long_is_killed() {
    let script = Script::new("sleep 1000 & echo $! > pid; wait");
    let server = script.serve("timeout = '500ms'");
    assert_begins(&log_in(&server, "ana", "p"), UNAVAILABLE);
    let pid = fs::read_to_string(script.path("pid")).unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", pid.trim()));
    let is_gone = || !fs::read_to_string(&status).is_ok_and(|text| !text.contains("State:\tZ"));
    eventually("the program's child is gone", is_gone);
    server.expect_log("ERROR", "no output for too long");
}

/// A program that hangs holds up the logins of its own accounts only.
#[test]
fn a_slow_program_holds_no_other_login_up() {
    let script = Script::new("[ \"$name\" = slow ] && read < gate\nexec \"$@\"");
    assert!(std::process::Command::new("mkfifo").arg(script.path("gate")).status().unwrap().success());
    let server = script.serve("at-once = 2, timeout = '60s'");
    let mut slow: Vec<Client> = (0..2).map(|_| server.pop3()).collect();
    for client in &mut slow {
        client.call("USER slow");
        client.send("PASS p");
    }
    eventually("both programs run", || {
        fs::read_to_string(script.path("runs")).is_ok_and(|text| text.lines().count() == 2)
    });
    for _ in 0..10 {
        let mut client = server.pop3();
        client.login("own", "o");
        client.quit();
    }
    // A third login of the program waits for its turn.
    let mut third = server.pop3();
    third.call("USER third");
    third.send("PASS p");
    // One line for each of the two.
    let mut gate = fs::OpenOptions::new().write(true).open(script.path("gate")).unwrap();
    std::io::Write::write_all(&mut gate, b"\n\n").unwrap();
    drop(gate);
    third.ok();
    let answers: Vec<String> = slow.iter_mut().map(Client::line).collect();
    assert!(answers.iter().any(|line| line.starts_with("+OK")), "{answers:?}");
}

#[test]
fn a_right_password_is_remembered_until_a_reload_or_the_users_deletion() {
    let script = Script::new("[ \"$password\" = p ] || exit 1\nexec \"$@\"");
    let users = script.path("users");
    fs::write(&users, "bob:{PLAIN}b\n").unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
    let flags = ["--accounts".to_owned(), script.source("cache = '1h'")];
    let server = Server::builder().users_file(&users).flags(flags).start();
    let mut admin = server.admin();
    let is_run = |asked: bool| {
        assert_begins(&log_in(&server, "ana", "p"), "+OK");
        assert_eq!(!script.runs().is_empty(), asked);
    };
    is_run(true);
    is_run(false);
    admin.send("r");
    admin.line();
    is_run(true);
    is_run(false);
    // The users file does not have the account, but the program may have it. What is remembered of it is forgotten.
    admin.send("u- ana");
    admin.expect("-8");
    server.expect_log("INFO", "set: remembered passwords of user \"ana\" are forgotten");
    server.expect_log("ERROR", "nothing is deleted: the account may be in a source that is not changed");
    is_run(true);
    // A password that is not right any more is not remembered, either.
    script.write(&format!("{HEAD}exit 1\n"));
    assert_begins(&log_in(&server, "ana", "p"), "+OK");
    admin.send("u- ana");
    admin.expect("-8");
    assert_begins(&log_in(&server, "ana", "p"), REFUSED);
    script.runs();
    // The users file comes first, so its account is never asked for elsewhere.
    assert_begins(&log_in(&server, "bob", "p"), REFUSED);
    assert!(script.runs().is_empty());
}

/// A program tells nothing without a password, so PEEP does not say that there is no such account.
#[test]
fn peep_says_that_an_account_of_a_program_may_exist() {
    let script = Script::new("exec \"$@\"");
    let server = script.serve("");
    server.mail().maildrop("ana").put("1", "Hello\n");
    let mut admin = server.admin();
    let about = |admin: &mut Client, name: &str| admin.values(&format!("i? {name}"));
    for (name, account, messages) in [("ana", "untold", 1), ("nobody", "untold", 0), ("own", "exists", 0)] {
        let lines = about(&mut admin, name);
        for line in [format!("account {account}"), format!("messages {messages}")] {
            assert!(lines.contains(&line), "{name}: {lines:?}");
        }
        let path = server.mail().path().join(name);
        assert!(lines.contains(&format!("maildrop {}", path.display())), "{lines:?}");
    }
    admin.send("i? ../ana");
    admin.expect("-4");
    assert!(script.runs().is_empty());
}

/// An account can be forgotten by the name that the program gives it, which is the one that the log and PEEP have.
#[test]
fn a_remembered_password_is_forgotten_by_the_users_name_and_by_the_clients() {
    let script = Script::new("export USER=ana\nexec \"$@\"");
    let server = script.serve("cache = '1h'");
    let mut admin = server.admin();
    for name in ["ana", "ANA"] {
        assert_begins(&log_in(&server, "ANA", "p"), "+OK");
        assert_begins(&log_in(&server, "ANA", "p"), "+OK");
        assert_eq!(script.runs().len(), 1, "{name}");
        admin.send(&format!("u- {name}"));
        admin.expect("-8");
    }
}

#[test]
fn a_remembered_password_covers_a_program_that_is_unavailable() {
    let script = Script::new("exec \"$@\"");
    let server = script.serve("cache = 'off', grace = '1h'");
    for _ in 0..2 {
        assert_begins(&log_in(&server, "ana", "p"), "+OK");
    }
    assert_eq!(script.runs().len(), 2);
    script.write(&format!("{HEAD}exit 111\n"));
    for _ in 0..2 {
        assert_begins(&log_in(&server, "ana", "p"), "+OK");
        assert_begins(&log_in(&server, "bob", "p"), UNAVAILABLE);
    }
}

#[test]
fn a_confined_server_runs_the_program_with_its_limits() {
    let script = Script::new("[ \"$password\" = \"$(< secret)\" ] && [ \"$(ulimit -n)\" = 33 ] || exit 1\nexec \"$@\"");
    fs::write(script.path("secret"), "p\n").unwrap();
    let elsewhere = TempDir::new().unwrap();
    fs::write(elsewhere.path().join("other"), "x\n").unwrap();
    let keys = format!("limit = ['files=33'], path = ['{}']", script.path("secret").display());
    let flags = ["--confine", "--accounts", &script.source(&keys)].map(str::to_owned);
    let server = Server::builder().user("own", "o").flags(flags).start();
    assert_begins(&log_in(&server, "ana", "p"), "+OK");
    assert_begins(&log_in(&server, "ana", "q"), REFUSED);
    if server.stderr().contains("confined by Landlock") {
        script.write(&format!("{HEAD}read < '{}' || exit 1\nexec \"$@\"\n", elsewhere.path().join("other").display()));
        assert_begins(&log_in(&server, "eve", "p"), REFUSED);
    }
}

#[test]
fn accounts_cannot_be_added_to_a_program() {
    let script = Script::new("exec \"$@\"");
    let server = script.serve("");
    let mut admin = server.admin();
    admin.send("u+ ana p");
    let line = admin.line();
    assert_begins(&line, "-8");
    server.expect_log("ERROR", "no account source can be written");
}

#[test]
fn a_faulty_source_is_told_with_its_line() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pop3d.toml");
    let check = |text: &str| -> String {
        fs::write(&path, text).unwrap();
        let output = Server::builder().configured_by(Path::new(&path)).refused();
        String::from_utf8(output.stderr).unwrap()
    };
    let errors =
        check("[[accounts]]\nkind = 'program'\ncommand = 'check \"'\nat-once = 0\ntimeouts = '1s'\ncache = '1'\n");
    let expected = ["3:11: accounts: command: it cannot be split", "4:11: accounts: at-once: 0 is not in 1..=256"];
    for line in expected.into_iter().chain(["5:1: accounts: an account source of the kind program has no \"timeouts\""])
    {
        assert!(errors.contains(line), "{line}: {errors}");
    }
    assert!(
        check("[[accounts]]\nkind = 'program'\n")
            .contains(":1:1: accounts: an account source of the kind program needs \"command\"")
    );
}

/// `pop3d check` does not say that a program answers, because it does not run it.
#[test]
fn check_does_not_run_the_program() {
    let directory = TempDir::new().unwrap();
    let program = directory.path().join("check");
    fs::write(&program, "#!/bin/sh\n: > \"$0.ran\"\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("pop3d.toml");
    let command = program.display();
    fs::write(&path, format!("[[accounts]]\nkind = 'program'\ncommand = '{command}'\n")).unwrap();
    let mail = directory.path().join("mail");
    fs::create_dir(&mail).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_pop3d"));
    let output =
        check.arg("check").arg("--config").arg(&path).arg("-m").arg(&mail).args(["-p", "0", "-P", "0"]).output();
    let printed = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(printed.contains(&format!("program {command}")) && !printed.contains("answers"), "{printed}");
    assert!(!directory.path().join("check.ran").exists());
}
