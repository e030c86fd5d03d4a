//! Time limits that the server enforces from outside the sessions: it calls these functions at intervals.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Connection, Connections, Protocol, WRITE_STALL};
use crate::guard::MinRate;

impl Connections {
    /// Sets how long a write to a POP3 client may make no progress. This also applies to writes in progress.
    pub fn set_write_stall(&self, stall: Duration) {
        let milliseconds = stall.min(WRITE_STALL).as_millis();
        self.write_stall.store(u64::try_from(milliseconds).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Ends the reading of POP3 connections that have waited for a command longer than `timeout`. Sessions have a read
    /// timeout of their own, but they set it when they begin to wait; this enforces a timeout that was lowered since.
    pub fn end_overdue(&self, timeout: Duration) {
        let is_overdue =
            |connection: &Connection| connection.waiting_since.lock().is_some_and(|since| since.elapsed() > timeout);
        for connection in self.state.lock().open.values() {
            if connection.protocol == Protocol::Pop3 && is_overdue(connection) {
                connection.end_reading();
            }
        }
    }

    /// If POP3 has no free slot: ends the reading of connections that were accepted longer than `limit` ago, have not
    /// logged in, and are waiting for their client (for a command, or in a TLS handshake). PEEP connections are included
    /// if they occupy slots that POP3 could use. Returns how many connections were ended.
    pub fn end_unauthenticated_if_full(&self, limit: Duration) -> usize {
        let state = self.state.lock();
        if state.has_free_slot(Protocol::Pop3) {
            return 0;
        }
        let peep_too = state.peep_occupies_slots_of_pop3();
        let is_overdue = |connection: &&Connection| {
            (peep_too || connection.protocol == Protocol::Pop3)
                && !connection.is_logged_in()
                && !connection.reading_is_ended()
                && connection.client.since.elapsed() > limit
                && connection.waiting_since.lock().is_some()
        };
        state.open.values().map(|connection| &**connection).filter(is_overdue).map(Connection::end_reading).count()
    }

    /// Closes connections whose client reads too slowly, which frees the thread and the maildrop.
    pub fn end_slow(&self, min_rate: MinRate) {
        let now = Instant::now();
        for connection in self.state.lock().open.values() {
            if connection.pace.lock().is_too_slow(min_rate, now) {
                connection.close_as_slow();
            }
        }
    }
}
