//! The state of a run in progress, which its threads share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::failure::Failure;
use super::options::{Plan, Target};
use super::tally::{Record, Tally};

/// A run in progress, shared by its threads.
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) began: Instant,
    pub(super) tally: Mutex<Tally>,
    /// Octets received so far.
    pub(super) received: AtomicU64,
    pub(super) target: &'a Target,
    pub(super) tickets: AtomicU64,
    /// Tells idle sessions to end.
    pub(super) released: AtomicBool,
    /// Why the run was stopped; no further session begins.
    pub(super) given_up: OnceLock<String>,
}

impl Run<'_> {
    /// Adds a session to the tally. Returns false if no client has ever connected.
    pub(super) fn add(&self, record: &Record, result: Result<(), Failure>) -> bool {
        let mut tally = self.tally.lock();
        tally.add(record, result);
        tally.connections > 0
    }

    /// Stops the run: no further session begins. Only the first reason is kept.
    pub(super) fn give_up(&self, reason: String) {
        let _ = self.given_up.set(reason);
    }

    pub(super) fn released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }
}
