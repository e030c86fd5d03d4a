//! Limits for clients that have not logged in and for slow readers: connections from one address, guesses of passwords,
//! and clients that do not read. The servers do not exempt loopback, so that addresses of 127.0.0.0/8 can stand for
//! clients on other machines.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use socket2::{Domain, Socket, Type};

use crate::harness::{Builder, Certificate, Client, PASSWORD, Server, USER, eventually, scram};
use crate::limits::{one_at_a_time, raise_own_descriptor_limit};

/// A server that limits clients of loopback as any others.
fn strict() -> Builder {
    Server::builder().flags(["--limit-loopback"])
}

/// Connects a POP3 client from the address 127.0.0.`host` and reads the greeting.
#[track_caller]
fn connect_pop3(host: u8, server: &Server) -> Client {
    let mut client = connect_from(host, server.pop3_address());
    client.ok();
    client
}

/// Connects a client from the address 127.0.0.`host` to any port, and reads nothing.
#[track_caller]
pub(crate) fn connect_from(host: u8, server: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    Client::over(TcpStream::from(socket)).unwrap()
}

const TOO_MANY: &str = "-ERR [SYS/TEMP] too many connections from your address";

// ---------------------------------------------------------------------------------------------------------------------
// Connections

/// 998 clients from one address send nothing or single octets, and read nothing. Clients from other addresses are
/// served.
#[test]
fn many_connections_from_one_address_do_not_keep_other_addresses_out() {
    let _turn = one_at_a_time();
    raise_own_descriptor_limit();
    let server = strict().start();
    let mut slow: Vec<_> = (0..998).map(|_| connect_from(2, server.pop3_address())).collect();
    slow.iter_mut().step_by(2).for_each(|client| drop(client.try_write(b"U")));
    let (served, refused) = slow.split_at_mut(32);
    served.iter_mut().for_each(|client| drop(client.ok()));
    for client in refused {
        client.expect(TOO_MANY);
        client.closed();
    }
    let mut user = connect_pop3(3, &server);
    user.login(USER, PASSWORD);
    assert_eq!(user.call("STAT"), "0 0");

    let mut admin = server.admin();
    assert_eq!((admin.value("cc?"), admin.value("hc?")), ("33".to_owned(), "33".to_owned()));
    let log = server.stderr();
    assert_eq!(log.matches(" refused: too many connections").count(), 1, "{log}");

    // When one of the connections has ended, the address may have another one.
    slow.remove(1).quit();
    connect_pop3(2, &server);
}

#[test]
fn peep_connections_count_and_are_refused_by_minus_9() {
    let server = strict().flags(["--per-address", "2"]).start();
    let _first = connect_pop3(2, &server);
    let mut second = connect_from(2, server.peep_address());
    second.send("a root root");
    second.expect("+");
    let mut third = connect_from(2, server.peep_address());
    third.expect("-9");
    third.closed();
    let mut elsewhere = connect_from(3, server.peep_address());
    elsewhere.send("a root root");
    elsewhere.expect("+");
}

#[test]
fn trusted_networks_and_loopback_are_exempt() {
    let trusting = strict().flags(["--per-address", "1", "--trusted", "127.0.0.2"]).start();
    let _clients: Vec<_> = (0..5).map(|_| connect_pop3(2, &trusting)).collect();
    let _one = connect_pop3(3, &trusting);
    connect_from(3, trusting.pop3_address()).expect(TOO_MANY);
    let ordinary = Server::builder().flags(["--per-address", "1"]).start();
    let _clients: Vec<_> = (0..5).map(|_| connect_pop3(4, &ordinary)).collect();
}

/// When too many PEEP connections are unauthenticated, the oldest is closed, so that an admin can always connect.
#[test]
fn unauthenticated_peep_connections_do_not_keep_an_admin_out() {
    let server = Server::start();
    let mut admin = server.admin();
    let mut clients: Vec<_> = (0..200).map(|_| server.peep()).collect();
    clients[..168].iter_mut().for_each(Client::closed);
    assert_eq!(server.admin().value("cc?"), "0");
    for client in &mut clients[170..] {
        client.send("cap?");
        assert!(client.line().starts_with('+'));
    }
    assert_eq!(admin.value("cc?"), "0");
}

