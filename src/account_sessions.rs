//! Counts the sessions of each account that has a limit of its own ([`SessionLimit`]).
//!
//! A login whose password is right is [admitted](AccountSessions::admit) before it locks the maildrop, and
//! [becomes a session](AccountSession::begin) when it has the lock. Logins that wait for the maildrop count as sessions do, so
//! that the clients of one user cannot occupy all connections by waiting. One login beyond the limit may wait for the end of
//! a session, which may just be ending; all others are refused at once. Sessions that began while the account had no limit
//! do not count.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::auth::{Login, SessionLimit, UserName};

/// The sessions of all accounts with a limit.
#[derive(Debug, Default)]
pub struct AccountSessions {
    counts: Mutex<HashMap<UserName, Counts>>,
    ended: Condvar,
}

/// The sessions of one account.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Logins that have not become sessions yet.
    logins: u32,
    sessions: u32,
}

/// The error for a login of an account that has as many sessions as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManySessions(SessionLimit);

impl fmt::Display for TooManySessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the account has reached its limit of sessions, which is {}", self.0.sessions())
    }
}

impl AccountSessions {
    /// Admits a login whose password is right. It may wait for `patience` until it becomes a session.
    ///
    /// # Errors
    /// If a login beyond the account's limit is already waiting.
    pub fn admit(self: &Arc<Self>, login: &Login, patience: Duration) -> Result<AccountSession, TooManySessions> {
        let Some(limit) = login.mailbox.session_limit else { return Ok(AccountSession(None)) };
        let mut counts = self.counts.lock();
        let count = counts.entry(login.user.clone()).or_default();
        if count.logins + count.sessions > limit.sessions() {
            return Err(TooManySessions(limit));
        }
        count.logins += 1;
        drop(counts);
        let (all, user) = (Arc::clone(self), login.user.clone());
        Ok(AccountSession(Some(Counted { all, user, limit, deadline: Instant::now() + patience, has_begun: false })))
    }
}

/// A login or a session, which counts until this is dropped if its account has a limit.
#[derive(Debug)]
pub struct AccountSession(Option<Counted>);

impl AccountSession {
    /// Makes the login a session. If the account has as many sessions as it may have, this waits until one of them ends.
    ///
    /// # Errors
    /// If none ends in time.
    pub fn begin(&mut self) -> Result<(), TooManySessions> {
        self.0.as_mut().map_or(Ok(()), Counted::begin)
    }
}

/// A login or a session of an account with a limit.
#[derive(Debug)]
struct Counted {
    all: Arc<AccountSessions>,
    user: UserName,
    limit: SessionLimit,
    /// How long the login waits for the end of another session.
    deadline: Instant,
    has_begun: bool,
}

impl Counted {
    fn begin(&mut self) -> Result<(), TooManySessions> {
        let mut counts = self.all.counts.lock();
        loop {
            let count = counts.entry(self.user.clone()).or_default();
            if count.sessions < self.limit.sessions() {
                count.logins -= 1;
                count.sessions += 1;
                self.has_begun = true;
                return Ok(());
            }
            if self.all.ended.wait_until(&mut counts, self.deadline).timed_out() {
                return Err(TooManySessions(self.limit));
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.all.counts.lock();
        if let Some(count) = counts.get_mut(&self.user) {
            let own = if self.has_begun { &mut count.sessions } else { &mut count.logins };
            *own -= 1;
            if count.logins == 0 && count.sessions == 0 {
                counts.remove(&self.user);
            }
        }
        drop(counts);
        if self.has_begun {
            self.all.ended.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Mailbox;
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

    fn login(name: &str, limit: u32) -> Login {
        let session_limit = SessionLimit::of(limit);
        Login { user: name.parse().unwrap(), mailbox: Arc::new(Mailbox { session_limit, ..Mailbox::default() }) }
    }

    fn session(all: &Arc<AccountSessions>, login: &Login) -> Option<AccountSession> {
        let mut session = all.admit(login, Duration::ZERO).unwrap();
        session.begin().ok().map(|()| session)
    }

    fn sessions_of(all: &AccountSessions, login: &Login) -> u32 {
        all.counts.lock()[&login.user].sessions
    }

    #[test]
    fn an_account_has_no_more_sessions_than_its_limit() {
        let all = Arc::new(AccountSessions::default());
        let (ana, bob, eve) = (login("ana", 2), login("bob", 1), login("eve", 0));
        let mut sessions = [&ana, &ana, &bob].map(|login| session(&all, login).unwrap());
        assert!(session(&all, &ana).is_none() && session(&all, &bob).is_none());
        assert_eq!((0..10).map(|_| session(&all, &eve).unwrap()).collect::<Vec<_>>().len(), 10);
        assert_eq!(sessions_of(&all, &ana), 2);
        assert!(!all.counts.lock().contains_key(&eve.user));
        sessions[0] = session(&all, &eve).unwrap();
        assert!(session(&all, &ana).is_some());
        drop(sessions);
        assert!(all.counts.lock().is_empty());
    }

    #[test]
    fn a_login_waits_for_the_end_of_a_session() {
        let all = Arc::new(AccountSessions::default());
        let ana = login("ana", 1);
        let first = session(&all, &ana).unwrap();
        let mut second = all.admit(&ana, LONG).unwrap();
        assert!(all.admit(&ana, LONG).is_err());
        let waiting = thread::spawn(move || second.begin().map(|()| second));
        drop(first);
        let second = waiting.join().unwrap().unwrap();
        let third = all.admit(&ana, LONG).unwrap();
        assert_eq!(sessions_of(&all, &ana), 1);
        drop((second, third));
        assert!(all.counts.lock().is_empty());
    }
}
