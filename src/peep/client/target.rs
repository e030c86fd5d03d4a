//! The address of a server: a host and a port, or a UNIX socket.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A host, perhaps with a port, as the admin writes it: `mail.example`, `192.0.2.4:2111`, `::1`, `[::1]:2111`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    host: String,
    port: Option<u16>,
}

impl FromStr for Address {
    type Err = Infallible;

    /// Any text that is not `HOST:PORT` is taken for a host. If there is no such host, the resolver says so.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let alone = |host: &str| Self { host: host.to_owned(), port: None };
        if let Some(host) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return Ok(alone(host));
        }
        let Some((host, Ok(port))) = text.rsplit_once(':').map(|(host, port)| (host, port.parse())) else {
            return Ok(alone(text));
        };
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(host) => host,
            None if host.contains(':') => return Ok(alone(text)), // an IPv6 address
            None => host,
        };
        Ok(Self { host: host.to_owned(), port: Some(port) })
    }
}

impl Address {
    pub(super) fn with_default_port(&self, port: u16) -> Target {
        Target::Tcp { host: self.host.clone(), port: self.port.unwrap_or(port) }
    }
}

/// A server as the client connects to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// The server's name in messages.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_port() {
        for (text, shown) in [
            ("localhost", "localhost:2110"),
            ("localhost:7", "localhost:7"),
            ("192.0.2.4:7", "192.0.2.4:7"),
            ("::1", "[::1]:2110"),
            ("[::1]", "[::1]:2110"),
            ("[::1]:7", "[::1]:7"),
            ("fe80::1%eth0", "[fe80::1%eth0]:2110"),
            ("host:port", "[host:port]:2110"),
            ("[::1", "[[::1]:2110"),
        ] {
            let Ok(address) = text.parse::<Address>();
            assert_eq!(address.with_default_port(2110).to_string(), shown);
        }
    }
}
