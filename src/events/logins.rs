//! Each user's last login, for an admin who asks. Users who have not logged in since the server's start are not in it, so it
//! does not grow beyond the number of accounts that are used.

use std::collections::HashMap;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::event::{Event, What};
use crate::net::Origin;

/// A user's logins since the server's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logins {
    /// How many there were.
    pub count: u64,
    /// When the last one was.
    pub last: SystemTime,
    /// Where the last one came from.
    pub origin: Origin,
}

/// The logins of all users.
#[derive(Debug, Default)]
pub(super) struct AllLogins(Mutex<HashMap<String, Logins>>);

impl AllLogins {
    /// Notes the event if it is a login.
    pub(super) fn add(&self, event: &Event<'_>) {
        let (What::Login { .. }, Some(user)) = (&event.what, event.client.user()) else { return };
        let mut logins = self.0.lock();
        let mut this = Logins { count: 1, last: SystemTime::now(), origin: event.client.origin };
        match logins.get_mut(user) {
            Some(earlier) => {
                this.count += earlier.count;
                *earlier = this;
            }
            None => drop(logins.insert(user.to_owned(), this)),
        }
    }

    /// The logins of a user, if there were any.
    pub(super) fn of(&self, user: &str) -> Option<Logins> {
        self.0.lock().get(user).copied()
    }
}
