use super::*;
use crate::auth::scram::{ScramKeys, hmac};
use crate::auth::{Denied, UserName, UsersFile};
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
            users.authenticate(&name, &password.0, None).map(|login| login.user).map_err(|denied| shown(&name, denied))
        }
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
