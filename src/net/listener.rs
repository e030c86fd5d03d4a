//! Listening sockets. They are bound with all the socket options that their connections inherit, and a thread accepts
//! connections from each until the server closes.

use std::io;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use super::address::ListenAddress;
use super::origin::Origin;
use super::patience::WRITE_STEP;
use super::socket_file::{BoundFile, SocketFile};
use crate::connections::{Connections, Protocol, Reservation};

/// The length of the backlog: connections that wait for a slot wait there, in the kernel. The kernel lowers it to
/// net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// TCP keepalive: a client whose host has vanished is noticed after a minute and a half.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// The congestion control of local connections. BBR, the default of some systems, paces what it sends to find the
/// bottleneck. Loopback has none, and sending a large message with BBR takes 7 times as long there. A connection must
/// inherit the setting from its listener: if it is changed after accepting, the connection is only half as fast. So the
/// listener gets this one, and connections from other machines get the system's default back.
const FOR_LOCAL: &str = "reno";

/// A congestion control that must be set from the first packet on, because it negotiates ECN with the client. If it is the
/// system's default, it is left alone.
const FROM_THE_START: &str = "dctcp";

/// How long an acceptor pauses when accept(2) fails, for example because too many files are open. The pause doubles from
/// the first value to the second while the error lasts.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    place: Place,
    /// It accepts no more connections.
    closed: AtomicBool,
    /// An eventfd that wakes the acceptor of a socket from systemd. Other sockets are shut down for this, but systemd
    /// passes the same socket to the next server.
    waker: Option<OwnedFd>,
}

/// Where clients find a listening socket.
#[derive(Debug)]
enum Place {
    /// A TCP port.
    Port {
        address: ListenAddress,
        port: u16,
        /// The system's default congestion control, if it has to be set for connections from other machines.
        for_remote: Option<String>,
    },
    /// A UNIX socket that the server has made.
    File(BoundFile),
    /// A UNIX socket from systemd.
    Inherited(String),
}

/// Sets the congestion control of local connections for a listening socket. Returns the name of the system's default if
/// that is a different one. If the kernel does not allow the change, local connections keep the default too.
fn set_for_local(socket: &Socket) -> Option<String> {
    let default = tcp_congestion(socket).ok()?;
    let has_changed = default != FROM_THE_START && set_tcp_congestion(socket, FOR_LOCAL).is_ok();
    (has_changed && default != FOR_LOCAL).then_some(default)
}

/// Returns the client's address. A socket from systemd may be for both families; it has IPv4 clients under IPv6 addresses.
fn without_mapping(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().map_or(peer, |v4| (v4, v6.port()).into()),
        SocketAddr::V4(_) => peer,
    }
}

/// Returns true if the client is on this machine: its address is a loopback address, or the same as the server's address
/// of the connection. `own` returns the latter; it costs a system call, so it is called only if needed.
fn is_local(peer: IpAddr, own: impl FnOnce() -> io::Result<SocketAddr>) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || own().is_ok_and(|own| own.ip().to_canonical() == peer)
}

