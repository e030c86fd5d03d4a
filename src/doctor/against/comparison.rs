//! Which unique-ids and sizes two servers have in common.

use std::collections::HashMap;

use super::OldMessage;

/// How many differences of each kind are named.
const EXAMPLES: usize = 5;

/// What stays and what does not. Messages are matched by their unique-ids, as clients do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::doctor) struct Comparison {
    /// How many messages the other server has.
    pub(in crate::doctor) messages: u64,
    /// Unique-ids that both servers have.
    pub(in crate::doctor) same_ids: u64,
    /// Unique-ids that only the other server has.
    pub(in crate::doctor) lost_ids: Differences,
    /// Unique-ids that only this server has. Clients fetch these messages, perhaps once more.
    pub(in crate::doctor) new_ids: Differences,
    /// Of the messages with the same unique-id, those with the same size.
    pub(in crate::doctor) same_sizes: u64,
    /// Those with another size.
    pub(in crate::doctor) other_sizes: Differences,
}

/// How many differences there are, and the first few.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::doctor) struct Differences {
    pub(in crate::doctor) count: u64,
    pub(in crate::doctor) examples: Vec<Difference>,
}

/// A message that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doctor) struct Difference {
    /// Its number on the server that has it; on the other server, if both have it.
    pub(in crate::doctor) number: u64,
    /// Its unique-id, or its size, on the other server.
    pub(in crate::doctor) old: Option<String>,
    /// The same on this server.
    pub(in crate::doctor) here: Option<String>,
}

impl Differences {
    fn add(&mut self, difference: impl FnOnce() -> Difference) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(difference());
        }
    }
}

impl Comparison {
    /// Compares the messages of the other server with those here, which are unique-ids and octets.
    pub(super) fn new(old: &[OldMessage], here: &[(Vec<u8>, u64)]) -> Self {
        let text = |id: &[u8]| Some(String::from_utf8_lossy(id).into_owned());
        let mut left: HashMap<&[u8], u64> = here.iter().map(|(id, octets)| (&id[..], *octets)).collect();
        let mut comparison = Self { messages: old.len() as u64, ..Self::default() };
        for OldMessage { number, unique_id, octets } in old {
            let (number, is_size) = (*number, |octets: u64| Some(octets.to_string()));
            match left.remove(&unique_id[..]) {
                Some(now) => {
                    comparison.same_ids += 1;
                    if now == *octets {
                        comparison.same_sizes += 1;
                    } else {
                        let difference = || Difference { number, old: is_size(*octets), here: is_size(now) };
                        comparison.other_sizes.add(difference);
                    }
                }
                None => comparison.lost_ids.add(|| {
                    // It is likely the same message that has this number here.
                    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
                    let same = index.and_then(|index| here.get(index)).filter(|(_, now)| now.abs_diff(*octets) <= 2);
                    Difference { number, old: text(unique_id), here: same.and_then(|(id, _)| text(id)) }
                }),
            }
        }
        for (number, (id, _)) in (1..).zip(here) {
            if left.contains_key(&id[..]) {
                comparison.new_ids.add(|| Difference { number, old: None, here: text(id) });
            }
        }
        comparison
    }

    /// Returns true if clients see no difference.
    pub(in crate::doctor) fn all_stays(&self) -> bool {
        self.lost_ids.count + self.new_ids.count + self.other_sizes.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(messages: &[(&str, u64)]) -> Vec<OldMessage> {
        let one = |(number, &(id, octets)): (u64, &(&str, u64))| OldMessage { number, unique_id: id.into(), octets };
        (1..).zip(messages).map(one).collect()
    }

    fn here(messages: &[(&str, u64)]) -> Vec<(Vec<u8>, u64)> {
        messages.iter().map(|&(id, octets)| (id.into(), octets)).collect()
    }

    #[test]
    fn what_stays_is_counted() {
        let same = [("a", 1), ("b", 2)];
        let comparison = Comparison::new(&old(&same), &here(&same));
        assert!(comparison.all_stays());
        assert_eq!((comparison.messages, comparison.same_ids, comparison.same_sizes), (2, 2, 2));
        // The order does not matter.
        assert!(Comparison::new(&old(&same), &here(&[("b", 2), ("a", 1)])).all_stays());
    }

    #[test]
    fn what_does_not_stay_is_named() {
        let comparison =
            Comparison::new(&old(&[("a", 10), ("b", 20), ("c", 30)]), &here(&[("a", 12), ("x", 20), ("y", 9)]));
        let difference = |number, old: Option<&str>, here: Option<&str>| Difference {
            number,
            old: old.map(str::to_owned),
            here: here.map(str::to_owned),
        };
        assert_eq!((comparison.same_ids, comparison.same_sizes), (1, 0));
        assert_eq!(comparison.other_sizes.examples, [difference(1, Some("10"), Some("12"))]);
        let lost = [difference(2, Some("b"), Some("x")), difference(3, Some("c"), None)];
        assert_eq!(comparison.lost_ids.examples, lost);
        assert_eq!(comparison.new_ids.examples, [difference(2, None, Some("x")), difference(3, None, Some("y"))]);
        assert!(!comparison.all_stays());
    }

    #[test]
    fn an_id_that_the_old_server_gave_twice_stays_once() {
        let comparison = Comparison::new(&old(&[("a", 1), ("a", 1)]), &here(&[("a", 1), ("b", 1)]));
        assert_eq!((comparison.same_ids, comparison.lost_ids.count, comparison.new_ids.count), (1, 1, 1));
    }

    #[test]
    fn only_a_few_examples_are_kept() {
        let many: Vec<_> = (0..100).map(|number| OldMessage { number, unique_id: vec![b'x'], octets: 1 }).collect();
        let Differences { count, examples } = Comparison::new(&many, &[]).lost_ids;
        assert_eq!((count, examples.len()), (100, EXAMPLES));
    }
}
