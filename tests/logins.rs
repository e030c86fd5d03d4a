//! Logins with right and wrong credentials, and the maildrop's exclusive-access lock.

use crate::harness::{Client, PASSWORD, Server, USER, eventually, settled};

/// RFC 1939 section 7, USER, checklist 31: a wrong password, a wrong name and no possible name read the same.
#[test]
fn refusals_do_not_tell_who_exists() {
    let server = Server::start();
    let mut texts: Vec<(String, String)> =
        [USER, "nobody", "..", ".", "a/b", "../mrose", "mrose/", "\u{e9}", ".hidden"]
            .iter()
            .map(|name| {
                let mut client = server.pop3();
                (client.call(&format!("USER {name}")), client.refused("PASS wrong"))
            })
            .collect();
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].1.starts_with("[AUTH] "));
}

/// Names have up to 128 octets; one that is longer is nobody's.
#[test]
fn the_longest_name() {
    let longest = "n".repeat(128);
    let server = Server::builder().user(&longest, "pass").start();
    server.mail().maildrop(&longest).put("1", "one\r\n");
    let mut client = server.pop3();
    client.call(&format!("USER {longest}n"));
    assert!(client.refused("PASS pass").starts_with("[AUTH]"));
    client.login(&longest, "pass");
    assert_eq!(client.call("STAT"), "1 5");
}

/// A name that leads out of the mail root cannot be a user's, and that is said at start.
#[test]
fn names_that_are_no_directory_names_are_refused_at_start() {
    for name in ["..", ".", "a/b", "/", "", ".hidden", &"n".repeat(129)] {
        let output = Server::builder().user(name, "pass").refused();
        assert_eq!(output.status.code(), Some(2), "{name:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{name:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{name:?}");
    }
}

/// RFC 1939 section 4, checklist 25: one of many who log in at once gets the maildrop.
#[test]
fn of_many_at_once_one_is_let_in() {
    const CLIENTS: usize = 8;
    let server = Server::start();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.pop3()).collect();
    for client in &mut clients {
        client.send_all([&format!("USER {USER}")[..], &format!("PASS {PASSWORD}")]);
    }
    let (mut let_in, mut refused) = (0, 0);
    for client in &mut clients {
        client.ok();
        match client.line() {
            line if line.starts_with("+OK") => let_in += 1,
            line if line.starts_with("-ERR [IN-USE] ") => refused += 1,
            line => panic!("{line}"),
        }
    }
    assert_eq!((let_in, refused), (1, CLIENTS - 1));
}

/// Design: a login waits a little for the lock, as the old session may just be closing.
#[test]
fn a_login_is_served_when_the_maildrop_gets_free_in_time() {
    let server = Server::start();
    let first = server.session();
    let mut second = server.pop3();
    second.call(&format!("USER {USER}"));
    second.send(&format!("PASS {PASSWORD}"));
    first.quit();
    second.ok();
    second.call("STAT");
}

/// Checklist 21: QUIT is answered when the lock has gone.
#[test]
fn the_lock_goes_before_quit_is_answered() {
    let server = Server::start();
    let mut admin = server.admin();
    for _ in 0..50 {
        let mut session = server.session();
        assert_eq!(admin.values("cu?"), [USER]);
        session.call("QUIT");
        assert!(admin.values("cu?").is_empty());
    }
}

#[test]
fn the_lock_goes_with_the_connection() {
    let server = Server::start();
    for _ in 0..50 {
        drop(server.session());
    }
    let mut admin = server.admin();
    eventually("the last lock goes", || admin.values("cu?").is_empty());
}

/// A client that goes away while the server is blocked in a write to it leaves no lock.
#[test]
fn the_lock_goes_while_the_server_is_blocked_writing() {
    let server = Server::start();
    server.maildrop().put("1", b"line\r\n".repeat(4 << 20));
    let mut client = server.session();
    let mut admin = server.admin();
    client.send("RETR 1");
    client.ok();
    settled("the server is blocked", || admin.value("rb?"));
    drop(client);
    eventually("the lock goes", || admin.values("cu?").is_empty());
    server.session().quit();
}

/// Checklist 27: a refused login in a session changes nothing for the user who was named.
#[test]
fn a_login_within_a_session_takes_no_lock() {
    let server = Server::builder().user(USER, PASSWORD).user("other", "pass").start();
    let mut session = server.session();
    session.refused("USER other");
    session.refused("PASS pass");
    let mut client = server.pop3();
    client.login("other", "pass");
    client.quit();
    session.quit();
}

/// The password may hold a `:`, as the first one ends the name.
#[test]
fn a_password_with_colons() {
    let server = Server::builder().user("ana", ":a:b: ").start();
    let mut client = server.pop3();
    client.login("ana", ":a:b: ");
    client.quit();
}
