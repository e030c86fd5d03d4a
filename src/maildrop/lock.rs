//! The exclusive-access lock: one session for each maildrop at a time (RFC 1939 section 4).
//!
//! The lock is released when the session ends, however that happens. Among the sessions of one server it is kept in
//! memory. Other servers see it as a locked file (see [`LockFile`]). If that file cannot be locked, messages can be
//! read but not removed.
//!
//! Sessions can also share a maildrop, if the operator wants that (see [`Terms`]). They keep out those that do not.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::busy::{self, Terms};
use super::holder::Holder;
use super::location::{Location, is_link};
use super::lock_file::{self, Attempt, LockFile};
use super::lock_record::Elsewhere;
use super::message::Folder;
use super::root;
use crate::auth::UserName;

/// How often a lock that another server holds is tried. The kernel could only wait for it without a time limit.
const POLL: Duration = Duration::from_millis(20);

/// The maildrops that have a session.
#[derive(Debug, Default)]
pub struct Locks {
    /// Each maildrop that has a session.
    held: Mutex<HashMap<Location, Held>>,
    freed: Condvar,
}

/// A maildrop that has a session.
#[derive(Debug)]
struct Held {
    /// The session.
    holder: Holder,
    /// True if other sessions may share it.
    shared: bool,
    /// The sessions that share it, too.
    others: Vec<Holder>,
}

impl Held {
    /// Takes a session off. Returns true if that was the last one.
    fn release(&mut self, holder: &Holder) -> bool {
        match self.others.iter().position(|other| other == holder) {
            Some(at) => drop(self.others.swap_remove(at)),
            None => match self.others.pop() {
                Some(other) => self.holder = other,
                None => return true,
            },
        }
        false
    }
}

/// How long a session waits for a maildrop.
struct Patience<'a> {
    deadline: Instant,
    /// Returns false if the wait is to end before. It is called with the table of maildrops locked.
    goes_on: &'a dyn Fn() -> bool,
}

