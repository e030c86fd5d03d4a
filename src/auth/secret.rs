//! The password field of an account as it is stored: `{SCHEME}` followed by what the scheme makes of the password, in
//! Dovecot's format.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Block, PasswordHash, Version};
use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use md5::Md5;
use sha_crypt::{PasswordHashRef, PasswordVerifier, ShaCrypt};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;
use yescrypt::Yescrypt;

use super::old_schemes::{Md5Crypt, Pbkdf2, ScramSha1, cram_md5};
use super::scram::ScramKeys;

/// The longest verification that is accepted, in microseconds. Without a limit one wrong line of a users file could keep
/// a core busy at each login.
const COST_LIMIT: u64 = 5_000_000;

/// The most memory that a verification may need, in KiB.
const MEMORY_LIMIT: u32 = 256 * 1024;

/// The size of an allocation that glibc always gets from the kernel directly, and gives back at once. Pages of it that
/// are not touched cost nothing.
const RETURNED_AT_ONCE: usize = 33 << 20;

/// A verification that takes more microseconds than this counts as costly.
const CHEAP: u64 = 100;

/// The rounds of SHA-512-crypt and SHA-256-crypt if a hash does not name them.
const CRYPT_ROUNDS: u32 = 5000;

/// The number of octets of a password that bcrypt uses. It ignores the rest, also when it verifies a password.
pub(super) const BCRYPT_LIMIT: usize = 72;

/// A stored secret.
#[derive(Clone)]
pub(super) enum Secret {
    /// The password itself.
    Readable(Vec<u8>),
    /// A digest of the password followed by the salt.
    Digest(Hash, Vec<u8>, Vec<u8>),
    /// ARGON2ID or ARGON2I.
    Argon2(Box<PasswordHash>),
    /// `$5$` or `$6$`, and its rounds.
    ShaCrypt(String, u32),
    /// `$2y$` and the like, and its cost.
    Bcrypt(String, u32),
    /// What SCRAM-SHA-256 needs.
    Scram(ScramKeys),
    /// `$y$`, and the memory that a verification needs, in KiB.
    Yescrypt(String, u32),
    Md5Crypt(Md5Crypt),
    Pbkdf2(Pbkdf2),
    ScramSha1(ScramSha1),
    /// What CRAM-MD5 needs.
    CramMd5(Vec<u8>),
    /// Another process has it. No password matches here.
    Elsewhere,
}

/// The hash of a salted or plain digest.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hash {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

impl Hash {
    fn length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn digest(self, octets: &[u8]) -> Vec<u8> {
        match self {
            Self::Md5 => Md5::digest(octets).to_vec(),
            Self::Sha1 => Sha1::digest(octets).to_vec(),
            Self::Sha256 => Sha256::digest(octets).to_vec(),
            Self::Sha512 => Sha512::digest(octets).to_vec(),
        }
    }
}

/// Why a password field cannot be used. The texts do not contain any part of the hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadSecret {
    /// It begins neither with `{SCHEME}` nor as a hash of crypt(3).
    NoScheme,
    /// It is that of an account of the system without a login by password: `!` or `*`.
    Locked,
    /// The scheme is not supported.
    UnknownScheme(String),
    /// The rest of the field is not valid for the scheme.
    Malformed(String),
    /// A verification would take too long, or too much memory.
    TooCostly(String),
}

impl fmt::Display for BadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoScheme => f.write_str("the password has no {SCHEME} in front"),
            Self::Locked => f.write_str("the account has no login by password"),
            Self::UnknownScheme(scheme) => write!(f, "the scheme {scheme:?} is not supported"),
            Self::Malformed(scheme) => write!(f, "the password is not in the form of {scheme}"),
            Self::TooCostly(scheme) => write!(f, "the parameters of {scheme} ask for too much time or memory"),
        }
    }
}

impl Secret {
    /// The secret that is a password itself.
    pub(super) fn of_password(password: &[u8]) -> Self {
        Self::Readable(password.to_vec())
    }

