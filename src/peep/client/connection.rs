//! A connection to a server that has accepted our login: one question, one answer.

use std::io::{self, BufReader, ErrorKind, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::output::bare;
use super::{Failure, Options};
use crate::peep::{Command, Reply, UnreadableReply};

/// A logged-in connection.
pub(super) struct Connection {
    /// The server's name for messages.
    server: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects and logs in.
    pub(super) fn open(options: &Options) -> Result<Self, Failure> {
        let login = options.login()?;
        let host = without_brackets(&options.address);
        let shown = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let server = format!("{shown}:{}", options.port);
        let mut connection = match connect((host, options.port), options.patience()) {
            Ok(stream) => Self { server, stream: BufReader::new(stream) },
            Err(error) => return Err(Failure::Unreachable(server, error)),
        };
        match connection.call(&login)? {
            Reply::Done => Ok(connection),
            Reply::Error(code) => Err(Failure::Refused(connection.server, code)),
            // Something else's greeting, say a POP3 server's.
            greeting => {
                Err(connection.no_answer(UnreadableReply::Nonsense(format!("+{}", bare(&greeting).trim_end()))))
            }
        }
    }

    /// Sends a command and waits for its answer; how long the server may be silent is the stream's time-out.
    pub(super) fn call(&mut self, command: &Command) -> Result<Reply, Failure> {
        let line = format!("{command}\r\n");
        let written = self.stream.get_ref().write_all(line.as_bytes()).map_err(UnreadableReply::Failed);
        written
            .and_then(|()| Reply::read(&mut self.stream, command.answers_lines()))
            .map_err(|error| self.no_answer(error))
    }

    fn no_answer(&self, error: UnreadableReply) -> Failure {
        Failure::NoAnswer(self.server.clone(), error)
    }
}

/// An IPv6 address as a URL would write it is welcome too.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Tries each address in turn; the last one's error stands for all.
fn connect(addresses: impl ToSocketAddrs, patience: Duration) -> io::Result<TcpStream> {
    let mut connected = Err(io::Error::new(ErrorKind::NotFound, "the name has no address"));
    for address in addresses.to_socket_addrs()? {
        connected = TcpStream::connect_timeout(&address, patience);
        if connected.is_ok() {
            break;
        }
    }
    let stream = connected?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    #[test]
    fn every_address_is_tried() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listening = listener.local_addr().unwrap();
        // Bound but not listening: the port is ours and refuses.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let refusing = socket.local_addr().unwrap().as_socket().unwrap();

        let patience = Duration::from_secs(10);
        for addresses in [[refusing, listening], [listening, refusing]] {
            assert_eq!(connect(&addresses[..], patience).unwrap().peer_addr().unwrap(), listening);
        }
        let error = connect(&[refusing, refusing][..], patience).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(connect(&[][..], patience).is_err());
    }

    #[test]
    fn brackets_come_in_pairs() {
        for (host, bare) in [("[::1]", "::1"), ("::1", "::1"), ("localhost", "localhost"), ("[::1", "[::1")] {
            assert_eq!(without_brackets(host), bare);
        }
    }
}
