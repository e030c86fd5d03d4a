//! Flags for TLS, and for doing without it.

use std::path::PathBuf;

use clap::Args;

use super::ConfigError;
use crate::net::Certificate;

/// TLS is there when there is a certificate.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsArgs {
    /// The certificate chain in PEM, the server's own first; read again on SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// A port for POP3 by TLS from the first octet on; commonly 995 (0: any free one)
    #[arg(long, value_name = "PORT", requires = "tls_cert")]
    pub(super) pop3s_port: Option<u16>,

    /// Serve PEEP by TLS
    #[arg(long, requires = "tls_cert")]
    pub(super) peep_tls: bool,

    /// Take passwords without TLS from beyond this machine, and serve PEEP so
    #[arg(long)]
    pub(super) allow_cleartext: bool,
}

impl TlsArgs {
    pub(super) fn certificate(&self) -> Result<Option<Certificate>, ConfigError> {
        let (Some(chain), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        Certificate::open(chain.clone(), key.clone()).map(Some).map_err(ConfigError::Certificate)
    }
}
