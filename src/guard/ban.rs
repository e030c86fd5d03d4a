//! Networks that an admin has banned: POP3 connections from them are refused. PEEP is not concerned, so that an admin who
//! bans the own address can lift the ban again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::RwLock;

use super::Guard;

/// Banned networks. As long as there are none, a look-up costs one atomic load.
#[derive(Debug, Default)]
pub(super) struct Bans {
    any: AtomicBool,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// When each ban ends; `None` for one that lasts until it is lifted.
    ends: HashMap<IpNet, Option<Instant>>,
    /// The prefix lengths of these networks, each once. An address is looked up with each of them, so that the cost
    /// does not grow with the number of bans.
    prefixes: Vec<u8>,
}

impl Table {
    /// Removes the bans that are over, and those that are not `kept`.
    fn retain(&mut self, now: Instant, kept: impl Fn(&IpNet) -> bool) {
        self.ends.retain(|network, end| end.is_none_or(|end| now < end) && kept(network));
        self.prefixes = self.ends.keys().map(IpNet::prefix_len).collect();
        self.prefixes.sort_unstable();
        self.prefixes.dedup();
    }
}

impl Bans {
    /// Bans a network, for a time or until the ban is lifted. This replaces an earlier ban of the same network.
    pub(super) fn add(&self, network: IpNet, lasts: Option<Duration>, now: Instant) {
        let mut table = self.table.write();
        table.ends.insert(network.trunc(), lasts.map(|lasts| now + lasts));
        table.retain(now, |_| true);
        self.any.store(true, Ordering::Release);
    }

    /// Lifts a ban. Returns false if there is none of this network.
    pub(super) fn lift(&self, network: IpNet, now: Instant) -> bool {
        let mut table = self.table.write();
        table.retain(now, |_| true);
        let is_banned = table.ends.contains_key(&network.trunc());
        table.retain(now, |other| *other != network.trunc());
        self.any.store(!table.ends.is_empty(), Ordering::Release);
        is_banned
    }

    /// Returns true if the address is in a banned network.
    pub(super) fn cover(&self, address: IpAddr, now: Instant) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let (address, table) = (address.to_canonical(), self.table.read());
        let bans = |prefix: &u8| {
            let network = IpNet::new(address, *prefix).ok()?.trunc();
            table.ends.get(&network).map(|end| end.is_none_or(|end| now < end))
        };
        table.prefixes.iter().filter_map(bans).any(|is_in_force| is_in_force)
    }

    /// The bans in force, each with the time that is left.
    pub(super) fn all(&self, now: Instant) -> Vec<(IpNet, Option<Duration>)> {
        let left = |end: &Option<Instant>| match end {
            None => Some(None),
            Some(end) => Some(end.saturating_duration_since(now)).filter(|left| !left.is_zero()).map(Some),
        };
        self.table.read().ends.iter().filter_map(|(network, end)| Some((*network, left(end)?))).collect()
    }
}

/// A network from which clients are refused at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// The network.
    pub network: IpNet,
    /// How much longer; `None` if it lasts until it is lifted.
    pub left: Option<Duration>,
    /// Why.
    pub why: Why,
}

/// Why clients are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// An admin has banned them: their POP3 connections are refused.
    Banned,
    /// Too many of their logins have failed: their logins are refused.
    Penalty,
}

impl Guard {
    /// Bans a network, for a time or until the ban is lifted.
    pub fn ban(&self, network: IpNet, lasts: Option<Duration>) {
        self.bans.add(network, lasts, Instant::now());
    }

    /// Lifts the ban of this network, and the penalty if it is the network of one. Returns false if there is neither.
    #[must_use]
    pub fn lift(&self, network: IpNet) -> bool {
        let now = Instant::now();
        let was_banned = self.bans.lift(network, now);
        self.state.lock().penalties.lift(network.trunc(), now) || was_banned
    }

    /// Returns true if POP3 connections from this address are refused.
    #[must_use]
    pub fn is_banned(&self, address: IpAddr) -> bool {
        self.bans.cover(address, Instant::now())
    }

    /// All bans and penalties in force, sorted by network.
    #[must_use]
    pub fn exclusions(&self) -> Vec<Exclusion> {
        let now = Instant::now();
        let bans = self.bans.all(now).into_iter().map(|(network, left)| Exclusion { network, left, why: Why::Banned });
        let penalties = self.state.lock().penalties.in_force(now);
        let penalties =
            penalties.into_iter().map(|(network, left)| Exclusion { network, left: Some(left), why: Why::Penalty });
        let mut all: Vec<_> = bans.chain(penalties).collect();
        all.sort_unstable_by_key(|exclusion| (exclusion.network, exclusion.why));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn network(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn covers(bans: &Bans, address: &str, now: Instant) -> bool {
        bans.cover(address.parse().unwrap(), now)
    }

    #[test]
    fn a_ban_covers_its_network_only() {
        let (bans, now) = (Bans::default(), Instant::now());
        assert!(!covers(&bans, "192.0.2.1", now));
        for banned in ["192.0.2.77/24", "198.51.100.7/32", "2001:db8::1/32"] {
            bans.add(network(banned), None, now);
        }
        for inside in ["192.0.2.1", "::ffff:192.0.2.255", "198.51.100.7", "2001:db8:ffff::1"] {
            assert!(covers(&bans, inside, now), "{inside}");
        }
        for outside in ["192.0.3.1", "198.51.100.8", "2001:db9::1", "127.0.0.1", "::1"] {
            assert!(!covers(&bans, outside, now), "{outside}");
        }
        bans.add(network("0.0.0.0/0"), None, now);
        assert!(covers(&bans, "127.0.0.1", now) && !covers(&bans, "::1", now));
    }

    #[test]
    fn a_ban_ends_in_time() {
        let (bans, now) = (Bans::default(), Instant::now());
        bans.add(network("192.0.2.1/32"), Some(MINUTE), now);
        bans.add(network("192.0.2.2/32"), None, now);
        assert_eq!(bans.all(now).len(), 2);
        assert!(covers(&bans, "192.0.2.1", now + MINUTE / 2));
        assert!(!covers(&bans, "192.0.2.1", now + MINUTE));
        assert_eq!(bans.all(now + MINUTE), [(network("192.0.2.2/32"), None)]);
        assert!(!bans.lift(network("192.0.2.1/32"), now + MINUTE), "it was over");
        assert_eq!(bans.table.read().ends.len(), 1);
    }

    #[test]
    fn a_later_ban_replaces_an_earlier_one() {
        let (bans, now) = (Bans::default(), Instant::now());
        bans.add(network("192.0.2.0/24"), None, now);
        bans.add(network("192.0.2.9/24"), Some(MINUTE), now);
        assert_eq!(bans.all(now), [(network("192.0.2.0/24"), Some(MINUTE))]);
    }

    #[test]
    fn a_lifted_ban_covers_nothing() {
        let (bans, now) = (Bans::default(), Instant::now());
        bans.add(network("192.0.2.0/24"), None, now);
        bans.add(network("192.0.2.1/32"), None, now);
        assert!(!bans.lift(network("192.0.2.0/25"), now));
        assert!(bans.lift(network("192.0.2.0/24"), now));
        assert!(covers(&bans, "192.0.2.1", now) && !covers(&bans, "192.0.2.2", now));
        assert!(bans.lift(network("192.0.2.1/32"), now));
        assert!(!covers(&bans, "192.0.2.1", now) && !bans.any.load(Ordering::Acquire));
    }
}
