//! A worker: answers questions.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process;
use std::thread;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{fcntl_dupfd_cloexec, write};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::stdio::{dup2_stdin, dup2_stdout, stderr, stdin, stdout};

use super::MOST;
use super::door::Waiting;

/// What a worker tells the monitor.
pub(super) const BUSY: u8 = b'+';
pub(super) const IDLE: u8 = b'-';

/// How a worker works.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// How many questions it answers at a time. One of the threads is the calling one.
    pub threads: usize,
    /// After how many questions a thread ends.
    pub renewed_after: Option<usize>,
}

impl Work {
    /// Answers questions that come through standard input, and tells the monitor by standard output when it is busy. Returns
    /// when the server has gone, or after the number of questions. A question that `answer` does not understand gets no
    /// answer.
    ///
    /// # Errors
    /// When a system call fails.
    pub fn run(self, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Sync) -> io::Result<()> {
        // Without the monitor nobody would end a worker that hangs.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let channels = Channels::take()?;
        if is_closed(&channels.monitor) {
            return Ok(()); // it ended before the line above asked for the signal
        }
        let answer_all = || self.answer_all(&channels, &answer);
        thread::scope(|scope| {
            for _ in 1..self.threads {
                let ended = || {
                    if let Err(error) = answer_all() {
                        let _ = writeln!(io::stderr(), "a thread has ended: {error}");
                        process::exit(1);
                    }
                };
                thread::Builder::new().spawn_scoped(scope, ended)?;
            }
            answer_all()
        })
    }

    fn answer_all(self, channels: &Channels, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) -> io::Result<()> {
        let mut left = self.renewed_after;
        while left != Some(0) {
            let Some(connection) = channels.waiting.next()? else { break };
            channels.begin()?;
            if let Some(answer) = receive(&connection).and_then(|question| answer(&question)) {
                let _ = send(&connection, &answer, SendFlags::NOSIGNAL); // the server may have stopped waiting
            }
            drop(connection);
            channels.end()?;
            left = left.map(|left| left - 1);
        }
        Ok(())
    }
}

/// Receives the question, unless the server has stopped waiting for the answer.
fn receive(connection: &OwnedFd) -> Option<Vec<u8>> {
    let mut buffer = [0; MOST];
    let (length, _) = recv(connection, &mut buffer[..], RecvFlags::empty()).ok()?;
    if is_closed(connection) { None } else { Some(buffer[..length].to_vec()) }
}

/// Returns true if the other end has been closed.
fn is_closed(channel: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(channel, PollFlags::empty())];
    poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// The descriptors with which the monitor has started this worker, moved to where programs of modules do not inherit them.
struct Channels {
    waiting: Waiting,
    monitor: OwnedFd,
    /// How many questions have no answer yet.
    open: Mutex<usize>,
}

impl Channels {
    fn take() -> io::Result<Self> {
        let waiting = Waiting::at(fcntl_dupfd_cloexec(stdin(), 3)?)?;
        let monitor = fcntl_dupfd_cloexec(stdout(), 3)?;
        dup2_stdin(File::open("/dev/null")?)?;
        dup2_stdout(stderr())?;
        Ok(Self { waiting, monitor, open: Mutex::new(0) })
    }

    /// Notes a question, and tells the monitor if it is the only one.
    fn begin(&self) -> io::Result<()> {
        let mut open = self.open.lock();
        *open += 1;
        if *open == 1 { self.tell(BUSY) } else { Ok(()) }
    }

    /// Notes an answer, and tells the monitor whether others are still to be given.
    fn end(&self) -> io::Result<()> {
        let mut open = self.open.lock();
        *open -= 1;
        self.tell(if *open > 0 { BUSY } else { IDLE })
    }

    fn tell(&self, octet: u8) -> io::Result<()> {
        write(&self.monitor, &[octet])?;
        Ok(())
    }
}
