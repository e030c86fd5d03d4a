//! Listening sockets: bound with what every connection of theirs inherits, accepted from without end.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use super::address::ListenAddress;
use super::patience::WRITE_STEP;
use crate::connections::{Connections, Protocol, Reservation};

/// The length of the backlog: connections that wait for a slot wait there, in the kernel. The kernel lowers it to
/// net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// A client's host that has vanished is noticed after a minute and a half.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Congestion control that sends when it can: loopback has no bottleneck to be found, and the timers by which BBR,
/// where it is the system's choice, paces what it sends take most of the time there (a factor of 7 for a large
/// message). A local connection has it from its listener, since it is only half as quick when it gets it after it was
/// accepted; so the others are given the system's choice then.
const FOR_LOCAL: &str = "reno";

/// Congestion control that has to be there from the first packet on, as it agrees on ECN with the client. Where it is the
/// system's choice, it stays.
const FROM_THE_START: &str = "dctcp";

/// How long accepting rests when the kernel is short of something: from the first to the last of a burst.
const FIRST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How often a free port is looked for that is free on every address.
const PORT_TRIES: u32 = 16;

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: ListenAddress,
    port: u16,
    /// The system's congestion control, where connections do not inherit it from the listener.
    for_remote: Option<String>,
    /// It accepts no more connections.
    closed: AtomicBool,
}

/// Binds `port` on each address; port 0 is one free port, the same on all. An address of a family that this
/// machine does not have is passed over when it is not `required`.
///
/// # Errors
/// With the address that cannot be bound.
pub fn bind(addresses: &[ListenAddress], port: u16, required: bool) -> io::Result<Vec<Listener>> {
    let listeners = bind_those_there(addresses, port, required)?;
    if listeners.is_empty() {
        return Err(io::Error::other("no address to listen on"));
    }
    Ok(listeners)
}

/// Does the same, but there may be none.
///
/// # Errors
/// As of [`bind`].
pub fn bind_those_there(addresses: &[ListenAddress], port: u16, required: bool) -> io::Result<Vec<Listener>> {
    let mut tries = 0;
    loop {
        match bind_once(addresses, port, required) {
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse && tries < PORT_TRIES => tries += 1,
            result => return result,
        }
    }
}

fn bind_once(addresses: &[ListenAddress], mut port: u16, required: bool) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        match Listener::bind(address, port) {
            Ok(listener) => {
                port = listener.port;
                listeners.push(listener);
            }
            Err(error) if !required && is_missing_family(&error) => {
                log::info!("not listening on {}: {error}", address.text_with_port(port));
            }
            Err(error) => {
                let what = format!("cannot listen on {}: {error}", address.text_with_port(port));
                return Err(io::Error::new(error.kind(), what));
            }
        }
    }
    Ok(listeners)
}

fn is_missing_family(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// Gives a listening socket the congestion control of local connections. Returns the name of the system's choice, if that
/// is another one. Where the kernel does not allow the change, the system's choice serves local connections too.
fn set_for_local(socket: &Socket) -> Option<String> {
    let systems = tcp_congestion(socket).ok()?;
    let has_changed = systems != FROM_THE_START && set_tcp_congestion(socket, FOR_LOCAL).is_ok();
    (has_changed && systems != FOR_LOCAL).then_some(systems)
}

/// Whether the client's packets never leave this machine: it has a loopback address, or the address of the connection's own
/// end, which only costs a system call where the first is not so.
fn is_local(peer: IpAddr, own: impl FnOnce() -> io::Result<SocketAddr>) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || own().is_ok_and(|own| own.ip().to_canonical() == peer)
}

/// Sets what each accepted connection inherits (Linux does so), which saves its own system calls. Returns the congestion
/// control that connections of other machines get back.
fn prepare(socket: &Socket) -> io::Result<Option<String>> {
    socket.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_write_timeout(Some(WRITE_STEP))?;
    socket.set_nonblocking(true)?;
    Ok(set_for_local(socket))
}

