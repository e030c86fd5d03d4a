//! The PROXY protocol, with headers that the tests write themselves, and with the real HAProxy in `haproxy`.
//!
//! 127.0.0.9 is the proxy. The servers do not exempt loopback from limits, so that other addresses of 127.0.0.0/8 can stand
//! for clients that connect without a proxy.

mod haproxy;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use pop3d::peep::SessionLine;

use crate::guard::connect_from;
use crate::harness::{Builder, Certificate, Client, PASSWORD, Server, USER, bounded_output, eventually};

const PROXY: u8 = 9;

fn behind_proxy() -> Builder {
    Server::builder().flags(["--proxy-from", "127.0.0.9", "--limit-loopback"])
}

fn line(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let (family, server) = if client.is_ipv4() { ("TCP4", "198.51.100.1") } else { ("TCP6", "2001:db8::110") };
    format!("PROXY {family} {} {server} {} 110\r\n", client.ip(), client.port()).into_bytes()
}

/// A header of version 2 with this command and family, addresses and TLVs.
fn binary(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, payload].concat()
}

/// 192.0.2.7:4711 to 198.51.100.1:110.
const ADDRESSES: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0, 110];

fn with_tls_tlv() -> Vec<u8> {
    binary(0x21, 0x11, &[&ADDRESSES[..], b"\x20\0\x0f\x01\0\0\0\0\x21\0\x07TLSv1.3"].concat())
}

/// Connects as the proxy, and sends these octets.
#[track_caller]
fn proxied(server: &Server, header: impl AsRef<[u8]>) -> Client {
    let mut client = connect_from(PROXY, server.pop3_address());
    client.write(header);
    client
}

#[track_caller]
fn client_of(server: &Server, address: &str) -> Client {
    let mut client = proxied(server, line(address));
    client.ok();
    client
}

/// The connection is closed or reset, without an answer.
#[track_caller]
fn is_cut_off(mut client: Client) {
    match client.try_line() {
        Ok(None) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        Ok(Some(line)) => panic!("an answer: {}", line.escape_ascii()),
    }
}

fn log_count(server: &Server, text: &str) -> usize {
    server.stderr().matches(text).count()
}

#[test]
fn the_client_is_the_one_that_the_header_names() {
    let server = behind_proxy().flags(["--allow-cleartext"]).start();
    for (header, address) in [
        (line("192.0.2.1:4711"), "192.0.2.1"),
        (line("[2001:db8::1]:4711"), "2001:db8::1"),
        (binary(0x21, 0x11, &ADDRESSES), "192.0.2.7"),
    ] {
        let mut client = proxied(&server, header);
        client.ok();
        client.login(USER, PASSWORD);
        let sessions = server.admin().values("w?");
        let addresses = sessions.iter().filter_map(|line| line.parse::<SessionLine>().unwrap().address);
        assert!(addresses.clone().any(|it| it.to_string() == address), "{sessions:?}");
        client.quit();
    }
    server.expect_log("INFO", "192.0.2.1:4711 connected to POP3 by the proxy 127.0.0.9:");
    server.expect_log("INFO", "192.0.2.7:4711 login: user=\"mrose\"");
    server.expect_log("INFO", "[2001:db8::1]:4711 end: quit");
}

#[test]
fn only_a_proxy_may_send_a_header() {
    let server = behind_proxy().start();
    let mut other = connect_from(2, server.pop3_address());
    other.ok();
    other.write(line("192.0.2.1:4711"));
    other.err();
    other.call("CAPA");
    drop(other);
    // Nor can the proxy's client: its header follows the proxy's.
    let mut client = client_of(&server, "192.0.2.1:4711");
    client.write(line("192.0.2.2:4711"));
    client.err();
    assert_eq!(log_count(&server, "192.0.2.2"), 0);
}

