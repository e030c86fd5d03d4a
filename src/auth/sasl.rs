//! The server's side of SASL exchanges (RFC 4422). It takes the client's responses and tells the session what to do
//! next; it does no I/O.
//!
//! The mechanisms are PLAIN (RFC 4616) and SCRAM-SHA-256 without channel binding (RFC 5802, RFC 7677). RFC 5034 tells
//! how an exchange is transmitted in POP3.

use std::fmt;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};

use super::{Denied, Hidden, Login, Users, random};

/// The most octets of a response's line, with its CRLF. A response of PLAIN has up to 1,026 octets (three parts of 255
/// octets in base64), and SCRAM's messages are shorter unless their nonces are unusually long.
pub const LINE_LIMIT: usize = 2048;

/// A mechanism that the server supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// The client sends name and password.
    Plain,
    /// Client and server prove to each other that they know the password, or its keys.
    ScramSha256,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Plain, Self::ScramSha256];

    /// Returns the mechanism with this name, in any letter case.
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
    /// The line is longer than [`LINE_LIMIT`].
    TooLong,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "the exchange is cancelled",
            Self::NotBase64 => "the response is not base64",
            Self::Malformed => "the response does not have the mechanism's format",
            Self::TooLong => "the response is too long",
        })
    }
}

/// An exchange that waits for the client's next response.
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
    /// The server has sent its signature, and the client has to confirm it with an empty response.
    ScramEnd(Login),
}

/// What is known after the first message of each side.
#[derive(Debug)]
struct ScramExchange {
    name: Vec<u8>,
    nonce: String,
    /// The client's header in base64. The client has to repeat it.
    header: String,
    /// Both first messages, which are part of what the proof signs.
    messages: String,
}

impl<'a> Exchange<'a> {
    /// Begins an exchange. In both mechanisms the client sends the first message.
    #[must_use]
    pub fn new(mechanism: Mechanism, users: &'a Users) -> Self {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::ScramSha256 => State::ScramFirst,
        };
        Self { users, state }
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
            State::ScramFirst => self.scram_first(response),
            State::ScramFinal(exchange) => exchange.end(self.users, response),
            State::ScramEnd(login) => response.is_empty().then_some(Step::Proven(login)),
        };
        next.unwrap_or(Step::Failed(Failure::Malformed))
    }

    /// `n,,n=NAME,r=NONCE` is answered by `r=NONCE…,s=SALT,i=ITERATIONS`.
    fn scram_first(self, response: &[u8]) -> Option<Step<'a>> {
        let message = std::str::from_utf8(response).ok()?;
        let (binding, rest) = message.split_once(',')?;
        let (authzid, bare) = rest.split_once(',')?;
        // `y` means that the client supports channel binding and saw that the server does not. `p=` requires it.
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
        if !authzid.is_empty() && scram_name(authzid.strip_prefix("a=")?)? != name {
            return Some(Step::Denied(name.into_bytes()));
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

impl ScramExchange {
    /// `c=HEADER,r=NONCE,p=PROOF`
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
        Some(Step::Proof(Proof { users, name: self.name, exchange, proof: Hidden(proof) }))
    }
}

/// A client's proof in SCRAM that has not been verified yet.
#[derive(Debug)]
pub struct Proof<'a> {
    users: &'a Users,
    /// The name that the client gave.
    pub name: Vec<u8>,
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
        let (login, signature) = self.users.authenticate_scram(&self.name, self.exchange.as_bytes(), &self.proof.0)?;
        let challenge = format!("v={}", BASE64.encode(signature));
        Ok(Step::Challenge(challenge.into_bytes(), Exchange { users: self.users, state: State::ScramEnd(login) }))
    }
}

