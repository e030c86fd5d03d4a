//! The index: when a login trusts it, and when it lists or measures the messages again.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::super::index::Index;
use super::super::message::Folder;
use super::super::*;
use super::{Mail, number, set_modified};

#[test]
fn an_unchanged_maildir_is_not_listed() {
    let mail = Mail::maildir();
    mail.put("new/1.a", "one\n");
    mail.settle();
    assert_eq!(mail.octets(), [5]);
    let stamp = fs::metadata(mail.path("new")).unwrap();
    // The login takes the size from the index and does not look at the file.
    mail.put("new/1.a", "changed in place\n");
    assert_eq!(fs::metadata(mail.path("new")).unwrap().mtime(), stamp.mtime());
    assert_eq!(mail.octets(), [5]);
    // But the message is refused, and the next login measures it again.
    assert!(matches!(mail.open().open_message(number(1)), Err(OpenError::Changed)));
    assert_eq!(mail.octets(), [18]);
}

/// An index may say that there were no directories, if one was created just after the server had looked.
#[test]
fn a_maildrop_whose_index_has_no_directories_is_listed() {
    let mail = Mail::flat();
    let location = mail.location();
    Index::save(location.root(), &location.own_files(Folder::Top), Some([None, None]), std::iter::empty());
    assert!(mail.index().exists());
    mail.put("1.eml", "one\n");
    mail.settle();
    assert_eq!(mail.octets(), [5]);
}

/// This happens if the clock of the server that wrote the index was ahead of the file system's clock.
#[test]
fn an_index_written_too_soon_after_a_change_is_not_trusted() {
    let mail = Mail::maildir();
    mail.put("new/1.a", "one\n");
    mail.settle();
    assert_eq!(mail.octets(), [5]);
    mail.put("new/1.a", "changed in place\n");
    let changed = fs::metadata(mail.path("new")).unwrap().modified().unwrap();
    set_modified(&mail.index(), changed + Duration::from_secs(3));
    assert_eq!(mail.octets(), [5]);
    set_modified(&mail.index(), changed + Duration::from_secs(1));
    assert_eq!(mail.octets(), [18]);
    assert_eq!(mail.listing(), mail.fresh_listing());
}

#[test]
fn an_index_with_any_wrong_octet_is_replaced() {
    let mail = Mail::maildir();
    for n in 1..4 {
        mail.put(&format!("cur/{n}.M.h:2,S"), &"x\n".repeat(n));
    }
    mail.settle();
    let listing = mail.listing();
    let good = fs::read(mail.index()).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        fs::write(mail.index(), bad).unwrap();
        assert_eq!(mail.listing(), listing, "octet {at} flipped");
        fs::write(mail.index(), &good[..at]).unwrap();
        assert_eq!(mail.listing(), listing, "cut to {at}");
        assert_eq!(fs::read(mail.index()).unwrap(), good, "the index is replaced");
    }
}

#[test]
fn the_login_succeeds_whatever_has_the_name_of_the_index() {
    let mail = Mail::maildir();
    mail.put("cur/1.M.h:2,S", "one\n");
    mail.settle();
    let elsewhere = mail.root.path().join("elsewhere");
    fs::write(&elsewhere, "not ours").unwrap();
    let unusable: [&dyn Fn(&Path); 3] =
        [&|path| fs::create_dir(path).unwrap(), &|path| symlink("../elsewhere", path).unwrap(), &|path| {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success())
        }];
    for make in unusable {
        for name in [".pop3d-index", ".pop3d-index.new"] {
            let _ = fs::remove_file(mail.index());
            make(&mail.path(name));
            assert_eq!(mail.octets(), [5]);
            assert_eq!(mail.octets(), [5]);
            let path = mail.path(name);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
    }
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "not ours");
}

#[test]
fn a_copied_index_is_good_for_the_copied_maildrop() {
    let mail = Mail::maildir();
    mail.put("cur/1.M.h:2,S", "one\n");
    mail.settle();
    mail.listing();
    let copy = Mail::new();
    assert!(Command::new("cp").args(["-a", "--"]).arg(mail.user()).arg(copy.root.path()).status().unwrap().success());
    assert!(copy.index().exists());
    assert_eq!(copy.listing(), mail.listing());
    assert!(copy.open().open_message(number(1)).is_ok());
    assert_eq!(copy.listing(), mail.listing());
}

