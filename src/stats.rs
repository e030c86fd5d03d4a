//! Counters since the server started.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter; exact, whoever counts.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` back that were counted too early.
    pub fn subtract(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The count now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What PEEP reports of the POP3 service.
#[derive(Debug, Default)]
pub struct Stats {
    /// Octets sent to POP3 clients, whatever the command.
    pub sent: Counter,
    /// Successful RETRs.
    pub retrieved: Counter,
    /// Messages removed in the UPDATE state.
    pub removed: Counter,
    /// Connections ever.
    pub connections: Counter,
    /// Successful logins ever.
    pub logins: Counter,
}
