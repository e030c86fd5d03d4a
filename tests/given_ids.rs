//! Unique-ids that Dovecot, Courier and qpopper gave to messages before.

use std::fs::{self, File, FileTimes};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::inotify;

use crate::harness::{MailRoot, Maildrop, PROGRAM, Server, USER, bounded_output, eventually};

const DOVECOT: &str = "dovecot-uidlist";
const COURIER: &str = "courierpop3dsizelist";

/// Writes a list as if it had been there for a minute, so that a login can know that it has read all of it.
fn write_list(maildrop: &Maildrop, name: &str, text: &str) {
    fs::write(maildrop.path(name), text).unwrap();
    let time = SystemTime::now() - Duration::from_secs(60);
    File::options()
        .write(true)
        .open(maildrop.path(name))
        .unwrap()
        .set_times(FileTimes::new().set_modified(time))
        .unwrap();
}

/// The unique-ids that a session shows.
fn listed(server: &Server) -> Vec<String> {
    let mut session = server.session();
    let ids: Vec<String> = session.listing("UIDL").iter().map(|line| line[2..].to_owned()).collect();
    for (number, id) in (1..).zip(&ids) {
        assert_eq!(session.call(&format!("UIDL {number}")), format!("{number} {id}"));
    }
    session.quit();
    ids
}

fn start(mail: &MailRoot, flags: &[&str]) -> Server {
    Server::builder().mail(mail).flags(flags.iter().copied()).start()
}

fn mail_with(names: &[&str]) -> (MailRoot, Maildrop) {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    for name in names {
        maildrop.put(name, "Subject: a\n\na\n");
    }
    (mail, maildrop)
}

/// The unique-ids of a Maildir with four messages, and with lists of both servers, under these flags.
fn unique_ids(flags: &[&str]) -> Vec<String> {
    let (mail, maildrop) = mail_with(&["cur/1.a.h:2,S", "cur/2.a.h:2,", "new/3.a.h", "new/4.a.h"]);
    write_list(&maildrop, DOVECOT, "3 V10 N5 Gx\n1 :1.a.h\n2 P4.a.h :2.a.h\n5 Ptwice :3.a.h\n6 :9.a.h\n");
    write_list(&maildrop, COURIER, "/3 9 7\n1.a.h:2,S 14 8:7:0\n4.a.h 14 4:7:0\n");
    let server = start(&mail, flags);
    let ids = listed(&server);
    // A later login, with an index, has the same; and so has one after the lists are gone.
    assert_eq!(listed(&server), ids);
    fs::remove_file(maildrop.path(DOVECOT)).unwrap();
    fs::remove_file(maildrop.path(COURIER)).unwrap();
    fs::remove_file(maildrop.path(".pop3d-index")).unwrap_or(());
    assert_eq!(listed(&server), ids);
    ids
}

#[test]
fn messages_keep_the_unique_ids_of_the_server_before() {
    let own = ["1.a.h", "2.a.h", "3.a.h", "4.a.h"];
    assert_eq!(unique_ids(&[]), own);
    // The second message would have the fourth one's own unique-id.
    let dovecot = ["000000010000000a", "2.a.h", "twice", "4.a.h"];
    assert_eq!(unique_ids(&["--unique-ids", "dovecot"]), dovecot);
    let courier = ["UID8-7", "2.a.h", "3.a.h", "UID4-7"];
    assert_eq!(unique_ids(&["--unique-ids", "courier"]), courier);
    let both = ["10.1", "4.a.h", "twice", "UID4-7"];
    assert_eq!(unique_ids(&["--unique-ids", "auto", "--dovecot-uidl-format", "%v.%u"]), both);
}

#[test]
fn a_list_is_read_again_when_it_has_changed() {
    let (mail, maildrop) = mail_with(&["new/1.a.h", "new/2.a.h"]);
    write_list(&maildrop, DOVECOT, "3 V10 N2 Gx\n1 Pone :1.a.h\n");
    let server = start(&mail, &["--unique-ids", "dovecot"]);
    assert_eq!(listed(&server), ["one", "2.a.h"]);
    let kept = fs::read(maildrop.path(".pop3d-ids")).unwrap();
    assert_eq!(listed(&server), ["one", "2.a.h"]);
    assert_eq!(fs::read(maildrop.path(".pop3d-ids")).unwrap(), kept);
    write_list(&maildrop, DOVECOT, "3 V10 N3 Gx\n1 Pone :1.a.h\n2 Ptwo :2.a.h\n");
    assert_eq!(listed(&server), ["one", "two"]);
    maildrop.put("new/3.a.h", "Subject: a\n\na\n");
    assert_eq!(listed(&server), ["one", "two", "3.a.h"]);
}

