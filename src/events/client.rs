//! The client of a session, as its events name it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::auth::UserName;
use crate::connections::{Progress, Service};
use crate::maildrop::Holder;
use crate::net::Origin;

/// A client, as events name it.
#[derive(Debug)]
pub struct Client {
    /// The session's number. A connection that was refused has no session.
    pub session: Option<u64>,
    /// Where the client has connected from.
    pub origin: Origin,
    /// The service that it has connected to.
    pub service: Service,
    /// When the session began.
    pub since: Instant,
    user: OnceLock<UserName>,
    tls: OnceLock<TlsVersion>,
    /// True for the session of a health check, as long as it does nothing that a health check does not do.
    is_health_check: AtomicBool,
    /// What the session is doing.
    pub progress: Progress,
}

impl Client {
    /// The client of the session with this number.
    #[must_use]
    pub fn new(session: u64, origin: Origin, service: Service) -> Self {
        let is_health_check = AtomicBool::new(matches!(origin, Origin::HealthCheck(_)));
        Self { session: Some(session), is_health_check, ..Self::refused(origin, service) }
    }

    /// A client that gets no session.
    #[must_use]
    pub fn refused(origin: Origin, service: Service) -> Self {
        Self {
            session: None,
            origin,
            service,
            since: Instant::now(),
            user: OnceLock::new(),
            tls: OnceLock::new(),
            is_health_check: AtomicBool::new(false),
            progress: Progress::default(),
        }
    }

    /// The user who has logged in, if one has.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.get().map(UserName::as_str)
    }

    /// The name of the user who has logged in, if one has.
    #[must_use]
    pub fn user_name(&self) -> Option<&UserName> {
        self.user.get()
    }

    /// Notes who has logged in.
    pub fn set_user(&self, user: UserName) {
        let _ = self.user.set(user);
    }

    /// Returns true if a proxy only checks the server. That is no client, so its session is neither counted nor told of.
    #[must_use]
    pub fn is_health_check(&self) -> bool {
        self.is_health_check.load(Ordering::Relaxed)
    }

    /// Notes that what began as a health check goes on as a client does.
    pub(super) fn set_no_health_check(&self) {
        self.is_health_check.store(false, Ordering::Relaxed);
    }

    /// The version of TLS, if it is in use.
    #[must_use]
    pub fn tls(&self) -> Option<TlsVersion> {
        self.tls.get().copied()
    }

    /// Notes what the TLS handshake has agreed on.
    pub fn set_tls(&self, agreed: &str) {
        let is_1_2 = agreed.starts_with("TLSv1.2");
        let _ = self.tls.set(if is_1_2 { TlsVersion::V1_2 } else { TlsVersion::V1_3 });
    }
}

impl From<&Client> for Holder {
    fn from(&Client { session, origin, since, .. }: &Client) -> Self {
        Self { session, origin, since }
    }
}

/// `#17 192.0.2.4:5555`, or where the client comes from alone.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(session) = self.session {
            write!(f, "#{session} ")?;
        }
        self.origin.fmt(f)
    }
}

/// The versions of TLS that the server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// TLS 1.2
    V1_2,
    /// TLS 1.3
    V1_3,
}

impl TlsVersion {
    /// The version's number.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}
