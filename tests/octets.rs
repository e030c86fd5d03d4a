//! Compares what RETR, TOP, LIST and STAT send, octet by octet, with a naive reference.

use std::os::unix::fs::FileExt;

use crate::harness::{Client, Server};

/// Block sizes at which a server may cut a message in two.
const BLOCKS: [usize; 3] = [8 * 1024, 64 * 1024, 128 * 1024];

/// What matters when it is cut in two.
const SEAMS: [&[u8]; 9] =
    [b"\r\n.\r\n", b"\n.\n", b"\r.\r\n", b"\r\n..\r\n.", b"\r\r\n", b"\r", b"\n", b"\r\n", b"\0\r\n.\0"];

/// What a client is to receive of a stored message, byte-stuffing undone: RFC 1939 sections 3 and 11, an octet at a
/// time.
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

/// What TOP is to send of a message in wire form: up to the first empty line, and `count` lines more.
pub(crate) fn top_of(wire: &[u8], count: usize) -> Vec<u8> {
    let mut left = None;
    let mut top = Vec::new();
    for line in wire.split_inclusive(|&octet| octet == b'\n') {
        if left == Some(0) {
            break;
        }
        top.extend_from_slice(line);
        // A line may hold a lone CR, never a lone LF.
        left = match left {
            None if line == b"\r\n" => Some(count),
            left => left.map(|left| left - 1),
        };
    }
    top
}

/// A server with these messages as a flat maildrop, in this order, and a session.
fn serve(messages: &[Vec<u8>]) -> (Server, Client) {
    let server = Server::start();
    for (number, octets) in messages.iter().enumerate() {
        server.maildrop().put(&format!("{number}.eml"), octets);
    }
    let session = server.session();
    (server, session)
}

/// Checks every message and every size of a session.
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

/// Where two messages part, with some octets around it.
pub(crate) fn difference(got: &[u8], expected: &[u8]) -> String {
    let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let around = |octets: &[u8]| octets[at.saturating_sub(10)..octets.len().min(at + 10)].escape_ascii().to_string();
    let (lengths, at_got, at_expected) = ((got.len(), expected.len()), around(got), around(expected));
    format!("octet {at} of {lengths:?}: got ...{at_got}..., expected ...{at_expected}...")
}

/// Octets that look like chance and are the same in every run.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // Knuth's multiplier; the high bits are good enough.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn octets(&mut self, length: usize, alphabet: &[u8]) -> Vec<u8> {
        (0..length).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

#[test]
fn every_seam_at_every_block_boundary() {
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
fn a_kind_of_octet_and_nothing_else() {
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
fn lines_of_a_megabyte() {
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
fn short_messages_of_all_that_is_special() {
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
fn long_messages_of_all_that_is_special() {
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
fn a_header_longer_than_any_block() {
    let header = b"X-Header: value\r\n".repeat(20_000);
    let message = [&header[..], b"\r\n", b"one\r\ntwo\r\n"].concat();
    let (_server, mut session) = serve(std::slice::from_ref(&message));
    for count in [0, 1] {
        let top = session.fetch(&format!("TOP 1 {count}"));
        assert!(top == top_of(&message, count), "TOP 1 {count}");
    }
    session.call("NOOP");
}

/// Maildir++ writes sizes into names. A name can lie, the octets cannot: RFC 1939 section 11, checklist 41.
#[test]
fn sizes_in_a_name_are_not_believed_against_the_octets() {
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

/// A total that does not fit 32 bits: checklist 34, and what peers get wrong. The messages are sparse files whose
/// names tell their octets, so that nobody has to read them.
#[test]
fn a_total_over_4_gib() {
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
