//! The admin's name and password, or what is stored in place of the password.

use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use super::secret::{BadSecret, Secret};

/// The admin's name and secret.
#[derive(Debug)]
pub struct Credentials {
    name: String,
    secret: Secret,
    /// Held during a costly verification: a client that guesses gets one core and the memory of one verification.
    turn: Mutex<()>,
}

impl Credentials {
    /// Makes credentials from a name and a password, or from a name and a password field `{SCHEME}HASH` as
    /// `pop3d passwd` prints it. A password that begins with the name of no known scheme is a password.
    ///
    /// # Errors
    /// When the rest of the field does not fit its scheme.
    pub fn new(name: &str, password: &str) -> Result<Self, BadSecret> {
        let secret = match Secret::parse(password.as_bytes()) {
            Err(BadSecret::NoScheme | BadSecret::UnknownScheme(_)) => Secret::of_password(password.as_bytes()),
            parsed => parsed?,
        };
        Ok(Self { name: name.to_owned(), secret, turn: Mutex::new(()) })
    }

    /// Returns the admin's password, unless only its hash is known.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        std::str::from_utf8(self.secret.readable()?).ok()
    }

    /// Returns whether name and password are the right ones. A wrong name takes as long as a wrong password, so that the
    /// time does not tell which of them was wrong.
    #[must_use]
    pub fn match_with(&self, name: &[u8], password: &[u8]) -> bool {
        let _turn = self.secret.is_costly().then(|| self.turn.lock());
        let is_right = self.secret.matches(password);
        bool::from(self.name.as_bytes().ct_eq(name)) & is_right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_be_stored_as_a_hash() {
        for stored in ["secret", "{PLAIN}secret", "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols="] {
            let admin = Credentials::new("boss", stored).unwrap();
            assert!(admin.match_with(b"boss", b"secret"), "{stored}");
            for (name, password) in [("boss", "wrong"), ("ana", "secret"), ("", ""), ("boss", stored)] {
                assert_eq!(
                    admin.match_with(name.as_bytes(), password.as_bytes()),
                    password == "secret" && name == "boss"
                );
            }
        }
    }

    #[test]
    fn a_password_in_braces_is_no_hash_unless_the_scheme_is_known() {
        assert!(Credentials::new("boss", "{curly}").unwrap().match_with(b"boss", b"{curly}"));
        assert!(Credentials::new("boss", "{SHA256}no hash").is_err());
    }
}
