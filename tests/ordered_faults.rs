//! Faults that a tester orders (`--allow-faults`), where a dialogue cannot show them: broken connections, packets, pauses.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::harness::{Certificate, Client, PASSWORD, PATIENCE, Server, USER};

const MESSAGE: &str = "Subject: one\r\n\r\n12345678901234567890123456789012345678901234567890\r\n";

/// A server with two messages and these faults.
fn server(faults: &[&str]) -> Server {
    let faults = faults.iter().flat_map(|fault| ["--fault", fault]);
    let server = Server::builder().flags(["--allow-faults"]).flags(faults).start();
    server.maildrop().put("1", MESSAGE);
    server.maildrop().put("2", MESSAGE);
    server
}

/// Everything that the server sends until the connection ends, and the error if it does not end by FIN.
fn all_of(mut connection: &TcpStream) -> (Vec<u8>, Option<io::ErrorKind>) {
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut octets = Vec::new();
    let error = connection.read_to_end(&mut octets).err();
    (octets, error.map(|error| error.kind()))
}

/// Logs in, marks a message and retrieves the other one, without QUIT. Returns what the server sends.
fn mark_and_retrieve(server: &Server) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut client = Client::connect(server.pop3_address());
    client.send_all([&format!("USER {USER}"), &format!("PASS {PASSWORD}"), "DELE 1", "RETR 2"]);
    client.finish_writing();
    all_of(client.socket())
}

#[test]
fn faults_have_to_be_allowed() {
    let output = Server::builder().flags(["--fault", "* auth 0 0"]).refused();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("--allow-faults"), "{error}");
    let output = Server::builder().flags(["--allow-faults", "--fault", "* no-mail 0 0"]).refused();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("is no fault; there are in-use, "), "{error}");
}

#[test]
fn a_reload_does_not_allow_faults() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("pop3d.toml");
    std::fs::write(&path, "").unwrap();
    let server = Server::builder().flags(["--config", path.to_str().unwrap()]).start();
    std::fs::write(&path, "allow-faults = true\nfault = '* auth 0 0'\n").unwrap();
    let mut admin = server.admin();
    assert_eq!(admin.values("r"), ["allow-faults", "fault"]);
    admin.send("ft?");
    admin.expect("-16");
    server.session().quit();
}

#[test]
fn a_connection_that_is_dropped_or_reset_removes_nothing() {
    for (fault, end) in [("drop-after", None), ("reset-after", Some(io::ErrorKind::ConnectionReset))] {
        let (whole, _) = mark_and_retrieve(&server(&[]));
        let octets = whole.len() - 40;
        let server = server(&[&format!("* {fault}={octets} 1 0")]);
        let (sent, error) = mark_and_retrieve(&server);
        assert_eq!((sent.len(), error), (octets, end), "{fault}");
        server.expect_log("INFO", &format!("fault 1: {fault}={octets} user=\"{USER}\""));
        server.expect_log("INFO", &format!("end: failed: broken off by the fault {fault}={octets}"));
        // It was for one session.
        let (sent, error) = mark_and_retrieve(&server);
        assert!(sent.ends_with(b"7890\r\n.\r\n") && error.is_none(), "{fault}");
        assert_eq!(server.maildrop().messages(), ["1", "2"]);
    }
}

#[test]
fn a_fault_may_come_before_the_greeting() {
    let server = server(&["127.0.0.0/8 drop-after=0 1 0", "::1 drop-after=0 0 0", "* reset-after=0 1 0"]);
    for end in [None, Some(io::ErrorKind::ConnectionReset)] {
        let received = match Client::try_connect(server.pop3_address()) {
            Ok(client) => all_of(client.socket()),
            // The connection was reset before connect(2) had returned.
            Err(error) => (Vec::new(), Some(error.kind())),
        };
        assert_eq!(received, (Vec::new(), end));
    }
    server.session().quit();
}

/// The lengths of the records in what a TLS server sends. Packets may be merged on their way, records are not.
fn lengths_of_records(mut octets: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = octets {
        lengths.push(usize::from(u16::from_be_bytes([*high, *low])));
        octets = rest.get(lengths[lengths.len() - 1]..).unwrap_or_default();
    }
    lengths
}

