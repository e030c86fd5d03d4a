//! What other programs do to a maildrop between logins, and what the next login finds.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

mod compressed;
mod folders;
mod index;
mod neighbours;
mod update;

use super::index::Index;
use super::message::Folder;
use super::*;

struct Mail {
    root: tempfile::TempDir,
}

impl Mail {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn maildir() -> Self {
        let mail = Self::new();
        for folder in ["new", "cur", "tmp"] {
            fs::create_dir_all(mail.path(folder)).unwrap();
        }
        mail
    }

    fn flat() -> Self {
        let mail = Self::new();
        fs::create_dir(mail.user()).unwrap();
        mail
    }

    fn user(&self) -> PathBuf {
        self.root.path().join("ana")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.user().join(name)
    }

    fn index(&self) -> PathBuf {
        self.path(".pop3d-index")
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Sets all times an hour back, so that they count as settled.
    fn settle(&self) {
        let past = SystemTime::now() - Duration::from_secs(3600);
        let mut directories = vec![self.user()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    directories.push(entry.path());
                } else if entry.metadata().unwrap().modified().unwrap() > past {
                    set_modified(&entry.path(), past);
                }
            }
            set_modified(&directory, past);
        }
    }

    fn location(&self) -> Location {
        MailRoot::open(self.root.path().to_owned()).unwrap().location("ana".parse().unwrap()).unwrap()
    }

    fn open(&self) -> Maildrop {
        Maildrop::open(self.location()).unwrap()
    }

    /// Logs in and returns each message's file name, octets and unique-id.
    fn listing(&self) -> Vec<(String, u64, String)> {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let line = |message: &Message| (text(&message.path.name), message.octets(), text(&message.unique_id()));
        self.open().messages().map(|(_, message)| line(message)).collect()
    }

    /// Does the same with a copy of the maildrop that has no index.
    fn fresh_listing(&self) -> Vec<(String, u64, String)> {
        let copy = Self::new();
        let copied = Command::new("cp").args(["-a", "--"]).arg(self.user()).arg(copy.root.path()).status().unwrap();
        assert!(copied.success());
        let _ = fs::remove_file(copy.index());
        copy.listing()
    }

    fn octets(&self) -> Vec<u64> {
        self.listing().into_iter().map(|(_, octets, _)| octets).collect()
    }

    fn ids(&self) -> Vec<String> {
        self.listing().into_iter().map(|(_, _, id)| id).collect()
    }
}

