//! Other users' files and links, other programs' locks, and files that are replaced.

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{self, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::process::geteuid;

use super::*;
use crate::net::Origin;

const ANA: u32 = 12345;
const BOB: u32 = 54321;
/// Group mail.
const MAIL: u32 = 8;

/// An mbox of ana in a directory in which every user may create files.
fn in_a_shared_directory(text: &str) -> Option<Mail> {
    geteuid().is_root().then(|| {
        let mail = Mail::new(text);
        set_mode(mail.root.path(), 0o1777);
        chown(mail.path(), Some(ANA), Some(MAIL)).unwrap();
        set_mode(&mail.path(), 0o660);
        mail
    })
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

fn lock_file(mail: &Mail) -> PathBuf {
    mail.root.path().join("ana.lock")
}

/// A number that no process has.
fn ended_process() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    assert!(child.wait().unwrap().success());
    child.id()
}

#[test]
fn appended_mail_that_a_session_has_passed_is_seen_by_the_next_one() {
    let mail = Mail::new(&["a", "b", "c"].map(mail).concat());
    let mut maildrop = mail.open();
    mail.append(&self::mail("d"));
    // The session finds its messages in the longer file.
    assert_eq!(subjects(&mut maildrop), ["a", "b", "c"]);
    assert!(maildrop.mark(number(1)));
    assert_eq!(maildrop.commit(None), Update { removed: 1, failed: 0 });
    assert_eq!(mail.text(), ["b", "c", "d"].map(self::mail).concat());
    assert_eq!(subjects(&mut mail.open()), ["b", "c", "d"]);
}

#[test]
fn an_mbox_that_is_replaced_while_a_session_waits_for_its_lock_is_changed_itself() {
    let mail = Mail::new(&["a", "b"].map(mail).concat());
    let mut maildrop = mail.open();
    assert!(maildrop.mark(number(1)));
    let old = File::options().write(true).open(mail.path()).unwrap();
    let whole = libc::flock { l_type: libc::F_WRLCK as _, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&old, FcntlArg::F_OFD_SETLK(&whole)).unwrap();
    let new = mail.root.path().join("new");
    fs::write(&new, ["c", "a", "b"].map(self::mail).concat()).unwrap();
    thread::scope(|scope| {
        let commit = scope.spawn(|| maildrop.commit(None));
        thread::sleep(Duration::from_millis(50)); // so that the session most likely waits already
        fs::rename(&new, mail.path()).unwrap();
        drop(old);
        assert_eq!(commit.join().unwrap(), Update { removed: 1, failed: 0 });
    });
    assert_eq!(mail.text(), ["c", "b"].map(self::mail).concat());
}

#[test]
fn a_file_with_other_names_is_refused() {
    let mail = Mail::new(&mail("a"));
    let other = mail.root.path().join("other");
    fs::hard_link(mail.path(), &other).unwrap();
    let location = || MailRoot::open(mail.root.path().to_owned()).unwrap().location("ana".parse().unwrap()).unwrap();
    let error = Maildrop::open(location()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    let holder =
        Holder { session: Some(17), origin: Origin::Address((Ipv4Addr::LOCALHOST, 1).into()), since: Instant::now() };
    assert!(matches!(Arc::new(Locks::default()).lock(&location(), holder, Terms::default()), Err(LockError::Io(_))));
    // It gets another name during a session.
    fs::remove_file(&other).unwrap();
    let mut maildrop = mail.open();
    assert!(maildrop.mark(number(1)));
    fs::hard_link(mail.path(), &other).unwrap();
    assert!(sent(&mut maildrop, 1).is_err());
    assert_eq!(maildrop.commit(None), Update { removed: 0, failed: 1 });
    assert_eq!(mail.text(), self::mail("a"));
}

#[test]
fn the_servers_files_belong_to_the_owner_of_the_mbox() {
    let Some(mail) = in_a_shared_directory(&["a", "b"].map(mail).concat()) else { return };
    let location = MailRoot::open(mail.root.path().to_owned()).unwrap().location("ana".parse().unwrap()).unwrap();
    let holder =
        Holder { session: Some(17), origin: Origin::Address((Ipv4Addr::LOCALHOST, 1).into()), since: Instant::now() };
    let _lock = Arc::new(Locks::default()).lock(&location, holder, Terms::default()).unwrap();
    let journal = mail.own("journal");
    let lock = lock_file(&mail);
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    journal::observe(Some(Box::new(move || {
        for path in [&journal, &lock] {
            if path.exists() {
                assert_eq!(owner_and_mode(path), (ANA, MAIL, if *path == lock { 0o644 } else { 0o660 }));
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        (Vec::new(), None)
    })));
    let mut maildrop = mail.open();
    assert!(maildrop.mark(number(1)));
    assert_eq!(maildrop.commit(None), Update { removed: 1, failed: 0 });
    journal::observed();
    assert!(seen.load(Ordering::Relaxed) > 4);
    for kind in ["index", "lock"] {
        assert_eq!(owner_and_mode(&mail.own(kind)), (ANA, MAIL, 0o660), "{kind}");
    }
}

#[test]
fn files_that_another_user_has_put_beside_the_mbox_are_not_used() {
    let text = ["a", "b", "c"].map(mail).concat();
    let Some(mail) = in_a_shared_directory(&text) else { return };
    let ids = mail.ids();
    // The journal is that of a removal in the middle, and the index has another unique-id.
    let (_, Some(journal)) = states(&text, &[true, false, false], CHUNK).swap_remove(3) else { panic!() };
    let inode = fs::metadata(mail.path()).unwrap().ino();
    fs::write(mail.own("journal"), journal::with_inode(&journal, inode)).unwrap();
    let mut index = fs::read(mail.own("index")).unwrap();
    let at = index.windows(32).position(|octets| octets == ids[0].as_bytes()).unwrap();
    index[at..at + 4].copy_from_slice(b"evil");
    let checksum = crc32fast::hash(&index[16..]).to_le_bytes();
    index[12..16].copy_from_slice(&checksum);
    fs::write(mail.own("index"), index).unwrap();
    for kind in ["journal", "index"] {
        chown(mail.own(kind), Some(BOB), Some(BOB)).unwrap();
    }
    assert_eq!(mail.ids(), ids);
    assert_eq!(mail.text(), text);
    assert!(!mail.own("journal").exists() && mail.own("journal.stale").exists());
    assert_eq!(fs::metadata(mail.own("index")).unwrap().uid(), ANA);
}

#[test]
fn a_login_removes_the_dot_lock_of_a_process_that_has_ended() {
    // The second is a server that had the same process id, as in a container.
    for process in [ended_process(), process::id()] {
        let mail = Mail::new(&mail("a"));
        fs::write(lock_file(&mail), process.to_string()).unwrap();
        assert_eq!(mail.ids().len(), 1);
        assert!(!lock_file(&mail).exists());
    }
    // A living process keeps its lock, and the login need not wait for it.
    let mail = Mail::new(&mail("a"));
    fs::write(lock_file(&mail), "1").unwrap();
    assert_eq!(mail.ids().len(), 1);
    assert!(lock_file(&mail).exists());
}

#[test]
fn a_dot_lock_stays_fresh_during_a_long_removal() {
    let names: Vec<_> = (0..30).map(|n| n.to_string()).collect();
    let mail = Mail::new(&names.iter().map(|name| mail(name)).collect::<String>());
    let mut maildrop = mail.open();
    let refreshed = Arc::new(AtomicUsize::new(0));
    let (lock, count) = (lock_file(&mail), Arc::clone(&refreshed));
    journal::observe(Some(Box::new(move || {
        if let Ok(file) = File::options().write(true).open(&lock) {
            let age = file.metadata().unwrap().modified().unwrap().elapsed().unwrap_or_default();
            count.fetch_add(usize::from(age < Duration::from_secs(200)), Ordering::Relaxed);
            file.set_modified(SystemTime::now() - Duration::from_secs(250)).unwrap();
        }
        (Vec::new(), None)
    })));
    assert!(maildrop.mark(number(1)));
    assert_eq!(maildrop.commit(None), Update { removed: 1, failed: 0 });
    journal::observed();
    assert!(refreshed.load(Ordering::Relaxed) > 10, "{refreshed:?}");
}

#[test]
fn only_the_servers_own_dot_lock_is_removed() {
    let mail = Mail::new(&["a", "b"].map(mail).concat());
    let mut maildrop = mail.open();
    let lock = lock_file(&mail);
    let other = lock.clone();
    journal::observe(Some(Box::new(move || {
        // Another program takes the lock for a stale one.
        if fs::read_to_string(&other).is_ok_and(|text| text != "1") {
            fs::remove_file(&other).unwrap();
            fs::write(&other, "1").unwrap();
        }
        (Vec::new(), None)
    })));
    assert!(maildrop.mark(number(1)));
    let _ = maildrop.commit(None);
    journal::observed();
    assert_eq!(fs::read_to_string(lock).unwrap(), "1");
}

#[test]
fn a_message_that_is_changed_while_it_is_sent_has_no_end() {
    let big = |line: &str| format!("From b\nSubject: big\n\n{}\n", line.repeat(50_000));
    // The other program appends a message, changes the message in place, or removes the one before it.
    let appended = |mail: &Mail| mail.append(&self::mail("c"));
    let changed = |mail: &Mail| fs::write(mail.path(), [self::mail("a"), big("TEXT\n")].concat()).unwrap();
    let moved = |mail: &Mail| fs::write(mail.path(), [big("text\n"), self::mail("c")].concat()).unwrap();
    let changes: [&dyn Fn(&Mail); 3] = [&appended, &changed, &moved];
    for (at, change) in changes.into_iter().enumerate() {
        let mail = Mail::new(&[self::mail("a"), big("text\n")].concat());
        let mut maildrop = mail.open();
        let mut source = maildrop.open_message(number(2)).unwrap().source;
        let mut first = vec![0; 100_000];
        source.read_exact(&mut first).unwrap();
        change(&mail);
        let mut rest = Vec::new();
        assert_eq!(source.read_to_end(&mut rest).is_ok(), at == 0, "case {at}");
    }
}
