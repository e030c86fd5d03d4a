//! The addresses and ports on which the server listens.

use std::net::IpAddr;

use crate::connections::Service;
use crate::net::{ListenAddress, SocketFile};

/// The addresses and ports of each protocol.
#[derive(Debug)]
pub struct Ports {
    /// For POP3.
    pub pop3: Endpoint,
    /// For POP3S: POP3 with TLS from the first octet on.
    pub pop3s: Option<Endpoint>,
    /// For PEEP; none with a UNIX socket alone.
    pub peep: Option<Endpoint>,
    /// The UNIX socket for PEEP.
    pub peep_socket: Option<SocketFile>,
}

impl Ports {
    /// Returns the addresses and the port of a service, if it is served.
    #[must_use]
    pub fn of(&self, service: Service) -> Option<&Endpoint> {
        match service {
            Service::Pop3 => Some(&self.pop3),
            Service::Pop3s => self.pop3s.as_ref(),
            Service::Peep => self.peep.as_ref(),
        }
    }

    /// Returns the UNIX socket of a service, if it has one.
    #[must_use]
    pub fn file_of(&self, service: Service) -> Option<&SocketFile> {
        self.peep_socket.as_ref().filter(|_| service == Service::Peep)
    }
}

/// The addresses and the port of one service.
#[derive(Debug)]
pub struct Endpoint {
    /// The addresses; at least one.
    pub addresses: Vec<ListenAddress>,
    /// The port; 0 for any free port.
    pub port: u16,
    /// True if the operator has chosen the addresses. Then it is an error if the machine lacks one of them.
    pub required: bool,
}

impl Endpoint {
    pub(super) fn new(asked: Vec<ListenAddress>, default: [IpAddr; 2], port: u16) -> Self {
        let required = !asked.is_empty();
        Self { addresses: if required { asked } else { default.map(ListenAddress::from).to_vec() }, port, required }
    }
}
