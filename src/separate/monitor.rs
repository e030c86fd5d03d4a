//! The monitor: starts the workers, kills one whose time is up, and starts another for each that has ended.
//!
//! It reads nothing but what workers tell it, one octet at a time, so strangers cannot reach it.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::stdio::stdin;
use rustix::thread::CapabilitySet;

use super::worker::BUSY;
use super::{orphans, rights};

/// The pause before another worker is started, when one could not be started or failed soon after.
const PAUSE: Duration = Duration::from_secs(1);

/// When orphans that were killed are looked for again, and how often at the end.
const SOON: Duration = Duration::from_millis(20);
const LAST_ROUNDS: usize = 50;

/// What a monitor watches.
#[derive(Debug)]
pub struct Monitor {
    /// The program of a worker and its arguments.
    pub worker: Vec<OsString>,
    /// How many workers there are.
    pub count: usize,
    /// How long a worker may have questions without giving an answer.
    pub limit: Duration,
    /// The capabilities that workers need.
    pub keep: CapabilitySet,
}

/// Gives up all rights but those of workers, then watches workers until the server has gone. The workers get this process's
/// standard input, and its stderr for messages.
///
/// # Errors
/// When a system call fails that never does.
pub fn watch(monitor: &Monitor) -> io::Result<()> {
    rights::keep_only(monitor.keep);
    orphans::inherit()?;
    let mut watched = Watched { monitor, workers: Vec::new(), not_before: Instant::now(), has_orphans: false };
    let result = watched.watch();
    watched.workers.iter_mut().for_each(Worker::kill);
    for _ in 0..LAST_ROUNDS {
        if !orphans::kill(&[]) {
            break;
        }
        thread::sleep(SOON);
    }
    result
}

/// The workers, and when the next one may be started.
struct Watched<'a> {
    monitor: &'a Monitor,
    workers: Vec<Worker>,
    not_before: Instant,
    /// True if a worker that has ended left processes behind.
    has_orphans: bool,
}

struct Worker {
    child: Child,
    /// Becomes readable when the process has ended.
    ended: OwnedFd,
    /// What the worker tells.
    told: ChildStdout,
    started: Instant,
    /// Since when it has had questions and given no answer.
    busy_since: Option<Instant>,
}

impl Watched<'_> {
    fn watch(&mut self) -> io::Result<()> {
        loop {
            self.fill_up();
            if !self.wait()? {
                return Ok(());
            }
            self.workers.iter_mut().for_each(Worker::listen);
            let before = self.workers.len();
            self.bury();
            self.kill_late();
            let left: Vec<_> = self.workers.iter().map(|worker| Pid::from_child(&worker.child)).collect();
            if self.has_orphans || left.len() < before {
                self.has_orphans = orphans::kill(&left);
            } else {
                orphans::bury_those_beside(&left);
            }
        }
    }

    /// Starts workers until there are enough.
    fn fill_up(&mut self) {
        while self.workers.len() < self.monitor.count && Instant::now() >= self.not_before {
            match Worker::start(&self.monitor.worker) {
                Ok(worker) => self.workers.push(worker),
                Err(error) => {
                    say(format_args!("cannot start a worker: {error}"));
                    self.not_before = Instant::now() + PAUSE;
                }
            }
        }
    }

    /// Waits until there is something to do. Returns false if the server has gone.
    fn wait(&self) -> io::Result<bool> {
        let now = Instant::now();
        let deadlines = self.workers.iter().filter_map(|worker| worker.deadline(self.monitor.limit));
        let start = (self.workers.len() < self.monitor.count).then_some(self.not_before);
        let again = self.has_orphans.then_some(now + SOON);
        let next = deadlines.chain(start).chain(again).min();
        let left = next.map(|next| Timespec::try_from(next.saturating_duration_since(now))).transpose();
        let left = left.map_err(io::Error::other)?;
        let server = stdin();
        // The workers take what arrives there. That the other end has been closed is told in any case.
        let mut polled = vec![PollFd::new(&server, PollFlags::empty())];
        for worker in &self.workers {
            polled.push(PollFd::new(&worker.ended, PollFlags::IN));
            polled.push(PollFd::new(&worker.told, PollFlags::IN));
        }
        match poll(&mut polled, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(polled[0].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the workers that have ended.
    fn bury(&mut self) {
        let Self { workers, not_before, .. } = self;
        workers.retain_mut(|worker| {
            let Ok(Some(status)) = worker.child.try_wait() else { return true };
            if !status.success() {
                say(format_args!("process {} has ended ({}); another is started", worker.child.id(), Cause(status)));
                if worker.started.elapsed() < PAUSE {
                    *not_before = Instant::now() + PAUSE;
                }
            }
            false
        });
    }

    fn kill_late(&mut self) {
        let limit = self.monitor.limit;
        self.workers.retain_mut(|worker| {
            let is_late = worker.deadline(limit).is_some_and(|deadline| deadline <= Instant::now());
            if is_late {
                let id = worker.child.id();
                say(format_args!("process {id} was killed, because it took longer than {} s", limit.as_secs_f32()));
                worker.kill();
            }
            !is_late
        });
    }
}

impl Worker {
    fn start(words: &[OsString]) -> io::Result<Self> {
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::inherit()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let started = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(io::Error::from);
        match (started, child.stdout.take()) {
            (Ok(ended), Some(told)) => Ok(Self { child, ended, told, started: Instant::now(), busy_since: None }),
            (result, _) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(result.err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
            }
        }
    }

    fn deadline(&self, limit: Duration) -> Option<Instant> {
        self.busy_since.map(|since| since + limit)
    }

    /// Reads what the worker has told, without waiting.
    fn listen(&mut self) {
        let mut told = [0; 64];
        let mut polled = [PollFd::new(&self.told, PollFlags::IN)];
        let is_ready = poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
        if is_ready && let Ok(length @ 1..) = self.told.read(&mut told) {
            self.busy_since = (told[length - 1] == BUSY).then(Instant::now);
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait().map(drop));
    }
}

/// Why a process has ended.
struct Cause(ExitStatus);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.signal(), self.0.code()) {
            (Some(signal), _) => write!(f, "signal {signal}"),
            (None, code) => write!(f, "exit code {}", code.unwrap_or_default()),
        }
    }
}

/// Tells the server, or the service manager, what has happened.
fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{what}");
}
