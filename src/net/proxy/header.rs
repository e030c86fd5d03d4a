//! The grammar of the PROXY protocol (proxy-protocol.txt of HAProxy): finds the end of a header, and reads a whole one.
//!
//! The crate `ppp` parses headers. It has no limit but that of the length in a header of version 2, 64 KiB, so [`end`] finds
//! the end first, within limits.

use std::net::SocketAddr;
use std::str;

use ppp::{v1, v2};

/// The most octets of a header of version 1, with its CRLF (section 2.1).
const MAX_V1: usize = 107;

/// The most octets of a header of version 2. The addresses take 52 of them; the rest is for TLVs. HAProxy's own take a few
/// hundred octets at most.
pub(super) const MAX_V2: usize = 4096;

/// The octets of version 2 before the addresses: the signature, the command, the family and the length.
const FIXED_V2: usize = 16;

/// The TLV that says whether the client has used TLS, and the one in it with the version of TLS (section 2.2.6).
const TLV_SSL: u8 = 0x20;
const TLV_SSL_VERSION: u8 = 0x21;

/// The client, and the result of checking its certificate.
const FIXED_SSL: usize = 5;

/// The bit of a client that has used TLS.
const CLIENT_SSL: u8 = 0x01;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// The proxy passes on a client's connection.
    Client {
        /// The client's address. An IPv4 address is never written as an IPv6 one.
        address: SocketAddr,
        /// The version of TLS between the client and the proxy, as the proxy has written it; empty if it has not. `None` if
        /// there is no TLS, or the proxy does not say so.
        tls: Option<String>,
    },
    /// The proxy connects on its own account, or does not know the client: LOCAL and UNKNOWN.
    Proxy,
}

/// Why octets are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAHeader {
    /// They begin in another way.
    Other,
    /// They begin as a header does, and are malformed or too long.
    Malformed,
}

/// Finds the end of the header with which `octets` begin. Returns `None` if there is only a part of it.
///
/// # Errors
/// If they do not begin with a header, or the header is too long.
pub fn end(octets: &[u8]) -> Result<Option<usize>, NotAHeader> {
    if begins_with(octets, v2::PROTOCOL_PREFIX) {
        return end_v2(octets);
    }
    if begins_with(octets, b"PROXY ") {
        return end_v1(octets);
    }
    Err(NotAHeader::Other)
}

/// Returns true if `octets` begin with `prefix`, as far as they go.
fn begins_with(octets: &[u8], prefix: &[u8]) -> bool {
    octets.iter().zip(prefix).all(|(octet, expected)| octet == expected)
}

fn end_v1(octets: &[u8]) -> Result<Option<usize>, NotAHeader> {
    let line_end = octets.iter().take(MAX_V1).position(|&octet| octet == b'\n').map(|at| at + 1);
    if line_end.is_none() && octets.len() >= MAX_V1 { Err(NotAHeader::Malformed) } else { Ok(line_end) }
}

fn end_v2(octets: &[u8]) -> Result<Option<usize>, NotAHeader> {
    let Some(fixed) = octets.first_chunk::<FIXED_V2>() else { return Ok(None) };
    let end = FIXED_V2 + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if end > MAX_V2 {
        return Err(NotAHeader::Malformed);
    }
    Ok((octets.len() >= end).then_some(end))
}

/// Reads a header, which is all of `octets`.
///
/// # Errors
/// If it is malformed.
pub fn parse(octets: &[u8]) -> Result<Header, NotAHeader> {
    if octets.starts_with(v2::PROTOCOL_PREFIX) { parse_v2(octets) } else { parse_v1(octets) }
}

fn parse_v1(octets: &[u8]) -> Result<Header, NotAHeader> {
    let line = octets.strip_suffix(b"\r\n").ok_or(NotAHeader::Malformed)?;
    // What follows UNKNOWN has no meaning.
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        return Ok(Header::Proxy);
    }
    let header = v1::Header::try_from(octets).map_err(|_| NotAHeader::Malformed)?;
    let address = match header.addresses {
        v1::Addresses::Tcp4(pair) => SocketAddr::from((pair.source_address, pair.source_port)),
        v1::Addresses::Tcp6(pair) => SocketAddr::from((pair.source_address, pair.source_port)),
        v1::Addresses::Unknown => return Ok(Header::Proxy),
    };
    Ok(Header::Client { address: canonical(address), tls: None })
}