/// Tells whether a file has been opened.
struct Watch(OwnedFd);

impl Watch {
    fn on(path: &Path) -> Self {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, path, inotify::WatchFlags::OPEN).unwrap();
        Self(watch)
    }

    /// Returns true if the file has been opened since the last time.
    fn was_opened(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.0, &mut buffer);
        let mut opened = false;
        while events.next().is_ok() {
            opened = true;
        }
        opened
    }
}

#[test]
fn a_list_is_opened_only_if_it_has_changed() {
    let (mail, maildrop) = mail_with(&["new/1.a.h", "new/2.a.h", "new/3.a.h"]);
    let lists = [
        (DOVECOT, ["3 V10 N2 Gx\n1 Pone :1.a.h\n", "3 V10 N3 Gx\n1 Pone :1.a.h\n2 Ptwo :2.a.h\n"]),
        (COURIER, ["/3 9 7\n3.a.h 14 3:7:0\n", "/3 9 7\n3.a.h 14 3:7:0\n2.a.h 14 4:7:0\n"]),
    ];
    lists.iter().for_each(|(name, [text, _])| write_list(&maildrop, name, text));
    let watches = [DOVECOT, COURIER].map(|name| Watch::on(&maildrop.path(name)));
    let server = start(&mail, &["--unique-ids", "auto"]);
    let opened_by_login = |expected: [&str; 3]| {
        let _ = watches.each_ref().map(Watch::was_opened);
        assert_eq!(listed(&server), expected);
        watches.each_ref().map(Watch::was_opened)
    };
    assert_eq!(opened_by_login(["one", "2.a.h", "UID3-7"]), [true; 2]);
    // Whether a list has changed within the last moments cannot be told, so it is read until some time has passed.
    eventually("the lists are not read again", || opened_by_login(["one", "2.a.h", "UID3-7"]) == [false; 2]);
    // New mail is no reason to read them, and an index that is gone neither.
    fs::remove_file(maildrop.path(".pop3d-index")).unwrap_or(());
    assert_eq!(opened_by_login(["one", "2.a.h", "UID3-7"]), [false; 2]);
    drop(server);
    let server = start(&mail, &["--unique-ids", "auto"]);
    assert_eq!(listed(&server), ["one", "2.a.h", "UID3-7"]);
    assert!(watches.iter().all(|watch| !watch.was_opened()), "another server reads what was kept");
    // Both are read if one has changed, because Dovecot's unique-ids come before Courier's.
    for (name, [_, text]) in lists.iter().rev() {
        write_list(&maildrop, name, text);
        let _ = watches.each_ref().map(Watch::was_opened);
        let second = if *name == COURIER { "UID4-7" } else { "two" };
        assert_eq!(listed(&server), ["one", second, "UID3-7"]);
        assert_eq!(watches.each_ref().map(Watch::was_opened), [true; 2], "{name}");
    }
}

#[test]
fn a_retrieved_message_keeps_the_unique_id_that_the_client_has_seen() {
    let (mail, maildrop) = mail_with(&["new/1.a.h", "new/2.a.h", "new/3.a.h"]);
    write_list(&maildrop, DOVECOT, "3 V10 N2 Gx\n1 Pone :1.a.h\n");
    let server = start(&mail, &["--unique-ids", "dovecot"]);
    let mut session = server.session();
    session.fetch("RETR 1");
    session.fetch("RETR 2");
    session.quit();
    // Dovecot's IMAP server lists the other messages, and gives the first another number.
    let list = "3 V11 N4 Gx\n1 Pother :1.a.h\n2 Ptwo :2.a.h\n3 Pthree :3.a.h\n";
    write_list(&maildrop, DOVECOT, list);
    assert_eq!(listed(&server), ["one", "2.a.h", "three"]);
    // The operator corrects the settings: then the list counts.
    drop(server);
    let server = start(&mail, &["--unique-ids", "auto"]);
    assert_eq!(listed(&server), ["other", "two", "three"]);
}

