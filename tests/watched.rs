//! The log as an operator reads it: the reasons of refused logins, formats and levels.

use std::fs;

use rustix::process::Signal;

use crate::harness::{MailRoot, PASSWORD, Server, USER, eventually};

/// Waits for a line of the log that contains `text`, and returns the rest of the line.
#[track_caller]
fn logged(server: &Server, text: &str) -> String {
    let find = || server.stderr().lines().find_map(|line| line.split_once(text).map(|(_, rest)| rest.to_owned()));
    eventually(text, || find().is_some());
    find().unwrap()
}

/// Tries to log in, and returns the refusal.
fn try_to_log_in(server: &Server, name: &str, password: &str) -> String {
    let mut client = server.pop3();
    client.call(&format!("USER {name}"));
    client.refused(&format!("PASS {password}"))
}

#[test]
fn only_the_log_says_why_a_login_was_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users");
    fs::write(&file, "ana:{PLAIN}a\n# a comment\nbob:{NONE}b\n").unwrap();
    let server = Server::builder().users_file(&file).start();
    let told = ["ana", "bob", "eve", "a/b", "\u{e9}\"\u{7f}"].map(|name| try_to_log_in(&server, name, "x"));
    assert!(told.iter().all(|text| *text == told[0]), "{told:?}");
    for (user, reason) in [
        ("\"ana\"", "wrong password"),
        ("\"bob\"", "line 3 of the users file cannot be used"),
        ("\"eve\"", "unknown user"),
        ("\"a/b\"", "unknown user"),
        ("\"é\\\"\\u{7f}\"", "unknown user"),
    ] {
        assert_eq!(logged(&server, &format!(" login failed: user={user} ")), format!("reason={reason:?}"));
    }

    let mut client = server.pop3();
    client.refused("AUTH PLAIN YQBhbmEAYQBi"); // malformed
    client.refused("AUTH PLAIN Ym9iAGFuYQBh"); // as bob, with ana's name and password
    assert_eq!(
        logged(&server, " login refused: user=\"\" "),
        "reason=\"the response does not have the mechanism's format\""
    );
    eventually("the other user", || {
        server.stderr().contains("user=\"ana\" reason=\"a user may not act as another one\"")
    });
}

#[test]
fn the_log_names_the_session_that_holds_the_maildrop() {
    let server = Server::start();
    server.maildrop().put("1", "one\r\n"); // without a directory there is nothing to lock for others
    let _holder = server.session();
    assert!(try_to_log_in(&server, USER, PASSWORD).starts_with("[IN-USE] "));
    let reason = logged(&server, &format!(" login refused: user={USER:?} reason="));
    let holder = "\"the maildrop is locked by session 1 of 127.0.0.1 for ";
    assert!(reason.starts_with(holder) && reason.ends_with(" s\""), "{reason}");

    let other = Server::builder().mail(server.mail()).start();
    assert!(try_to_log_in(&other, USER, PASSWORD).starts_with("[IN-USE] "));
    let reason = logged(&other, &format!(" login refused: user={USER:?} reason="));
    let holder = "\"the maildrop is locked by session 1 of the server on ";
    let process = format!(" (process {}) for ", server.pid());
    assert!(reason.starts_with(holder) && reason.contains(&process), "{reason}");
    let told = other.admin().values(&format!("i? {USER}"));
    assert!(told.contains(&format!("holder_pid {}", server.pid())), "{told:?}");
    assert!(told.contains(&"holder_session 1".to_owned()) && told.contains(&"session -".to_owned()), "{told:?}");
    let told = server.admin().values(&format!("i? {USER}"));
    assert!(told.contains(&"holder_host -".to_owned()) && told.contains(&"session 1".to_owned()), "{told:?}");

    // A user may write to the lock file. It is believed only if it looks like one.
    fs::write(server.maildrop().path(".pop3d-lock"), "host=\x1b[2J pid=1 session=1 since=1\n").unwrap();
    assert!(try_to_log_in(&other, USER, PASSWORD).starts_with("[IN-USE] "));
    eventually("the log does not name a holder", || {
        other.stderr().contains("reason=\"the maildrop is locked by another server or program\"")
    });
}

#[test]
fn the_log_says_why_a_maildrop_cannot_be_opened() {
    let mail = MailRoot::new();
    fs::write(mail.path().join(USER), "no directory").unwrap();
    let server = Server::builder().mail(&mail).start();
    assert!(try_to_log_in(&server, USER, PASSWORD).starts_with("[SYS/"));
    let reason = logged(&server, &format!("[ERROR] #1 {}", "127.0.0.1:"));
    assert!(
        reason.contains(&format!(" login refused: user={USER:?} reason=\"the maildrop cannot be opened: ")),
        "{reason}"
    );
}

#[test]
fn the_log_says_why_an_admin_was_refused() {
    let server = Server::start();
    let mut admin = server.peep();
    admin.send("a root wrong");
    admin.expect("-2");
    assert_eq!(logged(&server, " admin login failed: name=\"root\" "), "reason=\"wrong name or password\"");
}

