//! The server's certificate and key: read at the start, and again when told, while sessions go on with the old ones.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustix::system::uname;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::state::StateDir;

/// What the state directory calls a certificate of the server's own making.
const CHAIN: &str = "tls-cert.pem";
const KEY: &str = "tls-key.pem";

/// A certificate chain and its private key, in PEM files, as TLS uses them.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
}

/// Why a certificate cannot be used.
#[derive(Debug)]
pub enum CertificateError {
    /// A file is not there, cannot be read, or has nothing of the kind in it.
    File(PathBuf, pem::Error),
    /// They are no pair, or the key is of a kind that is not supported.
    Unusable(rustls::Error),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, pem::Error::Io(error)) => write!(f, "cannot read {}: {error}", path.display()),
            Self::File(path, pem::Error::NoItemsFound) => {
                write!(f, "{} has no certificate or private key in PEM", path.display())
            }
            Self::File(path, error) => write!(f, "{} is not in PEM: {error}", path.display()),
            Self::Unusable(rustls::Error::InconsistentKeys(_)) => f.write_str("the key is not the certificate's"),
            Self::Unusable(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CertificateError {}

impl Certificate {
    /// Reads and checks both files.
    ///
    /// # Errors
    /// [`CertificateError`]
    pub fn open(chain: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let config = RwLock::new(Arc::new(load(&chain, &key)?));
        Ok(Self { chain, key, config })
    }

    /// Reads the files again, for connections from now on.
    ///
    /// # Errors
    /// [`CertificateError`]; the old certificate stays.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let config = load(&self.chain, &self.key)?;
        *self.config.write() = Arc::new(config);
        Ok(())
    }

    /// What a new connection uses.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read())
    }
}

fn load(chain: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |error| CertificateError::File(path, error)
    };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(chain))?;
    if certificates.is_empty() {
        return Err(CertificateError::File(chain.to_owned(), pem::Error::NoItemsFound));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    warn_of_readers(key);
    log::info!("TLS certificate {}, SHA-256 {}", chain.display(), fingerprint(&certificates[0]));

    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let mut config = builder
        .with_safe_default_protocol_versions() // TLS 1.2 and 1.3
        .map_err(CertificateError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(CertificateError::Unusable)?;
    // Sessions are resumed by tickets, which need no memory here.
    config.ticketer = Ticketer::new().map_err(CertificateError::Unusable)?;
    Ok(config)
}

/// What a person compares who is shown a certificate that nobody has signed.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|octet| format!("{octet:02X}")).collect::<Vec<_>>().join(":")
}

/// A private key is for the server's user alone; a group may have been given it on purpose.
fn warn_of_readers(key: &Path) {
    if let Ok(mode) = fs::metadata(key).map(|metadata| metadata.permissions().mode())
        && mode & 0o007 != 0
    {
        log::warn!("{}: everybody on this machine may read or change the private key (chmod o= it)", key.display());
    }
}

/// Makes a certificate that signs itself, for this host's name and the loopback addresses, when `state` does not have
/// one yet. Returns its two files.
///
/// # Errors
/// When it cannot be made or kept.
pub fn self_signed(state: &StateDir) -> io::Result<(PathBuf, PathBuf)> {
    let (chain, key) = (state.file(CHAIN), state.file(KEY));
    if !(chain.exists() && key.exists()) {
        let host = uname().nodename().to_string_lossy().into_owned();
        let names = vec![host, "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        state.replace(KEY, made.signing_key.serialize_pem().as_bytes())?;
        state.replace(CHAIN, made.cert.pem().as_bytes())?;
    }
    Ok((chain, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, StateDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path().to_owned()).unwrap();
        let (chain, key) = self_signed(&state).unwrap();
        (directory, state, chain, key)
    }

    fn refused(chain: &Path, key: &Path) -> String {
        Certificate::open(chain.to_owned(), key.to_owned()).unwrap_err().to_string()
    }

    #[test]
    fn a_self_signed_one_is_made_once_and_private() {
        let (_directory, state, chain, key) = made();
        let first = fs::read(&chain).unwrap();
        Certificate::open(chain.clone(), key.clone()).unwrap();
        self_signed(&state).unwrap();
        assert_eq!(fs::read(&chain).unwrap(), first);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        // With one file alone both are made anew.
        fs::remove_file(&chain).unwrap();
        self_signed(&state).unwrap();
        Certificate::open(chain, key).unwrap();
    }

    #[test]
    fn what_is_wrong_with_the_files_is_told() {
        let (_first, _, chain, key) = made();
        let (_second, _, other, other_key) = made();
        assert!(refused(&chain, &other_key).contains("the key is not the certificate's"));
        assert!(refused(&key, &key).contains("has no certificate or private key in PEM"));
        assert!(refused(&chain, &chain).contains("has no certificate or private key in PEM"));
        assert!(refused(&chain.with_file_name("none"), &key).contains("none: No such file"));
        fs::write(&other, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(refused(&other, &key).contains("is not in PEM"));
        fs::write(&other, "").unwrap();
        assert!(refused(&other, &key).contains("has no certificate or private key in PEM"));
    }

    #[test]
    fn a_reload_that_fails_keeps_the_old_one() {
        let (_directory, _, chain, key) = made();
        let certificate = Certificate::open(chain.clone(), key).unwrap();
        let before = certificate.config();
        fs::write(&chain, "").unwrap();
        assert!(certificate.reload().is_err());
        assert!(Arc::ptr_eq(&before, &certificate.config()));
    }
}