fn set_modified(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

fn number(n: u32) -> MessageNumber {
    MessageNumber::new(n).unwrap()
}

#[test]
fn a_missing_directory_is_an_empty_maildrop() {
    assert!(Mail::new().listing().is_empty());
}

#[test]
fn mail_is_seen_however_soon_it_follows_a_login() {
    for mail in [Mail::maildir(), Mail::flat()] {
        let folder = if mail.path("new").exists() { "new/" } else { "" };
        for n in 1..30 {
            mail.put(&format!("{folder}{n}.x"), &"a\n".repeat(n));
            assert_eq!(mail.octets().len(), n);
            assert_eq!(mail.octets().last(), Some(&(3 * n as u64)));
        }
        fs::remove_file(mail.path(&format!("{folder}7.x"))).unwrap();
        assert_eq!(mail.octets().len(), 28);
        assert_eq!(mail.listing(), mail.fresh_listing());
    }
}

#[test]
fn a_flat_file_that_changes_is_noticed_at_login() {
    let mail = Mail::flat();
    mail.put("1", "one\n");
    assert_eq!(mail.octets(), [5]);
    mail.put("1", "two\n\n");
    assert_eq!(mail.octets(), [7]);
    mail.settle();
    assert_eq!(mail.octets(), [7]);
    mail.put("1", "three\n");
    let ids = mail.ids();
    assert_eq!(mail.octets(), [7]);
    assert_eq!(mail.listing(), mail.fresh_listing());
    assert_eq!(mail.ids(), ids);
}

#[test]
fn moves_and_flags_change_neither_unique_id_nor_size() {
    let mail = Mail::maildir();
    for n in 1..4 {
        mail.put(&format!("new/{n}.M.h"), &"x\n".repeat(n));
    }
    mail.settle();
    let (ids, octets) = (mail.ids(), mail.octets());
    let settle_again = || ["new", "cur"].map(|folder| set_modified(&mail.path(folder), SystemTime::UNIX_EPOCH));
    let steps = [("new/2.M.h", "cur/2.M.h:2,"), ("cur/2.M.h:2,", "cur/2.M.h:2,FS"), ("new/1.M.h", "cur/1.M.h:2,S")];
    for (from, to) in steps {
        let mut open = mail.open();
        fs::rename(mail.path(from), mail.path(to)).unwrap();
        for n in 1..4 {
            assert_eq!(open.open_message(number(n)).unwrap().octets, octets[n as usize - 1]);
        }
        assert_eq!((mail.ids(), mail.octets()), (ids.clone(), octets.clone()));
        settle_again();
        assert_eq!((mail.ids(), mail.octets()), (ids.clone(), octets.clone()));
    }
}

/// Maildirs on FAT and SMB have other separators, because names cannot contain a colon there.
#[test]
fn flags_after_other_separators_change_neither_unique_id_nor_session() {
    for separator in [";2,", "!2,"] {
        let mail = Mail::maildir();
        let name = |flags: &str| mail.path(&format!("cur/1.M.h{separator}{flags}"));
        fs::write(name(""), "one\n").unwrap();
        mail.settle();
        assert_eq!(mail.ids(), ["1.M.h"]);
        let mut open = mail.open();
        fs::rename(name(""), name("S")).unwrap();
        assert_eq!(open.open_message(number(1)).unwrap().octets, 5);
        assert!(open.mark(number(1)));
        fs::rename(name("S"), name("RS")).unwrap();
        assert_eq!(open.commit(None), Update { removed: 1, failed: 0 });
        assert!(mail.ids().is_empty());
    }
}

#[test]
fn a_message_that_was_moved_can_be_removed() {
    let mail = Mail::maildir();
    mail.put("new/1.M.h", "one\n");
    mail.put("new/2.M.h", "two\n");
    let mut open = mail.open();
    assert!(open.mark(number(2)));
    fs::rename(mail.path("new/2.M.h"), mail.path("cur/2.M.h:2,S")).unwrap();
    assert_eq!(open.commit(None), Update { removed: 1, failed: 0 });
    assert_eq!(mail.ids(), ["1.M.h"]);
}

#[test]
fn a_new_file_with_the_name_of_a_marked_message_stays() {
    let mail = Mail::flat();
    mail.put("1", "one\n");
    let mut open = mail.open();
    assert!(open.mark(number(1)));
    fs::remove_file(mail.path("1")).unwrap();
    mail.put("1", "new mail\n");
    assert_eq!(open.commit(None), Update { removed: 0, failed: 1 });
    assert_eq!(fs::read_to_string(mail.path("1")).unwrap(), "new mail\n");
}

#[test]
fn messages_with_equal_base_names_have_different_unique_ids() {
    let mail = Mail::maildir();
    mail.put("cur/1.M.h:2,", "one\n");
    mail.put("cur/1.M.h:2,S", "other\n");
    mail.put("new/1.M.h", "third\n");
    mail.settle();
    let ids = mail.ids();
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    assert_eq!(mail.ids(), ids);
}

/// A message that is moved between the listings of new/ and cur/ is seen in both.
#[test]
fn a_message_seen_in_both_directories_is_one() {
    let mail = Mail::maildir();
    mail.put("new/1.M.h", "one\n");
    mail.put("new/2.M.h", "two\n");
    fs::hard_link(mail.path("new/1.M.h"), mail.path("cur/1.M.h:2,")).unwrap();
    mail.settle();
    for _ in 0..2 {
        assert_eq!(mail.ids(), ["1.M.h", "2.M.h"]);
    }
    fs::remove_file(mail.path("new/1.M.h")).unwrap();
    assert_eq!(mail.ids(), ["1.M.h", "2.M.h"]);
    assert!(mail.open().open_message(number(1)).is_ok());
}

#[test]
fn only_regular_files_with_plain_names_are_messages() {
    for mail in [Mail::maildir(), Mail::flat()] {
        let folder = if mail.path("new").exists() { "new/" } else { "" };
        fs::write(mail.root.path().join("outside"), "secret\n").unwrap();
        symlink("../outside", mail.path(&format!("{folder}link"))).unwrap();
        fs::create_dir(mail.path(&format!("{folder}directory"))).unwrap();
        mail.put(&format!("{folder}.hidden"), "no\n");
        assert!(Command::new("mkfifo").arg(mail.path(&format!("{folder}fifo"))).status().unwrap().success());
        mail.put(&format!("{folder}1.x"), "yes\n");
        assert_eq!(mail.octets(), [5]);
    }
}

#[test]
fn a_maildrop_behind_a_link_is_not_opened() {
    let mail = Mail::new();
    fs::create_dir(mail.root.path().join("bob")).unwrap();
    fs::write(mail.root.path().join("bob/1"), "bob's\n").unwrap();
    symlink("bob", mail.user()).unwrap();
    assert!(Maildrop::open(mail.location()).is_err());
}

#[test]
fn a_first_scan_on_many_threads_is_the_same() {
    let mail = Mail::maildir();
    for n in 0..1000 {
        mail.put(&format!("cur/{n}.M.h:2,S"), &"x\n".repeat(n % 7));
    }
    let expected: Vec<u64> = (0..1000).map(|n| 3 * (n % 7)).collect();
    assert_eq!(mail.octets(), expected);
}

#[test]
fn messages_outside_the_page_cache_are_measured_the_same() {
    let mail = Mail::flat();
    let sizes = [0, 1, 4095, 4096, 4097, 40_000, 65_535, 65_536, 65_537, 200_000];
    for n in 0..200 {
        let name = n.to_string();
        mail.put(&name, &"\n".repeat(sizes[n % sizes.len()]));
        let file = File::open(mail.path(&name)).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    let expected: Vec<u64> = (0..200).map(|n| 2 * sizes[n % sizes.len()] as u64).collect();
    assert_eq!(mail.octets(), expected);
}

#[test]
fn no_message_is_missed_while_others_move_them() {
    const COUNT: usize = 1500;
    let mail = Mail::maildir();
    for n in 0..COUNT {
        mail.put(&format!("new/{n}.M.h"), "x\n");
    }
    mail.settle();
    assert_eq!(mail.ids().len(), COUNT);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            for n in 0..COUNT {
                fs::rename(mail.path(&format!("new/{n}.M.h")), mail.path(&format!("cur/{n}.M.h:2,S"))).unwrap();
                std::thread::yield_now();
            }
        });
        while !mover.is_finished() {
            let ids: std::collections::BTreeSet<_> = mail.ids().into_iter().collect();
            assert_eq!(ids.len(), COUNT);
        }
    });
    assert_eq!(mail.ids().len(), COUNT);
}

