//! The server's certificate and key, as read at one time.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

use super::self_signed;
use crate::{owner, trust};

/// A certificate chain and its private key as TLS uses them.
#[derive(Debug)]
pub struct Certificate {
    config: Arc<ServerConfig>,
    expiry: Option<UnixTime>,
}

/// Why a certificate cannot be used.
#[derive(Debug)]
pub enum CertificateError {
    /// A file is not there, cannot be read, or is not in PEM.
    File(PathBuf, pem::Error),
    /// A file has no certificate, or no private key, in it, but this.
    Absent(PathBuf, &'static str, Found),
    /// The key is that of a later certificate of the chain.
    Order(PathBuf, PathBuf, usize),
    /// The key is of no certificate in the chain.
    NoPair(PathBuf, PathBuf),
    /// The certificate or the key is of a kind that is not supported.
    Unusable(PathBuf, PathBuf, rustls::Error),
}

/// What is in a file in PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing that TLS needs.
    Nothing,
    /// One or more certificates.
    Certificate,
    /// A private key.
    Key,
    /// A private key that takes a passphrase.
    EncryptedKey,
}

impl Found {
    fn of(text: &[u8]) -> Self {
        let has = |what: &str| memchr::memmem::find(text, what.as_bytes()).is_some();
        match () {
            // By PKCS #8, and as OpenSSL wrote them before.
            () if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") => Self::EncryptedKey,
            () if has("PRIVATE KEY-----") => Self::Key,
            () if has("-----BEGIN CERTIFICATE-----") => Self::Certificate,
            () => Self::Nothing,
        }
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, pem::Error::Io(error)) => write!(f, "cannot read {}: {error}", path.display()),
            Self::File(path, error) => write!(f, "{} is not in PEM: {error}", path.display()),
            Self::Absent(path, _, Found::EncryptedKey) => write!(
                f,
                "the private key in {0} is encrypted, and the server has nobody to ask for its passphrase \
                 (openssl pkey -in {0} takes it off)",
                path.display()
            ),
            Self::Absent(path, wanted, found) => {
                write!(f, "{} has no {wanted} in PEM", path.display())?;
                match found {
                    Found::Certificate => f.write_str(", it has a certificate"),
                    Found::Key => f.write_str(", it has a private key"),
                    Found::Nothing | Found::EncryptedKey => Ok(()),
                }
            }
            Self::Order(chain, key, number) => write!(
                f,
                "the key in {} is that of certificate {number} in {}, where the server's own has to be the first",
                key.display(),
                chain.display()
            ),
            Self::NoPair(chain, key) => {
                write!(f, "the key in {} is not that of the certificate in {}", key.display(), chain.display())
            }
            Self::Unusable(chain, key, error) => {
                write!(f, "{} with {}: ", chain.display(), key.display())?;
                match error {
                    rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding) => {
                        f.write_str("it is no X.509 certificate")
                    }
                    rustls::Error::InvalidCertificate(rustls::CertificateError::Other(reason)) => {
                        write!(f, "it is no certificate as TLS has them, of X.509 version 3 ({reason})")
                    }
                    error => error.fmt(f),
                }
            }
        }
    }
}

impl std::error::Error for CertificateError {}

impl CertificateError {
    /// What kind of error the system has reported, if it is one of the system's.
    #[must_use]
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::File(_, pem::Error::Io(error)) => Some(error.kind()),
            _ => None,
        }
    }
}

impl Certificate {
    /// Reads and checks both files.
    ///
    /// # Errors
    /// [`CertificateError`]
    pub fn open(chain: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        load(&chain, &key)
    }

