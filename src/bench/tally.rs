//! The sums of a run: times by step, totals, and errors by kind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::failure::Failure;
use super::tls::Agreed;

/// The steps of a session that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The TLS handshake, from its first octet on.
    Tls,
    /// From before the connect to the `+OK` of PASS.
    Login,
    /// From before the connect until the server has closed after QUIT.
    Session,
    /// From sending RETR, or the batch it is part of, to the end of its reply.
    Retr,
    /// STAT and its reply.
    Stat,
    /// LIST of the whole maildrop and its reply.
    List,
    /// UIDL of the whole maildrop and its reply.
    Uidl,
}

impl Step {
    /// Every step and its name, in the order of reports and of declaration.
    pub(super) const ALL: [(Step, &'static str); 7] = [
        (Step::Tls, "tls"),
        (Step::Login, "login"),
        (Step::Session, "session"),
        (Step::Retr, "retr"),
        (Step::Stat, "stat"),
        (Step::List, "list"),
        (Step::Uidl, "uidl"),
    ];
}

/// A message of the run: the index of its account and its message number.
pub(super) type MessageKey = (usize, u32);

/// The results of one session. The same value is used for one session after the other.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) connected: bool,
    /// What client and server agreed on in the TLS handshake.
    pub(super) agreed: Option<Agreed>,
    pub(super) times: Vec<(Step, Duration)>,
    pub(super) messages: u64,
    pub(super) octets: u64,
    pub(super) hashes: Vec<(MessageKey, u64)>,
}

impl Record {
    /// Records the time of a step that began at `since`.
    pub(super) fn lap(&mut self, step: Step, since: Instant) {
        self.times.push((step, since.elapsed()));
    }

    pub(super) fn clear(&mut self) {
        self.connected = false;
        self.agreed = None;
        self.times.clear();
        (self.messages, self.octets) = (0, 0);
        self.hashes.clear();
    }
}

/// The most kinds of errors that are counted apart. A hostile server could cause new kinds without end.
const MOST_KINDS: usize = 100;

/// The name under which further kinds are counted.
const OTHER_KINDS: &str = "other errors";

/// The count of one kind of error, and the first error in full.
#[derive(Debug)]
pub(super) struct Errors {
    pub(super) count: u64,
    pub(super) example: String,
}

/// The sum of all sessions so far.
#[derive(Debug)]
pub(super) struct Tally {
    /// Sessions that ended without an error.
    pub(super) sessions: u64,
    /// Connects that succeeded.
    pub(super) connections: u64,
    /// Messages retrieved; in `maildrop`, messages listed.
    pub(super) messages: u64,
    /// Octets of messages retrieved.
    pub(super) octets: u64,
    /// TLS handshakes by what client and server agreed on.
    pub(super) handshakes: BTreeMap<Agreed, u64>,
    pub(super) errors: BTreeMap<String, Errors>,
    pub(super) hashes: BTreeMap<MessageKey, u64>,
    /// When the last session ended.
    pub(super) ended: Option<Instant>,
    steps: [Histogram<u64>; Step::ALL.len()],
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            sessions: 0,
            connections: 0,
            messages: 0,
            octets: 0,
            handshakes: BTreeMap::new(),
            errors: BTreeMap::new(),
            hashes: BTreeMap::new(),
            ended: None,
            steps: Step::ALL.map(|_| new_histogram()),
        }
    }

    /// Adds a session that ended just now.
    pub(super) fn add(&mut self, record: &Record, result: Result<(), Failure>) {
        self.ended = Some(Instant::now());
        self.connections += u64::from(record.connected);
        if let Some(agreed) = record.agreed {
            *self.handshakes.entry(agreed).or_default() += 1;
        }
        self.messages += record.messages;
        self.octets += record.octets;
        for &(step, time) in &record.times {
            // It fails only if a histogram has a fixed range; these grow.
            let _ = self.steps[step as usize].record(micros(time));
        }
        for &(message, hash) in &record.hashes {
            if *self.hashes.entry(message).or_insert(hash) != hash {
                self.fail("content changed", || format!("message {} of account {}", message.1, message.0));
            }
        }
        match result {
            Ok(()) => self.sessions += 1,
            Err(failure) => self.fail(&failure.kind(), || failure.to_string()),
        }
    }

    /// Counts an error of this kind.
    pub(super) fn fail(&mut self, kind: &str, example: impl FnOnce() -> String) {
        let is_new = !self.errors.contains_key(kind);
        let kind = if is_new && self.errors.len() >= MOST_KINDS { OTHER_KINDS } else { kind };
        match self.errors.get_mut(kind) {
            Some(errors) => errors.count += 1,
            None => {
                self.errors.insert(kind.to_owned(), Errors { count: 1, example: example() });
            }
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.errors.values().map(|errors| errors.count).sum()
    }

    /// The times of a step in microseconds.
    pub(super) fn step(&self, step: Step) -> &Histogram<u64> {
        &self.steps[step as usize]
    }
}

/// A histogram with three significant digits, which grows with the recorded times.
fn new_histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are within hdrhistogram's range")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_the_index_of_its_declaration() {
        for (index, (step, _)) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, index);
        }
    }

    #[test]
    fn errors_are_counted_by_kind_and_the_first_is_kept() {
        let mut tally = Tally::new();
        for text in [" [IN-USE] first", " [IN-USE] second", " wrong"] {
            let refusal = Failure::Refusal { command: "PASS", text: text.to_owned() };
            tally.add(&Record::default(), Err(refusal));
        }
        assert_eq!(tally.failed(), 3);
        assert_eq!(tally.errors["-ERR [IN-USE]"].count, 2);
        assert_eq!(tally.errors["-ERR [IN-USE]"].example, "PASS was answered -ERR [IN-USE] first");
        assert_eq!(tally.errors["-ERR to PASS"].count, 1);
        assert_eq!(tally.sessions, 0);
    }

    #[test]
    fn the_number_of_kinds_of_errors_is_limited() {
        let mut tally = Tally::new();
        (0..1000).for_each(|number| tally.fail(&number.to_string(), || "an example".to_owned()));
        assert_eq!((tally.errors.len(), tally.failed()), (MOST_KINDS + 1, 1000));
        assert_eq!(tally.errors[OTHER_KINDS].count, 900);
    }

    #[test]
    fn a_message_that_changes_is_an_error() {
        let mut tally = Tally::new();
        let record = |hash| Record { hashes: vec![((0, 1), hash)], ..Record::default() };
        tally.add(&record(7), Ok(()));
        tally.add(&record(7), Ok(()));
        assert_eq!(tally.failed(), 0);
        tally.add(&record(8), Ok(()));
        assert_eq!(tally.errors["content changed"].count, 1);
    }

    #[test]
    fn percentiles_are_those_of_the_times_recorded() {
        let mut tally = Tally::new();
        let times = (1..=100).map(|ms| (Step::Retr, Duration::from_millis(ms))).collect();
        tally.add(&Record { times, ..Record::default() }, Ok(()));
        let retr = tally.step(Step::Retr);
        assert_eq!(retr.len(), 100);
        let about = |value: u64, wanted: u64| value.abs_diff(wanted) * 500 <= wanted;
        assert!(about(retr.value_at_quantile(0.5), 50_000));
        assert!(about(retr.value_at_quantile(0.9), 90_000));
        assert!(about(retr.max(), 100_000));
        assert_eq!(tally.step(Step::Login).len(), 0);
    }
}
