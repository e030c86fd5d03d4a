//! Finds the messages in an mbox.
//!
//! A message begins behind a line `From …`, which is the first line of the file or follows an empty line. It ends in front
//! of the empty line before the next such line. An empty line at the end of the file is no part of the last message either.
//!
//! Programs that use the mbox add and change some fields of the header. These are left out of a message's hash, so that it
//! stays the same.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

use crate::wire::{BLOCK, Block, Meter};

/// Fields of the header that programs change: flags, positions and the like.
const BOOKKEEPING: [&[u8]; 9] =
    [b"status", b"x-status", b"x-keywords", b"x-uid", b"x-uidl", b"x-imap", b"x-imapbase", b"content-length", b"lines"];

/// The subject of the message in which IMAP servers keep data of their own.
const INTERNAL_SUBJECT: &[u8] = b"DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA";

/// A line that is looked at is no longer than this. The rest of a longer line is taken for text.
const LONGEST_LINE: usize = 1024;

/// A message of an mbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Where its `From ` line begins.
    pub(super) from: u64,
    /// Where the message itself begins.
    pub(super) start: u64,
    /// Where the message itself ends.
    pub(super) end: u64,
    /// The message's size on the wire.
    pub(super) octets: u64,
    /// A hash of the message without the fields that programs change.
    pub(super) hash: u128,
    /// The value of the field `X-UIDL`.
    pub(super) x_uidl: Option<Vec<u8>>,
    /// True for a message in which an IMAP server keeps data of its own.
    pub(super) is_internal: bool,
}

/// Finds the messages in the octets from `from`, where a `From ` line begins, to `to`. Empty lines in front of the first
/// message are skipped.
///
/// # Errors
/// Those of reading, and when there is something else than a message.
pub(super) fn parse(file: &File, from: u64, to: u64, each: &mut dyn FnMut(Parsed)) -> io::Result<()> {
    let mut block = Block::new();
    let mut parser = Parser { at: from, message: None, is_after_empty: true, empty: Vec::new(), in_line: false, each };
    let (mut filled, mut read_to) = (0, from);
    loop {
        let room = usize::try_from(to - read_to).map_or(BLOCK - filled, |left| left.min(BLOCK - filled));
        if room > 0 {
            match file.read_at(&mut block[filled..filled + room], read_to) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    filled += read;
                    read_to += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
        }
        let is_end = read_to == to;
        let taken = parser.take(&block[..filled], is_end)?;
        block.copy_within(taken..filled, 0);
        filled -= taken;
        if is_end && filled == 0 {
            parser.end_message();
            return Ok(());
        }
    }
}

struct Parser<'a> {
    /// The offset of the next octet.
    at: u64,
    message: Option<Current>,
    /// The preceding line is empty, or there is none.
    is_after_empty: bool,
    /// An empty line that is part of the message only if more of it follows.
    empty: Vec<u8>,
    /// The next octet continues a line whose beginning has been taken.
    in_line: bool,
    each: &'a mut dyn FnMut(Parsed),
}

/// The message that is being read.
struct Current {
    parsed: Parsed,
    meter: Meter,
    hasher: SipHasher13,
    in_header: bool,
    /// The present field of the header is one that programs change.
    in_bookkeeping: bool,
    has_x_imap: bool,
    has_internal_subject: bool,
}

