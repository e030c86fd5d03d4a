//! What strangers may do: how many connections one address has, what a client may try before it has logged in, how
//! slowly it may read. Nobody is kept waiting here, which would hold a thread, but attempts to log in at the same time as
//! others from their address, and these not for long.

mod pace;
mod penalty;
mod recent;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::Mutex;

pub use self::pace::{MinRate, Pace};
pub use self::penalty::Penalty;
use self::penalty::{Begun, Penalties, Tried};
use self::recent::Recent;

/// Lines that a client may send before it logs in; a mail program needs ten, with TLS and a mechanism or two tried.
const COMMANDS: u32 = 50;

/// Failed logins on one connection; with the last of them it is closed.
const FAILURES: u32 = 3;

/// How long an attempt to log in waits for others from its address to be decided. About as long as a login waits to be
/// verified.
const UNDECIDED: Duration = Duration::from_secs(5);

/// How long the log says nothing more of an address that has too many connections.
const SILENCE: Duration = Duration::from_secs(10);

/// What an address is allowed.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// The most connections from one address at once.
    pub per_address: Option<usize>,
    /// Networks that no limit by address holds for.
    pub trusted: Vec<IpNet>,
    /// They hold for loopback, too.
    pub loopback_too: bool,
}

/// Whom the limits see as one: an IPv4 address, or an IPv6 network of 64 bits, of which a single host can have all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            v4 => v4,
        })
    }
}

/// Knows all addresses that are here, and those that have failed to log in.
#[derive(Debug, Default)]
pub struct Guard {
    limits: Limits,
    /// Of this process only: what is hashed cannot be found out from the hash.
    key: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: HashMap<Source, usize>,
    penalties: Penalties,
    /// Of whom the log has said that there were too many connections.
    told: Recent<Source, ()>,
}

impl Guard {
    /// With these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, ..Self::default() })
    }

    /// Lets a client in, unless there are too many from its address.
    #[must_use]
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Visit> {
        let exempt = self.exempts(address.to_canonical());
        let source = Source::from(address);
        if !exempt {
            let mut state = self.state.lock();
            let here = state.connections.get(&source).copied().unwrap_or_default();
            if self.limits.per_address.is_some_and(|most| here >= most) {
                return None;
            }
            state.connections.insert(source, here + 1);
        }
        Some(Visit { guard: Arc::clone(self), source, exempt })
    }

    /// Whether the log should tell that a client was not let in: not of each one when there are many.
    #[must_use]
    pub fn is_news(&self, address: IpAddr) -> bool {
        let (source, now) = (Source::from(address), Instant::now());
        let mut state = self.state.lock();
        let news = state.told.get(&source).is_none_or(|(told, ())| now.saturating_duration_since(told) >= SILENCE);
        if news {
            state.told.put(source, (), now);
        }
        news
    }

    fn exempts(&self, address: IpAddr) -> bool {
        let loopback = address.is_loopback() && !self.limits.loopback_too;
        loopback || self.limits.trusted.iter().any(|net| net.contains(&address))
    }
}

/// A client that was let in, as long as it is there.
#[derive(Debug)]
pub struct Visit {
    guard: Arc<Guard>,
    source: Source,
    exempt: bool,
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.exempt {
            return;
        }
        let mut state = self.guard.state.lock();
        if let Some(here) = state.connections.get_mut(&self.source) {
            *here -= 1;
            if *here == 0 {
                state.connections.remove(&self.source);
            }
        }
    }
}

/// Credentials that are being looked at. Dropped without an outcome, the attempt does not count.
#[derive(Debug)]
pub struct Attempt<'a> {
    visit: &'a Visit,
    tried: Tried,
    /// Others from the address may wait for the outcome.
    is_undecided: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.is_undecided {
            self.visit.guard.state.lock().penalties.decided(self.visit.source);
        }
    }
}

/// Why credentials are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotLookedAt {
    /// There were too many failed logins from the address.
    Penalty(Penalty),
    /// Others from the address are being looked at, and that takes too long.
    Busy,
}

/// A client before its login: what it has tried on this connection.
#[derive(Debug)]
pub struct Probation<'a> {
    visit: &'a Visit,
    commands: u32,
    failures: u32,
}

impl<'a> Probation<'a> {
    /// It has tried nothing yet.
    #[must_use]
    pub fn new(visit: &'a Visit) -> Self {
        Self { visit, commands: 0, failures: 0 }
    }

    /// One more line from the client, whatever it says. False when it is one too many.
    #[must_use]
    pub fn may_go_on(&mut self) -> bool {
        self.commands += 1;
        self.commands <= COMMANDS
    }

