//! Compares maildrops with what another POP3 server shows of them: which unique-ids and sizes stay when pop3d takes over.
//!
//! - [`AgainstArgs`] are the flags. [`OldServer`] is made of them, and lists a user's messages by `client`.
//! - `passwords` has the users' passwords for that server.
//! - [`Comparison`] compares that list with a [`Maildrop`].

mod client;
mod comparison;
mod passwords;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::{ValueEnum, value_parser};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;

use crate::auth::{UserName, Users};
use crate::maildrop::Maildrop;
use crate::trust::{BY_TLS, Trust};
pub(super) use comparison::{Comparison, Difference, Differences};
use passwords::Passwords;

/// The ports of POP3, without and with TLS from the beginning.
const POP3: u16 = 110;
const POP3S: u16 = 995;

/// The flags for the comparison with another server.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Comparison with another server")]
pub(super) struct AgainstArgs {
    /// Log in to this POP3 server, too, and compare its unique-ids and sizes
    #[arg(long, value_name = "HOST[:PORT]", requires = "passwords", group = BY_TLS)]
    against: Option<Address>,

    /// The file with the users' passwords on that server, one NAME:PASSWORD on each line
    #[arg(long, value_name = "FILE", requires = "against")]
    passwords: Option<PathBuf>,

    /// How that server is asked [default: pop3s on port 995, none on this machine, stls otherwise]
    #[arg(long, value_enum, value_name = "HOW", requires = "against")]
    against_tls: Option<Tls>,

    /// How long that server may take for the connection and for each answer, in seconds; in a listing, for each 1000 lines
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = value_parser!(u64).range(1..=86_400), requires = "against")]
    against_timeout: u64,

    #[command(flatten)]
    trust: Trust,
}

/// How a connection uses TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tls {
    /// Not at all: everybody on the way can read passwords
    None,
    /// After the command STLS
    Stls,
    /// From the beginning
    Pop3s,
}

/// A host and, if it is given, a port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    host: String,
    port: Option<u16>,
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            "it has to have the form HOST or HOST:PORT, as in mail.example.org, 192.0.2.1:1110 or [2001:db8::1]:110";
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(wrong)?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(wrong)?) })
            }
            None if text.matches(':').count() > 1 => (text, None), // an IPv6 address
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(|port| port.parse().ok().filter(|&port| port != 0).ok_or(wrong)).transpose()?;
        if host.is_empty() { Err(wrong) } else { Ok(Self { host: host.to_owned(), port }) }
    }
}

/// The server to compare with.
pub(super) struct OldServer {
    host: String,
    port: u16,
    tls: Option<Tls>,
    config: Option<Arc<ClientConfig>>,
    timeout: Duration,
    passwords: Passwords,
}

impl fmt::Display for OldServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl OldServer {
    /// The server that the flags name, if they name one.
    ///
    /// # Errors
    /// A message, if the passwords or the trusted certificates cannot be read.
    pub(super) fn new(args: &AgainstArgs, accounts: &Users) -> Result<Option<Self>, String> {
        let (Some(Address { host, port }), Some(file)) = (&args.against, &args.passwords) else { return Ok(None) };
        let (host, tls) = (host.clone(), args.against_tls);
        let port = port.unwrap_or(if tls == Some(Tls::Pop3s) { POP3S } else { POP3 });
        let tls = tls.or((port == POP3S).then_some(Tls::Pop3s));
        let config = match tls {
            Some(Tls::None) => None,
            _ => Some(Arc::new(args.trust.config(default_provider())?)),
        };
        let timeout = Duration::from_secs(args.against_timeout);
        Ok(Some(Self { host, port, tls, config, timeout, passwords: Passwords::read(file, accounts)? }))
    }

    /// The users whose passwords are known.
    pub(super) fn users(&self) -> impl Iterator<Item = &UserName> {
        self.passwords.users()
    }

    /// Lists a user's messages on that server.
    ///
    /// # Errors
    /// A message, if that is not possible.
    pub(super) fn list(&self, user: &UserName) -> Result<Vec<OldMessage>, String> {
        let (name, password) = self.passwords.of(user).ok_or("the file of --passwords has no line for the user")?;
        client::list(self, name, password)
    }

    /// Compares a list with what this server would show.
    pub(super) fn compare(old: &[OldMessage], maildrop: Option<&Maildrop>) -> Comparison {
        let here = maildrop.into_iter().flat_map(|maildrop| {
            maildrop
                .unique_ids()
                .zip(maildrop.messages())
                .map(|((_, id), (_, message))| (id.into_owned(), message.octets()))
        });
        Comparison::new(old, &here.collect::<Vec<_>>())
    }
}

/// A message as the other server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OldMessage {
    number: u64,
    unique_id: Vec<u8>,
    octets: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address = |host: &str, port| Ok(Address { host: host.to_owned(), port });
        assert_eq!("a.example".parse(), address("a.example", None));
        assert_eq!("a:1110".parse(), address("a", Some(1110)));
        assert_eq!("::1".parse(), address("::1", None));
        assert_eq!("[::1]".parse(), address("::1", None));
        assert_eq!("[::1]:7".parse(), address("::1", Some(7)));
        for wrong in ["", ":7", "a:", "a:0", "a:65536", "a:x", "[::1", "[::1]7", "[]:7"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