#[test]
fn limits_and_penalties_are_those_of_the_client() {
    let server = behind_proxy().flags(["--per-address", "2", "--allow-cleartext"]).start();
    let _first = client_of(&server, "192.0.2.1:1");
    let _second = client_of(&server, "192.0.2.1:2");
    let mut third = proxied(&server, line("192.0.2.1:3"));
    assert_eq!(third.err(), "[SYS/TEMP] too many connections from your address");
    third.closed();
    let _others: Vec<_> = (2..8).map(|host| client_of(&server, &format!("192.0.2.{host}:1"))).collect();
    server.expect_log("WARN", "192.0.2.1:3 refused: too many connections");

    let guess = |address: &str, number: usize| {
        let mut client = client_of(&server, address);
        client.call(&format!("USER user{number}"));
        client.send("PASS wrong");
        let answer = client.err();
        // The connection must not count for the address any more when the next one comes.
        let _ = client.try_write("QUIT\r\n");
        while matches!(client.try_line(), Ok(Some(_))) {}
        answer
    };
    assert!((0..100).any(|number| guess("203.0.113.1:1", number).contains("too many failed logins from your address")));
    client_of(&server, "203.0.113.2:1").login(USER, PASSWORD);
}

#[test]
fn bans_and_kicks_are_of_the_clients_address() {
    let server = behind_proxy().start();
    let mut client = client_of(&server, "192.0.2.1:1");
    let mut admin = server.admin();
    admin.send("b+ 192.0.2.0/24 0");
    admin.expect("+");
    let mut banned = proxied(&server, line("192.0.2.2:1"));
    banned.err();
    banned.closed();
    client_of(&server, "203.0.113.1:1").quit();
    admin.send("ka= 192.0.2.1");
    admin.expect("+1");
    assert_eq!(client.err(), "[SYS/TEMP] the administrator has ended this session");
}

/// A test of `Origin` shows that the loopback of a proxy on another machine is not this machine's.
#[test]
fn a_client_of_a_trusted_proxy_on_loopback_is_neither_trusted_nor_local() {
    let flags = ["--proxy-from", "127.0.0.9", "--trusted", "127.0.0.9", "--per-address", "1"];
    let server = Server::builder().flags(flags).start();
    let _first = client_of(&server, "192.0.2.1:1");
    let mut second = proxied(&server, line("192.0.2.1:2"));
    second.err();
    let mut client = client_of(&server, "192.0.2.5:1");
    assert!(client.refused(&format!("USER {USER}")).contains("TLS"), "no password without TLS");
}

#[test]
fn tls_at_the_proxy_counts_if_the_operator_says_so() {
    let certificate = Certificate::new();
    let server = behind_proxy().tls(&certificate).start();
    let mut client = proxied(&server, with_tls_tlv());
    client.ok();
    assert!(client.listing("CAPA").contains(&"STLS".to_owned()));
    client.refused(&format!("USER {USER}"));

    let server = behind_proxy().tls(&certificate).flags(["--proxy-tls"]).start();
    let mut client = proxied(&server, with_tls_tlv());
    client.ok();
    let capabilities = client.listing("CAPA");
    assert!(
        !capabilities.contains(&"STLS".to_owned()) && capabilities.contains(&"USER".to_owned()),
        "{capabilities:?}"
    );
    client.refused("STLS");
    client.login(USER, PASSWORD);
    client.quit();
    server.expect_log("INFO", "192.0.2.7:4711 TLS: TLSv1.3 at the proxy");
    // A client without TLS at the proxy may still begin it here.
    let mut client = client_of(&server, "192.0.2.1:1");
    client.refused(&format!("USER {USER}"));
    client.call("STLS");
    client.tls(&certificate).login(USER, PASSWORD);
}

#[test]
fn the_header_comes_before_tls_on_pop3s() {
    let certificate = Certificate::new();
    let server = behind_proxy().tls(&certificate).start();
    let mut client = connect_from(PROXY, server.pop3s_address());
    client.write(line("192.0.2.1:4711"));
    let mut client = client.tls(&certificate);
    client.ok();
    client.login(USER, PASSWORD);
    client.quit();
    server.expect_log("INFO", "192.0.2.1:4711 TLS: TLSv1.3 TLS");
}

