//! A client's connection as a session sees it: blocking reads and writes with timeouts, unencrypted or with TLS.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::certificates::Certificates;
use super::origin::Origin;
use super::patience::patiently;
use super::tls::TlsLayer;
use crate::auth;
use crate::connections::{Connection, Slot};
use crate::faults::Breakable;
use crate::stats::Counter;
use crate::wire::{self, Link, copy_range};

/// How many octets one sendfile(2) call sends. How much of them the client has read is known only when the call returns,
/// so the pieces are small until the client has proved to be quick.
const PIECE: u64 = 512 * 1024;

/// The most octets that one call sends to a quick client. Each piece ends with a packet that is not full, so larger pieces
/// are more efficient.
const LARGEST_PIECE: u64 = 8 * PIECE;

/// A client that reads a piece within this time is quick.
const QUICK: Duration = Duration::from_millis(20);

/// The most reads of 4 KiB that discard input: together they hold about as much as a socket's receive buffer.
const DISCARDS: usize = 1600;

/// Read timeouts are rounded up to a multiple of this. Otherwise the timeout would differ, and cost a system call, at each
/// read.
const TIMEOUT_STEP: Duration = Duration::from_millis(100);

/// How often a pause looks whether it has to end early.
const PAUSE_STEP: Duration = Duration::from_millis(20);

/// A blocking socket with a read timeout, with or without TLS, which counts the octets that it sends.
#[derive(Debug)]
pub struct Socket<'a> {
    slot: &'a Slot,
    connection: &'a Connection,
    sent: Option<&'a Counter>,
    certificates: Option<Arc<Certificates>>,
    tls: Option<Box<TlsLayer>>,
    timeout: Option<Duration>,
    ending: bool,
    waiting_since: Option<Instant>,
    is_abrupt: bool,
}

impl<'a> Socket<'a> {
    /// Wraps the connection of `slot`. `sent` counts the octets sent to the client. If there are `certificates`, TLS can be
    /// started.
    #[must_use]
    pub fn new(slot: &'a Slot, sent: Option<&'a Counter>, certificates: Option<Arc<Certificates>>) -> Self {
        let connection = slot.connection();
        Self {
            slot,
            connection,
            sent,
            certificates,
            tls: None,
            timeout: None,
            ending: false,
            waiting_since: None,
            is_abrupt: false,
        }
    }

    fn stream(&self) -> &socket2::Socket {
        &self.connection.stream
    }

    /// The counters of sent octets: that of all connections, and that of this one.
    fn counters(&self) -> (Option<&'a Counter>, &'a Counter) {
        (self.sent, &self.connection.client.progress.sent)
    }

