//! A map that never grows beyond its limit: when it is full, it forgets the older half of its entries.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

/// The most entries of a map.
const MAX: usize = 16_384;

/// Each value is kept with the time at which it was put.
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

    /// Gives access to a value to change it; its time stays.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key).map(|(_, value)| value)
    }

    /// Puts a value. If the map is full, the older half is forgotten; doing that seldom keeps the average cost low.
    pub(super) fn put(&mut self, key: K, value: V, now: Instant) {
        if self.0.len() >= MAX && !self.0.contains_key(&key) {
            let mut times: Vec<_> = self.0.values().map(|(time, _)| *time).collect();
            let (_, middle, _) = times.select_nth_unstable(MAX / 2);
            let middle = *middle;
            self.0.retain(|_, (time, _)| *time > middle);
        }
        self.0.insert(key, (now, value));
    }

    /// All entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, (_, value))| (key, value))
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
    fn the_newest_entries_are_kept() {
        let start = Instant::now();
        let mut recent = Recent::default();
        for number in 0..MAX as u64 * 3 {
            recent.put(number, (), start + Duration::from_millis(number));
            assert!(recent.0.len() <= MAX);
            assert!(recent.get(&number.saturating_sub(MAX as u64 / 4)).is_some(), "{number}");
        }
        assert!(recent.get(&0).is_none());
    }

    #[test]
    fn entries_with_the_same_time_are_limited_too() {
        let start = Instant::now();
        let mut recent = Recent::default();
        (0..MAX * 2).for_each(|number| recent.put(number, (), start));
        assert!(recent.0.len() <= MAX);
    }
}
