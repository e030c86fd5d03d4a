//! Reads a message once, in pieces, and finds what is unusual in it.

use std::io::{self, Read};

use crate::wire::{Block, Meter};

/// The longest line that RFC 5322 (section 2.1.1) allows, its line end not counted.
const LONGEST_LINE: u64 = 998;

/// What a message's text is like.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// The size as it is stored, before it was compressed.
    pub(super) stored: u64,
    /// The size on the wire.
    pub(super) octets: u64,
    pub(super) has_nul: bool,
    pub(super) has_long_line: bool,
    /// The last line has no line end.
    pub(super) is_unended: bool,
}

impl Content {
    /// Reads a message to its end.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn read(message: &mut impl Read) -> io::Result<Self> {
        let mut block = Block::new();
        let mut scan = Scan::default();
        loop {
            match message.read(&mut block) {
                Ok(0) => return Ok(scan.finish()),
                Ok(read) => scan.push(&block[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Takes a message in pieces of any size.
#[derive(Debug, Default)]
struct Scan {
    content: Content,
    meter: Meter,
    /// How many octets of the present line there were in earlier pieces.
    line: u64,
    /// The last octet of the earlier pieces.
    last: Option<u8>,
}

impl Scan {
    fn push(&mut self, piece: &[u8]) {
        self.content.stored += piece.len() as u64;
        self.content.has_nul |= memchr::memchr(0, piece).is_some();
        self.meter.push(piece);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            let before = if end > 0 { Some(piece[end - 1]) } else { self.last };
            self.end_line((end - start) as u64, before);
            start = end + 1;
        }
        self.line += (piece.len() - start) as u64;
        self.last = piece.last().copied().or(self.last);
    }

    /// Takes the last `octets` of a line, of which `before` is the very last.
    fn end_line(&mut self, octets: u64, before: Option<u8>) {
        let has_cr = before == Some(b'\r');
        self.content.has_long_line |= self.line + octets > LONGEST_LINE + u64::from(has_cr);
        self.line = 0;
    }

    fn finish(mut self) -> Content {
        self.content.has_long_line |= self.line > LONGEST_LINE;
        self.content.is_unended = self.last.is_some_and(|last| last != b'\n');
        self.content.octets = self.meter.finish().octets;
        self.content
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scanned(text: &[u8], step: usize) -> Content {
        let mut scan = Scan::default();
        text.chunks(step).for_each(|piece| scan.push(piece));
        scan.finish()
    }

    #[test]
    fn the_unusual_is_found() {
        let plain = |stored, octets| Content { stored, octets, ..Content::default() };
        assert_eq!(scanned(b"", 1), plain(0, 0));
        assert_eq!(scanned(b"a\r\nb\n", 1), plain(5, 6));
        assert_eq!(scanned(b"a", 1), Content { is_unended: true, ..plain(1, 3) });
        assert_eq!(scanned(b"a\0\n", 1), Content { has_nul: true, ..plain(3, 4) });
    }

    #[test]
    fn lines_over_998_octets_are_long() {
        for (octets, end, is_long) in [
            (998, "\n", false),
            (998, "\r\n", false),
            (999, "\n", true),
            (999, "\r\n", true),
            (998, "", false),
            (999, "", true),
            (999, "\rb\n", true),
            (997, "\rb\n", true),
        ] {
            let text = format!("a\n{}{end}", "x".repeat(octets));
            for step in [1, 7, 999, 1000, 5000] {
                assert_eq!(scanned(text.as_bytes(), step).has_long_line, is_long, "{octets} {end:?} {step}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(text in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(0), Just(b'a')], 1..60), step in 1usize..9) {
            let content = scanned(&text, step);
            prop_assert_eq!(&content, &scanned(&text, text.len()));
            prop_assert_eq!(content.has_nul, text.contains(&0));
            prop_assert_eq!(content.is_unended, !text.ends_with(b"\n"));
        }
    }
}
