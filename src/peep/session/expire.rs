//! `ex` and `ex?`: removes the messages that have expired, or tells which would be removed.

use super::Session;
use crate::expiry::{self, Found, Outcome};
use crate::peep::{Expiration, ExpiryLine, Reply};

impl Session<'_> {
    pub(super) fn expire(&self, is_dry_run: bool) -> Reply {
        let found = expiry::sweep(self.shared, is_dry_run);
        if !is_dry_run {
            let removed: u64 = found.iter().map(|found| found.messages).sum();
            self.log_change(format_args!("expired messages removed: {removed}"));
        }
        Reply::Lines(found.into_iter().map(|found| line(found).to_string()).collect())
    }
}

fn line(Found { user, messages, octets, outcome }: Found) -> ExpiryLine {
    let result = match outcome {
        Outcome::Done => Expiration::Done,
        Outcome::Due => Expiration::Due,
        Outcome::Busy => Expiration::Busy,
        Outcome::Failed => Expiration::Failed,
    };
    ExpiryLine { user, messages, octets, result }
}
