//! The transforms in `scripts/transforms`, each through the real server.

use std::path::Path;

use crate::harness::{Server, USER};

/// A server whose transform is this script with these arguments.
fn server(script: &str, arguments: &str) -> Server {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/transforms").join(script);
    let transform = format!("'{}' {arguments}", script.display());
    Server::builder().flags(["-t", &transform, "--transform-sizes", "exact"]).start()
}

/// What a client gets of these messages.
fn transformed(script: &str, arguments: &str, messages: &[&[u8]]) -> Vec<Vec<u8>> {
    let server = server(script, arguments);
    for (number, message) in (1..).zip(messages) {
        server.maildrop().put(&format!("{number:03}"), message);
    }
    let mut client = server.session();
    (1..=messages.len()).map(|number| client.fetch(&format!("RETR {number}"))).collect()
}

#[track_caller]
fn becomes(script: &str, arguments: &str, cases: &[(&str, &str)]) {
    let messages: Vec<_> = cases.iter().map(|(message, _)| message.as_bytes()).collect();
    for (got, (message, expected)) in transformed(script, arguments, &messages).iter().zip(cases) {
        assert_eq!(String::from_utf8_lossy(got), expected.replace('\n', "\r\n"), "{message}");
    }
}

/// Messages that are broken in many ways. No script may fail on one of them.
fn broken() -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = [
        "",
        "\n",
        "no header, no end",
        ": \n\n",
        "Content-Type: multipart/mixed\n\n--a\n",
        "Content-Type: multipart/mixed; boundary=\"\"\n\n--\n--\n",
        "Content-Type: multipart/mixed; boundary=a\n\n--a--\n--a\n\n--a",
        "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/mixed; boundary=a\n\n--a\n--a--\n--a--\n",
        "Content-Type: multipart/mixed; boundary*0=a; boundary*2=b\n\n--a\n\nx\n--a--\n",
        "Content-Type: multipart/mixed; boundary*=nonsense'en'a%ff\n\n--a\n\nx\n--a--\n",
        "Content-Type: \u{1}/\u{2}; charset=\"\n\n\u{3}\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    messages.push((0..=255).collect());
    messages.push([b"Content-Type: text/plain; name=\"\xff\xfe\"\n\n".as_slice(), &[0xff; 300]].concat());
    messages.push(b"x".repeat(300_000));
    // Multiparts within multiparts.
    messages.push(
        (0..200)
            .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n"))
            .collect::<String>()
            .into(),
    );
    messages
}

/// What a client gets without a transform.
fn plain(messages: &[&[u8]]) -> Vec<Vec<u8>> {
    let server = Server::start();
    for (number, message) in (1..).zip(messages) {
        server.maildrop().put(&format!("{number:03}"), message);
    }
    let mut client = server.session();
    (1..=messages.len()).map(|number| client.fetch(&format!("RETR {number}"))).collect()
}

#[test]
fn what_is_not_meant_stays_to_the_octet() {
    let messages = broken();
    let mut messages: Vec<_> = messages.iter().map(Vec::as_slice).collect();
    let others: [&[u8]; 3] = [
        b"Subject: \xe9 8-bit\r\nContent-Type: text/plain\r\n\r\n\xff\xfe lone\rcr\r\n.dot\r\n",
        b"Content-Type: multipart/alternative; boundary=a\n\n--a\n\ntext\n--a\nContent-Type: text/html\n\n<b>text</b>\n--a--\n",
        b"Content-Type: multipart/signed; boundary=a\n\n--a\nContent-Type: text/html; name=x\n\n<b>signed, and long enough to be stripped</b>\n--a--\n",
    ];
    messages.extend(others);
    let expected = plain(&messages);
    for (script, arguments) in [("html-to-text", ""), ("strip-attachments", "20")] {
        assert_eq!(transformed(script, arguments, &messages), expected, "{script}");
    }
    for (got, expected) in transformed("add-header", "X-Note value", &messages).iter().zip(&expected) {
        assert_eq!(got.strip_prefix(b"X-Note: value\r\n"), Some(&expected[..]), "{}", expected.escape_ascii());
    }
}

#[test]
fn a_header_field_is_added_and_forged_ones_are_removed() {
    becomes(
        "add-header",
        "X-Fetched-By 'pop3d for {user}'",
        &[
            ("Subject: a\n\nbody\n", &format!("X-Fetched-By: pop3d for {USER}\nSubject: a\n\nbody\n")),
            (
                "x-fetched-by: forged\n with more\nSubject: a\nX-Fetched-By : again\n\nX-Fetched-By: body\n",
                &format!("X-Fetched-By: pop3d for {USER}\nSubject: a\n\nX-Fetched-By: body\n"),
            ),
        ],
    );
}

