//! Flags for mail that expires.

use crate::auth::OwnExpiry;
use crate::maildrop::Expiry;

const MOST_DAYS: i64 = OwnExpiry::MOST_DAYS as i64;

/// The flags for mail that expires.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Expiry")]
pub(super) struct ExpiryArgs {
    /// Remove messages this many days after they were first retrieved as a whole, up to 3660 (0: from the next look on).
    /// The server looks every hour
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(..=MOST_DAYS))]
    expire_read: Option<u32>,

    /// Remove messages this many days after they have arrived, up to 3660, whether or not they were read
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(..=MOST_DAYS))]
    expire_all: Option<u32>,
}

impl ExpiryArgs {
    pub(super) fn rules(&self) -> Expiry {
        Expiry { read: self.expire_read, all: self.expire_all }
    }
}
