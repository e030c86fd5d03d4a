//! Addresses to listen on, as the operator writes them on the command line.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Socket, Type};

/// An IP address. A link-local address includes its zone (RFC 4007 section 11), as in `fe80::1%eth0`. The zone names the
/// interface, because the same link-local address may exist on every interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    ip: IpAddr,
    zone: Option<String>,
}

impl ListenAddress {
    /// Returns true if only programs on this machine can reach the address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.ip.is_loopback()
    }

    /// Returns true if it stands for all addresses of its family, as 0.0.0.0 does.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.ip.is_unspecified()
    }

    /// Returns the socket address for the kernel.
    ///
    /// # Errors
    /// If the zone names no interface.
    pub(super) fn with_port(&self, port: u16) -> io::Result<SocketAddr> {
        Ok(match (self.ip, &self.zone) {
            (IpAddr::V6(ip), Some(zone)) => SocketAddrV6::new(ip, port, 0, index_of(zone)?).into(),
            (ip, _) => SocketAddr::new(ip, port),
        })
    }

    /// Returns the socket address at which a program on this machine reaches a server that listens on this address.
    ///
    /// # Errors
    /// If the zone names no interface.
    pub fn to_connect_to(&self, port: u16) -> io::Result<SocketAddr> {
        match self.ip {
            IpAddr::V4(ip) if ip.is_unspecified() => Ok((Ipv4Addr::LOCALHOST, port).into()),
            IpAddr::V6(ip) if ip.is_unspecified() => Ok((Ipv6Addr::LOCALHOST, port).into()),
            _ => self.with_port(port),
        }
    }

    /// Formats the address with a port for people to read. The zone keeps its name.
    pub(super) fn text_with_port(&self, port: u16) -> String {
        match self.ip {
            IpAddr::V6(_) => format!("[{self}]:{port}"),
            IpAddr::V4(_) => format!("{self}:{port}"),
        }
    }
}

/// Returns the index of an interface, which may be given by its name or as the index itself.
fn index_of(zone: &str) -> io::Result<u32> {
    let any_socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    name_to_index(any_socket, zone).or_else(|error| zone.parse().map_err(|_| error.into()))
}

impl From<IpAddr> for ListenAddress {
    fn from(ip: IpAddr) -> Self {
        Self { ip, zone: None }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ip, zone) = text.split_once('%').map_or((text, None), |(ip, zone)| (ip, Some(zone)));
        let ip: IpAddr = ip.parse().map_err(|error| format!("{error}"))?;
        let is_link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        match zone {
            None if is_link_local => Err(format!("it needs its interface, as in {ip}%eth0")),
            Some("") => Err("there is no interface behind '%'".to_owned()),
            Some(_) if !is_link_local => Err("only a link-local address has an interface behind '%'".to_owned()),
            zone => Ok(Self { ip, zone: zone.map(str::to_owned) }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ip)?;
        self.zone.iter().try_for_each(|zone| write!(f, "%{zone}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ListenAddress, String> {
        text.parse()
    }

    #[test]
    fn an_address_is_printed_as_it_was_written() {
        for (text, with_port) in [
            ("127.0.0.1", "127.0.0.1:110"),
            ("::1", "[::1]:110"),
            ("2001:db8::1", "[2001:db8::1]:110"),
            ("fe80::1%eth0", "[fe80::1%eth0]:110"),
            ("fe80::1%2", "[fe80::1%2]:110"),
        ] {
            let address = parsed(text).unwrap();
            assert_eq!((address.to_string().as_str(), address.text_with_port(110).as_str()), (text, with_port));
        }
    }

    #[test]
    fn only_a_link_local_address_has_a_zone() {
        assert_eq!(parsed("fe80::1").unwrap_err(), "it needs its interface, as in fe80::1%eth0");
        assert_eq!(parsed("fe80::1%").unwrap_err(), "there is no interface behind '%'");
        for not_link_local in ["127.0.0.1%lo", "::1%lo", "2001:db8::1%eth0"] {
            assert!(parsed(not_link_local).unwrap_err().starts_with("only a link-local"), "{not_link_local}");
        }
        assert_eq!(parsed("localhost").unwrap_err(), "invalid IP address syntax");
    }

    #[test]
    fn a_zone_is_a_name_or_a_number() {
        let index = |text: &str| match parsed(text).unwrap().with_port(110) {
            Ok(SocketAddr::V6(address)) => Ok(address.scope_id()),
            Ok(other) => panic!("{other}"),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(index("fe80::1%lo"), Ok(1));
        assert_eq!(index("fe80::1%77"), Ok(77));
        assert!(index("fe80::1%nowhere").unwrap_err().starts_with("No such device"));
    }
}
