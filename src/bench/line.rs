//! A connection's octets in and out: a non-blocking socket, in clear or by TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::tls::{Agreed, TlsLayer};

/// A stream that can also discard what it has received.
pub(super) trait Stream: Read + Write {
    /// Like `read`, but the contents of `scratch` are undefined afterwards.
    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize>;

    /// Returns true if there is nothing more to read for now. `short` says that the last read did not fill its buffer.
    fn is_drained(&self, short: bool) -> bool {
        short
    }
}

/// A client's connection.
pub(super) struct Line<'a> {
    socket: TcpStream,
    tls: Option<Box<TlsLayer<'a>>>,
}

impl<'a> Line<'a> {
    /// Begins to connect. The first read or write reports a later refusal.
    pub(super) fn connect(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        net::sockopt::set_tcp_nodelay(&socket, true)?;
        match net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Self { socket: socket.into(), tls: None }),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Uses `tls` for everything from now on, beginning with its handshake.
    pub(super) fn start_tls(&mut self, tls: TlsLayer<'a>) {
        self.tls = Some(Box::new(tls));
    }

    /// Continues the handshake without waiting. Returns [`io::ErrorKind::WouldBlock`] until it is complete.
    pub(super) fn handshake(&mut self) -> io::Result<()> {
        self.tls.as_mut().map_or(Ok(()), |tls| tls.handshake(&self.socket))
    }

    /// What client and server agreed on in the handshake.
    pub(super) fn agreed(&self) -> Option<Agreed> {
        self.tls.as_ref().map(|tls| tls.agreed())
    }
}

impl Read for Line<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => Ok(net::recv(&self.socket, buffer, RecvFlags::empty())?.1),
            Some(tls) => tls.read(&self.socket, buffer),
        }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => Ok(net::send(&self.socket, octets, SendFlags::NOSIGNAL)?),
            Some(tls) => tls.write(&self.socket, octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Line<'_> {
    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            // The kernel drops the octets without copying them (tcp(7), MSG_TRUNC).
            None => Ok(net::recv(&self.socket, scratch, RecvFlags::TRUNC)?.1),
            Some(tls) => tls.discard(&self.socket, scratch.len()),
        }
    }

    fn is_drained(&self, short: bool) -> bool {
        self.tls.as_ref().map_or(short, |tls| tls.is_drained())
    }
}