// ---------------------------------------------------------------------------------------------------------------------
// Guesses

/// Tries a password on a new connection, and returns the answer.
#[track_caller]
fn guess(host: u8, server: &Server, name: &str, password: &str) -> String {
    let mut client = connect_pop3(host, server);
    client.call(&format!("USER {name}"));
    client.send(&format!("PASS {password}"));
    client.line()
}

#[test]
fn only_the_address_that_guesses_passwords_is_refused() {
    let server = strict().user(USER, PASSWORD).user("other", "secret").start();
    // This user has logged in from the guesser's address before.
    assert!(guess(2, &server, USER, PASSWORD).starts_with("+OK"));
    let mut answers = (0..1000).map(|number| guess(2, &server, "other", &format!("guess{number}")));
    let refusal = answers.find(|answer| !answer.starts_with("-ERR [AUTH] ")).unwrap();
    assert!(
        refusal.starts_with("-ERR [SYS/TEMP] too many failed logins from your address, try again in "),
        "{refusal}"
    );
    assert!(guess(2, &server, USER, PASSWORD).starts_with("+OK"));
    let response = BASE64.encode(format!("\0{USER}\0{PASSWORD}"));
    assert!(connect_pop3(2, &server).call(&format!("AUTH PLAIN {response}")).starts_with("maildrop open"));
    assert!(guess(3, &server, "other", "secret").starts_with("+OK"));
    // POP3 and PEEP share the penalty, and the refusal ends the connection.
    let answer = (0..1000).find_map(|number| {
        let mut admin = connect_from(2, server.peep_address());
        admin.send(&format!("a root guess{number}"));
        (admin.line() == "-9").then(|| admin.closed())
    });
    assert!(answer.is_some());
    let line = " login refused: user=\"other\" reason=\"too many failed logins, for ";
    eventually("the refusals are logged", || server.stderr().contains(line));
}

/// Sends passwords at the same time, each on a connection of its own from 127.0.0.2. Returns the answers.
fn simultaneous_logins(server: &Server, logins: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let mut clients: Vec<_> = logins
        .map(|(name, password)| {
            let mut client = connect_pop3(2, server);
            client.call(&format!("USER {name}"));
            (client, password)
        })
        .collect();
    clients.iter_mut().for_each(|(client, password)| client.send(&format!("PASS {password}")));
    clients.iter_mut().map(|(client, _)| client.line()).collect()
}

/// The server verifies no more passwords of a client that tries many at the same time than of one that tries them one
/// after the other.
#[test]
fn simultaneous_guesses_are_limited_like_successive_ones() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    let field =
        "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$XeAZu0XqK7SrqqqK6r3iPA$nUfwFUhheffsKLqbz3q/kZlexW+mf7uSTF7tthL5g2A";
    std::fs::write(&users, format!("ana:{field}\n")).unwrap();
    let server = strict().users_file(&users).start();
    let answers = simultaneous_logins(&server, (0..32).map(|number| ("ana".to_owned(), format!("guess{number}"))));
    let verified = answers.iter().filter(|answer| answer.starts_with("-ERR [AUTH] ")).count();
    assert!(answers.iter().all(|answer| answer.starts_with("-ERR [")), "{answers:?}");
    // Six guesses are free and the next one costs a second. On a busy machine the test may take some seconds more, in
    // which another guess or two are allowed.
    assert!((1..12).contains(&verified), "{verified} passwords were verified: {answers:?}");
}

/// Many users may log in at the same time from one address, as those of a webmail host do.
#[test]
fn simultaneous_logins_with_right_passwords_are_no_guesses() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    let field = "{BLF-CRYPT}$2y$05$fo4ZtJ06qtxQCNjuaPwbYObJC/5Td6vfua19SxBVXAyn6p2g/5QLS";
    let lines: String = (0..60).map(|number| format!("user{number}:{field}\n")).collect();
    std::fs::write(&users, lines).unwrap();
    let server = strict().users_file(&users).flags(["--per-address", "100"]).start();
    let user = |number: usize| (format!("user{number}"), "secret".to_owned());
    let answers = simultaneous_logins(&server, (0..60).map(user));
    assert!(answers.iter().all(|answer| answer.starts_with("+OK")), "{answers:?}");
}

