//! Flags for TLS, and for doing without it.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use rustls::pki_types::{InvalidDnsNameError, ServerName};

use super::ConfigError;
use crate::net::{self, Certificate};
use crate::state::StateDir;

/// TLS is there when there is a certificate.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
#[group(skip)]
#[command(group = ArgGroup::new("certificate").args(["tls_cert", "tls_self_signed"]))]
pub(super) struct TlsArgs {
    /// The TLS certificate chain (PEM), beginning with the server's own certificate; read again on SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Use a self-signed certificate for NAME, under which clients reach the server; it is created once and kept in the
    /// --state directory, or without --state created for each run [default: this host's name]
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, value_parser = server_name,
          conflicts_with_all = ["tls_cert", "tls_key"])]
    tls_self_signed: Option<Option<String>>,

    /// Also serve POP3S (TLS from the first octet on) on this port; 995 is usual (0: any free port)
    #[arg(long, value_name = "PORT", requires = "certificate")]
    pub(super) pop3s_port: Option<u16>,

    /// Serve PEEP over TLS only
    #[arg(long, requires = "certificate")]
    pub(super) peep_tls: bool,

    /// Accept passwords from other machines without TLS, both for POP3 and for PEEP
    #[arg(long)]
    pub(super) allow_cleartext: bool,
}

/// A host's name or an IP address, as a certificate has them.
fn server_name(text: &str) -> Result<String, InvalidDnsNameError> {
    ServerName::try_from(text).map(|_| text.to_owned())
}

impl TlsArgs {
    /// What is read again on SIGHUP.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let of = |flag, file: &Option<PathBuf>| file.clone().map(|file| (flag, file));
        of("--tls-cert", &self.tls_cert).into_iter().chain(of("--tls-key", &self.tls_key))
    }

    /// The server is to make its certificate.
    pub(super) fn is_self_signed(&self) -> bool {
        self.tls_self_signed.is_some()
    }

    /// Whether the certificate of a server with the flags `last` stays: one that it made for this run, and that it is
    /// not to make anew.
    pub(super) fn keeps_that_of_this_run(&self, last: &Self, state: Option<&StateDir>) -> bool {
        state.is_none() && self.is_self_signed() && self.tls_self_signed == last.tls_self_signed
    }

    /// The certificate that the flags name. One that the server makes is kept in `state`.
    pub(super) fn certificate(&self, state: Option<&StateDir>) -> Result<Option<Certificate>, ConfigError> {
        let (chain, key) = match (&self.tls_cert, &self.tls_key, &self.tls_self_signed, state) {
            (Some(chain), Some(key), ..) => (chain.clone(), key.clone()),
            (_, _, Some(name), Some(state)) => {
                net::self_signed(state, name.as_deref()).map_err(ConfigError::SelfSigned)?
            }
            (_, _, Some(name), None) => {
                return Certificate::of_this_run(name.as_deref()).map(Some).map_err(ConfigError::SelfSigned);
            }
            _ => return Ok(None),
        };
        Certificate::open(chain, key).map(Some).map_err(ConfigError::Certificate)
    }
}
