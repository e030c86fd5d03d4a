//! Bans (`b+`, `b-`, `b?`).

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};

use super::{answer, play};
use crate::harness::{Client, PASSWORD, Server, USER, eventually};

/// A POP3 client that is refused before it has a session.
#[track_caller]
fn is_refused(server: &Server) {
    let mut client = Client::connect(server.pop3_address());
    assert_eq!(client.err(), "[SYS/PERM] connections from your address are not accepted");
    client.closed();
}

#[test]
fn a_banned_address_is_refused_until_the_ban_is_lifted() {
    let server = Server::start();
    let mut admin = server.admin();
    let mut open = server.session();
    for network in ["127.0.0.1", "127.0.0.0/8", "0.0.0.0/0", "::ffff:127.0.0.1"] {
        assert_eq!(answer(&mut admin, &format!("b+ {network} 0")), "+");
        is_refused(&server);
        // Sessions that are open go on, and so does PEEP.
        open.call("NOOP");
        let mut other_admin = server.admin();
        play(&mut other_admin, [(&*format!("b- {network}"), "+"), (&*format!("b- {network}"), "-10")]);
        server.pop3().quit();
    }
    server.expect_log("WARN", "refused: this address is banned");
    server.expect_log("INFO", "set: 127.0.0.1 is banned");
    server.expect_log("INFO", "set: 127.0.0.0/8 is banned");
    server.expect_log("INFO", "set: 127.0.0.0/8 is not banned any more");
    assert_eq!(admin.value("hc?"), "5");
}

/// A connection that was open before the ban goes on, but no login on it succeeds.
#[test]
fn a_banned_address_cannot_log_in_over_a_connection_that_is_open() {
    let server = Server::start();
    let mut admin = server.admin();
    let login = format!("AUTH PLAIN {}", BASE64.encode(format!("\0{USER}\0{PASSWORD}")));
    for command in [format!("PASS {PASSWORD}"), login] {
        let mut client = server.pop3();
        client.call(&format!("USER {USER}"));
        assert_eq!(answer(&mut admin, "b+ 127.0.0.1 0"), "+");
        assert_eq!(client.refused(&command), "[SYS/PERM] connections from your address are not accepted");
        client.closed();
        assert_eq!(answer(&mut admin, "b- 127.0.0.1"), "+");
    }
    server.expect_log("WARN", "login refused: user=\"mrose\" reason=\"this address is banned\"");
    server.expect_log("INFO", "end: the address is banned");
}

#[test]
fn bans_are_listed_in_order_with_their_remaining_seconds() {
    let server = Server::start();
    let mut admin = server.admin();
    assert_eq!(answer(&mut admin, "b?"), "+0");
    for line in ["b+ 2001:db8::1/32 0", "b+ 192.0.2.77/24 3600", "b+ 192.0.2.1 4294967295", "b+ 192.0.2.77/24 1800"] {
        assert_eq!(answer(&mut admin, line), "+");
    }
    let bans = admin.values("b?");
    assert_eq!(bans.len(), 3, "{bans:?}");
    let left = |line: &str| line.split(' ').nth(1).unwrap().parse::<u32>().unwrap();
    assert!(bans[0].starts_with("192.0.2.0/24 ") && (1790..=1800).contains(&left(&bans[0])), "{bans:?}");
    assert!(bans[1].starts_with("192.0.2.1 ") && left(&bans[1]) > u32::MAX - 100, "{bans:?}");
    assert_eq!(bans[2], "2001:db8::/32 - banned%20by%20an%20admin");
    // Other addresses are not affected.
    server.session().quit();
    play(
        &mut admin,
        [
            ("b+ 192.0.2.1", "-1"),
            ("b+ 192.0.2.1 4294967296", "-1"),
            ("b+ 192.0.2.1 -1", "-1"),
            ("b+ x 1", "-1"),
            ("b-", "-1"),
            ("b- x", "-1"),
        ],
    );
}

#[test]
fn a_ban_ends_after_its_seconds() {
    let server = Server::start();
    let mut admin = server.admin();
    play(&mut admin, [("b+ 127.0.0.1 1", "+")]);
    eventually("the ban is over", || answer(&mut admin, "b?") == "+0" || admin.line().is_empty());
    server.session().quit();
    assert_eq!(answer(&mut admin, "b- 127.0.0.1"), "-10");
}

#[test]
fn penalties_are_listed_as_bans_and_can_be_lifted() {
    let server = Server::builder().flags(["--limit-loopback"]).start();
    let mut admin = server.admin();
    let guess = |number: u32| {
        let mut client = server.pop3();
        client.call(&format!("USER {USER}"));
        client.refused(&format!("PASS guess{number}"))
    };
    let mut guesses = 0;
    eventually("there is a penalty", || {
        guesses += 1;
        guess(guesses).contains("too many failed logins")
    });
    let bans = admin.values("b?");
    assert_eq!(bans.len(), 1, "{bans:?}");
    assert!(bans[0].starts_with("127.0.0.1 ") && bans[0].ends_with(" too%20many%20failed%20logins"), "{bans:?}");
    play(&mut admin, [("b- 127.0.0.1", "+"), ("b?", "+0")]);
    server.session().quit();
}
