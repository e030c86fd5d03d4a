//! Lines about users that are logged once an hour for each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::auth::UserName;

/// How often a line is repeated for a user.
const INTERVAL: Duration = Duration::from_secs(3600);

/// How many users are remembered at most. This bounds their memory.
const MOST_USERS: usize = 10_000;

/// When a kind of line was logged about each user.
#[derive(Debug, Default)]
pub struct Hourly(Mutex<HashMap<UserName, Instant>>);

impl Hourly {
    /// Returns true if the line is to be logged about this user now. It is then taken as logged.
    pub fn is_due(&self, user: &UserName, now: Instant) -> bool {
        let mut logged = self.0.lock();
        if logged.get(user).is_some_and(|&when| now.duration_since(when) < INTERVAL) {
            return false;
        }
        if logged.len() >= MOST_USERS {
            logged.clear();
        }
        logged.insert(user.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logged_once_per_user_and_hour() {
        let (logged, now) = (Hourly::default(), Instant::now());
        let [ana, bob] = ["ana", "bob"].map(|name| name.parse().unwrap());
        let minutes = |count: u64| now + Duration::from_secs(60 * count);
        let due = [(&ana, 0), (&ana, 1), (&bob, 1), (&ana, 59), (&ana, 60), (&bob, 60), (&bob, 61)]
            .map(|(user, minute)| logged.is_due(user, minutes(minute)));
        assert_eq!(due, [true, false, true, false, true, false, true]);
    }
}
