//! What other programs do to a maildrop while a session sends and removes its messages.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{Mode, chmod};

use super::super::*;
use super::{Mail, number, set_modified};

/// The most renames of a program that runs beside a test. It ends after them even if the test does not stop it.
const RENAMES: usize = 2_000_000;

/// A program that changes the flags of a message as fast as it can, until it is stopped.
pub(super) struct Flagger {
    stopped: AtomicBool,
    /// How many times it has changed the flags so far.
    changes: AtomicUsize,
}

impl Flagger {
    /// Runs `session` while the flags of the message `base` change.
    pub(super) fn run(mail: &Mail, base: &str, session: impl FnOnce(&Self)) {
        let flagger = Self { stopped: AtomicBool::new(false), changes: AtomicUsize::new(0) };
        let names = ["", "S", "FS"].map(|flags| mail.path(&format!("cur/{base}:2,{flags}")));
        thread::scope(|scope| {
            scope.spawn(|| flagger.change_flags(&names));
            // The other thread is stopped also when the session panics.
            let stop = Stop(&flagger);
            session(stop.0);
        });
    }

    fn change_flags(&self, names: &[PathBuf]) {
        let mut at = 0;
        for _ in 0..RENAMES {
            if self.stopped.load(Ordering::Relaxed) {
                break;
            }
            let next = (at + 1) % names.len();
            // It fails after the message has been removed and before the next one is delivered.
            let renamed = fs::rename(&names[at], &names[next]).is_ok();
            self.changes.fetch_add(usize::from(renamed), Ordering::Relaxed);
            at = if renamed { next } else { 0 };
        }
    }
}

struct Stop<'a>(&'a Flagger);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

/// The files of the Maildir, as `folder/name`.
pub(super) fn files(mail: &Mail) -> Vec<String> {
    let names = |folder: &'static str| {
        fs::read_dir(mail.path(folder)).unwrap().map(move |entry| {
            let name = entry.unwrap().file_name();
            format!("{folder}/{}", name.to_str().unwrap())
        })
    };
    let mut files: Vec<_> = names("new").chain(names("cur")).collect();
    files.sort();
    files
}

pub(super) fn text(mut opened: OpenMessage) -> String {
    let mut text = String::new();
    opened.source.read_to_string(&mut text).unwrap();
    text
}

fn is_wire_form(opened: OpenMessage) -> bool {
    matches!(opened.source, Source::File(FileRange { wire_form: true, .. }))
}

fn marked(mail: &Mail, numbers: &[u32]) -> Maildrop {
    let mut maildrop = mail.open();
    for &n in numbers {
        assert!(maildrop.mark(number(n)));
    }
    maildrop
}

const ALL_REMOVED: Update = Update { removed: 1, failed: 0 };

#[test]
fn a_message_is_removed_while_its_flags_change() {
    let mail = Mail::maildir();
    Flagger::run(&mail, "1.M.h", |_| {
        for round in 0..300 {
            mail.put("cur/1.M.h:2,", "one\n");
            let update = marked(&mail, &[1]).commit(None);
            assert_eq!(update, ALL_REMOVED, "round {round}");
            assert_eq!(files(&mail), [""; 0], "round {round}");
        }
    });
}

#[test]
fn a_message_is_sent_while_its_flags_change() {
    let mail = Mail::maildir();
    mail.put("cur/1.M.h:2,", "one\n");
    // In a larger directory more time passes between the listing of a file and its opening.
    for n in 2..200 {
        mail.put(&format!("cur/{n}.M.h:2,"), "another\n");
    }
    Flagger::run(&mail, "1.M.h", |flagger| {
        let mut maildrop = mail.open();
        let enough = Instant::now() + Duration::from_secs(20);
        let enough_changes = flagger.changes.load(Ordering::Relaxed) + 20_000;
        while flagger.changes.load(Ordering::Relaxed) < enough_changes && Instant::now() < enough {
            assert_eq!(text(maildrop.open_message(number(1)).unwrap()), "one\n");
        }
    });
}

#[test]
fn a_renamed_message_is_told_from_another_with_the_same_base_name() {
    for (renamed, kept) in [("cur/1.M.h:2,", "cur/1.M.h:2,S"), ("cur/1.M.h:2,S", "cur/1.M.h:2,")] {
        let mail = Mail::maildir();
        mail.put(renamed, "renamed\n");
        mail.put(kept, "kept\n");
        let mut maildrop = mail.open();
        let octets = "renamed\r\n".len() as u64;
        let (n, _) = maildrop.messages().find(|(_, message)| message.octets() == octets).unwrap();
        let n = number(n as u32);
        fs::rename(mail.path(renamed), mail.path("cur/1.M.h:2,F")).unwrap();
        assert_eq!(text(maildrop.open_message(n).unwrap()), "renamed\n");
        fs::rename(mail.path("cur/1.M.h:2,F"), mail.path("cur/1.M.h:2,FR")).unwrap();
        assert!(maildrop.mark(n));
        assert_eq!(maildrop.commit(None), ALL_REMOVED);
        assert_eq!(files(&mail), [kept]);
        assert_eq!(fs::read_to_string(mail.path(kept)).unwrap(), "kept\n");
    }
}

