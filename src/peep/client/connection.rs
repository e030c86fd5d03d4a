//! A connection to a server that has accepted our login: one question, one answer.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::output::bare;
use super::{Failure, Options};
use crate::peep::{Command, Reply, UnreadableReply};

/// A logged-in connection.
pub(super) struct Connection {
    /// The server's name for messages.
    server: String,
    stream: BufReader<Box<dyn Stream>>,
}

/// A connection in clear or by TLS.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

impl Connection {
    /// Connects and logs in.
    pub(super) fn open(options: &Options) -> Result<Self, Failure> {
        let login = options.login()?;
        let host = without_brackets(&options.address);
        let shown = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let server = format!("{shown}:{}", options.port);
        let tls = if options.tls { Some(tls_for(host, options)?) } else { None };
        let connected = connect((host, options.port), options.patience());
        let socket = connected.map_err(|error| Failure::Unreachable(server.clone(), error))?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(socket),
            Some(tls) => Box::new(handshake(tls, socket).map_err(|error| Failure::NoTls(server.clone(), error))?),
        };
        let mut connection = Self { server, stream: BufReader::new(stream) };
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
        let stream = self.stream.get_mut();
        let written = stream.write_all(line.as_bytes()).and_then(|()| stream.flush());
        written
            .map_err(UnreadableReply::Failed)
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

/// TLS towards the server of this name, not yet begun.
fn tls_for(host: &str, options: &Options) -> Result<ClientConnection, Failure> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| Failure::Usage(format!("no certificate can be for the name {host:?}")))?;
    let config: ClientConfig = options.trust.config(default_provider()).map_err(Failure::Usage)?;
    ClientConnection::new(Arc::new(config), name).map_err(|error| Failure::Usage(error.to_string()))
}

fn handshake(mut tls: ClientConnection, mut socket: TcpStream) -> io::Result<impl Stream> {
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
