//! The faults of one session.

use std::time::Instant;

use super::{Faults, What};
use crate::events::{self, Client, Events};

/// Tells which fault is due in a session, and remembers which faults the session has.
#[derive(Debug)]
pub(super) struct Due<'a> {
    faults: &'a Faults,
    client: &'a Client,
    events: &'a Events,
    own: Vec<What>,
}

impl<'a> Due<'a> {
    pub(super) fn new(faults: &'a Faults, client: &'a Client, events: &'a Events) -> Self {
        Self { faults, client, events, own: Vec::new() }
    }

    /// Returns the fault that is meant if the session has it, or gets it now. A session keeps its faults to its end.
    pub(super) fn in_session(&mut self, meant: impl Fn(What) -> bool) -> Option<What> {
        if let Some(own) = self.own.iter().find(|what| meant(**what)) {
            return Some(*own);
        }
        let what = self.once(meant, self.client.user())?;
        self.own.push(what);
        Some(what)
    }

    /// Returns the fault that is meant if the session gets it now, for this one time, as a client of this user.
    pub(super) fn once(&self, meant: impl Fn(What) -> bool, user: Option<&str>) -> Option<What> {
        let (id, what) = self.faults.give(self.client.origin.ip(), user, meant, Instant::now())?;
        self.events.emit(self.client, events::What::Fault { id, what, user });
        Some(what)
    }
}
