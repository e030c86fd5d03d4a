//! Tells the log when a database cannot be used and when it can be again, and which accounts are wrong there; each once
//! and not at each login.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::driver::Error;
use super::row::Fault;
use crate::auth::name::UserName;

/// How long a failure is not told again, even if there were successes in the meantime.
const SILENCE: Duration = Duration::from_secs(60);

/// The most accounts that are kept as told.
const TOLD: usize = 1000;

/// What the log has been told about a database.
#[derive(Debug)]
pub(super) struct Health {
    name: String,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// True if the log says that the database cannot be used.
    is_down: bool,
    failure: Option<Instant>,
    behind: Option<Instant>,
    accounts: HashSet<UserName>,
}

impl Health {
    pub(super) fn new(name: String) -> Self {
        Self { name, told: Mutex::default() }
    }

    /// The database cannot be used.
    pub(super) fn is_down(&self, error: &Error) {
        let mut told = self.told.lock();
        if is_due(&mut told.failure) {
            told.is_down = true;
            match error {
                Error::Wrong(why) => log::error!("accounts: {}: the query is wrong: {why}", self.name),
                _ => log::warn!("accounts: {} is unavailable: {error}", self.name),
            }
        }
    }

    /// The database has answered.
    pub(super) fn is_well(&self) {
        let mut told = self.told.lock();
        if told.is_down {
            told.is_down = false;
            log::info!("accounts: {} is available again", self.name);
        }
    }

    /// A login statement was dropped, because too many are waiting.
    pub(super) fn is_behind(&self) {
        if is_due(&mut self.told.lock().behind) {
            log::warn!("accounts: {} is slow: statements for logins are dropped", self.name);
        }
    }

    /// An account may not log in.
    pub(super) fn tell(&self, user: &UserName, fault: &Fault) {
        let is_new = fault.is_unexpected() && {
            let accounts = &mut self.told.lock().accounts;
            accounts.len() < TOLD && accounts.insert(user.clone())
        };
        let level = if is_new { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "accounts: {}: {user} cannot log in: {fault}", self.name);
    }
}

fn is_due(last: &mut Option<Instant>) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() >= SILENCE);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}
