//! The server's certificate and key, as read at one time.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::self_signed;
use crate::{owner, trust};

/// A certificate chain and its private key, ready for TLS connections.
#[derive(Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    expiry: Option<UnixTime>,
}

/// Why a certificate cannot be used.
#[derive(Debug)]
pub enum CertificateError {
    /// A file is missing, cannot be read, or is not in PEM format.
    File(PathBuf, pem::Error),
    /// A file does not contain what it should (a certificate or a private key). `Found` says what it contains instead.
    Absent(PathBuf, &'static str, Found),
    /// The key belongs to a certificate of the chain that is not the first. The number is its position, from 1.
    Order(PathBuf, PathBuf, usize),
    /// The key does not belong to any certificate of the chain.
    NoPair(PathBuf, PathBuf),
    /// The certificate or the key is of a kind that is not supported.
    Unusable(PathBuf, PathBuf, rustls::Error),
}

/// What a PEM file contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing that TLS needs.
    Nothing,
    /// One or more certificates.
    Certificate,
    /// A private key.
    Key,
    /// A private key that is encrypted with a passphrase.
    EncryptedKey,
}

impl Found {
    fn of(text: &[u8]) -> Self {
        let has = |what: &str| memchr::memmem::find(text, what.as_bytes()).is_some();
        match () {
            // The first is the format of PKCS #8, the second OpenSSL's traditional format.
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
            Self::File(path, error) => write!(f, "{} is not in PEM format: {error}", path.display()),
            Self::Absent(path, _, Found::EncryptedKey) => write!(
                f,
                "the private key in {0} is encrypted, and the server cannot ask for its passphrase \
                 (openssl pkey -in {0} decrypts it)",
                path.display()
            ),
            Self::Absent(path, wanted, found) => {
                write!(f, "{} has no {wanted} in PEM format", path.display())?;
                match found {
                    Found::Certificate => f.write_str("; it contains a certificate"),
                    Found::Key => f.write_str("; it contains a private key"),
                    Found::Nothing | Found::EncryptedKey => Ok(()),
                }
            }
            Self::Order(chain, key, number) => write!(
                f,
                "the key in {} belongs to certificate {number} in {}; the server's own certificate has to be the first",
                key.display(),
                chain.display()
            ),
            Self::NoPair(chain, key) => {
                write!(f, "the key in {} does not belong to the certificate in {}", key.display(), chain.display())
            }
            Self::Unusable(chain, key, error) => {
                write!(f, "{} with {}: ", chain.display(), key.display())?;
                match error {
                    rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding) => {
                        f.write_str("it is not an X.509 certificate")
                    }
                    rustls::Error::InvalidCertificate(rustls::CertificateError::Other(reason)) => {
                        write!(f, "it is not an X.509 certificate of version 3, as TLS needs ({reason})")
                    }
                    error => error.fmt(f),
                }
            }
        }
    }
}

impl std::error::Error for CertificateError {}

impl CertificateError {
    /// Returns the kind of the error, if the operating system has reported it.
    #[must_use]
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::File(_, pem::Error::Io(error)) => Some(error.kind()),
            _ => None,
        }
    }
}

impl Certificate {
    /// Reads and checks the files of the chain and of the key.
    ///
    /// # Errors
    /// [`CertificateError`]
    pub fn open(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        load(chain, key)
    }

    /// Makes a certificate that lasts until the server ends. It is for `name` (by default the host's name) and for
    /// loopback. Its fingerprint is logged, so that a person can recognise it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn of_this_run(name: Option<&str>) -> io::Result<Self> {
        let (chain, key) = self_signed::make(name).map_err(io::Error::other)?;
        let own = CertificateDer::from_pem_slice(chain.as_bytes()).map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(io::Error::other)?;
        log::info!(
            "created a TLS certificate for this run (with --state it would be kept), SHA-256 {}",
            fingerprint(&own)
        );
        certified(vec![own], key).map(Self::new).map_err(io::Error::other)
    }

    fn new(key: CertifiedKey) -> Self {
        let own = key.cert.first();
        let (names, expiry) = (own.map(names).unwrap_or_default(), own.and_then(expiry));
        Self { key: Arc::new(key), names, expiry }
    }

    /// The DNS names that the certificate is for, which may begin with `*.`.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns true if clients that ask for `name` can accept the certificate. `name` may begin with `*.`.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        let is_same = |own: &String| own.eq_ignore_ascii_case(name);
        let covers = |own: &String| {
            let parent = name.split_once('.').map(|(_, parent)| parent);
            own.strip_prefix("*.").zip(parent).is_some_and(|(own, parent)| own.eq_ignore_ascii_case(parent))
        };
        self.names.iter().any(|own| is_same(own) || covers(own))
    }

    /// The expiry date of the server's own certificate, which is the first of the chain.
    #[must_use]
    pub fn expiry(&self) -> Option<UnixTime> {
        self.expiry
    }

    /// The chain and the key.
    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

