//! What is known of each user, in a file of the state directory.
//!
//! ```text
//! pop3d fetches 1
//! ana  2  1795831201  192.0.2.4:5555  1795831202  20785:395,20786:12  CAPA USER PASS STAT UIDL  01ab89ef
//! ```
//!
//! In the file there is a tab between two fields. It is replaced as a whole, so after a crash it is the old one or the new one. Each line has its own checksum. If the
//! file is damaged all the same, what can be read of it is used.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Fetches;
use super::record::Record;
use crate::state::StateDir;

const FILE: &str = "fetches";

/// The first line. Its number has to be raised with each change of the format.
const VERSION: &[u8] = b"pop3d fetches 1\n";

/// The shortest time between two writes. A server that is killed loses what has happened since the last one.
const INTERVAL: Duration = Duration::from_secs(10);

/// The largest file that is read. The largest one that is written is smaller: [`super::MOST_USERS`] lines of 1,500 octets.
const MOST_OCTETS: u64 = 16 << 20;

/// The file.
#[derive(Debug)]
pub struct Kept {
    directory: Arc<StateDir>,
    written: Option<Instant>,
    failing: bool,
}

impl Kept {
    /// Reads into `fetches` what an earlier server has kept in `directory`.
    #[must_use]
    pub fn open(directory: Arc<StateDir>, fetches: &Fetches) -> Self {
        let read = || -> io::Result<Vec<u8>> {
            let mut text = Vec::new();
            File::open(directory.file(FILE))?.take(MOST_OCTETS).read_to_end(&mut text)?;
            Ok(text)
        };
        let told = |why: &str| log::error!("{}: who fetched what is not known: {why}", directory.file(FILE).display());
        match read().map(|text| restore(&text, fetches)) {
            Ok(0) => {}
            Ok(damaged) => told(&format!("{damaged} lines are damaged")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => told(&error.to_string()),
        }
        Self { directory, written: None, failing: false }
    }

    /// Writes the file if something has changed and the last write was long enough ago, or if this is the `last` time. An error
    /// is logged once, and again only after the file could be written in between.
    pub fn save(&mut self, fetches: &Fetches, last: bool) {
        if !last && self.written.is_some_and(|written| written.elapsed() < INTERVAL) {
            return;
        }
        let Some(users) = fetches.take_changes() else { return };
        self.written = Some(Instant::now());
        let mut text = VERSION.to_vec();
        users.iter().for_each(|(user, record)| text.extend_from_slice(record.line(user).as_bytes()));
        match self.directory.replace(FILE, &text) {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    let path = self.directory.file(FILE);
                    log::error!("{}: who fetched what cannot be written: {error}", path.display());
                }
                self.failing = true;
                fetches.set_changed();
            }
        }
    }
}

