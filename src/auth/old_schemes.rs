//! Schemes that only files of other programs have: new passwords are not stored in them.
//!
//! MD5-crypt is here because no maintained crate has it; the digests themselves come from crates.

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use md5::block_api::compress;
use md5::{Digest, Md5};
use sha1::Sha1;
use subtle::ConstantTimeEq;

use super::scram;

/// The alphabet of crypt(3).
const CRYPT_DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The most octets of a salt that MD5-crypt uses.
const MD5_CRYPT_SALT: usize = 8;

/// The order in which MD5-crypt writes the octets of its digest, three for each four digits.
const MD5_CRYPT_ORDER: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];

/// The state of MD5 before the first block (RFC 1321 section 3.3).
const MD5_START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// A hash of MD5-crypt: `$1$SALT$DIGITS`.
#[derive(Clone)]
pub(super) struct Md5Crypt {
    salt: Vec<u8>,
    digits: Vec<u8>,
}

impl Md5Crypt {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (salt, digits) = text.strip_prefix("$1$")?.split_once('$')?;
        let is_valid = salt.len() <= MD5_CRYPT_SALT && digits.len() == 22 && digits.bytes().all(is_crypt_digit);
        is_valid.then(|| Self { salt: salt.into(), digits: digits.into() })
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        md5_crypt(password, &self.salt).ct_eq(&self.digits).into()
    }
}

fn is_crypt_digit(octet: u8) -> bool {
    CRYPT_DIGITS.contains(&octet)
}

/// The digits that MD5-crypt makes of a password, as FreeBSD's crypt(3) first did.
fn md5_crypt(password: &[u8], salt: &[u8]) -> Vec<u8> {
    let other: [u8; 16] = Md5::digest([password, salt, password].concat()).into();
    let mut start = [password, b"$1$", salt].concat();
    start.extend(other.iter().cycle().take(password.len()));
    let mut length = password.len();
    while length > 0 {
        start.push(if length & 1 == 1 { 0 } else { password[0] });
        length >>= 1;
    }
    let mut digest: [u8; 16] = Md5::digest(start).into();
    for round in 0..1000 {
        let (first, last) = if round % 2 == 1 { (password, &digest[..]) } else { (&digest[..], password) };
        let salt = if round % 3 == 0 { &[] } else { salt };
        let middle = if round % 7 == 0 { &[] } else { password };
        digest = Md5::digest([first, salt, middle, last].concat()).into();
    }
    let mut digits = Vec::new();
    for [a, b, c] in MD5_CRYPT_ORDER {
        put_digits(&mut digits, u32::from_be_bytes([0, digest[a], digest[b], digest[c]]), 4);
    }
    put_digits(&mut digits, u32::from(digest[11]), 2);
    digits
}

/// Appends the lowest bits of a value, six in each digit.
fn put_digits(digits: &mut Vec<u8>, mut value: u32, count: usize) {
    for _ in 0..count {
        digits.push(CRYPT_DIGITS[(value & 63) as usize]);
        value >>= 6;
    }
}

/// What CRAM-MD5 needs of a password (RFC 2195): the states of HMAC-MD5 after its two keys, the outer one first, as Dovecot
/// writes them.
pub(super) fn cram_md5(password: &[u8]) -> Vec<u8> {
    let mut key = [0; 64];
    match password.len() {
        0..=64 => key[..password.len()].copy_from_slice(password),
        _ => key[..16].copy_from_slice(&Md5::digest(password)),
    }
    let state = |pad: u8| {
        let mut state = MD5_START;
        compress(&mut state, &[key.map(|octet| octet ^ pad)]);
        state.into_iter().flat_map(u32::to_le_bytes)
    };
    state(0x5c).chain(state(0x36)).collect()
}

/// A hash of Dovecot's scheme PBKDF2, `$1$SALT$ROUNDS$DIGITS`, made with HMAC-SHA-1.
#[derive(Clone)]
pub(super) struct Pbkdf2 {
    salt: Vec<u8>,
    pub(super) rounds: u32,
    hash: Vec<u8>,
}

impl Pbkdf2 {
    pub(super) fn parse(text: &str, hex: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Option<Self> {
        let mut fields = text.strip_prefix("$1$")?.split('$');
        let (salt, rounds, digits) = (fields.next()?, fields.next()?, fields.next()?);
        let hash = hex(digits.as_bytes()).filter(|hash| hash.len() == 20 && fields.next().is_none())?;
        let rounds = rounds.parse().ok().filter(|rounds| *rounds > 0)?;
        Some(Self { salt: salt.into(), rounds, hash })
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        pbkdf2::pbkdf2_hmac_array::<Sha1, 20>(password, &self.salt, self.rounds).ct_eq(&self.hash[..]).into()
    }
}

/// The keys of SCRAM-SHA-1 (RFC 5802), of which the one is kept that a password is checked with.
#[derive(Clone)]
pub(super) struct ScramSha1 {
    pub(super) iterations: u32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
}

impl ScramSha1 {
    /// Reads `iterations,salt,storedkey,serverkey`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split(',').collect();
        let [iterations, salt, stored_key, server_key] = fields[..] else { return None };
        let key = |text| BASE64.decode(text).ok().filter(|key| key.len() == 20);
        let iterations = iterations.parse().ok().filter(|iterations| *iterations > 0)?;
        key(server_key)?;
        Some(Self { iterations, salt: BASE64.decode(salt).ok()?, stored_key: key(stored_key)? })
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let password = scram::prepared(password);
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha1, 20>(&password, &self.salt, self.iterations);
        let mac = Hmac::<Sha1>::new_from_slice(&salted).expect("HMAC takes keys of any length");
        let client_key = mac.chain_update(b"Client Key").finalize().into_bytes();
        Sha1::digest(client_key).ct_eq(&self.stored_key[..]).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl passwd -1 -salt SALT PASSWORD`.
    #[test]
    fn md5_crypt_is_that_of_openssl() {
        for (password, text) in
            [("hunter2", "$1$abcdefgh$vhxKZ/s1ygZHyCEDPyqtQ/"), ("", "$1$abcdefgh$M55TzYaaccxVGbptZWaxX/")]
        {
            assert!(Md5Crypt::parse(text).unwrap().matches(password.as_bytes()), "{text}");
        }
        for wrong in [
            "",
            "$1$",
            "$1$salt",
            "$1$salt$",
            "$1$saltsalts$vhxKZ/s1ygZHyCEDPyqtQ/",
            "$5$a$b",
            "$1$a$!hxKZ/s1ygZHyCEDPyqtQ/",
        ] {
            assert!(Md5Crypt::parse(wrong).is_none(), "{wrong}");
        }
    }
}
