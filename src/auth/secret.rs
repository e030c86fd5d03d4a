//! The password field of an account as it is stored: `{SCHEME}` followed by what the scheme makes of the password, in
//! Dovecot's format.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Block, PasswordHash, Version};
use base64::prelude::{BASE64_STANDARD as BASE64, BASE64_STANDARD_NO_PAD as BASE64_NO_PAD, Engine as _};
use clap::ValueEnum;
use md5::Md5;
use sha_crypt::{PasswordHashRef, PasswordHasher, PasswordVerifier, ShaCrypt};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;
use yescrypt::Yescrypt;

use super::old_schemes::{Md5Crypt, Pbkdf2, ScramSha1, cram_md5};
use super::scram::{self, ScramKeys};

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

/// The rounds of SHA-512-crypt if a hash does not name them. New hashes have as many.
const CRYPT_ROUNDS: u32 = 5000;
const NEW_CRYPT_ROUNDS: u32 = 100_000;

/// The cost of new bcrypt hashes. A verification takes some 50 ms with it.
const NEW_BCRYPT_COST: u32 = 10;

/// The number of octets of a password that bcrypt uses. It ignores the rest, also when it verifies a password.
const BCRYPT_LIMIT: usize = 72;

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
        }
    }

    /// An estimate of how long a verification takes, in microseconds on a core of 2020. It serves to compare schemes and to
    /// refuse fields with absurd costs.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::Readable(_) | Self::Digest(..) | Self::CramMd5(_) => 1,
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
fn run_argon2(argon2: &Argon2<'_>, password: &[u8], salt: &[u8], hash: &mut [u8]) -> argon2::Result<()> {
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
                let hash = bcrypt::hash_with_salt(password, NEW_BCRYPT_COST, salt).expect("a cost in its range");
                format!("{{BLF-CRYPT}}{}", hash.format_for_version(bcrypt::Version::TwoY))
            }
            Self::Sha512Crypt => {
                let rounds = sha_crypt::Params::new(NEW_CRYPT_ROUNDS).expect("rounds in their range");
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Password fields made by `doveadm pw -s SCHEME -p PASSWORD` of Dovecot 2.3.19.
    #[rustfmt::skip]
    const DOVECOTS: &[(&str, &str)] = &[
        ("secret", "{PLAIN}secret"),
        ("secret", "{CLEARTEXT}secret"),
        ("secret", "{CLEAR}secret"),
        ("secret", "{PLAIN.B64}c2VjcmV0"),
        ("secret", "{PLAIN.HEX}736563726574"),
        ("secret", "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$ERx7epD3HkygFy4BFdIBRw$HMGruvkK9R21d96Y/mKlUlwIqSMQLypSiUCF8MCnGBM"),
        ("secret", "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$JaBn64t1COQ1SPZut13Pug$xG0qXW1hP46h9Ur2SB+qAr4a8qIcQYF2tQ1kT2rzAT0"),
        ("secret", "{SHA512-CRYPT}$6$6BNGsUn7YpaHMiX2$FSe5vAGVbahcDuWw3D4ZhFPQganLdWWzRckiogDyqKAHCjjDHhMLqmbvYMX6grRgqpWrI2n6T8cs94P/smwzK1"),
        ("secret", "{SHA256-CRYPT}$5$zBwS.//PNuiFZWUX$CWflqrEFAd32U8ZcekDOWkv33W2NXM1Fx/wX65V8Rj2"),
        ("secret", "{BLF-CRYPT}$2y$05$2VfBEWZV4HEZ02Q9.hoIUuZDNPBloljie.PDqwu4PVQB.82Indksi"),
        ("secret", "{CRYPT}$2y$05$bYSa9SH1sVHxFKObbnzHjefPdagKS/904rhOlLq/f80eS10QJm0MC"),
        ("secret", "{SSHA512}AnKGXAbJPncTIiS8BPq3xrQfa1+/MS01c1hda5ez1a44dXWi3W7p85HxzU000xFSXjrtFWKjzUd1UQq/1AuaEs2H10M="),
        ("secret", "{SSHA256}nNvYKjBce6RMoG5tU/voV/CCMYAfxq9MBiqRG6s7pVZ06eEZ"),
        ("secret", "{SSHA}8TwjTrfm6ER9cweFQsqCDgulWPKEfd39"),
        ("secret", "{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg=="),
        ("secret", "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols="),
        ("secret", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
        ("secret", "{SHA1}5en6G6MezRroT3XKqkdPOmY/BfQ="),
        ("secret", "{SSHA512.HEX}f1cd1f06e5ebda848c6af000b27c79580424a5afca4d3bc1e7f9c79ab6a15e1c16b4bdc6d39390a83c4c525f7c3c6471517d977fcceb31b1df4d4389e1bdbade8aac9c30"),
        ("secret", "{SSHA256.HEX}c24fab3246de82a2a428ab1b4010614bfa0ecb2d0a11ee1f42f15a54ae759b92d2992ea3"),
        ("secret", "{SHA512.HEX}bd2b1aaf7ef4f09be9f52ce2d8d599674d81aa9d6a4421696dc4d93dd0619d682ce56b4d64a9ef097761ced99e0f67265b5f76085e5b0ee7ca4696b2ad6fe2b2"),
        ("secret", "{SHA.HEX}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4"),
        ("secret", "{SHA256.B64}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols="),
        ("secret", "{SCRAM-SHA-256}4096,MKmKcT0sXBr0VfUwj5DhHQ==,YLy7ZLl41lTW3K2d8eK/sOiFotGrkYaluKB2dqIZ5bE=,2QsP9MujCo/qgOWtrMrFlbt0xUBBLPU/BYGXA8602h4="),
        ("secret", "{BLF-CRYPT}$2y$08$JsVBaqoGvsWnhMy0Xcmtq.k0fjBcV./ywrFn8XnI0yY7uHG3wDpzq"),
        ("secret", "{SHA512-CRYPT}$6$rounds=10000$Pe7.ob1zzv9CfwiC$gH..3Fi.DpLRS72ckL7G8d6RGju5iyhcL/Mfr19TjF8HGpUs9vBiQ1ZCDlEZJe/i0G7zPGixYHwfJi/C8MSKw0"),
        ("secret", "{SHA256-CRYPT}$5$rounds=10000$jrhhtxxtjDq00r3M$iyM6Byg1crLuqCVbU5ubdT1IuBnvj5RdAaI7WFvs8T7"),
        ("secret", "{CRYPT}$6$CSv/JZvayQgbAo38$XN4Xukic1eY5sMCmygjAWft8U5QR/jbllSc4s8qEC1BSzWupCi9SNFif0ICvbSfHHzu6BMQDUGCV9GBnY8jJF0"),
        ("secret", "{CRYPT}$5$Vsvr5vrleLuVL7mZ$Gf4inYXe567Kl/edGpupfMdYDaE6HaeV.E0TgRu2XY6"),
        ("secret", "{SHA256}2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"),
        ("secret", "{SHA512-CRYPT.B64}JDYkOGJpUGNwZHRoaGNSNzdyRiR3U2haNG9XZUNWNGlldEhRSFFMYkl3S0tuSVhSandzN0tHSUJHRGsyR2xQM1dqYi9uY2dNR01JbVk1WXZmN2FhUzUxckdMT0YvVkFuMjJuMVlNSHhkMQ=="),
        ("pässword é€ with spaces", "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$3QszMZuyx2mYLG3SzmgrnA$QkXtnkTt9DnmaU22pE72fqIn2SdzUttWjXL5qUww5Vk"),
        ("pässword é€ with spaces", "{SHA512-CRYPT}$6$TWBvQ8q.an5/r0My$kFCrShbayB8XBdmDs/80ZW98AiE9WvwhMgCFX.PJHip7wOxWqR8BcH5i8Pr37ZjvnKaJbZcF6Ht7X4Bw1KGLq1"),
        ("pässword é€ with spaces", "{BLF-CRYPT}$2y$05$2aTFSZ5f71DDh6brT6dgDOiXNJHCnPV/NUV5.4e/vycLVPkkcWYK."),
        ("pässword é€ with spaces", "{SSHA512}P9Tj0rd4nc292x0JYKWipMo5Q37x2VhBa6BGOFQjHWyK1VOXYO5OkJpqTXKtK488whNQ7Y5rWIVyZ6BsXeDrnnojMaI="),
        ("pässword é€ with spaces", "{SCRAM-SHA-256}4096,Im3NgWxcFL1j/4Aahleyrg==,idQ0k2sT5DO1gLD6N1dtsR1HvO2ROCFvlf6lw5bUEhs=,QJ2NQPogR/4PBu9Uv+ukfPljlkzDPqMbVOjfCDFNBhQ="),
        ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx!", "{SHA512-CRYPT}$6$AAlXE93z.wiqPD6F$/eMTVkFBb4yM77.bhvyUzH7n4EcGycQud1ehnWxN7NqsxZquBltnGCaKhRgXNkVabRzXEtJPIWNVEaBZOzxAA/"),
        ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx!", "{SHA256-CRYPT}$5$.4UHCvvrnQ8fLEiZ$0PA3upzbJ/52QaXYyEt8zR1p9P6BH4WOzgfyBLH3Fu/"),
        ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx!", "{SSHA}TkiRXrKy+VsZJ1H5HPtEe0eoadA6ODaE"),
        ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx!", "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$8SlgpuAiIz8MQ2x/3ks6AQ$5xr/r4rrafOa8M4v/sAn3G8QvRqDT1hLSY3CG+CYOpo"),
    ];

    fn parse(field: &str) -> Result<Secret, BadSecret> {
        Secret::parse(field.as_bytes())
    }

    #[test]
    fn fields_made_by_dovecot_are_accepted() {
        for (password, field) in DOVECOTS {
            let secret = parse(field).unwrap_or_else(|error| panic!("{field}: {error}"));
            assert!(secret.matches(password.as_bytes()), "{field}");
            for wrong in ["", "Secret", "secret ", &password[1..], &format!("x{password}")] {
                assert!(!secret.matches(wrong.as_bytes()), "{field} {wrong:?}");
            }
        }
    }

    /// Fields of Dovecot 2.3.19's `doveadm pw`, and lines of /etc/shadow.
    #[test]
    fn fields_of_older_programs_are_accepted() {
        for field in [
            "{MD5-CRYPT}$1$Q4FstVWN$CLc8X7s/Raxuogk8Bb6D0.",
            "{CRYPT}$1$Q4FstVWN$CLc8X7s/Raxuogk8Bb6D0.",
            "$1$Q4FstVWN$CLc8X7s/Raxuogk8Bb6D0.",
            "{PBKDF2}$1$TGC/7fCfv2BRPbbe$5000$349a5afd839eca134dd6da7dacb960c9ef965950",
            "{SCRAM-SHA-1}4096,wOEXq7XC8v1Dt8xyzZg8wg==,v9pgOkfVkLfTHHdD5N+Y3M2O+1c=,+OyBYELEWHx8jQJuiKMxrampYEo=",
            "{SMD5}Vu/oKzAGhXDUOwgu0JO7fYCSUSc=",
            "{LDAP-MD5}KrljkMfb40Od500MmwsXZw==",
            "{PLAIN-MD5}2ab96390c7dbe3439de74d0c9b0b1767",
            "{CRAM-MD5}60ebd8347e945af7703b0d59d8bfedc236234196f561c057cf5a5d5a6e58304a",
            "{CRYPT}$y$j9T$F5Jx5fExrKuPp53xLKQ..1$PmNgGTLMFjJn.URBv11CpTEm5RwlKtPjRtztKe6.b33",
            "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$PmNgGTLMFjJn.URBv11CpTEm5RwlKtPjRtztKe6.b33",
        ] {
            let secret = parse(field).unwrap_or_else(|error| panic!("{field}: {error}"));
            assert!(secret.matches(b"hunter2"), "{field}");
            assert!(!secret.matches(b"hunter3") && !secret.matches(b""), "{field}");
        }
    }

    #[test]
    fn accounts_of_the_system_without_a_password_are_locked() {
        for field in ["!", "*", "!!", "!$6$salt$hash", "{CRYPT}!", "{CRYPT}*"] {
            assert_eq!(parse(field).unwrap_err(), BadSecret::Locked, "{field}");
        }
    }

    #[test]
    fn only_quick_digests_are_weak() {
        for (field, is_weak) in [
            ("{PLAIN-MD5}2ab96390c7dbe3439de74d0c9b0b1767", true),
            ("{SMD5}Vu/oKzAGhXDUOwgu0JO7fYCSUSc=", true),
            ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", true),
            ("$1$Q4FstVWN$CLc8X7s/Raxuogk8Bb6D0.", true),
            ("{SSHA}8TwjTrfm6ER9cweFQsqCDgulWPKEfd39", false),
            ("{PLAIN}x", false),
        ] {
            assert_eq!(parse(field).unwrap().is_weak(), is_weak, "{field}");
        }
    }

    #[test]
    fn schemes_are_case_insensitive() {
        assert!(parse("{plain}x").unwrap().matches(b"x"));
        assert!(parse("{Plain.Hex}7A7a").unwrap().matches(b"zz"));
    }

    #[test]
    fn fields_made_by_this_server_are_accepted() {
        for scheme in Scheme::value_variants() {
            for password in ["secret", "a:b c", "pässword"] {
                let field = scheme.field(password.as_bytes());
                let name = scheme.to_possible_value().unwrap();
                assert!(field.starts_with(&format!("{{{}", name.get_name())) && !field.contains(':'), "{field}");
                let secret = parse(&field).unwrap();
                assert!(secret.matches(password.as_bytes()) && !secret.matches(b"Secret"), "{field}");
            }
        }
        assert_ne!(Scheme::Argon2id.field(b"secret"), Scheme::Argon2id.field(b"secret"));
    }

    /// Dovecot and crypt(3) ignore the rest, too.
    #[test]
    fn bcrypt_uses_the_first_72_octets_of_a_longer_password() {
        let long = "x".repeat(BCRYPT_LIMIT);
        let secret = parse(&Scheme::BlfCrypt.field(long.as_bytes())).unwrap();
        assert!(secret.matches(long.as_bytes()) && secret.matches(format!("{long}y").as_bytes()));
        assert!(!secret.matches(&long.as_bytes()[1..]));
    }

    #[test]
    fn an_unusable_field_is_refused_with_its_reason() {
        for field in ["secret", "", "{}x", "{PLAIN", "PLAIN}x", "x{PLAIN}x", "{a b}x"] {
            assert_eq!(parse(field).unwrap_err(), BadSecret::NoScheme, "{field}");
        }
        for (field, scheme) in [("{GSSAPI}x", "GSSAPI"), ("{PLAIN.rot13}x", "PLAIN.ROT13"), ("{x}", "X")] {
            assert_eq!(parse(field).unwrap_err(), BadSecret::UnknownScheme(scheme.into()), "{field}");
        }
        let argon2i =
            "{ARGON2ID}$argon2i$v=19$m=4096,t=3,p=1$LFURWqmFjS1o5FUR4CJVYQ$hmzC6ViktqMi6GmWTgRjJF2fpgKxFoHiMRJgeLzcWI0";
        for field in [
            argon2i,
            "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$tV2LFYvAfedRUEgVc2DXCw",
            "{ARGON2ID}",
            "{SHA512-CRYPT}$5$M1yPT.jMuoBPZmkD$jAumdrYch7.KkJjggJC6qqvTmK8Px5DYe6tGUG6oEtC",
            "{SHA256-CRYPT}$5$M1yPT.jMuoBPZmkD$jAumdrYch7",
            "{SHA256-CRYPT}$5$rounds=5$M1yPT.jMuoBPZmkD$jAumdrYch7.KkJjggJC6qqvTmK8Px5DYe6tGUG6oEtC",
            "{CRYPT}$1$salt$hash",
            "$6$salt$hash",
            "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$short",
            "{MD5-CRYPT}$1$x$y",
            "{PBKDF2}$1$salt$0$349a5afd839eca134dd6da7dacb960c9ef965950",
            "{CRAM-MD5}60eb",
            "{LDAP-MD5}KrljkMfb40Od500MmwsX",
            "{SCRAM-SHA-1}4096,a,b,c",
            "{CRYPT}$2x$05$fo4ZtJ06qtxQCNjuaPwbYObJC/5Td6vfua19SxBVXAyn6p2g/5QLS",
            "{SSHA}W+upOdAqMoI4",
            "{SHA256}",
            "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/UnolsA",
            "{PLAIN.hex}abc",
            "{PLAIN.hex}gg",
            "{PLAIN.b64}*",
            "{SCRAM-SHA-256}4096,a,b,c",
        ] {
            assert!(matches!(parse(field).unwrap_err(), BadSecret::Malformed(_)), "{field}");
        }
        for field in [
            // made by `doveadm pw -s ARGON2ID -r 5`, which takes a gigabyte for each login
            "{ARGON2ID}$argon2id$v=19$m=1048576,t=5,p=1$CUPVuXn1IqbMT/NrC91Fpw$/nyIQ8Cu2cOAm7fMscYHUdnrOIUMiRorZPhsezGpNlE",
            "{ARGON2ID}$argon2id$v=19$m=65536,t=4000000,p=1$tV2LFYvAfedRUEgVc2DXCw$C6rLVzMbz9mn/OIvue3cj7yp0RVkGmTE6S+rL0ppyDc",
            "{BLF-CRYPT}$2y$31$fo4ZtJ06qtxQCNjuaPwbYObJC/5Td6vfua19SxBVXAyn6p2g/5QLS",
            "{CRYPT}$5$rounds=999999999$M1yPT.jMuoBPZmkD$jAumdrYch7.KkJjggJC6qqvTmK8Px5DYe6tGUG6oEtC",
        ] {
            assert!(matches!(parse(field).unwrap_err(), BadSecret::TooCostly(_)), "{field}");
        }
    }

    #[test]
    fn no_error_or_debug_text_contains_a_password_field() {
        for field in ["hunter2", "{MD5}hunter2", "{SHA}hunter2", "{hunter2", "{PLAIN.x}hunter2"] {
            assert!(!parse(field).unwrap_err().to_string().contains("hunter2"), "{field}");
        }
        assert!(!format!("{:?}", parse("{PLAIN}hunter2").unwrap()).contains("hunter2"));
    }
}
