//! Warns of maildrops that do not exist, and of directories that have to be Maildirs and are none. Their users see an empty
//! maildrop, which may be right, as before the first delivery, or a mistake in the location.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::location::Location;
use super::root;
use crate::auth::UserName;

/// How often the warning is repeated for a user.
const INTERVAL: Duration = Duration::from_secs(3600);

/// How many users are remembered at most. This bounds their memory.
const MOST_USERS: usize = 10_000;

type Warned = HashMap<UserName, Instant>;

/// Logs that the maildrop at a location does not exist, once per user and hour.
pub(super) fn warn(location: &Location) {
    static WARNED: Mutex<Option<Warned>> = Mutex::new(None);
    if is_due(WARNED.lock().get_or_insert_default(), location.user(), Instant::now()) {
        let (user, path) = (location.user().as_str(), root::display(location.path()));
        let why = if location.root().has(location.path()) {
            "is no Maildir: it has neither new/ nor cur/"
        } else {
            "does not exist in the mail directory"
        };
        log::warn!("{user:?} has an empty maildrop because {path} {why}");
    }
}

fn is_due(warned: &mut Warned, user: &UserName, now: Instant) -> bool {
    if warned.get(user).is_some_and(|&when| now.duration_since(when) < INTERVAL) {
        return false;
    }
    if warned.len() >= MOST_USERS {
        warned.clear();
    }
    warned.insert(user.clone(), now);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_is_logged_per_user_and_hour() {
        let (mut warned, now) = (Warned::new(), Instant::now());
        let [ana, bob] = ["ana", "bob"].map(|name| name.parse().unwrap());
        let minutes = |count: u64| now + Duration::from_secs(60 * count);
        let due = [(&ana, 0), (&ana, 1), (&bob, 1), (&ana, 59), (&ana, 60), (&bob, 60), (&bob, 61)]
            .map(|(user, minute)| is_due(&mut warned, user, minutes(minute)));
        assert_eq!(due, [true, false, true, false, true, false, true]);
    }
}
