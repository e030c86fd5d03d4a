//! The real HAProxy in front of the real server, configured by the files in `scripts/haproxy`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::guard::connect_from;
use crate::harness::{Builder, Certificate, ChildGuard, Client, PASSWORD, Server, USER, bounded_output, eventually};
use crate::metrics::free_port;
use crate::systemd::PASS_ON;

/// The host of the clients' addresses, 127.0.0.5.
const CLIENT: u8 = 5;

/// A shipped configuration in which the tests put other addresses.
struct Configuration(String);

impl Configuration {
    fn shipped(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/haproxy").join(name);
        Self(fs::read_to_string(path).unwrap())
    }

    #[track_caller]
    fn with(self, from: &str, to: &str) -> Self {
        assert!(self.0.contains(from), "{from}");
        Self(self.0.replace(from, to))
    }

    /// Uses one server, and removes the others.
    #[track_caller]
    fn with_servers(self, port: u16, servers: &[SocketAddr]) -> Self {
        let mut this = self;
        for number in 1..=3 {
            let line = format!("    server mail{number} 192.0.2.1{number}:{port}\n");
            let server = servers.get(number - 1);
            let instead = server.map(|address| format!("    server mail{number} {address}\n")).unwrap_or_default();
            this = this.with(&line, &instead);
        }
        this
    }

    /// Removes a frontend or backend.
    #[track_caller]
    fn without(self, section: &str) -> Self {
        let start = self.0.find(&format!("\n{section}\n")).unwrap();
        let length = self.0[start + 1..].find("\n\n").map_or(self.0.len() - start, |length| length + 1);
        Self([&self.0[..start], &self.0[start + length..], "\n"].concat())
    }
}

struct HaProxy {
    _process: ChildGuard,
    address: SocketAddr,
    directory: TempDir,
}

impl HaProxy {
    /// Starts it, so that it listens on a free port instead of `port`. Tries again if another program takes the port.
    #[track_caller]
    fn start(configuration: Configuration, port: u16) -> Self {
        let directory = TempDir::new().unwrap();
        let socket = socket_in(directory.path());
        let configuration = configuration
            .with("\nglobal\n", "\nglobal\n    noreuseport\n")
            .with("/run/haproxy/admin.sock", socket.to_str().unwrap())
            .with("inter 2s", "inter 50ms");
        for _ in 0..5 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let file = directory.path().join("haproxy.cfg");
            fs::write(&file, configuration.0.replace(&format!("bind :{port}"), &format!("bind {address}"))).unwrap();
            let child = Command::new("haproxy").arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).spawn();
            let child = child.expect("haproxy is installed (scripts/install-test-tools installs it)");
            let mut process = ChildGuard(child);
            let mut has_ended = false;
            eventually("HAProxy runs", || {
                has_ended = process.0.try_wait().unwrap().is_some();
                has_ended || UnixStream::connect(&socket).is_ok()
            });
            if !has_ended {
                return Self { _process: process, address, directory };
            }
        }
        panic!("HAProxy does not run");
    }

    /// The state of each server as HAProxy sees it, by its checks.
    fn states(&self) -> Vec<String> {
        let mut socket = UnixStream::connect(socket_in(self.directory.path())).unwrap();
        socket.write_all(b"show stat\n").unwrap();
        let mut table = String::new();
        socket.read_to_string(&mut table).unwrap();
        let mut rows = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let names = rows.next().unwrap();
        let [name, status, check] =
            ["svname", "status", "check_status"].map(|wanted| names.iter().position(|it| *it == wanted).unwrap());
        rows.filter(|row| row.len() > name && row[name].starts_with("mail"))
            .map(|row| format!("{} {} {}", row[name], row[status], row[check].trim_start_matches("* ")))
            .collect()
    }

    #[track_caller]
    fn wait_until(&self, states: &[&str]) {
        eventually(&format!("{states:?}"), || self.states() == states);
    }

    #[track_caller]
    fn client(&self) -> Client {
        let mut client = connect_from(CLIENT, self.address);
        client.ok();
        client
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("admin.sock")
}

fn server() -> Builder {
    Server::builder().flags(["--proxy-from", "127.0.0.1", "--allow-cleartext", "--limit-loopback"])
}

