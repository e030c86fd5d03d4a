//! Reads the output of a program that runs on a message, and ends the program.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::feed::Feed;
use crate::maildrop::Source;

/// After the program has ended, how long the processes that it left behind may write nothing before they are killed.
const LINGER: Duration = Duration::from_secs(1);

/// A transform that is running on one message.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The program's output; `None` once it has been closed because the output is no longer wanted.
    stdout: Option<ChildStdout>,
    /// What the program still has to read, if the message is not the whole of its file.
    feed: Option<Feed>,
    /// A descriptor that becomes readable when the child has ended. The child still has to be reaped.
    ended: OwnedFd,
    /// How many octets are left in the pipe, once the program has ended and its other processes have been killed.
    rest: Option<u64>,
    reaped: bool,
    pub(super) patience: Option<Duration>,
}

/// How a transform failed.
#[derive(Debug)]
pub enum Failure {
    /// It wrote nothing for too long.
    Silent,
    /// It was still writing when its time was over.
    Endless,
    /// The client disconnected, so the message is no longer wanted.
    ClientLeft,
    /// It ended with a status other than 0, or by a signal.
    Status(ExitStatus),
    /// It could not be started or read.
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("no output for too long"),
            Self::Endless => f.write_str("it takes too long"),
            Self::ClientLeft => f.write_str("the client went away"),
            Self::Status(status) => status.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The client that the transform's output is for.
pub trait Client {
    /// Returns the descriptor to poll for the end of the client's connection, if there is one.
    fn watch(&self) -> Option<BorrowedFd<'_>>;

    /// Returns true if the client has disconnected. Called when the client has closed its side of the connection.
    fn left(&mut self) -> bool;
}

/// The descriptors by which the server follows a program.
struct Pipes {
    stdout: ChildStdout,
    feed: Option<Feed>,
    ended: OwnedFd,
}

impl Pipes {
    fn of(child: &mut Child, source: Option<Source>) -> io::Result<Self> {
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the child has no stdout"))?;
        let feed = match (source, child.stdin.take()) {
            (Some(source), Some(stdin)) => Some(Feed::new(source, stdin)?),
            _ => None,
        };
        Ok(Self { stdout, feed, ended: pidfd_open(Pid::from_child(child), PidfdFlags::empty())? })
    }
}

impl Running {
    /// Follows a program that was started, and feeds the message to it if it gets that by a pipe. The program is killed if that
    /// fails.
    pub(super) fn follow(
        mut child: Child,
        source: Option<Source>,
        patience: Option<Duration>,
    ) -> Result<Self, Failure> {
        match Pipes::of(&mut child, source) {
            Ok(Pipes { stdout, feed, ended }) => {
                Ok(Self { child, stdout: Some(stdout), feed, ended, rest: None, reaped: false, patience })
            }
            Err(error) => {
                let _ = kill_and_reap(&mut child);
                Err(error.into())
            }
        }
    }

    /// Reads output of the program, waiting for it while `client` is connected. Returns `Ok(0)` at the end of the output.
    ///
    /// # Errors
    /// Any [`Failure`] except [`Failure::Status`] and [`Failure::Endless`].
    pub fn read(&mut self, buffer: &mut [u8], client: &mut impl Client) -> Result<usize, Failure> {
        let Some(stdout) = &mut self.stdout else { return Ok(0) };
        if self.rest.is_none() {
            if wait(&[stdout.as_fd(), self.ended.as_fd()], &mut self.feed, client, self.patience)? == 0 {
                return Ok(stdout.read(buffer)?);
            }
            // The program has ended, but another process keeps its stdout open. That process may still have a part of the
            // message to write, so it gets some time.
            if !is_silent(stdout, client)? {
                return Ok(stdout.read(buffer)?);
            }
            kill_group(&self.child);
            // A process that has left the group may still run. What it writes from now on is ignored.
            self.rest = Some(ioctl_fionread(&*stdout).map_err(io::Error::from)?);
        }
        let Some(rest @ 1..) = self.rest else { return Ok(0) };
        let room = usize::try_from(rest).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let read = stdout.read(&mut buffer[..room])?;
        self.rest = Some(rest - read as u64);
        Ok(read)
    }

    /// Waits for the program to end, to be called at the end of its output.
    ///
    /// # Errors
    /// [`Failure::Status`] if the program failed; others if it keeps running without output.
    pub fn finish(&mut self, client: &mut impl Client) -> Result<(), Failure> {
        wait(&[self.ended.as_fd()], &mut self.feed, client, self.patience)?;
        self.reaped = true;
        let status = kill_and_reap(&mut self.child)?;
        if status.success() { Ok(()) } else { Err(Failure::Status(status)) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Once the child is reaped, another process may have its number.
        if !self.reaped {
            // A program that runs as another user cannot be killed. It ends when it writes to the closed pipe.
            self.stdout = None;
            let _ = kill_and_reap(&mut self.child);
        }
    }
}

/// Returns true if nothing can be read from the pipe, not even its end, for as long as [`LINGER`].
fn is_silent(stdout: &ChildStdout, client: &mut impl Client) -> Result<bool, Failure> {
    match wait(&[stdout.as_fd()], &mut None, client, Some(LINGER)) {
        Ok(_) => Ok(false),
        Err(Failure::Silent) => Ok(true),
        Err(failure) => Err(failure),
    }
}

/// Waits until one of `fds` is readable and returns its index; the first if several are. The program is fed meanwhile.
fn wait(
    fds: &[BorrowedFd<'_>],
    feed: &mut Option<Feed>,
    client: &mut impl Client,
    patience: Option<Duration>,
) -> Result<usize, Failure> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    // POLLHUP and POLLERR, which the kernel always reports, mean that the connection is lost. POLLRDHUP means only that
    // the client will send no more; it may still want the message.
    let mut interest = PollFlags::RDHUP;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        polled.extend(client.watch().map(|client| PollFd::from_borrowed_fd(client, interest)));
        let pipe = feed.as_ref().and_then(Feed::pipe);
        polled.extend(pipe.map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::OUT)));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) => return Err(Failure::Silent),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        if let Some(ready) = polled[..fds.len()].iter().position(|fd| !fd.revents().is_empty()) {
            return Ok(ready);
        }
        if pipe.is_some() && polled.pop().is_some_and(|pipe| !pipe.revents().is_empty()) {
            drop(polled);
            if let Some(feed) = feed {
                feed.push()?;
            }
            continue;
        }
        let events = polled.last().map_or(PollFlags::empty(), PollFd::revents);
        if events.intersects(PollFlags::HUP | PollFlags::ERR) || !events.is_empty() && client.left() {
            return Err(Failure::ClientLeft);
        }
        interest = PollFlags::empty();
    }
}

fn kill_group(leader: &Child) {
    let _ = kill_process_group(Pid::from_child(leader), Signal::KILL);
}

/// Kills the child's process group, and the child itself in case it has left the group, then reaps it. The child is reaped
/// last, because afterwards another process may have its number.
fn kill_and_reap(child: &mut Child) -> io::Result<ExitStatus> {
    kill_group(child);
    let _ = child.kill();
    child.wait()
}