    /// Sends a range of `file` by sendfile(2).
    fn send_file_in_clear(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        let (mut offset, mut most) = (range.start, PIECE);
        while offset < range.end {
            let piece = (range.end - offset).min(most);
            let begun = Instant::now();
            let sent = counted(self.counters(), piece, || {
                let count = usize::try_from(piece).unwrap_or(usize::MAX);
                let mut send = || Ok(sendfile(self.stream(), file, Some(&mut offset), count)? as u64);
                self.connection.timed(piece, || patiently(|| self.slot.write_stall(), &mut send))
            });
            most = after_piece(most, begun.elapsed());
            match sent {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Returns the largest size of the next piece, after a piece of at most `most` octets took this long.
fn after_piece(most: u64, took: Duration) -> u64 {
    if took < QUICK { (2 * most).min(LARGEST_PIECE) } else { PIECE }
}

impl Drop for Socket<'_> {
    fn drop(&mut self) {
        if let Some(tls) = self.tls.as_mut().filter(|_| !self.is_abrupt) {
            tls.close(&self.connection.stream);
        }
    }
}

/// Adds `octets` to the counter before they are sent, so that a client that has received them finds them counted.
/// Afterwards subtracts the octets that were not sent.
fn counted(
    (all, own): (Option<&Counter>, &Counter),
    octets: u64,
    send: impl FnOnce() -> io::Result<u64>,
) -> io::Result<u64> {
    let counters = all.into_iter().chain([own]);
    counters.clone().for_each(|counter| counter.add(octets));
    let result = send();
    let unsent = octets - result.as_ref().copied().unwrap_or(0);
    if unsent > 0 {
        counters.for_each(|counter| counter.subtract(unsent));
    }
    result
}

/// Sends a client the reason why its connection is refused, if that is possible without waiting.
pub fn refuse(stream: &socket2::Socket, words: &str) {
    let _ = send(stream, words.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// Reads and discards what the client has sent after its last command. If a connection is closed with unread input, the
/// kernel resets it, and the client may lose the last reply.
// Not inlined, so that its buffer is not in the stack frame of each session.
#[inline(never)]
pub fn discard_input(connection: &Connection) {
    for _ in 0..DISCARDS {
        match recv(&connection.stream, &mut [MaybeUninit::<u8>::uninit(); 4096], RecvFlags::DONTWAIT) {
            Ok((_, 1..)) => {}
            _ => return,
        }
    }
}

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.connection.set_waiting(self.waiting_since);
        let stream = &self.connection.stream;
        let result = match &mut self.tls {
            Some(tls) => tls.read(stream, buffer, || self.slot.write_stall()),
            None => recv(stream, buffer, RecvFlags::empty()).map(|(_, read)| read).map_err(io::Error::from),
        };
        self.connection.set_waiting(None);
        result
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let stream = &self.connection.stream;
        let all = octets.len() as u64;
        let more = if self.ending { SendFlags::MORE } else { SendFlags::empty() };
        let stall = || self.slot.write_stall();
        let written = counted(self.counters(), all, || {
            self.connection.timed(all, || match &mut self.tls {
                Some(tls) => Ok(tls.write(stream, octets, stall)? as u64),
                None => patiently(stall, || Ok(send(stream, octets, SendFlags::NOSIGNAL | more)? as u64)),
            })
        })?;
        Ok(usize::try_from(written).unwrap_or(octets.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for Socket<'_> {
    fn expect_command(&mut self, since: Instant, deadline: Option<Instant>) {
        self.waiting_since = Some(since);
        let timeout = deadline.map(|deadline| rounded_up(deadline.saturating_duration_since(Instant::now())));
        if self.timeout != timeout && self.stream().set_read_timeout(timeout).is_ok() {
            self.timeout = timeout;
        }
    }

    fn set_ending(&mut self) {
        self.ending = true;
    }

    fn set_logged_in(&self) {
        self.connection.set_logged_in();
    }

    fn send_file(&mut self, file: &File, range: Range<u64>) -> io::Result<()> {
        if self.tls.is_some() { copy_range(file, range, self) } else { self.send_file_in_clear(file, range) }
    }

    fn client_left(&mut self) -> bool {
        if self.connection.reading_is_ended() {
            // At a shutdown the reply may be finished. An admin who ends the session does not wait for that.
            return self.connection.client.progress.is_kicked();
        }
        if let Some(tls) = &mut self.tls {
            return tls.client_left(&self.connection.stream);
        }
        match recv(self.stream(), &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, read)) => read == 0,
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => true,
        }
    }

    fn watch(&self) -> Option<BorrowedFd<'_>> {
        Some(self.stream().as_fd())
    }

    fn is_private(&self) -> bool {
        self.tls.is_some() || self.slot.client().origin.is_private()
    }

    fn client_user(&self) -> io::Result<u32> {
        if let Origin::Process { uid, .. } = self.slot.client().origin {
            return Ok(uid);
        }
        let address = |it: socket2::SockAddr| it.as_socket().ok_or(io::ErrorKind::Unsupported);
        auth::user_of_local_client(address(self.stream().peer_addr()?)?, address(self.stream().local_addr()?)?)
    }

    fn tls(&self) -> wire::Tls {
        match (&self.tls, &self.certificates) {
            (Some(_), _) => wire::Tls::Active,
            _ if self.slot.client().origin.has_tls_at_proxy() => wire::Tls::Active,
            (None, Some(_)) => wire::Tls::Ready,
            (None, None) => wire::Tls::Absent,
        }
    }

    fn channel_binding(&self) -> Option<[u8; 32]> {
        self.tls.as_ref()?.channel_binding()
    }

    fn start_tls(&mut self, deadline: Instant) -> io::Result<String> {
        let certificates = self.certificates.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let stream = &self.connection.stream;
        self.connection.set_waiting(Some(Instant::now()));
        let tls = TlsLayer::accept(certificates.config(), stream, deadline);
        self.connection.set_waiting(None);
        let tls = tls?;
        stream.set_read_timeout(self.timeout)?;
        let agreed = tls.agreed();
        self.tls = Some(Box::new(tls));
        Ok(agreed)
    }
}

impl Breakable for Socket<'_> {
    fn pause(&mut self, time: Duration) {
        let end = Instant::now() + time;
        // Reading is ended when the server shuts down and when the session is ended from outside.
        while !self.connection.reading_is_ended() && !self.client_left() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(PAUSE_STEP));
        }
    }

