//! Sessions that share a maildrop list it and remove messages in turns.
//!
//! A removal checks each file by itself, so it needs no turn. But the index is written by both, and the journal of an mbox
//! belongs to one removal. A turn is short: it lasts as long as a listing or an UPDATE state.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::lock_file::LockFile;
use super::{Lock, Maildrop, Update};

/// How long a session waits for its turn. Removing a large maildrop from a slow disk takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the lock is tried. The kernel could only wait for it without a time limit.
const POLL: Duration = Duration::from_millis(5);

/// A session's turn. It ends when this is dropped.
struct Turn<'a>(Option<&'a LockFile>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.0 {
            file.end_turn();
        }
    }
}

impl Lock {
    /// Lists the maildrop's messages.
    ///
    /// # Errors
    /// As of [`Maildrop::open`], and `TimedOut` if a session that shares the maildrop does not end its turn.
    pub fn open(&self) -> io::Result<Maildrop> {
        let _turn = self.turn()?;
        Maildrop::open(self.location().clone())
    }

    /// Carries out the UPDATE state of a session, or removes expired messages for the server itself.
    #[must_use]
    pub fn commit(&self, maildrop: Maildrop) -> Update {
        let holder = self.holder();
        match self.turn() {
            Ok(_turn) => maildrop.commit(holder.session.map(|_| holder)),
            Err(error) => {
                log::error!("cannot remove messages of {}: {error}", self.user());
                Update { removed: 0, failed: maildrop.marked() as u64 }
            }
        }
    }

    /// Waits for the turn of a session that shares its maildrop. Any other has it always.
    fn turn(&self) -> io::Result<Turn<'_>> {
        let Some(file) = self.shared_file() else { return Ok(Turn(None)) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_turn() {
                Ok(()) => return Ok(Turn(Some(file))),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if Instant::now() < deadline => thread::sleep(POLL),
                Err(_) => {
                    let why = "another session that shares the maildrop works on it";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
            }
        }
    }
}
