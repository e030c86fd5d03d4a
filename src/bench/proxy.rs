//! The PROXY header with which popbench can begin each connection, as a proxy does.

use std::net::{IpAddr, SocketAddr};

use ppp::v2::{Builder, Command, Protocol, Version};

/// The port of the client that the header names.
const PORT: u16 = 40000;

/// A header of version 2, for a client of `client` that has connected to `server`. The header has the family of the client's
/// address; if the server's is another, both addresses in it are the client's.
pub(super) fn header(client: IpAddr, server: SocketAddr) -> Vec<u8> {
    let client = SocketAddr::new(client, PORT);
    let to = if client.is_ipv4() == server.is_ipv4() { server } else { client };
    Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, (client, to))
        .build()
        .expect("two addresses fit into a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_the_client() {
        for (client, server) in
            [("192.0.2.7", "127.0.0.1:110"), ("2001:db8::7", "[::1]:110"), ("2001:db8::7", "127.0.0.1:110")]
        {
            let octets = header(client.parse().unwrap(), server.parse().unwrap());
            let read = ppp::v2::Header::try_from(octets.as_slice()).unwrap();
            let source = match read.addresses {
                ppp::v2::Addresses::IPv4(it) => IpAddr::from(it.source_address),
                ppp::v2::Addresses::IPv6(it) => it.source_address.into(),
                other => panic!("{other:?}"),
            };
            assert_eq!(source.to_string(), client);
        }
    }
}
