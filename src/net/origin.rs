//! Where a client comes from. It is decided once, and everything else asks for it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where a client has connected from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An address and port, by TCP.
    Address(SocketAddr),
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
        match self {
            Self::Address(address) => Some(address.ip().to_canonical()),
            Self::Process { .. } => None,
        }
    }

    /// Returns true if nobody between the client and the server can read what they send.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }
}

impl From<SocketAddr> for Origin {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

/// `192.0.2.4:5555`, or `pid=4711,uid=0`: one word, as the log needs it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
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
}
