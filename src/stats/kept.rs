//! Counters that survive a restart: a text file in the state directory.
//!
//! ```text
//! pop3d counters 1
//! sent 395
//! …
//! crc32 01ab89ef      of everything above
//! ```

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::sync::Arc;

use super::Stats;
use crate::state::StateDir;

const FILE: &str = "counters";

/// The first line. Its number has to be raised with each change of the format.
const VERSION: &str = "pop3d counters 1";

/// The counters on disk.
#[derive(Debug)]
pub struct Kept {
    directory: Arc<StateDir>,
    written: Stats,
    failing: bool,
}

impl Kept {
    /// Sets `stats` to what an earlier server has kept in `directory`, or leaves them at 0 if that file is missing or
    /// damaged.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn open(directory: Arc<StateDir>, stats: &Stats) -> io::Result<Self> {
        match fs::read_to_string(directory.file(FILE)).map(|text| decode(&text)) {
            Ok(Some(kept)) => stats.set(&kept),
            Ok(None) => damaged(&directory, "it is damaged"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => damaged(&directory, &error.to_string()),
        }
        directory.replace(FILE, encode(stats).as_bytes())?;
        let written = Stats::default();
        written.set(stats);
        Ok(Self { directory, written, failing: false })
    }

    /// Writes the counters if they have changed. An error is logged once, and again only after they could be written in
    /// between.
    pub fn save(&mut self, stats: &Stats) {
        if stats.values() == self.written.values() {
            return;
        }
        // A copy, because sessions go on counting: the next comparison has to be with what was written.
        self.written.set(stats);
        match self.directory.replace(FILE, encode(&self.written).as_bytes()) {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    log::error!("{}: the counters cannot be written: {error}", self.directory.file(FILE).display());
                }
                self.failing = true;
                self.written = Stats::default();
            }
        }
    }
}

fn damaged(directory: &StateDir, why: &str) {
    log::error!("{}: counting starts from 0: {why}", directory.file(FILE).display());
}

fn encode(stats: &Stats) -> String {
    let mut text = format!("{VERSION}\n");
    for (name, counter) in stats.named() {
        let _ = writeln!(text, "{name} {}", counter.value());
    }
    let checksum = crc32fast::hash(text.as_bytes());
    let _ = writeln!(text, "crc32 {checksum:08x}");
    text
}

/// The counters in a file's text; `None` if the text is not exactly what [`encode`] writes.
fn decode(text: &str) -> Option<Stats> {
    let stats = Stats::default();
    for ((_, counter), line) in stats.named().into_iter().zip(text.lines().skip(1)) {
        counter.set(line.split_once(' ')?.1.parse().ok()?);
    }
    (encode(&stats) == text).then_some(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, impl Fn() -> StateDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        (directory, move || StateDir::open(path.clone()).unwrap())
    }

    fn counted() -> Stats {
        let stats = Stats::default();
        stats.sent.set(u64::MAX);
        stats.logins.set(7);
        stats
    }

    #[test]
    fn counting_continues_after_a_restart() {
        let (_directory, open) = state();
        let stats = Stats::default();
        let mut kept = Kept::open(open().into(), &stats).unwrap();
        stats.set(&counted());
        kept.save(&stats);
        drop(kept);
        let next = Stats::default();
        Kept::open(open().into(), &next).unwrap();
        assert_eq!(next.values(), counted().values());
    }

    #[test]
    fn any_damage_is_noticed() {
        let good = encode(&counted());
        assert!(decode(&good).is_some());
        for at in 0..good.len() {
            let mut octets = good.clone().into_bytes();
            octets[at] ^= 1;
            assert!(decode(&String::from_utf8(octets).unwrap()).is_none(), "octet {at}");
            assert!(decode(&good[..at]).is_none(), "cut at {at}");
        }
        assert!(decode(&good.replace("counters 1", "counters 2")).is_none());
        assert!(decode(&format!("{good}\n")).is_none());
    }

    #[test]
    fn with_an_unusable_file_counting_starts_from_0() {
        let (_directory, open) = state();
        for octets in [&b"nonsense"[..], b"", b"\xff\xfe", &[b'x'; 100_000]] {
            let directory = open();
            directory.replace(FILE, octets).unwrap();
            let stats = Stats::default();
            Kept::open(directory.into(), &stats).unwrap();
            assert_eq!(stats.values(), Stats::default().values());
            assert!(decode(&fs::read_to_string(open().file(FILE)).unwrap()).is_some());
        }
    }

    #[test]
    fn after_a_failure_the_counters_are_written_later() {
        let (_directory, open) = state();
        let stats = Stats::default();
        let mut kept = Kept::open(open().into(), &stats).unwrap();
        let path = kept.directory.file(FILE);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap(); // no file can be renamed to it
        stats.logins.add(1);
        kept.save(&stats);
        assert!(kept.failing);
        fs::remove_dir(&path).unwrap();
        kept.save(&stats);
        assert!(!kept.failing);
        assert_eq!(decode(&fs::read_to_string(path).unwrap()).unwrap().values(), stats.values());
    }
}
