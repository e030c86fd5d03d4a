//! Finds the line ends in a block of mail.
//!
//! Lines of mail are short, so a search for one line end after the other would start anew every 70 octets or so. Here
//! 64 octets are compared at once, and the line ends found in them are kept as the bits of one word.

use wide::u8x16;

/// How many octets are compared at once: one for each bit of a word.
const CHUNK: usize = u64::BITS as usize;

/// The octets of one vector.
const LANES: usize = 16;

/// The positions of all LFs in `block`, in ascending order.
pub(super) fn line_ends(block: &[u8]) -> LineEnds<'_> {
    LineEnds { block, chunk: 0, next: 0, found: 0 }
}

/// The iterator that [`line_ends`] returns.
pub(super) struct LineEnds<'a> {
    block: &'a [u8],
    /// Where the chunk that was compared last begins, and where the next one begins.
    chunk: usize,
    next: usize,
    /// A bit for each LF of the chunk that has not been returned yet. The lowest bit is the first octet.
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

/// Returns a word with a bit set for each LF.
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
    fn only_lf_is_a_line_end() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(line_ends(&all).collect::<Vec<_>>(), [10]);
    }

    #[test]
    fn a_single_lf_is_found_at_any_position() {
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
        fn it_finds_the_same_as_a_comparison_of_each_octet(
            block in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..500),
        ) {
            let slowly = block.iter().enumerate().filter(|(_, octet)| **octet == b'\n').map(|(at, _)| at);
            prop_assert!(line_ends(&block).eq(slowly));
        }
    }
}
