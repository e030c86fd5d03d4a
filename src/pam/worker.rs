//! A worker: answers one question at a time.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{fcntl_dupfd_cloexec, write};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::stdio::{dup2_stdin, dup2_stdout, stderr, stdin, stdout};

use super::door::Waiting;
use super::{Answer, MOST, Question};

/// After how many questions a worker ends, so that a module that loses memory or descriptors does no harm. The monitor
/// starts another one.
const RENEWED_AFTER: usize = 1000;

/// What a worker tells the monitor.
pub(super) const BUSY: u8 = b'+';
pub(super) const IDLE: u8 = b'-';

/// Answers questions that come through standard input, and tells the monitor by standard output when it is busy. Returns
/// when the server has gone, or after many questions.
///
/// # Errors
/// When a system call fails.
pub fn work(mut answer: impl FnMut(&Question) -> Answer) -> io::Result<()> {
    // Without the monitor nobody would end a worker that hangs.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let Channels { waiting, monitor } = Channels::take()?;
    if is_closed(&monitor) {
        return Ok(()); // it ended before the line above asked for the signal
    }
    for _ in 0..RENEWED_AFTER {
        let Some(connection) = waiting.next()? else { return Ok(()) };
        write(&monitor, &[BUSY])?;
        if let Some(question) = receive(&connection) {
            let message = answer(&question).encode();
            let _ = send(&connection, &message, SendFlags::NOSIGNAL); // the server may have stopped waiting
        }
        drop(connection);
        write(&monitor, &[IDLE])?;
    }
    Ok(())
}

/// Receives the question, unless the server has stopped waiting for the answer.
fn receive(connection: &OwnedFd) -> Option<Question> {
    let mut buffer = [0; MOST];
    let (length, _) = recv(connection, &mut buffer[..], RecvFlags::empty()).ok()?;
    if is_closed(connection) { None } else { Question::decode(&buffer[..length]) }
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
}

impl Channels {
    fn take() -> io::Result<Self> {
        let waiting = Waiting::at(fcntl_dupfd_cloexec(stdin(), 3)?)?;
        let monitor = fcntl_dupfd_cloexec(stdout(), 3)?;
        dup2_stdin(File::open("/dev/null")?)?;
        dup2_stdout(stderr())?;
        Ok(Self { waiting, monitor })
    }
}