    /// Makes one that lives as long as the server: for `name`, or the host's, and for loopback. The log tells its
    /// fingerprint, by which a person can recognise it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn of_this_run(name: Option<&str>) -> io::Result<Self> {
        let (chain, key) = self_signed::make(name).map_err(io::Error::other)?;
        let own = CertificateDer::from_pem_slice(chain.as_bytes()).map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(io::Error::other)?;
        log::info!("TLS certificate of this run (with --state it would be kept), SHA-256 {}", fingerprint(&own));
        let expiry = expiry(&own);
        let config = config(vec![own], key).and_then(with_tickets).map_err(io::Error::other)?;
        Ok(Self { config: Arc::new(config), expiry })
    }

    /// When the server's own certificate expires.
    #[must_use]
    pub fn expiry(&self) -> Option<UnixTime> {
        self.expiry
    }

    /// What a new connection uses.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

fn load(chain: &Path, key: &Path) -> Result<Certificate, CertificateError> {
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| CertificateError::File(chain.to_owned(), error))?;
    let Some(own) = certificates.first() else { return Err(absent(chain, "certificate")) };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match absent(key, "private key") {
        // Its octets do not look like PEM to who does not know.
        encrypted @ CertificateError::Absent(_, _, Found::EncryptedKey) => encrypted,
        other if matches!(error, pem::Error::NoItemsFound) => other,
        _ => CertificateError::File(key.to_owned(), error),
    })?;
    owner::warn_of_others(key);
    log::info!("TLS certificate {}, SHA-256 {}", chain.display(), fingerprint(own));
    warn_of_dates(chain, own);

    let unusable = |error| CertificateError::Unusable(chain.to_owned(), key.to_owned(), error);
    let config = match config(certificates.clone(), private.clone_key()) {
        Err(rustls::Error::InconsistentKeys(_)) => {
            let pairs =
                |certificate: &CertificateDer<'static>| config(vec![certificate.clone()], private.clone_key()).is_ok();
            let (chain, key) = (chain.to_owned(), key.to_owned());
            return Err(match certificates.iter().position(pairs) {
                Some(at) => CertificateError::Order(chain, key, at + 1),
                None => CertificateError::NoPair(chain, key),
            });
        }
        config => config.map_err(unusable)?,
    };
    let config = with_tickets(config).map_err(unusable)?;
    let expiry = expiry(own);
    Ok(Certificate { config: Arc::new(config), expiry })
}

