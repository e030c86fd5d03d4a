//! Accounts with a limit of sessions of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use tempfile::TempDir;

use crate::harness::{Client, PROGRAM, Server};

/// A users file in which each of these accounts has the password `secret` and this extra field.
fn users_file(directory: &TempDir, accounts: &[(&str, &str)]) -> PathBuf {
    let path = directory.path().join("users");
    let line = |(name, field): &(&str, &str)| format!("{name}:{{PLAIN}}secret::::::{field}\n");
    fs::write(&path, accounts.iter().map(line).collect::<String>()).unwrap();
    path
}

fn server(users: &Path, flags: &[&str]) -> Server {
    Server::builder().users_file(users).flags(flags.iter().copied()).start()
}

/// A connection on which USER was accepted.
fn client(server: &Server, user: &str) -> Client {
    let mut client = server.pop3();
    client.call(&format!("USER {user}"));
    client
}

fn session(server: &Server, user: &str) -> Client {
    let mut client = client(server, user);
    client.call("PASS secret");
    client
}

#[test]
fn an_account_has_no_more_sessions_than_its_limit() {
    let directory = TempDir::new().unwrap();
    let users = users_file(&directory, &[("ana", "userdb_connections=2"), ("bob", "userdb_connections=0")]);
    let server = server(&users, &["--shared-maildrops", "--busy", "refuse"]);
    let first = session(&server, "ana");
    let _second = session(&server, "ana");
    let words = client(&server, "ana").refused("PASS secret");
    assert!(words.starts_with("[IN-USE] "), "{words}");
    server.expect_log(
        "WARN",
        "login refused: user=\"ana\" reason=\"the account has reached its limit of sessions, which is 2\"",
    );
    // It is no failed login, and a wrong password is not told from one of another account.
    let words = client(&server, "ana").refused("PASS wrong");
    assert!(words.starts_with("[AUTH] "), "{words}");
    let mut admin = server.admin();
    let tested = admin.value("at ana secret");
    assert!(tested.starts_with("the account has reached its limit of sessions, which is 2"), "{tested}");
    let about = |admin: &mut Client, user: &str| {
        let lines = admin.values(&format!("i? {user}"));
        lines.into_iter().filter(|line| line.starts_with("sessions ") || line.starts_with("session_limit ")).collect()
    };
    let shown: Vec<String> = about(&mut admin, "ana");
    assert_eq!(shown, ["sessions 2", "session_limit 2"]);
    let others: Vec<_> = (0..4).map(|_| session(&server, "bob")).collect();
    let shown: Vec<String> = about(&mut admin, "bob");
    assert_eq!((others.len(), shown), (4, vec!["sessions 4".to_owned(), "session_limit -".to_owned()]));
    first.quit();
    session(&server, "ana").quit();
}

/// With `--busy wait`, one login waits for the end of a session, and no other one occupies a connection by waiting.
#[test]
fn one_login_waits_and_the_others_are_refused_at_once() {
    for shared in [None, Some("--shared-maildrops")] {
        let directory = TempDir::new().unwrap();
        let users = users_file(&directory, &[("ana", "userdb_connections=1")]);
        let flags: Vec<_> = ["--busy", "wait=30s"].into_iter().chain(shared).collect();
        let server = server(&users, &flags);
        let first = session(&server, "ana");
        let (sender, answers) = mpsc::channel();
        for _ in 0..2 {
            let (mut client, sender) = (client(&server, "ana"), sender.clone());
            thread::spawn(move || {
                client.send("PASS secret");
                sender.send(client.line())
            });
        }
        let refusal = answers.recv().unwrap();
        assert!(refusal.starts_with("-ERR [IN-USE] this account has as many sessions"), "{refusal}");
        first.quit();
        let answer = answers.recv().unwrap();
        assert!(answer.starts_with("+OK"), "{answer}");
    }
}

/// The login that takes a session over is not kept out by the limit that the session reaches.
#[test]
fn a_limit_of_one_session_lets_another_login_take_it_over() {
    let directory = TempDir::new().unwrap();
    let users = users_file(&directory, &[("ana", "userdb_connections=1")]);
    let server = server(&users, &["--busy", "take-over=0s"]);
    let mut old = session(&server, "ana");
    let new = session(&server, "ana");
    let words = old.err();
    assert!(words.starts_with("[SYS/TEMP] another login"), "{words}");
    new.quit();
}

/// A mistake in the file must not lift the limit.
#[test]
fn a_limit_that_is_no_number_keeps_the_user_out() {
    let directory = TempDir::new().unwrap();
    let users = users_file(&directory, &[("bob", ""), ("ana", "x=y userdb_connections=-1")]);
    let told = "line 2: userdb_connections has to be a number of sessions, or 0 for no limit; the user is kept out";
    let server = server(&users, &[]);
    server.expect_log("ERROR", told);
    client(&server, "ana").refused("PASS secret");
    session(&server, "bob").quit();
    let mut check = Command::new(PROGRAM);
    check.args(["check", "-p", "0", "-P", "0", "-m"]).arg(directory.path()).arg("--users").arg(&users);
    let output = check.output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(text.contains(told), "{text}");
}
