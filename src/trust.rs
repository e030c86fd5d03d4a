//! Which certificates a TLS client trusts, and how to explain why one is not trusted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use time::OffsetDateTime;

use crate::printable::printable;

/// The clap group of a program's flags that start TLS. The flags below need one of them.
pub const BY_TLS: &str = "by_tls";

/// The flags that select the trusted certificates. By default these are the system's certificate authorities.
#[derive(Clone, Debug, Default, Args)]
pub struct Trust {
    /// With TLS: trust only the certificates in this file (PEM), which may be authorities' or the server's own.
    #[arg(long, value_name = "FILE", requires = BY_TLS)]
    ca: Option<PathBuf>,

    /// With TLS: do not check the server's certificate. Anybody in between can then pose as the server.
    #[arg(long, requires = BY_TLS, conflicts_with = "ca")]
    pub insecure: bool,
}

impl Trust {
    /// Trusts the certificates in this file, or else the system's authorities.
    #[must_use]
    pub fn of(ca: Option<PathBuf>) -> Self {
        Self { ca, insecure: false }
    }

    /// Makes the configuration of a TLS client with the ciphers of `provider`.
    ///
    /// # Errors
    /// Returns a message if there is no certificate to trust.
    pub fn config(&self, provider: CryptoProvider) -> Result<ClientConfig, String> {
        let provider = Arc::new(provider);
        let authorities = if self.insecure { None } else { Some(self.authorities(&provider)?) };
        let verifier = Verifier { authorities, provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions() // TLS 1.2 and 1.3
            .map_err(|error| error.to_string())?;
        Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
    }

    fn authorities(&self, provider: &Arc<CryptoProvider>) -> Result<Authorities, String> {
        let given = match &self.ca {
            Some(file) => read(file)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(given.iter().cloned());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let chains = chains.build().map_err(|_| match &self.ca {
            Some(file) => format!("{} has no certificate that can be used", file.display()),
            None => "this system has no certificate authorities: name one with --ca FILE".to_owned(),
        })?;
        Ok(Authorities { chains, given })
    }
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(|error| match error {
        pem::Error::Io(error) => format!("cannot read {}: {error}", file.display()),
        error => format!("{} is not in PEM format: {error}", file.display()),
    })
}

/// Verifies certificates against authorities. Without authorities it accepts every certificate.
#[derive(Debug)]
struct Verifier {
    authorities: Option<Authorities>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Authorities {
    chains: Arc<WebPkiServerVerifier>,
    /// These certificates are trusted even if no authority has signed them.
    given: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(Authorities { chains, given }) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        match chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The user gave the server's own certificate. webpki rejects it if its issuer is unknown, or if it calls
            // itself an authority, as certificates made by openssl do. webpki has checked the dates before, but not
            // the name.
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_)))
                if given.contains(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Explains a TLS error and says what to do about it. Returns `None` if the error is not one of TLS.
#[must_use]
pub fn explain(error: &io::Error) -> Option<String> {
    use CertificateError::{BadSignature, NotValidForNameContext, UnknownIssuer};
    if let Error::InvalidCertificate(error) = error.get_ref()?.downcast_ref::<Error>()?
        && let Some(fault) = explain_dates(error)
    {
        return Some(format!("the server's certificate {fault}"));
    }
    Some(match error.get_ref()?.downcast_ref::<Error>()? {
        // BadSignature: the issuer has the name of a trusted authority, but another key.
        Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
            "nobody trusted here has signed the server's certificate: name it, or its issuer's, with --ca FILE"
                .to_owned()
        }
        Error::InvalidCertificate(NotValidForNameContext { expected, presented }) => {
            format!("the server's certificate is for {}, not for {}", names(presented), expected.to_str())
        }
        Error::InvalidCertificate(CertificateError::Other(reason)) => {
            format!("the server's certificate is no ordinary one ({reason}): name it itself with --ca FILE")
        }
        Error::InvalidCertificate(error) => format!("the server's certificate cannot be used: {error}"),
        Error::InvalidMessage(_) => "what the server sends is not TLS: does it speak TLS on this port?".to_owned(),
        Error::PeerIncompatible(reason) => format!("no TLS version or cipher in common with the server: {reason:?}"),
        Error::AlertReceived(reason) => format!("the server refused the TLS handshake: {reason:?}"),
        error => format!("TLS failed: {error}"),
    })
}

/// Explains an error about the dates of a certificate, as the rest of a sentence about the certificate.
#[must_use]
pub fn explain_dates(error: &CertificateError) -> Option<String> {
    let date = |time: &UnixTime| {
        let date = i64::try_from(time.as_secs()).ok().and_then(|time| OffsetDateTime::from_unix_timestamp(time).ok());
        date.map_or_else(|| "a date out of range".to_owned(), |date| date.date().to_string())
    };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            Some(format!("has expired: {} was its last day", date(not_after)))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            Some(format!("is not valid before {}: is this machine's clock right?", date(not_before)))
        }
        _ => None,
    }
}

/// The names of a certificate without rustls' decoration, which is as in `DnsName("localhost")` and `IpAddress(::1)`.
fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name at all (it lacks subjectAltName)".to_owned();
    }
    let bare = |name: &String| {
        let name = name.split_once('(').and_then(|(_, name)| name.strip_suffix(')')).unwrap_or(name);
        printable(name.trim_matches('"')).into_owned()
    };
    presented.iter().map(bare).collect::<Vec<_>>().join(", ")
}
