//! Self-signed certificates (`--tls-self-signed`).

use std::io;
use std::path::PathBuf;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustix::system::uname;
use time::{Duration, OffsetDateTime};

use crate::state::StateDir;

/// The names of the files in the state directory.
const CHAIN: &str = "tls-cert.pem";
const KEY: &str = "tls-key.pem";

/// How long a certificate is valid. The time starts a day in the past, for clients whose clocks are slow.
const VALIDITY: Duration = Duration::days(3650);

/// Returns the paths of the certificate and the key in `state`, and creates them if both are missing. The certificate is
/// for `name` (by default the host's name) and for loopback.
///
/// # Errors
/// If they cannot be created or written. Also if the key is missing: clients that trust the old certificate would refuse
/// a new one, so the operator has to decide.
pub fn self_signed(state: &StateDir, name: Option<&str>) -> io::Result<(PathBuf, PathBuf)> {
    let (chain, key) = (state.file(CHAIN), state.file(KEY));
    let lost = |missing: &PathBuf, left: &PathBuf| {
        let (missing, left) = (missing.display(), left.display());
        io::Error::other(format!(
            "{missing} is missing beside {left}: restore it, or remove the other file as well to get a new pair"
        ))
    };
    match (chain.try_exists()?, key.try_exists()?) {
        (true, true) => {}
        (true, false) => return Err(lost(&key, &chain)),
        // A key without a certificate is left over from a creation that failed. No client has seen it, so it is replaced.
        (false, _) => {
            let (certificate, private) = make(name).map_err(io::Error::other)?;
            state.replace(KEY, private.as_bytes())?;
            state.replace(CHAIN, certificate.as_bytes())?;
            log::info!("created a TLS certificate: {}, and its key: {}", chain.display(), key.display());
        }
    }
    Ok((chain, key))
}

/// Makes a certificate and its key, both in PEM format.
pub(super) fn make(name: Option<&str>) -> Result<(String, String), rcgen::Error> {
    let name = name.map_or_else(|| uname().nodename().to_string_lossy().into_owned(), str::to_owned);
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = CertificateParams::new([vec![name.clone()], names.to_vec()].concat())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::DAY;
    params.not_after = params.not_before + VALIDITY;
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Certificate;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_certificate_is_created_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path().to_owned()).unwrap();
        let (chain, key) = self_signed(&state, None).unwrap();
        let first = fs::read(&chain).unwrap();
        Certificate::open(&chain, &key).unwrap();
        self_signed(&state, Some("mail.example")).unwrap();
        assert_eq!(fs::read(&chain).unwrap(), first);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_whose_key_is_missing_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path().to_owned()).unwrap();
        let (chain, key) = self_signed(&state, None).unwrap();
        let first = fs::read(&chain).unwrap();
        fs::remove_file(&key).unwrap();
        let why = self_signed(&state, None).unwrap_err().to_string();
        assert!(why.contains("tls-key.pem is missing beside") && why.contains("tls-cert.pem"), "{why}");
        assert_eq!(fs::read(&chain).unwrap(), first);
        fs::remove_file(&chain).unwrap();
        self_signed(&state, None).unwrap();
        assert_ne!(fs::read(&chain).unwrap(), first);
    }
}
