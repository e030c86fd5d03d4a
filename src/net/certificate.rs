//! The server's certificate and key: read at the start, and again when told, while sessions go on with the old ones.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

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

/// A private key is for the server's user alone; a group may have been given it on purpose.
fn warn_of_readers(key: &Path) {
    if let Ok(mode) = fs::metadata(key).map(|metadata| metadata.permissions().mode())
        && mode & 0o007 != 0
    {
        log::warn!("{}: everybody on this machine may read or change the private key (chmod o= it)", key.display());
    }
}

/// Makes a certificate that signs itself, for `names`, when `directory` does not have one yet. Returns its two files.
///
/// # Errors
/// When it cannot be made or kept.
pub fn self_signed(directory: &Path, names: Vec<String>) -> io::Result<(PathBuf, PathBuf)> {
    let (chain, key) = (directory.join("tls-cert.pem"), directory.join("tls-key.pem"));
    if !(chain.exists() && key.exists()) {
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        // The key first: with one file alone both are made anew.
        keep(&key, &made.signing_key.serialize_pem())?;
        keep(&chain, &made.cert.pem())?;
    }
    Ok((chain, key))
}

/// Whole or not at all, and for the server's user alone.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = self_signed(directory.path(), vec!["localhost".to_owned()]).unwrap();
        (directory, chain, key)
    }

    fn refused(chain: &Path, key: &Path) -> String {
        Certificate::open(chain.to_owned(), key.to_owned()).unwrap_err().to_string()
    }

    #[test]
    fn a_self_signed_one_is_made_once_and_private() {
        let (directory, chain, key) = made();
        let first = fs::read(&chain).unwrap();
        Certificate::open(chain.clone(), key.clone()).unwrap();
        self_signed(directory.path(), vec!["localhost".to_owned()]).unwrap();
        assert_eq!(fs::read(&chain).unwrap(), first);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&chain).unwrap();
        self_signed(directory.path(), vec!["localhost".to_owned()]).unwrap();
        Certificate::open(chain, key).unwrap();
    }

    #[test]
    fn what_is_wrong_with_the_files_is_told() {
        let (_first, chain, key) = made();
        let (_second, other, other_key) = made();
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
        let (_directory, chain, key) = made();
        let certificate = Certificate::open(chain.clone(), key).unwrap();
        let before = certificate.config();
        fs::write(&chain, "").unwrap();
        assert!(certificate.reload().is_err());
        assert!(Arc::ptr_eq(&before, &certificate.config()));
    }
}
