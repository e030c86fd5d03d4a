//! The server's side of SASL exchanges (RFC 4422): octets in, what to do next out.
//!
//! PLAIN is RFC 4616, SCRAM-SHA-256 RFC 5802 and RFC 7677, without channel binding. How they travel in POP3 is RFC 5034's.

use std::fmt;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};

use super::users::{Denied, Users};
use super::{UserName, random};

/// A response's most octets with its CRLF: PLAIN's three parts of 255 octets in base64 are 1026, and SCRAM's messages are
/// no longer but for odd nonces.
pub const LINE_LIMIT: usize = 2048;

/// A mechanism that the server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password.
    Plain,
    /// A proof that the password is known, of both sides.
    ScramSha256,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Plain, Self::ScramSha256];

    /// The mechanism of a name, in any letter case.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| name.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A response as it stands in a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Response {
    /// Its octets.
    Octets(Vec<u8>),
    /// `*`: the client wants no more of it.
    Cancel,
    /// No base64.
    Malformed,
}

impl Response {
    /// Reads a line of an exchange.
    #[must_use]
    pub fn parse(line: &[u8]) -> Self {
        if line == b"*" {
            return Self::Cancel;
        }
        BASE64.decode(line).map_or(Self::Malformed, Self::Octets)
    }

    /// Reads the initial response on the command line, where `=` is an empty one.
    #[must_use]
    pub fn parse_initial(argument: &[u8]) -> Self {
        if argument == b"=" { Self::Octets(Vec::new()) } else { Self::parse(argument) }
    }
}

/// A challenge as it stands in a line.
#[must_use]
pub fn encode(challenge: &[u8]) -> String {
    BASE64.encode(challenge)
}

/// What the server does next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Sends this, and continues with the response.
    Challenge(Vec<u8>, Exchange<'a>),
    /// Logs the client in, or not, who says to be this.
    Proven(Vec<u8>, Result<UserName, Denied>),
    /// Gives up: what came is not of the mechanism.
    Malformed,
}

/// An exchange that waits for a response.
#[derive(Debug)]
pub struct Exchange<'a> {
    users: &'a Users,
    state: State,
}

#[derive(Debug)]
enum State {
    Plain,
    ScramFirst,
    ScramFinal(ScramExchange),
    /// The server has proven itself, and the client has to agree.
    ScramEnd {
        name: Vec<u8>,
        user: UserName,
    },
}

/// What the two first messages have settled.
#[derive(Debug)]
struct ScramExchange {
    name: Vec<u8>,
    nonce: String,
    /// The base64 of the client's header, which it has to repeat.
    header: String,
    /// Both first messages, as the proof takes them in.
    messages: String,
}

impl<'a> Exchange<'a> {
    /// The client speaks first in both mechanisms.
    #[must_use]
    pub fn new(mechanism: Mechanism, users: &'a Users) -> Self {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::ScramSha256 => State::ScramFirst,
        };
        Self { users, state }
    }

    /// Takes a response in.
    #[must_use]
    pub fn respond(self, response: &[u8]) -> Step<'a> {
        let next = match self.state {
            State::Plain => plain(self.users, response),
            State::ScramFirst => self.scram_first(response),
            State::ScramFinal(exchange) => exchange.end(self.users, response),
            State::ScramEnd { name, user } => response.is_empty().then_some(Step::Proven(name, Ok(user))),
        };
        next.unwrap_or(Step::Malformed)
    }

    /// `n,,n=NAME,r=NONCE` is answered by `r=NONCE…,s=SALT,i=ITERATIONS`.
    fn scram_first(self, response: &[u8]) -> Option<Step<'a>> {
        let message = std::str::from_utf8(response).ok()?;
        let (binding, rest) = message.split_once(',')?;
        let (authzid, bare) = rest.split_once(',')?;
        // y: the client could bind channels and has seen that we cannot. p= needs it.
        if !matches!(binding, "n" | "y") {
            return None;
        }
        let mut fields = bare.split(',');
        let name = scram_name(fields.next()?.strip_prefix("n=")?)?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        let printable = |c: char| c.is_ascii_graphic() && c != ',';
        if nonce.is_empty() || !nonce.chars().all(printable) {
            return None;
        }
        // To act as somebody else is nobody's right here.
        if !authzid.is_empty() && scram_name(authzid.strip_prefix("a=")?)? != name {
            return Some(Step::Proven(name.into_bytes(), Err(Denied::Credentials)));
        }
        let (salt, iterations) = self.users.scram_parameters(name.as_bytes());
        let nonce = format!("{nonce}{}", BASE64.encode(random::<18>()));
        let challenge = format!("r={nonce},s={},i={iterations}", BASE64.encode(salt));
        let exchange = ScramExchange {
            name: name.into_bytes(),
            header: BASE64.encode(format!("{binding},{authzid},")),
            messages: format!("{bare},{challenge}"),
            nonce,
        };
        Some(Step::Challenge(challenge.into_bytes(), Self { state: State::ScramFinal(exchange), ..self }))
    }
}

/// `[AUTHZID] NUL NAME NUL PASSWORD`
fn plain<'a>(users: &Users, response: &[u8]) -> Option<Step<'a>> {
    let parts: Vec<&[u8]> = response.split(|&octet| octet == 0).collect();
    let [authzid, name, password] = parts[..] else { return None };
    if name.is_empty() || password.is_empty() {
        return None;
    }
    // To act as somebody else is nobody's right here.
    let himself = authzid.is_empty() || authzid == name;
    let proven = if himself { users.authenticate(name, password) } else { Err(Denied::Credentials) };
    Some(Step::Proven(name.to_owned(), proven))
}

impl ScramExchange {
    /// `c=HEADER,r=NONCE,p=PROOF` is answered by `v=SIGNATURE`.
    fn end<'a>(self, users: &'a Users, response: &[u8]) -> Option<Step<'a>> {
        let message = std::str::from_utf8(response).ok()?;
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let mut fields = without_proof.split(',');
        let (header, nonce) = (fields.next()?.strip_prefix("c=")?, fields.next()?.strip_prefix("r=")?);
        let proof = BASE64.decode(proof).ok()?;
        if (header, nonce) != (&self.header, &self.nonce) {
            return None;
        }
        let exchange = format!("{},{without_proof}", self.messages);
        Some(match users.authenticate_scram(&self.name, exchange.as_bytes(), &proof) {
            Ok((user, signature)) => {
                let challenge = format!("v={}", BASE64.encode(signature));
                let state = State::ScramEnd { name: self.name, user };
                Step::Challenge(challenge.into_bytes(), Exchange { users, state })
            }
            Err(denied) => Step::Proven(self.name, Err(denied)),
        })
    }
}

/// A name as SCRAM writes it, `=2C` for a comma and `=3D` for `=`, prepared by SASLprep where that is possible.
fn scram_name(written: &str) -> Option<String> {
    let mut pieces = written.split('=');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let (escaped, rest) = piece.split_at_checked(2)?;
        name.push(match escaped {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        name.push_str(rest);
    }
    if name.is_empty() {
        return None;
    }
    Some(stringprep::saslprep(&name).map(|prepared| prepared.into_owned()).unwrap_or(name))
}
