//! The data that `top` shows: it asks for snapshots over one connection, and follows events over another.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::super::connection::Connection;
use super::super::stat::{self, Counters};
use super::super::{Failure, Options};
use crate::peep::{Answer, Command, ErrorCode, EventLine, NameValue, SessionLine};
use crate::printable::printable;

/// The most lines of an answer: more than a server has connections or counters.
const MOST_LINES: u64 = 10_000;

/// The most characters of an event that are kept.
const EVENT_LENGTH: usize = 1000;

/// The most updates that wait for the screen. If the terminal is slow, the client reads more slowly, and the server drops
/// events.
const UPDATES: usize = 1000;

/// No connection has this number, so that the answer to kicking it tells an admin from a viewer.
const NO_CONNECTION: u64 = 0;

/// A request of the admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Carry out a command that changes something.
    Change(Command),
    /// Ask what is known of this user.
    About(String),
}

/// News from the server.
#[derive(Debug)]
pub(super) enum Update {
    Snapshot(Snapshot),
    /// An event, safe for a terminal.
    Event(String),
    /// What is known of a user, safe for a terminal.
    About(String, Vec<(String, String)>),
    /// The answer to a change.
    Outcome(Result<String, ErrorCode>),
    /// The admin's name is a viewer's, who may change nothing.
    ReadOnly,
    /// The connection is lost, for this reason, and the client tries to connect again.
    Away(String),
    /// There will be no more news.
    Lost(Failure),
}

/// The server at one moment.
#[derive(Debug, Default, Clone)]
pub(super) struct Snapshot {
    pub(super) sessions: Vec<SessionLine>,
    /// Why there are no sessions, as with a server of version 1.0.
    pub(super) no_sessions: Option<ErrorCode>,
    /// POP3 connections, and then rates by the second in the order of [`stat::COLUMNS`].
    pub(super) rates: Vec<u64>,
    /// The most connections at once.
    pub(super) limit: u64,
    /// Names and values of `s?`, safe for a terminal.
    pub(super) statistics: Vec<(String, String)>,
}

/// The time between two attempts to connect again.
const RETRY: Duration = Duration::from_secs(1);

/// The threads that talk to the server. They end with the program.
pub(super) struct Feed {
    pub(super) server: String,
    pub(super) updates: Receiver<Update>,
    requests: Sender<Request>,
}

impl Feed {
    /// Connects twice, and begins to send updates.
    pub(super) fn start(options: &Options) -> Result<Self, Failure> {
        let server = options.targets()[0].to_string();
        let (asking, following) = (Connection::open(options)?, Connection::open(options)?);
        let (updates, received) = bounded(UPDATES);
        let (requests, wanted) = bounded(1);
        let (events, for_asking, for_following) = (updates.clone(), options.clone(), options.clone());
        thread::spawn(move || finish(|| keep_asking(asking, &for_asking, &wanted, &updates), &updates));
        thread::spawn(move || finish(|| keep_following(following, &for_following, &events), &events));
        Ok(Self { server, updates: received, requests })
    }

    /// Passes on a request. It is dropped while the request before it is carried out, because a key that is held down must
    /// not fill a queue of changes.
    pub(super) fn ask(&self, request: Request) {
        let _ = self.requests.try_send(request);
    }
}

/// Why a thread ends.
enum Ended {
    Server(Failure),
    Program,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Server(failure)
    }
}

/// Tells the main thread if the thread that owns this panics. Otherwise the program would go on without new data.
struct Guard<'a>(&'a Sender<Update>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.try_send(Update::Lost(Failure::Printed(3)));
        }
    }
}

/// Runs one of the threads.
fn finish(work: impl FnOnce() -> Result<(), Ended>, updates: &Sender<Update>) {
    let _guard = Guard(updates);
    let ended = work();
    if let Err(Ended::Server(failure)) = ended {
        let _ = updates.send(Update::Lost(failure)); // the program may have ended
    }
}

fn send(updates: &Sender<Update>, update: Update) -> Result<(), Ended> {
    updates.send(update).map_err(|_| Ended::Program)
}

/// Asks, and asks again after the connection was lost, until the program ends.
fn keep_asking(
    mut server: Connection,
    options: &Options,
    wanted: &Receiver<Request>,
    updates: &Sender<Update>,
) -> Result<(), Ended> {
    loop {
        let mut failure = match ask(server, wanted, updates, options.interval) {
            Err(Ended::Server(failure)) if failure.may_pass() => failure,
            ended => return ended,
        };
        server = loop {
            send(updates, Update::Away(printable(&failure.reason()).into_owned()))?;
            thread::sleep(RETRY);
            match Connection::open(options) {
                Ok(server) => break server,
                Err(error) if error.may_pass() => failure = error,
                Err(error) => return Err(error.into()),
            }
        };
        while wanted.try_recv().is_ok() {} // the numbers of connections may mean others now
    }
}