impl Parser<'_> {
    /// Takes the lines of a piece. Returns how many octets it has taken: an incomplete line is left if more of it is to come.
    fn take(&mut self, piece: &[u8], is_end: bool) -> io::Result<usize> {
        let mut taken = 0;
        while taken < piece.len() {
            let rest = &piece[taken..];
            if self.is_in_body() {
                // Text is taken as far as no line in it can begin a message.
                let text = text_without_boundary(rest);
                if text > 0 {
                    self.flush_empty();
                    self.text(&rest[..text]);
                    taken += text;
                    continue;
                }
            }
            match memchr::memchr(b'\n', rest) {
                Some(end) => self.line(&rest[..=end])?,
                None if is_end || rest.len() > LONGEST_LINE || self.in_line => self.line(rest)?,
                None => break,
            }
            taken += memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        }
        Ok(taken)
    }

    /// In the body of a message, at the beginning of a line that does not follow an empty one.
    fn is_in_body(&self) -> bool {
        !self.in_line && !self.is_after_empty && self.message.as_ref().is_some_and(|message| !message.in_header)
    }

    /// Whole lines of a body, none of them empty.
    fn text(&mut self, text: &[u8]) {
        let Some(message) = &mut self.message else { return };
        message.meter.push(text);
        message.hasher.write(text);
        self.at += text.len() as u64;
    }

    /// A line with its end, or a part of a long one.
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let is_continued = std::mem::replace(&mut self.in_line, !line.ends_with(b"\n"));
        let is_empty = !is_continued && matches!(line, b"\n" | b"\r\n");
        if !is_continued && self.is_after_empty && line.starts_with(b"From ") {
            self.end_message();
            self.begin_message(line);
        } else if self.message.is_none() {
            if !is_empty {
                return Err(not_an_mbox());
            }
        } else if self.message.as_ref().is_some_and(|message| message.parsed.start > self.at) {
            self.continue_from_line(line);
        } else {
            self.flush_empty();
            if is_empty {
                self.empty.extend_from_slice(line);
            } else {
                self.text_line(line, is_continued);
            }
        }
        self.is_after_empty = is_empty;
        self.at += line.len() as u64;
        Ok(())
    }

    fn begin_message(&mut self, from_line: &[u8]) {
        let complete = from_line.ends_with(b"\n");
        let start = self.at + from_line.len() as u64 + u64::from(!complete);
        let parsed = Parsed { from: self.at, start, end: start, octets: 0, hash: 0, x_uidl: None, is_internal: false };
        self.message = Some(Current {
            parsed,
            meter: Meter::default(),
            hasher: SipHasher13::new_with_keys(0x706f_7033_6420_6d62, 0x6f78_206d_6573_7361),
            in_header: true,
            in_bookkeeping: false,
            has_x_imap: false,
            has_internal_subject: false,
        });
    }

    /// The rest of a very long `From ` line.
    fn continue_from_line(&mut self, line: &[u8]) {
        if let Some(message) = &mut self.message {
            message.parsed.start = self.at + line.len() as u64 + u64::from(!line.ends_with(b"\n"));
            message.parsed.end = message.parsed.start;
        }
    }

    /// Counts an empty line that has turned out to be part of the message.
    fn flush_empty(&mut self) {
        if self.empty.is_empty() {
            return;
        }
        if let Some(message) = &mut self.message {
            message.in_header = false;
            message.meter.push(&self.empty);
            message.hasher.write(&self.empty);
        }
        self.empty.clear();
    }

    fn text_line(&mut self, line: &[u8], is_continued: bool) {
        let Some(message) = &mut self.message else { return };
        if message.in_header && !is_continued {
            message.field(line);
        }
        message.meter.push(line);
        if !message.in_header || !message.in_bookkeeping {
            message.hasher.write(line);
        }
    }

    fn end_message(&mut self) {
        let empty = self.empty.len() as u64;
        self.empty.clear();
        let Some(Current { mut parsed, meter, hasher, has_x_imap, has_internal_subject, .. }) = self.message.take()
        else {
            return;
        };
        // A `From ` line without a line end is the last of the file, and its message is empty.
        parsed.start = parsed.start.min(self.at);
        parsed.end = (self.at - empty).max(parsed.start);
        parsed.octets = meter.finish().octets;
        parsed.hash = hasher.finish128().as_u128();
        parsed.is_internal = has_x_imap && has_internal_subject;
        (self.each)(parsed);
    }
}

