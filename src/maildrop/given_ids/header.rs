//! The fields of a message's header in which other servers keep its unique-id, or from which they make it.

use std::io::{self, Read};

use md5::{Digest, Md5};

use super::{is_unique_id, number};

/// The most octets of a header that are read.
const LONGEST: usize = 1 << 16;

/// How many octets are read at once.
const STEP: usize = 1 << 12;

/// A message's header, without the empty line at its end.
pub(super) struct Header(Vec<u8>);

impl Header {
    /// Reads the header of a message, or its first 64 KiB.
    pub(super) fn read(mut message: impl Read) -> io::Result<Self> {
        let mut text = Vec::new();
        while text.len() < LONGEST {
            let from = text.len();
            if message.by_ref().take(STEP as u64).read_to_end(&mut text)? == 0 {
                break;
            }
            // The end of the header may have begun in the piece before.
            if let Some(end) = end_of_header(&text, from.saturating_sub(3)) {
                text.truncate(end);
                break;
            }
        }
        Ok(Self(text))
    }

    /// Reads the first header of an mbox, behind its `From ` line.
    pub(super) fn first_of_mbox(mbox: impl Read) -> io::Result<Self> {
        let Self(mut text) = Self::read(mbox)?;
        let start = memchr::memchr(b'\n', &text).map_or(text.len(), |end| end + 1);
        text.drain(..start);
        Ok(Self(text))
    }

    /// The fields: the name, and the lines of the value without line ends. One octet of white space behind the colon is
    /// left out.
    fn fields(&self) -> Vec<(&[u8], Vec<&[u8]>)> {
        let mut fields: Vec<(&[u8], Vec<&[u8]>)> = Vec::new();
        for line in self.0.split(|&octet| octet == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                if let Some((_, lines)) = fields.last_mut() {
                    lines.push(line);
                }
            } else if let Some(colon) = memchr::memchr(b':', line) {
                let value = &line[colon + 1..];
                let value = value.strip_prefix(b" ").or_else(|| value.strip_prefix(b"\t")).unwrap_or(value);
                fields.push((line[..colon].trim_ascii_end(), vec![value]));
            }
        }
        fields
    }

    /// The first word of the first field with this name.
    fn word(&self, name: &str) -> Option<Vec<u8>> {
        let fields = self.fields();
        let (_, lines) = fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))?;
        let words = lines.iter().flat_map(|line| line.split(u8::is_ascii_whitespace));
        words.into_iter().find(|word| !word.is_empty()).map(<[u8]>::to_vec)
    }

    /// The unique-id that qpopper stored.
    pub(super) fn x_uidl(&self) -> Option<Vec<u8>> {
        self.word("X-UIDL").filter(|id| is_unique_id(id))
    }

    /// The message's UID in an mbox of an IMAP server.
    pub(super) fn x_uid(&self) -> Option<u32> {
        number(&self.word("X-UID")?)
    }

    /// The UIDVALIDITY and the last UID of an mbox, which IMAP servers keep in its first header.
    pub(super) fn imap_base(&self) -> Option<(u32, u32)> {
        let fields = self.fields();
        let is_base = |name: &[u8]| name.eq_ignore_ascii_case(b"X-IMAPbase") || name.eq_ignore_ascii_case(b"X-IMAP");
        let (_, lines) = fields.iter().find(|(name, _)| is_base(name))?;
        let mut words = lines[0].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        Some((number(words.next()?)?, number(words.next()?)?))
    }

    /// The MD5 that Dovecot makes of some fields: `Delivered-To`, `X-Delivery-ID` and the first `Received`, and of
    /// `Date` and `Message-ID` in front of that.
    pub(super) fn hash(&self) -> Vec<u8> {
        let mut hash = Md5::new();
        let mut is_received = false;
        for (name, lines) in self.fields() {
            let is = |names: &[&str]| names.iter().any(|it| name.eq_ignore_ascii_case(it.as_bytes()));
            let is_first = is(&["Date", "Message-ID", "Received"]) && !is_received;
            if is_first || is(&["Delivered-To", "X-Delivery-ID"]) {
                lines.iter().for_each(|line| hash.update(line));
            }
            is_received |= is(&["Received"]);
        }
        hash.finalize().iter().flat_map(|octet| format!("{octet:02x}").into_bytes()).collect()
    }
}

/// Where the header ends: behind the last field. The search begins at `from`.
fn end_of_header(text: &[u8], from: usize) -> Option<usize> {
    if text.starts_with(b"\n") || text.starts_with(b"\r\n") {
        return Some(0);
    }
    let ends = memchr::memchr_iter(b'\n', &text[from..]).map(|at| from + at + 1);
    ends.into_iter().find(|&end| text[end..].starts_with(b"\n") || text[end..].starts_with(b"\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Header {
        Header::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_the_header_is_read() {
        let body = "\nX-UIDL: of-the-body\n";
        for (text, expected) in [
            (format!("Subject: a\nX-uidl:  abc  \n{body}"), Some("abc")),
            (format!("Subject: a\r\nX-UIDL: a\r\n\r\n{body}"), Some("a")),
            (format!("Subject: a\n{body}"), None),
            (body.to_owned(), None),
            (format!("X-Long: {}\nX-UIDL: far\n{body}", "x".repeat(4090)), Some("far")),
            (format!("X-UIDL: {}\n{body}", "x".repeat(71)), None),
            ("X-UIDL: no-end".to_owned(), Some("no-end")),
        ] {
            assert_eq!(header(&text).x_uidl().as_deref(), expected.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn an_imap_servers_numbers_are_read() {
        let text = "From a@b Sat\nX-IMAPbase: 1795846174 0000000003 $Junk\nX-UID: 1    \nStatus: RO\n\nX-UID: 9\n";
        let first = Header::first_of_mbox(text.as_bytes()).unwrap();
        assert_eq!((first.imap_base(), first.x_uid()), (Some((1_795_846_174, 3)), Some(1)));
        assert_eq!(header("X-IMAP: 7 8\n\n").imap_base(), Some((7, 8)));
        assert_eq!(header("X-UID: x\n\n").x_uid(), None);
    }

    /// The hashes are those that Dovecot 2.3.19 gave for these messages with `pop3_uidl_format = %m`.
    #[test]
    fn the_hash_is_dovecots() {
        let received = "Return-path: <a@b>\nReceived: from x by y\n\twith esmtp id 1abc;\n\tSat, 28 Nov 2026 06:00:00 +0000\n\
            Received: second\nDate: Sat, 28 Nov 2026\nDelivered-To: ana@y\nMessage-ID: <1@b>\nX-UIDL: qpop1\n\nx\n";
        assert_eq!(header(received).hash(), b"2f28fd6e5d365895517a67456fcd3eb7");
        let local = "Date: Sat, 28 Nov 2026\nMessage-ID:   <2@b>  \nSubject: two\n\nbody two\n";
        assert_eq!(header(local).hash(), b"aed05151d273139e25d882818f834d07");
        assert_eq!(header("Subject: three\n\nbody three\n").hash(), b"d41d8cd98f00b204e9800998ecf8427e");
    }
}
