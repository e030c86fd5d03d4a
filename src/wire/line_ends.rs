//! Where the lines of a block of mail end.
//!
//! They are short: who searches for one line end after the other starts a search for each 70 octets or so. Here 64
//! octets are compared at once, and all that is found in them is kept in one word.

use wide::u8x16;

/// How many octets are compared at once: a bit of a word for each.
const CHUNK: usize = u64::BITS as usize;

/// Octets that are one vector.
const LANES: usize = 16;

/// The positions of all LFs in `block`, in their order.
pub(super) fn line_ends(block: &[u8]) -> LineEnds<'_> {
    LineEnds { block, chunk: 0, next: 0, found: 0 }
}

/// What [`line_ends`] returns.
pub(super) struct LineEnds<'a> {
    block: &'a [u8],
    /// Where the octets begin that were compared last, and those that come next.
    chunk: usize,
    next: usize,
    /// A bit for each LF of the chunk that has not been returned yet; the first octet's is the lowest.
    found: u64,
}

impl Iterator for LineEnds<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            let rest = &self.block[self.next..];
            self.chunk = self.next;
            if let Some(chunk) = rest.first_chunk() {
                self.next += CHUNK;
                self.found = lfs(chunk);
            } else if rest.is_empty() {
                return None;
            } else {
                let mut last = [0; CHUNK];
                last[..rest.len()].copy_from_slice(rest);
                self.next += rest.len();
                self.found = lfs(&last);
            }
        }
        let position = self.chunk + self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(position)
    }
}

/// A bit for each LF.
#[inline]
fn lfs(chunk: &[u8; CHUNK]) -> u64 {
    let (vectors, _) = chunk.as_chunks::<LANES>();
    let bits = |vector: &[u8; LANES]| u64::from(u8x16::new(*vector).simd_eq(u8x16::splat(b'\n')).to_bitmask());
    vectors.iter().rev().fold(0, |found, vector| found << LANES | bits(vector))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_octet_but_lf_is_none() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(line_ends(&all).collect::<Vec<_>>(), [10]);
    }

    #[test]
    fn one_lf_is_found_wherever_it_is() {
        for length in 0..3 * CHUNK {
            let mut block = vec![b'a'; length];
            assert_eq!(line_ends(&block).count(), 0);
            for at in 0..length {
                block[at] = b'\n';
                assert_eq!(line_ends(&block).collect::<Vec<_>>(), [at]);
                block[at] = b'a';
            }
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_each_octet_finds(
            block in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..500),
        ) {
            let slowly = block.iter().enumerate().filter(|(_, octet)| **octet == b'\n').map(|(at, _)| at);
            prop_assert!(line_ends(&block).eq(slowly));
        }
    }
}
