//! Listening sockets: bound with what every connection of theirs inherits, accepted from without end.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_congestion;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use crate::connections::{Connections, Place, Protocol};

/// Connections that wait for a place wait in the kernel; it holds no more than net.core.somaxconn of them.
const BACKLOG: i32 = 4096;

/// A client's host that has vanished is noticed after a minute and a half.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Congestion control that sends when it can: loopback has no bottleneck to be found, and the timers by which BBR,
/// where it is the system's choice, paces what it sends take most of the time there (a factor of 7 for a large
/// message).
const FOR_LOOPBACK: &str = "reno";

/// A client that takes nothing at all for this long while it is being sent something is given up; sooner if the
/// autologout timer is shorter.
pub const WRITE_STALL: Duration = Duration::from_secs(120);

/// How long accepting rests when the kernel is short of something: from the first to the last of a burst.
const FIRST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How often a free port is looked for that is free on every address.
const PORT_TRIES: u32 = 16;

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Binds `port` on each address; port 0 is one free port, the same on all. An address of a family that this
/// machine does not have is passed over when it is not `required`.
///
/// # Errors
/// With the address that cannot be bound.
pub fn bind(addresses: &[IpAddr], port: u16, required: bool) -> io::Result<Vec<Listener>> {
    let mut tries = 0;
    loop {
        match bind_once(addresses, port, required) {
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse && tries < PORT_TRIES => tries += 1,
            result => return result,
        }
    }
}

fn bind_once(addresses: &[IpAddr], mut port: u16, required: bool) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for &address in addresses {
        let address = SocketAddr::new(address, port);
        match Listener::bind(address) {
            Ok(listener) => {
                port = listener.address.port();
                listeners.push(listener);
            }
            Err(error) if !required && is_missing_family(&error) => log::info!("not listening on {address}: {error}"),
            Err(error) => return Err(io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))),
        }
    }
    if listeners.is_empty() {
        return Err(io::Error::other("no address to listen on"));
    }
    Ok(listeners)
}

fn is_missing_family(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

impl Listener {
    /// What is set here each accepted connection inherits (Linux does so), which saves its own system calls.
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?; // a restart need not wait for old connections' TIME-WAIT
        socket.set_tcp_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_write_timeout(Some(WRITE_STALL))?;
        socket.set_nonblocking(true)?;
        if address.ip().is_loopback() {
            let _ = set_tcp_congestion(&socket, FOR_LOOPBACK); // where it is not allowed the system's choice does
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from(socket);
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Where it listens; the port is the real one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections, each when there is a place for it, until the server closes. Whatever goes wrong with
    /// accepting, it goes on.
    pub fn accept_all(
        &self,
        connections: &Arc<Connections>,
        protocol: Protocol,
        mut serve: impl FnMut(Place, TcpStream, SocketAddr),
    ) {
        let mut rest = FIRST_REST;
        let reserve = || {
            if protocol == Protocol::Peep {
                self.wait(); // another client may lose its place to the one that is waiting now
            }
            connections.reserve(protocol)
        };
        while let Some(place) = reserve() {
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    rest = FIRST_REST;
                    serve(place, stream, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(place);
                    self.wait();
                }
                // The client has gone again, which is its right.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                Err(error) => {
                    drop(place);
                    if connections.is_closing() {
                        return;
                    }
                    if rest == FIRST_REST {
                        log::error!("{}: cannot accept connections for now: {error}", self.address);
                    }
                    thread::sleep(rest);
                    rest = (rest * 2).min(LONGEST_REST);
                }
            }
        }
    }

    /// Until a client knocks, or the listener is woken.
    fn wait(&self) {
        if let Err(error) = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], None)
            && error != Errno::INTR
        {
            log::error!("{}: cannot wait for connections: {error}", self.address);
            thread::sleep(FIRST_REST);
        }
    }

    /// Whether a client waits to be accepted.
    #[must_use]
    pub fn has_knocks(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Wakes [`Listener::accept_all`], which then sees that the server closes. Nobody is accepted after this.
    pub fn wake(&self) {
        let _ = SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::tcp_congestion;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// The congestion control of a connection to what `address` means, from this machine.
    fn congestion_control(address: IpAddr) -> String {
        let listener = bind(&[address], 0, true).unwrap().remove(0);
        let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, listener.address().port())).unwrap();
        tcp_congestion(listener.socket.accept().unwrap().0).unwrap()
    }

    #[test]
    fn only_what_never_leaves_this_machine_has_its_own_congestion_control() {
        let systems = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        assert_eq!(congestion_control(Ipv4Addr::LOCALHOST.into()), "reno");
        assert_eq!(congestion_control(Ipv4Addr::UNSPECIFIED.into()), systems.trim());
    }

    #[test]
    fn an_address_that_this_machine_lacks_is_passed_over_unless_asked_for() {
        let documentation: IpAddr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into();
        let loopback = Ipv4Addr::LOCALHOST.into();
        assert_eq!(bind(&[loopback, documentation], 0, false).unwrap().len(), 1);
        let why = bind(&[loopback, documentation], 0, true).unwrap_err().to_string();
        assert!(why.starts_with("cannot listen on [2001:db8::1]:"), "{why}");
        assert!(bind(&[documentation], 0, false).is_err());
    }
}