#[test]
fn only_large_attachments_are_replaced() {
    let message = "Subject: files\nContent-Type: multipart/mixed; boundary=\"a b\"\n\npreamble\n--a b\nContent-Type: text/plain\n\n\
        a text that is longer than an attachment may be\n--a b\nContent-Type: image/png; name=\"big \u{e9}.png\"\n\
        Content-Transfer-Encoding: base64\n\nAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nAAAA\n--a b\nContent-Disposition: attachment;\n filename=small.txt\n\n\
        small\n--a b--\nepilogue\n";
    let expected = message.replace(
        "Content-Type: image/png; name=\"big \u{e9}.png\"\nContent-Transfer-Encoding: base64\n\nAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nAAAA\n",
        "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nContent-Disposition: inline\n\n\
         [Attachment removed: big \u{e9}.png, image/png, 34 octets]\n\n",
    );
    // One multipart in another, and an attachment that ends with the message.
    let nested = format!(
        "Content-Type: multipart/mixed; boundary=outer\n\n--outer\n{}--outer--\n",
        message.replace("Subject: files\n", "")
    );
    let expected_nested = format!(
        "Content-Type: multipart/mixed; boundary=outer\n\n--outer\n{}--outer--\n",
        expected.replace("Subject: files\n", "")
    );
    let cut = "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Disposition: attachment\n\n0123456789012345678901234567890";
    let expected_cut = "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: text/plain; charset=utf-8\n\
        Content-Transfer-Encoding: 8bit\nContent-Disposition: inline\n\n\
        [Attachment removed: without a name, text/plain, 31 octets]\n\n";
    becomes("strip-attachments", "30", &[(message, &expected), (&nested, &expected_nested), (cut, expected_cut)]);
}

/// The script has 100 MiB of memory, and the attachment as many octets.
#[test]
fn a_huge_attachment_needs_little_memory() {
    let line = "A".repeat(76) + "\n";
    let message = format!(
        "Content-Type: multipart/mixed; boundary=a\n\n--a\n\ntext\n--a\nContent-Type: x/y; name=huge\n\n{}--a--\n",
        line.repeat(30 << 20 >> 6)
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/transforms/strip-attachments");
    let transform = format!("'{}' 1M", script.display());
    let server = Server::builder().flags(["-t", &transform, "--transform-limit", "memory=100M"]).start();
    server.maildrop().put("1", message);
    let got = String::from_utf8(server.session().fetch("RETR 1")).unwrap();
    assert!(got.contains("[Attachment removed: huge, x/y, 37847040 octets]\r\n"), "{got}");
}

#[test]
fn html_alone_becomes_text() {
    let page = "<html><head><title>T</title><style>p {}</style></head><body><h1>News</h1><p>Dear Ana,<br>see \
        <a href=\"https://example.org/x\">this &amp; that</a>.</p><ul><li>one<li>two</ul><script>x()</script>\
        <pre>a\n  b</pre></body></html>\n";
    let text = "News\n\nDear Ana,\nsee this & that <https://example.org/x>.\n\n* one\n* two\n\na\n  b\n";
    let header = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n";
    becomes(
        "html-to-text",
        "",
        &[
            (
                &format!("Subject: s\nContent-Type: text/html;\n charset=us-ascii\nX-Last: x\n\n{page}"),
                &format!("Subject: s\nX-Last: x\n{header}\n{text}"),
            ),
            (
                "Subject: q\nContent-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n<p>caf=E9 =\nau lait</p>\n",
                &format!("Subject: q\n{header}\ncaf\u{e9} au lait\n"),
            ),
            (
                "Content-Type: multipart/related; boundary=r\n\n--r\nContent-Type: text/html\n\n<b>Hi</b> <img alt=logo src=cid:1>\n--r\nContent-Type: image/png\nContent-Id: <1>\n\nAAAA\n--r--\n",
                &format!(
                    "Content-Type: multipart/related; boundary=r\n\n--r\n{header}\nHi [logo]\n\n--r\nContent-Type: image/png\nContent-Id: <1>\n\nAAAA\n--r--\n"
                ),
            ),
        ],
    );
}