/// Runs failed and successful sessions that log lines of every kind, with names that try to break a line.
fn make_lines(server: &Server) {
    let mut client = server.pop3();
    for name in ["a\"b\\", "x\u{2028}\u{7f}", "{}", USER] {
        client.call(&format!("USER {name}"));
        if name == USER {
            client.call(&format!("PASS {PASSWORD}"));
        } else {
            client.refused("PASS wrong");
            client = server.pop3();
        }
    }
    client.write(b"NOOP \xff\xfe\r\n");
    client.line();
    client.call("RETR 1");
    client.multiline();
    client.quit();
    let mut client = server.pop3();
    client.write(b"USER \xff\r\nPASS \xff\r\n");
    client.line();
    client.line();
    drop(client);
    let mut admin = server.admin();
    admin.send("t= 77");
    admin.expect("+");
    admin.send("q");
    admin.expect("+");
    admin.closed();
    eventually("the last session has ended", || server.stderr().matches(" end").count() >= 6);
}

/// The objects of a log in JSON, one for each line.
#[track_caller]
fn objects(log: &str) -> Vec<serde_json::Value> {
    let object = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let objects: Vec<serde_json::Value> = log.lines().map(object).collect();
    for object in &objects {
        for name in ["time", "level", "message"] {
            assert!(object[name].is_string(), "{object}");
        }
    }
    objects
}

#[test]
fn each_line_of_a_log_in_json_is_an_object_with_the_events_fields() {
    let server = Server::builder().flags(["-vv", "--log-format", "json"]).start();
    server.maildrop().put("1", "Subject: one\r\n\r\n\u{e9}\r\n");
    make_lines(&server);
    let objects = objects(&server.stderr());
    let event = |name: &str| objects.iter().filter(|object| object["event"] == name).collect::<Vec<_>>();
    assert_eq!((event("connected").len(), event("end").len()), (6, 6));
    let refused: Vec<_> = event("login-refused").iter().map(|object| object["user"].as_str().unwrap()).collect();
    assert_eq!(refused, ["a\"b\\", "x\u{2028}\u{7f}", "{}", "\u{fffd}"]);
    let login = event("login")[0];
    assert_eq!((&login["user"], &login["messages"], &login["level"]), (&USER.into(), &1.into(), &"info".into()));
    assert!(login["session"].is_u64() && login["seconds"].is_f64() && login["protocol"] == "pop3", "{login}");
    assert!(login["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{login}");
    let retrieved = event("retrieved")[0];
    assert_eq!((&retrieved["octets"], &retrieved["user"]), (&20.into(), &USER.into()));
    assert_eq!(event("admin-change")[0]["change"], "timeout = 77 s");
    assert!(objects.iter().any(|object| object["level"] == "debug" && object["event"].is_null()));
}

#[test]
fn a_log_file_in_json_is_json_from_its_first_line_to_its_last() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut server = Server::builder().flags(["--log-format", "json", "--log-file", log.to_str().unwrap()]).start();
    server.session().quit();
    server.signal(Signal::HUP);
    eventually("the file is opened again", || fs::read_to_string(&log).unwrap().contains("opened again"));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let objects = objects(&fs::read_to_string(&log).unwrap());
    assert!(objects.iter().any(|object| object["message"] == "shutting down: SIGTERM"));
    assert!(objects.iter().any(|object| object["event"] == "login"));
}

/// A launcher that sets the variable by which systemd tells a service that its output goes to the journal.
const JOURNAL: [&str; 4] =
    ["sh", "-c", "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && export JOURNAL_STREAM && exec \"$@\"", "sh"];

#[test]
fn the_journal_gets_levels_and_no_times() {
    for flags in [&["-vv"][..], &["-vv", "--log-format", "json"]] {
        let server = Server::builder().launched_by(JOURNAL).flags(flags.iter().copied()).start();
        server.maildrop().put("1", "one\r\n");
        make_lines(&server);
        let log = server.stderr();
        for line in log.lines() {
            let (level, message) = line.split_at_checked(3).unwrap_or_else(|| panic!("{line}"));
            assert!(["<3>", "<4>", "<6>", "<7>"].contains(&level), "{line}");
            match flags {
                [_] => assert!(!message.starts_with(['2', '[']), "{line}"),
                _ => drop(objects(message)),
            }
        }
        assert!(log.lines().any(|line| line.starts_with("<4>") && line.contains(" login failed: ")), "{log}");
        assert!(log.lines().any(|line| line.starts_with("<6>") && line.contains(" login: ")), "{log}");
    }
}

#[test]
fn a_stream_other_than_the_journals_has_times() {
    for stream in ["1:2", "", "nonsense"] {
        let server = Server::builder().environment("JOURNAL_STREAM", stream).start();
        server.session().quit();
        server.expect_log("INFO", "connected to POP3");
        assert!(server.stderr().lines().all(|line| line.starts_with('2') && line.contains("Z [")), "{stream}");
    }
}