fn load(chain: &Path, key: &Path) -> Result<Certificate, CertificateError> {
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| CertificateError::File(chain.to_owned(), error))?;
    let Some(own) = certificates.first() else { return Err(absent(chain, "certificate")) };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match absent(key, "private key") {
        // The parser does not know the old format of encrypted keys and calls it malformed.
        encrypted @ CertificateError::Absent(_, _, Found::EncryptedKey) => encrypted,
        other if matches!(error, pem::Error::NoItemsFound) => other,
        _ => CertificateError::File(key.to_owned(), error),
    })?;
    owner::warn_of_others(key);
    log::info!("TLS certificate {}, SHA-256 {}", chain.display(), fingerprint(own));
    warn_of_dates(chain, own);

    let unusable = |error| CertificateError::Unusable(chain.to_owned(), key.to_owned(), error);
    let certified_key = match certified(certificates.clone(), private.clone_key()) {
        Err(rustls::Error::InconsistentKeys(_)) => {
            let pairs = |certificate: &CertificateDer<'static>| {
                certified(vec![certificate.clone()], private.clone_key()).is_ok()
            };
            let (chain, key) = (chain.to_owned(), key.to_owned());
            return Err(match certificates.iter().position(pairs) {
                Some(at) => CertificateError::Order(chain, key, at + 1),
                None => CertificateError::NoPair(chain, key),
            });
        }
        certified_key => certified_key.map_err(unusable)?,
    };
    Ok(Certificate::new(certified_key))
}

fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, rustls::Error> {
    CertifiedKey::from_der(chain, key, &default_provider())
}

fn names(own: &CertificateDer<'_>) -> Vec<String> {
    let parsed = webpki::EndEntityCert::try_from(own);
    parsed.map(|own| own.valid_dns_names().map(str::to_owned).collect()).unwrap_or_default()
}

/// Makes the error for a file that does not contain what is `wanted`.
fn absent(path: &Path, wanted: &'static str) -> CertificateError {
    match fs::read(path) {
        Ok(text) => CertificateError::Absent(path.to_owned(), wanted, Found::of(&text)),
        Err(error) => CertificateError::File(path.to_owned(), pem::Error::Io(error)),
    }
}

/// Logs a warning if the certificate has expired or is not valid yet. The server uses it all the same, because some
/// clients do not check the dates.
fn warn_of_dates(chain: &Path, own: &CertificateDer<'_>) {
    if let Some(fault) = fault_of_dates(own, UnixTime::now()) {
        log::warn!("the TLS certificate {} {fault}; clients that check the dates will refuse it", chain.display());
    }
}

fn fault_of_dates(own: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    trust::explain_dates(&fault_at(own, now)?)
}

/// Returns the date when the certificate expires.
fn expiry(own: &CertificateDer<'_>) -> Option<UnixTime> {
    // No certificate is valid at this time, because dates in certificates have years of four digits.
    let far_future = UnixTime::since_unix_epoch(Duration::from_secs(1 << 40));
    match fault_at(own, far_future)? {
        rustls::CertificateError::ExpiredContext { not_after, .. } => Some(not_after),
        _ => None,
    }
}

/// Returns the fault that a client would find in the certificate at the time `now`. The client trusts the certificate
/// itself, so it checks the dates first.
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

/// The SHA-256 fingerprint of the first certificate in a file.
///
/// # Errors
/// When the file cannot be read or has no certificate.
pub fn fingerprint_of(file: &Path) -> io::Result<String> {
    CertificateDer::from_pem_file(file).map(|certificate| fingerprint(&certificate)).map_err(io::Error::other)
}

/// The SHA-256 fingerprint, which a person can compare when a client shows a self-signed certificate.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|octet| format!("{octet:02X}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tempfile::TempDir;
    use time::macros::datetime;

    /// Makes the files of a self-signed certificate.
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
        let why = Certificate::open(chain, key).unwrap_err().to_string();
        let wanted = said.replace("CHAIN", chain.to_str().unwrap()).replace("KEY", key.to_str().unwrap());
        assert!(why.contains(&wanted) && !why.contains('\n'), "{why}");
    }

    #[test]
    fn errors_say_what_is_wrong_with_the_files() {
        let (_first, chain, key) = pair();
        let (_second, other, other_key) = pair();
        refused(&chain, &other_key, "the key in KEY does not belong to the certificate in CHAIN");
        refused(&key, &key, "CHAIN has no certificate in PEM format; it contains a private key");
        refused(&chain, &chain, "KEY has no private key in PEM format; it contains a certificate");
        refused(&chain.with_file_name("none"), &key, "cannot read CHAIN: No such file");
        refused(&chain, &chain.with_file_name("none"), "cannot read KEY: No such file");
        let turned = [&chain, &other].map(|file| fs::read_to_string(file).unwrap()).concat();
        fs::write(&chain, turned).unwrap();
        refused(&chain, &other_key, "the key in KEY belongs to certificate 2 in CHAIN");
        Certificate::open(&chain, &key).unwrap();
        fs::write(&other, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
        refused(&other, &key, "CHAIN is not in PEM format");
        fs::write(&other, "").unwrap();
        refused(&other, &key, "CHAIN has no certificate in PEM format");
        fs::write(&other, "-----BEGIN CERTIFICATE-----\naGFsbG8=\n-----END CERTIFICATE-----\n").unwrap();
        refused(&other, &key, "CHAIN with KEY: it is not an X.509 certificate");
    }

    #[test]
    fn an_encrypted_key_is_named_as_the_reason() {
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
    fn an_expired_certificate_and_one_not_valid_yet_are_found() {
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
