//! The messages of SCRAM-SHA-256 (RFC 5802, RFC 7677): what the client sends is read, and the server's answers are made.

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};

use super::{Binding, Exchange, State, Step};
use crate::auth::users::ScramLogin;
use crate::auth::{Denied, Hidden, Users, random};

/// What the client's first message leads to.
pub(super) enum First {
    /// The server's first message is the next challenge.
    Challenge(Vec<u8>, Exchanged),
    /// The client of this name wants to act as another user.
    OtherUser(Vec<u8>),
    /// [`super::Failure::Downgraded`]
    Downgraded,
}

/// What is known after the first message of each side.
#[derive(Debug)]
pub(super) struct Exchanged {
    name: Vec<u8>,
    login: ScramLogin,
    nonce: String,
    /// The client's header and the channel's binding in base64. The client has to repeat it.
    header: String,
    /// Both first messages, which are part of what the proof signs.
    messages: String,
}

/// Answers the client's first message, `n,,n=NAME,r=NONCE`, by `r=NONCE…,s=SALT,i=ITERATIONS`. `plus` is true if the client
/// has selected channel binding. Returns `None` if the message is malformed.
pub(super) fn first(users: &Users, plus: bool, binding: Option<&Binding>, message: &[u8]) -> Option<First> {
    let message = std::str::from_utf8(message).ok()?;
    let (flag, rest) = message.split_once(',')?;
    let (authzid, bare) = rest.split_once(',')?;
    // RFC 5802 section 6: `p=` selects a binding. `y` means that the client supports one and saw that the server does
    // not.
    let binding = match (flag, plus, binding) {
        ("p=tls-exporter", true, Some(binding)) => &binding[..],
        ("n", false, _) | ("y", false, None) => &[],
        ("y", false, Some(_)) => return Some(First::Downgraded),
        _ => return None,
    };
    let mut fields = bare.split(',');
    let name = decode_name(fields.next()?.strip_prefix("n=")?)?;
    let nonce = fields.next()?.strip_prefix("r=")?;
    let printable = |c: char| c.is_ascii_graphic() && c != ',';
    if nonce.is_empty() || !nonce.chars().all(printable) {
        return None;
    }
    if !authzid.is_empty() && decode_name(authzid.strip_prefix("a=")?)? != name {
        return Some(First::OtherUser(name.into_bytes()));
    }
    let login = users.begin_scram(name.as_bytes());
    let nonce = format!("{nonce}{}", BASE64.encode(random::<18>()));
    let challenge = format!("r={nonce},s={},i={}", BASE64.encode(&login.salt), login.iterations);
    let exchanged = Exchanged {
        name: name.into_bytes(),
        login,
        header: BASE64.encode([flag.as_bytes(), b",", authzid.as_bytes(), b",", binding].concat()),
        messages: format!("{bare},{challenge}"),
        nonce,
    };
    Some(First::Challenge(challenge.into_bytes(), exchanged))
}

impl Exchanged {
    /// Reads the client's last message, `c=HEADER,r=NONCE,p=PROOF`. Returns `None` if it is malformed.
    pub(super) fn end<'a>(self, users: &'a Users, message: &[u8]) -> Option<Proof<'a>> {
        let message = std::str::from_utf8(message).ok()?;
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let mut fields = without_proof.split(',');
        let (header, nonce) = (fields.next()?.strip_prefix("c=")?, fields.next()?.strip_prefix("r=")?);
        let proof = BASE64.decode(proof).ok()?;
        if (header, nonce) != (&self.header, &self.nonce) {
            return None;
        }
        let exchange = format!("{},{without_proof}", self.messages);
        Some(Proof { users, name: self.name, login: self.login, exchange, proof: Hidden(proof) })
    }
}

/// A client's proof in SCRAM that has not been verified yet.
#[derive(Debug)]
pub struct Proof<'a> {
    users: &'a Users,
    /// The name that the client gave.
    pub name: Vec<u8>,
    login: ScramLogin,
    /// All messages of the exchange so far.
    exchange: String,
    proof: Hidden<Vec<u8>>,
}

impl<'a> Proof<'a> {
    /// Verifies the proof. A right one is answered by `v=SIGNATURE`.
    ///
    /// # Errors
    /// [`Denied`]
    pub fn verify(self) -> Result<Step<'a>, Denied> {
        let (login, signature) = self.users.end_scram(self.login, self.exchange.as_bytes(), &self.proof.0)?;
        let challenge = format!("v={}", BASE64.encode(signature));
        let state = State::ScramEnd(login);
        Ok(Step::Challenge(challenge.into_bytes(), Exchange { users: self.users, binding: None, state }))
    }
}

/// Decodes a name as SCRAM writes it, with `=2C` for a comma and `=3D` for `=`, and prepares it by SASLprep if
/// possible.
fn decode_name(written: &str) -> Option<String> {
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