/// Sets the options that accepted connections inherit on Linux, which saves system calls for each connection. Returns the
/// congestion control to set for connections from other machines.
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
    /// Uses a socket that listens already, as systemd passes it.
    ///
    /// # Errors
    /// If it is neither a TCP socket nor a UNIX socket.
    pub fn from_socket(socket: Socket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        socket.set_cloexec(true)?;
        let place = match address.as_socket() {
            Some(address) => {
                let for_remote = prepare(&socket)?;
                Place::Port { address: address.ip().into(), port: address.port(), for_remote }
            }
            None => {
                socket.set_nonblocking(true)?;
                let path = address.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
                Place::Inherited(path.display().to_string())
            }
        };
        let waker = Some(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self { socket, place, closed: AtomicBool::new(false), waker })
    }

    /// Binds a UNIX socket.
    ///
    /// # Errors
    /// If the file cannot be made, or a server listens on it.
    pub fn bind_file(file: &SocketFile) -> io::Result<Self> {
        let (socket, bound) = file.bind(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, place: Place::File(bound), closed: AtomicBool::new(false), waker: None })
    }

    /// Binds an address. With `shared`, other sockets may have it too that are shared by [`Listener::share`].
    pub(super) fn bind(name: &ListenAddress, port: u16, shared: bool) -> io::Result<Self> {
        let address = name.with_port(port)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?; // so that a restart does not wait for old connections in TIME-WAIT
        socket.set_reuse_port(shared)?;
        let for_remote = prepare(&socket)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let port = socket.local_addr()?.as_socket().map_or(port, |address| address.port());
        let place = Place::Port { address: name.clone(), port, for_remote };
        Ok(Self { socket, place, closed: AtomicBool::new(false), waker: None })
    }

    /// Lets another socket of this process have the same address and port, or no longer. Nobody but this user's programs
    /// could use that, but there is no need for it except while a socket replaces another one.
    pub(super) fn share(&self, shared: bool) {
        let _ = self.socket.set_reuse_port(shared);
    }

    /// Returns the address and the actual port, or the path, for people to read.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.place {
            Place::Port { address, port, .. } => address.text_with_port(*port),
            Place::File(file) => file.path().display().to_string(),
            Place::Inherited(path) => path.clone(),
        }
    }

    /// The address, as the operator has named it; none of a UNIX socket.
    #[must_use]
    pub fn name(&self) -> Option<&ListenAddress> {
        match &self.place {
            Place::Port { address, .. } => Some(address),
            Place::File(_) | Place::Inherited(_) => None,
        }
    }

    /// The real port; 0 for a UNIX socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        match &self.place {
            Place::Port { port, .. } => *port,
            Place::File(_) | Place::Inherited(_) => 0,
        }
    }

    /// Accepts connections until it or the server is closed, each as soon as a slot is free for it. After an error it waits for a
    /// moment and goes on.
    pub fn accept_all(
        &self,
        connections: &Arc<Connections>,
        protocol: Protocol,
        mut serve: impl FnMut(Reservation, Socket, Origin),
    ) {
        let mut pause = FIRST_PAUSE;
        let reserve = || {
            if protocol == Protocol::Peep {
                self.wait(); // an unauthenticated connection may be closed for the client that is waiting now
            }
            if self.is_closed() { None } else { connections.reserve(protocol) }
        };
        while let Some(reservation) = reserve() {
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    match self.origin(&stream, &peer) {
                        Ok(origin) => serve(reservation, stream, origin),
                        Err(error) => log::warn!("{}: cannot tell who has connected: {error}", self.address()),
                    }
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
                    if pause == FIRST_PAUSE {
                        log::error!("{}: cannot accept connections for now: {error}", self.address());
                    }
                    thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Returns where an accepted connection comes from, and gives it the options that it has not inherited.
    fn origin(&self, stream: &Socket, peer: &SockAddr) -> io::Result<Origin> {
        if let Some(peer) = peer.as_socket() {
            let peer = without_mapping(peer);
            self.set_for_remote(stream, peer);
            return Ok(peer.into());
        }
        stream.set_write_timeout(Some(WRITE_STEP))?;
        let credentials = getsockopt(stream, PeerCredentials)?;
        Ok(Origin::Process { pid: credentials.pid().unsigned_abs(), uid: credentials.uid() })
    }

    /// Gives a connection from another machine the system's congestion control.
    fn set_for_remote(&self, stream: &Socket, peer: SocketAddr) {
        if let Place::Port { for_remote: Some(name), .. } = &self.place
            && !is_local(peer.ip(), || stream.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported.into()))
            && let Err(error) = set_tcp_congestion(stream, name)
        {
            log::debug!("{peer}: cannot set the congestion control {name}, so it stays {FOR_LOCAL}: {error}");
        }
    }

    /// Waits until a connection is in the backlog, or the listener is woken.
    fn wait(&self) {
        let watched = iter::once(self.socket.as_fd()).chain(self.waker.as_ref().map(OwnedFd::as_fd));
        let mut watched: Vec<_> = watched.map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN)).collect();
        if let Err(error) = poll(&mut watched, None)
            && error != Errno::INTR
        {
            log::error!("{}: cannot wait for connections: {error}", self.address());
            thread::sleep(FIRST_PAUSE);
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
        let _ = match &self.waker {
            Some(waker) => rustix::io::write(waker, &1_u64.to_ne_bytes()).map(drop).map_err(io::Error::from),
            None => self.socket.shutdown(std::net::Shutdown::Both),
        };
        if let Place::File(file) = &self.place {
            file.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::bind;
    use std::net::{Ipv4Addr, TcpStream, UdpSocket};

    /// Returns the congestion control of a connection from this machine to a server that listens on `listening`.
    fn congestion_control(listening: IpAddr, to: IpAddr) -> String {
        let listener = bind(&[listening.into()], 0, true).unwrap().remove(0);
        let _client = TcpStream::connect((to, listener.port())).unwrap();
        accepted_by(&listener, None)
    }

    /// Accepts a connection and returns its congestion control; with `peer`, as if the client had that address.
    fn accepted_by(listener: &Listener, peer: Option<&str>) -> String {
        let (stream, real) = listener.socket.accept().unwrap();
        listener.set_for_remote(&stream, peer.map_or(real.as_socket().unwrap(), |peer| peer.parse().unwrap()));
        tcp_congestion(stream).unwrap()
    }

    #[test]
    fn local_connections_have_their_own_congestion_control_even_with_a_listener_on_all_addresses() {
        for listening in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            assert_eq!(congestion_control(listening.into(), Ipv4Addr::LOCALHOST.into()), "reno");
        }
        // Also with the machine's address in a network, if it has one.
        let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
        if probe.connect("192.0.2.1:9").is_ok() {
            let own = probe.local_addr().unwrap().ip();
            assert_eq!(congestion_control(Ipv4Addr::UNSPECIFIED.into(), own), "reno");
        }
    }

    #[test]
    fn a_connection_from_another_machine_has_the_default_congestion_control() {
        let systems = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        let all = IpAddr::from(Ipv4Addr::UNSPECIFIED).into();
        let listener = bind(&[all], 0, true).unwrap().remove(0);
        let is_set = matches!(&listener.place, Place::Port { for_remote: Some(_), .. });
        assert_eq!(is_set, systems.trim() != "reno");
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, listener.port())).unwrap();
        let _client = connect();
        assert_eq!(accepted_by(&listener, Some("192.0.2.1:1")), systems.trim());
        let _client = connect();
        assert_eq!(accepted_by(&listener, Some("[2001:db8::1]:1")), systems.trim());
    }

    #[test]
    fn a_client_with_an_address_of_this_machine_is_local() {
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
    fn an_address_that_this_machine_lacks_is_skipped_unless_it_is_required() {
        let documentation: ListenAddress = "2001:db8::1".parse().unwrap();
        let both = ["127.0.0.1".parse().unwrap(), documentation.clone()];
        assert_eq!(bind(&both, 0, false).unwrap().len(), 1);
        let why = bind(&both, 0, true).unwrap_err().to_string();
        assert!(why.starts_with("cannot listen on [2001:db8::1]:"), "{why}");
        assert!(bind(&[documentation], 0, false).is_err());
    }
}
