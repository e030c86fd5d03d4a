//! Counters of the POP3 service, since the server's start or since the state directory was made.
//!
//! - [`Stats`] has one [`Counter`] for each figure that PEEP reports. Sessions add to them.
//! - [`Kept`] writes them to the state directory and reads them at the start (`--state`).
//! - [`StatsLog`] appends a line of them, a [`Sample`], to a CSV file (`--stats-log`).
//!
//! They count what [`crate::events`] tells; [`crate::records`] writes them.

mod csv;
mod kept;

use std::sync::atomic::{AtomicU64, Ordering};

pub use csv::{Sample, StatsLog};
pub use kept::Kept;

use crate::events::{Event, Sent, Service, What};

/// One counter, exact with any number of threads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Subtracts `n` that was counted too early.
    pub fn subtract(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Sets the counter to `value`.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters that PEEP reports.
#[derive(Debug, Default)]
pub struct Stats {
    /// Octets sent to POP3 clients, whatever the command.
    pub sent: Counter,
    /// Successful RETRs.
    pub retrieved: Counter,
    /// Messages removed in the UPDATE state.
    pub removed: Counter,
    /// Messages removed because they had expired, since the server's start.
    pub expired: Counter,
    /// All POP3 connections so far.
    pub connections: Counter,
    /// All successful logins so far.
    pub logins: Counter,
}

impl Stats {
    /// Counts what [`crate::events`] tells. Octets are counted by the connection itself, before they are sent.
    pub fn count(&self, event: &Event<'_>) {
        match &event.what {
            What::Connected if event.client.service != Service::Peep => self.connections.add(1),
            What::Login { .. } => self.logins.add(1),
            What::Sent(Sent { whole: true, .. }) => self.retrieved.add(1),
            What::Update { removed, .. } => self.removed.add(*removed),
            What::Expired { removed, .. } => self.expired.add(*removed),
            _ => {}
        }
    }

    /// The counters that outlive the server, each with its name in the state directory's file.
    fn named(&self) -> [(&'static str, &Counter); 5] {
        let Self { sent, retrieved, removed, connections, logins, .. } = self;
        [
            ("sent", sent),
            ("retrieved", retrieved),
            ("removed", removed),
            ("connections", connections),
            ("logins", logins),
        ]
    }

    fn values(&self) -> [u64; 5] {
        self.named().map(|(_, counter)| counter.value())
    }

    fn set(&self, other: &Self) {
        for ((_, counter), (_, value)) in self.named().into_iter().zip(other.named()) {
            counter.set(value.value());
        }
    }
}
