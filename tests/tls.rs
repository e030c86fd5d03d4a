//! TLS: the real server with certificates that the tests make, and clients that trust only these.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use sha2::{Digest, Sha256};

use crate::harness::{Certificate, Client, PASSWORD, Server, USER, bound_scram, eventually, trusting};

/// RFC 5802 section 6 and RFC 9266: the client proves that its TLS connection is the server's. TLS 1.2 and connections
/// without TLS have no such proof, and it is not announced there.
#[test]
fn scram_with_channel_binding_works_over_tls_1_3() {
    let certificate = Certificate::new();
    let server = Server::builder().tls(&certificate).start();
    let plus = "SCRAM-SHA-256-PLUS";
    let announces = |client: &mut Client| client.listing("AUTH").iter().any(|mechanism| mechanism == plus);
    assert!(!announces(&mut server.pop3()));
    let trusted = certificate.trusted_by_tls_1_2();
    let mut old = Client::connect(server.pop3s_address()).try_tls(&trusted).unwrap();
    old.ok();
    assert!(!announces(&mut old));
    old.refused(&format!("AUTH {plus}"));

    let by_pop3s = || {
        let mut client = Client::connect(server.pop3s_address()).tls(&certificate);
        client.ok();
        client
    };
    let by_stls = || {
        let mut client = server.pop3();
        client.call("STLS");
        client.tls(&certificate)
    };
    for connect in [&by_pop3s as &dyn Fn() -> Client, &by_stls] {
        let mut client = connect();
        assert!(announces(&mut client));
        let others = connect().channel_binding();
        let wrong = bound_scram(&mut client, plus, ("p=tls-exporter,,", &others), USER, PASSWORD);
        client.refused(&wrong);
        // A client that supports channel binding but was not told of it has met an attacker.
        client.refused("AUTH SCRAM-SHA-256 eSwsbj1tcm9zZSxyPXg="); // y,,n=mrose,r=x
        let own = client.channel_binding();
        let right = bound_scram(&mut client, plus, ("p=tls-exporter,,", &own), USER, PASSWORD);
        client.send(&right);
        assert!(client.line().starts_with("+ "));
        client.call("");
        client.call("STAT");
        client.quit();
    }
}

/// Messages with every kind of line end and dot. One of them would be sent by sendfile(2) on a connection without TLS.
fn messages() -> [Vec<u8>; 3] {
    let wire = b"Subject: wire form\r\n\r\n0123456789 0123456789\r\n".repeat(8000);
    let lf = b"Subject: LF\n\n.dot\n..\n.\nlone\rcr\r\nno end".to_vec();
    let long = [b"A: b\n\n".to_vec(), b".x\n".repeat(100_000)].concat();
    [wire, lf, long]
}

/// The octets that RETR sends for a stored message, without byte-stuffing.
fn octets_of(stored: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    for line in stored.split_inclusive(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        octets.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        octets.extend_from_slice(b"\r\n");
    }
    octets
}

/// Starts a server with this certificate and the messages of [`messages`].
fn server(certificate: &Certificate) -> Server {
    let server = Server::builder().tls(certificate).start();
    for (number, message) in messages().iter().enumerate() {
        server.maildrop().put(&number.to_string(), message);
    }
    server
}

/// Connects a client by POP3S and reads the greeting.
fn pop3s(server: &Server, certificate: &Certificate) -> Client {
    let mut client = Client::connect(server.pop3s_address()).tls(certificate);
    client.ok();
    client
}

/// Connects a client by POP3 and starts TLS by STLS.
fn stls(server: &Server, certificate: &Certificate) -> Client {
    let mut client = server.pop3();
    client.call("STLS");
    client.tls(certificate)
}

fn capabilities(client: &mut Client) -> Vec<String> {
    client.listing("CAPA")
}

fn offers(client: &mut Client, capability: &str) -> bool {
    capabilities(client).iter().any(|offered| offered == capability)
}

