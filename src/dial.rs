//! Connections that the client programs make: by TCP, TLS or a UNIX socket, with a limit on the time that is spent waiting
//! for the server. `peepclient` and `pop3d doctor` are the callers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, SockAddr, Socket, Type};

/// A connection in clear or by TLS.
pub trait Stream: Read + Write + Send {
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
#[derive(Debug)]
pub struct Patient {
    socket: Socket,
    left: Duration,
}

impl Patient {
    /// Connects by TCP. Tries each address in turn; if all fail, returns the error of the last one.
    ///
    /// # Errors
    /// When no address can be connected to within `timeout`, which is the limit for the first answer, too.
    pub fn connect(addresses: impl ToSocketAddrs, timeout: Duration) -> io::Result<Self> {
        Ok(Self { socket: connect(addresses, timeout)?.into(), left: timeout })
    }

    /// Connects to a UNIX socket.
    ///
    /// # Errors
    /// When that is not possible within `timeout`.
    pub fn connect_unix(path: &Path, timeout: Duration) -> io::Result<Self> {
        Ok(Self { socket: connect_unix(path, timeout)?, left: timeout })
    }

    /// The address of the other side, if the connection is by TCP.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.socket.peer_addr().ok()?.as_socket()
    }

    /// Begins TLS.
    ///
    /// # Errors
    /// Those of the handshake.
    pub fn handshake(mut self, mut tls: ClientConnection) -> io::Result<impl Stream> {
        tls.complete_io(&mut self)?;
        Ok(StreamOwned::new(tls, self))
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

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
