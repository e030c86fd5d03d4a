//! A stored message and its form on the wire (RFC 1939, sections 3 and 11).
//!
//! On the wire every line ends in CRLF: a bare LF becomes CRLF, CRLF stays, a lone CR is an octet like any
//! other, and a last line without an end gets one. The message's size counts these octets. Byte-stuffing and
//! the termination octet come on top and are not counted. The three types here take a message in pieces of
//! any size; the result does not depend on where the pieces are cut.

use super::line_ends::line_ends;

/// What the pieces pushed so far end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum After {
    /// A line end, or nothing yet: the next octet begins a line.
    #[default]
    LineEnd,
    /// A CR, which the next piece may complete to a CRLF.
    Cr,
    /// Anything else.
    Octet,
}

impl After {
    fn piece(piece: &[u8], before: Self) -> Self {
        match piece.last() {
            None => before,
            Some(b'\n') => Self::LineEnd,
            Some(b'\r') => Self::Cr,
            Some(_) => Self::Octet,
        }
    }
}

/// Measures a stored message: how many octets it has on the wire, and whether it can be sent as it is stored.
#[derive(Debug, Default)]
pub struct Meter {
    after: After,
    octets: u64,
    edited: bool,
}

/// What a [`Meter`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// Octets on the wire, byte-stuffing not counted.
    pub octets: u64,
    /// Every line ends in CRLF and none begins with a dot, so the stored octets are those on the wire.
    pub wire_form: bool,
}

impl Meter {
    /// Takes the next piece of the message.
    pub fn push(&mut self, piece: &[u8]) {
        self.octets += piece.len() as u64;
        self.edited |= self.after == After::LineEnd && piece.first() == Some(&b'.');
        for at in line_ends(piece) {
            let crlf = if at == 0 { self.after == After::Cr } else { piece[at - 1] == b'\r' };
            self.octets += u64::from(!crlf);
            self.edited |= !crlf || piece.get(at + 1) == Some(&b'.');
        }
        self.after = After::piece(piece, self.after);
    }

    /// Returns the result after the last piece.
    #[must_use]
    pub fn finish(self) -> Measure {
        let unended = self.after != After::LineEnd;
        Measure { octets: self.octets + if unended { 2 } else { 0 }, wire_form: !self.edited && !unended }
    }
}

/// Writes a stored message as a multi-line response: CRLF, byte-stuffed, ended by the termination octet.
#[derive(Debug, Default)]
pub struct Stuffer {
    after: After,
    octets: u64,
}

impl Stuffer {
    /// Appends the wire form of the next piece to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let before = out.len();
        let mut dots = 0;
        let mut copied = 0;
        if self.after == After::LineEnd && piece.first() == Some(&b'.') {
            out.push(b'.');
            dots += 1;
        }
        for at in line_ends(piece) {
            let crlf = if at == 0 { self.after == After::Cr } else { piece[at - 1] == b'\r' };
            if !crlf {
                append(out, piece, copied, at);
                out.push(b'\r');
                copied = at;
            }
            if piece.get(at + 1) == Some(&b'.') {
                out.extend_from_slice(&piece[copied..=at]);
                out.push(b'.');
                dots += 1;
                copied = at + 1;
            }
        }
        out.extend_from_slice(&piece[copied..]);
        self.octets += (out.len() - before - dots) as u64;
        self.after = After::piece(piece, self.after);
    }

    /// The message's octets so far.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The message's octets if it ends here, as [`Measure::octets`].
    #[must_use]
    pub fn octets_at_end(&self) -> u64 {
        self.octets + if self.after == After::LineEnd { 0 } else { 2 }
    }

    /// Ends the last line if it has no end, and the response. Returns the message's octets, as [`Measure::octets`].
    pub fn finish(self, out: &mut Vec<u8>) -> u64 {
        if self.after != After::LineEnd {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        self.octets_at_end()
    }
}

/// Lines are rarely longer than this, their line end included (RFC 5322 section 2.1.1).
const LINE: usize = 80;

/// Appends `piece[from..to]`. A short line is copied as a block of [`LINE`] octets, and the surplus is cut off again. A
/// copy of constant length needs no branches that the processor could predict wrongly; lines of varying lengths are
/// copied in little more than half the time.
#[inline]
fn append(out: &mut Vec<u8>, piece: &[u8], from: usize, to: usize) {
    match piece[from..].first_chunk::<LINE>() {
        Some(line) if to - from <= LINE => {
            out.extend_from_slice(line);
            out.truncate(out.len() - (LINE - (to - from)));
        }
        _ => out.extend_from_slice(&piece[from..to]),
    }
}

/// Finds where TOP ends in a message: after the header, the empty line behind it, and `lines` lines of the body.
#[derive(Debug)]
pub struct Top {
    after: After,
    /// The present line so far is empty or consists of one CR.
    line_is_empty: bool,
    in_header: bool,
    lines: u32,
    done: bool,
}

impl Top {
    /// For `TOP message lines`.
    #[must_use]
    pub fn new(lines: u32) -> Self {
        Self { after: After::LineEnd, line_is_empty: true, in_header: true, lines, done: false }
    }