/// Follows, and follows again after the connection was lost.
fn keep_following(mut server: Connection, options: &Options, updates: &Sender<Update>) -> Result<(), Ended> {
    loop {
        match follow(server, updates) {
            Err(Ended::Server(failure)) if failure.may_pass() => {}
            ended => return ended,
        }
        server = loop {
            thread::sleep(RETRY);
            match Connection::open(options) {
                Ok(server) => break server,
                Err(error) if error.may_pass() => {}
                Err(error) => return Err(error.into()),
            }
        };
        send(updates, Update::Event("connected again; what happened before is missing here".to_owned()))?;
    }
}

/// Sends a snapshot at each interval and after each request.
fn ask(
    mut server: Connection,
    wanted: &Receiver<Request>,
    updates: &Sender<Update>,
    interval: Duration,
) -> Result<(), Ended> {
    if server.call(&Command::Kick { id: NO_CONNECTION })? == Answer::Error(ErrorCode::NotForViewers) {
        send(updates, Update::ReadOnly)?;
    }
    let mut before = None;
    loop {
        let snapshot = snapshot(&mut server, &mut before)?;
        send(updates, Update::Snapshot(snapshot))?;
        match wanted.recv_timeout(interval) {
            Ok(Request::Change(command)) => {
                let outcome = match server.call(&command)? {
                    Answer::Error(code) => Err(code),
                    Answer::Value(count) => Ok(printable(&count).into_owned()),
                    Answer::Done | Answer::Lines(_) => Ok(String::new()),
                };
                send(updates, Update::Outcome(outcome))?;
            }
            Ok(Request::About(user)) => {
                let command = Command::AboutUser { name: crate::peep::Encoded(user.clone()) };
                let (_, lines) = server.ask(&command, MOST_LINES)?;
                send(updates, Update::About(user, pairs(&lines)))?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// The counters of a snapshot and when they were read.
type Before = Option<(Counters, Instant)>;

fn snapshot(server: &mut Connection, before: &mut Before) -> Result<Snapshot, Failure> {
    let (answer, lines) = server.ask(&Command::Sessions, MOST_LINES)?;
    let sessions = lines.into_iter().map(|line| line.parse().map_err(|_| line)).collect::<Result<_, _>>();
    let sessions = sessions.map_err(|line| server.nonsense(line))?;
    let no_sessions = if let Answer::Error(code) = answer { Some(code) } else { None };
    let limit = stat::counter(server, &Command::MaxConnections)?;
    let counters = stat::counters(server)?;
    let now = Instant::now();
    let rates = match before.replace((counters.clone(), now)) {
        Some((earlier, then)) => stat::rates(&earlier, &counters, (now - then).as_secs_f64()),
        None => stat::rates(&counters, &counters, 1.0),
    };
    let (_, statistics) = server.ask(&Command::Statistics, MOST_LINES)?;
    Ok(Snapshot { sessions, no_sessions, rates, limit, statistics: pairs(&statistics) })
}

/// Names and values that are safe for a terminal. Lines that have none are left out.
fn pairs(lines: &[String]) -> Vec<(String, String)> {
    let safe = |text: &str| printable(text).into_owned();
    let pairs = lines.iter().filter_map(|line| line.parse::<NameValue>().ok());
    pairs.map(|pair| (safe(&pair.name), safe(pair.value.as_deref().unwrap_or("-")))).collect()
}

/// An event for a person: the time of the day, the name, and the fields, of which those that tell most come first because
/// the line may be cut.
fn event(line: &str) -> String {
    const FIRST: [&str; 4] = ["user", "change", "reason", "result"];
    let text = match line.parse::<EventLine>() {
        Err(_) => line.to_owned(),
        Ok(EventLine { time, name, mut fields }) => {
            let time = time.get(11..19).unwrap_or(&time);
            fields.sort_by_key(|(key, _)| FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()));
            let shown = fields.iter().filter_map(|(key, value)| Some(format!("  {key} {}", value.as_deref()?)));
            format!("{time} {name}{}", shown.collect::<String>())
        }
    };
    let cut: String = text.chars().take(EVENT_LENGTH).collect();
    printable(&cut).into_owned()
}

/// Sends the server's events, if it has any.
fn follow(mut server: Connection, updates: &Sender<Update>) -> Result<(), Ended> {
    if let Answer::Error(code) = server.call(&Command::Follow { name: None })? {
        return send(updates, Update::Event(format!("no events: {code}")));
    }
    loop {
        if let Some(line) = server.event(Duration::from_secs(1))? {
            send(updates, Update::Event(event(&line)))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_begins_with_what_matters() {
        let line =
            "2026-11-28T03:39:19.723Z end session=1 protocol=pop3 user=a%1Bb tls=- reason=ended%20by%20an%20admin";
        assert_eq!(event(line), "03:39:19 end  user a\\u{1b}b  reason ended by an admin  session 1  protocol pop3");
        let line = "2026-11-28T03:39:19.723Z admin-change address=::1 user=root change=drained";
        assert_eq!(event(line), "03:39:19 admin-change  user root  change drained  address ::1");
        assert_eq!(event("no \u{1b} event"), "no \\u{1b} event");
        assert!(event(&"x".repeat(4000)).len() <= EVENT_LENGTH);
    }
}
