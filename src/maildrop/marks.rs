//! Which of a session's messages are marked as deleted.

/// The marked messages, each by its index in the maildrop's list. The cost of each operation depends on the number of
/// marks, not on the size of the maildrop.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// In the order in which they were marked.
    list: Vec<usize>,
    /// Whether each message is marked. It is as long as the highest message that was ever marked needs.
    is_marked: Vec<bool>,
}

impl Marks {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn contains(&self, index: usize) -> bool {
        self.is_marked.get(index).is_some_and(|&marked| marked)
    }

    /// Marks a message. Returns false if it is marked already.
    pub(super) fn insert(&mut self, index: usize) -> bool {
        if self.contains(index) {
            return false;
        }
        if self.is_marked.len() <= index {
            self.is_marked.resize(index + 1, false);
        }
        self.is_marked[index] = true;
        self.list.push(index);
        true
    }

    /// Removes all marks. Returns the messages that had them.
    pub(super) fn take(&mut self) -> Vec<usize> {
        let list = std::mem::take(&mut self.list);
        for &index in &list {
            self.is_marked[index] = false;
        }
        list
    }

    /// The marked messages in the order of the maildrop.
    pub(super) fn in_order(&self) -> Vec<usize> {
        let mut list = self.list.clone();
        list.sort_unstable();
        list
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn removing_all_marks_touches_only_the_marked_messages() {
        let mut marks = Marks::default();
        assert!(marks.take().is_empty());
        assert!(marks.insert(1_000_000) && marks.insert(3) && !marks.insert(3));
        assert_eq!(marks.in_order(), [3, 1_000_000]);
        assert_eq!(marks.take(), [1_000_000, 3]);
        assert!(marks.take().is_empty());
        assert!(!marks.contains(3) && marks.insert(3));
        assert_eq!(marks.take(), [3]);
    }

    proptest! {
        #[test]
        fn marks_are_a_set(steps in proptest::collection::vec(proptest::option::weighted(0.9, 0..20usize), 0..100)) {
            let (mut marks, mut expected) = (Marks::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Some(index) => prop_assert_eq!(marks.insert(index), expected.insert(index)),
                    None => prop_assert_eq!(marks.take().len(), std::mem::take(&mut expected).len()),
                }
                prop_assert_eq!(marks.len(), expected.len());
                prop_assert!(marks.in_order().iter().eq(&expected));
                prop_assert!((0..25).all(|index| marks.contains(index) == expected.contains(&index)));
            }
        }
    }
}
