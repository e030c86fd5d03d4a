//! What other programs do to an mbox, and what a server does that is interrupted while it removes messages.

mod kept;
mod others;

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::journal::{self, CHUNK, CHUNK_1, Journal};
use super::list::Listing;
use super::lock;
use super::rewrite::{self, Plan};
use crate::maildrop::{Holder, LockError, Locks, MailRoot, Maildrop, MessageNumber, OpenError, Terms, Update};

struct Mail {
    root: tempfile::TempDir,
}

/// A message with its `From ` line and the empty line behind it.
fn mail(name: &str) -> String {
    format!("From {name}@example.com Thu Jan  1 00:00:00 2026\nSubject: {name}\n\nText of {name}\n\n")
}

fn number(n: u32) -> MessageNumber {
    MessageNumber::new(n).unwrap()
}

impl Mail {
    fn new(text: &str) -> Self {
        let mail = Self { root: tempfile::tempdir().unwrap() };
        fs::write(mail.path(), text).unwrap();
        mail
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("ana")
    }

    fn own(&self, kind: &str) -> PathBuf {
        self.root.path().join(format!(".ana.pop3d-{kind}"))
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn append(&self, text: &str) {
        File::options().append(true).open(self.path()).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Makes it look as if the file had not been changed for an hour. Its change time cannot be set, so this only goes for
    /// the other one.
    fn settle(&self) {
        let past = SystemTime::now() - Duration::from_secs(3600);
        File::options().write(true).open(self.path()).unwrap().set_modified(past).unwrap();
    }

    fn open(&self) -> Maildrop {
        let location = MailRoot::open(self.root.path().to_owned()).unwrap().location("ana".parse().unwrap()).unwrap();
        Maildrop::open(location).unwrap()
    }

    fn ids(&self) -> Vec<String> {
        ids(&self.open())
    }
}

fn ids(maildrop: &Maildrop) -> Vec<String> {
    maildrop.messages().map(|(_, message)| String::from_utf8(message.unique_id().to_vec()).unwrap()).collect()
}

fn sent(maildrop: &mut Maildrop, n: u32) -> Result<String, OpenError> {
    let mut text = String::new();
    maildrop.open_message(number(n))?.source.read_to_string(&mut text).unwrap();
    Ok(text)
}

/// The subjects of all messages as a session sends them.
fn subjects(maildrop: &mut Maildrop) -> Vec<String> {
    let count = maildrop.count() as u32;
    (1..=count).map(|n| sent(maildrop, n).unwrap().lines().next().unwrap().replace("Subject: ", "")).collect()
}

#[test]
fn messages_are_sent_without_their_from_lines() {
    let mail = Mail::new(&[mail("a"), mail("b"), mail("c")].concat());
    let mut maildrop = mail.open();
    assert_eq!(sent(&mut maildrop, 2).unwrap(), "Subject: b\n\nText of b\n");
    assert_eq!(maildrop.message(number(2)).unwrap().octets(), 25);
    assert_eq!(subjects(&mut maildrop), ["a", "b", "c"]);
    assert!(mail.own("index").exists());
    assert_eq!(mail.ids(), ids(&maildrop));
}

#[test]
fn an_empty_mbox_and_internal_data_are_no_messages() {
    assert!(Mail::new("").ids().is_empty());
    let internal = "From x\nX-IMAP: 1 2\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n\nx\n\n";
    let mail = Mail::new(&[internal, &mail("a")].concat());
    let mut maildrop = mail.open();
    assert_eq!(subjects(&mut maildrop), ["a"]);
    assert!(maildrop.mark(number(1)));
    assert_eq!(maildrop.commit(None), Update { removed: 1, failed: 0 });
    assert_eq!(mail.text(), internal);
}

#[test]
fn only_appended_mail_is_read() {
    let mail = Mail::new(&[mail("a"), "x".repeat(0)].concat());
    let big = format!("From b\nSubject: b\n\n{}\n", "text\n".repeat(20_000));
    mail.append(&big);
    mail.settle();
    let ids = mail.ids();
    mail.append(&self::mail("c"));
    // A change in the middle shows whether the login reads the known part again. It does not have to.
    let file = File::options().write(true).open(mail.path()).unwrap();
    file.write_all_at(b"TEXT", (self::mail("a").len() + 20_000) as u64).unwrap();
    let now = mail.ids();
    assert_eq!(now[..2], ids);
    assert_eq!(now.len(), 3);
    assert_eq!(subjects(&mut mail.open()), ["a", "b", "c"]);
}

#[test]
fn the_index_is_written_again_only_when_much_was_appended() {
    let mail = Mail::new(&mail("a"));
    let before = mail.ids();
    let index = fs::read(mail.own("index")).unwrap();
    mail.append(&[self::mail("b"), self::mail("a")].concat());
    let ids = mail.ids();
    assert_eq!((&ids[0], &ids[2]), (&before[0], &format!("{}-2", before[0])));
    assert_eq!(fs::read(mail.own("index")).unwrap(), index);
    mail.append(&format!("From c\nSubject: c\n\n{}\n", "text\n".repeat(20_000)));
    let more = mail.ids();
    assert_eq!((more.len(), &more[..3]), (4, &ids[..]));
    assert_ne!(fs::read(mail.own("index")).unwrap(), index);
    assert_eq!(mail.ids(), more);
}

#[test]
fn messages_that_the_index_does_not_have_yet_are_removed() {
    let mail = Mail::new(&mail("a"));
    mail.ids();
    mail.append(&[self::mail("b"), self::mail("a"), self::mail("c")].concat());
    let mut session = mail.open();
    let ids = ids(&session);
    assert!(session.mark(number(2)) && session.mark(number(3)));
    assert_eq!(session.commit(None), Update { removed: 2, failed: 0 });
    assert_eq!(mail.text(), [self::mail("a"), self::mail("c")].concat());
    assert_eq!(mail.ids(), [ids[0].clone(), ids[3].clone()]);
}

#[test]
fn a_message_that_was_still_being_delivered_is_read_again() {
    let mail = Mail::new(&mail("a"));
    mail.append("From b\nSubject: b\n\nhalf");
    let mut session = mail.open();
    mail.append(" and half\n");
    let mut next = mail.open();
    assert_eq!(sent(&mut next, 2).unwrap(), "Subject: b\n\nhalf and half\n");
    assert_eq!(ids(&next)[0], ids(&session)[0]);
    // The session had half of it, which is not removed.
    assert!(sent(&mut session, 2).is_err());
    assert!(session.mark(number(2)));
    assert_eq!(session.commit(None).failed, 0);
    assert_eq!(mail.ids(), ids(&next));
}

#[test]
fn unique_ids_stay_when_flags_change_and_others_are_removed() {
    let mail = Mail::new(&[mail("a"), mail("b"), mail("b"), mail("c")].concat());
    let before = mail.ids();
    assert_eq!(before[2], format!("{}-2", before[1]));
    fs::write(mail.path(), mail.text().replace("Subject: b\n", "Subject: b\nStatus: RO\nX-UID: 5\n")).unwrap();
    assert_eq!(mail.ids(), before);
    for _ in 0..2 {
        let mut maildrop = mail.open();
        assert!(maildrop.mark(number(1)));
        assert_eq!(maildrop.commit(None), Update { removed: 1, failed: 0 });
    }
    assert_eq!(mail.ids(), before[2..]);
    // An equal message does not get the unique-id of the one that has been removed.
    mail.append(&self::mail("b"));
    assert_eq!(mail.ids()[2], format!("{}-3", before[1]));
    assert_eq!(mail.ids()[..2], before[2..]);
}

#[test]
fn a_session_finds_its_messages_after_others_changed_the_file() {
    let mail = Mail::new(&[mail("a"), mail("b"), mail("c")].concat());
    let mut maildrop = mail.open();
    let with_flags = self::mail("c").replace("Subject", "Status: RO\nSubject");
    fs::write(mail.path(), [self::mail("b"), with_flags, self::mail("d")].concat()).unwrap();
    assert!(
        matches!(sent(&mut maildrop, 1), Err(OpenError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound)
    );
    assert_eq!(sent(&mut maildrop, 2).unwrap(), "Subject: b\n\nText of b\n");
    assert_eq!(sent(&mut maildrop, 3).unwrap(), "Status: RO\nSubject: c\n\nText of c\n");
    for n in [1, 3] {
        assert!(maildrop.mark(number(n)));
    }
    assert_eq!(maildrop.commit(None), Update { removed: 1, failed: 0 });
    assert_eq!(mail.text(), [self::mail("b"), self::mail("d")].concat());
}

#[test]
fn mail_appended_during_a_session_stays() {
    let names = ["a", "b", "c", "d"];
    for marked in 0..16_u32 {
        let mail = Mail::new(&names.map(mail).concat());
        let mut maildrop = mail.open();
        (1..=4).filter(|n| marked & (1 << (n - 1)) != 0).for_each(|n| assert!(maildrop.mark(number(n))));
        mail.append(&self::mail("e"));
        assert_eq!(maildrop.commit(None), Update { removed: marked.count_ones().into(), failed: 0 });
        let left = (0..4).filter(|n| marked & (1 << n) == 0).map(|n| self::mail(names[n]));
        assert_eq!(mail.text(), left.chain([self::mail("e")]).collect::<String>(), "{marked:b}");
        assert!(!mail.own("journal").exists() && !mail.root.path().join("ana.lock").exists());
        let mut next = mail.open();
        assert_eq!(subjects(&mut next).len(), next.count());
    }
}

#[test]
fn an_mbox_that_was_changed_in_place_is_read_again_before_anything_is_removed() {
    let mail = Mail::new(&[mail("a"), mail("b"), mail("c")].concat());
    mail.settle();
    let mut maildrop = mail.open();
    assert!(maildrop.mark(number(2)));
    // The sizes, the beginning and the end are the same.
    let times = fs::metadata(mail.path()).unwrap().modified().unwrap();
    let text = mail.text().replace("Text of b", "TEXT of b");
    let file = File::options().write(true).open(mail.path()).unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
    file.set_modified(times).unwrap();
    assert_eq!(maildrop.commit(None), Update { removed: 0, failed: 0 });
    assert_eq!(mail.text(), text);
}

#[test]
fn a_forged_index_leads_nowhere() {
    let mail = Mail::new(&[mail("a"), mail("b")].concat());
    let good = mail.ids();
    let index = fs::read(mail.own("index")).unwrap();
    for at in 0..index.len() {
        let mut bad = index.clone();
        bad[at] ^= 0x11;
        let checksum = crc32fast::hash(&bad[16..]).to_le_bytes();
        bad[12..16].copy_from_slice(&checksum);
        fs::write(mail.own("index"), &bad).unwrap();
        let mut maildrop = mail.open();
        for n in 1..=maildrop.count() as u32 {
            let _ = sent(&mut maildrop, n);
        }
    }
    fs::remove_file(mail.own("index")).unwrap();
    assert_eq!(mail.ids(), good);
}

#[test]
fn the_lock_file_is_beside_the_mbox() {
    let mail = Mail::new(&mail("a"));
    let location = MailRoot::open(mail.root.path().to_owned()).unwrap().location("ana".parse().unwrap()).unwrap();
    let (one, other) = (std::sync::Arc::new(Locks::default()), std::sync::Arc::new(Locks::default()));
    let holder =
        Holder { session: Some(17), origin: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into(), since: Instant::now() };
    let lock = one.lock(&location, holder, Terms::default()).unwrap();
    assert!(mail.own("lock").exists() && lock.is_exclusive());
    assert!(matches!(other.lock(&location, holder, Terms::default()), Err(LockError::HeldElsewhere(Some(_)))));
    fs::write(mail.path(), "Subject: no mbox\n").unwrap();
    fs::remove_file(mail.own("lock")).unwrap();
    drop(lock);
    assert!(one.lock(&location, holder, Terms::default()).is_err());
    assert!(!mail.own("lock").exists(), "nothing is written beside another file");
}

#[test]
fn a_stale_dot_lock_is_broken_and_another_is_waited_for() {
    let mail = Mail::new(&[mail("a"), mail("b")].concat());
    let lock = mail.root.path().join("ana.lock");
    let remove_first = || {
        let mut maildrop = mail.open();
        assert!(maildrop.mark(number(1)));
        maildrop.commit(None)
    };
    // The process of the lock has ended.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    assert!(child.wait().unwrap().success());
    fs::write(&lock, child.id().to_string()).unwrap();
    assert_eq!(remove_first(), Update { removed: 1, failed: 0 });
    assert!(!lock.exists());
    // It is old and names no process.
    fs::write(&lock, "0").unwrap();
    File::options()
        .write(true)
        .open(&lock)
        .unwrap()
        .set_modified(SystemTime::now() - Duration::from_secs(301))
        .unwrap();
    assert_eq!(remove_first(), Update { removed: 1, failed: 0 });
    assert_eq!(mail.text(), "");
    // Its process lives, and removes it while the session waits.
    fs::write(mail.path(), self::mail("a")).unwrap();
    fs::write(&lock, "1").unwrap();
    std::thread::scope(|scope| {
        let session = scope.spawn(remove_first);
        std::thread::sleep(Duration::from_millis(50));
        fs::remove_file(&lock).unwrap();
        assert_eq!(session.join().unwrap(), Update { removed: 1, failed: 0 });
    });
}

/// The states that the mbox and its journal go through while messages are removed.
fn states(text: &str, due: &[bool], chunk: u64) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mail = Mail::new(text);
    let (path, journal) = (mail.path(), mail.own("journal"));
    let state = move || (fs::read(&path).unwrap(), fs::read(&journal).ok());
    let mut states = vec![state()];
    journal::observe(Some(Box::new(state)));
    run(&mail.path(), due, chunk).unwrap();
    states.extend(journal::observed());
    states
}

fn run(path: &Path, due: &[bool], chunk: u64) -> std::io::Result<()> {
    let root = MailRoot::open(path.parent().unwrap().to_owned()).unwrap().location("ana".parse().unwrap()).unwrap();
    let directory = root.root().directory(b".").unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let listing = Listing::read(&file, Cow::default(), None).unwrap();
    let plan = Plan { chunk, ..Plan::without(&listing, due) };
    let lock = lock::for_writing(&file, &directory, b"ana").unwrap();
    rewrite::run(&file, plan, &Journal::new(&directory, b".ana.pop3d-journal".to_vec()), &lock)
}

#[test]
fn a_server_killed_at_any_moment_leaves_each_message_once() {
    let names = ["a", "b", "c", "d", "e"];
    let all = names.map(mail).concat();
    for marked in [0b1_u32, 0b10, 0b101, 0b10110, 0b1010] {
        let due: Vec<bool> = (0..5).map(|n| marked & (1 << n) != 0).collect();
        let left: String = (0..5).filter(|&n| !due[n]).map(|n| mail(names[n])).collect();
        for (at, (mbox, journal)) in states(&all, &due, CHUNK).into_iter().enumerate() {
            for appended in ["", &mail("f"), &"f".repeat(1000).split_inclusive("ffff").map(mail).collect::<String>()] {
                let mail = Mail::new("");
                fs::write(mail.path(), &mbox).unwrap();
                if let Some(journal) = &journal {
                    let inode = fs::metadata(mail.path()).unwrap().ino();
                    fs::write(mail.own("journal"), journal::with_inode(journal, inode)).unwrap();
                }
                mail.append(appended);
                let mut maildrop = mail.open();
                let count = maildrop.count();
                assert_eq!(subjects(&mut maildrop).len(), count);
                let text = mail.text();
                let expected = [[all.as_str(), appended].concat(), [left.as_str(), appended].concat()];
                assert!(expected.contains(&text), "marked {marked:b}, state {at}, {} appended: {text}", appended.len());
                assert!(!mail.own("journal").exists());
            }
        }
    }
}

#[test]
fn a_removal_that_an_older_version_has_begun_is_finished() {
    let all = ["a", "b", "c"].map(mail).concat();
    let mut finished = 0;
    for (mbox, journal) in states(&all, &[true, false, false], CHUNK_1) {
        let Some(journal) = journal else { continue };
        let mail = Mail::new("");
        fs::write(mail.path(), &mbox).unwrap();
        let inode = fs::metadata(mail.path()).unwrap().ino();
        fs::write(mail.own("journal"), journal::of_version_1(&journal::with_inode(&journal, inode))).unwrap();
        mail.open();
        let is_removed = mail.text() == ["b", "c"].map(self::mail).concat();
        assert!(is_removed || mail.text() == all, "{}", mail.text());
        assert!(!mail.own("journal").exists() && !mail.own("journal.stale").exists());
        finished += usize::from(is_removed);
    }
    assert!(finished > 3);
}

#[test]
fn a_damaged_journal_is_put_aside() {
    let mail = Mail::new(&mail("a"));
    fs::write(mail.own("journal"), "not a journal").unwrap();
    assert_eq!(mail.ids().len(), 1);
    let mut text = String::new();
    File::open(mail.own("journal.stale")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "not a journal");
}