/// Sessions are resumed by tickets, which need no memory here.
fn with_tickets(mut config: ServerConfig) -> Result<ServerConfig, rustls::Error> {
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

fn config(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, rustls::Error> {
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()? // TLS 1.2 and 1.3
        .with_no_client_auth()
        .with_single_cert(chain, key)
}

/// What `path` has in the place of what is `wanted`.
fn absent(path: &Path, wanted: &'static str) -> CertificateError {
    match fs::read(path) {
        Ok(text) => CertificateError::Absent(path.to_owned(), wanted, Found::of(&text)),
        Err(error) => CertificateError::File(path.to_owned(), pem::Error::Io(error)),
    }
}

/// Clients will refuse a certificate that has expired. The server goes on: those that do not look get their mail.
fn warn_of_dates(chain: &Path, own: &CertificateDer<'_>) {
    if let Some(fault) = fault_of_dates(own, UnixTime::now()) {
        log::warn!("the TLS certificate {} {fault}; clients that look will refuse it", chain.display());
    }
}

fn fault_of_dates(own: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    trust::explain_dates(&fault_at(own, now)?)
}

/// When the certificate expires.
fn expiry(own: &CertificateDer<'_>) -> Option<UnixTime> {
    // There is no certificate that is still valid then, as its dates have four digits for the year.
    let far_future = UnixTime::since_unix_epoch(Duration::from_secs(1 << 40));
    match fault_at(own, far_future)? {
        rustls::CertificateError::ExpiredContext { not_after, .. } => Some(not_after),
        _ => None,
    }
}

/// What a client sees wrong in the certificate at that time. One that trusts the certificate itself looks at its dates
/// first.
fn fault_at(own: &CertificateDer<'_>, now: UnixTime) -> Option<rustls::CertificateError> {
    let mut roots = RootCertStore::empty();
    roots.add(own.clone().into_owned()).ok()?;
    let client =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build().ok()?;
    let any_name = ServerName::try_from("localhost").ok()?;
    match client.verify_server_cert(own, &[], &any_name, &[], now) {
        Err(rustls::Error::InvalidCertificate(error)) => Some(error),
        _ => None,
    }
}

/// What a person compares who is shown a certificate that nobody has signed.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|octet| format!("{octet:02X}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tempfile::TempDir;
    use time::macros::datetime;

    /// The files of a certificate that signs itself.
    fn pair() -> (TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (chain, private) = (directory.path().join("chain"), directory.path().join("key"));
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        fs::write(&chain, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&private, key.serialize_pem()).unwrap();
        (directory, chain, private)
    }

    #[track_caller]
    fn refused(chain: &Path, key: &Path, said: &str) {
        let why = Certificate::open(chain.to_owned(), key.to_owned()).unwrap_err().to_string();
        let wanted = said.replace("CHAIN", chain.to_str().unwrap()).replace("KEY", key.to_str().unwrap());
        assert!(why.contains(&wanted) && !why.contains('\n'), "{why}");
    }

    #[test]
    fn what_is_wrong_with_the_files_is_told() {
        let (_first, chain, key) = pair();
        let (_second, other, other_key) = pair();
        refused(&chain, &other_key, "the key in KEY is not that of the certificate in CHAIN");
        refused(&key, &key, "CHAIN has no certificate in PEM, it has a private key");
        refused(&chain, &chain, "KEY has no private key in PEM, it has a certificate");
        refused(&chain.with_file_name("none"), &key, "cannot read CHAIN: No such file");
        refused(&chain, &chain.with_file_name("none"), "cannot read KEY: No such file");
        let turned = [&chain, &other].map(|file| fs::read_to_string(file).unwrap()).concat();
        fs::write(&chain, turned).unwrap();
        refused(&chain, &other_key, "the key in KEY is that of certificate 2 in CHAIN");
        Certificate::open(chain.clone(), key.clone()).unwrap();
        fs::write(&other, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
        refused(&other, &key, "CHAIN is not in PEM");
        fs::write(&other, "").unwrap();
        refused(&other, &key, "CHAIN has no certificate in PEM");
        fs::write(&other, "-----BEGIN CERTIFICATE-----\naGFsbG8=\n-----END CERTIFICATE-----\n").unwrap();
        refused(&other, &key, "CHAIN with KEY: it is no X.509 certificate");
    }

    #[test]
    fn an_encrypted_key_is_told_as_that() {
        let (_directory, chain, key) = pair();
        for text in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHs\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIHs\n-----END EC PRIVATE KEY-----\n",
        ] {
            fs::write(&key, text).unwrap();
            refused(&chain, &key, "the private key in KEY is encrypted");
        }
    }

    #[test]
    fn dates_are_told_when_they_are_not_now() {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = datetime!(2020-01-01 0:00 UTC);
        params.not_after = datetime!(2021-01-01 0:00 UTC);
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = Issuer::new(authority, KeyPair::generate().unwrap());

        for own in [params.self_signed(&key).unwrap(), params.signed_by(&key, &authority).unwrap()] {
            let fault = |time: time::OffsetDateTime| {
                let seconds = time.unix_timestamp().cast_unsigned();
                fault_of_dates(own.der(), UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
            };
            let last = datetime!(2021-01-01 0:00 UTC).unix_timestamp().cast_unsigned();
            assert_eq!(expiry(own.der()).map(|time| time.as_secs()), Some(last));
            assert_eq!(fault(datetime!(2020-06-01 0:00 UTC)), None);
            assert_eq!(fault(datetime!(2022-01-01 0:00 UTC)).unwrap(), "has expired: 2021-01-01 was its last day");
            assert!(fault(datetime!(2019-01-01 0:00 UTC)).unwrap().starts_with("is not valid before 2020-01-01"));
        }
    }
}
