//! The settings in force: one immutable value, which a change replaces whole.
//!
//! A session reads the value once for a command or a login, so it never sees half of a change, and it keeps what it has
//! read for as long as it needs it: a mail directory, a transform or a certificate is released by its last user.
//! Settings that belong to one part of the server are not here: the part has them, and takes new ones by a method of its
//! own ([`crate::guard::Guard`], [`crate::connections::Connections`], [`crate::auth::Users`]).

use std::sync::Arc;
use std::time::Duration;

use crate::auth::Credentials;
use crate::guard::MinRate;
use crate::maildrop::MailRoot;
use crate::net::Certificates;
use crate::transform::Transform;

/// The values that the autologout timer can be set to, in seconds: at most a day; 0 means no timer.
pub const TIMEOUT_RANGE: (u64, u64) = (0, 86_400);

/// What sessions look up. A copy is cheap, because everything large is shared.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the users' directories, for logins from now on.
    pub mail_root: Arc<MailRoot>,
    /// The autologout timer: how long a POP3 client may leave the server without a command.
    pub timeout: Option<Duration>,
    /// The slowest that a client may read.
    pub min_rate: Option<MinRate>,
    /// Who may log in by PEEP.
    pub admin: Arc<Admin>,
    /// The program that messages go through, if any.
    pub transform: Option<Arc<Transform>>,
    /// What TLS needs, for connections from now on; without it there is no TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// PEEP is served with TLS.
    pub peep_tls: bool,
    /// True if passwords are accepted without TLS from other machines.
    pub allow_cleartext: bool,
}

/// Who may log in by PEEP.
#[derive(Debug)]
pub struct Admin {
    /// The admin's name and secret.
    pub credentials: Credentials,
    /// Nobody has set another admin than root:root.
    pub is_default: bool,
    /// Only programs of root may log in as the admin.
    pub is_roots: bool,
}
