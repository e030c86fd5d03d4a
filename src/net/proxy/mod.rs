//! The PROXY protocol: a proxy begins each connection with a header that says which client it is for.
//!
//! - [`read_header`] reads the header from a connection, and nothing after it.
//! - `header` is the grammar: [`end`] and [`parse`].

mod header;

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::Socket;

use self::header::MAX_V2;
pub use self::header::{Header, NotAHeader, end, parse};

/// How often a connection whose header is awaited is looked at in vain, so that it does not delay a shutdown.
const STEP: Duration = Duration::from_millis(200);

/// Why a connection has no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// The proxy closed the connection first.
    Closed,
    /// There was no whole header in time.
    Late,
    /// The connection begins with other octets, or with a malformed header.
    Wrong(NotAHeader),
    /// The caller does not want it any more.
    Stopped,
}

impl From<NotAHeader> for HeaderError {
    fn from(error: NotAHeader) -> Self {
        Self::Wrong(error)
    }
}

/// Reads the header of a connection until `deadline`, unless `is_stopped` meanwhile. What follows the header stays unread.
/// A header that has arrived already costs two system calls.
///
/// # Errors
/// [`HeaderError`]
// Not inlined, so that its buffer is not in the stack frame of each session.
#[inline(never)]
pub fn read_header(stream: &Socket, deadline: Instant, is_stopped: impl Fn() -> bool) -> Result<Header, HeaderError> {
    let mut octets = [0; MAX_V2];
    let mut length = 0;
    loop {
        let arrived = match recv(stream, &mut octets[length..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(HeaderError::Closed),
            Ok((_, count)) => length + count,
            Err(Errno::AGAIN) => {
                wait(stream, deadline, &is_stopped)?;
                continue;
            }
            Err(Errno::INTR) => continue,
            Err(_) => return Err(HeaderError::Closed),
        };
        let end = header::end(&octets[..arrived])?;
        let until = end.unwrap_or(arrived);
        match recv(stream, &mut octets[length..until], RecvFlags::DONTWAIT) {
            Ok((_, count)) if count == until - length => length = until,
            _ => return Err(HeaderError::Closed),
        }
        if end.is_some() {
            return Ok(header::parse(&octets[..length])?);
        }
    }
}

/// Waits until more has arrived.
fn wait(stream: &Socket, deadline: Instant, is_stopped: impl Fn() -> bool) -> Result<(), HeaderError> {
    loop {
        if is_stopped() {
            return Err(HeaderError::Stopped);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HeaderError::Late);
        }
        let step = Timespec::try_from(left.min(STEP)).map_err(|_| HeaderError::Late)?;
        match poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&step)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(_) => return Err(HeaderError::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 110\r\n";

    fn pair() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        proxy.set_nodelay(true).unwrap();
        (proxy, listener.accept().unwrap().0.into())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn what_follows_the_header_stays() {
        let (mut proxy, mut stream) = pair();
        proxy.write_all(&[LINE, b"CAPA\r\n"].concat()).unwrap();
        assert!(matches!(read_header(&stream, soon(), || false), Ok(Header::Client { .. })));
        let mut rest = [0; 6];
        stream.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"CAPA\r\n");
    }

    #[test]
    fn a_header_may_come_octet_by_octet() {
        let (mut proxy, stream) = pair();
        let writer = thread::spawn(move || {
            LINE.iter().for_each(|octet| proxy.write_all(&[*octet]).unwrap());
            proxy
        });
        assert!(matches!(read_header(&stream, soon(), || false), Ok(Header::Client { .. })));
        writer.join().unwrap();
    }

    #[test]
    fn a_part_of_a_header_is_not_enough() {
        let (mut proxy, stream) = pair();
        proxy.write_all(&LINE[..20]).unwrap();
        let now = Instant::now();
        assert_eq!(read_header(&stream, now, || false), Err(HeaderError::Late));
        assert_eq!(read_header(&stream, soon(), || true), Err(HeaderError::Stopped));
        proxy.shutdown(Shutdown::Both).unwrap();
        assert_eq!(read_header(&stream, soon(), || false), Err(HeaderError::Closed));
    }

    #[test]
    fn other_octets_are_not_taken() {
        let (mut proxy, stream) = pair();
        proxy.write_all(b"USER ana\r\n").unwrap();
        assert_eq!(read_header(&stream, soon(), || false), Err(HeaderError::Wrong(NotAHeader::Other)));
    }
}