#[test]
fn sessions_by_pop3s_and_stls_are_like_any_other() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    for connect in [pop3s, stls] {
        let mut client = connect(&server, &certificate);
        client.login(USER, PASSWORD);
        for (index, message) in messages().iter().enumerate() {
            let number = index + 1;
            let octets = octets_of(message);
            assert_eq!(client.call(&format!("LIST {number}")), format!("{number} {}", octets.len()));
            assert!(client.fetch(&format!("RETR {number}")) == octets, "message {number}");
        }
        client.send_all(["DELE 1", "NOOP", "RSET", "TOP 2 1"]);
        (0..4).for_each(|_| drop(client.ok()));
        assert_eq!(client.multiline(), octets_of(b"Subject: LF\n\n.dot\n"));
        client.quit();
    }
    assert_eq!(server.maildrop().messages().len(), 3);
}

#[test]
fn messages_are_removed_by_tls_only_after_quit() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    let mut lost = pop3s(&server, &certificate);
    lost.login(USER, PASSWORD);
    lost.call("DELE 1");
    drop(lost); // closes the connection without a close_notify of TLS
    let mut client = stls(&server, &certificate);
    client.login(USER, PASSWORD);
    assert!(client.call("STAT").starts_with("3 "));
    client.call("DELE 1");
    client.quit();
    assert_eq!(server.maildrop().messages(), ["1", "2"]);
}

#[test]
fn stls_is_offered_only_before_login_and_without_tls() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    let mut client = server.pop3();
    assert!(offers(&mut client, "STLS"));
    client.call("STLS");
    let mut client = client.tls(&certificate);
    assert!(!offers(&mut client, "STLS"));
    client.refused("STLS");
    client.login(USER, PASSWORD);
    assert!(!offers(&mut client, "STLS"));
    client.quit();

    let mut clear = server.pop3();
    clear.call("USER nobody");
    assert!(clear.refused("STLS x").contains("unexpected argument"));
    clear.login(USER, PASSWORD);
    assert!(!offers(&mut clear, "STLS"));
    clear.refused("STLS");
    assert!(!offers(&mut pop3s(&server, &certificate), "STLS"));

    let plain = Server::start();
    let mut without = plain.pop3();
    assert!(!offers(&mut without, "STLS"));
    assert!(without.refused("STLS").contains("no TLS"));
}

/// RFC 2595 section 4: after the handshake the server forgets the session's state, and also octets that came in clear
/// after STLS.
#[test]
fn nothing_received_in_clear_counts_after_the_handshake() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    let mut client = server.pop3();
    client.send_all([&format!("USER {USER}"), "STLS", &format!("PASS {PASSWORD}"), "CAPA"]);
    client.ok();
    client.ok();
    let mut client = client.tls(&certificate);
    assert!(client.refused(&format!("PASS {PASSWORD}")).contains("USER first"));
    client.login(USER, PASSWORD);
    client.quit();

    // Octets without a line end would become the beginning of the client's first command.
    let mut client = server.pop3();
    client.write("STLS\r\nQUIT ");
    client.ok();
    client.tls(&certificate).call("CAPA");
}

#[test]
fn a_failed_handshake_ends_only_its_own_connection() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    let mut client = server.pop3();
    client.call("STLS");
    client.send("USER x");
    client.rest();
    let mut client = Client::connect(server.pop3s_address());
    client.send("USER x");
    client.rest();
    drop(Client::connect(server.pop3s_address()));
    let trusts_another = Certificate::new().trusted();
    assert!(Client::connect(server.pop3s_address()).try_tls(&trusts_another).is_err());
    eventually("the log has a line for each", || server.stderr().matches("TLS handshake failed").count() == 4);
    pop3s(&server, &certificate).quit();
}

#[test]
fn a_reloaded_certificate_is_used_for_new_connections() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    let mut session = pop3s(&server, &certificate);
    session.login(USER, PASSWORD);
    let old = certificate.trusted();

    certificate.renew();
    server.signal(Signal::HUP);
    eventually("the certificate is read again", || server.stderr().contains("configuration has been read again"));
    pop3s(&server, &certificate).quit();
    assert!(Client::connect(server.pop3s_address()).try_tls(&old).is_err());
    session.call("STAT");

    let good = certificate.trusted();
    fs::write(certificate.chain(), "").unwrap();
    server.signal(Signal::HUP);
    eventually("the refusal is logged", || {
        server
            .stderr()
            .contains("the configuration cannot be used, the old one stays: cannot use the TLS certificate: ")
    });
    let mut client = Client::connect(server.pop3s_address()).try_tls(&good).unwrap();
    client.ok();
    session.quit();
}