    /// To be asked before credentials are looked at, which may have to wait until others from the client's address are
    /// decided. `secret` is what the client will send again if it is wrong and is tried again; `None` when the mechanism
    /// makes each attempt look different.
    ///
    /// # Errors
    /// When the client's address has failed too often of late, or others from it are not decided in time.
    pub fn attempt(&self, name: &[u8], secret: Option<&[u8]>) -> Result<Attempt<'a>, NotLookedAt> {
        let visit @ Visit { guard, source, exempt } = self.visit;
        let tried = Tried(secret.map(|secret| guard.key.hash_one((source, name, secret))));
        if *exempt {
            return Ok(Attempt { visit, tried, is_undecided: false });
        }
        let deadline = Instant::now() + UNDECIDED;
        let mut state = guard.state.lock();
        loop {
            match state.penalties.begin(*source, tried, Instant::now()) {
                Begun::Undecided => return Ok(Attempt { visit, tried, is_undecided: true }),
                Begun::Known => return Ok(Attempt { visit, tried, is_undecided: false }),
                Begun::Refused(penalty) => return Err(NotLookedAt::Penalty(penalty)),
                Begun::Wait(changed) => {
                    if changed.wait_until(&mut state, deadline).timed_out() {
                        return Err(NotLookedAt::Busy);
                    }
                }
            }
        }
    }

    /// The credentials were wrong.
    pub fn failed(&mut self, attempt: Attempt<'a>) {
        self.failures += 1;
        let Visit { guard, source, exempt } = attempt.visit;
        if !exempt {
            guard.state.lock().penalties.failed(*source, attempt.tried, Instant::now());
        }
    }

    /// The credentials were right.
    pub fn succeeded(&self, attempt: Attempt<'a>) {
        let Visit { guard, exempt, .. } = attempt.visit;
        if !exempt {
            guard.state.lock().penalties.succeeded(attempt.tried, Instant::now());
        }
    }

    /// Whether the client has had all its tries.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.failures >= FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(per_address: usize, trusted: &[&str]) -> Arc<Guard> {
        let trusted = trusted.iter().map(|net| net.parse().unwrap()).collect();
        Guard::new(Limits { per_address: Some(per_address), trusted, loopback_too: false })
    }

    fn admit(guard: &Arc<Guard>, address: &str) -> Option<Visit> {
        guard.admit(address.parse().unwrap())
    }

    #[test]
    fn an_address_has_so_many_connections() {
        let guard = guard(2, &[]);
        let first = admit(&guard, "192.0.2.1").unwrap();
        let _second = admit(&guard, "192.0.2.1").unwrap();
        assert!(admit(&guard, "192.0.2.1").is_none());
        assert!(admit(&guard, "::ffff:192.0.2.1").is_none());
        assert!(admit(&guard, "192.0.2.2").is_some());
        drop(first);
        assert!(admit(&guard, "192.0.2.1").is_some());
    }

    #[test]
    fn ipv6_counts_by_64_bits() {
        let guard = guard(1, &[]);
        let visit = admit(&guard, "2001:db8:1:2::1");
        assert!(visit.is_some());
        assert!(admit(&guard, "2001:db8:1:2:ffff::").is_none());
        assert!(admit(&guard, "2001:db8:1:3::1").is_some());
    }

    #[test]
    fn loopback_and_the_trusted_are_exempt() {
        let unlimited = guard(0, &["10.0.0.0/8", "2001:db8::/32"]);
        for address in ["127.0.0.1", "127.9.9.9", "::1", "10.1.2.3", "::ffff:10.1.2.3", "2001:db8:5::1"] {
            assert!(admit(&unlimited, address).is_some(), "{address}");
        }
        for address in ["11.0.0.1", "2001:db9::1"] {
            assert!(admit(&unlimited, address).is_none(), "{address}");
        }
        let strict = Guard::new(Limits { per_address: Some(0), loopback_too: true, ..Limits::default() });
        assert!(admit(&strict, "127.0.0.1").is_none());
        assert!(admit(&Guard::new(Limits::default()), "11.0.0.1").is_some());
    }

    #[test]
    fn an_address_that_has_gone_is_forgotten() {
        let guard = guard(1, &[]);
        drop(admit(&guard, "192.0.2.1"));
        drop(admit(&guard, "127.0.0.1"));
        assert!(guard.state.lock().connections.is_empty());
    }

    #[test]
    fn the_log_is_told_once_of_many() {
        let guard = guard(1, &[]);
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!([guard.is_news(address), guard.is_news(address)], [true, false]);
        assert!(guard.is_news("192.0.2.2".parse().unwrap()));
    }

    #[test]
    fn three_failures_are_all_for_the_trusted_too() {
        let guard = guard(1, &[]);
        let visit = admit(&guard, "127.0.0.1").unwrap();
        let mut probation = Probation::new(&visit);
        for failures in 0..FAILURES {
            assert!(!probation.is_over(), "{failures}");
            let attempt = probation.attempt(b"ana", Some(b"same")).unwrap();
            probation.failed(attempt);
        }
        assert!(probation.is_over());
    }

    #[test]
    fn an_address_is_remembered_from_connection_to_connection() {
        let guard = guard(1, &[]);
        let fail = |address: &str, name: &str| {
            let visit = admit(&guard, address).unwrap();
            let mut probation = Probation::new(&visit);
            probation.attempt(name.as_bytes(), Some(b"guess")).map(|attempt| probation.failed(attempt))
        };
        assert!((0..100).any(|number| fail("192.0.2.1", &format!("user{number}")).is_err()));
        assert!(fail("192.0.2.1", "ana").is_err());
        assert!(fail("192.0.2.2", "ana").is_ok());
    }

    #[test]
    fn commands_before_login_are_counted() {
        let guard = guard(1, &[]);
        let visit = admit(&guard, "127.0.0.1").unwrap();
        let mut probation = Probation::new(&visit);
        assert!((0..COMMANDS).all(|_| probation.may_go_on()));
        assert!(!probation.may_go_on());
    }
}
