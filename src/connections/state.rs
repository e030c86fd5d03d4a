//! What the registry's lock protects: the slots in use, the limit and the open connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Connection, MAX_CONNECTIONS, Protocol};

/// The most PEEP connections that have not authenticated. The limit by address does not bound them, because most come
/// from loopback, and each could otherwise occupy a slot until its login deadline.
const MAX_UNAUTHENTICATED_PEEP: usize = 32;

/// How long a PEEP client may take to authenticate while an admin waits for its slot: a few round trips, so that admins
/// who connect at the same time do not close each other's connections.
pub(super) const PEEP_HEAD_START: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct State {
    /// The limit that is configured, or that PEEP has set.
    pub(super) limit: usize,
    /// The most connections that this machine allows, whatever `limit` is.
    pub(super) ceiling: usize,
    /// Slots that are reserved or occupied.
    pub(super) used: usize,
    /// The part of `used` that belongs to POP3.
    pop3: usize,
    pub(super) open: HashMap<u64, Arc<Connection>>,
}

/// What can be done for an admin who waits for a connection slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ForAdmin {
    /// The connection with this number is being closed.
    Closed(u64),
    /// The oldest connection may still authenticate; it can be closed after this time.
    TryAgain(Instant),
    /// A slot only becomes free when another connection ends or the limit is raised.
    Wait,
}

impl State {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ceiling: MAX_CONNECTIONS, used: 0, pop3: 0, open: HashMap::new() }
    }

    /// Returns true if `protocol` may use another slot. The last slot is reserved for PEEP, so that POP3 clients cannot
    /// lock the admin out.
    pub(super) fn has_free_slot(&self, protocol: Protocol) -> bool {
        let limit = self.limit.min(self.ceiling);
        self.used < limit && (protocol == Protocol::Peep || self.pop3 + 1 < limit)
    }

    /// Returns true if POP3 could use a slot that a PEEP connection occupies.
    pub(super) fn peep_occupies_slots_of_pop3(&self) -> bool {
        self.pop3 + 1 < self.limit.min(self.ceiling)
    }

    /// Reserves a slot for a connection that speaks `protocol`.
    pub(super) fn reserve(&mut self, protocol: Protocol) {
        self.used += 1;
        self.pop3 += usize::from(protocol == Protocol::Pop3);
    }

    /// Frees a slot that was reserved for a connection that speaks `protocol`.
    pub(super) fn release(&mut self, protocol: Protocol) {
        self.used -= 1;
        self.pop3 -= usize::from(protocol == Protocol::Pop3);
    }

    /// Enters a connection into the registry.
    pub(super) fn insert(&mut self, id: u64, connection: Arc<Connection>) {
        self.open.insert(id, connection);
        self.limit_unauthenticated_peep();
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.open.remove(&id);
    }

    /// The PEEP connections that have not authenticated, each with its number.
    fn unauthenticated_peep(&self) -> impl Iterator<Item = (u64, &Connection)> {
        self.open
            .iter()
            .map(|(id, connection)| (*id, &**connection))
            .filter(|(_, connection)| connection.protocol == Protocol::Peep && !connection.is_logged_in())
    }

    /// Closes the oldest unauthenticated PEEP connection if there are too many. This does not hit admins, because their
    /// programs authenticate as soon as they have connected.
    fn limit_unauthenticated_peep(&self) {
        let remaining = || self.unauthenticated_peep().filter(|(_, connection)| !connection.reading_is_ended());
        if remaining().count() > MAX_UNAUTHENTICATED_PEEP
            && let Some((_, oldest)) = remaining().min_by_key(|(id, _)| *id)
        {
            oldest.end_reading();
        }
    }

    /// Closes the oldest unauthenticated PEEP connection, to be called when an admin waits and no slot is free. Does
    /// nothing while a connection that was closed for this reason is still ending.
    pub(super) fn free_slot_for_admin(&self, now: Instant) -> ForAdmin {
        if self.unauthenticated_peep().any(|(_, connection)| connection.reading_is_ended()) {
            return ForAdmin::Wait;
        }
        let Some((id, oldest)) = self.unauthenticated_peep().min_by_key(|(id, _)| *id) else { return ForAdmin::Wait };
        let until = oldest.client.since + PEEP_HEAD_START;
        if now < until {
            return ForAdmin::TryAgain(until);
        }
        oldest.end_reading();
        ForAdmin::Closed(id)
    }
}