/// Each message takes the other one's name, and both have the same size and time.
#[test]
fn the_marked_message_is_removed_after_two_messages_swapped_names() {
    let mail = Mail::maildir();
    mail.put("cur/1.M.h:2,", "one\n");
    mail.put("cur/1.M.h:2,S", "two\n");
    mail.settle();
    let same_time = SystemTime::now() - Duration::from_secs(3600);
    set_modified(&mail.path("cur/1.M.h:2,"), same_time);
    set_modified(&mail.path("cur/1.M.h:2,S"), same_time);
    let mut maildrop = mail.open();
    let first = text(maildrop.open_message(number(1)).unwrap());
    fs::rename(mail.path("cur/1.M.h:2,"), mail.path("cur/1.M.h:2,T")).unwrap();
    fs::rename(mail.path("cur/1.M.h:2,S"), mail.path("cur/1.M.h:2,")).unwrap();
    fs::rename(mail.path("cur/1.M.h:2,T"), mail.path("cur/1.M.h:2,S")).unwrap();
    assert_eq!(text(maildrop.open_message(number(1)).unwrap()), first);
    assert!(maildrop.mark(number(1)));
    assert_eq!(maildrop.commit(None), ALL_REMOVED);
    let [left] = &files(&mail)[..] else { panic!("{:?}", files(&mail)) };
    assert_ne!(fs::read_to_string(mail.path(left)).unwrap(), first);
}

/// A program that moves a message by link(2) and unlink(2) may end in between, which leaves the message in both
/// directories.
#[test]
fn every_link_of_a_marked_message_is_removed() {
    for removed_first in [None, Some("new/1.M.h"), Some("cur/1.M.h:2,")] {
        let mail = Mail::maildir();
        mail.put("new/1.M.h", "one\n");
        mail.put("new/2.M.h", "two\n");
        fs::hard_link(mail.path("new/1.M.h"), mail.path("cur/1.M.h:2,")).unwrap();
        let maildrop = marked(&mail, &[1]);
        assert_eq!(maildrop.messages().count(), 1);
        if let Some(name) = removed_first {
            fs::remove_file(mail.path(name)).unwrap();
        }
        assert_eq!(maildrop.commit(None), ALL_REMOVED);
        assert_eq!(files(&mail), ["new/2.M.h"]);
    }
}

/// Dovecot copies a message by a hard link. The copy is a separate message.
#[test]
fn a_link_of_another_base_name_stays() {
    let mail = Mail::maildir();
    mail.put("cur/1.M.h:2,", "one\n");
    fs::hard_link(mail.path("cur/1.M.h:2,"), mail.path("cur/2.M.h:2,")).unwrap();
    assert_eq!(marked(&mail, &[1]).commit(None), ALL_REMOVED);
    assert_eq!(files(&mail), ["cur/2.M.h:2,"]);
}

#[test]
fn a_marked_message_that_another_program_removed_is_no_failure() {
    let mail = Mail::maildir();
    mail.put("cur/1.M.h:2,", "one\n");
    let maildrop = marked(&mail, &[1]);
    fs::remove_file(mail.path("cur/1.M.h:2,")).unwrap();
    assert_eq!(maildrop.commit(None), Update::default());
}

#[test]
fn another_file_under_the_base_name_of_a_marked_one_stays() {
    let mail = Mail::maildir();
    mail.put("cur/1.M.h:2,", "one\n");
    let maildrop = marked(&mail, &[1]);
    fs::remove_file(mail.path("cur/1.M.h:2,")).unwrap();
    mail.put("cur/1.M.h:2,S", "another\n");
    assert_eq!(maildrop.commit(None), Update { removed: 0, failed: 1 });
    assert_eq!(files(&mail), ["cur/1.M.h:2,S"]);
}

#[test]
fn links_of_one_file_in_a_flat_maildrop_are_messages_of_their_own() {
    let mail = Mail::flat();
    mail.put("1", "one\n");
    fs::hard_link(mail.path("1"), mail.path("2")).unwrap();
    fs::hard_link(mail.path("1"), mail.path("3")).unwrap();
    let mut other = mail.open();
    assert_eq!(marked(&mail, &[1, 2]).commit(None), Update { removed: 2, failed: 0 });
    assert_eq!(text(other.open_message(number(3)).unwrap()), "one\n");
    assert!(other.mark(number(3)));
    assert_eq!(other.commit(None), ALL_REMOVED);
}

