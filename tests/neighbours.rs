//! Maildirs that other programs use, too: what sessions do for them.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::{Maildrop, Server};
use crate::octets::{top_of, wire_form};

const MESSAGE: &str = "Subject: a\r\n\r\nbody\r\n";

/// A server with these flags, and a Maildir with these messages.
fn maildir(flags: &[&str], names: &[&str]) -> (Server, Maildrop) {
    let server = Server::builder().flags(flags.iter().copied()).start();
    let maildrop = server.maildrop();
    maildrop.make_maildir();
    for name in names {
        maildrop.put(name, MESSAGE);
    }
    (server, maildrop)
}

#[test]
fn only_complete_retrievals_are_marked_and_only_at_quit() {
    let names = ["new/1.a.h", "new/2.a.h", "new/3.a.h"];
    let (server, maildrop) = maildir(&["--seen"], &names);
    let mut session = server.session();
    session.fetch("RETR 1");
    drop(session);
    // The next login waits for the end of the session.
    let mut session = server.session();
    assert_eq!(maildrop.messages(), names);
    session.fetch("RETR 1");
    session.fetch("TOP 2 100");
    session.call("RSET");
    assert_eq!(maildrop.messages(), names);
    session.quit();
    assert_eq!(maildrop.messages(), ["cur/1.a.h:2,S", "new/2.a.h", "new/3.a.h"]);
    let mut session = server.session();
    assert_eq!(session.listing("UIDL"), ["1 1.a.h", "2 2.a.h", "3 3.a.h"]);
    assert_eq!(session.fetch("RETR 1"), MESSAGE.as_bytes());
    session.call("DELE 1");
    session.fetch("RETR 3");
    session.quit();
    assert_eq!(maildrop.messages(), ["cur/3.a.h:2,S", "new/2.a.h"]);
}

/// Landlock allows by itself neither to move a file to another directory nor to write to one that exists.
#[test]
fn a_confined_server_marks_messages_and_notes_removals() {
    let (server, maildrop) = maildir(&["--seen", "--confine", "--folders", "Junk"], &["new/1.a.h", "new/2.a.h"]);
    maildrop.put("maildirsize", "1000S\n");
    fs::create_dir_all(maildrop.path(".Junk/new")).unwrap();
    fs::create_dir_all(maildrop.path(".Junk/cur")).unwrap();
    maildrop.put(".Junk/new/3.a.h", MESSAGE);
    let mut session = server.session();
    for number in 1..=3 {
        session.fetch(&format!("RETR {number}"));
    }
    session.call("DELE 1");
    session.quit();
    assert_eq!(maildrop.messages(), ["cur/2.a.h:2,S"]);
    assert!(fs::exists(maildrop.path(".Junk/cur/3.a.h:2,S")).unwrap(), "{}", server.stderr());
    assert_eq!(fs::read_to_string(maildrop.path("maildirsize")).unwrap(), format!("1000S\n-{} -1\n", MESSAGE.len()));
}

#[test]
fn a_transformed_message_counts_as_retrieved() {
    let (server, maildrop) = maildir(&["--seen", "--transform", "cat"], &["new/1.a.h"]);
    let mut session = server.session();
    session.fetch("RETR 1");
    session.quit();
    assert_eq!(maildrop.messages(), ["cur/1.a.h:2,S"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Compressed messages

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// RFC 1939: RETR, TOP and LIST agree on the plain message, whose lines that begin with a dot are byte-stuffed.
#[test]
fn compressed_messages_are_sent_plain() {
    let line = |n: u32| format!(".{:x}\n", n.wrapping_mul(0x9e37_79b9).rotate_left(7) ^ n);
    let texts = [
        "Subject: a\n\n.dot\n..\nno line end".to_owned(),
        format!("Subject: b\n\n{}", (0..30_000).map(line).collect::<String>()),
    ];
    let (server, maildrop) = maildir(&[], &[]);
    for (n, text) in (1..).zip(&texts) {
        maildrop.put(&format!("cur/{n}.a.h,S={}:2,S", text.len()), gzip(text));
    }
    let transformed = Server::builder().mail(server.mail()).flags(["--transform", "cat"]).start();
    // The second login has an index.
    for _ in 0..2 {
        let mut session = server.session();
        let listing = session.listing("LIST");
        for (n, text) in (1..).zip(&texts) {
            let wire = wire_form(text.as_bytes());
            assert!(session.fetch(&format!("RETR {n}")) == wire, "message {n}");
            assert_eq!(listing[n - 1], format!("{n} {}", wire.len()));
            for lines in [0, 1, 1_000_000] {
                assert!(session.fetch(&format!("TOP {n} {lines}")) == top_of(&wire, lines as usize), "message {n}");
            }
        }
        session.quit();
        let mut session = transformed.session();
        for (n, text) in (1..).zip(&texts) {
            assert!(session.fetch(&format!("RETR {n}")) == wire_form(text.as_bytes()), "message {n}");
        }
        session.quit();
    }
}

#[test]
fn a_message_with_an_unsupported_compression_is_left_out_and_logged() {
    let (server, maildrop) = maildir(&[], &["new/2.a.h"]);
    maildrop.put("new/1.a.h,S=900,W=930", b"Dovecot-LZ4\x0d\x2a\x9b\xc5 and so on");
    let mut session = server.session();
    assert_eq!(session.listing("UIDL"), ["1 2.a.h"]);
    server
        .expect_log("WARN", "/new/1.a.h,S=900,W=930\" is left out: it is compressed with lz4, which is not supported");
    session.quit();
    assert!(fs::exists(maildrop.path("new/1.a.h,S=900,W=930")).unwrap());
}