/// A client that starts many SCRAM exchanges at once has no more guesses than one that starts a single exchange.
#[test]
fn a_scram_exchange_that_began_before_a_penalty_is_refused_during_it() {
    let server = strict().start();
    let mut early = connect_pop3(2, &server);
    let right = scram(&mut early, USER, PASSWORD);
    let mut guesses = (0..1000).map(|number| guess(2, &server, USER, &format!("guess{number}")));
    assert!(guesses.any(|answer| answer.starts_with("-ERR [SYS/TEMP] ")));
    early.send(&right);
    assert!(early.err().starts_with("[SYS/TEMP] too many failed logins"));
    early.closed();

    let mut elsewhere = connect_pop3(3, &server);
    let right = scram(&mut elsewhere, USER, PASSWORD);
    elsewhere.send(&right);
    assert!(elsewhere.line().starts_with("+ "));
    elsewhere.call("");
    elsewhere.call("STAT");
}

// ---------------------------------------------------------------------------------------------------------------------
// Slow readers

/// A client asks for a message and reads nothing of it or a few octets. It loses the maildrop after the period of
/// `--min-rate`, whether the server sends by sendfile(2) or by write(2).
#[test]
fn a_client_that_reads_too_slowly_is_closed() {
    for line_end in ["\n", "\r\n"] {
        let server = Server::builder().flags(["--min-rate", "1000000:1"]).start();
        let line = format!("{}{line_end}", "x".repeat(998));
        server.maildrop().put("1", format!("Subject: large{line_end}{line_end}{}", line.repeat(40_000)));
        let mut client = server.session();
        client.send("RETR 1");
        client.ok();
        let mut octet = [0];
        eventually("the maildrop is free", || {
            let _ = client.socket().read(&mut octet);
            server.admin().values("cu?").is_empty()
        });
        eventually("the log has the reason", || server.stderr().contains("end: client reads too slowly"));
        server.session().quit();
    }
}

/// The session is blocked in sendfile(2), in write(2) or in TLS when the admin lowers the timeout.
#[test]
fn a_lowered_timeout_ends_a_session_that_is_blocked_in_a_write() {
    let certificate = Certificate::new();
    for (line_end, tls) in [("\n", false), ("\r\n", false), ("\r\n", true)] {
        let mut builder = Server::builder();
        if tls {
            builder = builder.flags(["--pop3s-port", "0", "--tls-cert", certificate.chain().to_str().unwrap()]);
            builder = builder.flags(["--tls-key", certificate.key().to_str().unwrap()]);
        }
        let server = builder.start();
        let line = format!("{}{line_end}", "x".repeat(998));
        server.maildrop().put("1", format!("Subject: large{line_end}{line_end}{}", line.repeat(40_000)));
        let mut client = match tls {
            false => Client::connect(server.pop3_address()),
            true => Client::connect(server.pop3s_address()).tls(&certificate),
        };
        client.ok();
        client.login(USER, PASSWORD);
        client.send("RETR 1");
        client.ok();
        let mut admin = server.admin();
        assert_eq!(admin.values("cu?"), [USER]);
        admin.send("t= 1");
        admin.expect("+");
        eventually("the maildrop is free", || admin.values("cu?").is_empty());
        server.session().quit();
    }
}

/// The time that a transform takes does not count as the client's time.
#[test]
fn a_slow_transform_does_not_make_a_client_too_slow() {
    let server = Server::builder().flags(["--min-rate", "1000000:1", "-t", "sh -c 'cat; sleep 3'"]).start();
    server.maildrop().put("1", "Subject: small\r\n\r\ntext\r\n");
    let mut client = server.session();
    assert_eq!(client.fetch("RETR 1"), b"Subject: small\r\n\r\ntext\r\n");
    client.quit();
}
