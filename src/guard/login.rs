//! What one client may try before it has logged in.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use super::Admission;
use super::penalty::{Begun, CredentialsHash, Penalty};

/// The most lines that a client may send before it logs in. A mail program needs ten, if it starts TLS and tries a
/// mechanism or two.
const MAX_COMMANDS: u32 = 50;

/// The number of failed logins after which a connection is closed.
const MAX_FAILURES: u32 = 3;

/// How long a login waits while others from its address are verified: about as long as a login may have to wait until its
/// own verification begins.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// A login attempt whose credentials are being verified. If it is dropped without a call of [`PreLoginLimits::failed`] or
/// [`PreLoginLimits::succeeded`], it does not count.
#[derive(Debug)]
pub struct Attempt<'a> {
    admission: &'a Admission,
    hash: CredentialsHash,
    /// True if other attempts from the address may be waiting for the outcome.
    is_pending: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.is_pending {
            self.admission.guard.state.lock().penalties.finished(self.admission.source);
        }
    }
}

/// Why a login attempt is refused before its credentials are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptRefused {
    /// There were too many failed logins from the address.
    Penalty(Penalty),
    /// Other logins from the address are being verified, and that takes too long.
    Busy,
}

/// The limits for one client before its login, and how far it has used them up.
#[derive(Debug)]
pub struct PreLoginLimits<'a> {
    admission: &'a Admission,
    commands: u32,
    failures: u32,
}

impl<'a> PreLoginLimits<'a> {
    /// Creates the limits for a client that has just connected.
    #[must_use]
    pub fn new(admission: &'a Admission) -> Self {
        Self { admission, commands: 0, failures: 0 }
    }

    /// Counts a line from the client, whether or not it is a command. Returns false if there have been too many.
    #[must_use]
    pub fn allow_command(&mut self) -> bool {
        self.commands += 1;
        self.commands <= MAX_COMMANDS
    }

    /// Begins a login attempt, to be called before credentials are verified. Waits while too many others from the
    /// client's address are being verified. `secret` is what the client would send again if it repeated the same wrong
    /// credentials; `None` if the mechanism makes each attempt look different.
    ///
    /// # Errors
    /// If logins from the client's address have failed too often recently, or the wait takes too long.
    pub fn attempt(&self, name: &[u8], secret: Option<&[u8]>) -> Result<Attempt<'a>, AttemptRefused> {
        let admission @ Admission { guard, source, exempt } = self.admission;
        if *exempt {
            return Ok(Attempt { admission, hash: CredentialsHash(None), is_pending: false });
        }
        let hash = CredentialsHash(secret.map(|secret| guard.key.hash_one((source, name, secret))));
        let deadline = Instant::now() + MAX_WAIT;
        let mut state = guard.state.lock();
        loop {
            match state.penalties.begin(*source, hash, Instant::now()) {
                Begun::Pending => return Ok(Attempt { admission, hash, is_pending: true }),
                Begun::Known => return Ok(Attempt { admission, hash, is_pending: false }),
                Begun::Refused(penalty) => return Err(AttemptRefused::Penalty(penalty)),
                Begun::Wait(changed) => {
                    if changed.wait_until(&mut state, deadline).timed_out() {
                        return Err(AttemptRefused::Busy);
                    }
                }
            }
        }
    }

    /// Records that the credentials of `attempt` were wrong. Returns how long logins from the address are refused now,
    /// if they are.
    pub fn failed(&mut self, attempt: Attempt<'a>) -> Option<Penalty> {
        self.failures += 1;
        let Admission { guard, source, exempt } = attempt.admission;
        if *exempt {
            return None;
        }
        guard.state.lock().penalties.failed(*source, attempt.hash, Instant::now())
    }

    /// Records that the credentials of `attempt` were right.
    pub fn succeeded(&self, attempt: Attempt<'a>) {
        let Admission { guard, exempt, .. } = attempt.admission;
        if !exempt {
            guard.state.lock().penalties.succeeded(attempt.hash, Instant::now());
        }
    }

    /// Returns true if so many logins have failed on this connection that it has to be closed.
    #[must_use]
    pub fn failed_too_often(&self) -> bool {
        self.failures >= MAX_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::{Guard, Limits};
    use super::*;
    use std::sync::Arc;

    fn guard() -> Arc<Guard> {
        Guard::new(Limits { per_address: Some(1), ..Limits::default() })
    }

    fn admit(guard: &Arc<Guard>, address: &str) -> Admission {
        guard.admit(SocketAddr::new(address.parse().unwrap(), 1).into()).unwrap()
    }

    #[test]
    fn a_connection_from_an_exempt_address_may_fail_three_times_too() {
        let guard = guard();
        let admission = admit(&guard, "127.0.0.1");
        let mut limits = PreLoginLimits::new(&admission);
        for failures in 0..MAX_FAILURES {
            assert!(!limits.failed_too_often(), "{failures}");
            let attempt = limits.attempt(b"ana", Some(b"same")).unwrap();
            limits.failed(attempt);
        }
        assert!(limits.failed_too_often());
    }

    #[test]
    fn failures_count_across_the_connections_of_an_address() {
        let guard = guard();
        let fail = |address: &str, name: &str| {
            let admission = admit(&guard, address);
            let mut limits = PreLoginLimits::new(&admission);
            limits.attempt(name.as_bytes(), Some(b"guess")).map(|attempt| limits.failed(attempt))
        };
        assert!((0..100).any(|number| fail("192.0.2.1", &format!("user{number}")).is_err()));
        assert!(fail("192.0.2.1", "ana").is_err());
        assert!(fail("192.0.2.2", "ana").is_ok());
    }

    #[test]
    fn lines_before_login_are_limited() {
        let guard = guard();
        let admission = admit(&guard, "127.0.0.1");
        let mut limits = PreLoginLimits::new(&admission);
        assert!((0..MAX_COMMANDS).all(|_| limits.allow_command()));
        assert!(!limits.allow_command());
    }
}