#[test]
fn sighup_changes_nothing_without_tls() {
    let server = Server::start();
    server.signal(Signal::HUP);
    server.expect_log("INFO", "the configuration has been read again");
    server.session().quit();
}

#[test]
fn only_tls_1_2_and_1_3_are_accepted() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    let connects = |version: &str| {
        let address = server.pop3s_address().to_string();
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", version, "-cipher", "ALL:@SECLEVEL=0", "-brief", "-connect", &address]);
        openssl.stdin(Stdio::null()).output().unwrap().status.success()
    };
    assert!(connects("-tls1_3"));
    assert!(connects("-tls1_2"));
    assert!(!connects("-tls1_1"));
    assert!(!connects("-tls1"));
}

#[test]
fn peep_tls_refuses_commands_in_clear() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    let mut admin = Client::connect(server.peep_address()).tls(&certificate);
    admin.send("a root root");
    admin.expect("+");
    assert_eq!(admin.value("c?"), "998");
    admin.send("q");
    admin.expect("+");
    admin.closed();
    let mut clear = Client::connect(server.peep_address());
    clear.send("a root root");
    assert!(!clear.rest().starts_with(b"+"));
}

/// `rb?` counts the octets of POP3, not those that TLS adds.
#[test]
fn octets_are_counted_by_tls_as_without() {
    let count = |mut client: Client, mut admin: Client| {
        admin.send("a root root");
        admin.expect("+");
        let octets = |admin: &mut Client| admin.value("rb?").parse::<u64>().unwrap();
        // The greeting differs from session to session, so it is not counted here.
        let before = octets(&mut admin);
        client.login(USER, PASSWORD);
        client.fetch("RETR 1");
        client.quit();
        let after = octets(&mut admin);
        after - before
    };
    let certificate = Certificate::new();
    let by_tls = server(&certificate);
    let admin = Client::connect(by_tls.peep_address()).tls(&certificate);
    let by_tls = count(pop3s(&by_tls, &certificate), admin);
    let clear = server(&certificate);
    let admin = Client::connect(clear.peep_address()).tls(&certificate);
    assert_eq!(by_tls, count(clear.pop3(), admin));
}

#[test]
fn a_transform_is_ended_when_a_client_by_tls_leaves() {
    let certificate = Certificate::new();
    let server = Server::builder().tls(&certificate).flags(["-t", "sh -c 'cat; exec sleep 1000'"]).start();
    server.maildrop().put("1", "text\n");
    let mut client = pop3s(&server, &certificate);
    client.login(USER, PASSWORD);
    client.call("RETR 1");
    client.expect("text");
    drop(client);
    eventually("the session ends", || server.stderr().contains("end: client hung up"));
}

/// A client sends octets of a TLS record that never becomes complete. They do not reset the autologout timer.
#[test]
fn parts_of_a_tls_record_do_not_reset_the_timer() {
    let certificate = Certificate::new();
    let server = Server::builder().tls(&certificate).flags(["-T", "1"]).start();
    let mut client = pop3s(&server, &certificate);
    client.login(USER, PASSWORD);
    // The header of a record of 16,384 octets, which then arrive one by one.
    let mut socket = client.socket();
    socket.write_all(b"\x17\x03\x03\x40\x00").unwrap();
    eventually("the session times out", || {
        let _ = socket.write_all(b"x"); // fails once the server has closed, which may be before its log is read
        server.stderr().contains("end: timeout")
    });
}

#[test]
fn a_tls_session_can_be_resumed() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    let trusted = certificate.trusted();
    for resumed in [false, true] {
        let mut client = Client::connect(server.pop3s_address()).try_tls(&trusted).unwrap();
        client.ok();
        assert_eq!(client.is_resumed(), resumed);
        client.quit();
    }
}

#[test]
fn a_server_with_an_unusable_certificate_does_not_start() {
    let certificate = Certificate::new();
    let other = Certificate::new();
    let chain = certificate.chain();
    for (key, reason) in [(other.key(), "does not belong to the certificate in"), (chain.join("none"), "cannot read")] {
        let flags = ["--tls-cert", chain.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        let output = Server::builder().flags(flags).refused();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("pop3d: cannot use the TLS certificate") && stderr.contains(reason), "{stderr}");
    }
}

