//! Other protocols that a client may speak to a port, by mistake or because an attacker makes it.
//!
//! A web page can make a browser send HTTP, or a TLS handshake with octets of the page's choice in it, to any port of
//! the browser's own machine. None of these octets may be taken for commands.

use std::fmt;

/// What a TLS handshake begins with: the record type "handshake" and the major version (RFC 8446 section 5.1).
const TLS_HANDSHAKE: [u8; 2] = [22, 3];

/// A protocol that is not spoken on this port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// An HTTP request.
    Http,
    /// A TLS handshake on a port that is in clear.
    Tls,
}

impl Foreign {
    /// Whether a TLS handshake begins with these octets.
    #[must_use]
    pub(super) fn begins_tls(octets: &[u8]) -> bool {
        octets.starts_with(&TLS_HANDSHAKE)
    }

    /// The protocol that a line belongs to, if it is one of these.
    #[must_use]
    pub fn of(line: &[u8]) -> Option<Self> {
        if Self::begins_tls(line) {
            return Some(Self::Tls);
        }
        // `POST / HTTP/1.1`, or a header: `Host: localhost`.
        let first_word = line.split(|&octet| octet == b' ').next().unwrap_or_default();
        let is_http = first_word.ends_with(b":") || memchr::memmem::find(line, b" HTTP/").is_some();
        is_http.then_some(Self::Http)
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_and_tls_are_recognized() {
        for line in ["GET / HTTP/1.0", "POST /a?b HTTP/1.1", "a /root HTTP/1.1", "Host: localhost", "Cookie: a=b"] {
            assert_eq!(Foreign::of(line.as_bytes()), Some(Foreign::Http), "{line}");
        }
        assert_eq!(Foreign::of(b"\x16\x03\x01\x02\x00\x01"), Some(Foreign::Tls));
        for line in ["", "CAPA", "USER ana", "USER a:b", "a root root:", "HTTP/1.1", "\x16", "nonsense"] {
            assert_eq!(Foreign::of(line.as_bytes()), None, "{line}");
        }
    }
}
