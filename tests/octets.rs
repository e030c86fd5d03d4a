//! RETR, TOP, LIST and STAT, compared octet by octet with a naive reference.

use std::os::unix::fs::FileExt;

use crate::harness::{Client, Server};

/// Sizes of blocks in which a server may read a message.
const BLOCKS: [usize; 3] = [8 * 1024, 64 * 1024, 128 * 1024];

/// Octets that a server may handle wrongly if the boundary of a block splits them.
const SEAMS: [&[u8]; 9] =
    [b"\r\n.\r\n", b"\n.\n", b"\r.\r\n", b"\r\n..\r\n.", b"\r\r\n", b"\r", b"\n", b"\r\n", b"\0\r\n.\0"];

/// The octets that a client has to receive for a stored message, without byte-stuffing (RFC 1939 sections 3 and 11).
pub(crate) fn wire_form(stored: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut before = b'\n';
    for &octet in stored {
        if octet == b'\n' && before != b'\r' {
            wire.push(b'\r');
        }
        wire.push(octet);
        before = octet;
    }
    if before != b'\n' {
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

/// The octets that TOP has to send of a message in wire form: the header, the empty line, and `count` lines of the
/// body.
pub(crate) fn top_of(wire: &[u8], count: usize) -> Vec<u8> {
    let mut left = None;
    let mut top = Vec::new();
    for line in wire.split_inclusive(|&octet| octet == b'\n') {
        if left == Some(0) {
            break;
        }
        top.extend_from_slice(line);
        // In wire form a line may contain a lone CR, but no lone LF.
        left = match left {
            None if line == b"\r\n" => Some(count),
            left => left.map(|left| left - 1),
        };
    }
    top
}

/// Starts a server with a flat maildrop of these messages in this order, and logs in.
fn serve(messages: &[Vec<u8>]) -> (Server, Client) {
    let server = Server::start();
    for (number, octets) in messages.iter().enumerate() {
        server.maildrop().put(&format!("{number}.eml"), octets);
    }
    let session = server.session();
    (server, session)
}

/// Checks every message and every size that a session reports.
#[track_caller]
fn check_all(session: &mut Client, messages: &[Vec<u8>]) {
    let wires: Vec<_> = messages.iter().map(|stored| wire_form(stored)).collect();
    let total: usize = wires.iter().map(Vec::len).sum();
    assert_eq!(session.call("STAT"), format!("{} {total}", messages.len()));
    let sizes: Vec<_> = (1..).zip(&wires).map(|(number, wire)| format!("{number} {}", wire.len())).collect();
    assert_eq!(session.listing("LIST"), sizes);
    for (number, wire) in (1..).zip(&wires) {
        let got = session.fetch(&format!("RETR {number}"));
        assert!(got == *wire, "message {number}: {}", difference(&got, wire));
    }
}

/// Describes the first difference of two messages, with some octets around it.
pub(crate) fn difference(got: &[u8], expected: &[u8]) -> String {
    let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let around = |octets: &[u8]| octets[at.saturating_sub(10)..octets.len().min(at + 10)].escape_ascii().to_string();
    let (lengths, at_got, at_expected) = ((got.len(), expected.len()), around(got), around(expected));
    format!("octet {at} of {lengths:?}: got ...{at_got}..., expected ...{at_expected}...")
}

/// A generator of pseudo-random numbers that are the same in every run.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// A number from 0 to `limit` - 1.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // A linear congruential generator with Knuth's multiplier. Only its high bits are random enough.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn octets(&mut self, length: usize, alphabet: &[u8]) -> Vec<u8> {
        (0..length).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

#[test]
fn line_ends_and_dots_are_right_at_every_block_boundary() {
    let fillers: [&[u8]; 2] = [b"x", b"abcdefg\r\n"];
    for filler in fillers {
        let mut messages = Vec::new();
        for block in BLOCKS {
            for seam in SEAMS {
                for length in block - 4..=block + 1 {
                    let mut message: Vec<u8> = filler.iter().copied().cycle().take(length).collect();
                    message.extend_from_slice(seam);
                    messages.push(message.clone());
                    message.extend_from_slice(b"tail\r\n");
                    messages.push(message);
                }
            }
        }
        let (_server, mut session) = serve(&messages);
        check_all(&mut session, &messages);
    }
}

#[test]
fn messages_that_repeat_one_octet_or_line_end_are_sent_right() {
    let long = 200_000;
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for piece in [&b"."[..], b"\r", b"\n", b"\0", b"\xff", b"\r\n", b".\n", b".\r\n", b"\r\r\n", b"\n\r", b"..\r\n"] {
        messages.extend([1, 2, 3].map(|times| piece.repeat(times)));
        messages.push(piece.repeat(long / piece.len()));
    }
    let (_server, mut session) = serve(&messages);
    check_all(&mut session, &messages);
}

#[test]
fn lines_of_a_megabyte_are_sent_whole() {
    let line = vec![b'l'; 1 << 20];
    let messages = [
        [&line[..], b"\r\n", &line, b"\r\n"].concat(),
        [&line[..], b"\n.", &line, b"\n"].concat(),
        [b".", &line[..], b"\r\n.\r\n", &line].concat(),
    ];
    let (_server, mut session) = serve(&messages);
    check_all(&mut session, &messages);
}

#[test]
fn short_messages_of_dots_and_line_ends_are_sent_right() {
    let mut chance = Chance(1939);
    let messages: Vec<_> = (0..600)
        .map(|_| {
            let length = chance.below(40);
            chance.octets(length, b"..\r\r\n\n\na\0")
        })
        .collect();
    let (_server, mut session) = serve(&messages);
    check_all(&mut session, &messages);
    for (number, stored) in (1..).zip(&messages) {
        for count in [0, 1, 2, 5] {
            let top = session.fetch(&format!("TOP {number} {count}"));
            assert_eq!(top.escape_ascii().to_string(), top_of(&wire_form(stored), count).escape_ascii().to_string());
        }
    }
}

#[test]
fn long_messages_of_dots_and_line_ends_are_sent_right() {
    let mut chance = Chance(2449);
    let messages: Vec<_> = BLOCKS.iter().map(|block| chance.octets(3 * block + 1, b"..\r\r\n\n\nab\0\xff")).collect();
    let (_server, mut session) = serve(&messages);
    check_all(&mut session, &messages);
    for (number, stored) in (1..).zip(&messages) {
        for count in [0, 100, 10_000] {
            let (top, expected) = (session.fetch(&format!("TOP {number} {count}")), top_of(&wire_form(stored), count));
            assert!(top == expected, "TOP {number} {count}: {}", difference(&top, &expected));
        }
    }
}

#[test]
fn top_sends_a_header_that_is_longer_than_any_block() {
    let header = b"X-Header: value\r\n".repeat(20_000);
    let message = [&header[..], b"\r\n", b"one\r\ntwo\r\n"].concat();
    let (_server, mut session) = serve(std::slice::from_ref(&message));
    for count in [0, 1] {
        let top = session.fetch(&format!("TOP 1 {count}"));
        assert!(top == top_of(&message, count), "TOP 1 {count}");
    }
    session.call("NOOP");
}

/// Maildir++ writes a message's sizes into its file name. Sizes in a name may be wrong; STAT and LIST report what RETR
/// sends (RFC 1939 section 11).
#[test]
fn wrong_sizes_in_a_file_name_do_not_change_what_is_reported() {
    let stored = b"Subject: a\n\nbody\n";
    let wire = wire_form(stored);
    let (stored_size, wire_size) = (stored.len(), wire.len());
    let server = Server::start();
    for (second, sizes) in (1..).zip([
        format!(",S={stored_size},W={wire_size}"),
        format!(",S={stored_size},W=5"),
        format!(",S={stored_size},W=100000"),
        format!(",S=1,W={wire_size}"),
        ",S=0,W=0".to_owned(),
        ",S=x,W=".to_owned(),
    ]) {
        server.maildrop().put(&format!("new/100000000{second}.host{sizes}"), stored);
    }
    let mut session = server.session();
    check_all(&mut session, &vec![stored.to_vec(); 6]);
}

/// Other servers get totals wrong that do not fit into 32 bits. The messages are sparse files with their sizes in their
/// names, so that the server need not read them.
#[test]
fn stat_reports_a_total_over_4_gib() {
    let server = Server::start();
    let (stored, octets) = (2_500_000_000_u64, 2_500_000_001_u64);
    for n in 1..=2 {
        let path = server.maildrop().put(&format!("new/{n}.a,S={stored},W={octets}"), "");
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(b"\n", stored - 1).unwrap();
    }
    let mut client = server.session();
    assert_eq!(client.call("STAT"), format!("2 {}", 2 * octets));
}
