//! Logins with right and wrong credentials, and the maildrop's exclusive-access lock.

use crate::harness::{Client, PASSWORD, Server, USER, eventually, settled};

/// The answers are the same for a wrong password, an unknown name and an impossible name.
#[test]
fn refused_logins_do_not_reveal_which_users_exist() {
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

#[test]
fn a_name_of_128_octets_is_accepted_and_a_longer_one_is_refused() {
    let longest = "n".repeat(128);
    let server = Server::builder().user(&longest, "pass").start();
    server.mail().maildrop(&longest).put("1", "one\r\n");
    let mut client = server.pop3();
    client.call(&format!("USER {longest}n"));
    assert!(client.refused("PASS pass").starts_with("[AUTH]"));
    client.login(&longest, "pass");
    assert_eq!(client.call("STAT"), "1 5");
}

/// A user's name is the name of a directory in the mail directory, so a name that leads elsewhere is a usage error.
#[test]
fn names_that_are_no_directory_names_are_refused_at_start() {
    for name in ["..", ".", "a/b", "/", "", ".hidden", &"n".repeat(129)] {
        let output = Server::builder().user(name, "pass").refused();
        assert_eq!(output.status.code(), Some(2), "{name:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{name:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{name:?}");
    }
}

/// RFC 1939 section 4: the maildrop is locked for one session.
#[test]
fn one_of_many_simultaneous_logins_gets_the_maildrop() {
    const CLIENTS: usize = 8;
    let server = Server::start();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.pop3()).collect();
    for client in &mut clients {
        client.send_all([&format!("USER {USER}")[..], &format!("PASS {PASSWORD}")]);
    }
    let (mut accepted, mut refused) = (0, 0);
    for client in &mut clients {
        client.ok();
        match client.line() {
            line if line.starts_with("+OK") => accepted += 1,
            line if line.starts_with("-ERR [IN-USE] ") => refused += 1,
            line => panic!("{line}"),
        }
    }
    assert_eq!((accepted, refused), (1, CLIENTS - 1));
}

/// A login waits up to 2 s for the lock, because the user's previous session may be about to end.
#[test]
fn a_login_succeeds_if_the_previous_session_ends_in_time() {
    let server = Server::start();
    let first = server.session();
    let mut second = server.pop3();
    second.call(&format!("USER {USER}"));
    second.send(&format!("PASS {PASSWORD}"));
    first.quit();
    second.ok();
    second.call("STAT");
}

/// A client that has the answer to QUIT can log in again at once.
#[test]
fn the_lock_is_released_before_quit_is_answered() {
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
fn the_lock_is_released_when_the_connection_ends() {
    let server = Server::start();
    for _ in 0..50 {
        drop(server.session());
    }
    let mut admin = server.admin();
    eventually("the last lock is released", || admin.values("cu?").is_empty());
}

#[test]
fn the_lock_is_released_when_a_client_leaves_while_the_server_writes_to_it() {
    let server = Server::start();
    server.maildrop().put("1", b"line\r\n".repeat(4 << 20));
    let mut client = server.session();
    let mut admin = server.admin();
    client.send("RETR 1");
    client.ok();
    settled("the server is blocked", || admin.value("rb?"));
    drop(client);
    eventually("the lock is released", || admin.values("cu?").is_empty());
    server.session().quit();
}

/// RFC 1939 section 4: USER and PASS are refused after login. They must not lock the maildrop of the user they name.
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

/// In `-u NAME:PASSWORD` the first colon ends the name.
#[test]
fn a_password_may_contain_colons() {
    let server = Server::builder().user("ana", ":a:b: ").start();
    let mut client = server.pop3();
    client.login("ana", ":a:b: ");
    client.quit();
}
