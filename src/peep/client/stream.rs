//! The connection itself: TCP, TLS or a UNIX socket, with a limit of time for what the server does.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, SockAddr, Socket, Type};

use super::target::Target;
use super::{Failure, Options};

/// Connects to a server, by TLS if the options say so.
pub(super) fn open(target: &Target, options: &Options) -> Result<Box<dyn Stream>, Failure> {
    let timeout = options.timeout();
    let unreachable = |error| Failure::Unreachable(target.to_string(), error);
    let (host, port) = match target {
        Target::Tcp { host, port } => (host, *port),
        Target::Unix(path) => {
            let socket = connect_unix(path, timeout).map_err(unreachable)?;
            return Ok(Box::new(Patient { socket, left: timeout }));
        }
    };
    let tls = if options.tls { Some(tls_for(host, options)?) } else { None };
    let socket = connect((host.as_str(), port), timeout).map_err(unreachable)?.into();
    let socket = Patient { socket, left: timeout };
    Ok(match tls {
        None => Box::new(socket),
        Some(tls) => Box::new(handshake(tls, socket).map_err(|error| Failure::NoTls(target.to_string(), error))?),
    })
}

/// A connection in clear or by TLS.
pub(super) trait Stream: Read + Write + Send {
    /// Limits the time that the client waits for the server from now on to `time` in all.
    fn allow(&mut self, time: Duration);
}

impl Stream for Patient {
    fn allow(&mut self, time: Duration) {
        self.left = time;
    }
}

impl Stream for StreamOwned<ClientConnection, Patient> {
    fn allow(&mut self, time: Duration) {
        self.sock.allow(time);
    }
}

/// A socket that waits for the server for a limited time in all, not for a limited time in each call: a server that
/// sends an octet now and then uses the time up. Time that the client itself spends, for example on a terminal that is
/// stopped, does not count.
struct Patient {
    socket: Socket,
    left: Duration,
}

impl Patient {
    /// Makes one call that may wait as long as is left, and takes from that what the call took.
    fn spend(&mut self, call: impl FnOnce(&Socket, Duration) -> io::Result<usize>) -> io::Result<usize> {
        if self.left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let began = Instant::now();
        let result = call(&self.socket, self.left);
        self.left = self.left.saturating_sub(began.elapsed());
        // A blocking socket reports its timeout as WouldBlock. During a handshake rustls treats WouldBlock as success
        // if anything has been sent or received before.
        result.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.spend(|mut socket, left| {
            socket.set_read_timeout(Some(left))?;
            socket.read(buffer)
        })
    }
}

impl Write for Patient {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.spend(|mut socket, left| {
            socket.set_write_timeout(Some(left))?;
            socket.write(octets)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tries each address in turn. If all fail, returns the error of the last one.
fn connect(addresses: impl ToSocketAddrs, timeout: Duration) -> io::Result<TcpStream> {
    let mut connected = Err(io::Error::new(ErrorKind::NotFound, "the name has no address"));
    for address in addresses.to_socket_addrs()? {
        connected = TcpStream::connect_timeout(&address, timeout);
        if connected.is_ok() {
            break;
        }
    }
    connected
}

/// Connects to a UNIX socket. A server whose queue is full is waited for as long as `timeout`.
fn connect_unix(path: &Path, timeout: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(timeout))?;
    socket.connect(&SockAddr::unix(path)?).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    })?;
    Ok(socket)
}

/// Prepares TLS for the server of this name. The handshake has not begun.
fn tls_for(host: &str, options: &Options) -> Result<ClientConnection, Failure> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| Failure::Usage(format!("no certificate can be for the name {host:?}")))?;
    let config: ClientConfig = options.trust.config(default_provider()).map_err(Failure::Usage)?;
    ClientConnection::new(Arc::new(config), name).map_err(|error| Failure::Usage(error.to_string()))
}

fn handshake(mut tls: ClientConnection, mut socket: Patient) -> io::Result<impl Stream> {
    tls.complete_io(&mut socket)?;
    Ok(StreamOwned::new(tls, socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    #[test]
    fn every_address_is_tried() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listening = listener.local_addr().unwrap();
        // The port is bound but not listened on, so that it refuses connections.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let refusing = socket.local_addr().unwrap().as_socket().unwrap();

        let timeout = Duration::from_secs(10);
        for addresses in [[refusing, listening], [listening, refusing]] {
            assert_eq!(connect(&addresses[..], timeout).unwrap().peer_addr().unwrap(), listening);
        }
        let error = connect(&[refusing, refusing][..], timeout).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(connect(&[][..], timeout).is_err());
    }
}
