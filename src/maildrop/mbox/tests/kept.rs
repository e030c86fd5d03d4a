//! What sessions have deleted with `--deletes trash=DAYS` comes back, whenever the server is killed, and also what an earlier
//! version of the server has kept.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::maildrop::{Deletes, LayoutChoice, Layouts, Location, Restored, deletions};

/// Two of the messages are equal.
const NAMES: [&str; 5] = ["a", "b", "b", "c", "d"];

fn location(mail: &Mail) -> Location {
    let layouts = Layouts::new(LayoutChoice::default()).with_deletes(Deletes::Trash(7));
    let root = MailRoot::with_layouts(mail.root.path().to_owned(), layouts.into()).unwrap();
    root.location("ana".parse().unwrap()).unwrap()
}

fn holder(session: Option<u64>) -> Holder {
    Holder { session, origin: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into(), since: Instant::now() }
}

/// Removes the messages with these numbers, which are kept.
fn remove(mail: &Mail, numbers: &[u32]) {
    let mut session = Maildrop::open(location(mail)).unwrap();
    assert!(numbers.iter().all(|&n| session.mark(number(n))));
    let removed = numbers.len() as u64;
    assert_eq!(session.commit(Some(&holder(Some(17)))), Update { removed, failed: 0 });
}

/// Brings all messages back.
fn undelete(mail: &Mail) -> Restored {
    let location = location(mail);
    let lock = Arc::new(Locks::default()).lock(&location, holder(None), Terms::default()).unwrap();
    lock.undelete(|_| true).unwrap()
}

/// The directories of sessions in the trash.
fn batches(mail: &Mail) -> Vec<PathBuf> {
    let directories = fs::read_dir(mail.own("trash")).into_iter().flatten();
    let mut paths: Vec<_> = directories.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Makes the trash what it was in earlier versions of the server, when each message had a file of its own.
fn turn_into_old_form(mail: &Mail) {
    for batch in batches(mail) {
        let kept = fs::read_to_string(batch.join(".messages")).unwrap();
        let (head, mut text) = kept.split_once("\n\n").unwrap();
        for line in head.lines().skip(1) {
            let (length, name) = line.split_once(' ').unwrap();
            let (message, rest) = text.split_at(length.parse().unwrap());
            fs::write(batch.join(name), message).unwrap();
            text = rest;
        }
        assert_eq!(text, "");
        fs::remove_file(batch.join(".messages")).unwrap();
    }
}

/// The messages with their unique-ids, and how many there are of each.
fn content(mail: &Mail) -> Vec<(String, String)> {
    let mut session = mail.open();
    let ids = ids(&session);
    let mut all: Vec<_> = (1..).zip(ids).map(|(n, id)| (id, sent(&mut session, n).unwrap())).collect();
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

fn copy_of(root: &Path) -> Mail {
    let mail = Mail { root: tempfile::tempdir().unwrap() };
    copy(root, mail.root.path());
    if let Ok(journal) = fs::read(mail.own("journal")) {
        let inode = fs::metadata(mail.path()).unwrap().ino();
        fs::write(mail.own("journal"), journal::with_inode(&journal, inode)).unwrap();
    }
    mail
}

/// Copies of the files from each moment, while something is done, at which the server could be killed.
fn moments(mail: &Mail, work: impl FnOnce(&Mail)) -> Vec<Mail> {
    let copies = Rc::new(RefCell::new(vec![copy_of(mail.root.path())]));
    let (all, path) = (Rc::clone(&copies), mail.root.path().to_owned());
    journal::observe(Some(Box::new(move || {
        all.borrow_mut().push(copy_of(&path));
        (Vec::new(), None)
    })));
    work(mail);
    journal::observed();
    copies.take()
}

#[test]
fn each_message_is_there_once_or_comes_back_when_the_server_is_killed_at_any_moment() {
    for (numbers, least) in [(&[1, 3][..], 15), (&[4, 5], 5)] {
        let mail = Mail::new(&NAMES.map(mail).concat());
        let all = content(&mail);
        let killed = moments(&mail, |mail| remove(mail, numbers));
        assert!(killed.len() >= least, "{}", killed.len());
        for (at, mail) in killed.iter().enumerate() {
            let left = content(mail);
            assert!(left.iter().all(|message| all.contains(message)), "moment {at}: {left:?}");
            undelete(mail);
            assert_eq!(content(mail), all, "moment {at}");
            assert!(batches(mail).is_empty());
        }
    }
}

#[test]
fn each_message_comes_back_once_when_the_server_is_killed_at_any_moment_of_that() {
    for is_old in [false, true] {
        let mail = Mail::new(&NAMES.map(mail).concat());
        let all = content(&mail);
        remove(&mail, &[1, 3, 5]);
        if is_old {
            turn_into_old_form(&mail);
        }
        let killed = moments(&mail, |mail| {
            undelete(mail);
        });
        assert!(killed.len() >= 15, "{}", killed.len());
        for (at, mail) in killed.iter().enumerate() {
            undelete(mail);
            assert_eq!(content(mail), all, "moment {at}, {is_old}");
            assert!(batches(mail).is_empty());
        }
    }
}

#[test]
fn messages_come_back_that_an_earlier_version_has_kept() {
    let mail = Mail::new(&NAMES.map(mail).concat());
    let all = content(&mail);
    remove(&mail, &[1, 3]);
    turn_into_old_form(&mail);
    remove(&mail, &[3]);
    let kept = deletions(&location(&mail)).unwrap();
    let sums: Vec<_> = kept.iter().map(|kept| (kept.messages, kept.octets)).collect();
    let octets = |name| self::mail(name).len() as u64;
    assert_eq!(sums, [(2, octets("a") + octets("b")), (1, octets("d"))]);
    assert_eq!(undelete(&mail), Restored { messages: 3, failed: 0 });
    assert_eq!(content(&mail), all);
    assert!(batches(&mail).is_empty());
}

/// An earlier version of the server was killed while it wrote the file of a message, which it had not removed yet.
#[test]
fn half_a_message_of_an_earlier_version_is_not_brought_back() {
    let mail = Mail::new(&NAMES.map(mail).concat());
    let all = content(&mail);
    let ids = mail.ids();
    remove(&mail, &[1, 4]);
    turn_into_old_form(&mail);
    let half = batches(&mail).remove(0).join(&ids[3]);
    let whole = fs::read(&half).unwrap();
    let mut before = mail.text();
    for length in [0, 3, whole.len() / 2, whole.len() - 3] {
        fs::write(&half, &whole[..length]).unwrap();
        assert_eq!(undelete(&mail), Restored { messages: 1, failed: 1 });
        if length == 0 {
            before.push_str(&self::mail("a"));
        }
        assert_eq!(mail.text(), before, "{length}");
        assert!(half.exists());
    }
    // Once the message is there, the half of it is of no use.
    mail.append(&self::mail("c"));
    undelete(&mail);
    assert_eq!(content(&mail), all);
    assert!(batches(&mail).is_empty());
}

/// The server was started again within a second, and the session has the same number.
#[test]
fn sessions_of_the_same_name_have_directories_of_their_own() {
    let mail = Mail::new(&NAMES.map(mail).concat());
    let all = content(&mail);
    (0..NAMES.len()).for_each(|_| remove(&mail, &[1]));
    assert_eq!(batches(&mail).len(), NAMES.len());
    assert_eq!(undelete(&mail), Restored { messages: NAMES.len() as u64, failed: 0 });
    assert_eq!(content(&mail), all);
}
