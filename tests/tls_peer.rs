//! Scripted TLS servers for the tests of the clients, with right and wrong certificates.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// The names and addresses by which clients reach a server in these tests.
pub(crate) const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A connection with or without TLS.
pub(crate) trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// A server's certificate and key, and a file for `--ca` by which a client trusts the server.
pub(crate) struct Identity {
    directory: TempDir,
    config: Arc<ServerConfig>,
}

impl Identity {
    /// A self-signed certificate for [`NAMES`].
    pub(crate) fn new() -> Self {
        Self::with(&NAMES, |_| {})
    }

    /// A self-signed certificate for these names, with parameters that `change` has edited.
    pub(crate) fn with(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut params, key) = unsigned(names);
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        Self::of(&certificate, key, &certificate.pem())
    }

    /// A certificate that is signed by an authority. The file for `--ca` has the authority's certificate.
    pub(crate) fn of_an_authority() -> Self {
        let (mut authority, authority_key) = unsigned(&[]);
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let trusted = authority.self_signed(&authority_key).unwrap().pem();
        let (params, key) = unsigned(&NAMES);
        let certificate = params.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
        Self::of(&certificate, key, &trusted)
    }

    fn of(certificate: &rcgen::Certificate, key: KeyPair, trusted: &str) -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("ca.pem"), trusted).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        Self { directory, config: Arc::new(config) }
    }

    /// The path of the file for `--ca`.
    pub(crate) fn ca(&self) -> String {
        self.directory.path().join("ca.pem").into_os_string().into_string().unwrap()
    }

    /// The configuration for [`secured`].
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

fn unsigned(names: &[&str]) -> (CertificateParams, KeyPair) {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    (CertificateParams::new(names).unwrap(), KeyPair::generate().unwrap())
}

/// The server's side of a TLS connection. The handshake is done by the first read or write.
pub(crate) fn secured(socket: TcpStream, config: Arc<ServerConfig>) -> Box<dyn Stream> {
    Box::new(StreamOwned::new(ServerConnection::new(config).unwrap(), socket))
}
