//! Certificates for TLS servers, and the clients' configuration that trusts them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

/// A self-signed certificate for the loopback addresses and its key, in a temporary directory.
pub(crate) struct Certificate {
    directory: TempDir,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let certificate = Self { directory: TempDir::new().unwrap() };
        certificate.renew();
        certificate
    }

    /// Replaces the certificate and its key by new ones.
    pub(crate) fn renew(&self) {
        self.renew_with(|_| {});
    }

    /// Replaces the certificate and its key by new ones; `change` edits the certificate's parameters.
    pub(crate) fn renew_with(&self, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(str::to_owned)).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        fs::write(self.key(), key.serialize_pem()).unwrap();
        fs::set_permissions(self.key(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(self.chain(), params.self_signed(&key).unwrap().pem()).unwrap();
    }

    /// The path of the certificate in PEM.
    pub(crate) fn chain(&self) -> PathBuf {
        self.directory.path().join("chain.pem")
    }

    /// The path of the private key in PEM.
    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// The TLS configuration of a client that trusts this certificate and no other.
    pub(crate) fn trusted(&self) -> Arc<rustls::ClientConfig> {
        trusting(&self.chain())
    }

    /// The same for a client that knows no version after TLS 1.2.
    pub(crate) fn trusted_by_tls_1_2(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.chain()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// The TLS configuration of a client that trusts the certificate in the file `chain` and no other.
pub(crate) fn trusting(chain: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(chain).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.unwrap().with_root_certificates(roots).with_no_client_auth())
}
