//! SCRAM-SHA-256's keys (RFC 5802 section 3, RFC 7677): what is stored instead of a password.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::state::StateDir;

/// The number of iterations for keys that are made here. RFC 7677 asks for at least as many, and Dovecot uses the same
/// number.
pub(super) const ITERATIONS: u32 = 4096;

/// The most iterations that are accepted. The client has to do as many, and more would take it seconds.
const ITERATIONS_LIMIT: u32 = 1_000_000;

/// The length in octets of a salt that is made here.
pub(super) const SALT: usize = 16;

/// The name of the file in the state directory that has the key for making salts.
const SALT_KEY: &str = "scram-salt-key";

type Key = [u8; 32];

/// Returns the key for making salts from the state directory. It is created there the first time.
pub(super) fn kept_salt_key(state: &StateDir) -> io::Result<Key> {
    let kept = match fs::read(state.file(SALT_KEY)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        kept => kept.ok().and_then(|octets| octets.try_into().ok()),
    };
    match kept {
        Some(key) => Ok(key),
        None => {
            let key = super::random();
            state.replace(SALT_KEY, &key).map(|()| key)
        }
    }
}

/// The keys of one account. The server can check a password with them, but nobody can log in with them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ScramKeys {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl ScramKeys {
    /// Makes the keys of a password. Client and server first prepare the password with SASLprep (RFC 4013), if it has a
    /// prepared form.
    pub(super) fn derive(password: &[u8], salt: Vec<u8>, iterations: u32) -> Self {
        let salted: Key = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(&prepared(password), &salt, iterations);
        let stored_key = Sha256::digest(hmac(&salted, b"Client Key")).into();
        Self { iterations, salt, stored_key, server_key: hmac(&salted, b"Server Key") }
    }

    /// Reads `iterations,salt,storedkey,serverkey` as Dovecot writes it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split(',').collect();
        let [iterations, salt, stored_key, server_key] = fields[..] else { return None };
        let iterations = iterations.parse().ok().filter(|n| (1..=ITERATIONS_LIMIT).contains(n))?;
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        let key = |text| Key::try_from(BASE64.decode(text).ok()?).ok();
        Some(Self { iterations, salt, stored_key: key(stored_key)?, server_key: key(server_key)? })
    }

    /// Returns whether these are the keys of this password.
    pub(super) fn match_password(&self, password: &[u8]) -> bool {
        let keys = Self::derive(password, self.salt.clone(), self.iterations);
        keys.stored_key.ct_eq(&self.stored_key).into()
    }

    /// Returns whether the client's proof for an exchange is right, that is, whether the client knows the password.
    pub(super) fn match_proof(&self, exchange: &[u8], proof: &[u8]) -> bool {
        let Ok(proof) = Key::try_from(proof) else { return false };
        let signature = hmac(&self.stored_key, exchange);
        let client_key: Vec<u8> = signature.iter().zip(proof).map(|(a, b)| a ^ b).collect();
        Sha256::digest(client_key).ct_eq(&self.stored_key).into()
    }

    /// The signature for an exchange, by which the client sees that the server knows the keys.
    pub(super) fn server_signature(&self, exchange: &[u8]) -> Key {
        hmac(&self.server_key, exchange)
    }
}

/// The keys in the form in which [`ScramKeys::parse`] reads them.
impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored_key, server_key] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|octets| BASE64.encode(octets));
        write!(f, "{},{salt},{stored_key},{server_key}", self.iterations)
    }
}

/// A password as SASLprep (RFC 4013) prepares it, or as it is if it has no prepared form.
pub(super) fn prepared(password: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok()) {
        Some(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        None => Cow::Borrowed(password),
    }
}

/// HMAC-SHA-256.
pub(super) fn hmac(key: &Key, octets: &[u8]) -> Key {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.chain_update(octets).finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `doveadm pw -s SCRAM-SHA-256 -p secret`
    const DOVECOTS: &str = "4096,kVyMtzthNJKcB4iTArdbfg==,oAjq4OZgkXOEbdCc+FrvJlspIEF67yNfbYQXF3nNb1I=,\
         Ejg4meCK0byKwE+2GPFB3ZmqQvmZheu5Xe1rhGelJJc=";

    #[test]
    fn keys_are_those_of_dovecot() {
        let keys = ScramKeys::parse(DOVECOTS).unwrap();
        assert!(keys == ScramKeys::derive(b"secret", keys.salt.clone(), keys.iterations));
        assert!(keys.match_password(b"secret") && !keys.match_password(b"Secret"));
        assert_eq!(keys.to_string(), DOVECOTS);
    }

    #[test]
    fn passwords_are_prepared_by_saslprep() {
        // Examples from RFC 4013 section 3: a soft hyphen is removed, a feminine ordinal becomes an a.
        let derived = |password: &str| ScramKeys::derive(password.as_bytes(), vec![1; SALT], 1).to_string();
        assert_eq!(derived("I\u{ad}X"), derived("IX"));
        assert_eq!(derived("\u{aa}"), derived("a"));
        assert_ne!(derived("user"), derived("USER"));
    }

    #[test]
    fn malformed_keys_are_refused() {
        for iterations in ["0", "1000001", "-1", "x", ""] {
            assert!(ScramKeys::parse(&DOVECOTS.replacen("4096", iterations, 1)).is_none(), "{iterations}");
        }
        for text in ["", "4096", ",,,", &DOVECOTS[..DOVECOTS.len() - 4], &format!("{DOVECOTS},")] {
            assert!(ScramKeys::parse(text).is_none(), "{text}");
        }
    }
}