#[test]
fn x_uidl_is_read_from_the_header_of_a_maildirs_messages() {
    let (mail, maildrop) = mail_with(&["new/1.a.h"]);
    maildrop.put("new/2.a.h", "X-UIDL: abc\nSubject: a\n\na\n");
    maildrop.put("cur/3.a.h:2,S", "Subject: a\nx-uidl: abc\n\na\n");
    maildrop.put("cur/4.a.h:2,S", "Subject: a\n\nX-UIDL: body\n");
    maildrop.put("cur/5.a.h:2,S", "X-UIDL: 3.a.h\n\n");
    let server = start(&mail, &["--unique-ids", "x-uidl"]);
    let expected = ["1.a.h", "abc", "3.a.h", "4.a.h", "5.a.h"];
    assert_eq!(listed(&server), expected);
    assert_eq!(listed(&server), expected);
    maildrop.put("new/6.a.h", "X-UIDL: six\n\n");
    assert_eq!(listed(&server)[5], "six");
}

/// An mbox as Dovecot leaves it, with a message behind that only the MTA knows.
const MBOX: &str = "From a@b Sat Nov 28 06:00:00 2026\nX-UIDL: q1\nDate: Sat, 28 Nov 2026\nMessage-ID:   <2@b>  \n\
    X-IMAPbase: 16 0000000009\nX-UID: 4   \n\none\n\nFrom a@b Sat Nov 28 06:00:00 2026\nX-UIDL: q2\nX-UID: 9\n\ntwo\n\n\
    From a@b Sat Nov 28 06:00:00 2026\nX-UID: 10\nSubject: forged\n\nthree\n\n";

#[test]
fn dovecots_unique_ids_of_an_mbox_are_in_its_headers() {
    for (flags, expected) in [
        (&["--unique-ids", "dovecot"][..], ["0000000400000010", "0000000900000010"]),
        (&["--unique-ids", "auto", "--dovecot-uidl-format", "%v.%u"], ["16.4", "16.9"]),
        (&["--unique-ids", "x-uidl"], ["q1", "q2"]),
        (
            &["--unique-ids", "dovecot", "--dovecot-uidl-format", "%m"],
            ["aed05151d273139e25d882818f834d07", "d41d8cd98f00b204e9800998ecf8427e"],
        ),
    ] {
        let mail = MailRoot::new();
        fs::write(mail.path().join(USER), MBOX).unwrap();
        let own = listed(&start(&mail, &[]));
        let server = start(&mail, flags);
        let ids = listed(&server);
        assert_eq!(ids[..2], expected, "{flags:?}");
        // No sender can choose a unique-id of Dovecot's, and no two messages have the same.
        assert_eq!(ids[2], own[2], "{flags:?}");
        assert_eq!(listed(&server), ids);
        // The message with X-IMAPbase is removed; the other ones keep what they have.
        let mut session = server.session();
        session.call("DELE 1");
        session.quit();
        assert_eq!(listed(&server), ids[1..], "{flags:?}");
    }
}

#[test]
fn import_ids_counts_first_and_then_writes() {
    let (mail, maildrop) = mail_with(&["new/1.a.h", "new/2.a.h", "new/3.a.h"]);
    write_list(&maildrop, DOVECOT, "3 V10 N3 Gx\n1 Pone :1.a.h\n2 Ptwo :2.a.h\n");
    mail.maildrop("bob").put("cur/1.a.h:2,", "Subject: a\n\na\n");
    let import = |arguments: &[&str]| {
        let arguments = [&["import-ids", "-m", mail.path().to_str().unwrap()], arguments].concat();
        let output = bounded_output(Command::new(PROGRAM).args(arguments));
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let lines = format!(
        "bob: 1 messages, 0 with another server's unique-id\n{USER}: 3 messages, 2 with another server's unique-id\n\
        2 maildrops (0 failed), 4 messages, 2 with another server's unique-id; "
    );
    assert_eq!(import(&[]), (Some(0), format!("{lines}nothing is written without --write\n")));
    assert!(!maildrop.path(".pop3d-ids").exists() && !maildrop.path(".pop3d-index").exists());
    assert_eq!(import(&["--write"]), (Some(0), format!("{lines}written\n")));
    fs::remove_file(maildrop.path(DOVECOT)).unwrap();
    assert_eq!(listed(&start(&mail, &["--unique-ids", "dovecot"])), ["one", "two", "3.a.h"]);
    let (code, text) = import(&["--write", "bob", "a/b"]);
    assert_eq!((code, &text[..]), (Some(2), "pop3d: \"a/b\" cannot be the name of a user\n"));
}