/// The configuration for TLS pass-through, with POP3 alone.
fn pop3(servers: &[&Server]) -> Configuration {
    let servers: Vec<_> = servers.iter().map(|server| server.pop3_address()).collect();
    Configuration::shipped("pass-through.cfg")
        .without("frontend pop3s")
        .without("backend pop3s")
        .with_servers(110, &servers)
}

/// The certificate and its key in one file, as HAProxy reads them.
fn pem(certificate: &Certificate, directory: &Path) -> PathBuf {
    let path = directory.join("pop3s.pem");
    let parts = [certificate.chain(), certificate.key()].map(|part| fs::read_to_string(part).unwrap());
    fs::write(&path, parts.concat()).unwrap();
    path
}

#[test]
fn the_shipped_configurations_are_valid() {
    let directory = TempDir::new().unwrap();
    let pem = pem(&Certificate::new(), directory.path());
    let ending = Configuration::shipped("tls-ending.cfg").with("/etc/haproxy/pop3s.pem", pem.to_str().unwrap());
    for configuration in [Configuration::shipped("pass-through.cfg"), ending] {
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, configuration.0).unwrap();
        let output = bounded_output(Command::new("haproxy").args(["-c", "-f"]).arg(file));
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success() && !stderr.contains("WARNING"), "{stdout}{stderr}");
    }
}

#[test]
fn each_kind_of_header_names_the_client() {
    for kind in ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"] {
        let server = server().start();
        let haproxy = HaProxy::start(pop3(&[&server]).with("send-proxy-v2 check", &format!("{kind} check")), 110);
        haproxy.wait_until(&["mail1 UP L7OK"]);
        let mut client = haproxy.client();
        client.login(USER, PASSWORD);
        client.quit();
        server.expect_log("INFO", " 127.0.0.5:");
        server.expect_log("INFO", "connected to POP3 by the proxy 127.0.0.1:");
        // The checks were no clients, and their connections are not told of.
        assert_eq!(server.admin().value("hc?"), "1", "{kind}");
        let connected: Vec<_> =
            server.stderr().lines().filter(|line| line.contains(" to POP3")).map(str::to_owned).collect();
        assert_eq!(connected.len(), 1, "{connected:?}");
    }
}

#[test]
fn a_server_without_the_flag_refuses_the_header_and_is_out() {
    let server = Server::start();
    let haproxy = HaProxy::start(pop3(&[&server]).with("send-proxy-v2 check", "send-proxy check"), 110);
    haproxy.wait_until(&["mail1 DOWN L7RSP"]);
}

#[test]
fn a_check_without_a_header_is_refused() {
    let server = server().start();
    let haproxy = HaProxy::start(pop3(&[&server]).with("send-proxy-v2 check check-send-proxy", "check"), 110);
    eventually("the server is out", || haproxy.states()[0].starts_with("mail1 DOWN"));
    server.expect_log("WARN", "refused: this address is a proxy's, and ");
    assert_eq!(server.stderr().matches(" refused: ").count(), 1, "{}", server.stderr());
}

#[test]
fn draining_takes_a_server_out_and_loses_no_session() {
    let servers = [server().start(), server().start()];
    let haproxy = HaProxy::start(pop3(&[&servers[0], &servers[1]]), 110);
    haproxy.wait_until(&["mail1 UP L7OK", "mail2 UP L7OK"]);
    let mut sessions = [haproxy.client(), haproxy.client()];
    sessions.iter_mut().for_each(|client| client.login(USER, PASSWORD));

    let mut admin = servers[0].admin();
    admin.send("d= 1");
    admin.expect("+");
    haproxy.wait_until(&["mail1 DOWN L7RSP", "mail2 UP L7OK"]);
    for _ in 0..10 {
        haproxy.client().quit();
    }
    assert_eq!(servers[0].stderr().matches(" to POP3").count(), 1, "no client comes to the server that drains");
    for mut client in sessions {
        client.call("STAT");
        client.quit();
    }

    admin.send("d= 0");
    admin.expect("+");
    haproxy.wait_until(&["mail1 UP L7OK", "mail2 UP L7OK"]);
}