    /// Reads a password field.
    pub(super) fn parse(field: &[u8]) -> Result<Self, BadSecret> {
        // Without a scheme it is a hash of crypt(3), as in /etc/shadow.
        let of_crypt = field.first().is_some_and(|octet| b"$!*".contains(octet)).then_some(("CRYPT", field));
        let (scheme, stored) = split(field).or(of_crypt).ok_or(BadSecret::NoScheme)?;
        let scheme = scheme.to_ascii_uppercase();
        let (name, encoding) = scheme.split_once('.').unwrap_or((&scheme, ""));
        let malformed = || BadSecret::Malformed(scheme.clone());
        let decoded = match encoding {
            "" => None,
            "B64" | "BASE64" => Some(BASE64.decode(stored).map_err(|_| malformed())?),
            "HEX" => Some(hex(stored).ok_or_else(malformed)?),
            _ => return Err(BadSecret::UnknownScheme(scheme)),
        };
        let octets = decoded.as_deref().unwrap_or(stored);
        let text = || std::str::from_utf8(octets).ok();
        let digest = |hash: Hash, salted: bool| {
            let value = match &decoded {
                Some(value) => value.clone(),
                // Dovecot recognises hexadecimal digits by their number, and so does this.
                None if !salted && stored.len() == 2 * hash.length() => hex(stored)?,
                None => BASE64.decode(stored).ok()?,
            };
            Self::digest(hash, value, salted)
        };
        let secret = match name {
            "PLAIN" | "CLEAR" | "CLEARTEXT" => Some(Self::Readable(octets.to_vec())),
            "ARGON2ID" => text().and_then(|text| Self::argon2(Algorithm::Argon2id, text)),
            "ARGON2I" => text().and_then(|text| Self::argon2(Algorithm::Argon2i, text)),
            "SHA512-CRYPT" => text().filter(|text| text.starts_with("$6$")).and_then(Self::sha_crypt),
            "SHA256-CRYPT" => text().filter(|text| text.starts_with("$5$")).and_then(Self::sha_crypt),
            "BLF-CRYPT" => text().and_then(Self::bcrypt),
            "CRYPT" if octets.starts_with(b"!") || octets.starts_with(b"*") => return Err(BadSecret::Locked),
            "CRYPT" => text().and_then(Self::crypt),
            "MD5-CRYPT" => text().and_then(Md5Crypt::parse).map(Self::Md5Crypt),
            "PBKDF2" => text().and_then(|text| Pbkdf2::parse(text, hex)).map(Self::Pbkdf2),
            "SCRAM-SHA-1" => text().and_then(ScramSha1::parse).map(Self::ScramSha1),
            "CRAM-MD5" => hex(octets).filter(|states| states.len() == 32).map(Self::CramMd5),
            "SMD5" => digest(Hash::Md5, true),
            "LDAP-MD5" | "PLAIN-MD5" => digest(Hash::Md5, false),
            "SSHA512" => digest(Hash::Sha512, true),
            "SSHA256" => digest(Hash::Sha256, true),
            "SSHA" => digest(Hash::Sha1, true),
            "SHA512" => digest(Hash::Sha512, false),
            "SHA256" => digest(Hash::Sha256, false),
            "SHA" | "SHA1" => digest(Hash::Sha1, false),
            "SCRAM-SHA-256" => text().and_then(ScramKeys::parse).map(Self::Scram),
            _ => return Err(BadSecret::UnknownScheme(scheme)),
        };
        let secret = secret.ok_or_else(malformed)?;
        let affordable = secret.cost() <= COST_LIMIT && secret.memory() <= MEMORY_LIMIT;
        affordable.then_some(secret).ok_or(BadSecret::TooCostly(scheme))
    }

    fn digest(hash: Hash, mut value: Vec<u8>, salted: bool) -> Option<Self> {
        let salt = (value.len() >= hash.length()).then(|| value.split_off(hash.length()))?;
        (salted || salt.is_empty()).then_some(Self::Digest(hash, value, salt))
    }

