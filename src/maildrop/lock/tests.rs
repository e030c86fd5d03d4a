use super::*;
use crate::maildrop::MailRoot;
use crate::net::Origin;
use std::fs;
use std::net::Ipv4Addr;

fn holder() -> Holder {
    Holder { session: Some(17), origin: Origin::Address((Ipv4Addr::LOCALHOST, 1).into()), since: Instant::now() }
}

fn location(directory: &tempfile::TempDir, user: &str) -> Location {
    MailRoot::open(directory.path().to_owned()).unwrap().location(user.parse().unwrap()).unwrap()
}

/// A mail root with a maildrop for ana.
fn mail() -> (tempfile::TempDir, Location) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("ana")).unwrap();
    let location = location(&directory, "ana");
    (directory, location)
}

#[test]
fn a_maildrop_is_free_when_its_lock_is_dropped() {
    let locks = Arc::new(Locks::default());
    let ((_here, here), (_there, there)) = (mail(), mail());
    let take = |location: &Location| locks.lock(location, holder(), Terms::default()).ok();
    let lock = take(&here).unwrap();
    assert_eq!(locks.users(), ["ana"]);
    assert!(take(&here).is_none());
    assert!(take(&there).is_some());
    let waiting = std::thread::spawn({
        let (locks, here) = (Arc::clone(&locks), here.clone());
        move || locks.lock(&here, holder(), Terms::default()).is_ok()
    });
    drop(lock);
    assert!(waiting.join().unwrap());
    assert!(locks.users().is_empty());
}

#[test]
fn a_lock_keeps_other_servers_out() {
    let (directory, ana) = mail();
    let (one, other) = (Arc::new(Locks::default()), Arc::new(Locks::default()));
    let lock = one.lock(&ana, holder(), Terms::default()).unwrap();
    let told = |result: Result<Lock, LockError>| match result {
        Err(LockError::HeldElsewhere(told)) => told.map(|told| (told.session, told.process)),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(other.lock(&ana, holder(), Terms::default())), Some((Some(17), std::process::id())));
    assert_eq!(other.holder_elsewhere(&ana).unwrap().session, Some(17));
    assert_eq!(one.holder_elsewhere(&ana), None, "it has the maildrop itself");
    assert!(other.users().is_empty());
    // A file that another program has written to tells nothing.
    fs::write(directory.path().join("ana/.pop3d-lock"), "host=\x1b[2J\n").unwrap();
    assert_eq!(told(other.lock(&ana, holder(), Terms::default())), None);
    drop(lock);
    let _lock = other.lock(&ana, Holder { session: Some(3), ..holder() }, Terms::default()).unwrap();
    assert_eq!(one.holder_elsewhere(&ana).unwrap().session, Some(3));
    assert_eq!(fs::metadata(directory.path().join("ana/.pop3d-lock")).unwrap().len(), 160);
}

#[test]
fn sessions_share_a_maildrop_only_with_those_that_share_it() {
    let (_directory, ana) = mail();
    let (one, other) = (Arc::new(Locks::default()), Arc::new(Locks::default()));
    let shared = Terms { patience: Duration::ZERO, shared: true };
    let alone = Terms { shared: false, ..shared };
    let sessions: Vec<_> = [1, 2, 3]
        .map(|session| one.lock(&ana, Holder { session: Some(session), ..holder() }, shared).unwrap())
        .into_iter()
        .chain([other.lock(&ana, holder(), shared).unwrap()])
        .collect();
    assert!(sessions.iter().all(Lock::is_exclusive));
    assert_eq!((one.users(), other.users()), (vec!["ana".to_owned()], vec!["ana".to_owned()]));
    for session in sessions {
        assert!(matches!(one.lock(&ana, holder(), alone), Err(LockError::HeldBy(_) | LockError::HeldElsewhere(_))));
        assert!(matches!(
            Arc::new(Locks::default()).lock(&ana, holder(), alone),
            Err(LockError::HeldElsewhere(Some(_)))
        ));
        drop(session);
    }
    let lock = one.lock(&ana, holder(), alone).unwrap();
    assert!(matches!(one.lock(&ana, holder(), shared), Err(LockError::HeldBy(_))));
    assert!(matches!(other.lock(&ana, holder(), shared), Err(LockError::HeldElsewhere(_))));
    drop(lock);
    other.lock(&ana, holder(), shared).unwrap();
}

/// The server itself works on a maildrop for a moment only, so even a login that would not wait waits for it.
#[test]
fn a_login_waits_for_the_server_itself() {
    let (_directory, ana) = mail();
    let locks = Arc::new(Locks::default());
    let terms = Terms { patience: Duration::ZERO, shared: false };
    let lock = locks.lock(&ana, Holder { session: None, ..holder() }, terms).unwrap();
    let waiting = std::thread::spawn({
        let (locks, ana) = (Arc::clone(&locks), ana.clone());
        move || locks.lock(&ana, holder(), terms).map(drop)
    });
    drop(lock);
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_free_maildrop_has_no_holder() {
    let (_directory, ana) = mail();
    let locks = Arc::new(Locks::default());
    assert_eq!(locks.holder_elsewhere(&ana), None);
    drop(locks.lock(&ana, holder(), Terms::default()).unwrap());
    assert_eq!(locks.holder_elsewhere(&ana), None, "the file names the last session");
}

#[test]
fn a_missing_maildrop_gets_no_lock_file() {
    let (directory, _) = mail();
    let locks = Arc::new(Locks::default());
    assert!(locks.lock(&location(&directory, "bob"), holder(), Terms::default()).is_ok());
    assert!(!directory.path().join("bob").exists());
}

#[test]
fn only_a_regular_file_is_locked() {
    let (directory, ana) = mail();
    let file = directory.path().join("ana/.pop3d-lock");
    let outside = directory.path().join("outside");
    let refused = || {
        let locks = Arc::new(Locks::default());
        assert!(matches!(locks.lock(&ana, holder(), Terms::default()), Err(LockError::Io(_))));
        assert!(locks.users().is_empty());
    };
    std::os::unix::fs::symlink(&outside, &file).unwrap();
    refused();
    assert!(!outside.exists());
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused();
    fs::remove_dir(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    refused();
    let _reader = fs::File::options().read(true).write(true).open(&file).unwrap();
    refused();
}