#[test]
fn a_change_of_permissions_does_not_change_a_message() {
    let mail = Mail::flat();
    mail.put("1", "one\n");
    let mut maildrop = mail.open();
    chmod(mail.path("1"), Mode::RUSR | Mode::WUSR).unwrap();
    assert_eq!(text(maildrop.open_message(number(1)).unwrap()), "one\n");
    chmod(mail.path("1"), Mode::RUSR).unwrap();
    assert!(maildrop.mark(number(1)));
    assert_eq!(maildrop.commit(None), ALL_REMOVED);
}

/// Replaces a file by a copy that has the same time, as a backup program does. The copy has another inode.
fn restore(mail: &Mail, name: &str, text: &str) {
    let modified = fs::metadata(mail.path(name)).unwrap().modified().unwrap();
    mail.put("restored", text);
    set_modified(&mail.path("restored"), modified);
    fs::rename(mail.path("restored"), mail.path(name)).unwrap();
}

#[test]
fn a_file_that_was_restored_is_the_same_message() {
    for (mail, name) in [(Mail::flat(), "1"), (Mail::maildir(), "cur/1.M.h:2,S")] {
        mail.put(name, "one\n");
        mail.settle();
        let mut maildrop = mail.open();
        restore(&mail, name, "one\n");
        assert_eq!(text(maildrop.open_message(number(1)).unwrap()), "one\n");
        restore(&mail, name, "one\n");
        assert!(maildrop.mark(number(1)));
        assert_eq!(maildrop.commit(None), ALL_REMOVED);
        assert!(!mail.path(name).exists());
    }
}

/// On file systems with times in steps of a second or two, files written shortly after one another have the same time.
#[test]
fn a_new_file_of_the_same_recent_time_is_not_removed() {
    let mail = Mail::flat();
    mail.put("1", "one\n");
    let maildrop = marked(&mail, &[1]);
    restore(&mail, "1", "two\n");
    assert_eq!(maildrop.commit(None), Update { removed: 0, failed: 1 });
    assert_eq!(fs::read_to_string(mail.path("1")).unwrap(), "two\n");
}

/// A message is sent as it is stored, without another look, only if it is the very file that was measured.
#[test]
fn a_file_other_than_the_measured_one_is_not_taken_for_wire_form() {
    for (mail, name) in [(Mail::flat(), "1"), (Mail::maildir(), "cur/1.M.h:2,S")] {
        mail.put(name, "one\r\n");
        mail.settle();
        let mut maildrop = mail.open();
        assert!(is_wire_form(maildrop.open_message(number(1)).unwrap()));
        restore(&mail, name, ".\n..\n");
        assert!(!is_wire_form(maildrop.open_message(number(1)).unwrap()));
    }
}

/// A restore may write other files under the same names, which may get the inodes of the removed files.
#[test]
fn the_index_is_not_trusted_for_other_files_with_the_same_inodes() {
    let mail = Mail::maildir();
    for n in 1..20 {
        mail.put(&format!("cur/{n}.M.h:2,S"), &"x\n".repeat(n));
    }
    mail.settle();
    assert_eq!(mail.octets().len(), 19);
    for n in 1..20 {
        mail.put(&format!("cur/{n}.M.h:2,S"), &"\n".repeat(n));
        set_modified(&mail.path(&format!("cur/{n}.M.h:2,S")), SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64));
    }
    mail.put("new/20.M.h", "a new one changes the directory\n");
    let mut maildrop = mail.open();
    for n in 1..20 {
        assert_eq!(maildrop.message(number(n)).unwrap().octets(), 2 * u64::from(n));
        assert!(maildrop.open_message(number(n)).is_ok());
    }
    assert_eq!(mail.listing(), mail.fresh_listing());
}

/// A login under which flags change without a pause cannot trust any single listing. It still knows that a message is gone
/// if none of its listings had it.
#[test]
fn a_removed_message_is_not_listed_while_flags_change() {
    const COUNT: u64 = 4000; // so many that flags change during each listing
    let mail = Mail::maildir();
    for n in 1..=COUNT {
        mail.put(&format!("cur/{n}.M.h:2,"), "one\n");
    }
    mail.settle();
    assert_eq!(mail.octets().len() as u64, COUNT);
    fs::remove_file(mail.path("cur/2.M.h:2,")).unwrap();
    Flagger::run(&mail, "1.M.h", |_| {
        for _ in 0..3 {
            let ids = mail.ids();
            assert_eq!((ids.len() as u64, &*ids[1]), (COUNT - 1, "3.M.h"));
        }
    });
}