#[test]
fn a_restart_with_the_socket_of_systemd_loses_no_connection() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || server().stdin(&socket).launched_by(["python3", "-c", PASS_ON]).start();
    let (mut restarted, other) = (start(), server().start());
    let configuration = pop3(&[&restarted, &other]).with("timeout check 3s", "timeout check 1h"); // a start may take long
    let haproxy = HaProxy::start(configuration, 110);
    for _ in 0..3 {
        // A check that was under way when the server ended takes it out, until two have succeeded.
        haproxy.wait_until(&["mail1 UP L7OK", "mail2 UP L7OK"]);
        restarted.signal(rustix::process::Signal::TERM);
        assert!(restarted.wait().success());
        // Those that HAProxy gives to the server wait in the socket's queue for the next one.
        let clients: Vec<_> = (0..6).map(|_| connect_from(CLIENT, haproxy.address)).collect();
        restarted = start();
        for mut client in clients {
            client.ok();
            client.login(USER, PASSWORD);
            client.quit();
        }
    }
}

#[test]
fn a_server_that_is_killed_is_out() {
    let servers = [server().start(), server().start()];
    let haproxy = HaProxy::start(pop3(&[&servers[0], &servers[1]]), 110);
    haproxy.wait_until(&["mail1 UP L7OK", "mail2 UP L7OK"]);
    servers[0].signal(rustix::process::Signal::KILL);
    haproxy.wait_until(&["mail1 DOWN L4CON", "mail2 UP L7OK"]);
    haproxy.client().login(USER, PASSWORD);
}

#[test]
fn tls_passes_through() {
    let certificate = Certificate::new();
    let server = server().tls(&certificate).start();
    let configuration = Configuration::shipped("pass-through.cfg")
        .without("frontend pop3")
        .without("backend pop3")
        .with_servers(995, &[server.pop3s_address()]);
    let haproxy = HaProxy::start(configuration, 995);
    haproxy.wait_until(&["mail1 UP L7OK"]);
    let mut client = connect_from(CLIENT, haproxy.address).tls(&certificate);
    client.ok();
    client.login(USER, PASSWORD);
    server.expect_log("INFO", " 127.0.0.5:");
    server.expect_log("INFO", " TLS: TLSv1.3 TLS");
    assert_eq!(server.stderr().matches(" TLS: ").count(), 1, "{}", server.stderr());

    let mut admin = Client::connect(server.peep_address()).tls(&certificate);
    for command in ["a root root", "d= 1"] {
        admin.send(command);
        admin.expect("+");
    }
    eventually("the server is out", || haproxy.states()[0].starts_with("mail1 DOWN"));
    client.call("STAT");
}

#[test]
fn tls_that_ends_at_haproxy_counts() {
    let certificate = Certificate::new();
    let server = Server::builder().flags(["--proxy-from", "127.0.0.1", "--proxy-tls", "--limit-loopback"]).start();
    let directory = TempDir::new().unwrap();
    let pem = pem(&certificate, directory.path());
    let configuration = Configuration::shipped("tls-ending.cfg")
        .with("/etc/haproxy/pop3s.pem", pem.to_str().unwrap())
        .with_servers(110, &[server.pop3_address()]);
    let haproxy = HaProxy::start(configuration, 995);
    haproxy.wait_until(&["mail1 UP L7OK"]);
    let mut client = connect_from(CLIENT, haproxy.address).tls(&certificate);
    client.ok();
    client.login(USER, PASSWORD);
    server.expect_log("INFO", " TLS: TLSv1.3 at the proxy");
}

#[test]
fn a_client_that_connects_too_often_is_kept_out() {
    let server = server().start();
    let configuration = pop3(&[&server]).with("gt 100", "gt 5");
    let haproxy = HaProxy::start(configuration, 110);
    haproxy.wait_until(&["mail1 UP L7OK"]);
    let greeted = || connect_from(CLIENT, haproxy.address).try_line().is_ok_and(|line| line.is_some());
    let answers: Vec<_> = (0..8).map(|_| greeted()).collect();
    assert_eq!(answers, [true, true, true, true, true, false, false, false]);
    connect_from(6, haproxy.address).ok();
}
