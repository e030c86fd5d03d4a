//! Warns of maildrops that do not exist, and of directories that have to be Maildirs and are none. Their users see an empty
//! maildrop, which may be right, as before the first delivery, or a mistake in the location.

use std::sync::LazyLock;
use std::time::Instant;

use super::location::Location;
use super::root;
use crate::hourly::Hourly;

/// Logs that the maildrop at a location does not exist, once per user and hour.
pub(super) fn warn(location: &Location) {
    static WARNED: LazyLock<Hourly> = LazyLock::new(Hourly::default);
    if WARNED.is_due(location.user(), Instant::now()) {
        let (user, path) = (location.user().as_str(), root::display(location.path()));
        let why = if location.root().has(location.path()) {
            "is no Maildir: it has neither new/ nor cur/"
        } else {
            "does not exist in the mail directory"
        };
        log::warn!("{user:?} has an empty maildrop because {path} {why}");
    }
}