/// Decodes a name as SCRAM writes it, with `=2C` for a comma and `=3D` for `=`, and prepares it by SASLprep if
/// possible.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::UserName;
    use crate::auth::scram::{ScramKeys, hmac};
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    const NAME: &str = "ana";
    const PASSWORD: &str = "a b:c";

    fn users() -> Users {
        let users = Users::default();
        users.add_own(NAME.parse().unwrap(), PASSWORD.as_bytes());
        users.add_own("a,b=c".parse().unwrap(), b"comma");
        users
    }

    /// The result of a login by PLAIN with this response.
    fn plain(response: &str) -> Result<UserName, String> {
        let users = users();
        let shown = |name: &[u8], denied| format!("{} {denied:?}", String::from_utf8_lossy(name));
        match Exchange::new(Mechanism::Plain, &users).respond(encode(response.as_bytes()).as_bytes()) {
            Step::Password(name, password) => {
                users.authenticate(&name, &password.0).map(|login| login.user).map_err(|denied| shown(&name, denied))
            }
            Step::Denied(name) => Err(shown(&name, Denied::Credentials)),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_response_of_plain_has_three_parts_of_which_the_first_may_be_empty() {
        assert_eq!(plain("\0ana\0a b:c").unwrap().as_str(), NAME);
        assert_eq!(plain("ana\0ana\0a b:c").unwrap().as_str(), NAME);
        assert_eq!(plain("\0ana\0a b").unwrap_err(), "ana Credentials");
        // RFC 4616 section 2: acting as another user needs an authorization, which no user has on this server.
        assert_eq!(plain("bob\0ana\0a b:c").unwrap_err(), "ana Credentials");
        for malformed in ["", "ana", "\0ana", "\0ana\0a b:c\0", "\0\0a b:c", "\0ana\0", "\0\0", "\0\0\0"] {
            assert_eq!(plain(malformed).unwrap_err(), "Failed(Malformed)", "{malformed:?}");
        }
    }

    #[test]
    fn responses_are_base64_or_an_asterisk() {
        let users = users();
        let exchange = || Exchange::new(Mechanism::Plain, &users);
        assert!(matches!(exchange().respond(b"*"), Step::Failed(Failure::Cancelled)));
        assert!(matches!(exchange().respond_initially(b"="), Step::Failed(Failure::Malformed)));
        for line in [&b"="[..], b"AA", b"A", b"AGFuYQ==x", b"AGFu YQ==", b"**", b"\xff"] {
            assert!(matches!(exchange().respond(line), Step::Failed(Failure::NotBase64)), "{line:?}");
        }
    }

    /// A client that is written from RFC 5802, independently of the server's code. It knows only the password.
    struct Client {
        bare: String,
        password: &'static str,
    }

    impl Client {
        fn new(name: &str, password: &'static str) -> Self {
            Self { bare: format!("n={name},r=fyko+d2lbbFgONRv9qkxdawL"), password }
        }

        /// The client's last message after a challenge, and the answer that the server has to give.
        fn last(&self, header: &str, challenge: &str) -> (String, String) {
            let field = |key: &str| challenge.split(',').find_map(|field| field.strip_prefix(key)).unwrap();
            let salt = BASE64.decode(field("s=")).unwrap();
            let salted: [u8; 32] =
                pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(self.password.as_bytes(), &salt, field("i=").parse().unwrap());
            let client_key = hmac(&salted, b"Client Key");
            let without_proof = format!("c={},r={}", BASE64.encode(header), field("r="));
            let exchange = format!("{},{challenge},{without_proof}", self.bare);
            let signature = hmac(&Sha256::digest(client_key).into(), exchange.as_bytes());
            let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
            let servers = hmac(&hmac(&salted, b"Server Key"), exchange.as_bytes());
            (format!("{without_proof},p={}", BASE64.encode(proof)), format!("v={}", BASE64.encode(servers)))
        }

        /// Plays an exchange with `header` at the beginning of the first message and `repeated` in the last one.
        fn log_in(&self, users: &Users, header: &str, repeated: &str) -> Result<UserName, String> {
            let first = format!("{header}{}", self.bare);
            let step = Exchange::new(Mechanism::ScramSha256, users).take(first.as_bytes());
            let Step::Challenge(challenge, exchange) = step else { return Err(format!("{step:?}")) };
            let (last, expected) = self.last(repeated, &String::from_utf8(challenge).unwrap());
            let step = match exchange.take(last.as_bytes()) {
                Step::Proof(proof) => proof.verify().map_err(|denied| format!("{denied:?}"))?,
                step => step,
            };
            let Step::Challenge(signature, exchange) = step else { return Err(format!("{step:?}")) };
            assert_eq!(String::from_utf8(signature).unwrap(), expected);
            match exchange.take(b"") {
                Step::Proven(login) => Ok(login.user),
                step => Err(format!("{step:?}")),
            }
        }
    }

    #[test]
    fn scram_authenticates_client_and_server() {
        let users = users();
        for (name, as_written, password) in [(NAME, NAME, PASSWORD), ("a,b=c", "a=2Cb=3Dc", "comma")] {
            for header in ["n,,", "y,,", &format!("n,a={as_written},")] {
                let client = Client::new(as_written, password);
                assert_eq!(client.log_in(&users, header, header).unwrap().as_str(), name);
            }
        }
    }

    #[test]
    fn scram_refuses_wrong_proofs_and_malformed_messages() {
        let users = users();
        for (name, password) in [(NAME, "other"), ("nobody", PASSWORD), ("no/name", ""), ("nobody", "")] {
            let error = Client::new(name, password).log_in(&users, "n,,", "n,,").unwrap_err();
            assert_eq!(error, "Credentials", "{name}");
        }
        let client = Client::new(NAME, PASSWORD);
        // An attacker has changed the header; the client wants to act as another user; the client asks for channel
        // binding.
        assert_eq!(client.log_in(&users, "n,,", "y,,").unwrap_err(), "Failed(Malformed)");
        assert!(client.log_in(&users, "n,a=bob,", "n,a=bob,").unwrap_err().starts_with("Denied("));
        assert_eq!(client.log_in(&users, "p=tls-exporter,,", "").unwrap_err(), "Failed(Malformed)");
        for first in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=",
            "n,,n=ana",
            "n,,n=ana,r=",
            "n,,n=,r=x",
            "n,,n=a=2,r=x",
            "n,,n=a=41,r=x",
            "n,,m=ext,n=ana,r=x",
            "x,,n=ana,r=x",
            "n,bob,n=ana,r=x",
            "n,,n=ana,r=a b",
        ] {
            let step = Exchange::new(Mechanism::ScramSha256, &users).take(first.as_bytes());
            assert!(matches!(step, Step::Failed(Failure::Malformed)), "{first}: {step:?}");
        }
    }

    #[test]
    fn scram_works_with_stored_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let keys = ScramKeys::derive(PASSWORD.as_bytes(), vec![9; 12], 4242);
        std::fs::write(&path, format!("{NAME}:{{SCRAM-SHA-256}}{keys}\n")).unwrap();
        let users = Users::open(Some(path)).unwrap();
        assert!(Client::new(NAME, PASSWORD).log_in(&users, "n,,", "n,,").is_ok());
        assert!(Client::new(NAME, "other").log_in(&users, "n,,", "n,,").is_err());
        assert!(Client::new("nobody", PASSWORD).log_in(&users, "n,,", "n,,").is_err());
        assert!(users.authenticate(NAME.as_bytes(), PASSWORD.as_bytes()).is_ok());
    }

    proptest! {
        /// The responses are arbitrary octets or nearly right messages.
        #[test]
        fn random_responses_neither_panic_nor_log_in(
            responses in proptest::collection::vec(prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..60),
                "[ny]?,(a=ana)?,n=(ana|=2C|b),r=[a-z,=]{0,6}".prop_map(String::into_bytes),
                "c=(biws)?,r=[a-z]{0,5},p=(AAAA)*".prop_map(String::into_bytes),
                "\0?ana\0?[a-c:]*\0?".prop_map(String::into_bytes),
            ], 1..4),
            mechanism in prop_oneof![Just(Mechanism::Plain), Just(Mechanism::ScramSha256)],
        ) {
            let users = users();
            let mut exchange = Exchange::new(mechanism, &users);
            for response in responses {
                match exchange.take(&response) {
                    Step::Challenge(_, next) => exchange = next,
                    Step::Proven(login) => return Err(TestCaseError::fail(format!("{} was accepted without a proof", login.user))),
                    Step::Proof(proof) => {
                        prop_assert!(proof.verify().is_err());
                        break;
                    }
                    Step::Password(name, password) => {
                        prop_assert!(users.authenticate(&name, &password.0).is_err());
                        break;
                    }
                    Step::Denied(_) | Step::Failed(_) => break,
                }
            }
        }
    }
}
