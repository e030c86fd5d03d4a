//! A Maildir that is shown together with its folders.

use std::fs;
use std::os::unix::fs::symlink;

use super::super::*;
use super::update::text;
use super::{Mail, number};

impl Mail {
    /// A Maildir with two folders and two messages in each of the three.
    fn with_folders() -> Self {
        let mail = Self::maildir();
        for folder in [".Junk", ".Junk.Old"] {
            for part in ["new", "cur", "tmp"] {
                fs::create_dir_all(mail.path(folder).join(part)).unwrap();
            }
        }
        mail.put("new/1.a.h", "inbox\n");
        mail.put("cur/2.a.h:2,S", "inbox\n");
        // The same base name as in the INBOX.
        mail.put(".Junk/new/1.a.h", "junk\n");
        mail.put(".Junk/cur/3.a.h:2,", "junk 3\n");
        mail.put(".Junk.Old/cur/1.a.h:2,S", "old\n");
        mail.put(".Junk.Old/cur/4.a.h:2,T", "old 4\n");
        mail
    }

    fn open_folders(&self, names: &[&str]) -> Maildrop {
        self.open_with(rules(names))
    }

    /// The unique-ids and octets that a session finds, with and without an index of each folder.
    fn found(&self, names: &[&str]) -> Vec<(String, u64)> {
        let listing = |maildrop: Maildrop| -> Vec<_> {
            let ids = maildrop.unique_ids().map(|(_, id)| String::from_utf8(id.into_owned()).unwrap());
            ids.zip(maildrop.messages().map(|(_, message)| message.octets())).collect()
        };
        let first = listing(self.open_folders(names));
        assert_eq!(listing(self.open_folders(names)), first);
        first
    }
}

fn rules(names: &[&str]) -> MaildirRules {
    MaildirRules { folders: names.iter().map(|name| name.parse().unwrap()).collect(), ..MaildirRules::default() }
}

const ALL: [&str; 3] = ["INBOX", "Junk", "Junk.Old"];

fn listed(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|&(id, octets)| (id.to_owned(), octets)).collect()
}

#[test]
fn folders_follow_the_inbox_in_the_operators_order() {
    let mail = Mail::with_folders();
    mail.settle();
    let inbox = [("1.a.h", 7), ("2.a.h", 7)];
    let junk = [("Junk/1.a.h", 6), ("Junk/3.a.h", 8)];
    let old = [("Junk.Old/1.a.h", 5), ("Junk.Old/4.a.h", 7)];
    assert_eq!(mail.found(&[]), listed(&inbox));
    assert_eq!(mail.found(&["INBOX"]), listed(&inbox));
    assert_eq!(mail.found(&["INBOX", "Junk"]), listed(&[inbox, junk].concat()));
    assert_eq!(mail.found(&["Junk.Old", "Junk", "Nothing", "Junk"]), listed(&[inbox, old, junk].concat()));
    let mut open = mail.open_folders(&ALL);
    let texts = [1, 2, 3, 4, 5, 6].map(|n| text(open.open_message(number(n)).unwrap()));
    assert_eq!(texts, ["inbox\n", "inbox\n", "junk\n", "junk 3\n", "old\n", "old 4\n"]);
    let hidden = mail.open_with(MaildirRules { hide_trashed: true, ..rules(&ALL) });
    assert_eq!(hidden.count(), 5);
}

#[test]
fn messages_are_removed_from_the_folder_that_they_are_in() {
    let mail = Mail::with_folders();
    mail.put("maildirsize", "1000S\n");
    let mut open = mail.open_folders(&ALL);
    for n in [2, 3, 4, 5] {
        assert!(open.mark(number(n)));
    }
    // A mail program moves one meanwhile.
    fs::rename(mail.path(".Junk/new/1.a.h"), mail.path(".Junk/cur/1.a.h:2,S")).unwrap();
    assert_eq!(open.commit(None), Update { removed: 4, failed: 0 });
    assert_eq!(mail.found(&ALL), listed(&[("1.a.h", 7), ("Junk.Old/4.a.h", 7)]));
    let quota = fs::read_to_string(mail.path("maildirsize")).unwrap();
    assert_eq!(quota, "1000S\n-6 -1\n-12 -2\n-4 -1\n");
    assert!(!mail.path(".Junk/maildirsize").exists());
}

#[test]
fn retrieved_messages_are_marked_in_their_folder() {
    let mail = Mail::with_folders();
    let mut open = mail.open_with(MaildirRules { seen: true, ..rules(&ALL) });
    for n in [1, 3, 6] {
        open.note_retrieved(number(n));
    }
    assert_eq!(open.commit(None), Update::default());
    for name in ["cur/1.a.h:2,S", ".Junk/cur/1.a.h:2,S", ".Junk.Old/cur/4.a.h:2,ST"] {
        assert!(mail.path(name).exists(), "{name}");
    }
}

/// A session corrects the index of the folder that the message is in.
#[test]
fn wrong_sizes_are_corrected_in_the_index_of_the_folder() {
    let mail = Mail::with_folders();
    mail.settle();
    let mut open = mail.open_folders(&ALL);
    open.correct_octets(number(4), 99);
    drop(open);
    let octets: Vec<_> = mail.found(&ALL).into_iter().map(|(_, octets)| octets).collect();
    assert_eq!(octets, [7, 7, 6, 99, 5, 7]);
}

/// A changed message is refused, and the index of its folder is made again.
#[test]
fn a_changed_message_of_a_folder_is_refused() {
    let mail = Mail::with_folders();
    mail.settle();
    let mut open = mail.open_folders(&ALL);
    mail.put(".Junk/cur/3.a.h:2,", "longer than before\n");
    assert!(matches!(open.open_message(number(4)), Err(OpenError::Changed)));
    assert!(mail.index().exists() && !mail.path(".Junk/.pop3d-index").exists());
}

#[test]
fn what_is_no_folder_is_left_out() {
    let mail = Mail::maildir();
    mail.put("new/1.a.h", "inbox\n");
    // A file, a directory without new/ and cur/, a link to another user's mail.
    mail.put(".File", "text\n");
    fs::create_dir(mail.path(".Flat")).unwrap();
    mail.put(".Flat/secret", "text\n");
    let other = mail.root.path().join("other");
    fs::create_dir_all(other.join("new")).unwrap();
    fs::write(other.join("new/9.a.h"), "secret\n").unwrap();
    symlink(&other, mail.path(".Link")).unwrap();
    assert_eq!(mail.found(&["File", "Flat", "Link"]), listed(&[("1.a.h", 7)]));
}

/// Dovecot may have given a message in the INBOX a unique-id that looks like one in a folder.
#[test]
fn given_unique_ids_are_different_from_those_in_folders() {
    let mail = Mail::with_folders();
    mail.put("dovecot-uidlist", "3 V10 N5 Gx\n1 PJunk/3.a.h :1.a.h\n2 Pa/b :2.a.h\n");
    let unique_ids = UniqueIdRules { source: UniqueIds::Dovecot, ..UniqueIdRules::default() };
    let layouts = Layouts::default().with_unique_ids(unique_ids).with_maildirs(rules(&["Junk"]));
    let root = MailRoot::with_layouts(mail.root.path().to_owned(), layouts.into()).unwrap();
    let open = Maildrop::open(root.location("ana".parse().unwrap()).unwrap()).unwrap();
    let ids: Vec<_> = open.unique_ids().map(|(_, id)| String::from_utf8(id.into_owned()).unwrap()).collect();
    assert_eq!(ids, ["1.a.h", "a/b", "Junk/1.a.h", "Junk/3.a.h"]);
}
