//! A logged-in connection to the server: one answer for each command.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::output::bare;
use super::{Failure, Options};
use crate::peep::{Answer, Command, UnreadableAnswer, read_line};

/// The lines of an answer that the server may take `--timeout` for, so that a long listing is not cut off.
const LINES_PER_TIMEOUT: u64 = 1000;

/// A logged-in connection.
pub(super) struct Connection {
    /// The server's name for messages.
    server: String,
    stream: BufReader<Box<dyn Stream>>,
    /// How long an answer may take, or [`LINES_PER_TIMEOUT`] lines of it.
    timeout: Duration,
    /// The lines of the present answer that have been read.
    lines: u64,
}

impl Connection {
    /// Connects and logs in.
    pub(super) fn open(options: &Options) -> Result<Self, Failure> {
        let login = options.login()?;
        let host = without_brackets(&options.address);
        let shown = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let server = format!("{shown}:{}", options.port);
        let tls = if options.tls { Some(tls_for(host, options)?) } else { None };
        let timeout = options.timeout();
        let connected = connect((host, options.port), timeout);
        let socket = connected.map_err(|error| Failure::Unreachable(server.clone(), error))?;
        let socket = Patient { socket, left: timeout };
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(socket),
            Some(tls) => Box::new(handshake(tls, socket).map_err(|error| Failure::NoTls(server.clone(), error))?),
        };
        let mut connection = Self { server, stream: BufReader::new(stream), timeout, lines: 0 };
        match connection.call(&login)? {
            Answer::Done => Ok(connection),
            Answer::Error(code) => Err(Failure::Refused(connection.server, code)),
            // The greeting of another kind of server, for example of a POP3 server.
            greeting => {
                Err(connection.no_answer(UnreadableAnswer::Nonsense(format!("+{}", bare(&greeting).trim_end()))))
            }
        }
    }

    /// Sends a command and reads the first line of its answer.
    pub(super) fn call(&mut self, command: &Command) -> Result<Answer, Failure> {
        self.lines = 0;
        let line = format!("{command}\r\n");
        let stream = self.stream.get_mut();
        stream.allow(self.timeout);
        let written = stream.write_all(line.as_bytes()).and_then(|()| stream.flush());
        written
            .map_err(|error| match error.kind() {
                ErrorKind::TimedOut => UnreadableAnswer::Silent,
                _ => UnreadableAnswer::Failed(error),
            })
            .and_then(|()| Answer::read(&mut self.stream, command.answers_lines()))
            .map_err(|error| self.no_answer(error))
    }

    /// Reads the next line of an answer that has several.
    pub(super) fn line(&mut self) -> Result<String, Failure> {
        self.lines += 1;
        if self.lines.is_multiple_of(LINES_PER_TIMEOUT) {
            self.stream.get_mut().allow(self.timeout);
        }
        read_line(&mut self.stream).map_err(|error| match error {
            UnreadableAnswer::Silent => self.no_answer(UnreadableAnswer::Unfinished),
            error => self.no_answer(error),
        })
    }

    /// Returns true if reading the next line has to ask the network for it.
    pub(super) fn is_drained(&self) -> bool {
        self.stream.buffer().is_empty()
    }

    fn no_answer(&self, error: UnreadableAnswer) -> Failure {
        Failure::NoAnswer(self.server.clone(), error)
    }
}

/// A connection in clear or by TLS.
trait Stream: Read + Write {
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
    socket: TcpStream,
    left: Duration,
}

impl Patient {
    /// Makes one call that may wait as long as is left, and takes from that what the call took.
    fn spend(&mut self, call: impl FnOnce(&TcpStream, Duration) -> io::Result<usize>) -> io::Result<usize> {
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

/// Removes the brackets of an IPv6 address that is written as in a URL.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
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
    use std::cell::Cell;
    use std::io::Cursor;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::rc::Rc;

    #[test]
    fn every_address_is_tried() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listening = listener.local_addr().unwrap();
        // The port is bound but not listened on, so that it refuses connections.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
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

    /// A server that has sent everything already. It counts how often it is given time.
    struct Sent(Cursor<Vec<u8>>, Rc<Cell<u32>>);

    impl Read for Sent {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Sent {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Sent {
        fn allow(&mut self, _: Duration) {
            self.1.set(self.1.get() + 1);
        }
    }

    #[test]
    fn a_long_listing_gets_more_time_every_thousand_lines() {
        let allowed = Rc::new(Cell::new(0));
        let sent =
            Sent(Cursor::new(["+2500\r\n", &"u\r\n".repeat(2500), "+7\r\n"].concat().into()), Rc::clone(&allowed));
        let stream: Box<dyn Stream> = Box::new(sent);
        let timeout = Duration::from_secs(10);
        let mut server = Connection { server: "s".into(), stream: BufReader::new(stream), timeout, lines: 0 };
        assert_eq!(server.call(&Command::Users).unwrap(), Answer::Lines(2500));
        assert!((0..2500).all(|_| server.line().unwrap() == "u"));
        assert_eq!(allowed.get(), 3);
        assert_eq!(server.call(&Command::Timeout).unwrap(), Answer::Value("7".into()));
        assert_eq!(allowed.get(), 4);
    }

    #[test]
    fn brackets_come_in_pairs() {
        for (host, bare) in [("[::1]", "::1"), ("::1", "::1"), ("localhost", "localhost"), ("[::1", "[::1")] {
            assert_eq!(without_brackets(host), bare);
        }
    }
}