/// A connection that keeps what it reads.
struct Tap {
    connection: TcpStream,
    read: Vec<u8>,
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.connection.read(buffer)?;
        self.read.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

/// A session over TLS 1.3 that retrieves the message. Returns the octets that the server sends, decrypted and as they are on
/// the wire, and the error if TLS was not ended as it should be.
fn retrieve_by_tls(server: &Server, certificate: &Certificate) -> (Vec<u8>, Vec<u8>, Option<io::ErrorKind>) {
    let name = ServerName::from(server.pop3s_address().ip());
    let mut tls = ClientConnection::new(Arc::clone(&certificate.trusted()), name).unwrap();
    let mut tap = Tap { connection: TcpStream::connect(server.pop3s_address()).unwrap(), read: Vec::new() };
    tap.connection.set_read_timeout(Some(PATIENCE)).unwrap();
    io::Write::write_all(&mut tls.writer(), b"USER mrose\r\nPASS tanstaaf\r\nRETR 1\r\nQUIT\r\n").unwrap();
    let (mut octets, mut error) = (Vec::new(), None);
    while error.is_none() {
        while tls.wants_write() {
            tls.write_tls(&mut tap.connection).unwrap();
        }
        let read = tls.read_tls(&mut tap).unwrap();
        tls.process_new_packets().unwrap();
        error = tls.reader().read_to_end(&mut octets).err().filter(|error| error.kind() != io::ErrorKind::WouldBlock);
        if read == 0 {
            break;
        }
    }
    (octets, tap.read, error.map(|error| error.kind()))
}

#[test]
fn the_terminator_is_split_over_packets() {
    let certificate = Certificate::new();
    // In TLS 1.3 a record has 17 octets more than what it carries.
    let singles = |faults: &[&str]| {
        let faults = faults.iter().flat_map(|fault| ["--fault", fault]);
        let server = Server::builder().tls(&certificate).flags(["--allow-faults"]).flags(faults).start();
        server.maildrop().put("1", MESSAGE);
        let (octets, wire, error) = retrieve_by_tls(&server, &certificate);
        let text = String::from_utf8_lossy(&octets);
        assert!(text.contains("7890\r\n.\r\n+OK") && error.is_none(), "{text}");
        lengths_of_records(&wire).into_iter().filter(|length| *length == 18).count()
    };
    assert_eq!(singles(&[]), 0);
    assert_eq!(singles(&["* split-terminator 1 0"]), 4);
}

#[test]
fn a_dropped_connection_ends_without_the_closing_message_of_tls() {
    let certificate = Certificate::new();
    let server =
        Server::builder().tls(&certificate).flags(["--allow-faults", "--fault", "* drop-after=100 0 0"]).start();
    server.maildrop().put("1", MESSAGE);
    let (octets, _, error) = retrieve_by_tls(&server, &certificate);
    assert_eq!((octets.len(), error), (100, Some(io::ErrorKind::UnexpectedEof)));
}

/// If the pauses did not end, this would take an hour.
#[test]
fn a_session_that_waits_can_be_ended() {
    let server = server(&["* delay=3600000 1 0"]);
    let mut admin = server.admin();
    admin.send("f");
    admin.expect("+");
    let waits = Client::connect(server.pop3_address());
    let mut told = admin.line();
    while !told.contains(" fault ") {
        told = admin.line();
    }
    assert!(told.contains(" fault=1 what=delay=3600000"), "{told}");
    let mut second = server.admin();
    assert_eq!(second.value("ka= 127.0.0.1"), "2", "the waiting client and the follower");
    all_of(waits.socket());
    let mut slow = server.session();
    second.value("ft+ mrose slow=1/s 1 0");
    slow.send("RETR 1");
    assert_eq!(slow.read(&mut [0]), 1);
    server.signal(Signal::TERM);
    assert!(slow.rest().ends_with(b"7890\r\n.\r\n"), "the answer goes on without pauses");
}

#[test]
fn a_truncated_message_does_not_count_as_read() {
    let server = Server::builder().flags(["--allow-faults", "--expire-read", "0"]).start();
    server.maildrop().put("1", MESSAGE);
    let mut admin = server.admin();
    assert_eq!(admin.value(&format!("ft+ {USER} truncate-silently 1 0")), "1");
    for (length, expired) in [(MESSAGE.len() / 2 + 2, 0), (MESSAGE.len(), 1)] {
        let mut session = server.session();
        assert_eq!(session.fetch("RETR 1").len(), length);
        session.quit();
        assert_eq!(admin.values("ex").len(), expired);
    }
    assert!(server.maildrop().messages().is_empty());
}

#[test]
fn a_message_larger_than_a_block_has_faults_too() {
    let line = "12345678901234567890123456789012345678\r\n";
    let message = line.repeat(10_000);
    let server = server(&["mrose drop-after=300000 1 0", "mrose truncate-silently 1 0"]);
    server.maildrop().put("1", &message);
    let mut first = server.session();
    first.call("RETR 1");
    // The second fault is in force already: half a message is sent, and the limit is not reached.
    assert_eq!(first.multiline().len(), message.len() / 2);
    first.call("RETR 1");
    let rest = first.rest();
    assert!((50_000..150_000).contains(&rest.len()), "{}", rest.len());
    let mut second = server.session();
    assert_eq!(second.fetch("RETR 1"), message.as_bytes());
}

#[test]
fn lower_case_names_are_those_of_logins() {
    let server = Server::builder()
        .user("ana", "x")
        .flags(["--allow-faults", "--lower-case-names", "--fault", "ANA auth 1 0"])
        .start();
    let mut admin = server.admin();
    assert_eq!(admin.value("ft+ Ana in-use 1 0"), "2");
    assert_eq!(admin.values("ft?"), ["1 ana auth 1 - 0", "2 ana in-use 1 - 0"]);
    let mut client = server.pop3();
    for code in ["[AUTH]", "[IN-USE]"] {
        client.call("USER ana");
        assert!(client.refused("PASS x").starts_with(code), "{code}");
    }
    client.login("ana", "x");
}
