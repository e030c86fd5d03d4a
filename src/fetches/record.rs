//! What is known of one user, as a line of a file.
//!
//! The fields have tabs between them. The last one is the CRC-32 of all that precedes it, so a line that is damaged or incomplete
//! is noticed.

use std::fmt::Display;
use std::net::SocketAddr;

use super::Days;
use crate::auth::UserName;

/// The longest text of a mail program's first commands that is accepted.
const LONGEST_CLIENT: usize = 80;

/// What is known of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// How many logins there were.
    pub logins: u64,
    /// When the last one was, in seconds since 1970.
    pub last_login: u64,
    /// Where the last one came from.
    pub address: Option<SocketAddr>,
    /// When the last complete fetch was, in seconds since 1970.
    pub last_fetch: Option<u64>,
    /// The octets of the messages retrieved on each of the last days.
    pub days: Days,
    /// The first commands of the last session that has ended.
    pub client: String,
}

fn field(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl Record {
    /// The line of this user, with its line end.
    pub(super) fn line(&self, user: &UserName) -> String {
        let Self { logins, last_login, address, last_fetch, days, client } = self;
        let (address, last_fetch) = (field(*address), field(*last_fetch));
        let client = field((!client.is_empty()).then_some(client));
        let line = format!("{user}\t{logins}\t{last_login}\t{address}\t{last_fetch}\t{days}\t{client}");
        format!("{line}\t{:08x}\n", crc32fast::hash(line.as_bytes()))
    }

    /// Reads a line without its line end; `None` if it is not exactly what [`Record::line`] writes.
    pub(super) fn parse(line: &[u8]) -> Option<(UserName, Self)> {
        let (line, checksum) = std::str::from_utf8(line).ok()?.rsplit_once('\t')?;
        if checksum != format!("{:08x}", crc32fast::hash(line.as_bytes())) {
            return None;
        }
        let fields: Vec<&str> = line.split('\t').collect();
        let [user, logins, last_login, address, last_fetch, days, client] = fields[..] else { return None };
        let is_client = |text: &str| {
            text.len() <= LONGEST_CLIENT && text.bytes().all(|octet| matches!(octet, b'A'..=b'Z' | b'?' | b' '))
        };
        let client = if client == "-" { "" } else { client };
        let record = Self {
            logins: logins.parse().ok()?,
            last_login: last_login.parse().ok()?,
            address: if address == "-" { None } else { Some(address.parse().ok()?) },
            last_fetch: if last_fetch == "-" { None } else { Some(last_fetch.parse().ok()?) },
            days: days.parse().ok()?,
            client: is_client(client).then(|| client.to_owned())?,
        };
        Some((user.parse().ok()?, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> (UserName, Record) {
        let record = Record {
            logins: u64::MAX,
            last_login: 1_795_831_201,
            address: Some("[2001:db8::17%4294967295]:65535".parse().unwrap()),
            last_fetch: Some(1_795_831_202),
            days: "20785:395,20786:12".parse().unwrap(),
            client: "CAPA STLS CAPA USER PASS STAT ?".to_owned(),
        };
        ("zoë\u{202e}=+-@\"%".parse().unwrap(), record)
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for (user, record) in [full(), ("-".parse().unwrap(), Record::default())] {
            let line = record.line(&user);
            assert_eq!(Record::parse(line.strip_suffix('\n').unwrap().as_bytes()), Some((user, record)), "{line}");
        }
    }

    #[test]
    fn any_damage_is_noticed() {
        let (user, record) = full();
        let line = record.line(&user);
        let good = line.strip_suffix('\n').unwrap().as_bytes();
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            assert_eq!(Record::parse(&bad), None, "octet {at}");
            assert_eq!(Record::parse(&good[..at]), None, "cut at {at}");
        }
    }

    /// A checksum can be right although the line is not: by accident, or because someone has edited the file.
    #[test]
    fn what_is_never_written_is_refused() {
        for (user, client) in
            [("a b", "CAPA"), ("../x", "CAPA"), ("", "CAPA"), ("a", "PASS secret"), ("a", "\u{1b}[2J")]
        {
            let line = format!("{user}\t1\t1\t-\t-\t-\t{client}");
            let line = format!("{line}\t{:08x}", crc32fast::hash(line.as_bytes()));
            assert_eq!(Record::parse(line.as_bytes()), None, "{line:?}");
        }
    }
}
