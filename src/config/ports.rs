//! What is served where.

use std::fmt;
use std::net::IpAddr;

use crate::connections::Protocol;
use crate::net::ListenAddress;

/// What a listening socket is for. Each has settings of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// POP3 that begins without TLS.
    Pop3,
    /// POP3 with TLS from the first octet on.
    Pop3s,
    /// PEEP; the settings say whether with TLS.
    Peep,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pop3, Self::Pop3s, Self::Peep];

    /// The protocol of its connections.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Pop3 | Self::Pop3s => Protocol::Pop3,
            Self::Peep => Protocol::Peep,
        }
    }

    /// The setting that has its port.
    #[must_use]
    pub fn port_setting(self) -> &'static str {
        match self {
            Self::Pop3 => "pop3-port",
            Self::Pop3s => "pop3s-port",
            Self::Peep => "peep-port",
        }
    }

    /// The name of its sockets in socket units of systemd (`FileDescriptorName=`).
    #[must_use]
    pub fn socket_name(self) -> &'static str {
        match self {
            Self::Pop3 => "pop3",
            Self::Pop3s => "pop3s",
            Self::Peep => "peep",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pop3 => "POP3",
            Self::Pop3s => "POP3S",
            Self::Peep => "PEEP",
        })
    }
}

/// The ports of a server.
#[derive(Debug)]
pub struct Ports {
    /// Where POP3 is served.
    pub pop3: Endpoint,
    /// Where POP3 is served with TLS from the first octet on.
    pub pop3s: Option<Endpoint>,
    /// Where PEEP is served.
    pub peep: Endpoint,
}

impl Ports {
    /// Where `service` is served, if it is.
    #[must_use]
    pub fn of(&self, service: Service) -> Option<&Endpoint> {
        match service {
            Service::Pop3 => Some(&self.pop3),
            Service::Pop3s => self.pop3s.as_ref(),
            Service::Peep => Some(&self.peep),
        }
    }
}

/// Addresses and a port.
#[derive(Debug)]
pub struct Endpoint {
    /// At least one.
    pub addresses: Vec<ListenAddress>,
    /// 0 for any free one.
    pub port: u16,
    /// The addresses were asked for, so each has to be there.
    pub required: bool,
}

impl Endpoint {
    pub(super) fn new(asked: Vec<ListenAddress>, default: [IpAddr; 2], port: u16) -> Self {
        let required = !asked.is_empty();
        Self { addresses: if required { asked } else { default.map(ListenAddress::from).to_vec() }, port, required }
    }
}
