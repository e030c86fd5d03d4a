//! What the server does for the other programs that use a Maildir: quota, marks of retrieved messages, hidden messages.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use super::super::*;
use super::update::{Flagger, files};
use super::{Mail, number};

impl Mail {
    pub(super) fn open_with(&self, rules: MaildirRules) -> Maildrop {
        let layouts = Arc::new(Layouts::default().with_maildirs(rules));
        let root = MailRoot::with_layouts(self.root.path().to_owned(), layouts).unwrap();
        Maildrop::open(root.location("ana".parse().unwrap()).unwrap()).unwrap()
    }

    /// Removes these messages in one session.
    fn remove(&self, numbers: impl IntoIterator<Item = u32>) -> Update {
        let mut open = self.open();
        numbers.into_iter().for_each(|n| assert!(open.mark(number(n))));
        open.commit(None)
    }

    /// Retrieves these messages in a session that marks them as seen.
    fn retrieve(&self, numbers: &[u32]) {
        let mut open = self.open_with(MaildirRules { seen: true, ..MaildirRules::default() });
        for &n in numbers {
            open.open_message(number(n)).unwrap();
            open.note_retrieved(number(n));
        }
        assert_eq!(open.commit(None), Update::default());
    }
}

#[test]
fn the_messages_that_a_session_removes_are_one_line_in_maildirsize() {
    let mail = Mail::maildir();
    for name in ["new/1.a.h", "cur/2.a.h,S=700,W=710:2,S", "cur/3.a.h:2,", "cur/4.a.h:2,"] {
        mail.put(name, "four\n");
    }
    assert_eq!(mail.remove([4]), Update { removed: 1, failed: 0 });
    assert!(!mail.path("maildirsize").exists(), "a quota was made");
    mail.put("maildirsize", "10000S\n715 4\n");
    assert_eq!(mail.remove([]), Update::default());
    assert_eq!(mail.remove([1, 2]), Update { removed: 2, failed: 0 });
    assert_eq!(fs::read_to_string(mail.path("maildirsize")).unwrap(), "10000S\n715 4\n-705 -2\n");
}

#[test]
fn messages_marked_as_deleted_count_for_dovecot_only() {
    let mail = Mail::maildir();
    for name in ["cur/1.a.h:2,ST", "cur/2.a.h:2,T"] {
        mail.put(name, "four\n");
    }
    mail.put("maildirsize", "10000S\n");
    mail.remove([1]);
    assert_eq!(fs::read_to_string(mail.path("maildirsize")).unwrap(), "10000S\n");
    mail.put("dovecot-uidlist", "3 V1 N1\n");
    mail.remove([1]);
    assert_eq!(fs::read_to_string(mail.path("maildirsize")).unwrap(), "10000S\n-5 -1\n");
}

#[test]
fn a_quota_file_that_cannot_be_written_hinders_no_removal() {
    let mail = Mail::maildir();
    let elsewhere = mail.root.path().join("elsewhere");
    fs::write(&elsewhere, "kept").unwrap();
    mail.put("cur/1.a.h:2,", "one\n");
    symlink(&elsewhere, mail.path("maildirsize")).unwrap();
    assert_eq!(mail.remove([1]), Update { removed: 1, failed: 0 });
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "kept", "a link was followed");
    fs::remove_file(mail.path("maildirsize")).unwrap();
    fs::create_dir(mail.path("maildirsize")).unwrap();
    mail.put("cur/1.a.h:2,", "one\n");
    assert_eq!(mail.remove([1]), Update { removed: 1, failed: 0 });
}

#[test]
fn retrieved_messages_are_marked_as_seen() {
    let mail = Mail::maildir();
    for name in ["new/1.a.h", "new/2.a.h", "cur/3.a.h:2,FRT", "cur/4.a.h,S=5;2,", "cur/5.a.h:2,S", "cur/6.a.h:2,"] {
        mail.put(name, "four\n");
    }
    mail.settle();
    let before = (mail.ids(), mail.octets());
    mail.retrieve(&[1, 3, 4, 5]);
    let after =
        ["cur/1.a.h:2,S", "cur/3.a.h:2,FRST", "cur/4.a.h,S=5;2,S", "cur/5.a.h:2,S", "cur/6.a.h:2,", "new/2.a.h"];
    assert_eq!(files(&mail), after);
    assert_eq!((mail.ids(), mail.octets()), before);
    assert_eq!(mail.listing(), mail.fresh_listing());
}

