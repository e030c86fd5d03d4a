//! What a session is doing, as its own thread notes it and an admin sees it. Each note is one atomic operation.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::stats::Counter;

/// The state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The client has not logged in.
    Authorization,
    /// RFC 1939 section 5
    Transaction,
    /// RFC 1939 section 6
    Update,
    /// A PEEP session of the admin.
    Admin,
    /// A PEEP session of a viewer.
    Viewer,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Authorization, Self::Transaction, Self::Update, Self::Admin, Self::Viewer];
}

/// This bit is set in [`Progress::stage`] once the session was ended from outside.
const KICKED: u8 = 1 << 7;

/// This bit is set besides if another login has taken the maildrop over.
const TAKEN_OVER: u8 = 1 << 6;

/// On whose behalf the server has ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// An admin.
    Admin,
    /// Another login of the same user, which has taken the maildrop over.
    Login,
}

/// What a session is doing.
#[derive(Debug, Default)]
pub struct Progress {
    /// The index of the stage in [`Stage::ALL`], and [`KICKED`]. Both are in one value, because a session that is ended
    /// must not begin an UPDATE state, and one that has begun it must not be ended.
    stage: AtomicU8,
    /// Messages retrieved.
    pub retrieved: Counter,
    /// Octets sent.
    pub sent: Counter,
    marked: AtomicU64,
}

impl Progress {
    /// The session's state.
    #[must_use]
    pub fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::Acquire) & !(KICKED | TAKEN_OVER))]
    }

    /// Enters a state. Returns false if the session was ended from outside before.
    #[must_use]
    pub fn enter(&self, stage: Stage) -> bool {
        self.stage
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now & KICKED == 0).then_some(stage as u8))
            .is_ok()
    }

    /// Returns true if the session was ended from outside.
    #[must_use]
    pub fn is_kicked(&self) -> bool {
        self.stage.load(Ordering::Acquire) & KICKED != 0
    }

    /// Who has ended the session from outside.
    #[must_use]
    pub fn ended_by(&self) -> Option<EndedBy> {
        match self.stage.load(Ordering::Acquire) {
            stage if stage & KICKED == 0 => None,
            stage if stage & TAKEN_OVER == 0 => Some(EndedBy::Admin),
            _ => Some(EndedBy::Login),
        }
    }

    /// Ends the session, unless it is in the UPDATE state. Returns false if it is, or if it was ended before.
    pub(super) fn kick(&self, by: EndedBy) -> bool {
        let bits = match by {
            EndedBy::Admin => KICKED,
            EndedBy::Login => KICKED | TAKEN_OVER,
        };
        let kicked = |now| (now != Stage::Update as u8 && now & KICKED == 0).then_some(now | bits);
        self.stage.fetch_update(Ordering::AcqRel, Ordering::Acquire, kicked).is_ok()
    }

    /// The number of messages that are marked as deleted.
    #[must_use]
    pub fn marked(&self) -> u64 {
        self.marked.load(Ordering::Relaxed)
    }

    /// Notes how many messages are marked as deleted.
    pub fn set_marked(&self, marked: usize) {
        self.marked.store(marked as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_in_the_state_that_it_has_entered() {
        let progress = Progress::default();
        assert_eq!(progress.stage(), Stage::Authorization);
        for stage in Stage::ALL {
            assert!(progress.enter(stage));
            assert_eq!(progress.stage(), stage);
        }
    }

    #[test]
    fn a_kicked_session_enters_no_other_state() {
        let progress = Progress::default();
        assert!(progress.enter(Stage::Transaction) && progress.kick(EndedBy::Login));
        assert!(progress.is_kicked() && !progress.enter(Stage::Update));
        assert_eq!(progress.stage(), Stage::Transaction);
        assert!(!progress.kick(EndedBy::Admin), "it was ended before");
        assert_eq!(progress.ended_by(), Some(EndedBy::Login));
    }

    #[test]
    fn a_session_in_the_update_state_is_not_kicked() {
        let progress = Progress::default();
        assert!(progress.enter(Stage::Update));
        assert!(!progress.kick(EndedBy::Admin) && !progress.kick(EndedBy::Login));
        assert_eq!(progress.ended_by(), None);
    }
}
