//! Cuts a stream of octets into command lines of bounded length, however the stream is split into segments.
//!
//! [`Lines::next`] works on what is buffered and [`Lines::fill`] reads more, once a call. So a session knows when there
//! is no further command yet and the replies have to be sent.

use std::io::{self, Read};

use memchr::memchr;

use super::foreign::Foreign;

/// The size of the buffer: large enough for many pipelined commands in one read, small enough for each idle session.
const BUFFER: usize = 2048;

/// Cuts a stream into lines of at most `limit` octets, their line end included.
#[derive(Debug)]
pub struct Lines {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    limit: usize,
    /// True inside a line that was too long; the rest of it, with its line end, is dropped.
    discarding: bool,
}

/// What [`Lines::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its line end (CRLF, or a bare LF as people at a terminal send it).
    Complete(&'a [u8]),
    /// A line over the limit. It is reported once and dropped whole.
    TooLong,
}

impl Lines {
    /// A reader for lines of at most `limit` octets with their CRLF.
    ///
    /// # Panics
    /// If `limit` does not fit the buffer.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let mut lines =
            Self { buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0, limit: 0, discarding: false };
        lines.set_limit(limit);
        lines
    }

    /// Sets the limit for the lines from the next one on.
    ///
    /// # Panics
    /// If `limit` does not fit the buffer.
    pub fn set_limit(&mut self, limit: usize) {
        assert!(limit <= BUFFER, "a line has to fit the buffer");
        self.limit = limit;
    }

    /// The next line among the octets read so far, or `None` if they hold only a part of one.
    #[allow(clippy::should_implement_trait)] // a lending iterator: the line borrows the buffer
    pub fn next(&mut self) -> Option<Line<'_>> {
        if self.discarding {
            match memchr(b'\n', &self.buffer[self.start..self.end]) {
                Some(at) => self.start += at + 1,
                None => {
                    self.start = self.end;
                    return None;
                }
            }
            self.discarding = false;
        }
        let unread = &self.buffer[self.start..self.end];
        match memchr(b'\n', unread) {
            Some(at) => {
                self.start += at + 1;
                if at + 1 > self.limit {
                    return Some(Line::TooLong);
                }
                let line = &unread[..at];
                Some(Line::Complete(line.strip_suffix(b"\r").unwrap_or(line)))
            }
            None if unread.len() >= self.limit => {
                self.start = self.end;
                self.discarding = true;
                Some(Line::TooLong)
            }
            None => None,
        }
    }

    /// Reads once from `source` behind what is buffered. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// Those of `source`.
    pub fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let read = source.read(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(read)
    }

    /// Returns true if the next line begins with a TLS handshake, which need not contain a line end.
    #[must_use]
    pub fn begin_tls(&self) -> bool {
        !self.discarding && Foreign::begins_tls(&self.buffer[self.start..self.end])
    }

    /// Discards what is buffered.
    pub fn clear(&mut self) {
        (self.start, self.end, self.discarding) = (0, 0, false);
    }

    /// Returns true if nothing is buffered, not even a part of a line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `input` in pieces of `step` octets and gathers the lines (`None` for one that is too long).
    fn lines(input: &[u8], step: usize, limit: usize) -> Vec<Option<Vec<u8>>> {
        let mut reader = Lines::new(limit);
        let mut found = Vec::new();
        for mut piece in input.chunks(step) {
            while !piece.is_empty() {
                reader.fill(&mut piece).unwrap();
                while let Some(line) = reader.next() {
                    found.push(match line {
                        Line::Complete(line) => Some(line.to_vec()),
                        Line::TooLong => None,
                    });
                }
            }
        }
        found
    }

    /// The same lines, found by splitting the whole input at once.
    fn reference(input: &[u8], limit: usize) -> Vec<Option<Vec<u8>>> {
        let mut found: Vec<_> = input
            .split_inclusive(|&octet| octet == b'\n')
            .map(|line| match line.strip_suffix(b"\n") {
                _ if line.len() > limit => Some(None),
                Some(line) => Some(Some(line.strip_suffix(b"\r").unwrap_or(line).to_vec())),
                None if line.len() >= limit => Some(None),
                None => None,
            })
            .collect();
        found.retain(Option::is_some);
        found.into_iter().flatten().collect()
    }

    #[test]
    fn line_ends_are_crlf_or_a_bare_lf() {
        assert_eq!(lines(b"a\r\nb\n\r\nc", 100, 10), [Some(b"a".to_vec()), Some(b"b".to_vec()), Some(b"".to_vec())]);
    }

    #[test]
    fn a_line_of_the_limit_is_accepted_and_a_longer_one_is_refused_once() {
        assert_eq!(lines(b"12345678\r\n", 3, 10), [Some(b"12345678".to_vec())]);
        assert_eq!(lines(b"123456789\r\nNOOP\r\n", 3, 10), [None, Some(b"NOOP".to_vec())]);
    }

    #[test]
    fn an_endless_line_is_refused_before_it_ends() {
        assert_eq!(lines(&[b'x'; 100_000], 1000, 512), [None]);
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_lines(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a'), any::<u8>()], 0..200),
            step in 1usize..20,
        ) {
            prop_assert_eq!(lines(&input, step, 12), reference(&input, 12));
        }
    }
}
