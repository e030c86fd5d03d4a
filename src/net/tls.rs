//! TLS over a blocking socket: a handshake with a deadline, then encrypted reads and writes.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use socket2::Socket;

use super::patience::patiently;

/// The most octets that one write encrypts.
const BUFFER: usize = 128 * 1024;

/// The server's side of a TLS connection. Each call gets the stream that it uses.
#[derive(Debug)]
pub(super) struct TlsLayer(ServerConnection);

impl TlsLayer {
    /// Carries out the handshake, which has to be complete at `deadline`. Changes the stream's read timeout.
    // Not inlined, so that sessions without TLS need no stack for it.
    #[inline(never)]
    pub(super) fn accept(config: Arc<ServerConfig>, stream: &Socket, deadline: Instant) -> io::Result<Self> {
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

    /// Returns the TLS version and cipher suite, for the log.
    pub(super) fn agreed(&self) -> String {
        let version = self.0.protocol_version().and_then(|version| version.as_str()).unwrap_or_default();
        let suite = self.0.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        format!("{} {suite}", version.replace('_', ".")) // rustls writes TLSv1_3
    }

    /// Returns the octets that identify this connection (RFC 9266). With TLS 1.2 they would identify it only under
    /// conditions, so they are those of TLS 1.3.
    pub(super) fn channel_binding(&self) -> Option<[u8; 32]> {
        if self.0.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        self.0.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[])).ok()
    }

    /// Reads decrypted octets. Returns [`io::ErrorKind::WouldBlock`] if input arrived that contains none, so that the
    /// caller can check its deadline; otherwise a client could keep it waiting with parts of a record. TLS may have to
    /// send something itself; the client may read nothing of that for `stall` at most.
    pub(super) fn read(
        &mut self,
        stream: &Socket,
        buffer: &mut [u8],
        stall: impl Fn() -> Duration,
    ) -> io::Result<usize> {
        match self.0.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return accept_unannounced_end(result),
        }
        self.receive(stream, stall)?;
        accept_unannounced_end(self.0.reader().read(buffer))
    }

    /// Encrypts and sends octets, and returns how many of `octets` were accepted. Fails if the client reads nothing for
    /// longer than `stall`.
    pub(super) fn write(&mut self, stream: &Socket, octets: &[u8], stall: impl Fn() -> Duration) -> io::Result<usize> {
        let taken = self.0.writer().write(octets)?;
        self.send(stream, stall)?;
        Ok(taken)
    }

    /// Returns true if the client has closed its side of the connection and all its input has been read. Does not wait.
    pub(super) fn client_left(&mut self, stream: &Socket) -> bool {
        loop {
            let end = match self.0.read_tls(&mut Nonblocking(stream)) {
                Ok(read) => read == 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // Either the connection failed, or the buffer for input is full.
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

    /// Sends TLS's closing message, if that is possible without waiting.
    pub(super) fn close(&mut self, stream: &Socket) {
        self.0.send_close_notify();
        while self.0.wants_write() {
            if self.0.write_tls(&mut Nonblocking(stream)).is_err() {
                return;
            }
        }
    }

    /// Reads from the stream once, and sends what TLS itself has to reply.
    fn receive(&mut self, mut stream: &Socket, stall: impl Fn() -> Duration) -> io::Result<usize> {
        let read = self.0.read_tls(&mut stream)?;
        let processed = self.0.process_new_packets();
        let sent = self.send(stream, stall); // also an alert, if the client's record was wrong
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        sent.map(|()| read)
    }

    fn send(&mut self, mut stream: &Socket, stall: impl Fn() -> Duration) -> io::Result<()> {
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

/// Treats a connection that was closed without TLS's closing message like any other end of input. Many clients omit that
/// message, and POP3 does not need it because only QUIT has consequences.
fn accept_unannounced_end(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        result => result,
    }
}

/// A stream whose reads and writes do not wait.
struct Nonblocking<'a>(&'a Socket);

impl Read for Nonblocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, _) = recv(self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(read)
    }
}

impl Write for Nonblocking<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, octets, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
