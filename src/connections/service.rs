//! What a listening socket is for.

use std::fmt;

use super::Protocol;

/// What a listening socket is for. Each has settings of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
