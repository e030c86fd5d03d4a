//! A client's side of SCRAM-SHA-256, written from RFC 5802 independently of the server's code.

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::Client;

/// Starts AUTH SCRAM-SHA-256 as `user` (RFC 5802). Returns the message that completes the exchange with `password`.
pub(crate) fn scram(client: &mut Client, user: &str, password: &str) -> String {
    bound_scram(client, "SCRAM-SHA-256", ("n,,", b""), user, password)
}

/// The same for either mechanism, with the header and the channel's binding.
pub(crate) fn bound_scram(
    client: &mut Client,
    mechanism: &str,
    (header, binding): (&str, &[u8]),
    user: &str,
    password: &str,
) -> String {
    let bare = format!("n={user},r=nonce");
    client.send(&format!("AUTH {mechanism} {}", BASE64.encode(format!("{header}{bare}"))));
    let line = client.line();
    let challenge = String::from_utf8(BASE64.decode(line.strip_prefix("+ ").unwrap()).unwrap()).unwrap();
    let mut fields = challenge.split(',').map(|field| &field[2..]);
    let mut next = || fields.next().unwrap();
    let (nonce, salt, iterations) = (next(), BASE64.decode(next()).unwrap(), next().parse().unwrap());
    let salted: [u8; 32] = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &salt, iterations);
    let hmac = |key: &[u8], octets: &[u8]| {
        Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(octets).finalize().into_bytes()
    };
    let without_proof = format!("c={},r={nonce}", BASE64.encode([header.as_bytes(), binding].concat()));
    let client_key = hmac(&salted, b"Client Key");
    let signature = hmac(&Sha256::digest(client_key), format!("{bare},{challenge},{without_proof}").as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    BASE64.encode(format!("{without_proof},p={}", BASE64.encode(proof)))
}