    /// How many octets of the next piece TOP sends.
    pub fn take(&mut self, piece: &[u8]) -> usize {
        if self.done {
            return 0;
        }
        let mut line_start = 0;
        for at in line_ends(piece) {
            let text = &piece[line_start..at];
            let empty = self.line_is_empty && Self::is_empty(text, self.after == After::Cr && line_start == 0);
            if self.end_line(empty) {
                return at + 1;
            }
            line_start = at + 1;
            self.line_is_empty = true;
            self.after = After::LineEnd;
        }
        let text = &piece[line_start..];
        self.line_is_empty &= Self::is_empty(text, self.after == After::Cr);
        self.after = After::piece(text, self.after);
        piece.len()
    }

    /// Returns true if everything that TOP sends has been taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Returns true if a line that continues with `text` may still be an empty line: nothing, or one CR.
    fn is_empty(text: &[u8], has_cr: bool) -> bool {
        text.is_empty() || (text == b"\r" && !has_cr)
    }

    /// Counts a line that has ended. Returns true if it is the last one to send.
    fn end_line(&mut self, empty: bool) -> bool {
        if self.in_header {
            self.in_header = !empty;
            self.done = empty && self.lines == 0;
        } else {
            self.lines -= 1;
            self.done = self.lines == 0;
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The message's lines without their line ends, by a slow implementation of the rules in the module's documentation.
    fn wire_lines(stored: &[u8]) -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = stored.split(|&octet| octet == b'\n').map(<[u8]>::to_vec).collect();
        let last = lines.pop().filter(|last| !last.is_empty());
        for line in &mut lines {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        lines.extend(last);
        lines
    }

    fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
        lines.iter().flat_map(|line| line.iter().chain(b"\r\n")).copied().collect()
    }

    fn stuffed(lines: &[Vec<u8>]) -> Vec<u8> {
        let dotted: Vec<Vec<u8>> = lines
            .iter()
            .map(|line| if line.starts_with(b".") { [b".", &line[..]].concat() } else { line.clone() })
            .collect();
        [joined(&dotted), b".\r\n".to_vec()].concat()
    }

    fn top_lines(stored: &[u8], body: u32) -> Vec<Vec<u8>> {
        let lines = wire_lines(stored);
        let header = lines.iter().position(Vec::is_empty).map_or(lines.len(), |at| at + 1);
        lines.into_iter().take(header + body as usize).collect()
    }

    fn check(stored: &[u8], cut: usize, other: usize, body: u32) {
        let (cut, other) = (cut.min(other), cut.max(other));
        let pieces = [&stored[..cut], &stored[cut..other], &stored[other..]];
        let lines = wire_lines(stored);

        let mut meter = Meter::default();
        let mut stuffer = Stuffer::default();
        let mut out = Vec::new();
        for piece in pieces {
            meter.push(piece);
            stuffer.push(piece, &mut out);
        }
        let octets = stuffer.finish(&mut out);
        let measure = meter.finish();
        assert_eq!(out, stuffed(&lines));
        assert_eq!(octets, joined(&lines).len() as u64);
        assert_eq!(measure.octets, octets);
        assert_eq!(measure.wire_form, out == [stored, b".\r\n"].concat());

        let mut top = Top::new(body);
        let mut stuffer = Stuffer::default();
        let mut out = Vec::new();
        for piece in pieces {
            let taken = top.take(piece);
            assert!(taken == piece.len() || top.is_done());
            stuffer.push(&piece[..taken], &mut out);
        }
        stuffer.finish(&mut out);
        assert_eq!(out, stuffed(&top_lines(stored, body)));
    }

    #[test]
    fn every_split_of_the_unusual_messages_agrees_with_the_slow_rules() {
        let messages: [&[u8]; 16] = [
            b"",
            b"\n",
            b"\r",
            b"\r\n",
            b".",
            b".\n.\r\n..\r\n",
            b"A: b\n\nbody\n",
            b"A: b\r\n\r\n.one\r\ntwo\r\n\r\nthree",
            b"no end",
            b"lone\rcr\r\r\nthen\n\r",
            b"A: b\n\r\r\nstill header\n\nbody\n",
            b"\r\r\n\n.\n",
            b"\nbody at once\n.\n\n",
            b"nul\0and\xff8-bit\r\n",
            b"\n\n\n\n",
            b"\r\n.\r\n",
        ];
        for stored in messages {
            for cut in 0..=stored.len() {
                for other in cut..=stored.len() {
                    for body in 0..4 {
                        check(stored, cut, other, body);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_split_of_random_messages_agrees_with_the_slow_rules(
            stored in proptest::collection::vec(
                prop_oneof![
                    3 => Just(vec![b'\n']),
                    3 => Just(vec![b'\r']),
                    3 => Just(vec![b'.']),
                    2 => Just(vec![b'a']),
                    1 => any::<u8>().prop_map(|octet| vec![octet]),
                    1 => (LINE - 5..LINE + 5).prop_map(|length| vec![b'a'; length]),
                ],
                0..80,
            )
            .prop_map(|parts| parts.concat()),
            cut in any::<prop::sample::Index>(),
            other in any::<prop::sample::Index>(),
            body in 0u32..6,
        ) {
            let positions = stored.len() + 1;
            check(&stored, cut.index(positions), other.index(positions), body);
        }
    }
}
