//! Removes messages that have expired (`--expire-read`, `--expire-all`, or an account's own rules), and for good those that sessions have deleted and
//! that were kept long enough (`--deletes trash`): every hour, and when an admin asks for it.
//!
//! A thread of its own does so, one maildrop after the other, as blocking disks must not keep a session waiting. It locks
//! each maildrop as a session does and skips those that have a session. It never keeps one for long: it removes a limited
//! number of messages at a time, and logins wait for it.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::getuid;

use crate::acting;
use crate::auth::{Login, UserName};
use crate::clock::seconds_since_1970;
use crate::events::{Client, Reason, Service, What};
use crate::maildrop::{self, Deletes, Expired, Expiry, Holder, Location, Lock, LockError, Maildrop, Terms};
use crate::net::Origin;
use crate::shared::Shared;

/// The time from the start to the first look, and between two looks.
const FIRST: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(3600);

/// How many messages are removed at once. A login that comes meanwhile waits for it.
const AT_ONCE: usize = 1000;

/// What became of the expired messages of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// They were removed.
    Done,
    /// They would be removed.
    Due,
    /// The maildrop has a session, so it was not looked into.
    Busy,
    /// Some of them could not be removed, or the maildrop could not be opened; the log tells more.
    Failed,
}

/// A user whose maildrop has expired messages, or could not be looked into.
#[derive(Debug)]
pub struct Found {
    /// The user.
    pub user: String,
    /// How many messages were, or would be, removed.
    pub messages: u64,
    /// Their octets.
    pub octets: u64,
    /// What became of them.
    pub outcome: Outcome,
}

/// Starts the thread.
///
/// # Errors
/// If it cannot be started.
pub fn start(shared: Arc<Shared>) -> io::Result<()> {
    thread::Builder::new().name("expiry".to_owned()).spawn(move || {
        thread::sleep(FIRST);
        while !shared.connections.is_closing() && acting::has_own_ids() {
            drop(sweep(&shared, false));
            thread::sleep(INTERVAL);
        }
    })?;
    Ok(())
}

/// Looks into all maildrops and removes what has expired, or only tells what would be removed.
pub fn sweep(shared: &Shared, is_dry_run: bool) -> Vec<Found> {
    let settings = shared.settings();
    let keeps_deleted = matches!(settings.mail_root.deletes(), Deletes::Trash(_));
    if settings.mail_root.expiry().is_off() && !keeps_deleted && shared.users.own_expiries().is_empty() {
        return Vec::new();
    }
    drop(settings);
    // Two sweeps at the same time would find each other's maildrops busy.
    let _only = shared.sweeping.lock();
    let users = shared.users.names().into_iter();
    let goes_on = |_: &UserName| !shared.connections.is_closing() && acting::has_own_ids();
    let look = |user: UserName| {
        // Without the account, its own rules and the place of its mail are not known.
        let Some(mailbox) = shared.users.known_mailbox(&user) else { return unknown(&user) };
        let login = Login { user, mailbox };
        if is_dry_run { count(shared, &login) } else { remove(shared, &login) }
    };
    users.take_while(goes_on).map(look).filter(|found| found.messages > 0 || found.outcome != Outcome::Done).collect()
}

/// The server itself, as it holds a maildrop's lock and as events name it.
fn itself(user: &UserName) -> Client {
    let origin = Origin::Process { pid: std::process::id(), uid: getuid().as_raw() };
    let client = Client::refused(origin, Service::Pop3);
    client.set_user(user.clone());
    client
}

fn failed(user: &UserName, reason: &Reason) -> Outcome {
    log::warn!("{user}: no look for expired messages: {reason}");
    Outcome::Failed
}

fn unknown(user: &UserName) -> Found {
    let outcome = failed(user, &Reason::Unavailable);
    Found { user: user.to_string(), messages: 0, octets: 0, outcome }
}

/// The rules for this user's messages.
fn rules(shared: &Shared, login: &Login) -> Expiry {
    shared.settings().mail_root.expiry().with(login.mailbox.expiry)
}

