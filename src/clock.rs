//! The time of day, as the server's own files write it.

use std::time::{SystemTime, UNIX_EPOCH};

/// The present time in seconds since 1970; 0 if the clock is before that.
#[must_use]
pub fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
