//! The settings in force: one immutable value, which each change replaces by a new one.
//!
//! A session reads the value once for each command or login, so it never sees a part of a change. It can use what it has
//! read for as long as it needs to; a mail directory, a transform or a certificate is released by its last user.
//!
//! Settings that belong to a single part of the server are not here. That part has them, with a method to change them
//! ([`crate::guard::Guard`], [`crate::connections::Connections`], [`crate::auth::Users`]).

mod in_force;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::acting::Owners;
use crate::auth::Credentials;
use crate::guard::MinRate;
use crate::maildrop::{Busy, MailRoot};
use crate::net::Certificates;
use crate::transform::Transform;
pub use in_force::{InForce, Setting};

/// The values that the autologout timer can be set to, in seconds: at most a day; 0 means no timer.
pub const TIMEOUT_RANGE: (u64, u64) = (0, 86_400);

/// The settings that sessions use. A copy is cheap, because everything large is shared.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The mail directory, for new logins.
    pub mail_root: Arc<MailRoot>,
    /// The ids that sessions take; `None` if they keep the server's.
    pub owners: Option<Arc<Owners>>,
    /// What a login to a maildrop does that has a session.
    pub busy: Busy,
    /// The autologout timer: how long a POP3 client may send no command.
    pub timeout: Option<Duration>,
    /// The lowest rate at which a client may read.
    pub min_rate: Option<MinRate>,
    /// The admin, who may log in by PEEP.
    pub admin: Arc<Admin>,
    /// The program that messages go through, if any.
    pub transform: Option<Arc<Transform>>,
    /// The certificates for new connections. Without them there is no TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// True if PEEP is served with TLS.
    pub peep_tls: bool,
    /// True if passwords are accepted without TLS from other machines.
    pub allow_cleartext: bool,
    /// The networks of proxies, whose POP3 connections begin with a PROXY header.
    pub proxies: Vec<IpNet>,
    /// True if TLS between a client and a proxy counts as TLS.
    pub proxy_tls: bool,
    /// The settings of all parts of the server, to be shown. PEEP may have changed some since.
    pub in_force: InForce,
}

/// The admin, who may log in by PEEP.
#[derive(Debug)]
pub struct Admin {
    /// The admin's name and secret.
    pub credentials: Credentials,
    /// The names and secrets of those who may ask and follow, but change nothing.
    pub viewers: Vec<Credentials>,
    /// True if it is the default admin, root:root.
    pub is_default: bool,
    /// True if only programs of root may log in as the admin.
    pub is_roots: bool,
}
