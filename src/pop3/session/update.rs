//! The UPDATE state (RFC 1939 section 6): removes the marked messages.

use super::{End, Session, Transaction};
use crate::connections::Stage;
use crate::events::What;
use crate::maildrop::Update;
use crate::pop3::reply::Refusal;
use crate::wire::Link;

impl<L: Link> Session<'_, L> {
    /// Removes the marked messages, unlocks the maildrop and answers QUIT. The maildrop is unlocked before the reply, so
    /// the client can log in again as soon as it has the reply. The session cannot be ended from outside from here on, and
    /// if it was before, nothing is removed.
    pub(super) fn update(&mut self, state: Transaction) -> Result<(), End> {
        if !self.client.progress.enter(Stage::Update) {
            return self.end_kicked();
        }
        let Transaction { maildrop, account_session, lock, acting, .. } = state;
        let never_retrieved = maildrop.never_retrieved();
        let update = if maildrop.needs_update() && lock.is_exclusive() {
            lock.commit(maildrop)
        } else if maildrop.marked() == 0 {
            Update::default()
        } else {
            self.emit(What::LockLost);
            Update { removed: 0, failed: maildrop.marked() as u64 }
        };
        drop(account_session);
        drop(lock);
        drop(acting);
        self.counts.deleted = update.removed;
        self.counts.kept = 0;
        self.emit(What::Update { removed: update.removed, failed: update.failed, never_retrieved });
        if update.failed == 0 {
            self.ok("bye")
        } else {
            self.err(Refusal::NotRemoved)
        }
        Ok(())
    }
}
