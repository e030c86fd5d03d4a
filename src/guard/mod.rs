//! Limits on clients that the server does not know yet: how many connections one address may have, what a client may try
//! before it has logged in, and how slowly it may read.
//!
//! - [`Guard`] knows the open connections and the failed logins of each address. Acceptors call [`Guard::admit`]; the
//!   session keeps the [`Admission`] until it ends.
//! - [`PreLoginLimits`] counts what one client does before it has logged in; sessions of both protocols ask it.
//! - `ban` knows the networks that an admin has banned.
//! - `penalty` decides when logins from an address are refused; `recent` is the bounded map that it uses.
//! - [`Pace`] measures how fast a client reads, against a [`MinRate`].
//!
//! Waiting would occupy a thread, so limits refuse rather than delay. The one exception is a login while others from the
//! same address are being verified, which waits up to 5 s.

mod ban;
mod login;
mod pace;
mod penalty;
mod recent;

use std::collections::HashMap;
use std::hash::RandomState;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};

use self::ban::Bans;
pub use self::ban::{Exclusion, Why};
pub use self::login::{Attempt, AttemptRefused, PreLoginLimits};
pub use self::pace::{MinRate, Pace};
use self::penalty::Penalties;
pub use self::penalty::Penalty;
use self::recent::Recent;
use crate::net::Origin;

/// After a log line about refused connections, how long further refusals of the same address are not logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The limits by address, as configured.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// The most connections from one address at once.
    pub per_address: Option<usize>,
    /// Networks that are exempt from all limits by address.
    pub trusted: Vec<IpNet>,
    /// True if loopback addresses are not exempt.
    pub loopback_too: bool,
}

impl Limits {
    /// Returns true if a client is exempt from the limits. A process of this machine has no address to limit.
    fn exempt(&self, origin: Origin) -> bool {
        let Some(address) = origin.ip() else { return true };
        origin.is_local() && !self.loopback_too || self.trusted.iter().any(|net| net.contains(&address))
    }
}

/// What the limits treat as one address: an IPv4 address, or an IPv6 network of 64 bits, because a single host can have
/// all addresses of such a network.
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

impl From<Source> for IpNet {
    fn from(Source(address): Source) -> Self {
        let prefix = if address.is_ipv6() { 64 } else { 32 };
        Self::new_assert(address, prefix)
    }
}

/// The open connections of each address, and the failed logins of each address.
#[derive(Debug, Default)]
pub struct Guard {
    limits: RwLock<Limits>,
    /// The key of the hashes of credentials. It is random and never leaves the process, so the credentials cannot be
    /// guessed from the hashes.
    key: RandomState,
    state: Mutex<State>,
    bans: Bans,
}

#[derive(Debug, Default)]
struct State {
    connections: HashMap<Source, usize>,
    penalties: Penalties,
    /// The addresses about which the log has said lately that they have too many connections.
    refusals_logged: Recent<Source, ()>,
}

impl Guard {
    /// Creates a guard with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits: RwLock::new(limits), ..Self::default() })
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits.read().clone()
    }

    /// Replaces the limits, for connections from now on.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.write() = limits;
    }

    /// Admits a connection. Returns `None` if its address has too many connections already. A process of this machine has no
    /// address, and no limit by address is in force for it.
    #[must_use]
    pub fn admit(self: &Arc<Self>, origin: Origin) -> Option<Admission> {
        let address = origin.ip().unwrap_or(Ipv6Addr::LOCALHOST.into());
        let (exempt, per_address) = {
            let limits = self.limits.read();
            (limits.exempt(origin), limits.per_address)
        };
        let source = Source::from(address);
        if !exempt {
            let mut state = self.state.lock();
            let open = state.connections.get(&source).copied().unwrap_or_default();
            if per_address.is_some_and(|most| open >= most) {
                return None;
            }
            state.connections.insert(source, open + 1);
        }
        Some(Admission { guard: Arc::clone(self), source, exempt })
    }

    /// Returns true if the log should say that a connection from `address` was refused: once in ten seconds for each
    /// address, so that a flood of connections does not flood the log.
    #[must_use]
    pub fn should_log_refusal(&self, address: IpAddr) -> bool {
        let (source, now) = (Source::from(address), Instant::now());
        let mut state = self.state.lock();
        let due = |(logged, ())| now.saturating_duration_since(logged) >= LOG_INTERVAL;
        let should_log = state.refusals_logged.get(&source).is_none_or(due);
        if should_log {
            state.refusals_logged.put(source, (), now);
        }
        should_log
    }
}

/// The admission of a connection by the [`Guard`]. The connection counts towards the limit of its address until this is
/// dropped.
#[derive(Debug)]
pub struct Admission {
    guard: Arc<Guard>,
    source: Source,
    exempt: bool,
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.exempt {
            return;
        }
        let mut state = self.guard.state.lock();
        if let Some(open) = state.connections.get_mut(&self.source) {
            *open -= 1;
            if *open == 0 {
                state.connections.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn guard(per_address: usize, trusted: &[&str]) -> Arc<Guard> {
        let trusted = trusted.iter().map(|net| net.parse().unwrap()).collect();
        Guard::new(Limits { per_address: Some(per_address), trusted, loopback_too: false })
    }

    fn admit(guard: &Arc<Guard>, address: &str) -> Option<Admission> {
        guard.admit(SocketAddr::new(address.parse().unwrap(), 1).into())
    }

    #[test]
    fn connections_from_one_address_are_limited() {
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
    fn ipv6_addresses_count_by_their_first_64_bits() {
        let guard = guard(1, &[]);
        let admission = admit(&guard, "2001:db8:1:2::1");
        assert!(admission.is_some());
        assert!(admit(&guard, "2001:db8:1:2:ffff::").is_none());
        assert!(admit(&guard, "2001:db8:1:3::1").is_some());
    }

    #[test]
    fn loopback_and_trusted_networks_are_exempt() {
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
    fn a_process_of_this_machine_has_no_limit_by_address() {
        let strict = Guard::new(Limits { per_address: Some(0), loopback_too: true, ..Limits::default() });
        assert!(strict.admit(Origin::Process { pid: 1, uid: 0 }).is_some());
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let guard = guard(1, &[]);
        drop(admit(&guard, "192.0.2.1"));
        drop(admit(&guard, "127.0.0.1"));
        assert!(guard.state.lock().connections.is_empty());
    }

    #[test]
    fn many_refusals_of_one_address_are_logged_once() {
        let guard = guard(1, &[]);
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!([guard.should_log_refusal(address), guard.should_log_refusal(address)], [true, false]);
        assert!(guard.should_log_refusal("192.0.2.2".parse().unwrap()));
    }
}
