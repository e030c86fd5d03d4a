//! What an operator sees of a running server: the reasons of refused logins, the log's formats and levels.

use std::fs;

use crate::harness::{MailRoot, PASSWORD, Server, USER, eventually};

/// Waits for the line of the log that has `text`, and returns what stands behind it.
#[track_caller]
fn logged(server: &Server, text: &str) -> String {
    let find = || server.stderr().lines().find_map(|line| line.split_once(text).map(|(_, rest)| rest.to_owned()));
    eventually(text, || find().is_some());
    find().unwrap()
}

/// Tries to log in, and returns what the client is told.
fn try_to_log_in(server: &Server, name: &str, password: &str) -> String {
    let mut client = server.pop3();
    client.call(&format!("USER {name}"));
    client.refused(&format!("PASS {password}"))
}

#[test]
fn the_log_says_why_a_login_was_refused_and_the_client_is_told_no_more() {
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
    assert_eq!(reason, "\"the maildrop is locked by another server or program\"");
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