#[test]
fn retrieved_messages_stay_as_they_are_by_default() {
    let mail = Mail::maildir();
    mail.put("new/1.a.h", "one\n");
    let mut open = mail.open();
    open.note_retrieved(number(1));
    assert!(!open.needs_update());
    assert_eq!(open.commit(None), Update::default());
    assert_eq!(files(&mail), ["new/1.a.h"]);
}

#[test]
fn a_message_that_was_retrieved_and_removed_is_gone() {
    let mail = Mail::maildir();
    for name in ["new/1.a.h", "new/2.a.h"] {
        mail.put(name, "one\n");
    }
    let mut open = mail.open_with(MaildirRules { seen: true, ..MaildirRules::default() });
    for n in [1, 2] {
        open.note_retrieved(number(n));
    }
    open.mark(number(1));
    assert_eq!(open.commit(None), Update { removed: 1, failed: 0 });
    assert_eq!(files(&mail), ["cur/2.a.h:2,S"]);
}

/// A mail program has moved one, flagged one and removed one since the session listed them.
#[test]
fn messages_that_were_moved_meanwhile_are_marked_as_seen() {
    let mail = Mail::maildir();
    for name in ["new/1.a.h", "cur/2.a.h:2,", "new/3.a.h"] {
        mail.put(name, "one\n");
    }
    let mut open = mail.open_with(MaildirRules { seen: true, ..MaildirRules::default() });
    for n in [1, 2, 3] {
        open.note_retrieved(number(n));
    }
    fs::rename(mail.path("new/1.a.h"), mail.path("cur/1.a.h:2,R")).unwrap();
    fs::rename(mail.path("cur/2.a.h:2,"), mail.path("cur/2.a.h:2,FS")).unwrap();
    fs::remove_file(mail.path("new/3.a.h")).unwrap();
    assert_eq!(open.commit(None), Update::default());
    assert_eq!(files(&mail), ["cur/1.a.h:2,RS", "cur/2.a.h:2,FS"]);
}

#[test]
fn a_message_is_marked_as_seen_while_its_flags_change() {
    let mail = Mail::maildir();
    mail.put("cur/1.M.h:2,", "one\n");
    Flagger::run(&mail, "1.M.h", |_| {
        for _ in 0..50 {
            mail.retrieve(&[1]);
        }
    });
    assert_eq!(files(&mail).len(), 1);
    mail.retrieve(&[1]);
    assert!(files(&mail)[0].ends_with('S'), "{:?}", files(&mail));
}

/// Two messages with the same base name: marking the one must not replace the other.
#[test]
fn marking_a_message_replaces_no_other() {
    let mail = Mail::maildir();
    mail.put("new/1.a.h", "one\n");
    mail.put("cur/1.a.h:2,S", "another\n");
    mail.retrieve(&[1, 2]);
    assert_eq!(files(&mail), ["cur/1.a.h:2,S", "new/1.a.h"]);
    assert_eq!(fs::read_to_string(mail.path("cur/1.a.h:2,S")).unwrap(), "another\n");
}

#[test]
fn messages_marked_as_deleted_are_hidden_on_request() {
    let mail = Mail::maildir();
    for name in ["new/1.a.h", "cur/2.a.h:2,ST", "cur/3.a.h:2,S", "cur/4.T.h:2,"] {
        mail.put(name, "one\n");
    }
    mail.settle();
    // The second login has an index.
    for _ in 0..2 {
        let hidden = mail.open_with(MaildirRules { hide_trashed: true, ..MaildirRules::default() });
        let ids: Vec<_> = hidden.unique_ids().map(|(_, id)| String::from_utf8(id.into_owned()).unwrap()).collect();
        assert_eq!((ids, hidden.octets()), (["1.a.h", "3.a.h", "4.T.h"].map(str::to_owned).to_vec(), 15));
    }
    assert_eq!(mail.ids(), ["1.a.h", "2.a.h", "3.a.h", "4.T.h"]);
}
