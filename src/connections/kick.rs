//! Lists the open connections and ends some of them, as an admin or another login asks for it.

use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Connection, Connections, EndedBy, Stage};

/// How long a session may take to tell its client that it was ended. One that waits for a command does so at once. One that
/// does not may be blocked in the write of a message, so its connection is closed after this time.
const GRACE: Duration = Duration::from_millis(20);

/// How long an admin then waits for the sessions to end. They do at once, unless they wait for a disk.
const PATIENCE: Duration = Duration::from_secs(5);

impl Connection {
    /// Ends the session before its next command, unless it is in the UPDATE state. Returns false if it is, or if it was
    /// ended before.
    fn kick(&self, by: EndedBy) -> bool {
        let is_new = self.client.progress.kick(by);
        if is_new {
            self.end_reading();
        }
        is_new
    }

    /// How long the session has been waiting for its client's next command.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.waiting_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Connections {
    /// The open connections in the order in which they were accepted.
    #[must_use]
    pub fn open(&self) -> Vec<Arc<Connection>> {
        let mut open: Vec<_> = self.state.lock().open.iter().map(|(id, it)| (*id, Arc::clone(it))).collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        open.into_iter().map(|(_, connection)| connection).collect()
    }

    /// Ends the session of this connection when it has answered its present command. Returns how many were ended, or
    /// `None` if there is no such connection.
    #[must_use]
    pub fn kick_later(&self, id: u64) -> Option<usize> {
        self.state.lock().open.get(&id).map(|connection| usize::from(connection.client.progress.kick(EndedBy::Admin)))
    }

    /// Ends the sessions of the open connections that are `meant`, without an UPDATE state. Sessions that are in the
    /// UPDATE state are left to finish. `wake` makes sessions that wait for something else than their client see that they
    /// are to end. Waits until all of these sessions have ended and released their maildrops, at most for 5 s. Returns how
    /// many were ended, or `None` if no connection is meant.
    #[must_use]
    pub fn kick(&self, meant: impl Fn(&Connection) -> bool, wake: impl FnOnce()) -> Option<usize> {
        let meant: Vec<_> = self.open().into_iter().filter(|connection| meant(connection)).collect();
        let ended = self.end(&meant, EndedBy::Admin, wake);
        (!meant.is_empty()).then_some(ended)
    }

    /// Ends the session with this number for another login of the user, if its client has sent nothing for `idle`. It has no
    /// UPDATE state then, and if it is in that state, it is left to finish. Waits as [`Self::kick`] does. Returns true if
    /// the session was ended.
    #[must_use]
    pub fn take_over(&self, id: u64, idle: Duration) -> bool {
        let connection = self.state.lock().open.get(&id).cloned();
        let is_idle = |connection: &Connection| {
            let waits = connection.waiting_since.lock().is_some_and(|since| since.elapsed() >= idle);
            waits && connection.client.progress.stage() == Stage::Transaction
        };
        connection.filter(|it| is_idle(it)).is_some_and(|connection| self.end(&[connection], EndedBy::Login, || {}) > 0)
    }

    /// Ends sessions and waits for them. Returns how many were ended.
    fn end(&self, meant: &[Arc<Connection>], by: EndedBy, wake: impl FnOnce()) -> usize {
        let ended = meant.iter().filter(|connection| connection.kick(by)).count();
        wake();
        if !self.have_ended(meant, GRACE) {
            // Before a login no reply is so large that a write would block. So the client is told even on a busy machine.
            let may_block = |connection: &&Arc<Connection>| {
                let progress = &connection.client.progress;
                progress.is_kicked() && progress.stage() != Stage::Authorization
            };
            for connection in meant.iter().filter(may_block) {
                let _ = connection.stream.shutdown(Shutdown::Both);
            }
            self.have_ended(meant, PATIENCE);
        }
        ended
    }

    /// Waits until these sessions have ended. Returns false if that takes longer than `limit`.
    fn have_ended(&self, sessions: &[Arc<Connection>], limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        while sessions.iter().any(|it| it.client.session.is_some_and(|id| state.open.contains_key(&id))) {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }
}
