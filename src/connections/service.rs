//! The services that the server offers.

use std::fmt;

use super::Protocol;

/// The service of a listening socket. Each service has its own settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// POP3, which begins without TLS.
    Pop3,
    /// POP3 with TLS from the first octet on.
    Pop3s,
    /// PEEP, with or without TLS as configured.
    Peep,
}

impl Service {
    /// All services.
    pub const ALL: [Self; 3] = [Self::Pop3, Self::Pop3s, Self::Peep];

    /// The protocol of its connections.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Pop3 | Self::Pop3s => Protocol::Pop3,
            Self::Peep => Protocol::Peep,
        }
    }

    /// The name of the setting with its port.
    #[must_use]
    pub fn port_setting(self) -> &'static str {
        match self {
            Self::Pop3 => "pop3-port",
            Self::Pop3s => "pop3s-port",
            Self::Peep => "peep-port",
        }
    }

    /// Its name in metrics, for followers of events, and for its sockets in socket units of systemd
    /// (`FileDescriptorName=`).
    #[must_use]
    pub fn name(self) -> &'static str {
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
