//! The server's certificates. Each client gets the one for the name that it sends (SNI, RFC 6066 section 3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::certificate::Certificate;

/// One or more certificates, ready for TLS connections.
#[derive(Debug)]
pub struct Certificates {
    all: Vec<Certificate>,
    config: Arc<ServerConfig>,
}

impl Certificates {
    /// Takes the certificates, each with the host names that it is used for. Without names, a certificate is used for the
    /// names in it. If several are for one name, configured names take precedence over names in certificates, and earlier
    /// certificates over later ones. Clients that send no name or an unknown one get the first certificate.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(
        first: (Certificate, Vec<String>),
        others: Vec<(Certificate, Vec<String>)>,
    ) -> Result<Self, rustls::Error> {
        let resolver: Arc<dyn ResolvesServerCert> = if others.is_empty() {
            Arc::new(SingleCertAndKey::from(Arc::clone(first.0.key())))
        } else {
            Arc::new(ByName::new(&first, &others))
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()? // TLS 1.2 and 1.3
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        // Clients resume sessions by tickets, which need no memory in the server.
        config.ticketer = Ticketer::new()?;
        let all = std::iter::once(first).chain(others).map(|(certificate, _)| certificate).collect();
        Ok(Self { all, config: Arc::new(config) })
    }

    /// The certificates. The first is the one for clients that send no name or an unknown one.
    #[must_use]
    pub fn all(&self) -> &[Certificate] {
        &self.all
    }

    /// Returns the earliest expiry date of the certificates.
    #[must_use]
    pub fn expiry(&self) -> Option<UnixTime> {
        self.all.iter().filter_map(Certificate::expiry).min_by_key(UnixTime::as_secs)
    }

    /// Returns the configuration for a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// Finds the certificate for the name that a client sends.
#[derive(Debug)]
struct ByName {
    /// The certificate for clients that send no name or an unknown one.
    default: Arc<CertifiedKey>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// The certificates of names that begin with `*.`, which stands for one label, by the rest of the name.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    fn new(first: &(Certificate, Vec<String>), others: &[(Certificate, Vec<String>)]) -> Self {
        let default = Arc::clone(first.0.key());
        let mut this = Self { default, exact: HashMap::new(), wildcards: HashMap::new() };
        let all = || std::iter::once(first).chain(others);
        for (certificate, names) in all() {
            this.add(certificate, names);
        }
        for (certificate, _) in all().filter(|(_, names)| names.is_empty()) {
            this.add(certificate, certificate.names());
        }
        this
    }

    fn add(&mut self, certificate: &Certificate, names: &[String]) {
        for name in names {
            let name = name.to_ascii_lowercase();
            let (map, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcards, parent.to_owned()),
                None => (&mut self.exact, name),
            };
            map.entry(name).or_insert_with(|| Arc::clone(certificate.key()));
        }
    }

    /// Returns the certificate for a name, which must be in lower case.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.exact.get(name).or_else(|| self.wildcards.get(name.split_once('.')?.1))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case.
        let named = hello.server_name().and_then(|name| self.find(name));
        Some(Arc::clone(named.unwrap_or(&self.default)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::fs;

    fn certificate(names: &[&str]) -> Certificate {
        let directory = tempfile::tempdir().unwrap();
        let (chain, private) = (directory.path().join("chain"), directory.path().join("key"));
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let key = KeyPair::generate().unwrap();
        fs::write(&chain, CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&private, key.serialize_pem()).unwrap();
        Certificate::open(&chain, &private).unwrap()
    }

    #[test]
    fn a_certificate_is_found_by_the_names_given_or_those_in_it() {
        let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let all = [
            (certificate(&["first.example"]), named(&[])),
            (certificate(&["*.b.example", "B.example", "192.0.2.1"]), named(&[])),
            (certificate(&["c.example"]), named(&["given.example", "*.given.example", "first.example"])),
        ];
        assert_eq!(all[1].0.names(), ["*.b.example", "B.example"]);
        let keys: Vec<_> = all.iter().map(|(certificate, _)| Arc::clone(certificate.key())).collect();
        let [first, others @ ..] = &all;
        let by_name = ByName::new(first, others);
        let found = |name: &str| keys.iter().position(|key| by_name.find(name).is_some_and(|it| Arc::ptr_eq(it, key)));
        for (name, expected) in [
            ("b.example", Some(1)),
            ("mail.b.example", Some(1)),
            ("a.mail.b.example", None),
            ("given.example", Some(2)),
            ("x.given.example", Some(2)),
            ("first.example", Some(2)),
            ("c.example", None),
            ("example", None),
            ("", None),
        ] {
            assert_eq!(found(name), expected, "{name}");
        }
    }
}
