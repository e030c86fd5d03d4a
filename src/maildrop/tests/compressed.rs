//! Messages that another server has compressed.

use std::fs;
use std::io::Write;

use bzip2::write::BzEncoder;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::super::*;
use super::update::text;
use super::{Mail, number};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &str) -> Vec<u8> {
    compress_to_vec(text.as_bytes(), CompressionLevel::Fastest)
}

fn bzip2(text: &str) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), bzip2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

const KINDS: [fn(&str) -> Vec<u8>; 3] = [gzip, zstd, bzip2];

/// A message of several blocks that cannot be compressed well.
fn long() -> String {
    let line = |n: u64| format!("{:x}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ n);
    ["Subject: long\n\n".to_owned()].into_iter().chain((0..20_000).map(line)).collect()
}

/// The octets on the wire.
fn octets(text: &str) -> u64 {
    text.replace('\n', "\r\n").len() as u64 + if text.ends_with('\n') { 0 } else { 2 }
}

impl Mail {
    fn put_octets(&self, name: &str, octets: &[u8]) {
        fs::write(self.path(name), octets).unwrap();
    }

    /// Checks what a login lists and what it opens, with and without an index.
    #[track_caller]
    fn expect(&self, texts: &[&str]) {
        self.settle();
        for _ in 0..2 {
            let mut open = self.open();
            let listed: Vec<_> = open.messages().map(|(_, message)| message.octets()).collect();
            assert_eq!(listed, texts.iter().map(|text| octets(text)).collect::<Vec<_>>());
            for (n, expected) in (1..).zip(texts) {
                let opened = open.open_message(number(n)).unwrap();
                assert_eq!(opened.octets, octets(expected));
                assert!(text(opened) == *expected, "message {n}");
            }
        }
        assert_eq!(self.listing(), self.fresh_listing());
    }
}

#[test]
fn compressed_messages_are_listed_and_opened_plain() {
    let long = long();
    let texts = ["Subject: a\n\nshort\n", "Subject: b\n\nno line end", &long, &"x".repeat(3_000_000)];
    for kind in KINDS {
        let mail = Mail::maildir();
        for (n, text) in (1..).zip(texts) {
            // Dovecot does not count the line end that is added.
            let (size, wire) = (text.len(), text.replace('\n', "\r\n").len());
            mail.put_octets(&format!("cur/{n}.a.h,S={size},W={wire}:2,S"), &kind(text));
        }
        mail.expect(&texts);
    }
}

#[test]
fn messages_that_a_script_has_compressed_have_a_flag() {
    let mail = Mail::maildir();
    mail.put_octets("cur/1.a.h:2,SZ", &gzip("Subject: a\n\na\n"));
    mail.put_octets("cur/2.a.h:2,Z", &zstd("Subject: b\n\nb\n"));
    mail.put_octets("cur/3.a.h:2,Z", b"Subject: plain\n\nplain\n");
    mail.expect(&["Subject: a\n\na\n", "Subject: b\n\nb\n", "Subject: plain\n\nplain\n"]);
}

#[test]
fn files_of_several_parts_are_read_to_their_end() {
    let mail = Mail::maildir();
    for (n, kind) in (1..).zip(KINDS) {
        mail.put_octets(&format!("new/{n}.a.h,S=9"), &[kind("one\n"), kind("two\n"), kind("\n")].concat());
    }
    mail.expect(&["one\ntwo\n\n"; 3]);
}

/// No name says that these are compressed.
#[test]
fn plain_messages_that_look_compressed_are_sent_as_they_are() {
    let mail = Mail::maildir();
    let octets = gzip("Subject: a\n\na\n");
    mail.put_octets("new/1.a.h", &octets);
    mail.put_octets("cur/2.a.h:2,S", &octets);
    mail.put_octets(&format!("cur/3.a.h,S={},W=9:2,S", octets.len()), &octets);
    mail.put("cur/4.a.h,S=99:2,S", "BZh is not the beginning of a header\n");
    let mut open = mail.open();
    assert_eq!(open.count(), 3, "a damaged file is left out");
    for n in 1..=3 {
        let mut sent = Vec::new();
        std::io::Read::read_to_end(&mut open.open_message(number(n)).unwrap().source, &mut sent).unwrap();
        assert_eq!(sent, octets);
    }
    let flat = Mail::flat();
    flat.put_octets("1,S=9", &octets);
    assert_eq!(flat.open().octets(), octets.len() as u64 + 2);
}

/// A short message may take as many octets with compression as without it.
#[test]
fn a_compressed_message_may_have_its_plain_size() {
    let text = |n| format!("Subject: {}\n\n{}\n", "qwertzuiopasdfghjklyxcvbnm", "-".repeat(n));
    let same = (0..200).map(text).find(|text| gzip(text).len() == text.len()).expect("such a length");
    let mail = Mail::maildir();
    mail.put_octets(&format!("new/1.a.h,S={}", same.len()), &gzip(&same));
    mail.expect(&[&same]);
}

#[test]
fn damaged_messages_are_left_out() {
    for kind in KINDS {
        let mail = Mail::maildir();
        let (long, whole) = (long(), kind(&long()));
        mail.put_octets(&format!("new/1.a.h,S={}", long.len()), &whole[..whole.len() - 9]);
        mail.put_octets(&format!("new/2.a.h,S={}", long.len()), &whole[..20]);
        mail.put("new/3.a.h", "whole\n");
        assert_eq!(mail.ids(), ["3.a.h"]);
    }
    let mail = Mail::maildir();
    mail.put_octets("new/1.a.h,S=900", b"Dovecot-LZ4\x0d\x2a\x9b\xc5 and so on");
    mail.put("new/3.a.h", "whole\n");
    assert_eq!(mail.ids(), ["3.a.h"]);
}

#[test]
fn the_quota_counts_the_size_before_compression() {
    let mail = Mail::maildir();
    mail.put_octets("new/1.a.h,S=13,W=15", &gzip("Subject: a\n\na"));
    mail.put("maildirsize", "1000S\n13 1\n");
    let mut open = mail.open();
    open.mark(number(1));
    assert_eq!(open.commit(None), Update { removed: 1, failed: 0 });
    assert_eq!(fs::read_to_string(mail.path("maildirsize")).unwrap(), "1000S\n13 1\n-13 -1\n");
}
