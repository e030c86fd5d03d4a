//! TLS on a blocking socket: the handshake within its time, then octets in and out.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::{ServerConfig, ServerConnection};

use super::patience::patiently;

/// The most plain octets that are encrypted at once, each time for one write.
const BUFFER: usize = 128 * 1024;

/// The server's side of a TLS connection; the stream it runs over is lent to each call.
#[derive(Debug)]
pub(super) struct TlsLayer(ServerConnection);

impl TlsLayer {
    /// Answers the client's handshake, which has to be done at `deadline`. The stream's read timeout is changed.
    // Not inlined: sessions in clear need no stack for it.
    #[inline(never)]
    pub(super) fn accept(config: Arc<ServerConfig>, stream: &TcpStream, deadline: Instant) -> io::Result<Self> {
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        connection.set_buffer_limit(Some(BUFFER));
        let mut tls = Self(connection);
        while tls.0.is_handshaking() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            if tls.receive(stream, || left)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(tls)
    }

    /// What has been agreed on, for the log.
    pub(super) fn agreed(&self) -> String {
        let version = self.0.protocol_version().and_then(|version| version.as_str()).unwrap_or_default();
        let suite = self.0.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        format!("{version} {suite}")
    }

    /// Reads plain octets. [`io::ErrorKind::WouldBlock`] when something came but none of them, so that who waits can
    /// look at the clock: a client could send parts of a record for ever. What TLS answers the client has to take within
    /// `stall`.
    pub(super) fn read(
        &mut self,
        stream: &TcpStream,
        buffer: &mut [u8],
        stall: impl Fn() -> Duration,
    ) -> io::Result<usize> {
        match self.0.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return end_is_end(result),
        }
        self.receive(stream, stall)?;
        end_is_end(self.0.reader().read(buffer))
    }

    /// Sends plain octets; returns how many of them. An error when the client takes nothing for as long as `stall`.
    pub(super) fn write(
        &mut self,
        stream: &TcpStream,
        octets: &[u8],
        stall: impl Fn() -> Duration,
    ) -> io::Result<usize> {
        let taken = self.0.writer().write(octets)?;
        self.send(stream, stall)?;
        Ok(taken)
    }

    /// Whether the client has ended its side and all that it sent has been read, without waiting.
    pub(super) fn client_left(&mut self, stream: &TcpStream) -> bool {
        loop {
            let end = match self.0.read_tls(&mut AtOnce(stream)) {
                Ok(read) => read == 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // Either the connection, or more has come than there is room for.
                Err(_) => return self.0.process_new_packets().is_err(),
            };
            match self.0.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() > 0 => return false,
                Ok(state) if state.peer_has_closed() || end => return true,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
    }

    /// Tells the client that nothing follows, if that can be done without waiting.
    pub(super) fn close(&mut self, stream: &TcpStream) {
        self.0.send_close_notify();
        while self.0.wants_write() {
            if self.0.write_tls(&mut AtOnce(stream)).is_err() {
                return;
            }
        }
    }

    /// Reads from the stream once, and answers what TLS itself has to answer.
    fn receive(&mut self, mut stream: &TcpStream, stall: impl Fn() -> Duration) -> io::Result<usize> {
        let read = self.0.read_tls(&mut stream)?;
        let processed = self.0.process_new_packets();
        let sent = self.send(stream, stall); // also what was wrong with the client's record
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        sent.map(|()| read)
    }

    fn send(&mut self, mut stream: &TcpStream, stall: impl Fn() -> Duration) -> io::Result<()> {
        while self.0.wants_write() {
            match patiently(&stall, || self.0.write_tls(&mut stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Many clients close the connection without TLS's own farewell. POP3 does not need it: what counts is QUIT.
fn end_is_end(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        result => result,
    }
}

/// A stream that does not wait.
struct AtOnce<'a>(&'a TcpStream);

impl Read for AtOnce<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, _) = recv(self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(read)
    }
}

impl Write for AtOnce<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, octets, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
