//! A client for POP3 and PEEP.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, HandshakeKind, StreamOwned};
use socket2::SockRef;

use super::{Certificate, PATIENCE};

/// A connection with or without TLS.
enum Stream {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(socket) => socket,
            Self::Tls(stream) => stream.get_ref(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.write(octets),
            Self::Tls(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A client that sends and receives lines, for both protocols. A single read or write waits for at most [`PATIENCE`].
pub(crate) struct Client {
    stream: BufReader<Stream>,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, PATIENCE)?)
    }

    /// Makes a client from an open connection.
    pub(crate) fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(Stream::Clear(stream)) })
    }

    /// Starts TLS. Fails with rustls's error if `trusted` does not cover the server's certificate.
    pub(crate) fn try_tls(self, trusted: &Arc<rustls::ClientConfig>) -> io::Result<Self> {
        assert!(self.stream.buffer().is_empty(), "the server has sent something before the handshake");
        let Stream::Clear(mut socket) = self.stream.into_inner() else { panic!("TLS has already started") };
        let name = ServerName::from(socket.peer_addr()?.ip());
        let mut connection = ClientConnection::new(Arc::clone(trusted), name).unwrap();
        connection.complete_io(&mut socket)?;
        Ok(Self { stream: BufReader::new(Stream::Tls(Box::new(StreamOwned::new(connection, socket)))) })
    }

    /// Starts TLS, trusting `certificate` alone.
    #[track_caller]
    pub(crate) fn tls(self, certificate: &Certificate) -> Self {
        self.try_tls(&certificate.trusted()).unwrap()
    }

    /// The certificate that the server has presented, in DER.
    pub(crate) fn peer_certificate(&self) -> Vec<u8> {
        let Stream::Tls(stream) = self.stream.get_ref() else { panic!("the connection does not use TLS") };
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// What identifies the TLS connection, as `tls-exporter` of RFC 9266.
    pub(crate) fn channel_binding(&self) -> [u8; 32] {
        let Stream::Tls(stream) = self.stream.get_ref() else { panic!("the connection does not use TLS") };
        stream.conn.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[])).unwrap()
    }

    /// Returns true if the handshake has resumed an earlier TLS session.
    pub(crate) fn is_resumed(&self) -> bool {
        let Stream::Tls(stream) = self.stream.get_ref() else { return false };
        stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The socket below TLS, for writing from another thread or for setting options.
    pub(crate) fn socket(&self) -> &TcpStream {
        self.stream.get_ref().socket()
    }

    /// Sends these octets unchanged, in one write.
    pub(crate) fn try_write(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(octets.as_ref())?;
        self.stream.get_mut().flush()
    }

    /// Reads the next line and removes its CRLF. Returns `None` if the server has closed the connection, and an error
    /// for a line that ends in LF without CR.
    pub(crate) fn try_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && line.is_empty() => return Ok(None),
            result => result?,
        };
        if !line.ends_with(b"\r\n") {
            let what = format!("a line that does not end in CRLF: {}", line.escape_ascii());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        line.truncate(line.len() - 2);
        Ok(Some(line))
    }

    /// Sends these octets unchanged, in one write that has to succeed.
    #[track_caller]
    pub(crate) fn write(&mut self, octets: impl AsRef<[u8]>) {
        self.try_write(octets).unwrap();
    }

    /// Sends a command line.
    #[track_caller]
    pub(crate) fn send(&mut self, command: &str) {
        self.write(format!("{command}\r\n"));
    }

    /// Sends many command lines in one write.
    #[track_caller]
    pub(crate) fn send_all<'a>(&mut self, commands: impl IntoIterator<Item = &'a str>) {
        let lines: String = commands.into_iter().flat_map(|command| [command, "\r\n"]).collect();
        self.write(lines);
    }

    /// Reads the next line and removes its CRLF.
    #[track_caller]
    pub(crate) fn octets_of_line(&mut self) -> Vec<u8> {
        match self.try_line() {
            Ok(line) => line.expect("the server closed the connection instead of sending a line"),
            Err(error) => panic!("cannot read a line from the server: {error}"),
        }
    }

    /// Reads the next line as text.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        String::from_utf8_lossy(&self.octets_of_line()).into_owned()
    }

    /// Expects that the next line is exactly this.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// Expects a line whose first word is `status`, and returns the text after it.
    #[track_caller]
    fn expect_status(&mut self, status: &str) -> String {
        let line = self.line();
        match line.strip_prefix(status) {
            Some(rest) if rest.is_empty() || rest.starts_with(' ') => rest.trim_start().to_owned(),
            _ => panic!("expected {status}, got {line}"),
        }
    }

    /// Expects `+OK` and returns the text after it.
    #[track_caller]
    pub(crate) fn ok(&mut self) -> String {
        self.expect_status("+OK")
    }

    /// Expects `-ERR` and returns the text after it, including a response code.
    #[track_caller]
    pub(crate) fn err(&mut self) -> String {
        self.expect_status("-ERR")
    }

    /// Sends a command, expects `+OK` and returns the text after it.
    #[track_caller]
    pub(crate) fn call(&mut self, command: &str) -> String {
        self.send(command);
        self.ok()
    }

    /// Sends a command, expects `-ERR` and returns the text after it.
    #[track_caller]
    pub(crate) fn refused(&mut self, command: &str) -> String {
        self.send(command);
        self.err()
    }

    /// Reads the lines of a multi-line response after its status line. Removes byte-stuffing and the terminator.
    #[track_caller]
    pub(crate) fn multiline(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        loop {
            let line = self.octets_of_line();
            if line == b"." {
                return octets;
            }
            octets.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            octets.extend_from_slice(b"\r\n");
        }
    }

    /// Sends a command, expects a multi-line response and returns its octets after the status line.
    #[track_caller]
    pub(crate) fn fetch(&mut self, command: &str) -> Vec<u8> {
        self.call(command);
        self.multiline()
    }

    /// Sends a command, expects a multi-line response and returns its lines after the status line.
    #[track_caller]
    pub(crate) fn listing(&mut self, command: &str) -> Vec<String> {
        String::from_utf8(self.fetch(command)).unwrap().lines().map(str::to_owned).collect()
    }

    /// Logs in by USER and PASS.
    #[track_caller]
    pub(crate) fn login(&mut self, name: &str, password: &str) {
        self.call(&format!("USER {name}"));
        self.call(&format!("PASS {password}"));
    }

    /// Sends a PEEP query and returns its value, which follows the `+`.
    #[track_caller]
    pub(crate) fn value(&mut self, query: &str) -> String {
        self.send(query);
        let line = self.line();
        line.strip_prefix('+').unwrap_or_else(|| panic!("{query}: {line}")).to_owned()
    }

    /// Sends a PEEP query that is answered by a count and as many lines, and returns the lines.
    #[track_caller]
    pub(crate) fn values(&mut self, query: &str) -> Vec<String> {
        let count: usize = self.value(query).parse().unwrap();
        (0..count).map(|_| self.line()).collect()
    }

    /// Sends QUIT and waits until the server has closed the connection.
    #[track_caller]
    pub(crate) fn quit(mut self) {
        self.call("QUIT");
        self.closed();
    }

    /// Expects that the server closes the connection without sending anything more.
    #[track_caller]
    pub(crate) fn closed(&mut self) {
        match self.try_line() {
            Ok(None) => {}
            Ok(Some(line)) => panic!("expected the end of the connection, got the line {}", line.escape_ascii()),
            Err(error) => panic!("expected the end of the connection, got the error: {error}"),
        }
    }

    /// Reads some octets into `piece` and returns their number, which is 0 at the end of the connection.
    #[track_caller]
    pub(crate) fn read(&mut self, piece: &mut [u8]) -> usize {
        self.stream.read(piece).unwrap()
    }

    /// Reads everything that the server sends until it closes the connection.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        self.stream.read_to_end(&mut octets).unwrap();
        octets
    }

    /// Shuts down the writing side of the connection; the client can still read.
    pub(crate) fn finish_writing(&self) {
        self.socket().shutdown(Shutdown::Write).unwrap();
    }
}

/// Ends a client's connection by RST, as a crash of the client's host does.
pub(crate) fn reset(client: Client) {
    SockRef::from(client.socket()).set_linger(Some(Duration::ZERO)).unwrap();
}