/// Reads the text of a file. Returns how many lines could not be read.
fn restore(text: &[u8], fetches: &Fetches) -> usize {
    let Some(lines) = text.strip_prefix(VERSION) else { return 1 };
    let mut damaged = 0;
    for line in lines.split_inclusive(|&octet| octet == b'\n') {
        match line.strip_suffix(b"\n").and_then(Record::parse) {
            Some((user, record)) => fetches.restore(user, record),
            None => damaged += 1,
        }
    }
    damaged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::UserName;
    use crate::fetches::{Days, MOST_USERS};
    use std::fs;

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    fn with(records: &[(&str, Record)]) -> Fetches {
        let fetches = Fetches::default();
        records.iter().for_each(|(name, record)| fetches.restore(user(name), record.clone()));
        fetches.set_changed();
        fetches
    }

    fn open(directory: &tempfile::TempDir) -> (Kept, Fetches) {
        let fetches = Fetches::default();
        let state = StateDir::open(directory.path().to_owned()).unwrap();
        (Kept::open(state.into(), &fetches), fetches)
    }

    #[test]
    fn it_is_the_same_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let record = Record { logins: 7, client: "CAPA USER".to_owned(), ..Record::default() };
        open(&directory).0.save(&with(&[("ana", record.clone()), ("zoë", Record::default())]), false);
        let (mut kept, fetches) = open(&directory);
        assert_eq!(fetches.of(&user("ana")), Some(record));
        assert_eq!(fetches.users().len(), 2);
        fs::remove_file(directory.path().join(FILE)).unwrap();
        kept.save(&fetches, true);
        assert!(!directory.path().join(FILE).exists(), "nothing has changed");
    }

    #[test]
    fn it_is_not_written_at_each_change() {
        let directory = tempfile::tempdir().unwrap();
        let (mut kept, _) = open(&directory);
        kept.save(&with(&[("ana", Record::default())]), false);
        let fetches = with(&[("bob", Record::default())]);
        kept.save(&fetches, false);
        assert!(open_again(&directory, kept).of(&user("bob")).is_none());
        let (mut kept, _) = open(&directory);
        kept.written = Some(Instant::now());
        kept.save(&fetches, true);
        assert!(open_again(&directory, kept).of(&user("bob")).is_some(), "the last time");
        let (mut kept, _) = open(&directory);
        kept.written = Instant::now().checked_sub(INTERVAL);
        kept.save(&with(&[("eve", Record::default())]), false);
        assert!(open_again(&directory, kept).of(&user("eve")).is_some());
    }

    fn open_again(directory: &tempfile::TempDir, kept: Kept) -> Fetches {
        drop(kept);
        open(directory).1
    }

    /// The file is cut off at each octet, and each octet is changed. The other lines stay.
    #[test]
    fn what_can_be_read_of_a_damaged_file_is_used() {
        let names: Vec<_> = (0..5).map(|number| format!("user{number}")).collect();
        let text = VERSION.to_vec();
        let text = names.iter().fold(text, |text, name| [text, Record::default().line(&user(name)).into()].concat());
        for at in VERSION.len()..text.len() {
            let fetches = Fetches::default();
            let damaged = restore(&text[..at], &fetches);
            let whole = text[..at].iter().filter(|&&octet| octet == b'\n').count() - 1;
            assert_eq!((fetches.users().len(), damaged), (whole, usize::from(text[at - 1] != b'\n')), "{at}");
            let (mut changed, fetches) = (text.clone(), Fetches::default());
            changed[at] ^= 0x80;
            assert!(restore(&changed, &fetches) >= 1 && fetches.users().len() >= 3, "{at}");
        }
        for bad in [&b""[..], b"pop3d fetches 2\n", b"\xff", &[b'x'; 100_000]] {
            assert_eq!(restore(bad, &Fetches::default()), 1);
        }
    }

    #[test]
    fn the_largest_file_is_read_whole() {
        let octets = |day: u32| format!("{}:{}", u32::MAX - 30 + day, u64::MAX);
        let record = Record {
            logins: u64::MAX,
            last_login: u64::MAX,
            address: Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".parse().unwrap()),
            last_fetch: Some(u64::MAX),
            days: (0..30).map(octets).collect::<Vec<_>>().join(",").parse::<Days>().unwrap(),
            client: "X".repeat(80),
        };
        let line = record.line(&user(&"x".repeat(128)));
        assert!((VERSION.len() + line.len() * MOST_USERS) as u64 <= MOST_OCTETS, "{}", line.len());
    }

    #[test]
    fn after_a_failure_it_is_written_later() {
        let directory = tempfile::tempdir().unwrap();
        let (mut kept, _) = open(&directory);
        let path = directory.path().join(FILE);
        fs::create_dir(&path).unwrap(); // no file can be renamed to it
        let fetches = with(&[("ana", Record::default())]);
        kept.save(&fetches, true);
        assert!(kept.failing);
        fs::remove_dir(&path).unwrap();
        kept.save(&fetches, true);
        assert!(!kept.failing && path.exists());
    }
}