fn parse_v2(octets: &[u8]) -> Result<Header, NotAHeader> {
    let header = v2::Header::try_from(octets).map_err(|_| NotAHeader::Malformed)?;
    let address = match (header.command, header.addresses) {
        (v2::Command::Local, _) => return Ok(Header::Proxy),
        (_, v2::Addresses::IPv4(pair)) => SocketAddr::from((pair.source_address, pair.source_port)),
        (_, v2::Addresses::IPv6(pair)) => SocketAddr::from((pair.source_address, pair.source_port)),
        // The client of the proxy has no address that means something here.
        (_, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => return Ok(Header::Proxy),
    };
    match header.protocol {
        v2::Protocol::Stream => Ok(Header::Client { address: canonical(address), tls: tls(&header)? }),
        v2::Protocol::Unspecified => Ok(Header::Proxy),
        v2::Protocol::Datagram => Err(NotAHeader::Malformed),
    }
}

/// Writes an IPv4 address as such.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns the version of TLS that the client has used; `None` if it has used none.
fn tls(header: &v2::Header<'_>) -> Result<Option<String>, NotAHeader> {
    for tlv in header.tlvs() {
        let tlv = tlv.map_err(|_| NotAHeader::Malformed)?;
        if tlv.kind != TLV_SSL {
            continue;
        }
        let (fixed, details) = tlv.value.split_at_checked(FIXED_SSL).ok_or(NotAHeader::Malformed)?;
        if fixed[0] & CLIENT_SSL != 0 {
            return tls_version(details).map(Some);
        }
    }
    Ok(None)
}

fn tls_version(details: &[u8]) -> Result<String, NotAHeader> {
    for tlv in v2::TypeLengthValues::from(details) {
        let tlv = tlv.map_err(|_| NotAHeader::Malformed)?;
        if tlv.kind == TLV_SSL_VERSION {
            let is_word = tlv.value.len() <= 16 && tlv.value.iter().all(u8::is_ascii_graphic);
            let version = str::from_utf8(&tlv.value).ok().filter(|_| is_word);
            return version.map(str::to_owned).ok_or(NotAHeader::Malformed);
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a header that other octets follow.
    fn read(octets: &[u8]) -> Result<Header, NotAHeader> {
        let octets = [octets, b"\r\nQUIT\r\n"].concat();
        parse(&octets[..end(&octets)?.expect("a whole header")])
    }

    fn client(address: &str) -> Result<Header, NotAHeader> {
        Ok(Header::Client { address: address.parse().unwrap(), tls: None })
    }

    /// A header of version 2 with this command, family and payload.
    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, payload].concat()
    }

    const IPV4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 0, 110];

    /// The addresses with a TLV for TLS, whose first octet is `client`, and TLVs in it.
    fn with_tls(client: u8, details: &[u8]) -> Vec<u8> {
        let length = u8::try_from(5 + details.len()).unwrap();
        [IPV4, &[0x05, 0, 1, b'x'], &[TLV_SSL, 0, length, client, 0, 0, 0, 0], details].concat()
    }

    #[test]
    fn version_1_has_the_clients_address() {
        assert_eq!(read(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 110\r\n"), client("192.0.2.1:4711"));
        assert_eq!(read(b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 995\r\n"), client("[2001:db8::1]:65535"));
        assert_eq!(read(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"), client("192.0.2.1:1"));
    }

    #[test]
    fn the_proxys_own_connections_name_no_client() {
        for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ff::1 ff::2 1 2\r\n", "PROXY UNKNOWN a b c d e f g h i j\r\n"]
        {
            assert_eq!(read(line.as_bytes()), Ok(Header::Proxy), "{line}");
        }
        let unix = [b'/'; 216];
        for (command, family, payload) in
            [(0x20, 0x00, &[][..]), (0x20, 0x11, IPV4), (0x21, 0x00, &[]), (0x21, 0x10, IPV4), (0x21, 0x31, &unix)]
        {
            assert_eq!(read(&v2(command, family, payload)), Ok(Header::Proxy), "{command} {family}");
        }
    }

    #[test]
    fn version_2_has_the_clients_address() {
        assert_eq!(read(&v2(0x21, 0x11, IPV4)), client("192.0.2.1:4711"));
        let ipv6: Vec<u8> = [[0x20, 1, 0x0d, 0xb8], [0; 4], [0; 4], [0, 0, 0, 9]]
            .concat()
            .repeat(2)
            .into_iter()
            .chain([0, 7, 0, 8])
            .collect();
        assert_eq!(read(&v2(0x21, 0x21, &ipv6)), client("[2001:db8::9]:7"));
    }

    #[test]
    fn tls_is_told_by_a_tlv() {
        let tls = |payload: &[u8]| match read(&v2(0x21, 0x11, payload)) {
            Ok(Header::Client { tls, .. }) => Ok(tls),
            other => Err(other),
        };
        assert_eq!(tls(&with_tls(1, b"\x21\0\x07TLSv1.3\x23\0\x01x")), Ok(Some("TLSv1.3".to_owned())));
        assert_eq!(tls(&with_tls(7, b"")), Ok(Some(String::new())));
        assert_eq!(tls(&with_tls(0, b"")), Ok(None));
        for wrong in [
            with_tls(1, b"\x21\0\x09TLSv1.3"),
            with_tls(1, b"\x21\0\x03a\r\n"),
            with_tls(1, &[b"\x21\0\x11", &[b'x'; 17][..]].concat()),
            [IPV4, &[TLV_SSL, 0, 4, 1, 0, 0, 0]].concat(),
            [IPV4, &[TLV_SSL, 0, 9, 1]].concat(),
            [IPV4, &[1]].concat(),
        ] {
            assert_eq!(tls(&wrong), Err(Err(NotAHeader::Malformed)), "{wrong:?}");
        }
    }

    #[test]
    fn a_part_of_a_header_has_no_end_yet() {
        for header in [&b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 110\r\n"[..], &v2(0x21, 0x11, &with_tls(1, b""))] {
            for length in 0..header.len() {
                assert_eq!(end(&header[..length]), Ok(None), "{length}");
            }
            assert_eq!(end(header), Ok(Some(header.len())));
        }
    }

    #[test]
    fn other_octets_are_no_header() {
        for other in ["USER ana\r\n", "proxy TCP4 ", "PROXY\r\n", "\r\n\r\nQUIT", "\x16\x03\x01"] {
            assert_eq!(end(other.as_bytes()), Err(NotAHeader::Other), "{other:?}");
        }
    }

    #[test]
    fn a_header_has_a_longest_length() {
        let line = |length: usize| [b"PROXY UNKNOWN ", &vec![b'x'; length - 16][..], b"\r\n"].concat();
        assert_eq!(read(&line(107)), Ok(Header::Proxy));
        assert_eq!(end(&line(108)), Err(NotAHeader::Malformed));
        let local = |payload: usize| v2(0x20, 0, &vec![0; payload]);
        assert_eq!(read(&local(MAX_V2 - FIXED_V2)), Ok(Header::Proxy));
        assert_eq!(end(&local(MAX_V2 - FIXED_V2 + 1)), Err(NotAHeader::Malformed));
    }

    #[test]
    fn malformed_headers_are_refused() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 192.0.2.1 198.51.100.1 4711 110\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 4711 110\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 110\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 110 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 110\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 4711 110\r\n",
            "PROXY UNKNOWN\n",
            "PROXY UNKNOWNX\r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Err(NotAHeader::Malformed), "{line:?}");
        }
        for (command, family, payload) in
            [(0x11, 0x11, IPV4), (0x22, 0x11, IPV4), (0x21, 0x12, IPV4), (0x21, 0x41, IPV4), (0x21, 0x11, &IPV4[..11])]
        {
            assert_eq!(read(&v2(command, family, payload)), Err(NotAHeader::Malformed), "{command} {family}");
        }
    }
}