    fn argon2(algorithm: Algorithm, text: &str) -> Option<Self> {
        let hash = PasswordHash::new(text).ok()?;
        let whole = hash.version.is_some() && hash.salt.is_some() && hash.hash.is_some();
        (whole && hash.algorithm == algorithm.ident() && argon2::Params::try_from(&hash).is_ok())
            .then(|| Self::Argon2(Box::new(hash)))
    }

    fn sha_crypt(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split('$').collect();
        let (id, rounds, hash) = match fields[..] {
            ["", id, _salt, hash] => (id, CRYPT_ROUNDS, hash),
            ["", id, rounds, _salt, hash] => {
                sha_crypt::Params::from_str(rounds).ok()?;
                (id, rounds.strip_prefix("rounds=")?.parse().ok()?, hash)
            }
            _ => return None,
        };
        let whole = matches!((id, hash.len()), ("5", 43) | ("6", 86)) && PasswordHashRef::new(text).is_ok();
        whole.then(|| Self::ShaCrypt(text.to_owned(), rounds))
    }

    /// A hash of crypt(3) in any of the forms that are supported.
    fn crypt(text: &str) -> Option<Self> {
        let md5_crypt = || Md5Crypt::parse(text).map(Self::Md5Crypt);
        Self::sha_crypt(text).or_else(|| Self::bcrypt(text)).or_else(|| Self::yescrypt(text)).or_else(md5_crypt)
    }

    fn yescrypt(text: &str) -> Option<Self> {
        let params: yescrypt::Params = text.strip_prefix("$y$")?.split('$').next()?.parse().ok()?;
        let whole = text.split('$').count() == 5 && text.rsplit('$').next().is_some_and(|hash| hash.len() == 43);
        let octets = params.n().saturating_mul(u64::from(params.r())).saturating_mul(128);
        whole.then(|| Self::Yescrypt(text.to_owned(), u32::try_from(octets / 1024).unwrap_or(u32::MAX)))
    }

    fn bcrypt(text: &str) -> Option<Self> {
        // $2x$ marks hashes made by a faulty version of bcrypt, which are not safe.
        let known = ["$2y$", "$2b$", "$2a$"].iter().any(|prefix| text.starts_with(prefix));
        let parts = bcrypt::HashParts::from_str(text).ok().filter(|_| known)?;
        Some(Self::Bcrypt(text.to_owned(), parts.get_cost()))
    }

    /// Returns whether the field belongs to this password.
    pub(super) fn matches(&self, password: &[u8]) -> bool {
        match self {
            Self::Readable(stored) => stored.ct_eq(password).into(),
            Self::Digest(hash, value, salt) => hash.digest(&[password, salt].concat()).ct_eq(value).into(),
            Self::Argon2(hash) => argon2_matches(hash, password).unwrap_or(false),
            Self::ShaCrypt(text, _) => ShaCrypt::default().verify_password(password, text.as_str()).is_ok(),
            Self::Bcrypt(text, _) => bcrypt::verify(password, text).unwrap_or(false),
            Self::Scram(keys) => keys.match_password(password),
            Self::Yescrypt(text, _) => yescrypt_matches(text, password),
            Self::Md5Crypt(hash) => hash.matches(password),
            Self::Pbkdf2(hash) => hash.matches(password),
            Self::ScramSha1(keys) => keys.matches(password),
            Self::CramMd5(states) => cram_md5(password).ct_eq(states).into(),
            Self::Elsewhere => false,
        }
    }