impl Current {
    /// A line of the header.
    fn field(&mut self, line: &[u8]) {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return; // it continues the field above
        }
        let colon = memchr::memchr(b':', line).unwrap_or(0);
        let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon..].trim_ascii());
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        self.in_bookkeeping = BOOKKEEPING.contains(&&name[..]);
        match &name[..] {
            b"x-imap" => self.has_x_imap = true,
            b"subject" => self.has_internal_subject = value == INTERNAL_SUBJECT,
            b"x-uidl" => self.parsed.x_uidl = Some(value.to_vec()),
            _ => {}
        }
    }
}

/// How many octets of whole lines there are in front of the first empty line.
fn text_without_boundary(text: &[u8]) -> usize {
    // The text begins at the beginning of a line.
    if text.starts_with(b"\n") || text.starts_with(b"\r\n") {
        return 0;
    }
    let mut ends = memchr::memchr_iter(b'\n', text);
    let Some(mut last) = ends.next() else { return 0 };
    loop {
        let next = &text[last + 1..];
        if next.starts_with(b"\n") || next.starts_with(b"\r\n") {
            return last + 1;
        }
        match ends.next() {
            Some(end) => last = end,
            // What follows the last line end may be the beginning of an empty line.
            None => return last + 1,
        }
    }
}

/// How many octets [`begins`] looks at.
pub(super) const LOOKED_AT: u64 = 64;

/// Checks that a file begins as an mbox does, by its first octets up to `end`. An empty file is an mbox, too.
///
/// # Errors
/// When it does not, and those of reading.
pub(super) fn begins(file: &File, end: u64) -> io::Result<()> {
    let mut octets = [0; LOOKED_AT as usize];
    let octets = &mut octets[..usize::try_from(end).unwrap_or(0)];
    file.read_exact_at(octets, 0)?;
    let text = octets.trim_ascii_start();
    if text.is_empty() || text.starts_with(b"From ") || b"From ".starts_with(text) {
        Ok(())
    } else {
        Err(not_an_mbox())
    }
}

