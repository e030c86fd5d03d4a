//! The server's side of SASL exchanges (RFC 4422). It takes the client's responses and tells the session what to do
//! next; it does no I/O.
//!
//! The mechanisms are PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login), and SCRAM-SHA-256 without and with channel
//! binding (RFC 5802, RFC 7677, RFC 9266). RFC 5034 tells how an exchange is transmitted in POP3.

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
    ScramFinal(ScramExchange),
    /// The server has sent its signature, and the client has to confirm it with an empty response.
    ScramEnd(Login),
}

/// What is known after the first message of each side.
#[derive(Debug)]
struct ScramExchange {
    name: Vec<u8>,
    nonce: String,
    /// The client's header and the channel's binding in base64. The client has to repeat it.
    header: String,
    /// Both first messages, which are part of what the proof signs.
    messages: String,
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
            State::ScramFinal(exchange) => exchange.end(self.users, response),
            State::ScramEnd(login) => response.is_empty().then_some(Step::Proven(login)),
        };
        next.unwrap_or(Step::Failed(Failure::Malformed))
    }

    /// A user name is answered by the question for the password.
    fn login_name(self, response: &[u8]) -> Option<Step<'a>> {
        let state = State::LoginPassword(login_text(response)?);
        Some(Step::Challenge(b"Password:".to_vec(), Self { state, ..self }))
    }

    /// `n,,n=NAME,r=NONCE` is answered by `r=NONCE…,s=SALT,i=ITERATIONS`.
    fn scram_first(self, plus: bool, response: &[u8]) -> Option<Step<'a>> {
        let message = std::str::from_utf8(response).ok()?;
        let (flag, rest) = message.split_once(',')?;
        let (authzid, bare) = rest.split_once(',')?;
        // RFC 5802 section 6: `p=` selects a binding. `y` means that the client supports one and saw that the server does
        // not.
        let binding = match (flag, plus, &self.binding) {
            ("p=tls-exporter", true, Some(binding)) => &binding[..],
            ("n", false, _) | ("y", false, None) => &[],
            ("y", false, Some(_)) => return Some(Step::Failed(Failure::Downgraded)),
            _ => return None,
        };
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
            header: BASE64.encode([flag.as_bytes(), b",", authzid.as_bytes(), b",", binding].concat()),
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

