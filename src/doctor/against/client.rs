//! A POP3 client that lists a user's messages and changes nothing: CAPA, login, UIDL, LIST, QUIT.
//!
//! The server may be hostile or broken. Lines, listings and times are bounded, and what it says is shown only by
//! [`crate::printable`].

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::{OldMessage, OldServer, Tls};
use crate::dial::{Patient, Stream};
use crate::trust;
use crate::wire::{Line, Lines};

/// The lines of a listing that the server may take `--against-timeout` for, so that a long one is not cut off.
const LINES_PER_TIMEOUT: u64 = 1000;

/// The longest line of an answer, its line end included (RFC 1939 section 3, RFC 2449 section 4).
const LONGEST_LINE: usize = 512;

/// The most messages of a maildrop that are compared.
const MOST_MESSAGES: u64 = 2_000_000;

/// The most lines of CAPA that are read.
const MOST_CAPABILITIES: u64 = 100;

/// Why there is no list, as the end of a sentence about the server.
type Failed<T> = Result<T, String>;

/// Lists a user's messages.
pub(super) fn list(server: &OldServer, name: &str, password: &str) -> Failed<Vec<OldMessage>> {
    let unreachable = |error: io::Error| format!("it cannot be reached: {}", explained(&error));
    let socket = Patient::connect((server.host.as_str(), server.port), server.timeout).map_err(unreachable)?;
    let is_here = socket.peer().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    match server.tls.unwrap_or(if is_here { Tls::None } else { Tls::Stls }) {
        Tls::None => {
            let mut client = Client::new(socket, server.timeout);
            client.status()?;
            client.session(name, password)
        }
        Tls::Pop3s => {
            let mut client = Client::new(encrypted(server, socket)?, server.timeout);
            client.status()?;
            client.session(name, password)
        }
        Tls::Stls => {
            let mut client = Client::new(socket, server.timeout);
            client.status()?;
            client
                .call("STLS")
                .map_err(|why| format!("{why} (--against-tls none would send the password in clear)"))?;
            if !client.lines.is_empty() {
                return Err("it has sent something in clear behind its answer to STLS".to_owned());
            }
            Client::new(encrypted(server, client.stream)?, server.timeout).session(name, password)
        }
    }
}

fn encrypted(server: &OldServer, socket: Patient) -> Failed<impl Stream + use<>> {
    let name =
        ServerName::try_from(server.host.clone()).map_err(|_| "no certificate can be for its name".to_owned())?;
    let config = server.config.as_ref().ok_or_else(|| "TLS is not set up".to_owned())?;
    let tls = ClientConnection::new(Arc::clone(config), name).map_err(|error| error.to_string())?;
    socket.handshake(tls).map_err(|error| format!("TLS with it failed: {}", explained(&error)))
}

fn explained(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut => "it did not answer in time".to_owned(),
        ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        _ => trust::explain(error).unwrap_or_else(|| error.to_string()),
    }
}

/// A connection to the server.
struct Client<S> {
    stream: S,
    lines: Lines,
    timeout: Duration,
}

