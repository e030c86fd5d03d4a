//! The orders in force.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Order, What};

/// The orders in force. Each is there until it is used up, its time is over, or it is cleared.
#[derive(Debug, Default)]
pub struct Faults {
    orders: Mutex<Orders>,
}

#[derive(Debug, Default)]
struct Orders {
    last_id: u64,
    in_force: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    order: Order,
    /// How often the fault is still to be given; `None` for any number.
    left: Option<u32>,
    ends: Option<Instant>,
    given: u64,
}

impl Entry {
    fn is_in_force(&self, now: Instant) -> bool {
        self.left != Some(0) && self.ends.is_none_or(|end| now < end)
    }
}

/// An order in force, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The number that clears it.
    pub id: u64,
    /// The order.
    pub order: Order,
    /// How often the fault is still to be given; `None` for any number.
    pub left: Option<u32>,
    /// How much longer it is given; `None` until it is cleared.
    pub time_left: Option<Duration>,
    /// How often it has been given.
    pub given: u64,
}

impl Faults {
    /// Takes these orders at `now`.
    pub fn new(orders: impl IntoIterator<Item = Order>, now: Instant) -> Self {
        let faults = Self::default();
        for order in orders {
            faults.add(order, now);
        }
        faults
    }

    /// Takes an order. Returns its number.
    pub fn add(&self, order: Order, now: Instant) -> u64 {
        let mut orders = self.orders.lock();
        orders.last_id += 1;
        let ends = (order.seconds > 0).then(|| now + Duration::from_secs(order.seconds.into()));
        let left = (order.count > 0).then_some(order.count);
        let id = orders.last_id;
        orders.in_force.retain(|entry| entry.is_in_force(now));
        orders.in_force.push(Entry { id, order, left, ends, given: 0 });
        id
    }

    /// Clears the order with this number, or all. Returns how many were in force. A session that has the fault keeps it.
    pub fn clear(&self, id: Option<u64>, now: Instant) -> usize {
        let mut orders = self.orders.lock();
        orders.in_force.retain(|entry| entry.is_in_force(now));
        let before = orders.in_force.len();
        orders.in_force.retain(|entry| id.is_some_and(|id| entry.id != id));
        before - orders.in_force.len()
    }

    /// The orders in force, by their numbers.
    #[must_use]
    pub fn in_force(&self, now: Instant) -> Vec<InForce> {
        let shown = |entry: &Entry| InForce {
            id: entry.id,
            order: entry.order.clone(),
            left: entry.left,
            time_left: entry.ends.map(|end| end.saturating_duration_since(now)),
            given: entry.given,
        };
        self.orders.lock().in_force.iter().filter(|entry| entry.is_in_force(now)).map(shown).collect()
    }

    /// Gives a client the fault of the first order for it that is meant, and counts that. Returns the order's number, too.
    pub(super) fn give(
        &self,
        address: Option<IpAddr>,
        user: Option<&str>,
        meant: impl Fn(What) -> bool,
        now: Instant,
    ) -> Option<(u64, What)> {
        let mut orders = self.orders.lock();
        let is_due = |entry: &&mut Entry| {
            meant(entry.order.what) && entry.order.who.includes(address, user) && entry.is_in_force(now)
        };
        let entry = orders.in_force.iter_mut().find(is_due)?;
        entry.left = entry.left.map(|left| left - 1);
        entry.given += 1;
        Some((entry.id, entry.order.what))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn faults(orders: &[&str], now: Instant) -> Faults {
        Faults::new(orders.iter().map(|order| order.parse().unwrap()), now)
    }

    fn given(faults: &Faults, user: &str, kind: Kind, now: Instant) -> Option<u64> {
        let address = Some("192.0.2.4".parse().unwrap());
        faults.give(address, Some(user), |what| what.kind == kind, now).map(|(id, _)| id)
    }

    #[test]
    fn a_fault_is_given_as_often_as_it_was_ordered() {
        let now = Instant::now();
        let faults = faults(&["ana auth 2 0", "192.0.2.0/24 auth 1 0"], now);
        assert_eq!(given(&faults, "bob", Kind::InUse, now), None);
        assert_eq!(given(&faults, "ana", Kind::Auth, now), Some(1));
        assert_eq!(faults.in_force(now)[0].left, Some(1));
        assert_eq!(given(&faults, "bob", Kind::Auth, now), Some(2));
        assert_eq!(given(&faults, "bob", Kind::Auth, now), None);
        assert_eq!(given(&faults, "ana", Kind::Auth, now), Some(1));
        assert_eq!(given(&faults, "ana", Kind::Auth, now), None);
        assert_eq!(faults.in_force(now), []);
    }

    #[test]
    fn a_fault_is_given_until_its_time_is_over() {
        let now = Instant::now();
        let faults = faults(&["* no-top 0 60", "* no-uidl 0 0"], now);
        let later = now + Duration::from_secs(59);
        assert_eq!(given(&faults, "ana", Kind::NoTop, later), Some(1));
        let listed = faults.in_force(later);
        assert_eq!((listed[0].time_left, listed[0].given), (Some(Duration::from_secs(1)), 1));
        assert_eq!((listed[1].time_left, listed[1].left), (None, None));
        let over = now + Duration::from_secs(60);
        assert_eq!(given(&faults, "ana", Kind::NoTop, over), None);
        assert_eq!(given(&faults, "ana", Kind::NoUidl, over + Duration::from_secs(1_000_000)), Some(2));
        assert_eq!(faults.in_force(over).len(), 1);
        assert_eq!(faults.clear(Some(1), over), 0, "its time was over");
    }

    #[test]
    fn a_cleared_fault_is_not_given() {
        let now = Instant::now();
        let faults = faults(&["* no-top 0 0", "* no-uidl 0 0", "* auth 0 0"], now);
        assert_eq!((faults.clear(Some(2), now), faults.clear(Some(2), now), faults.clear(Some(9), now)), (1, 0, 0));
        assert_eq!(given(&faults, "ana", Kind::NoUidl, now), None);
        assert_eq!(given(&faults, "ana", Kind::NoTop, now), Some(1));
        assert_eq!((faults.clear(None, now), faults.clear(None, now)), (2, 0));
        assert_eq!(faults.add("* auth 1 1".parse().unwrap(), now), 4, "no number is used again");
    }
}
