//! Flags for TLS, and for accepting passwords without it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{ArgGroup, Args};
use rustls::pki_types::{DnsName, InvalidDnsNameError, ServerName};

use super::ConfigError;
use crate::net::{self, Certificate, Certificates};
use crate::state::StateDir;

/// The flags for TLS. The server offers TLS if it has a certificate.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
#[group(skip)]
#[command(group = ArgGroup::new("certificate").args(["tls_cert", "tls_self_signed"]))]
pub(super) struct TlsArgs {
    /// A TLS certificate chain (PEM), beginning with the server's own certificate; can be repeated, each with its
    /// --tls-key. Clients that send no name, or a name without a certificate, get the first
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Vec<PathBuf>,

    /// The private key of a certificate (PEM); the first key belongs to the first --tls-cert, and so on
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Vec<PathBuf>,

    /// The host names for which clients get a certificate, as in mail.example.org,*.example.net; if given, once for each
    /// --tls-cert, where an empty list means the names in the certificate [default: the names in each certificate]
    #[arg(long, value_name = "NAME,NAME", requires = "tls_cert")]
    tls_names: Vec<Names>,

    /// Use a self-signed certificate for NAME, under which clients reach the server; it is created once and kept in the
    /// --state directory, or without --state created for each run [default: this host's name]
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, value_parser = server_name,
          conflicts_with_all = ["tls_cert", "tls_key", "tls_names"])]
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

/// Parses a host name or an IP address, as certificates contain them.
fn server_name(text: &str) -> Result<String, InvalidDnsNameError> {
    ServerName::try_from(text).map(|_| text.to_owned())
}

/// The host names of a certificate, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Names(Vec<String>);

impl FromStr for Names {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty() || text.contains(','));
        let checked = |name: &str| match DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)) {
            Ok(_) => Ok(name.to_owned()),
            Err(_) => Err(format!("{name:?} is not the name of a host, nor * and the names below one")),
        };
        names.map(checked).collect::<Result<_, _>>().map(Self)
    }
}

/// The files of a certificate, and the host names that it is used for.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) chain: &'a Path,
    key: &'a Path,
    pub(super) names: &'a [String],
}

impl Pair<'_> {
    /// Reads the certificate, and warns of names that it does not contain.
    pub(super) fn open(&self) -> Result<Certificate, ConfigError> {
        let certificate = Certificate::open(self.chain, self.key).map_err(ConfigError::Certificate)?;
        for name in self.names.iter().filter(|name| !certificate.is_for(name)) {
            log::warn!("the TLS certificate {} is not for {name}, so clients will refuse it", self.chain.display());
        }
        Ok(certificate)
    }
}

impl TlsArgs {
    /// Checks that the flags of several certificates belong together.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let [certificates, keys, names] = [self.tls_cert.len(), self.tls_key.len(), self.tls_names.len()];
        if keys != certificates || ![0, certificates].contains(&names) {
            return Err(ConfigError::Pairs { certificates, keys, names });
        }
        Ok(())
    }

    /// Returns the certificates that are in files, in the order of the flags.
    pub(super) fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        let names = self.tls_names.iter().map(|names| &names.0[..]).chain(std::iter::repeat(&[][..]));
        let files = self.tls_cert.iter().zip(&self.tls_key).zip(names);
        files.map(|((chain, key), names)| Pair { chain, key, names })
    }

    /// Returns the files that a reload reads again, each with its flag.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let of = |flag, files: &[PathBuf]| files.iter().map(|file| (flag, file.clone())).collect::<Vec<_>>();
        of("--tls-cert", &self.tls_cert).into_iter().chain(of("--tls-key", &self.tls_key))
    }

    /// Returns true if the server creates its own certificate.
    pub(super) fn is_self_signed(&self) -> bool {
        self.tls_self_signed.is_some()
    }

    /// Returns true if a reload keeps the certificate of a server that had the flags `last`: it was created for this run,
    /// and the flags still ask for the same one.
    pub(super) fn keeps_that_of_this_run(&self, last: &Self, state: Option<&StateDir>) -> bool {
        state.is_none() && self.is_self_signed() && self.tls_self_signed == last.tls_self_signed
    }

    /// Reads the certificates that the flags name. A self-signed certificate is created and kept in `state`.
    pub(super) fn certificates(&self, state: Option<&StateDir>) -> Result<Option<Certificates>, ConfigError> {
        let mut all = match (&self.tls_self_signed, state) {
            (None, _) => {
                let opened = self.pairs().map(|pair| Ok((pair.open()?, pair.names.to_vec())));
                opened.collect::<Result<Vec<_>, ConfigError>>()?
            }
            (Some(name), Some(state)) => {
                let (chain, key) = net::self_signed(state, name.as_deref()).map_err(ConfigError::SelfSigned)?;
                vec![(Certificate::open(&chain, &key).map_err(ConfigError::Certificate)?, Vec::new())]
            }
            (Some(name), None) => {
                vec![(Certificate::of_this_run(name.as_deref()).map_err(ConfigError::SelfSigned)?, Vec::new())]
            }
        };
        if all.is_empty() {
            return Ok(None);
        }
        let first = all.remove(0);
        Certificates::new(first, all).map(Some).map_err(ConfigError::Tls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_hosts_or_of_all_below_one() {
        let parse = |text: &str| text.parse::<Names>().map(|names| names.0);
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("mail.example.org"), Ok(vec!["mail.example.org".to_owned()]));
        assert_eq!(parse("a.example, *.b.example"), Ok(vec!["a.example".to_owned(), "*.b.example".to_owned()]));
        for bad in ["*", "*.", "a..b", "mail.*.example", "a b", ",", "a,,b", "192.0.2.1/24"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
