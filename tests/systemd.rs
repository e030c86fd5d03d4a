//! The interface to systemd: the tests pass sockets to the server and receive its notifications, as systemd does.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Instant;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::harness::{Certificate, Client, PASSWORD, PATIENCE, Server, USER, eventually};

/// The socket on which systemd receives notifications.
struct Notifications {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Notifications {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, directory }
    }

    fn path(&self) -> String {
        self.directory.path().join("notify").to_str().unwrap().to_owned()
    }

    /// Receives notifications until one has a line that starts with `line`, and returns its other lines.
    #[track_caller]
    fn expect(&self, line: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let length =
                self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no notification {line}: {error}"));
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            seen.push(text.clone());
            assert!(Instant::now() < deadline, "no notification {line}: {seen:?}");
            if text.lines().any(|it| it.starts_with(line)) {
                return text.lines().map(str::to_owned).filter(|it| it != line).collect();
            }
        }
    }
}

#[test]
fn systemd_is_notified_of_the_servers_state() {
    let systemd = Notifications::new();
    let mut server = Server::builder()
        .environment("NOTIFY_SOCKET", &systemd.path())
        .environment("WATCHDOG_USEC", "200000")
        .flags(["-vv"])
        .start();
    systemd.expect("READY=1");
    systemd.expect("STATUS=0 POP3 connections, 0 users logged in");
    systemd.expect("WATCHDOG=1");
    let _session = server.session();
    systemd.expect("STATUS=1 POP3 connections, 1 users logged in");
    // The server notifies the watchdog again and again while its main loop runs.
    systemd.expect("WATCHDOG=1");
    server.signal(Signal::HUP);
    let others = systemd.expect("RELOADING=1");
    assert!(others.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{others:?}");
    systemd.expect("READY=1");
    server.signal(Signal::TERM);
    systemd.expect("STOPPING=1");
    assert!(server.wait().success());
}

/// A script that binds a socket for each name, makes them the descriptors from 3 up, and executes the server.
const HAND_OVER: &str = r#"
import os, socket, sys
names = sys.argv[1].split(':')
sockets = []
for name in names:
    it = socket.socket()
    it.bind(('127.0.0.1', 0))
    it.listen(16)
    sockets.append(os.dup(it.fileno()))
spare = [os.dup2(fd, 100 + at) for at, fd in enumerate(sockets)]
for at, fd in enumerate(spare):
    os.dup2(fd, 3 + at, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"#;

#[test]
fn sockets_from_systemd_replace_the_ports() {
    let certificate = Certificate::new();
    let server = Server::builder()
        .tls(&certificate)
        // The server cannot bind this address, so it can only serve on the sockets that it gets.
        .address("192.0.2.1")
        .launched_by(["python3", "-c", HAND_OVER, "pop3:pop3s:peep"])
        .flags(["-a", "boss:x"])
        .start();
    let mut clear = Client::connect(server.pop3_address());
    clear.ok();
    clear.login(USER, PASSWORD);
    clear.quit();
    let mut by_tls = Client::connect(server.pop3s_address()).tls(&certificate);
    by_tls.ok();
    by_tls.login(USER, PASSWORD);
    by_tls.quit();
    let mut admin = Client::connect(server.peep_address()).tls(&certificate);
    admin.send("a boss x");
    admin.expect("+");
    assert_eq!(admin.value("hc?"), "2");
}

#[test]
fn a_socket_from_systemd_without_a_use_is_refused() {
    for (names, why) in [
        ("imap", "systemd has passed a socket named \"imap\": FileDescriptorName= has to be one of pop3, pop3s, peep"),
        ("pop3s", "systemd has passed a socket named \"pop3s\", but there is no TLS certificate"),
    ] {
        let output = Server::builder().launched_by(["python3", "-c", HAND_OVER, names]).refused();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(why), "{error}");
    }
}

/// Gives the listening socket that is its standard input the descriptor 3, and becomes the server.
pub(crate) const PASS_ON: &str = r#"
import os, sys
os.dup2(0, 3, inheritable=True)
os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='pop3')
os.execv(sys.argv[1], sys.argv[1:])
"#;

fn server_with(socket: &TcpListener) -> Server {
    Server::builder().stdin(socket).launched_by(["python3", "-c", PASS_ON]).start()
}

#[test]
fn a_client_that_connects_while_the_server_restarts_is_served() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = server_with(&socket);
    server.session().quit();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let mut client = Client::connect(socket.local_addr().unwrap());
    let _server = server_with(&socket);
    client.ok();
    client.login(USER, PASSWORD);
    client.quit();
}

#[test]
fn an_ipv4_client_of_a_socket_for_both_families_has_its_ipv4_address() {
    let socket = match Socket::new(Domain::IPV6, Type::STREAM, None) {
        Ok(socket) => socket,
        Err(error) => return eprintln!("passed over: there is no IPv6 ({error})"),
    };
    socket.set_only_v6(false).unwrap();
    // The IPv4 address of loopback, written as an IPv6 address.
    socket.bind(&"[::ffff:127.0.0.1]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(16).unwrap();
    let server = server_with(&socket.into());
    // A client on another machine would have to use TLS first.
    server.session().quit();
    eventually("the log has the IPv4 address", || server.stderr().contains("#1 127.0.0.1:"));
}

/// Passes a UNIX socket of this path to the server.
const PASS_FILE: &str = r#"
import os, socket, sys
it = socket.socket(socket.AF_UNIX)
it.bind(sys.argv[1])
it.listen(16)
os.dup2(os.dup2(it.fileno(), 100), 3, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='peep')
os.execv(sys.argv[2], sys.argv[2:])
"#;

#[test]
fn a_unix_socket_from_systemd_serves_peep_and_stays() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("peep.sock");
    let mut server = Server::builder().launched_by(["python3", "-c", PASS_FILE, path.to_str().unwrap()]).start();
    let mut admin = UnixStream::connect(&path).unwrap();
    admin.write_all(b"hc?\r\n").unwrap();
    let mut answer = String::new();
    BufReader::new(admin).read_line(&mut answer).unwrap();
    assert_eq!(answer.trim_end(), "+0");
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(path.exists(), "the socket is systemd's");
}