#[test]
fn health_checks_are_greeted_and_are_no_clients() {
    let server = behind_proxy().flags(["--allow-cleartext"]).start();
    let mut admin = server.admin();
    for header in [binary(0x20, 0, &[]), binary(0x20, 0x11, &ADDRESSES), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut check = proxied(&server, header);
        check.ok();
        assert_eq!(admin.value("cc?"), "0");
        check.quit();
    }
    assert_eq!(admin.value("hc?"), "0");
    assert_eq!(log_count(&server, "127.0.0.9"), 0);

    // One that goes on is a client at the proxy's address.
    let mut client = proxied(&server, "PROXY UNKNOWN\r\n");
    client.ok();
    client.login(USER, PASSWORD);
    assert_eq!((admin.value("cc?"), admin.value("hc?")), ("1".to_owned(), "1".to_owned()));
    client.quit();
    server.expect_log("INFO", "#5 127.0.0.9:");

    for (draining, answer) in [("1", "-ERR [SYS/TEMP] no new connections are accepted at present"), ("0", "+OK")] {
        admin.send(&format!("d= {draining}"));
        admin.expect("+");
        let mut check = proxied(&server, "PROXY UNKNOWN\r\n");
        assert!(check.line().starts_with(answer));
    }
    assert_eq!(log_count(&server, "refused: the server takes no more"), 0);
}

#[test]
fn a_proxy_without_a_header_is_told_of_once() {
    let server = behind_proxy().start();
    for wrong in ["USER mrose\r\n", "QUIT\r\n", "GET / HTTP/1.0\r\n\r\n"] {
        is_cut_off(proxied(&server, wrong));
    }
    drop(connect_from(PROXY, server.pop3_address()));
    is_cut_off(proxied(&server, "PROXY TCP4 192.0.2.1\r\n"));
    server.expect_log("WARN", "refused: this address is a proxy's, and the connection has no PROXY header");
    assert_eq!(log_count(&server, "refused: "), 1);
}

#[test]
fn a_malformed_header_is_refused() {
    let server = behind_proxy().start();
    is_cut_off(proxied(&server, "PROXY TCP4 192.0.2.1\r\n"));
    server.expect_log("WARN", "127.0.0.9:");
    server.expect_log("WARN", "refused: this address is a proxy's, and the PROXY header is malformed");
}

#[test]
fn a_header_has_to_be_whole_in_three_seconds() {
    let server = behind_proxy().start();
    let begun = Instant::now();
    let mut silent = proxied(&server, "");
    let mut slow = proxied(&server, "PROXY TCP4 192.0.2.1 198.51");
    silent.closed();
    slow.closed();
    assert!(begun.elapsed() >= Duration::from_secs(3));
    server.expect_log("WARN", "refused: this address is a proxy's, and there was no whole PROXY header in time");
}

/// A connection whose header is awaited does not delay a shutdown by the time that it may take.
#[test]
fn a_shutdown_does_not_wait_for_headers() {
    let mut server = behind_proxy().start();
    let mut silent = proxied(&server, "PROXY ");
    // Connections are accepted in their order.
    client_of(&server, "192.0.2.1:1").quit();
    server.signal(rustix::process::Signal::TERM);
    silent.closed();
    assert!(server.wait().success());
    assert_eq!(log_count(&server, "refused: "), 0);
}

#[test]
fn proxies_change_with_a_reload() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("pop3d.toml");
    std::fs::write(&file, "proxy-from = '127.0.0.9'\n").unwrap();
    let server = Server::builder().flags(["--config", file.to_str().unwrap()]).start();
    client_of(&server, "192.0.2.1:1").quit();
    std::fs::write(&file, "").unwrap();
    server.signal(rustix::process::Signal::HUP);
    server.expect_log("INFO", "the configuration has been read again");
    connect_from(PROXY, server.pop3_address()).ok();
}

#[test]
fn popbench_can_be_the_proxy() {
    let server = Server::builder().flags(["--proxy-from", "127.0.0.1", "--allow-cleartext"]).start();
    server.maildrop().put("1", "text\r\n");
    let address = server.pop3_address().to_string();
    let mut popbench = Command::new(env!("CARGO_BIN_EXE_popbench"));
    popbench.args(["sessions", "--address", &address, "--users", USER, "--password", PASSWORD, "--clients", "1"]);
    let output = bounded_output(popbench.args(["--count", "3", "--proxy", "192.0.2.7", "--json", "--quiet"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let connected = " 192.0.2.7:40000 connected to POP3 by the proxy 127.0.0.1:";
    eventually("three clients are logged", || log_count(&server, connected) == 3);
}
