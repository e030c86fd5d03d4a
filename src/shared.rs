//! What all sessions share: settings, accounts, locks, counters and limits. Each part hides its own lock. The server
//! makes one [`Shared`] from the configuration; the sessions of both protocols get a reference to it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::auth::{Credentials, Users};
use crate::connections::{Connections, Protocol};
use crate::guard::{Guard, MinRate};
use crate::maildrop::{Locks, MailRoot};
use crate::stats::{Sample, Stats};
use crate::transform::Transform;

/// The values that the autologout timer can be set to, in seconds: at most a day; 0 means no timer.
pub const TIMEOUT_RANGE: (u64, u64) = (0, 86_400);

/// How long a client of either protocol may take to log in, counted from the connection. It is shorter than the
/// autologout timer of RFC 1939 section 3: that timer protects users, and a client that has not logged in is not a user
/// yet but occupies a connection slot.
pub const LOGIN_LIMIT: Duration = Duration::from_secs(60);

/// [`LOGIN_LIMIT`] while all connection slots are taken and other clients wait for one.
pub const LOGIN_LIMIT_WHEN_FULL: Duration = Duration::from_secs(10);

/// How long a client may take for its TLS handshake.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

/// One server's state.
#[derive(Debug)]
pub struct Shared {
    /// What PEEP may change.
    pub settings: Settings,
    /// Accounts.
    pub users: Users,
    /// The maildrops that have a session.
    pub locks: Arc<Locks>,
    /// Counters.
    pub stats: Stats,
    /// The open connections.
    pub connections: Arc<Connections>,
    /// The limits by address and before login.
    pub guard: Arc<Guard>,
    /// The slowest that a client may read.
    pub min_rate: Option<MinRate>,
    /// The admin.
    pub admin: Credentials,
    /// Only programs of root may log in as the admin.
    pub admin_is_roots: bool,
    /// The program that messages go through, if any.
    pub transform: Option<Transform>,
    /// True if passwords are accepted without TLS from other machines.
    pub allow_cleartext: bool,
}

impl Shared {
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

/// The settings that PEEP changes while the server runs.
#[derive(Debug)]
pub struct Settings {
    mail_root: RwLock<Arc<MailRoot>>,
    timeout: RwLock<Option<Duration>>,
}

impl Settings {
    /// The settings to start with.
    #[must_use]
    pub fn new(mail_root: MailRoot, timeout: Option<Duration>) -> Self {
        Self { mail_root: RwLock::new(Arc::new(mail_root)), timeout: RwLock::new(timeout) }
    }

    /// The directory of the users' directories.
    #[must_use]
    pub fn mail_root(&self) -> Arc<MailRoot> {
        Arc::clone(&self.mail_root.read())
    }

    /// Sets the mail directory for logins from now on.
    pub fn set_mail_root(&self, mail_root: MailRoot) {
        *self.mail_root.write() = Arc::new(mail_root);
    }

    /// How long a POP3 client may leave the server without a command.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        *self.timeout.read()
    }

    /// Sets the autologout timer of all sessions, the open ones too.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        *self.timeout.write() = timeout;
    }
}
