//! Where a client comes from. It is decided once, and everything else asks for it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where a client has connected from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An address and port, by TCP.
    Address(SocketAddr),
    /// An address and port, as the header of a proxy says. The connection is the proxy's.
    Proxied {
        /// The client.
        client: SocketAddr,
        /// The proxy.
        proxy: SocketAddr,
        /// True if TLS between the client and the proxy counts as TLS.
        tls: bool,
    },
    /// A proxy on its own account, to see whether the server serves clients.
    HealthCheck(SocketAddr),
    /// A process of this machine, by a UNIX socket.
    Process {
        /// The process.
        pid: u32,
        /// Its user.
        uid: u32,
    },
}

impl Origin {
    /// The client's IP address; an IPv4 address is never written as an IPv6 one. A process on a UNIX socket has none.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.address().map(|address| address.ip().to_canonical())
    }

    /// The client's address and port. A process on a UNIX socket has none.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) | Self::Proxied { client: address, .. } | Self::HealthCheck(address) => {
                Some(*address)
            }
            Self::Process { .. } => None,
        }
    }

    /// Returns true if the client is on this machine. A client of a proxy is only if the proxy is on this machine, too,
    /// since another machine has loopback addresses of its own.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let is_loopback = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
        match self {
            Self::Address(address) | Self::HealthCheck(address) => is_loopback(address),
            Self::Proxied { client, proxy, .. } => is_loopback(client) && is_loopback(proxy),
            Self::Process { .. } => true,
        }
    }

    /// The proxy that passes on the client's connection.
    #[must_use]
    pub fn proxy(&self) -> Option<&SocketAddr> {
        match self {
            Self::Proxied { proxy, .. } => Some(proxy),
            _ => None,
        }
    }

    /// Returns true if a proxy has ended TLS, and that counts as TLS.
    #[must_use]
    pub fn has_tls_at_proxy(&self) -> bool {
        matches!(self, Self::Proxied { tls: true, .. })
    }

    /// Returns true if nobody between the client and the server can read what they send, or the operator says so.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.is_local() || self.has_tls_at_proxy()
    }
}

impl From<SocketAddr> for Origin {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

/// The client's `192.0.2.4:5555`, or `pid=4711,uid=0`: one word, as the log needs it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) | Self::Proxied { client: address, .. } | Self::HealthCheck(address) => {
                address.fmt(f)
            }
            Self::Process { pid, uid } => write!(f, "pid={pid},uid={uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_one_word() {
        let address: SocketAddr = "192.0.2.4:5555".parse().unwrap();
        assert_eq!(Origin::from(address).to_string(), "192.0.2.4:5555");
        assert_eq!(Origin::Process { pid: 4711, uid: 0 }.to_string(), "pid=4711,uid=0");
    }

    #[test]
    fn only_loopback_and_processes_are_private() {
        let is_private = |address: &str| Origin::from(address.parse::<SocketAddr>().unwrap()).is_private();
        assert!(is_private("127.0.0.1:1") && is_private("[::1]:1") && is_private("[::ffff:127.0.0.1]:1"));
        assert!(!is_private("192.0.2.4:1") && !is_private("[2001:db8::1]:1"));
        assert!(Origin::Process { pid: 1, uid: 1000 }.is_private());
    }

    #[test]
    fn a_proxys_client_is_local_only_with_the_proxy() {
        let origin = |client: &str, proxy: &str, tls| Origin::Proxied {
            client: client.parse().unwrap(),
            proxy: proxy.parse().unwrap(),
            tls,
        };
        assert!(origin("127.0.0.1:1", "[::1]:1", false).is_private());
        assert!(!origin("127.0.0.1:1", "192.0.2.9:1", false).is_private());
        assert!(!origin("192.0.2.4:1", "127.0.0.1:1", false).is_private());
        let tls = origin("192.0.2.4:1", "192.0.2.9:1", true);
        assert!(tls.is_private() && !tls.is_local());
        assert_eq!(tls.to_string(), "192.0.2.4:1");
    }
}
