//! What strangers may do: connections from one address, guesses, slow readers. Addresses of 127.0.0.0/8 stand for those
//! of the world, as the servers here let no exemption hold for loopback.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use socket2::{Domain, Socket, Type};

use crate::harness::{Builder, Certificate, Client, PASSWORD, Server, USER, eventually};
use crate::limits::{one_at_a_time, raise_own_descriptor_limit};

fn strict() -> Builder {
    Server::builder().flags(["--limit-loopback"])
}

/// A client at 127.0.0.`host`.
#[track_caller]
fn greeted(host: u8, server: &Server) -> Client {
    let mut client = from(host, server.pop3_address());
    client.ok();
    client
}

/// The same before the greeting, for any port.
#[track_caller]
fn from(host: u8, server: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    Client::over(TcpStream::from(socket)).unwrap()
}

const TOO_MANY: &str = "-ERR [SYS/TEMP] too many connections from your address";

// ---------------------------------------------------------------------------------------------------------------------
// Connections

/// 998 clients of one address that never say anything, or say it octet by octet, and read nothing, keep nobody out.
#[test]
fn nobody_is_kept_out_by_another_address() {
    let _turn = one_at_a_time();
    raise_own_descriptor_limit();
    let server = strict().start();
    let mut slow: Vec<_> = (0..998).map(|_| from(2, server.pop3_address())).collect();
    slow.iter_mut().step_by(2).for_each(|client| drop(client.try_write(b"U")));
    let (served, refused) = slow.split_at_mut(32);
    served.iter_mut().for_each(|client| drop(client.ok()));
    for client in refused {
        client.expect(TOO_MANY);
        client.closed();
    }
    let mut user = greeted(3, &server);
    user.login(USER, PASSWORD);
    assert_eq!(user.call("STAT"), "0 0");

    let mut admin = server.admin();
    assert_eq!((admin.value("cc?"), admin.value("hc?")), ("33".to_owned(), "33".to_owned()));
    let said = server.stderr();
    assert_eq!(said.matches(" refused: too many connections").count(), 1, "{said}");

    // A place is free again when one has gone.
    slow.remove(1).quit();
    greeted(2, &server);
}

#[test]
fn peep_counts_too_and_has_its_own_words() {
    let server = strict().flags(["--per-address", "2"]).start();
    let _first = greeted(2, &server);
    let mut second = from(2, server.peep_address());
    second.send("a root root");
    second.expect("+");
    let mut third = from(2, server.peep_address());
    third.expect("-9");
    third.closed();
    let mut elsewhere = from(3, server.peep_address());
    elsewhere.send("a root root");
    elsewhere.expect("+");
}

#[test]
fn the_trusted_and_loopback_are_exempt() {
    let trusting = strict().flags(["--per-address", "1", "--trusted", "127.0.0.2"]).start();
    let _clients: Vec<_> = (0..5).map(|_| greeted(2, &trusting)).collect();
    let _one = greeted(3, &trusting);
    from(3, trusting.pop3_address()).expect(TOO_MANY);
    let ordinary = Server::builder().flags(["--per-address", "1"]).start();
    let _clients: Vec<_> = (0..5).map(|_| greeted(4, &ordinary)).collect();
}

/// An admin gets in, however many sit at PEEP's port and say nothing; who has sat there longest goes.
#[test]
fn peep_is_not_kept_by_strangers() {
    let server = Server::start();
    let mut admin = server.admin();
    let mut strangers: Vec<_> = (0..200).map(|_| server.peep()).collect();
    strangers[..168].iter_mut().for_each(Client::closed);
    assert_eq!(server.admin().value("cc?"), "0");
    for stranger in &mut strangers[170..] {
        stranger.send("cap?");
        assert!(stranger.line().starts_with('+'));
    }
    assert_eq!(admin.value("cc?"), "0");
}

// ---------------------------------------------------------------------------------------------------------------------
// Guesses

/// Tries a password on a connection of its own; what came of it.
#[track_caller]
fn guess(host: u8, server: &Server, name: &str, password: &str) -> String {
    let mut client = greeted(host, server);
    client.call(&format!("USER {name}"));
    client.send(&format!("PASS {password}"));
    client.line()
}

#[test]
fn a_guesser_is_refused_and_others_are_not() {
    let server = strict().user(USER, PASSWORD).user("other", "secret").start();
    // This one is known at the guesser's address.
    assert!(guess(2, &server, USER, PASSWORD).starts_with("+OK"));
    let mut answers = (0..1000).map(|number| guess(2, &server, "other", &format!("guess{number}")));
    let refusal = answers.find(|answer| !answer.starts_with("-ERR [AUTH] ")).unwrap();
    assert!(
        refusal.starts_with("-ERR [SYS/TEMP] too many failed logins from your address, try again in "),
        "{refusal}"
    );
    assert!(guess(2, &server, USER, PASSWORD).starts_with("+OK"));
    let response = BASE64.encode(format!("\0{USER}\0{PASSWORD}"));
    assert!(greeted(2, &server).call(&format!("AUTH PLAIN {response}")).starts_with("maildrop open"));
    assert!(guess(3, &server, "other", "secret").starts_with("+OK"));
    // It is one penalty for both protocols, and the refusal ends the connection.
    let answer = (0..1000).find_map(|number| {
        let mut admin = from(2, server.peep_address());
        admin.send(&format!("a root guess{number}"));
        (admin.line() == "-9").then(|| admin.closed())
    });
    assert!(answer.is_some());
    let line = " login refused: user=\"other\", too many failed logins, for ";
    eventually("the refusals are logged", || server.stderr().contains(line));
}

