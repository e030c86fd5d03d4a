//! APOP's timestamp and digest (RFC 1939 section 7).

use std::fmt::Write;
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use md5::{Digest, Md5};
use rustix::system::uname;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// This host's name, or `localhost` if the name has characters that a timestamp cannot have.
static HOST: LazyLock<String> = LazyLock::new(|| {
    let name = uname();
    let host = name.nodename().to_str().unwrap_or_default();
    let is_plain = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    if is_plain && !host.is_empty() && host.len() <= 255 { host } else { "localhost" }.to_owned()
});

/// A timestamp for one greeting, different from those of all other greetings: `<process.count.random@host>`.
#[must_use]
pub fn timestamp() -> String {
    let (process, count) = (process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let random = u64::from_le_bytes(super::random());
    let host = &*HOST;
    let mut timestamp = String::with_capacity(64 + host.len());
    // Writing to a String cannot fail.
    let _ = write!(timestamp, "<{process}.{count}.{random:016x}@{host}>");
    timestamp
}

/// The digest by which a client proves that it knows the password: MD5 of timestamp and password, in lower-case
/// hexadecimal.
pub(super) fn digest(timestamp: &str, password: &[u8]) -> String {
    let digest = Md5::digest([timestamp.as_bytes(), password].concat());
    digest.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_example_in_rfc_1939() {
        let digest = digest("<1896.697170952@dbc.mtview.ca.us>", b"tanstaaf");
        assert_eq!(digest, "c4c9334bac560ecc979e58001b3e22fb");
    }

    #[test]
    fn timestamps_have_the_form_of_message_ids_and_differ() {
        let (a, b) = (timestamp(), timestamp());
        assert_ne!(a, b);
        let inner = a.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap();
        let (left, right) = inner.split_once('@').unwrap();
        assert!(left.chars().all(|c| c.is_ascii_hexdigit() || c == '.') && !right.is_empty() && !right.contains('@'));
    }
}