/// Why a maildrop could not be locked.
#[derive(Debug)]
pub enum LockError {
    /// Another session of this server keeps it.
    HeldBy(Holder),
    /// Another server or program keeps it, and this session if it is a server that tells.
    HeldElsewhere(Option<Elsewhere>),
    /// It cannot be found out whether another server holds the lock, or the user's directory is refused as a maildrop.
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Locks {
    /// Locks the maildrop at `location`, or behind a link there that the operator has made, for the session `holder`. Waits
    /// as long as the terms say for a session that is ending.
    ///
    /// # Errors
    /// [`LockError`], also when another session keeps the maildrop.
    pub fn lock(self: &Arc<Self>, location: &Location, holder: Holder, terms: Terms) -> Result<Lock, LockError> {
        self.lock_while(location, holder, terms, || true)
    }

    /// Does the same, but waits only while `goes_on` returns true. It is called again after [`Locks::wake_waiting`].
    ///
    /// # Errors
    /// As of [`Locks::lock`].
    pub fn lock_while(
        self: &Arc<Self>,
        location: &Location,
        holder: Holder,
        terms: Terms,
        goes_on: impl Fn() -> bool,
    ) -> Result<Lock, LockError> {
        let patience = Patience { deadline: Instant::now() + terms.patience, goes_on: &goes_on };
        match self.lock_at(location, holder, terms.shared, &patience) {
            Err(LockError::Io(error)) if is_link(&error) => {
                self.lock_at(&location.behind_link()?, holder, terms.shared, &patience)
            }
            result => result,
        }
    }

    /// Makes all that wait for a maildrop find out whether they still have to.
    pub fn wake_waiting(&self) {
        drop(self.held.lock()); // one that is about to wait has begun to
        self.freed.notify_all();
    }

    fn lock_at(
        self: &Arc<Self>,
        location: &Location,
        holder: Holder,
        shared: bool,
        patience: &Patience<'_>,
    ) -> Result<Lock, LockError> {
        // This comes first, so that nothing is written into a directory that is refused.
        let folder = lock_file::folder(location)?;
        let mut lock = self.lock_here(location, holder, shared, patience)?;
        let Some(folder) = folder else { return Ok(lock) };
        match self.lock_everywhere(location, folder, shared, patience)? {
            Attempt::Taken(mut file) => {
                file.name_holder(&holder);
                lock.file = Some(file);
            }
            Attempt::Busy(folder) => return Err(LockError::HeldElsewhere(lock_file::named_holder(location, folder))),
            Attempt::Unavailable(error) => {
                let path = root::display(&location.folder(folder));
                log::warn!("{path} cannot be locked, so its messages can be read and not deleted: {error}");
            }
        }
        Ok(lock)
    }

    /// Returns which session of another server has the maildrop at `location`, or behind a link there that the operator has
    /// made, if one does and its server tells.
    #[must_use]
    pub fn holder_elsewhere(&self, location: &Location) -> Option<Elsewhere> {
        let behind_link;
        let location = match lock_file::folder(location) {
            Err(error) if is_link(&error) => {
                behind_link = location.behind_link().ok()?;
                &behind_link
            }
            _ => location,
        };
        match self.held.lock().contains_key(location) {
            true => None,
            false => lock_file::holder_elsewhere(location),
        }
    }

    /// Locks the maildrop against the other sessions of this server, unless all of them share it.
    fn lock_here(
        self: &Arc<Self>,
        location: &Location,
        holder: Holder,
        shared: bool,
        patience: &Patience<'_>,
    ) -> Result<Lock, LockError> {
        let begun = Instant::now();
        let mut held = self.held.lock();
        loop {
            match held.entry(location.clone()) {
                Entry::Vacant(free) => {
                    free.insert(Held { holder, shared, others: Vec::new() });
                    break;
                }
                Entry::Occupied(mut others) if shared && others.get().shared => {
                    others.get_mut().others.push(holder);
                    break;
                }
                Entry::Occupied(other) => {
                    let other = other.get().holder;
                    // The server itself never keeps a maildrop for long, so every login waits for it.
                    let deadline = match other.session {
                        Some(_) => patience.deadline,
                        None => patience.deadline.max(begun + busy::PATIENCE),
                    };
                    if !(patience.goes_on)() || self.freed.wait_until(&mut held, deadline).timed_out() {
                        return Err(LockError::HeldBy(other));
                    }
                }
            }
        }
        Ok(Lock { locks: Arc::clone(self), location: location.clone(), holder, file: None })
    }

    /// Locks the maildrop against other servers.
    fn lock_everywhere(
        &self,
        location: &Location,
        mut folder: Folder,
        shared: bool,
        patience: &Patience<'_>,
    ) -> io::Result<Attempt> {
        loop {
            match LockFile::take(location, folder, shared)? {
                Attempt::Busy(_) if Instant::now() < patience.deadline && (patience.goes_on)() => {
                    let mut held = self.held.lock();
                    self.freed.wait_while_until(&mut held, |_| (patience.goes_on)(), Instant::now() + POLL);
                }
                attempt => return Ok(attempt),
            }
            // The layout may have changed meanwhile.
            folder = lock_file::folder(location)?.unwrap_or(folder);
        }
    }

    /// The users who have a session, sorted by name.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        let mut names: Vec<_> = self.held.lock().keys().map(|location| location.user().to_string()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A locked maildrop. Dropping this releases it.
#[derive(Debug)]
pub struct Lock {
    locks: Arc<Locks>,
    location: Location,
    /// The session that has it.
    holder: Holder,
    /// The lock against other servers. Without it another server could use the maildrop at the same time.
    file: Option<LockFile>,
}

impl Lock {
    /// The location of the maildrop. If the operator has put a link there, this is the location behind the link.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The user whose maildrop is locked.
    #[must_use]
    pub fn user(&self) -> &UserName {
        self.location.user()
    }

    /// Returns true if nothing may be removed, because other servers cannot be kept out.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.file.is_none()
    }

    /// Returns true if other servers are kept out now. They are not if the lock file has been removed.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.file.as_ref().is_some_and(LockFile::is_held)
    }

    /// The session that has locked it.
    pub(super) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// The lock file of a maildrop that other sessions may share.
    pub(super) fn shared_file(&self) -> Option<&LockFile> {
        self.file.as_ref().filter(|file| file.is_shared())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // This comes first: a session that waits for the lock in memory locks the file next.
        self.file = None;
        let mut held = self.locks.held.lock();
        if let Entry::Occupied(mut held) = held.entry(self.location.clone())
            && held.get_mut().release(&self.holder)
        {
            held.remove();
        }
        drop(held);
        self.locks.freed.notify_all();
    }
}

#[cfg(test)]
mod tests;
