//! The server's side: asks a worker and waits for the answer.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{Door, MOST};

/// How much longer than a worker may take the server waits for its answer. The monitor kills a worker whose time is up, and
/// that ends the connection.
const MORE: Duration = Duration::from_secs(5);

/// The workers that a server can ask.
#[derive(Debug)]
pub struct Workers {
    door: Door,
    /// How long the server waits for an answer.
    patience: Duration,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The question is longer than any that a worker reads.
    TooLong,
    /// Too many questions wait already.
    Busy,
    /// There are no workers to take connections.
    Gone(io::Error),
    /// The worker has died, or was killed because its time was up.
    Died,
    /// There was no answer in time.
    Late,
    /// The answer cannot be read.
    Nonsense,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the name and the password are too long"),
            Self::Busy => f.write_str("too many logins wait"),
            Self::Gone(error) => write!(f, "there is no process to ask: {error}"),
            Self::Died => f.write_str("the process that was asked has ended, or was killed because it took too long"),
            Self::Late => f.write_str("there was no answer in time"),
            Self::Nonsense => f.write_str("the answer could not be read"),
        }
    }
}

impl Workers {
    /// Workers behind `door`, each of which may take `limit` for an answer.
    #[must_use]
    pub fn new(door: Door, limit: Duration) -> Self {
        Self { door, patience: limit + MORE }
    }

    /// Asks whichever worker is free next. The question is `None` if it would be longer than [`MOST`]. `decode` reads the
    /// answer.
    ///
    /// # Errors
    /// [`Unanswered`]
    pub fn ask<A>(&self, question: Option<Vec<u8>>, decode: impl FnOnce(&[u8]) -> Option<A>) -> Result<A, Unanswered> {
        let message = question.ok_or(Unanswered::TooLong)?;
        let connection = self.door.connect().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Unanswered::Busy,
            _ => Unanswered::Gone(error),
        })?;
        send(&connection, &message, SendFlags::NOSIGNAL).map_err(|_| Unanswered::Died)?;
        let mut buffer = [0; MOST];
        match receive(&connection, &mut buffer, Instant::now() + self.patience) {
            Ok(0) | Err(Errno::CONNRESET | Errno::PIPE) => Err(Unanswered::Died),
            Ok(length) => decode(&buffer[..length]).ok_or(Unanswered::Nonsense),
            Err(_) => Err(Unanswered::Late),
        }
    }
}

fn receive(connection: &OwnedFd, buffer: &mut [u8], deadline: Instant) -> Result<usize, Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(connection, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => return recv(connection, buffer, RecvFlags::DONTWAIT).map(|(length, _)| length),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::door::{Waiting, pair};
    use super::*;
    use std::thread;

    const QUESTION: &[u8] = b"ana, secret";

    /// Takes an answer that begins with `=`.
    fn decode(answer: &[u8]) -> Option<Vec<u8>> {
        answer.strip_prefix(b"=").map(<[u8]>::to_vec)
    }

    fn ask(workers: &Workers) -> Result<Vec<u8>, Unanswered> {
        workers.ask(Some(QUESTION.to_vec()), decode)
    }

    /// Asks, while `work` has the worker's end of the connection.
    fn asked(work: impl FnOnce(OwnedFd) + Send + 'static) -> Result<Vec<u8>, Unanswered> {
        let (ours, theirs) = pair().unwrap();
        let worker = thread::spawn(move || work(Waiting::at(theirs).unwrap().next().unwrap().unwrap()));
        let workers = Workers { door: Door::Shared(ours), patience: Duration::from_secs(20) };
        let result = ask(&workers);
        worker.join().unwrap();
        result
    }

    #[test]
    fn a_worker_gets_the_question_and_gives_the_answer() {
        let result = asked(|connection| {
            let mut buffer = [0; MOST];
            let (length, _) = recv(&connection, &mut buffer[..], RecvFlags::empty()).unwrap();
            assert_eq!(&buffer[..length], QUESTION);
            send(&connection, b"=right", SendFlags::empty()).unwrap();
        });
        assert_eq!(result.unwrap(), b"right");
    }

    #[test]
    fn each_failure_is_told_apart() {
        assert!(matches!(asked(drop), Err(Unanswered::Died)));
        // A worker that has not read the question would end the connection with an error.
        let nonsense = |connection: OwnedFd| {
            recv(&connection, &mut [0; MOST][..], RecvFlags::empty()).unwrap();
            send(&connection, b"+OK", SendFlags::empty()).unwrap();
        };
        assert!(matches!(asked(nonsense), Err(Unanswered::Nonsense)));
        let (ours, theirs) = pair().unwrap();
        let workers = Workers { door: Door::Shared(ours), patience: Duration::ZERO };
        assert!(matches!(workers.ask(None, decode), Err(Unanswered::TooLong)));
        assert!(matches!(ask(&workers), Err(Unanswered::Late)));
        drop(theirs);
        assert!(matches!(ask(&workers), Err(Unanswered::Gone(_))));
    }
}