    /// An estimate of how long a verification takes, in microseconds on a core of 2020. It serves to compare schemes and to
    /// refuse fields with absurd costs.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::Readable(_) | Self::Digest(..) | Self::CramMd5(_) | Self::Elsewhere => 1,
            Self::Yescrypt(_, kib) => u64::from(*kib) * 3,
            Self::Md5Crypt(_) => 300,
            Self::Pbkdf2(hash) => u64::from(hash.rounds) / 2,
            Self::ScramSha1(keys) => u64::from(keys.iterations) / 2,
            Self::Argon2(hash) => {
                argon2::Params::try_from(&**hash).map_or(0, |p| u64::from(p.m_cost()) * u64::from(p.t_cost()) / 2)
            }
            Self::ShaCrypt(_, rounds) => u64::from(*rounds) / 2,
            Self::Bcrypt(_, cost) => 50_u64.saturating_mul(1 << (*cost).min(50)),
            Self::Scram(keys) => u64::from(keys.iterations) / 2,
        }
    }

    /// Returns whether a verification takes so long that the number of simultaneous ones is limited.
    pub(super) fn is_costly(&self) -> bool {
        self.cost() > CHEAP
    }

    fn memory(&self) -> u32 {
        match self {
            Self::Argon2(hash) => argon2::Params::try_from(&**hash).map_or(u32::MAX, |params| params.m_cost()),
            Self::Yescrypt(_, kib) => *kib,
            _ => 0,
        }
    }

    /// Returns whether the password can be guessed quickly from what is stored: a digest without a salt, or one of MD5.
    pub(super) fn is_weak(&self) -> bool {
        match self {
            Self::Digest(hash, _, salt) => salt.is_empty() || matches!(hash, Hash::Md5),
            Self::Md5Crypt(_) | Self::CramMd5(_) => true,
            _ => false,
        }
    }

    /// The password, if the scheme stores the password itself.
    pub(super) fn readable(&self) -> Option<&[u8]> {
        match self {
            Self::Readable(password) => Some(password),
            _ => None,
        }
    }

    /// The keys for SCRAM, if the scheme stores these.
    pub(super) fn scram_keys(&self) -> Option<&ScramKeys> {
        match self {
            Self::Scram(keys) => Some(keys),
            _ => None,
        }
    }
}

/// Does not show the secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Splits a field into the scheme's name and the rest.
fn split(field: &[u8]) -> Option<(&str, &[u8])> {
    let end = field.iter().position(|&octet| octet == b'}')?;
    let scheme = std::str::from_utf8(field[..end].strip_prefix(b"{")?).ok()?;
    let plain = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    plain.then_some((scheme, &field[end + 1..]))
}

fn yescrypt_matches(text: &str, password: &[u8]) -> bool {
    <Yescrypt as PasswordVerifier<str>>::verify_password(&Yescrypt::default(), password, text).is_ok()
}

fn argon2_matches(hash: &PasswordHash, password: &[u8]) -> Option<bool> {
    let (salt, expected) = (hash.salt.as_ref()?, hash.hash.as_ref()?);
    let algorithm = Algorithm::new(hash.algorithm.as_str()).ok()?;
    let version = Version::try_from(hash.version?).ok()?;
    let argon2 = Argon2::new(algorithm, version, argon2::Params::try_from(hash).ok()?);
    let mut computed = vec![0; expected.len()];
    run_argon2(&argon2, password, salt, &mut computed).ok()?;
    Some(computed.ct_eq(expected.as_bytes()).into())
}

/// Runs Argon2 in memory that is given back to the system at once. The allocator would keep smaller pieces for the thread
/// that freed them, and hundreds of threads call this function in turn.
pub(super) fn run_argon2(argon2: &Argon2<'_>, password: &[u8], salt: &[u8], hash: &mut [u8]) -> argon2::Result<()> {
    let blocks = argon2.params().block_count();
    let mut memory = Vec::with_capacity(blocks.max(RETURNED_AT_ONCE / Block::SIZE));
    memory.resize(blocks, Block::new());
    argon2.hash_password_into_with_memory(password, salt, hash, memory)
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |octet: u8| char::from(octet).to_digit(16);
    let pair = |pair: &[u8]| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok();
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(pair).collect())?
}

#[cfg(test)]
mod tests;
