//! Disks that are full or become read-only. The tests mount small file systems in memory.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{MailRoot, Maildrop, Server, USER, eventually};

/// A small file system that is mounted at a directory, and unmounted when this is dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    /// Mounts a file system. Returns `None` if this machine does not let the test mount one.
    fn mount(at: &'a Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(at).output().unwrap();
        if !mounted.status.success() {
            eprintln!("SKIPPED: no file system can be mounted: {}", String::from_utf8_lossy(&mounted.stderr));
            return None;
        }
        Some(Self(at))
    }

    /// Fills the file system and leaves `left` octets free.
    fn fill(&self, left: usize) {
        let mut filler = fs::File::create(self.filler()).unwrap();
        let full = loop {
            if let Err(error) = filler.write_all(&[b'x'; 1024]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        let size = filler.metadata().unwrap().len();
        filler.set_len(size - left as u64).unwrap();
    }

    /// Frees the space that [`Disk::fill`] has taken.
    fn free_space(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    /// A file in the mail directory. It is no user's maildrop, because it is not a directory.
    fn filler(&self) -> std::path::PathBuf {
        self.0.join("filler")
    }

    fn remount(&self, option: &str) {
        let remount = format!("remount,{option}");
        assert!(Command::new("mount").args(["-o", &remount]).arg(self.0).status().unwrap().success());
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// Enough messages that their index takes several pages.
const COUNT: usize = 200;

fn deliver(maildrop: &Maildrop, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let name = format!("new/{number}.M.h");
        maildrop.put(&name, "x\n");
        maildrop.set_modified(&name, 1_000_000_000);
    }
}

fn index_files(maildrop: &Maildrop) -> Vec<String> {
    let names = fs::read_dir(maildrop.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".pop3d-index")).collect()
}

/// Checks that two logins find `count` messages of 3 octets each.
#[track_caller]
fn check(server: &Server, count: usize) {
    for _ in 0..2 {
        let mut session = server.session();
        assert_eq!(session.call("STAT"), format!("{count} {}", 3 * count));
        assert_eq!(session.listing("LIST").len(), count);
        assert_eq!(session.fetch(&format!("RETR {count}")), b"x\r\n");
        session.quit();
    }
}

/// The disk is full when the server writes the first, the second or the last page of the index.
#[test]
fn mail_is_served_when_the_disk_is_too_full_for_the_index() {
    for left in [0, 4096, 8192] {
        let mail = MailRoot::new();
        let Some(disk) = Disk::mount(mail.path()) else { return };
        let server = Server::builder().mail(&mail).start();
        let maildrop = mail.maildrop(USER);
        deliver(&maildrop, 0..COUNT);
        disk.fill(left);
        check(&server, COUNT);
        assert_eq!(index_files(&maildrop), [""; 0], "the server has left an index on a full disk");

        let mut session = server.session();
        session.call("DELE 1");
        session.quit();
        disk.free_space();
        check(&server, COUNT - 1);
        assert_eq!(index_files(&maildrop), [".pop3d-index"]);

        // Now there is an index, and it becomes out of date.
        deliver(&maildrop, COUNT..COUNT + 5);
        disk.fill(left);
        check(&server, COUNT + 4);
        assert_eq!(index_files(&maildrop), [".pop3d-index"]);
        disk.free_space();
        check(&server, COUNT + 4);
        drop((server, disk));
    }
}

/// Sessions are served without a log. The lines that did not fit are lost, and the log goes on when there is space
/// again.
#[test]
fn a_full_disk_for_the_log_does_not_disturb_sessions() {
    let directory = TempDir::new().unwrap();
    let Some(disk) = Disk::mount(directory.path()) else { return };
    let log = directory.path().join("log");
    let server = Server::builder().flags(["-vv", "--log-file", log.to_str().unwrap()]).start();
    server.maildrop().put("1", "x\n");
    disk.fill(0);
    let before = fs::metadata(&log).unwrap().len();
    for _ in 0..50 {
        check(&server, 1);
    }
    assert!(fs::metadata(&log).unwrap().len() < before + 4096, "the disk had space for the log");
    disk.free_space();
    check(&server, 1);
    server.session().quit();
    eventually("the log goes on", || {
        fs::read_to_string(&log).unwrap().ends_with("end: quit; retrieved=0 octets=0 deleted=0\n")
    });
    let log = fs::read_to_string(&log).unwrap();
    assert_eq!(log.matches(" lines of the log were lost\n").count(), 1, "{log}");
    drop((server, disk));
}

#[test]
fn a_mail_directory_that_becomes_read_only_can_be_read() {
    let mail = MailRoot::new();
    let Some(disk) = Disk::mount(mail.path()) else { return };
    let server = Server::builder().mail(&mail).start();
    let maildrop = mail.maildrop(USER);
    deliver(&maildrop, 0..3);
    // No session is open: the kernel refuses to make a disk read-only while a file is open for writing there.
    disk.remount("ro");
    check(&server, 3);
    let mut session = server.session();
    let refusal = session.refused("DELE 2");
    assert!(refusal.starts_with("[SYS/PERM] the maildrop is read-only"), "{refusal}");
    session.quit();
    assert_eq!(maildrop.messages().len(), 3);

    disk.remount("rw");
    let mut session = server.session();
    session.call("DELE 2");
    session.quit();
    assert_eq!(maildrop.messages(), ["new/0.M.h", "new/2.M.h"]);
    check(&server, 2);
    drop((server, disk));
}
