//! A map that remembers the newest and never grows beyond its limit.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

/// The most entries.
pub(super) const MOST: usize = 16_384;

/// Values, each with the time it was put.
#[derive(Debug)]
pub(super) struct Recent<K, V>(HashMap<K, (Instant, V)>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq, V: Copy> Recent<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<(Instant, V)> {
        self.0.get(key).copied()
    }

    /// To change it without making it newer.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key).map(|(_, value)| value)
    }

    /// When there are too many the older half is forgotten, so that this costs little for each.
    pub(super) fn put(&mut self, key: K, value: V, now: Instant) {
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            let mut times: Vec<_> = self.0.values().map(|(time, _)| *time).collect();
            let (_, middle, _) = times.select_nth_unstable(MOST / 2);
            let middle = *middle;
            self.0.retain(|_, (time, _)| *time > middle);
        }
        self.0.insert(key, (now, value));
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_newest_are_kept() {
        let start = Instant::now();
        let mut recent = Recent::default();
        for number in 0..MOST as u64 * 3 {
            recent.put(number, (), start + Duration::from_millis(number));
            assert!(recent.0.len() <= MOST);
            assert!(recent.get(&number.saturating_sub(MOST as u64 / 4)).is_some(), "{number}");
        }
        assert!(recent.get(&0).is_none());
    }

    #[test]
    fn many_at_one_time_are_bounded_too() {
        let start = Instant::now();
        let mut recent = Recent::default();
        (0..MOST * 2).for_each(|number| recent.put(number, (), start));
        assert!(recent.0.len() <= MOST);
    }
}
