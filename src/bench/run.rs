//! A run in progress, as its threads share it.

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
    /// Octets off the wire, counted as they come.
    pub(super) received: AtomicU64,
    pub(super) target: &'a Target,
    pub(super) tickets: AtomicU64,
    /// Tells idle sessions that they may leave.
    pub(super) released: AtomicBool,
    /// Why the run makes no sense and no further session begins.
    pub(super) given_up: OnceLock<String>,
}

impl Run<'_> {
    /// Adds a session to the tally; false as long as nobody has ever connected.
    pub(super) fn add(&self, record: &Record, result: Result<(), Failure>) -> bool {
        let mut tally = self.tally.lock();
        tally.add(record, result);
        tally.connections > 0
    }

    /// Lets no further session begin; the first reason is the one that is told.
    pub(super) fn give_up(&self, reason: String) {
        let _ = self.given_up.set(reason);
    }

    pub(super) fn released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }
}