    fn set_abrupt(&mut self, reset: bool) {
        self.is_abrupt = true;
        if reset {
            // The kernel resets the connection when it is closed with this option.
            let _ = self.stream().set_linger(Some(Duration::ZERO));
        }
    }
}

/// Rounds up to a multiple of [`TIMEOUT_STEP`], and never to 0, which would mean no timeout.
fn rounded_up(timeout: Duration) -> Duration {
    let steps = timeout.as_millis().div_ceil(TIMEOUT_STEP.as_millis()).max(1);
    TIMEOUT_STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::{Connections, Protocol, Service, Slot};
    use std::net::{TcpListener, TcpStream};

    /// Returns a connection and its peer. While the peer reads nothing, writes are short or fail.
    fn pair() -> (Slot, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = TcpStream::connect(address).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let connections = Connections::new(2);
        connections.set_write_stall(Duration::ZERO);
        (connections.reserve(Protocol::Pop3).unwrap().occupy(stream.into(), address.into(), Service::Pop3), peer)
    }

    /// Closes the connection and returns how many octets the peer has received.
    fn received(slot: Slot, mut peer: TcpStream) -> u64 {
        drop(slot);
        io::copy(&mut peer, &mut io::sink()).unwrap()
    }

    #[test]
    fn short_and_failed_writes_are_counted_exactly() {
        let sent = Counter::default();
        let (slot, peer) = pair();
        let mut socket = Socket::new(&slot, Some(&sent), None);
        let octets = vec![b'x'; 64 << 20];
        let mut written = 0;
        let error = loop {
            match socket.write(&octets) {
                Ok(count) => written += count as u64,
                Err(error) => break error,
            }
        };
        drop(socket);
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(sent.value(), written);
        assert_eq!(received(slot, peer), written);
    }

    #[test]
    fn a_file_that_is_sent_in_part_is_counted_exactly() {
        let sent = Counter::default();
        let (slot, peer) = pair();
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        let error = Socket::new(&slot, Some(&sent), None).send_file(&file, 0..64 << 20).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(sent.value() > 0);
        assert_eq!(received(slot, peer), sent.value());
    }

    #[test]
    fn only_quick_clients_are_sent_large_pieces() {
        let ms = Duration::from_millis;
        let after = |took: &[u64]| took.iter().fold(PIECE, |most, &took| after_piece(most, ms(took)));
        assert_eq!(after(&[1]), 2 * PIECE);
        assert_eq!(after(&[1; 20]), LARGEST_PIECE);
        assert_eq!(after(&[1, 1, 1, 1000]), PIECE);
        assert_eq!(after(&[120_000]), PIECE);
    }

    #[test]
    fn a_file_that_has_become_shorter_is_counted_exactly() {
        let sent = Counter::default();
        let (slot, peer) = pair();
        let file = tempfile::tempfile().unwrap();
        file.set_len(1000).unwrap();
        let error = Socket::new(&slot, Some(&sent), None).send_file(&file, 0..2000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!((received(slot, peer), sent.value()), (1000, 1000));
    }
}
