//! Keeps the names of a maildrop's files in memory. One block holds all names of a listing or an index.
//!
//! One allocation per name would be slower, and would fragment the heap, so that the allocator could return little
//! memory to the system.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The name of a message's file, as a part of a block. The block is freed with the last of its names.
///
/// A name takes 16 octets, which matters in maildrops of a million messages.
#[derive(Clone)]
pub(super) struct Name {
    block: Arc<Vec<u8>>,
    start: u32,
    length: u16,
}

impl Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block[self.start as usize..][..usize::from(self.length)]
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.escape_ascii().to_string())
    }
}

/// Makes a name with a block of its own. The names of a whole maildrop should come from [`Names`].
impl From<&[u8]> for Name {
    fn from(name: &[u8]) -> Self {
        Names::new(name.to_vec()).next(name.len()).expect("no file system has names of 64 KiB")
    }
}

/// A block whose names are taken one after another, from its beginning to its end.
pub(super) struct Names {
    block: Arc<Vec<u8>>,
    /// Where the next name begins.
    at: usize,
}

impl Names {
    pub(super) fn new(block: Vec<u8>) -> Self {
        Self { block: Arc::new(block), at: 0 }
    }

    /// Takes the next `length` octets of the block as a name. Returns `None` if fewer octets are left, or if the offset
    /// or the length does not fit into a [`Name`].
    pub(super) fn next(&mut self, length: usize) -> Option<Name> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.block.len())?;
        let (start, length) = (u32::try_from(self.at).ok()?, u16::try_from(length).ok()?);
        self.at = end;
        Some(Name { block: Arc::clone(&self.block), start, length })
    }

    /// Returns true if all of the block has been taken.
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.block.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_takes_16_octets() {
        assert_eq!(size_of::<Name>(), 16);
    }

    #[test]
    fn a_block_is_freed_with_its_last_name() {
        let mut names = Names::new(b"onetwo".to_vec());
        let (one, two) = (names.next(3).unwrap(), names.next(3).unwrap());
        let block = Arc::downgrade(&names.block);
        drop((names, one));
        assert_eq!(&*two, b"two");
        drop(two);
        assert!(block.upgrade().is_none());
    }

    #[test]
    fn a_name_ends_within_its_block_and_is_shorter_than_64_kib() {
        let mut names = Names::new(vec![b'x'; 70_000]);
        assert_eq!(names.next(70_001), None);
        assert_eq!(names.next(usize::MAX), None);
        assert_eq!(names.next(65_536), None);
        assert_eq!(names.next(65_535).map(|name| name.len()), Some(65_535));
        assert_eq!(names.next(4_466), None);
        assert!(!names.is_at_end());
        assert_eq!(names.next(4_465).map(|name| name.len()), Some(4_465));
        assert!(names.is_at_end());
    }

    proptest! {
        #[test]
        fn names_come_out_as_they_went_in(put in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..20)) {
            let mut names = Names::new(put.concat());
            for name in &put {
                prop_assert_eq!(&*names.next(name.len()).unwrap(), &name[..]);
            }
            prop_assert!(names.is_at_end());
        }
    }
}
