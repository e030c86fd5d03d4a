//! The server's side of SASL exchanges (RFC 4422). It takes the client's responses and tells the session what to do
//! next; it does no I/O.
//!
//! The mechanisms are PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login), and SCRAM-SHA-256 without and with channel
//! binding (RFC 5802, RFC 7677, RFC 9266). RFC 5034 tells how an exchange is transmitted in POP3.

use std::fmt;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};

use super::{Hidden, Login, Users};

mod scram;

pub use scram::Proof;

/// The most octets of a response's line, with its CRLF. A response of PLAIN has up to 1,026 octets (three parts of 255
/// octets in base64), and SCRAM's messages are shorter unless their nonces are unusually long.
pub const LINE_LIMIT: usize = 2048;

/// A mechanism that the server supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// The client sends name and password.
    Plain,
    /// The same, in two responses. Some old mail programs have nothing else.
    Login,
    /// Client and server prove to each other that they know the password, or its keys.
    ScramSha256,
    /// The same, and that their TLS connection is one and the same, with no one in between.
    ScramSha256Plus,
}

impl Mechanism {
    /// All of them, in the order in which they are announced.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Login, Self::ScramSha256, Self::ScramSha256Plus];

    /// Returns the mechanism with this name, in any letter case.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| name.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    }

    /// Returns true if the client sends the password itself, which others on the network must not read.
    #[must_use]
    pub fn sends_password(self) -> bool {
        matches!(self, Self::Plain | Self::Login)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Encodes a challenge for a line of the protocol.
#[must_use]
pub fn encode(challenge: &[u8]) -> String {
    BASE64.encode(challenge)
}

/// What the session has to do next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Send this challenge, and continue the exchange with the response.
    Challenge(Vec<u8>, Exchange<'a>),
    /// Check this name and this password, and log the client in if they are right.
    Password(Vec<u8>, Hidden<Vec<u8>>),
    /// Verify this proof, and continue with the result.
    Proof(Proof<'a>),
    /// Log the client in.
    Proven(Login),
    /// Refuse the login. The client gave this name but asked to act as another user, which no user may.
    Denied(Vec<u8>),
    /// End the exchange with an error.
    Failed(Failure),
}

/// Why an exchange fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The client has cancelled it.
    Cancelled,
    /// The response is not base64.
    NotBase64,
    /// The response does not have the mechanism's format.
    Malformed,
    /// The client believes that the server has no channel binding. Someone has removed it from the announcement.
    Downgraded,
    /// The line is longer than [`LINE_LIMIT`].
    TooLong,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "the exchange is cancelled",
            Self::NotBase64 => "the response is not base64",
            Self::Malformed => "the response does not have the mechanism's format",
            Self::Downgraded => "the client was not told of SCRAM-SHA-256-PLUS, which the server announced",
            Self::TooLong => "the response is too long",
        })
    }
}

/// The octets that identify a TLS connection: `tls-exporter` of RFC 9266.
pub type Binding = [u8; 32];

/// An exchange that waits for the client's next response.
#[derive(Debug)]
pub struct Exchange<'a> {
    users: &'a Users,
    /// What identifies the TLS connection, if the server has announced channel binding.
    binding: Option<Binding>,
    state: State,
}

#[derive(Debug)]
enum State {
    Plain,
    LoginName,
    /// The client has given this name and has to send the password.
    LoginPassword(Vec<u8>),
    /// True if the client has selected channel binding.
    ScramFirst(bool),
    ScramFinal(scram::Exchanged),
    /// The server has sent its signature, and the client has to confirm it with an empty response.
    ScramEnd(Login),
}

impl<'a> Exchange<'a> {
    /// Begins an exchange.
    #[must_use]
    pub fn new(mechanism: Mechanism, users: &'a Users) -> Self {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Login => State::LoginName,
            Mechanism::ScramSha256 => State::ScramFirst(false),
            Mechanism::ScramSha256Plus => State::ScramFirst(true),
        };
        Self { users, binding: None, state }
    }

    /// Adds what identifies the TLS connection, if channel binding was announced on it.
    #[must_use]
    pub fn bound_to(self, binding: Option<Binding>) -> Self {
        Self { binding, ..self }
    }

    /// Asks for the first response, if the AUTH command has none. The challenge is empty unless the mechanism has a
    /// question.
    #[must_use]
    pub fn ask(self) -> Step<'a> {
        let question: &[u8] = if matches!(self.state, State::LoginName) { b"Username:" } else { b"" };
        Step::Challenge(question.to_owned(), self)
    }

    /// Continues with a response, given as the line that the client sent.
    #[must_use]
    pub fn respond(self, line: &[u8]) -> Step<'a> {
        match BASE64.decode(line) {
            Ok(response) => self.take(&response),
            Err(_) if line == b"*" => Step::Failed(Failure::Cancelled),
            Err(_) => Step::Failed(Failure::NotBase64),
        }
    }

    /// Continues with the response that stands in the AUTH command itself, where `=` means an empty response.
    #[must_use]
    pub fn respond_initially(self, argument: &[u8]) -> Step<'a> {
        if argument == b"=" { self.take(&[]) } else { self.respond(argument) }
    }

    fn take(self, response: &[u8]) -> Step<'a> {
        let next = match self.state {
            State::Plain => plain(response),
            State::LoginName => self.login_name(response),
            State::LoginPassword(name) => login_text(response).map(|it| Step::Password(name, Hidden(it))),
            State::ScramFirst(plus) => self.scram_first(plus, response),
            State::ScramFinal(exchange) => exchange.end(self.users, response).map(Step::Proof),
            State::ScramEnd(login) => response.is_empty().then_some(Step::Proven(login)),
        };
        next.unwrap_or(Step::Failed(Failure::Malformed))
    }

    fn scram_first(self, plus: bool, response: &[u8]) -> Option<Step<'a>> {
        Some(match scram::first(self.users, plus, self.binding.as_ref(), response)? {
            scram::First::Challenge(challenge, exchanged) => {
                Step::Challenge(challenge, Self { state: State::ScramFinal(exchanged), ..self })
            }
            scram::First::OtherUser(name) => Step::Denied(name),
            scram::First::Downgraded => Step::Failed(Failure::Downgraded),
        })
    }

    /// A user name is answered by the question for the password.
    fn login_name(self, response: &[u8]) -> Option<Step<'a>> {
        let state = State::LoginPassword(login_text(response)?);
        Some(Step::Challenge(b"Password:".to_vec(), Self { state, ..self }))
    }
}

/// `[AUTHZID] NUL NAME NUL PASSWORD`
fn plain<'a>(response: &[u8]) -> Option<Step<'a>> {
    let parts: Vec<&[u8]> = response.split(|&octet| octet == 0).collect();
    let [authzid, name, password] = parts[..] else { return None };
    if name.is_empty() || password.is_empty() {
        return None;
    }
    Some(if authzid.is_empty() || authzid == name {
        Step::Password(name.to_owned(), Hidden(password.to_owned()))
    } else {
        Step::Denied(name.to_owned())
    })
}

/// A name or a password of LOGIN. It may be neither empty nor have a NUL, as in PLAIN.
fn login_text(response: &[u8]) -> Option<Vec<u8>> {
    (!response.is_empty() && !response.contains(&0)).then(|| response.to_owned())
}

#[cfg(test)]
mod tests;
