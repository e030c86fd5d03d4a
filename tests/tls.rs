//! TLS: the real server with certificates made for the test, clients that trust them and no others.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use sha2::{Digest, Sha256};

use crate::harness::{Certificate, Client, PASSWORD, Server, USER, eventually, trusting};

/// Larger than what goes by sendfile(2) in clear, and with every kind of line end and dot.
fn messages() -> [Vec<u8>; 3] {
    let wire = b"Subject: wire form\r\n\r\n0123456789 0123456789\r\n".repeat(8000);
    let lf = b"Subject: LF\n\n.dot\n..\n.\nlone\rcr\r\nno end".to_vec();
    let long = [b"A: b\n\n".to_vec(), b".x\n".repeat(100_000)].concat();
    [wire, lf, long]
}

fn octets_of(stored: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    for line in stored.split_inclusive(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        octets.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        octets.extend_from_slice(b"\r\n");
    }
    octets
}

fn server(certificate: &Certificate) -> Server {
    let server = Server::builder().tls(certificate).start();
    for (number, message) in messages().iter().enumerate() {
        server.maildrop().put(&number.to_string(), message);
    }
    server
}

fn pop3s(server: &Server, certificate: &Certificate) -> Client {
    let mut client = Client::connect(server.pop3s_address()).tls(certificate);
    client.ok();
    client
}

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
fn a_session_by_tls_is_like_any_other() {
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
fn deletion_by_tls_is_committed_by_quit_alone() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    let mut lost = pop3s(&server, &certificate);
    lost.login(USER, PASSWORD);
    lost.call("DELE 1");
    drop(lost); // without TLS's farewell
    let mut client = stls(&server, &certificate);
    client.login(USER, PASSWORD);
    assert!(client.call("STAT").starts_with("3 "));
    client.call("DELE 1");
    client.quit();
    assert_eq!(server.maildrop().messages(), ["1", "2"]);
}

#[test]
fn stls_is_offered_only_where_it_can_be_started() {
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

/// RFC 2595 section 4: the state before the handshake is forgotten, and what came in clear behind STLS with it.
#[test]
fn nothing_said_in_clear_survives_the_handshake() {
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

    // Without an end of line: it would become the beginning of the client's first command.
    let mut client = server.pop3();
    client.write("STLS\r\nQUIT ");
    client.ok();
    client.tls(&certificate).call("CAPA");
}

#[test]
fn a_handshake_that_fails_ends_one_connection_only() {
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
    eventually("all are logged", || server.stderr().matches("TLS handshake failed").count() == 4);
    pop3s(&server, &certificate).quit();
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    let mut session = pop3s(&server, &certificate);
    session.login(USER, PASSWORD);
    let old = certificate.trusted();

    certificate.renew();
    server.signal(Signal::HUP);
    eventually("it is read again", || server.stderr().contains("configuration has been read again"));
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
fn without_tls_a_signal_to_reload_changes_nothing() {
    let server = Server::start();
    server.signal(Signal::HUP);
    server.expect_log("INFO", "the configuration has been read again");
    server.session().quit();
}

#[test]
fn only_tls_1_2_and_1_3_are_spoken() {
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
fn peep_goes_by_tls() {
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

/// What TLS adds is not counted: `rb?` is of POP3's octets.
#[test]
fn octets_are_counted_as_in_clear() {
    let count = |mut client: Client, mut admin: Client| {
        admin.send("a root root");
        admin.expect("+");
        let octets = |admin: &mut Client| admin.value("rb?").parse::<u64>().unwrap();
        // The greeting is another one each time.
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
fn a_transform_ends_when_its_client_by_tls_leaves() {
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

/// Parts of records that never make an octet of POP3 do not keep a session open beyond its timer.
#[test]
fn a_client_that_sends_records_in_crumbs_times_out() {
    let certificate = Certificate::new();
    let server = Server::builder().tls(&certificate).flags(["-T", "1"]).start();
    let mut client = pop3s(&server, &certificate);
    client.login(USER, PASSWORD);
    // The head of a record of 16,384 octets, which then come one by one.
    let mut socket = client.socket();
    socket.write_all(b"\x17\x03\x03\x40\x00").unwrap();
    eventually("it is timed out", || {
        let sent = socket.write_all(b"x");
        assert!(sent.is_ok() || server.stderr().contains("end: timeout"), "{sent:?}");
        server.stderr().contains("end: timeout")
    });
}

#[test]
fn a_session_is_resumed() {
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
fn what_cannot_be_used_is_told_at_the_start() {
    let certificate = Certificate::new();
    let other = Certificate::new();
    let chain = certificate.chain();
    for (key, said) in [(other.key(), "is not that of the certificate in"), (chain.join("none"), "cannot read")] {
        let flags = ["--tls-cert", chain.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        let output = Server::builder().flags(flags).refused();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("pop3d: cannot use the TLS certificate") && stderr.contains(said), "{stderr}");
    }
}

#[test]
fn a_certificate_of_the_servers_own_making_is_kept() {
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

/// Without a state directory there is another one in each run. The log tells the fingerprint, as OpenSSL prints it.
#[test]
fn a_certificate_of_the_servers_own_making_needs_no_state_directory() {
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

/// A new pair would be another server to those who trust the old one.
#[test]
fn a_certificate_without_its_key_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let state = ["--state", directory.path().to_str().unwrap()];
    let start = || Server::builder().flags(["--tls-self-signed=mail.example", "--pop3s-port", "0"]).flags(state);
    let server = start().start();
    server.expect_log("INFO", "a TLS certificate has been made: ");
    drop(server);
    fs::remove_file(directory.path().join("tls-key.pem")).unwrap();
    let output = start().refused();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("tls-key.pem is missing beside") && stderr.lines().count() == 1, "{stderr}");
}

/// It is used nevertheless: clients that do not look at dates get their mail.
#[test]
fn a_certificate_that_has_expired_is_warned_of() {
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
        panic!("the client does not look");
    };
    assert!(error.to_string().contains("expired"), "{error}");
}

/// Who has it all in its socket's buffer, and takes no more, is given up by TLS as in clear.
#[test]
fn who_reads_too_slowly_by_tls_is_given_up() {
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
fn a_key_that_all_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let certificate = Certificate::new();
    fs::set_permissions(certificate.key(), fs::Permissions::from_mode(0o644)).unwrap();
    let server = server(&certificate);
    eventually("the warning", || server.stderr().contains("can be read or written by others: chmod o= it"));
}
