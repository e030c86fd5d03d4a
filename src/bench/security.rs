//! The TLS flags of the command line, and the TLS configuration for a server.

use std::sync::Arc;

use clap::Args;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, default_provider};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Error, SupportedCipherSuite};

use super::buffers::Buffers;
use super::tls::{TlsLayer, iana_name};
use crate::trust::{BY_TLS, Trust};

/// The flags for TLS.
#[derive(Debug, Args)]
pub(super) struct TlsArgs {
    /// Use TLS from the first octet on (POP3S)
    #[arg(long, group = BY_TLS)]
    tls: bool,

    /// Start TLS with STLS, before the login
    #[arg(long, group = BY_TLS)]
    stls: bool,

    #[command(flatten)]
    trust: Trust,

    /// With TLS: offer only this cipher suite, for example TLS_AES_128_GCM_SHA256
    #[arg(long, value_name = "NAME", requires = BY_TLS, value_parser = parse_cipher)]
    tls_cipher: Option<SupportedCipherSuite>,

    /// With TLS: resume sessions if the server allows it, instead of a full handshake each time
    #[arg(long, requires = BY_TLS)]
    tls_resume: bool,
}

/// TLS as requested on the command line, for any server.
#[derive(Debug)]
pub(super) struct Security {
    config: ClientConfig,
    resume: bool,
    by_stls: bool,
}

/// TLS for one server.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    resume: bool,
    /// TLS begins with STLS, not with the first octet.
    pub(super) by_stls: bool,
}

impl TlsArgs {
    /// The registered port of POP3, or of POP3S.
    pub(super) fn default_port(&self) -> u16 {
        if self.tls { 995 } else { 110 }
    }

    pub(super) fn security(&self) -> Result<Option<Security>, String> {
        if !(self.tls || self.stls) {
            return Ok(None);
        }
        let mut provider = default_provider();
        if let Some(cipher) = self.tls_cipher {
            provider.cipher_suites = vec![cipher];
        }
        // The first random number of a process takes some milliseconds, which must not count as the server's time.
        provider.secure_random.fill(&mut [0]).map_err(|_| "the system provides no random numbers".to_owned())?;
        let mut config = self.trust.config(provider)?;
        config.resumption = Resumption::disabled();
        Ok(Some(Security { config, resume: self.tls_resume, by_stls: self.stls }))
    }
}

impl Security {
    /// TLS for the server of this name or address.
    pub(super) fn towards(&self, host: &str) -> Result<Tls, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("no certificate can be for '{host}'"))?;
        Ok(Tls { config: Arc::new(self.config.clone()), name, resume: self.resume, by_stls: self.by_stls })
    }
}

impl Tls {
    /// TLS for one client. If sessions are resumed, each client resumes its own.
    pub(super) fn of_a_client(&self) -> Tls {
        let mut tls = self.clone();
        if self.resume {
            Arc::make_mut(&mut tls.config).resumption = Resumption::in_memory_sessions(1);
        }
        tls
    }

    /// TLS for a new connection.
    pub(super) fn layer<'a>(&self, buffers: &'a Buffers) -> Result<TlsLayer<'a>, Error> {
        TlsLayer::new(&self.config, &self.name, buffers)
    }
}

/// Finds a cipher suite by its name in IANA's registry or in rustls.
fn parse_cipher(name: &str) -> Result<SupportedCipherSuite, String> {
    let names = |cipher: &SupportedCipherSuite| cipher.suite().as_str().unwrap_or_default();
    let is_meant = |known: &str| name.eq_ignore_ascii_case(known) || name.eq_ignore_ascii_case(&iana_name(known));
    ALL_CIPHER_SUITES.iter().find(|cipher| is_meant(names(cipher))).copied().ok_or_else(|| {
        let known: Vec<_> = ALL_CIPHER_SUITES.iter().map(|cipher| iana_name(names(cipher))).collect();
        format!("it is one of {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cipher_has_two_names_in_any_letter_case() {
        let parse = |name| parse_cipher(name).map(|cipher| cipher.suite().as_str().unwrap());
        assert_eq!(parse("TLS_AES_128_GCM_SHA256"), Ok("TLS13_AES_128_GCM_SHA256"));
        assert_eq!(parse("tls13_aes_128_gcm_sha256"), Ok("TLS13_AES_128_GCM_SHA256"));
        let tls_1_2 = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384";
        assert_eq!(parse(tls_1_2), Ok(tls_1_2));
        assert!(parse("TLS_RSA_WITH_AES_128_CBC_SHA").unwrap_err().contains(", TLS_AES_128_GCM_SHA256, "));
    }
}
