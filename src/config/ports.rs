//! What is served where.

use std::net::IpAddr;

use crate::connections::Service;
use crate::net::ListenAddress;

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