fn not_an_mbox() -> io::Error {
    let why = "it is a file and not an mbox: an mbox begins with a line \"From …\"";
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file
    }

    fn parsed(text: &[u8]) -> Vec<Parsed> {
        let mut found = Vec::new();
        parse(&file(text), 0, text.len() as u64, &mut |message| found.push(message)).unwrap();
        found
    }

    fn texts(text: &[u8]) -> Vec<&[u8]> {
        parsed(text).iter().map(|it| &text[it.start as usize..it.end as usize]).collect()
    }

    /// The rules, slowly: the offsets of `From ` line, message and end.
    fn slowly(text: &[u8]) -> Vec<(usize, usize, usize)> {
        let mut lines = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive(|&octet| octet == b'\n') {
            lines.push((at, line));
            at += line.len();
        }
        let is_empty = |line: &[u8]| matches!(line, b"\n" | b"\r\n");
        let mut found: Vec<(usize, usize, usize)> = Vec::new();
        for (index, (at, line)) in lines.iter().enumerate() {
            if line.starts_with(b"From ") && (index == 0 || is_empty(lines[index - 1].1)) {
                if let Some(last) = found.last_mut() {
                    last.2 = last.1.max(lines[index - 1].0);
                }
                found.push((*at, at + line.len(), text.len()));
            }
        }
        if let (Some(last), Some((at, line))) = (found.last_mut(), lines.last())
            && is_empty(line)
        {
            last.2 = last.1.max(*at);
        }
        found
    }

    #[test]
    fn messages_are_found() {
        assert_eq!(texts(b""), [b""; 0]);
        assert_eq!(texts(b"From a\nS: 1\n\none\n\nFrom b\nS: 2\n\ntwo\n"), [&b"S: 1\n\none\n"[..], b"S: 2\n\ntwo\n"]);
        assert_eq!(texts(b"From a\nS: 1\n\none\n\n\nFrom b\nS: 2\n\n"), [&b"S: 1\n\none\n\n"[..], b"S: 2\n"]);
        assert_eq!(texts(b"From a\r\nS: 1\r\n\r\none\r\n\r\nFrom b\r\n"), [&b"S: 1\r\n\r\none\r\n"[..], b""]);
        // A line in a paragraph, a quoted one and one without a space are text.
        let text = b"From a\nS: 1\n\none\nFrom x\n\n>From y\n\nFrom: z\n";
        assert_eq!(texts(text), [&text[7..]]);
        assert_eq!(texts(b"\n\nFrom a\n\nno header"), [b"\nno header"]);
        assert_eq!(texts(b"From a"), [b""]);
        let long = [b"From ", &[b'x'; 3000][..], b"\nS: 1\n\none\n"].concat();
        assert_eq!(texts(&long), [b"S: 1\n\none\n"]);
    }

    #[test]
    fn other_files_are_refused() {
        for text in [&b"Subject: a\n"[..], b"\nx\nFrom a\n", b" From a\n", b"\0"] {
            let found = parse(&file(text), 0, text.len() as u64, &mut |_| {});
            assert_eq!(found.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn bookkeeping_does_not_change_the_hash() {
        let hash = |text: &str| parsed(text.as_bytes())[0].hash;
        let plain = hash("From a\nSubject: x\n\nStatus: text\n");
        for field in [
            "Status: RO",
            "X-Status: A",
            "X-Keywords: a\n  b",
            "X-UID: 7",
            "content-length: 1",
            "X-UIDL: x",
            "X-IMAPbase: 1 2",
        ] {
            assert_eq!(hash(&format!("From b\n{field}\nSubject: x\n\nStatus: text\n\n")), plain, "{field}");
            assert_eq!(hash(&format!("From b\nSubject: x\n{field}\n\nStatus: text\n")), plain, "{field}");
        }
        for other in
            ["From a\nSubject: y\n\nStatus: text\n", "From a\nSubject: x\n\nStatus: RO\n", "From a\nSubject: x\n\n"]
        {
            assert_ne!(hash(other), plain, "{other}");
        }
    }

    #[test]
    fn internal_data_and_x_uidl_are_recognised() {
        let internal =
            b"From MAILER-DAEMON\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1 2\n\nx\n\n\
            From a\nX-UIDL:  abc \nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n\nX-IMAP: 1\n";
        let found = parsed(internal);
        assert_eq!(found.iter().map(|it| it.is_internal).collect::<Vec<_>>(), [true, false]);
        assert_eq!(found[1].x_uidl.as_deref(), Some(&b"abc"[..]));
    }

    #[test]
    fn messages_across_blocks_are_found() {
        for shift in 0..40 {
            let body = "x".repeat(BLOCK - 60 + shift);
            let text = format!("From a\nS: 1\n\n{body}\n\nFrom b\nS: 2\n\ntwo\n");
            assert_eq!(texts(text.as_bytes()).len(), 2, "{shift}");
            let body = "y\n".repeat(BLOCK / 2 - 30 + shift / 2);
            let text = format!("From a{}\nS: 1\n\n{body}\nFrom b\nS: 2\n\ntwo\n", "z".repeat(shift % 2));
            assert_eq!(texts(text.as_bytes()).len(), 2, "{shift}");
        }
    }

    proptest! {
        #[test]
        fn boundaries_and_sizes_agree_with_the_slow_rules(
            lines in proptest::collection::vec(
                prop_oneof![Just("From x"), Just(""), Just("\r"), Just("a: b"), Just(" c"), Just("From"), Just(".")], 0..25),
            complete in any::<bool>(),
        ) {
            let mut text = format!("From first\n{}", lines.join("\n"));
            if complete {
                text.push('\n');
            }
            let text = text.as_bytes();
            let found = parsed(text);
            let offsets: Vec<_> =
                found.iter().map(|it| (it.from as usize, it.start as usize, it.end as usize)).collect();
            prop_assert_eq!(&offsets, &slowly(text));
            for (message, (_, start, end)) in found.iter().zip(offsets) {
                let mut meter = Meter::default();
                meter.push(&text[start..end]);
                prop_assert_eq!(message.octets, meter.finish().octets);
            }
        }
    }
}