impl Listener {
    /// A socket that listens already, as systemd hands it over.
    ///
    /// # Errors
    /// When it is not a socket of this kind.
    pub fn from_socket(socket: TcpListener) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let socket = Socket::from(socket);
        socket.set_cloexec(true)?;
        let for_remote = prepare(&socket)?;
        Ok(Self {
            socket: socket.into(),
            address: ListenAddress::from(address.ip()),
            port: address.port(),
            for_remote,
            closed: AtomicBool::new(false),
        })
    }

    fn bind(name: &ListenAddress, port: u16) -> io::Result<Self> {
        let address = name.with_port(port)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?; // a restart need not wait for old connections' TIME-WAIT
        let for_remote = prepare(&socket)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from(socket);
        let port = socket.local_addr()?.port();
        Ok(Self { socket, address: name.clone(), port, for_remote, closed: AtomicBool::new(false) })
    }

    /// Where it listens, for people to read; the port is the real one.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.text_with_port(self.port)
    }

    /// The address, as the operator has named it.
    #[must_use]
    pub fn name(&self) -> &ListenAddress {
        &self.address
    }

    /// The real port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Accepts connections until it or the server is closed, each as soon as a slot is free for it. After an error it waits for a
    /// moment and goes on.
    pub fn accept_all(
        &self,
        connections: &Arc<Connections>,
        protocol: Protocol,
        mut serve: impl FnMut(Reservation, TcpStream, SocketAddr),
    ) {
        let mut rest = FIRST_REST;
        let reserve = || {
            if protocol == Protocol::Peep {
                self.wait(); // an unauthenticated connection may be closed for the client that is waiting now
            }
            if self.is_closed() { None } else { connections.reserve(protocol) }
        };
        while let Some(reservation) = reserve() {
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    rest = FIRST_REST;
                    self.set_for_remote(&stream, peer);
                    serve(reservation, stream, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(reservation);
                    self.wait();
                }
                // The client has closed its connection before it was accepted.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                Err(error) => {
                    drop(reservation);
                    if connections.is_closing() || self.is_closed() {
                        return;
                    }
                    if rest == FIRST_REST {
                        log::error!("{}: cannot accept connections for now: {error}", self.address());
                    }
                    thread::sleep(rest);
                    rest = (rest * 2).min(LONGEST_REST);
                }
            }
        }
    }

    /// Gives a connection from another machine the system's congestion control.
    fn set_for_remote(&self, stream: &TcpStream, peer: SocketAddr) {
        if let Some(name) = &self.for_remote
            && !is_local(peer.ip(), || stream.local_addr())
            && let Err(error) = set_tcp_congestion(stream, name)
        {
            log::debug!("{peer} keeps {FOR_LOCAL} as congestion control instead of {name}: {error}");
        }
    }

    /// Waits until a connection is in the backlog, or the listener is woken.
    fn wait(&self) {
        if let Err(error) = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], None)
            && error != Errno::INTR
        {
            log::error!("{}: cannot wait for connections: {error}", self.address());
            thread::sleep(FIRST_REST);
        }
    }

    /// Returns true if a connection in the backlog waits to be accepted.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends [`Listener::accept_all`]. No connection is accepted after this.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let _ = SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, UdpSocket};

    /// The congestion control of an accepted connection from this machine, to a server that listens on `listening`.
    fn congestion_control(listening: IpAddr, to: IpAddr) -> String {
        let listener = bind(&[listening.into()], 0, true).unwrap().remove(0);
        let _client = TcpStream::connect((to, listener.port)).unwrap();
        accepted_by(&listener, None)
    }

    /// The congestion control that an accepted connection has, if its client seems to be at `peer`.
    fn accepted_by(listener: &Listener, peer: Option<&str>) -> String {
        let (stream, real) = listener.socket.accept().unwrap();
        listener.set_for_remote(&stream, peer.map_or(real, |peer| peer.parse().unwrap()));
        tcp_congestion(stream).unwrap()
    }

    #[test]
    fn local_connections_have_their_own_congestion_control_on_all_addresses_too() {
        for listening in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            assert_eq!(congestion_control(listening.into(), Ipv4Addr::LOCALHOST.into()), "reno");
        }
        // The machine's own address, where it has one beside loopback's.
        let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
        if probe.connect("192.0.2.1:9").is_ok() {
            let own = probe.local_addr().unwrap().ip();
            assert_eq!(congestion_control(Ipv4Addr::UNSPECIFIED.into(), own), "reno");
        }
    }

    #[test]
    fn a_connection_from_elsewhere_has_the_systems_congestion_control() {
        let systems = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        let all = IpAddr::from(Ipv4Addr::UNSPECIFIED).into();
        let listener = bind(&[all], 0, true).unwrap().remove(0);
        assert_eq!(listener.for_remote.is_some(), systems.trim() != "reno");
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, listener.port)).unwrap();
        let _client = connect();
        assert_eq!(accepted_by(&listener, Some("192.0.2.1:1")), systems.trim());
        let _client = connect();
        assert_eq!(accepted_by(&listener, Some("[2001:db8::1]:1")), systems.trim());
    }

    #[test]
    fn a_client_is_local_by_its_address() {
        let own = |address: &str| {
            let address = SocketAddr::new(address.parse().unwrap(), 110);
            move || Ok(address)
        };
        let is_local = |peer: &str, here: &str| is_local(peer.parse().unwrap(), own(here));
        for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_local(peer, "192.0.2.1"), "{peer}");
        }
        assert!(is_local("192.0.2.1", "192.0.2.1"));
        assert!(is_local("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(is_local("2001:db8::1", "2001:db8::1"));
        assert!(!is_local("192.0.2.2", "192.0.2.1"));
        assert!(!is_local("::ffff:192.0.2.2", "192.0.2.1"));
        assert!(!is_local("2001:db8::2", "2001:db8::1"));
        assert!(!super::is_local("192.0.2.2".parse().unwrap(), || Err(io::ErrorKind::NotConnected.into())));
    }

    #[test]
    fn an_address_that_this_machine_lacks_is_passed_over_unless_asked_for() {
        let documentation: ListenAddress = "2001:db8::1".parse().unwrap();
        let both = ["127.0.0.1".parse().unwrap(), documentation.clone()];
        assert_eq!(bind(&both, 0, false).unwrap().len(), 1);
        let why = bind(&both, 0, true).unwrap_err().to_string();
        assert!(why.starts_with("cannot listen on [2001:db8::1]:"), "{why}");
        assert!(bind(&[documentation], 0, false).is_err());
    }
}
