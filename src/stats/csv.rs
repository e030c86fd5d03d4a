//! The statistics log (`--stats-log`): a line of counters and gauges for each interval, as CSV.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::macros::format_description;

use super::Stats;
use crate::append::append_to;

/// The columns have PEEP's names; `cu` is the number of users here.
const HEADER: &str = "time,rb,re,xe,cc,cu,hc,hu\n";

/// The mode of a new file, before the umask: everyone may read it, since it has no names and no addresses.
const MODE: u32 = 0o666;

/// The counters and gauges at one moment.
#[derive(Debug)]
pub struct Sample<'a> {
    /// The counters.
    pub stats: &'a Stats,
    /// POP3 connections now.
    pub connections: usize,
    /// Users logged in now.
    pub logged_in: usize,
}

/// A file to which a line is appended for each interval.
#[derive(Debug)]
pub struct StatsLog {
    path: PathBuf,
    interval: Duration,
    due: Instant,
    failing: bool,
}

impl StatsLog {
    /// Makes a log whose first line is due at once.
    #[must_use]
    pub fn new(path: PathBuf, interval: Duration) -> Self {
        Self { path, interval, due: Instant::now(), failing: false }
    }

    /// Opens the file as for a line.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn try_open(&self) -> io::Result<()> {
        append_to(&self.path, MODE).map(drop)
    }

    /// Returns true if a line is due, and makes the next one due an interval later.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.due;
        if due {
            let next = self.due + self.interval;
            // Lines that were missed while the server was stopped are not made up for.
            self.due = if next > now { next } else { now + self.interval };
        }
        due
    }

    /// Appends a line. An error is logged once, and again only after a line could be written in between.
    pub fn write(&mut self, sample: &Sample<'_>) {
        let written = self.append(&line(OffsetDateTime::now_utc(), sample));
        if let Err(error) = &written
            && !self.failing
        {
            log::error!("{}: the counters cannot be written: {error}", self.path.display());
        }
        self.failing = written.is_err();
    }

    /// Opens the file and appends a line. The file is opened for each line, so it may be rotated at any time. An
    /// incomplete line is removed again, so that the next one does not continue it.
    fn append(&self, line: &str) -> io::Result<()> {
        let mut file = append_to(&self.path, MODE)?;
        let before = file.metadata()?;
        let header = if before.len() == 0 { HEADER } else { "" };
        file.write_all(format!("{header}{line}").as_bytes()).inspect_err(|_| {
            if before.is_file() {
                let _ = file.set_len(before.len());
            }
        })
    }
}

fn line(now: OffsetDateTime, sample: &Sample<'_>) -> String {
    let time = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let Stats { sent, retrieved, removed, connections, logins, .. } = sample.stats;
    format!(
        "{},{},{},{},{},{},{},{}\n",
        now.format(time).unwrap_or_default(),
        sent.value(),
        retrieved.value(),
        removed.value(),
        sample.connections,
        sample.logged_in,
        connections.value(),
        logins.value()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_new_file_has_a_header() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stats.csv");
        let mut log = StatsLog::new(path.clone(), Duration::from_secs(60));
        let stats = Stats::default();
        stats.sent.add(395);
        let mut write = || log.write(&Sample { stats: &stats, connections: 2, logged_in: 1 });
        write();
        write();
        fs::rename(&path, directory.path().join("stats.csv.1")).unwrap();
        write();
        for (file, lines) in [("stats.csv.1", 3), ("stats.csv", 2)] {
            let text = fs::read_to_string(directory.path().join(file)).unwrap();
            assert!(text.starts_with(HEADER), "{text}");
            assert_eq!(text.lines().count(), lines);
            assert!(text.lines().skip(1).all(|line| line.ends_with("Z,395,0,0,2,1,0,0")), "{text}");
        }
    }

    #[test]
    fn a_time_is_utc() {
        let stats = Stats::default();
        let sample = Sample { stats: &stats, connections: 0, logged_in: 0 };
        assert!(line(OffsetDateTime::UNIX_EPOCH, &sample).starts_with("1970-01-01T00:00:00Z,"));
    }

    #[test]
    fn a_line_is_due_each_interval() {
        let mut log = StatsLog::new(PathBuf::new(), Duration::from_secs(60));
        let start = log.due;
        let mut due_after = |seconds| log.is_due(start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 59, 60, 61, 121].map(&mut due_after), [true, false, false, true, false, true]);
        // After an hour without a look there is one line, not sixty.
        assert_eq!([3600, 3601, 3660].map(due_after), [true, false, true]);
    }

    #[test]
    fn a_line_after_an_error_ends_the_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("later/stats.csv");
        let mut log = StatsLog::new(path.clone(), Duration::from_secs(60));
        let stats = Stats::default();
        let sample = Sample { stats: &stats, connections: 0, logged_in: 0 };
        log.write(&sample);
        assert!(log.failing);
        fs::create_dir(path.parent().unwrap()).unwrap();
        log.write(&sample);
        assert!(!log.failing && path.exists());
    }
}