impl<S: Stream> Client<S> {
    fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, lines: Lines::new(LONGEST_LINE), timeout }
    }

    /// Logs in, lists the messages and says QUIT.
    fn session(&mut self, name: &str, password: &str) -> Failed<Vec<OldMessage>> {
        self.log_in(name, password)?;
        let ids = self.listing("UIDL", |rest| Some(rest.to_vec()))?;
        let sizes = self.listing("LIST", |rest| std::str::from_utf8(rest).ok()?.split(' ').next()?.parse().ok())?;
        // Nothing was marked as deleted, so the answer does not matter.
        let _ = self.call("QUIT");
        let sizes: HashMap<u64, u64> = sizes.into_iter().collect();
        let one = |(number, unique_id)| {
            let octets =
                sizes.get(&number).copied().ok_or_else(|| format!("LIST does not have message {number} of UIDL"))?;
            Ok(OldMessage { number, unique_id, octets })
        };
        if ids.len() != sizes.len() {
            return Err(format!("UIDL has {} messages and LIST {}", ids.len(), sizes.len()));
        }
        ids.into_iter().map(one).collect()
    }

    fn log_in(&mut self, name: &str, password: &str) -> Failed<()> {
        // A server without CAPA knows USER and PASS.
        let capabilities = self.capabilities()?;
        let has = |wanted: &str| capabilities.iter().any(|line| line.split(' ').next() == Some(wanted));
        let is_sasl = |line: &String| line.starts_with("SASL ") && line.split(' ').any(|word| word == "PLAIN");
        let refused = |why| format!("the login failed: {why}");
        if !capabilities.is_empty() && !has("USER") && capabilities.iter().any(is_sasl) {
            let message = STANDARD.encode(format!("\0{name}\0{password}"));
            self.call(&format!("AUTH PLAIN {message}")).map_err(refused)?;
        } else {
            self.call(&format!("USER {name}")).map_err(refused)?;
            self.call(&format!("PASS {password}")).map_err(refused)?;
        }
        Ok(())
    }

    /// The capabilities in capital letters; none if the server does not know the command.
    fn capabilities(&mut self) -> Failed<Vec<String>> {
        self.send("CAPA")?;
        if self.answer()?.is_err() {
            return Ok(Vec::new());
        }
        let mut capabilities = Vec::new();
        self.lines_of("CAPA", MOST_CAPABILITIES, |line| {
            capabilities.push(String::from_utf8_lossy(line).to_ascii_uppercase());
            Some(())
        })?;
        Ok(capabilities)
    }

    /// Sends a command whose answer has a line for each message: its number and what `parse` makes of the rest.
    fn listing<T>(&mut self, command: &str, parse: impl Fn(&[u8]) -> Option<T>) -> Failed<Vec<(u64, T)>> {
        self.call(command)?;
        let mut listing = Vec::new();
        self.lines_of(command, MOST_MESSAGES, |line| {
            let space = memchr::memchr(b' ', line)?;
            let number = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
            listing.push((number, parse(line[space..].trim_ascii())?));
            Some(())
        })?;
        Ok(listing)
    }

    /// Reads the lines of an answer up to the termination octet.
    fn lines_of(&mut self, command: &str, most: u64, mut take: impl FnMut(&[u8]) -> Option<()>) -> Failed<()> {
        for number in 0..=most {
            if number % LINES_PER_TIMEOUT == 0 {
                self.stream.allow(self.timeout);
            }
            let line = self.line()?;
            if line == b"." {
                return Ok(());
            }
            let line = line.strip_prefix(b".").unwrap_or(&line);
            take(line)
                .ok_or_else(|| format!("{command} has a line that is none: {}", String::from_utf8_lossy(line)))?;
        }
        Err(format!("{command} has more than {most} lines"))
    }

    /// Sends a command and expects success.
    fn call(&mut self, command: &str) -> Failed<()> {
        self.send(command)?;
        self.status()
    }

    fn send(&mut self, command: &str) -> Failed<()> {
        self.stream.allow(self.timeout);
        let line = format!("{command}\r\n");
        let sent = self.stream.write_all(line.as_bytes()).and_then(|()| self.stream.flush());
        sent.map_err(|error| explained(&error))
    }

    /// Reads an answer that has to be a success.
    fn status(&mut self) -> Failed<()> {
        self.answer()?.map_err(|text| format!("it answered {text}"))
    }

    /// Reads the first line of an answer. Returns it as an error if it is one.
    fn answer(&mut self) -> Failed<Result<(), String>> {
        let line = self.line()?;
        if line == b"+OK" || line.starts_with(b"+OK ") {
            return Ok(Ok(()));
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        if line.starts_with(b"-ERR") { Ok(Err(text)) } else { Err(format!("it does not speak POP3: {text}")) }
    }

    fn line(&mut self) -> Failed<Vec<u8>> {
        loop {
            match self.lines.next() {
                Some(Line::Complete(line)) => return Ok(line.to_vec()),
                Some(Line::TooLong) => return Err(format!("it sent a line of more than {LONGEST_LINE} octets")),
                None => {}
            }
            match self.lines.fill(&mut self.stream) {
                Ok(0) => return Err(explained(&ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(explained(&error)),
            }
        }
    }
}