#[test]
fn a_self_signed_certificate_is_kept_in_the_state_directory() {
    let directory = tempfile::tempdir().unwrap();
    let chain = directory.path().join("tls-cert.pem");
    let mut seen = Vec::new();
    for flag in ["--tls-self-signed", "--tls-self-signed=mail.example"] {
        let flags = [flag, "--pop3s-port", "0", "--state", directory.path().to_str().unwrap()];
        let server = Server::builder().flags(flags).start();
        let mut client = Client::connect(server.pop3s_address()).try_tls(&trusting(&chain)).unwrap();
        client.ok();
        seen.push(fs::read(&chain).unwrap());
    }
    assert_eq!(seen[0], seen[1]);
}

/// Without a state directory each start makes a new certificate. The log has its fingerprint in the form that OpenSSL
/// prints.
#[test]
fn a_self_signed_certificate_needs_no_state_directory() {
    let mut trust = pop3d::trust::Trust::default();
    trust.insecure = true;
    let trusted = Arc::new(trust.config(rustls::crypto::aws_lc_rs::default_provider()).unwrap());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let server = Server::builder().flags(["--tls-self-signed=mail.example", "--pop3s-port", "0"]).start();
        let mut client = Client::connect(server.pop3s_address()).try_tls(&trusted).unwrap();
        client.ok();
        let certificate = client.peer_certificate();
        let octets: Vec<String> = Sha256::digest(&certificate).iter().map(|octet| format!("{octet:02X}")).collect();
        server.expect_log("INFO", &format!("SHA-256 {}", octets.join(":")));
        server.signal(Signal::HUP);
        server.expect_log("INFO", "the configuration has been read again");
        let mut again = Client::connect(server.pop3s_address()).try_tls(&trusted).unwrap();
        again.ok();
        assert_eq!(again.peer_certificate(), certificate);
        seen.push(certificate);
    }
    assert_ne!(seen[0], seen[1]);
}

/// Clients that trust the old certificate would refuse a new one.
#[test]
fn a_self_signed_certificate_without_its_key_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let state = ["--state", directory.path().to_str().unwrap()];
    let start = || Server::builder().flags(["--tls-self-signed=mail.example", "--pop3s-port", "0"]).flags(state);
    let server = start().start();
    server.expect_log("INFO", "created a TLS certificate: ");
    drop(server);
    fs::remove_file(directory.path().join("tls-key.pem")).unwrap();
    let output = start().refused();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("tls-key.pem is missing beside") && stderr.lines().count() == 1, "{stderr}");
}

/// The server uses an expired certificate in spite of the warning, because clients that do not check dates can still
/// get their mail.
#[test]
fn an_expired_certificate_is_used_with_a_warning() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    certificate.renew_with(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 29);
    });
    server.signal(Signal::HUP);
    server.expect_log("WARN", "has expired: 2020-02-29 was its last day");
    server.expect_log("INFO", "the configuration has been read again");
    let Err(error) = Client::connect(server.pop3s_address()).try_tls(&certificate.trusted()) else {
        panic!("the client has accepted an expired certificate");
    };
    assert!(error.to_string().contains("expired"), "{error}");
}

#[test]
fn a_client_by_tls_that_reads_too_slowly_is_closed() {
    let certificate = Certificate::new();
    let server = Server::builder().tls(&certificate).flags(["--min-rate", "1000000:1"]).start();
    server.maildrop().put("1", b"line\r\n".repeat(4 << 20));
    let mut client = Client::connect(server.pop3s_address()).tls(&certificate);
    client.ok();
    client.login(USER, PASSWORD);
    client.send("RETR 1");
    client.ok();
    server.expect_log("INFO", "end: client reads too slowly");
}

#[test]
fn a_key_that_others_can_read_gets_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let certificate = Certificate::new();
    fs::set_permissions(certificate.key(), fs::Permissions::from_mode(0o644)).unwrap();
    let server = server(&certificate);
    eventually("the log has the warning", || server.stderr().contains("other users can read or write"));
}
