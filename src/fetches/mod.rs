//! Who fetched what: for each user the last login, the last complete fetch, the octets of each day, and the commands with
//! which the mail program begins.
//!
//! [`Fetches`] is a consumer of [`crate::events`]. [`Kept`] writes it to the state directory and reads it at the start;
//! [`crate::records`] says when. PEEP's `rp?` and `rd?` show it.
//!
//! A *complete fetch* is a session that ended with QUIT and left no message behind that was never retrieved: each message that
//! was there at login was retrieved as a whole, by this session or an earlier one, or was removed. Messages that arrived
//! during the session do not count.

mod days;
mod kept;
mod record;

use std::collections::HashMap;
use std::fmt::Write;

use parking_lot::Mutex;

pub use days::{Day, Days, MOST_DAYS};
pub use kept::Kept;
pub use record::Record;

use crate::auth::UserName;
use crate::clock::seconds_since_1970 as now;
use crate::events::{Ended, Event, What};

/// The most users that are remembered. If there are more, those whose last login is the oldest are forgotten.
const MOST_USERS: usize = 10_000;

/// How many users are forgotten at once: enough that logins of ever new users seldom look for the oldest.
const FORGOTTEN_AT_ONCE: usize = MOST_USERS / 10;

/// What is known of each user who has logged in.
#[derive(Debug, Default)]
pub struct Fetches(Mutex<Users>);

#[derive(Debug, Default)]
struct Users {
    by_name: HashMap<UserName, Record>,
    /// True if something has changed since the last [`Fetches::take_changes`].
    has_changed: bool,
}

impl Fetches {
    /// Notes what the event tells.
    pub fn note(&self, event: &Event<'_>) {
        let Some(user) = event.client.user_name() else { return };
        match &event.what {
            What::Login { .. } => self.0.lock().change(user, true, |record| {
                record.logins += 1;
                record.last_login = now();
                record.address = event.client.origin.address();
            }),
            What::Update { failed: 0, never_retrieved: Some(0), .. } => {
                self.0.lock().change(user, false, |record| record.last_fetch = Some(now()));
            }
            What::Ended(Ended { counts: Some(counts), .. }) => self.0.lock().change(user, false, |record| {
                record.days.add(Day::of(now()), counts.octets);
                record.client.clear();
                let _ = write!(record.client, "{}", counts.first_commands); // writing to a String cannot fail
            }),
            _ => {}
        }
    }

    /// What is known of a user who has logged in.
    #[must_use]
    pub fn of(&self, user: &UserName) -> Option<Record> {
        self.0.lock().by_name.get(user).cloned()
    }

    /// The users of whom something is known, in any order.
    #[must_use]
    pub fn users(&self) -> Vec<UserName> {
        self.0.lock().by_name.keys().cloned().collect()
    }

    /// Forgets a user whose account was deleted.
    pub fn forget(&self, user: &UserName) {
        let mut users = self.0.lock();
        users.has_changed |= users.by_name.remove(user).is_some();
    }

    /// Adds what an earlier server has written down.
    fn restore(&self, user: UserName, record: Record) {
        let mut users = self.0.lock();
        users.make_room();
        users.by_name.insert(user, record);
    }

    /// Returns what is known of all users if anything has changed since the last call.
    fn take_changes(&self) -> Option<HashMap<UserName, Record>> {
        let mut users = self.0.lock();
        std::mem::take(&mut users.has_changed).then(|| users.by_name.clone())
    }

    /// Has the next [`Fetches::take_changes`] return all, because what was taken could not be written.
    fn set_changed(&self) {
        self.0.lock().has_changed = true;
    }
}

impl Users {
    /// Changes the record of a user. `begin` says whether one is made for a user who has none.
    fn change(&mut self, user: &UserName, begin: bool, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.by_name.get_mut(user) {
            change(record);
        } else if begin {
            self.make_room();
            change(self.by_name.entry(user.clone()).or_default());
        } else {
            return;
        }
        self.has_changed = true;
    }

    fn make_room(&mut self) {
        if self.by_name.len() < MOST_USERS {
            return;
        }
        let mut by_login: Vec<_> = self.by_name.iter().map(|(user, it)| (it.last_login, user.clone())).collect();
        by_login.select_nth_unstable_by_key(FORGOTTEN_AT_ONCE, |(last_login, _)| *last_login);
        for (_, user) in by_login.drain(..FORGOTTEN_AT_ONCE) {
            self.by_name.remove(&user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Client, Counts, EndResult, FirstCommands, Method, Service};
    use std::net::SocketAddr;
    use std::time::Duration;

    fn client(user: &str) -> Client {
        let client = Client::new(1, "192.0.2.4:5555".parse::<SocketAddr>().unwrap().into(), Service::Pop3);
        client.set_user(user.parse().unwrap());
        client
    }

    fn login<'a>() -> What<'a> {
        What::Login { method: Method::Pass, messages: 1, octets: 5, took: Duration::ZERO, scan: Duration::ZERO }
    }

    fn update<'a>(failed: u64, never_retrieved: Option<u64>) -> What<'a> {
        What::Update { removed: 0, failed, never_retrieved }
    }

    fn end<'a>(octets: u64) -> What<'a> {
        let mut first_commands = FirstCommands::default();
        ["CAPA", "USER", "PASS", "QUIT"].into_iter().for_each(|keyword| first_commands.add(Some(keyword)));
        let counts = Some(Counts { octets, first_commands, ..Counts::default() });
        What::Ended(Ended { result: EndResult::Quit, reason: None, counts })
    }

    #[test]
    fn a_session_is_noted() {
        let (fetches, client) = (Fetches::default(), client("ana"));
        let user = "ana".parse().unwrap();
        let tell = |what| fetches.note(&Event { client: &client, what });
        tell(update(0, Some(0)));
        tell(end(9));
        assert_eq!(fetches.of(&user), None, "a session without a login has no user");
        tell(login());
        for (failed, left) in [(0, Some(1)), (0, None), (1, Some(0))] {
            tell(update(failed, left));
        }
        assert_eq!(fetches.of(&user).unwrap().last_fetch, None);
        tell(update(0, Some(0)));
        tell(end(7));
        tell(login());
        tell(end(4));
        let record = fetches.of(&user).unwrap();
        assert!(record.last_fetch.is_some_and(|time| time.abs_diff(now()) < 600));
        assert_eq!(record.days.sums(Day::of(now())).1, 11);
        assert_eq!((record.logins, record.client.as_str()), (2, "CAPA USER PASS QUIT"));
        assert_eq!(record.address.unwrap().to_string(), "192.0.2.4:5555");
        assert!(fetches.take_changes().is_some() && fetches.take_changes().is_none());
        fetches.forget(&user);
        assert!(fetches.of(&user).is_none() && fetches.take_changes().is_some());
    }

    #[test]
    fn the_users_are_bounded_and_the_oldest_are_forgotten() {
        let fetches = Fetches::default();
        for number in 0..MOST_USERS as u64 {
            let record = Record { last_login: 1000 + number, ..Record::default() };
            fetches.restore(format!("user{number}").parse().unwrap(), record);
        }
        fetches.note(&Event { client: &client("new"), what: login() });
        let is_known = |user: &str| fetches.of(&user.parse().unwrap()).is_some();
        assert_eq!(fetches.users().len(), MOST_USERS - FORGOTTEN_AT_ONCE + 1);
        assert!(is_known("new") && is_known("user1000") && !is_known("user999"));
    }
}
