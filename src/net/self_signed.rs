//! A certificate of the server's own making, for set-ups where nobody else signs one.

use std::io;
use std::path::PathBuf;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustix::system::uname;
use time::{Duration, OffsetDateTime};

use crate::state::StateDir;

/// What the state directory calls them.
const CHAIN: &str = "tls-cert.pem";
const KEY: &str = "tls-key.pem";

/// How long it is valid; from a day ago on, for clocks that are behind.
const VALIDITY: Duration = Duration::days(3650);

/// The certificate and its key in `state`, made when there are none yet: for `name`, or the host's, and for loopback.
///
/// # Errors
/// When they cannot be made or kept, and when one of them is there alone: a new pair would be another server to those
/// who trust the old one.
pub fn self_signed(state: &StateDir, name: Option<&str>) -> io::Result<(PathBuf, PathBuf)> {
    let (chain, key) = (state.file(CHAIN), state.file(KEY));
    let lost = |missing: &PathBuf, left: &PathBuf| {
        let (missing, left) = (missing.display(), left.display());
        io::Error::other(format!("{missing} is missing beside {left}: put it back, or remove that too for a new pair"))
    };
    match (chain.try_exists()?, key.try_exists()?) {
        (true, true) => {}
        (true, false) => return Err(lost(&key, &chain)),
        // One that is about to be made ends so when the disk is full or the server is killed. Nobody has seen it.
        (false, _) => {
            let (certificate, private) = make(name).map_err(io::Error::other)?;
            state.replace(KEY, private.as_bytes())?;
            state.replace(CHAIN, certificate.as_bytes())?;
            log::info!("a TLS certificate has been made: {}, its key {}", chain.display(), key.display());
        }
    }
    Ok((chain, key))
}

/// A certificate and its key, in PEM.
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
    fn one_is_made_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path().to_owned()).unwrap();
        let (chain, key) = self_signed(&state, None).unwrap();
        let first = fs::read(&chain).unwrap();
        Certificate::open(chain.clone(), key.clone()).unwrap();
        self_signed(&state, Some("mail.example")).unwrap();
        assert_eq!(fs::read(&chain).unwrap(), first);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn one_whose_key_is_lost_is_not_replaced() {
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
