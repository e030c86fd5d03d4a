//! Logs when an account source becomes unavailable and when it answers again, and not at each login.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a source is unavailable.
#[derive(Debug, Default)]
pub(super) struct Outage(AtomicBool);

impl Outage {
    /// Notes that the source could not answer.
    pub(super) fn begins(&self, source: &str, why: impl fmt::Display) {
        if !self.0.swap(true, Ordering::Relaxed) {
            log::error!("accounts: {source} is unavailable: {why}");
        }
    }

    /// Notes that the source has answered.
    pub(super) fn ends(&self, source: &str) {
        if self.0.swap(false, Ordering::Relaxed) {
            log::info!("accounts: {source} answers again");
        }
    }
}
