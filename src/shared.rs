//! What all sessions share: settings, accounts, locks, counters and limits. Each part hides its own lock. The server
//! makes one [`Shared`] from the configuration; the sessions of both protocols get a reference to it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::account_sessions::{AccountSession, AccountSessions, TooManySessions};
use crate::acting::{self, ActingAs};
use crate::auth::{Login, UserName, Users};
use crate::connections::{Connection, Connections, Protocol};
use crate::counting::Counting;
use crate::events::{Client, Events};
use crate::faults::Faults;
use crate::guard::{Guard, Limits};
use crate::hourly::Hourly;
use crate::maildrop::{Counts, Holder, Location, Lock, LockError, Locks, Terms, WhenBusy};
use crate::net::Origin;
use crate::reload::Reloader;
use crate::settings::Settings;
use crate::stats::{Sample, Stats};
use crate::transform::Transform;

/// How long a client of either protocol may take to log in, counted from the connection. It is shorter than the
/// autologout timer of RFC 1939 section 3: that timer protects users, and a client that has not logged in is not a user
/// yet but occupies a connection slot.
pub const LOGIN_LIMIT: Duration = Duration::from_secs(60);

/// [`LOGIN_LIMIT`] while all connection slots are taken and other clients wait for one.
pub const LOGIN_LIMIT_WHEN_FULL: Duration = Duration::from_secs(10);

/// How long a client may take for its TLS handshake.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

/// How often a login looks again whether a session can be taken over.
const TAKE_OVER_POLL: Duration = Duration::from_millis(50);

/// One server's state.
#[derive(Debug)]
pub struct Shared {
    /// When the server was started.
    pub started: Instant,
    settings: RwLock<Arc<Settings>>,
    /// Accounts.
    pub users: Users,
    /// The maildrops that have a session.
    pub locks: Arc<Locks>,
    sessions: Arc<AccountSessions>,
    /// How many messages maildrops have about which an admin has asked.
    pub counts: Counts,
    /// Passes events on to their listeners.
    pub events: Events,
    /// Counters.
    pub stats: Arc<Stats>,
    /// The open connections.
    pub connections: Arc<Connections>,
    /// The limits by address and before login.
    pub guard: Arc<Guard>,
    /// The users whose maildrops a report could not look at, and when that was logged.
    pub unreportable: Hourly,
    /// Held while expired messages are removed.
    pub sweeping: Mutex<()>,
    /// Determines the sizes of transformed messages.
    pub counting: Counting,
    /// The users whose messages do not go through the transform.
    untransformed: RwLock<BTreeSet<UserName>>,
    /// Requests reloads of the configuration.
    pub reloader: Reloader,
    /// The faults that testers have ordered; `None` if faults are not allowed.
    pub faults: Option<Faults>,
}

impl Shared {
    /// Makes the shared data of a server that starts with these settings.
    #[must_use]
    pub fn new(settings: Settings, users: Users, max_connections: usize, limits: Limits) -> Self {
        let stats = Arc::<Stats>::default();
        Self {
            started: Instant::now(),
            settings: RwLock::new(Arc::new(settings)),
            users,
            locks: Arc::default(),
            sessions: Arc::default(),
            counts: Counts::default(),
            events: Events::new(Arc::clone(&stats)),
            stats,
            connections: Connections::new(max_connections),
            guard: Guard::new(limits),
            unreportable: Hourly::default(),
            sweeping: Mutex::default(),
            counting: Counting::default(),
            untransformed: RwLock::default(),
            reloader: Reloader::default(),
            faults: None,
        }
    }

    /// Lets this thread act for a user, as the settings in force say, and returns the location of the user's maildrop. The
    /// maildrop may be used only as long as the [`ActingAs`] exists.
    ///
    /// # Errors
    /// If the user has no maildrop there, the mail directory cannot be opened, or the user's ids cannot be taken.
    pub fn act_for(&self, user: UserName) -> io::Result<(ActingAs, Location)> {
        let mailbox = self.users.mailbox(&user);
        self.act_for_login(&Login { user, mailbox })
    }

