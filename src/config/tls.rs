//! Flags for TLS, and for doing without it.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::ConfigError;
use crate::net::{self, Certificate};
use crate::state::StateDir;

/// TLS is there when there is a certificate.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
#[group(skip)]
#[command(group = ArgGroup::new("certificate").args(["tls_cert", "tls_self_signed"]))]
pub(super) struct TlsArgs {
    /// The certificate chain in PEM, the server's own first; read again on SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Use a certificate that the server makes for itself and keeps in its state directory
    #[arg(long, requires = "state", conflicts_with = "tls_cert")]
    tls_self_signed: bool,

    /// A port for POP3 by TLS from the first octet on; commonly 995 (0: any free one)
    #[arg(long, value_name = "PORT", requires = "certificate")]
    pub(super) pop3s_port: Option<u16>,

    /// Serve PEEP by TLS
    #[arg(long, requires = "certificate")]
    pub(super) peep_tls: bool,

    /// Take passwords without TLS from beyond this machine, and serve PEEP so
    #[arg(long)]
    pub(super) allow_cleartext: bool,
}

impl TlsArgs {
    /// What is read again on SIGHUP.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let of = |flag, file: &Option<PathBuf>| file.clone().map(|file| (flag, file));
        of("--tls-cert", &self.tls_cert).into_iter().chain(of("--tls-key", &self.tls_key))
    }

    /// The certificate that the flags name; `state` is there when they have the server make it.
    pub(super) fn certificate(&self, state: Option<&StateDir>) -> Result<Option<Certificate>, ConfigError> {
        let (chain, key) = match (&self.tls_cert, &self.tls_key, state) {
            (Some(chain), Some(key), _) => (chain.clone(), key.clone()),
            (_, _, Some(state)) if self.tls_self_signed => {
                net::self_signed(state).map_err(|error| ConfigError::State(state.path().to_owned(), error))?
            }
            _ => return Ok(None),
        };
        Certificate::open(chain, key).map(Some).map_err(ConfigError::Certificate)
    }
}
