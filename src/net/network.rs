//! Networks as people and programs write them.

use std::net::IpAddr;

use ipnet::IpNet;

/// Reads a network, or an address, which is the network of that address alone. Returns `None` if it is neither.
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok().map(canonical)
}

/// Writes a network, without the prefix length if it is a single address.
pub(crate) fn network_text(network: &IpNet) -> String {
    match network.prefix_len() == network.max_prefix_len() {
        true => network.addr().to_string(),
        false => network.to_string(),
    }
}

/// The network without the rest of an address behind its prefix. A network of IPv4 addresses that is written with IPv6
/// ones (RFC 4291, section 2.5.5.2) is returned as an IPv4 network.
fn canonical(network: IpNet) -> IpNet {
    let network = network.trunc();
    let mapped = network.prefix_len().checked_sub(96).zip(match network.addr() {
        IpAddr::V6(address) => address.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    });
    mapped.and_then(|(length, address)| IpNet::new(address.into(), length).ok()).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_spelling() {
        for (text, written) in [
            ("192.0.2.4", "192.0.2.4"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.77/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.4", "192.0.2.4"),
            ("2001:db8::1/32", "2001:db8::/32"),
        ] {
            assert_eq!(parse_network(text).map(|network| network_text(&network)).as_deref(), Some(written), "{text}");
        }
        for wrong in ["", "here", "192.0.2.0/33", "192.0.2.4:110", "*"] {
            assert_eq!(parse_network(wrong), None, "{wrong}");
        }
    }
}