    /// Does the same for a user who has logged in.
    ///
    /// # Errors
    /// As of [`Shared::act_for`].
    pub fn act_for_login(&self, login: &Login) -> io::Result<(ActingAs, Location)> {
        let settings = self.settings();
        acting::act_for(settings.owners.as_deref(), &settings.mail_root, login)
    }

    /// Admits a login whose password is right, unless its account has too many sessions.
    ///
    /// # Errors
    /// As of [`AccountSessions::admit`].
    pub fn admit(&self, login: &Login) -> Result<AccountSession, TooManySessions> {
        let patience = self.settings.read().busy.terms().patience;
        self.sessions.admit(login, patience)
    }

    /// Locks a maildrop for a client that has logged in. If the settings say so, that ends an idle session of the same user.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn lock(&self, location: &Location, client: &Client) -> Result<Lock, LockError> {
        let busy = self.settings.read().busy;
        let terms = busy.terms();
        let lock = |terms| self.locks.lock_while(location, client.into(), terms, || !client.progress.is_kicked());
        let WhenBusy::TakeOver(idle) = busy.when else { return lock(terms) };
        let deadline = Instant::now() + terms.patience;
        let mut patience = Duration::ZERO;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let goes_on = !left.is_zero() && !client.progress.is_kicked();
            match lock(Terms { patience: patience.min(left), ..terms }) {
                Err(LockError::HeldBy(Holder { session: Some(session), .. })) if goes_on => {
                    let _ = self.connections.take_over(session, idle);
                }
                Err(LockError::HeldElsewhere(_)) if goes_on => {}
                result => return result,
            }
            patience = TAKE_OVER_POLL;
        }
    }

    /// Ends sessions as [`Connections::kick`] does, also those that wait for a maildrop.
    #[must_use]
    pub fn kick(&self, meant: impl Fn(&Connection) -> bool) -> Option<usize> {
        self.connections.kick(meant, || self.locks.wake_waiting())
    }

    /// The settings in force at this moment.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// The transform that a user's messages go through, if any.
    #[must_use]
    pub fn transform_of(&self, user: &UserName) -> Option<Arc<Transform>> {
        let transform = self.settings.read().transform.clone()?;
        (!self.untransformed.read().contains(user)).then_some(transform)
    }

    /// Says whether a user's messages go through the transform.
    pub fn set_transformed(&self, user: UserName, on: bool) {
        let mut untransformed = self.untransformed.write();
        let _ = if on { untransformed.remove(&user) } else { untransformed.insert(user) };
    }

    /// The users whose messages do not go through the transform.
    #[must_use]
    pub fn untransformed(&self) -> Vec<UserName> {
        self.untransformed.read().iter().cloned().collect()
    }

    /// The autologout timer in force. Sessions ask for it at each wait, so it is read without a copy of the settings.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.settings.read().timeout
    }

    /// Returns true if a POP3 connection from there is a proxy's, and begins with a PROXY header.
    #[must_use]
    pub fn is_proxy(&self, origin: Origin) -> bool {
        let settings = self.settings.read();
        !settings.proxies.is_empty()
            && origin.ip().is_some_and(|ip| settings.proxies.iter().any(|network| network.contains(&ip)))
    }

    /// Replaces the settings in force by a changed copy. Changes at the same time follow each other.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        let mut current = self.settings.write();
        let mut settings = Settings::clone(&current);
        change(&mut settings);
        *current = Arc::new(settings);
    }

    /// The counters and gauges at this moment.
    #[must_use]
    pub fn sample(&self) -> Sample<'_> {
        Sample {
            stats: &self.stats,
            connections: self.connections.count(Protocol::Pop3),
            logged_in: self.locks.users().len(),
        }
    }
}
