//! TLS over a non-blocking socket, fast enough that measurements show the server's speed and not the client's.
//!
//! rustls' own streams read 4 KiB at a time and copy each octet three times. Here one system call receives many
//! records, which are decrypted in place (`rustls::client::UnbufferedClientConnection`).

use std::io::{self, Read, Write};
use std::mem;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, Error, HandshakeKind};

use super::buffers::Buffers;

/// An upper bound for a record's header, padding and tag together (RFC 8446, section 5.2; RFC 5246, section 6.2.3).
const RECORD_OVERHEAD: usize = 512;
/// The most octets of plain text in a record.
const RECORD_OCTETS: usize = 1 << 14;

/// What client and server agreed on in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Agreed {
    version: &'static str,
    cipher: &'static str,
    /// True if an earlier session was resumed, which takes less work.
    pub(super) resumed: bool,
}

impl Agreed {
    /// The TLS version, for example `TLSv1.3`.
    pub(super) fn version(self) -> String {
        self.version.replace('_', ".")
    }

    /// The cipher suite's name in IANA's registry.
    pub(super) fn cipher(self) -> String {
        iana_name(self.cipher)
    }
}

/// A cipher suite's name in IANA's registry. In rustls the names for TLS 1.3 begin with TLS13_.
pub(super) fn iana_name(cipher: &str) -> String {
    cipher.replacen("TLS13_", "TLS_", 1)
}

/// The client's side of TLS. Each call is given the socket.
pub(super) struct TlsLayer<'a> {
    connection: UnbufferedClientConnection,
    /// Received octets that are not a complete record yet. Empty while there are none.
    incoming: Box<[u8]>,
    start: usize,
    end: usize,
    buffers: &'a Buffers,
    /// Decrypted octets that have not been read yet.
    rest: Vec<u8>,
    /// Encrypted octets that have not been sent yet.
    outgoing: Vec<u8>,
    /// The last receive has emptied the socket.
    drained: bool,
    ended: bool,
}

impl<'a> TlsLayer<'a> {
    pub(super) fn new(
        config: &Arc<ClientConfig>,
        name: &ServerName<'static>,
        buffers: &'a Buffers,
    ) -> Result<Self, Error> {
        Ok(Self {
            connection: UnbufferedClientConnection::new(Arc::clone(config), name.clone())?,
            incoming: Box::default(),
            start: 0,
            end: 0,
            buffers,
            rest: Vec::new(),
            outgoing: Vec::new(),
            drained: false,
            ended: false,
        })
    }

    /// Continues the handshake. Returns `WouldBlock` until it is complete.
    pub(super) fn handshake(&mut self, socket: &TcpStream) -> io::Result<()> {
        loop {
            self.advance(socket, &[], |_| 0)?;
            if !self.connection.is_handshaking() {
                return Ok(());
            }
            self.receive(socket)?;
            if self.ended {
                let hang_up = "the server hung up in the TLS handshake";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, hang_up));
            }
        }
    }

    pub(super) fn agreed(&self) -> Agreed {
        let version = self.connection.protocol_version().and_then(|version| version.as_str());
        let cipher = self.connection.negotiated_cipher_suite().and_then(|cipher| cipher.suite().as_str());
        let resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
        Agreed { version: version.unwrap_or_default(), cipher: cipher.unwrap_or_default(), resumed }
    }

    /// Returns true if there is nothing to read before the socket receives more.
    pub(super) fn is_drained(&self) -> bool {
        self.drained && self.rest.is_empty() && !self.ended
    }

    pub(super) fn read(&mut self, socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len();
        self.take(socket, room, |at, plain| buffer[at..][..plain.len()].copy_from_slice(plain))
    }

    /// Like a read of at most `most` octets, which are discarded.
    pub(super) fn discard(&mut self, socket: &TcpStream, most: usize) -> io::Result<usize> {
        self.take(socket, most, |_, _| {})
    }

    /// Receives once and passes decrypted octets to `give`, at most `most` of them, each piece with its offset. Returns
    /// `WouldBlock` if TLS records arrived that carry no data.
    fn take(&mut self, socket: &TcpStream, most: usize, mut give: impl FnMut(usize, &[u8])) -> io::Result<usize> {
        if !self.rest.is_empty() {
            let count = most.min(self.rest.len());
            give(0, &self.rest[..count]);
            self.rest.drain(..count);
            return Ok(count);
        }
        if !self.ended {
            self.receive(socket)?;
        }
        let mut taken = 0;
        self.advance(socket, &[], |plain| {
            let count = plain.len().min(most - taken);
            give(taken, &plain[..count]);
            taken += count;
            count
        })?;
        if taken == 0 && !self.ended { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// Sends all of `plain`. All earlier replies have been read, so the socket's buffer has room for it.
    pub(super) fn write(&mut self, socket: &TcpStream, plain: &[u8]) -> io::Result<usize> {
        self.advance(socket, plain, |_| 0)?;
        Ok(plain.len())
    }

    /// Receives once, behind the octets of an incomplete record.
    fn receive(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        if self.incoming.is_empty() {
            self.incoming = self.buffers.take();
        }
        self.incoming.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let room = &mut self.incoming[self.end..];
        let (all, received) = (room.len(), socket.read(room));
        match received {
            Ok(count) => {
                self.end += count;
                self.drained = count < all;
                self.ended = count == 0;
            }
            Err(error) => {
                self.release();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Decrypts what has been received and keeps what `take` does not take. Sends what TLS itself has to send, then
    /// `plain`.
    fn advance(
        &mut self,
        mut socket: &TcpStream,
        plain: &[u8],
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> io::Result<()> {
        loop {
            let received = &mut self.incoming[self.start..self.end];
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(received);
            let mut all_done = false;
            match state.map_err(of_tls)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let plain = record.map_err(of_tls)?.payload;
                        let taken = take(plain);
                        self.rest.extend_from_slice(&plain[taken..]);
                    }
                }
                ConnectionState::EncodeTlsData(mut handshake) => {
                    append(&mut self.outgoing, RECORD_OCTETS, |room| handshake.encode(room).ok())?;
                }
                ConnectionState::TransmitTlsData(handshake) => {
                    socket.write_all(&self.outgoing)?;
                    self.outgoing.clear();
                    handshake.done();
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    if !plain.is_empty() {
                        append(&mut self.outgoing, plain.len(), |room| traffic.encrypt(plain, room).ok())?;
                        socket.write_all(&self.outgoing)?;
                        self.outgoing.clear();
                    }
                    all_done = true;
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.ended = true;
                    all_done = true;
                }
                _ => all_done = true, // the handshake needs more from the server
            }
            self.start += discard;
            if all_done {
                self.release();
                return Ok(());
            }
        }
    }

    /// Gives the buffer back to the thread's buffers if it is empty.
    fn release(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.buffers.give_back(mem::take(&mut self.incoming));
        }
    }
}

/// Appends to `outgoing` what `write` encrypts. `octets` is the length of the plain text.
fn append(outgoing: &mut Vec<u8>, octets: usize, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> io::Result<()> {
    let start = outgoing.len();
    outgoing.resize(start + octets + RECORD_OVERHEAD * (1 + octets / RECORD_OCTETS), 0);
    let written = write(&mut outgoing[start..]).ok_or_else(|| io::Error::other("a TLS record without end"))?;
    outgoing.truncate(start + written);
    Ok(())
}

fn of_tls(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