/// Sends passwords side by side, each on a connection of its own from 127.0.0.2; the answers.
fn side_by_side(server: &Server, logins: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let mut clients: Vec<_> = logins
        .map(|(name, password)| {
            let mut client = greeted(2, server);
            client.call(&format!("USER {name}"));
            (client, password)
        })
        .collect();
    clients.iter_mut().for_each(|(client, password)| client.send(&format!("PASS {password}")));
    clients.iter_mut().map(|(client, _)| client.line()).collect()
}

/// Whoever tries many passwords at the same time has no more of them looked at than who tries one after the other.
#[test]
fn guesses_side_by_side_are_no_cheaper() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    let field =
        "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$XeAZu0XqK7SrqqqK6r3iPA$nUfwFUhheffsKLqbz3q/kZlexW+mf7uSTF7tthL5g2A";
    std::fs::write(&users, format!("ana:{field}\n")).unwrap();
    let server = strict().users_file(&users).start();
    let answers = side_by_side(&server, (0..32).map(|number| ("ana".to_owned(), format!("guess{number}"))));
    let looked_at = answers.iter().filter(|answer| answer.starts_with("-ERR [AUTH] ")).count();
    assert!(answers.iter().all(|answer| answer.starts_with("-ERR [")), "{answers:?}");
    // Six are free and the next one costs a second; a busy machine may take so long that another one or two are due.
    assert!((1..12).contains(&looked_at), "{looked_at} were looked at: {answers:?}");
}

/// Many users behind one address, as those of a webmail host, may log in at the same time.
#[test]
fn right_passwords_side_by_side_are_no_guesses() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    let field = "{BLF-CRYPT}$2y$05$fo4ZtJ06qtxQCNjuaPwbYObJC/5Td6vfua19SxBVXAyn6p2g/5QLS";
    let lines: String = (0..60).map(|number| format!("user{number}:{field}\n")).collect();
    std::fs::write(&users, lines).unwrap();
    let server = strict().users_file(&users).flags(["--per-address", "100"]).start();
    let user = |number: usize| (format!("user{number}"), "secret".to_owned());
    let answers = side_by_side(&server, (0..60).map(user));
    assert!(answers.iter().all(|answer| answer.starts_with("+OK")), "{answers:?}");
}

/// Begins AUTH SCRAM-SHA-256 as `user` (RFC 5802); the message that ends it with the right password.
fn scram(client: &mut Client, user: &str, password: &str) -> String {
    let bare = format!("n={user},r=nonce");
    client.send(&format!("AUTH SCRAM-SHA-256 {}", BASE64.encode(format!("n,,{bare}"))));
    let line = client.line();
    let challenge = String::from_utf8(BASE64.decode(line.strip_prefix("+ ").unwrap()).unwrap()).unwrap();
    let mut fields = challenge.split(',').map(|field| &field[2..]);
    let mut next = || fields.next().unwrap();
    let (nonce, salt, iterations) = (next(), BASE64.decode(next()).unwrap(), next().parse().unwrap());
    let salted: [u8; 32] = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &salt, iterations);
    let hmac = |key: &[u8], octets: &[u8]| {
        Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(octets).finalize().into_bytes()
    };
    let without_proof = format!("c=biws,r={nonce}");
    let client_key = hmac(&salted, b"Client Key");
    let signature = hmac(&Sha256::digest(client_key), format!("{bare},{challenge},{without_proof}").as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    BASE64.encode(format!("{without_proof},p={}", BASE64.encode(proof)))
}

/// Who opens many exchanges at once has no more guesses than who opens one.
#[test]
fn an_exchange_that_was_begun_before_a_penalty_does_not_end_in_it() {
    let server = strict().start();
    let mut early = greeted(2, &server);
    let right = scram(&mut early, USER, PASSWORD);
    let mut guesses = (0..1000).map(|number| guess(2, &server, USER, &format!("guess{number}")));
    assert!(guesses.any(|answer| answer.starts_with("-ERR [SYS/TEMP] ")));
    early.send(&right);
    assert!(early.err().starts_with("[SYS/TEMP] too many failed logins"));
    early.closed();

    let mut elsewhere = greeted(3, &server);
    let right = scram(&mut elsewhere, USER, PASSWORD);
    elsewhere.send(&right);
    assert!(elsewhere.line().starts_with("+ "));
    elsewhere.call("");
    elsewhere.call("STAT");
}

// ---------------------------------------------------------------------------------------------------------------------
// Slow readers

/// A client that asks for a message and takes nothing of it, or an octet now and then, has the maildrop no longer than
/// the span; by sendfile(2) and by writes.
#[test]
fn who_reads_too_slowly_is_given_up() {
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
        eventually("it is told", || server.stderr().contains("end: client reads too slowly"));
        server.session().quit();
    }
}

/// The autologout timer, lowered, reaches a session that is blocked in a write already: by sendfile(2), by writes, by TLS.
#[test]
fn a_lowered_timer_ends_a_client_that_takes_nothing() {
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

/// What a program needs is not the client's time.
#[test]
fn a_slow_transform_is_not_the_clients_fault() {
    let server = Server::builder().flags(["--min-rate", "1000000:1", "-t", "sh -c 'cat; sleep 3'"]).start();
    server.maildrop().put("1", "Subject: small\r\n\r\ntext\r\n");
    let mut client = server.session();
    assert_eq!(client.fetch("RETR 1"), b"Subject: small\r\n\r\ntext\r\n");
    client.quit();
}