/// A name or a password of LOGIN. It may be neither empty nor have a NUL, as in PLAIN.
fn login_text(response: &[u8]) -> Option<Vec<u8>> {
    (!response.is_empty() && !response.contains(&0)).then(|| response.to_owned())
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
        let state = State::ScramEnd(login);
        Ok(Step::Challenge(challenge.into_bytes(), Exchange { users: self.users, binding: None, state }))
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
    use crate::auth::scram::{ScramKeys, hmac};
    use crate::auth::{UserName, UsersFile};
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
            Step::Password(name, password) => users
                .authenticate(&name, &password.0, None)
                .map(|login| login.user)
                .map_err(|denied| shown(&name, denied)),
            Step::Denied(name) => Err(shown(&name, Denied::OtherUser)),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_response_of_plain_has_three_parts_of_which_the_first_may_be_empty() {
        assert_eq!(plain("\0ana\0a b:c").unwrap().as_str(), NAME);
        assert_eq!(plain("ana\0ana\0a b:c").unwrap().as_str(), NAME);
        assert_eq!(plain("\0ana\0a b").unwrap_err(), "ana Credentials(Password)");
        // RFC 4616 section 2: acting as another user needs an authorization, which no user has on this server.
        assert_eq!(plain("bob\0ana\0a b:c").unwrap_err(), "ana OtherUser");
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

    #[test]
    fn login_asks_for_the_name_and_then_for_the_password() {
        let users = users();
        let exchange = || Exchange::new(Mechanism::Login, &users);
        let challenge = |step: Step<'_>, expected: &str| match step {
            Step::Challenge(challenge, _) => assert_eq!(encode(&challenge), expected),
            other => panic!("{other:?}"),
        };
        let after = |name: &[u8]| match exchange().take(name) {
            Step::Challenge(_, exchange) => exchange,
            other => panic!("{other:?}"),
        };
        challenge(exchange().ask(), "VXNlcm5hbWU6");
        challenge(exchange().respond(b"YW5h"), "UGFzc3dvcmQ6");
        challenge(exchange().respond_initially(b"YW5h"), "UGFzc3dvcmQ6");
        for (password, right) in [(PASSWORD, true), ("a b", false), ("\u{e9}", false)] {
            let Step::Password(name, given) = after(b"ana").take(password.as_bytes()) else { panic!("{password}") };
            assert_eq!((&name[..], &given.0[..]), (&b"ana"[..], password.as_bytes()));
            assert_eq!(users.authenticate(&name, &given.0, None).is_ok(), right, "{password}");
        }
        for malformed in [&b""[..], b"\0", b"ana\0", b"\0ana\0a b:c"] {
            assert!(matches!(exchange().take(malformed), Step::Failed(Failure::Malformed)), "{malformed:?}");
            assert!(matches!(after(b"ana").take(malformed), Step::Failed(Failure::Malformed)), "{malformed:?}");
        }
        assert!(matches!(exchange().respond_initially(b"="), Step::Failed(Failure::Malformed)));
        assert!(matches!(after(b"ana").respond(b"*"), Step::Failed(Failure::Cancelled)));
        assert!(matches!(after(b"ana").respond(b"="), Step::Failed(Failure::NotBase64)));
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
        fn last(&self, header: &[u8], challenge: &str) -> (String, String) {
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
            self.log_in_by(Exchange::new(Mechanism::ScramSha256, users), header, repeated.as_bytes())
        }

        fn log_in_by(&self, exchange: Exchange<'_>, header: &str, repeated: &[u8]) -> Result<UserName, String> {
            let first = format!("{header}{}", self.bare);
            let step = exchange.take(first.as_bytes());
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
            let wrong = if name == NAME { "Password" } else { "Name" };
            assert_eq!(error, format!("Credentials({wrong})"), "{name}");
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
    fn channel_binding_proves_that_both_sides_have_the_same_tls_connection() {
        let users = users();
        let client = Client::new(NAME, PASSWORD);
        let log_in = |mechanism, servers: Option<Binding>, header: &str, clients: &[u8]| {
            let exchange = Exchange::new(mechanism, &users).bound_to(servers);
            client.log_in_by(exchange, header, &[header.as_bytes(), clients].concat())
        };
        let (plus, without) = (Mechanism::ScramSha256Plus, Mechanism::ScramSha256);
        let (own, header) = (Some([7; 32]), "p=tls-exporter,,");
        assert_eq!(log_in(plus, own, header, &[7; 32]).unwrap().as_str(), NAME);
        assert_eq!(log_in(plus, own, "p=tls-exporter,a=ana,", &[7; 32]).unwrap().as_str(), NAME);
        // A client that cannot bind or does not want to may log in without.
        assert_eq!(log_in(without, own, "n,,", b"").unwrap().as_str(), NAME);
        // Another connection's binding, or none; another type; a header that does not fit the mechanism; no TLS.
        for (mechanism, servers, header, clients) in [
            (plus, own, header, &[8; 32][..]),
            (plus, own, header, b""),
            (plus, own, "p=tls-unique,,", &[7; 32]),
            (plus, own, "p=,,", &[7; 32]),
            (plus, own, "n,,", b""),
            (plus, own, "y,,", b""),
            (plus, None, header, b""),
            (without, own, header, &[7; 32]),
        ] {
            let error = log_in(mechanism, servers, header, clients).unwrap_err();
            assert_eq!(error, "Failed(Malformed)", "{mechanism} {header} {clients:?}");
        }
        assert_eq!(log_in(without, own, "y,,", b"").unwrap_err(), "Failed(Downgraded)");
    }

    #[test]
    fn scram_works_with_stored_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let keys = ScramKeys::derive(PASSWORD.as_bytes(), vec![9; 12], 4242);
        std::fs::write(&path, format!("{NAME}:{{SCRAM-SHA-256}}{keys}\n")).unwrap();
        let users = Users::new(vec![UsersFile::open(path).unwrap().into()]);
        assert!(Client::new(NAME, PASSWORD).log_in(&users, "n,,", "n,,").is_ok());
        assert!(Client::new(NAME, "other").log_in(&users, "n,,", "n,,").is_err());
        assert!(Client::new("nobody", PASSWORD).log_in(&users, "n,,", "n,,").is_err());
        assert!(users.authenticate(NAME.as_bytes(), PASSWORD.as_bytes(), None).is_ok());
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
            mechanism in proptest::sample::select(&Mechanism::ALL[..]),
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
                        prop_assert!(users.authenticate(&name, &password.0, None).is_err());
                        break;
                    }
                    Step::Denied(_) | Step::Failed(_) => break,
                }
            }
        }
    }
}