#[test]
fn a_directory_with_a_time_in_the_future_is_listed() {
    let mail = Mail::maildir();
    mail.put("new/1.a", "one\n");
    let future = SystemTime::now() + Duration::from_secs(3600);
    set_modified(&mail.path("new"), future);
    assert_eq!(mail.octets().len(), 1);
    mail.put("new/2.a", "two\n");
    set_modified(&mail.path("new"), future);
    assert_eq!(mail.octets().len(), 2);
}

#[test]
fn a_directory_whose_time_was_set_back_is_listed() {
    let mail = Mail::maildir();
    mail.put("new/1.a", "one\n");
    mail.settle();
    assert_eq!(mail.octets().len(), 1);
    let before = fs::metadata(mail.path("new")).unwrap().modified().unwrap();
    mail.put("new/2.a", "two\n");
    set_modified(&mail.path("new"), before);
    assert_eq!(mail.octets().len(), 2);
}

#[test]
fn sizes_in_names_are_trusted_until_the_message_is_retrieved() {
    let mail = Mail::maildir();
    let text = "line\n".repeat(20_000);
    mail.put(&format!("cur/1.M.h,S={},W=120000:2,S", text.len()), &text);
    mail.put(&format!("cur/2.M.h,S={},W=120001:2,S", text.len()), &text);
    mail.put(&format!("cur/3.M.h,S={},W=120001:2,S", text.len() + 1), &text);
    mail.put(&format!("cur/4.M.h,S={},W=120001:2,S", text.len() - 1), &text[..text.len() - 1]);
    mail.settle();
    assert_eq!(mail.octets(), [120_000, 120_001, 120_000, 120_000]);
    mail.open().correct_octets(number(2), 120_000);
    assert_eq!(mail.octets(), [120_000; 4]);
    mail.put("new/5.M.h", "");
    assert_eq!(mail.octets(), [120_000, 120_000, 120_000, 120_000, 0]);
}

#[test]
fn a_wrong_size_in_a_name_is_corrected_also_after_a_move() {
    let mail = Mail::maildir();
    let text = "line\n".repeat(20_000);
    let name = format!("1.M.h,S={},W=120001", text.len());
    mail.put(&format!("new/{name}"), &text);
    mail.settle();
    assert_eq!(mail.octets(), [120_001]);
    fs::rename(mail.path(&format!("new/{name}")), mail.path(&format!("cur/{name}:2,S"))).unwrap();
    // The directories have just changed, so the index still has the message where it was.
    mail.open().correct_octets(number(1), 120_000);
    assert_eq!(mail.octets(), [120_000]);
}

/// Writing the index takes as long as the maildrop is large.
#[test]
fn the_index_is_written_once_for_all_corrections_of_a_session() {
    let mail = Mail::maildir();
    let text = "line\n".repeat(20_000);
    for n in 1..4 {
        mail.put(&format!("cur/{n}.M.h,S={},W=120001:2,S", text.len()), &text);
    }
    mail.settle();
    let mut maildrop = mail.open();
    let index = File::open(mail.index()).unwrap();
    for n in 1..4 {
        maildrop.correct_octets(number(n), 120_000);
        let (now, before) = (fs::metadata(mail.index()).unwrap().ino(), index.metadata().unwrap().ino());
        assert_eq!(now, before, "it was written after message {n}");
    }
    drop(maildrop);
    assert_eq!(mail.octets(), [120_000; 3]);
}

/// Writing the index of a large maildrop takes a good part of a login's time.
#[test]
fn an_index_is_not_written_again_for_messages_that_it_cannot_have() {
    let mail = Mail::maildir();
    let put_in_the_future = |name| {
        mail.put(name, "one\n");
        set_modified(&mail.path(name), SystemTime::now() + Duration::from_secs(3600));
    };
    let index = || fs::metadata(mail.index()).map(|index| (index.ino(), index.modified().unwrap())).ok();
    put_in_the_future("new/1.x");
    assert_eq!(mail.octets(), [5]);
    assert_eq!(index(), None);
    mail.put("new/2.x", "one\n");
    set_modified(&mail.path("new/2.x"), SystemTime::UNIX_EPOCH);
    assert_eq!(mail.octets(), [5; 2]);
    let written = index();
    assert!(written.is_some());
    assert_eq!(mail.octets(), [5; 2]);
    assert_eq!(index(), written);
    put_in_the_future("new/3.x");
    assert_eq!(mail.octets(), [5; 3]);
    assert_eq!(index(), written);
}
