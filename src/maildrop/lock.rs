//! The exclusive-access lock: one session for each maildrop at a time (RFC 1939 section 4).
//!
//! It lives in memory and goes with the session, however that ends: there is no lock file to be left behind.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::RootId;
use crate::auth::UserName;

/// How long a login waits for a maildrop: the session that holds it may just be ending, as when a client hangs
/// up and calls again.
const PATIENCE: Duration = Duration::from_secs(2);

/// The maildrops that have a session.
#[derive(Debug, Default)]
pub struct Locks {
    held: Mutex<HashSet<(UserName, RootId)>>,
    freed: Condvar,
}

impl Locks {
    /// Takes the maildrop of `user` below a mail root, waiting a little for a session that is ending. `None` when
    /// another one keeps it.
    #[must_use]
    pub fn lock(self: &Arc<Self>, user: UserName, root: RootId) -> Option<Lock> {
        let maildrop = (user, root);
        let deadline = Instant::now() + PATIENCE;
        let mut held = self.held.lock();
        while held.contains(&maildrop) {
            if self.freed.wait_until(&mut held, deadline).timed_out() {
                return None;
            }
        }
        held.insert(maildrop.clone());
        Some(Lock { locks: Arc::clone(self), maildrop })
    }

    /// The users who have a session, in order.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        let mut names: Vec<_> = self.held.lock().iter().map(|(user, _)| user.to_string()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A maildrop taken; free again when dropped.
#[derive(Debug)]
pub struct Lock {
    locks: Arc<Locks>,
    maildrop: (UserName, RootId),
}

impl Lock {
    /// Whose maildrop it is.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.maildrop.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.locks.held.lock().remove(&self.maildrop);
        self.locks.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maildrop_is_free_when_its_lock_is_dropped() {
        let locks = Arc::new(Locks::default());
        let user: UserName = "ana".parse().unwrap();
        let (here, there) = (RootId { device: 1, inode: 2 }, RootId { device: 1, inode: 3 });
        let lock = locks.lock(user.clone(), here).unwrap();
        assert_eq!(locks.users(), ["ana"]);
        assert!(locks.lock(user.clone(), here).is_none());
        assert!(locks.lock(user.clone(), there).is_some());
        let waiting = std::thread::spawn({
            let (locks, user) = (Arc::clone(&locks), user.clone());
            move || locks.lock(user, here).is_some()
        });
        drop(lock);
        assert!(waiting.join().unwrap());
        assert!(locks.users().is_empty());
    }
}