fn count(shared: &Shared, login: &Login) -> Found {
    let user = &login.user;
    let look = || {
        if rules(shared, login).is_off() {
            return Ok(Expired::default());
        }
        let (_acting, location) = shared.act_for_login(login)?;
        Ok(Maildrop::open_without_lock(location.clone())?.count_expired(&location))
    };
    let (Expired { messages, octets, .. }, outcome) = match look().map_err(Reason::Maildrop) {
        Ok(expired) if expired.messages == 0 => (expired, Outcome::Done),
        Ok(expired) => (expired, Outcome::Due),
        Err(reason) => (Expired::default(), failed(user, &reason)),
    };
    Found { user: user.to_string(), messages, octets, outcome }
}

fn remove(shared: &Shared, login: &Login) -> Found {
    let user = &login.user;
    let client = itself(user);
    let mut found = Found { user: user.to_string(), messages: 0, octets: 0, outcome: Outcome::Done };
    let mut failures = 0;
    if let Err(reason) = purge(shared, &client, login) {
        found.outcome = match reason {
            Reason::InUse(_) | Reason::InUseElsewhere(_) => Outcome::Busy,
            reason => failed(user, &reason),
        };
        return found;
    }
    while !rules(shared, login).is_off() {
        match remove_some(shared, &client, login) {
            Ok((expired, failed)) => {
                found.messages += expired.messages - failed.min(expired.messages);
                found.octets += if failed == 0 { expired.octets } else { 0 };
                failures += failed;
                if failed > 0 {
                    found.outcome = Outcome::Failed;
                }
                if !expired.more || failed > 0 || shared.connections.is_closing() {
                    break;
                }
            }
            Err(Reason::InUse(_) | Reason::InUseElsewhere(_)) => {
                found.outcome = Outcome::Busy;
                break;
            }
            Err(reason) => {
                found.outcome = failed(user, &reason);
                break;
            }
        }
    }
    if found.messages + failures > 0 {
        shared.events.emit(&client, What::Expired { removed: found.messages, failed: failures });
    }
    found
}

fn lock(shared: &Shared, client: &Client, location: &Location) -> Result<Lock, Reason> {
    let terms = Terms { patience: Duration::ZERO, shared: false };
    let holder = Holder { since: Instant::now(), ..client.into() };
    shared.locks.lock(location, holder, terms).map_err(|error: LockError| error.into())
}

/// Removes for good what sessions have deleted long ago.
fn purge(shared: &Shared, client: &Client, login: &Login) -> Result<(), Reason> {
    let Deletes::Trash(days) = shared.settings().mail_root.deletes() else { return Ok(()) };
    let before = seconds_since_1970().saturating_sub(u64::from(days) * 86_400);
    let (_acting, location) = shared.act_for_login(login).map_err(Reason::Maildrop)?;
    let all = maildrop::deletions(&location.behind_links().map_err(Reason::Maildrop)?).map_err(Reason::Maildrop)?;
    if all.iter().all(|kept| kept.batch.time >= before) {
        return Ok(());
    }
    let lock = lock(shared, client, &location)?;
    let removed = lock.purge(before).map_err(Reason::Maildrop)?;
    log::info!("{}: removed {removed} messages for good that were deleted more than {days} days ago", lock.user());
    Ok(())
}

/// Removes [`AT_ONCE`] messages at most. Returns them, and how many could not be removed.
fn remove_some(shared: &Shared, client: &Client, login: &Login) -> Result<(Expired, u64), Reason> {
    let (_acting, location) = shared.act_for_login(login).map_err(Reason::Maildrop)?;
    let lock = lock(shared, client, &location)?;
    let mut maildrop = lock.open().map_err(Reason::Maildrop)?;
    let expired = maildrop.mark_expired(lock.location(), AT_ONCE);
    if expired.messages == 0 {
        return Ok((expired, 0));
    }
    if !lock.is_exclusive() {
        return Err(Reason::Maildrop(io::Error::other("the maildrop cannot be locked against other servers")));
    }
    Ok((expired, lock.commit(maildrop).failed))
}
