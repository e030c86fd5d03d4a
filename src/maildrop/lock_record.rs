//! What a lock file says: which session of which server holds the lock. Servers that find the lock taken tell it to their
//! operator. Nothing else depends on it, because a user may write to the file.

use std::fmt;
use std::io::Write;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::system::uname;

use super::holder::Holder;

/// The length of a record. Each is as long as the one before, so that one write replaces it.
pub(super) const LENGTH: usize = 160;

/// The longest name of a host (Linux's `HOST_NAME_MAX`).
const HOST_LENGTH: usize = 64;

/// The session of another server that holds a maildrop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The name of the host that the server runs on.
    pub host: String,
    /// The server's process id there.
    pub process: u32,
    /// The session's number.
    pub session: Option<u64>,
    /// When the session began, by that host's clock.
    pub since: SystemTime,
}

impl Elsewhere {
    /// For how long the session has been open.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.since.elapsed().unwrap_or_default()
    }

    /// Reads a record. The file may be an earlier version's, which is empty, or have been written by someone else.
    pub(super) fn parse(record: &[u8]) -> Option<Self> {
        let record = std::str::from_utf8(record).ok()?;
        let mut words = record.split_ascii_whitespace();
        let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let host = value("host").filter(|host| is_host(host))?.to_owned();
        let process = value("pid")?.parse().ok()?;
        let session = match value("session")? {
            "-" => None,
            session => Some(session.parse().ok()?),
        };
        let since = UNIX_EPOCH.checked_add(Duration::from_secs(value("since")?.parse().ok()?))?;
        Some(Self { host, process, session, since })
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("session ")?;
        if let Some(session) = self.session {
            write!(f, "{session} ")?;
        }
        let Self { host, process, .. } = self;
        write!(f, "of the server on {host} (process {process}) for {} s", self.age().as_secs())
    }
}

fn is_host(name: &str) -> bool {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
    (1..=HOST_LENGTH).contains(&name.len()) && name.bytes().all(is_plain)
}

/// A record as it is written: text, spaces to its length, and a line feed.
pub(super) type Record = [u8; LENGTH];

/// The record of a session of this server.
pub(super) fn record(holder: &Holder) -> Record {
    static SERVER: LazyLock<String> = LazyLock::new(|| {
        let name = uname();
        let host = name.nodename().to_str().ok().filter(|host| is_host(host)).unwrap_or("localhost");
        format!("host={host} pid={}", std::process::id())
    });
    let since = SystemTime::now().checked_sub(holder.since.elapsed());
    let since = since.and_then(|since| since.duration_since(UNIX_EPOCH).ok()).unwrap_or_default().as_secs();
    let mut record = [b' '; LENGTH];
    record[LENGTH - 1] = b'\n';
    let mut text = &mut record[..LENGTH - 1];
    // There is room for the longest text.
    let _ = match holder.session {
        Some(session) => write!(text, "{} session={session} since={since}", *SERVER),
        None => write!(text, "{} session=- since={since}", *SERVER),
    };
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Instant;

    fn holder(session: Option<u64>) -> Holder {
        Holder { session, origin: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into(), since: Instant::now() }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for session in [None, Some(17), Some(u64::MAX)] {
            let record = record(&holder(session));
            assert_eq!(record.last(), Some(&b'\n'));
            let read = Elsewhere::parse(&record).unwrap();
            assert_eq!((read.session, read.process), (session, std::process::id()));
            assert!(read.age().as_secs() < 600 && is_host(&read.host));
        }
    }

    #[test]
    fn the_longest_record_has_room() {
        let longest =
            format!("host={} pid={} session={} since={}\n", "h".repeat(HOST_LENGTH), u32::MAX, u64::MAX, u64::MAX);
        assert!(longest.len() <= LENGTH, "{}", longest.len());
    }

    #[test]
    fn a_holder_is_told_in_words() {
        let since = SystemTime::now() - Duration::from_secs(40);
        let mut holder = Elsewhere { host: "mail2".to_owned(), process: 812, session: Some(17), since };
        assert_eq!(holder.to_string(), "session 17 of the server on mail2 (process 812) for 40 s");
        holder.since = SystemTime::now() + Duration::from_secs(1000); // its clock is ahead
        assert!(holder.to_string().ends_with(" for 0 s"));
    }

    #[test]
    fn nothing_else_is_read() {
        let good = "host=mail2 pid=812 session=17 since=1795831201\n";
        assert!(Elsewhere::parse(good.as_bytes()).is_some());
        for (part, other) in [
            ("mail2", ""),
            ("mail2", "\x1b[2J"),
            ("mail2", "zoë"),
            ("812", "-1"),
            ("812", "4294967296"),
            ("17", "seventeen"),
            ("since", "until"),
            ("1795831201", "99999999999999999999"),
            (" since=1795831201", ""),
        ] {
            assert_eq!(Elsewhere::parse(good.replace(part, other).as_bytes()), None, "{part} {other}");
        }
        for other in [&b""[..], b"\xff", b"\0\0\0", b"812"] {
            assert_eq!(Elsewhere::parse(other), None);
        }
    }
}