#[test]
fn a_message_that_was_touched_can_be_removed_the_next_time() {
    let mail = Mail::maildir();
    mail.put("cur/1.M.h:2,S", "one\n");
    mail.settle();
    assert_eq!(mail.ids(), ["1.M.h"]);
    set_modified(&mail.path("cur/1.M.h:2,S"), SystemTime::UNIX_EPOCH);
    for expected in [Update { removed: 0, failed: 1 }, Update { removed: 1, failed: 0 }] {
        let mut open = mail.open();
        assert!(open.mark(number(1)));
        assert_eq!(open.commit(None), expected);
    }
}

#[test]
fn a_message_that_is_still_being_written_is_measured_again() {
    let mail = Mail::maildir();
    mail.put("new/1.M.h", "ha");
    let settle_directories = || ["new", "cur"].map(|folder| set_modified(&mail.path(folder), SystemTime::UNIX_EPOCH));
    settle_directories();
    assert_eq!(mail.octets(), [4]);
    mail.put("new/1.M.h", "half and half\n");
    settle_directories();
    assert_eq!(mail.octets(), [15]);
    assert!(mail.open().open_message(number(1)).is_ok());
}

#[test]
fn an_older_file_with_the_same_base_name_does_not_take_the_unique_id() {
    let mail = Mail::maildir();
    mail.put("cur/3.a.h:2,S", "known\n");
    mail.settle();
    assert_eq!(mail.ids(), ["3.a.h"]);
    mail.put("new/3.a.h", "restored, and longer\n");
    set_modified(&mail.path("new/3.a.h"), SystemTime::UNIX_EPOCH);
    let listing = mail.listing();
    let known = listing.iter().find(|(name, ..)| name == "3.a.h:2,S").unwrap();
    assert_eq!(known.2, "3.a.h");
    assert_eq!(mail.listing(), listing);
}

#[test]
fn a_marked_message_that_cannot_be_looked_for_is_not_removed() {
    let mail = Mail::maildir();
    mail.put("cur/1.M.h:2,S", "one\n");
    let mut open = mail.open();
    assert!(open.mark(number(1)));
    fs::rename(mail.path("cur/1.M.h:2,S"), mail.path("new/1.M.h")).unwrap();
    fs::rename(mail.path("new"), mail.path("elsewhere")).unwrap();
    symlink("elsewhere", mail.path("new")).unwrap();
    assert_eq!(open.commit(None), Update { removed: 0, failed: 1 });
}

#[test]
fn octets_are_exact_after_marks_however_many_there_are() {
    let mail = Mail::maildir();
    for n in 1..4 {
        mail.put(&format!("cur/{n}.M.h:2,S"), "one\n");
    }
    mail.settle();
    assert_eq!(mail.octets(), [5; 3]);
    let location = mail.location();
    let (root, files) = (location.root(), location.own_files(Folder::Top));
    let mut index = Index::load(root, &files).unwrap();
    index.entries[..2].iter_mut().for_each(|entry| entry.content.octets = u64::MAX);
    Index::save(root, &files, index.stamps, index.entries.iter());
    let mut open = mail.open();
    assert_eq!(open.octets(), u64::MAX);
    for (marked, octets) in [(1, u64::MAX), (2, 5), (3, 0)] {
        assert!(open.mark(number(marked)) && !open.mark(number(marked)));
        assert_eq!(open.octets(), octets);
    }
    open.reset();
    assert_eq!((open.count(), open.octets()), (3, u64::MAX));
}

#[test]
fn a_message_takes_little_memory() {
    assert!(size_of::<Message>() <= 72);
}
