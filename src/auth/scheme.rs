//! Makes password fields of users files, in the schemes that this server offers for new passwords. [`super::secret`] reads
//! fields of more schemes.

use argon2::{Algorithm, Argon2, Version};
use base64::prelude::{BASE64_STANDARD as BASE64, BASE64_STANDARD_NO_PAD as BASE64_NO_PAD, Engine as _};
use clap::ValueEnum;
use sha_crypt::{PasswordHasher, ShaCrypt};

use super::scram::{self, ScramKeys};
use super::secret::{BCRYPT_LIMIT, run_argon2};

/// The rounds of new SHA-512-crypt hashes. A verification takes some 20 ms with them.
const CRYPT_ROUNDS: u32 = 100_000;

/// The cost of new bcrypt hashes. A verification takes some 50 ms with it.
const BCRYPT_COST: u32 = 10;

/// The schemes that password fields are made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scheme {
    /// Argon2id, the strongest hash; for passwords that are sent over TLS
    #[value(name = "ARGON2ID")]
    Argon2id,
    /// bcrypt; for users files that older programs read too
    #[value(name = "BLF-CRYPT")]
    BlfCrypt,
    /// SHA-512-crypt; for users files that are shared with programs that use crypt(3)
    #[value(name = "SHA512-CRYPT")]
    Sha512Crypt,
    /// Keys for AUTH SCRAM-SHA-256, from which the password cannot be read
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    /// The password itself, not hashed; APOP needs it, and SCRAM-SHA-256 can use it too
    #[value(name = "PLAIN")]
    Plain,
}

impl Scheme {
    /// The most octets that a password may have, if the scheme has such a limit.
    pub(super) fn limit(self) -> Option<usize> {
        (self == Self::BlfCrypt).then_some(BCRYPT_LIMIT)
    }

    /// Makes a password field.
    pub(super) fn field(self, password: &[u8]) -> String {
        let salt: [u8; scram::SALT] = super::random();
        match self {
            Self::Argon2id => {
                // The crate's default parameters, which OWASP recommends: 19 MiB and two passes.
                let params = argon2::Params::default();
                let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                let mut hash = [0; argon2::Params::DEFAULT_OUTPUT_LEN];
                run_argon2(&argon2, password, &salt, &mut hash).expect("parameters in their ranges");
                let [salt, hash] = [&salt[..], &hash].map(|octets| BASE64_NO_PAD.encode(octets));
                format!("{{ARGON2ID}}$argon2id$v=19$m={m},t={t},p={p}${salt}${hash}")
            }
            Self::BlfCrypt => {
                let hash = bcrypt::hash_with_salt(password, BCRYPT_COST, salt).expect("a cost in its range");
                format!("{{BLF-CRYPT}}{}", hash.format_for_version(bcrypt::Version::TwoY))
            }
            Self::Sha512Crypt => {
                let rounds = sha_crypt::Params::new(CRYPT_ROUNDS).expect("rounds in their range");
                let crypt = ShaCrypt::new(sha_crypt::Algorithm::Sha512Crypt, rounds);
                let hash = crypt.hash_password_with_salt(password, &salt[..12]).expect("a salt of 16 characters");
                format!("{{SHA512-CRYPT}}{hash}")
            }
            Self::ScramSha256 => {
                format!("{{SCRAM-SHA-256}}{}", ScramKeys::derive(password, salt.to_vec(), scram::ITERATIONS))
            }
            Self::Plain => match std::str::from_utf8(password) {
                Ok(text) if !text.contains([':', '\r', '\n', '\0']) => format!("{{PLAIN}}{text}"),
                _ => format!("{{PLAIN.B64}}{}", BASE64.encode(password)),
            },
        }
    }
}
