//! The owner of files that the server creates, and the users who can read the files that it uses.
//!
//! A new file gets the owner and group of its directory, as far as the server has the right to set them. So a server that
//! has run as root leaves no files that a server with fewer rights could not use.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, Stat, fchmod, fstat, openat};
use rustix::process::geteuid;

/// Gives a file that this server has created to the owner and group of its directory, or only to the group, or leaves it,
/// as far as the server has the right. A file with other names (hard links) may not be the server's, so it is left alone.
pub(crate) fn give_to_owner_of(directory: impl AsFd, file: impl AsFd) -> io::Result<()> {
    let (directory, made) = (fstat(directory)?, fstat(&file)?);
    let (user, group) = (directory.st_uid, directory.st_gid);
    let is_ours = made.st_uid == geteuid().as_raw() && made.st_nlink == 1;
    if is_ours && (user, group) != (made.st_uid, made.st_gid) {
        let _ = fchown(&file, Some(user), Some(group)).or_else(|_| fchown(&file, None, Some(group)));
    }
    Ok(())
}

/// Does the same for a directory that this server has just made in another one.
pub(crate) fn give_directory_like(parent: impl AsFd, made: impl AsFd) -> io::Result<()> {
    let (parent, stat) = (fstat(parent)?, fstat(&made)?);
    let (user, group) = (parent.st_uid, parent.st_gid);
    if stat.st_uid == geteuid().as_raw() && (user, group) != (stat.st_uid, stat.st_gid) {
        let _ = fchown(&made, Some(user), Some(group)).or_else(|_| fchown(&made, None, Some(group)));
    }
    Ok(())
}

/// Does the same for a file that has just been created at `path`.
pub(crate) fn give_to_owner_of_parent(path: &Path, file: &File) -> io::Result<()> {
    let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    // Opening the directory for reading could require rights that the server does not have.
    let directory = openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    give_to_owner_of(directory, file)
}

/// Gives a file to the directory's owner, and lets everyone read and write it who may create files in the directory.
pub(crate) fn share_like(directory: impl AsFd, file: impl AsFd) -> io::Result<()> {
    give_to_owner_of(&directory, &file)?;
    // An error means that the file system has no modes, so there is nothing to set.
    let _ = fchmod(file, mode_like(&fstat(directory)?));
    Ok(())
}

/// Returns true if [`share_like`] would change nothing.
pub(crate) fn is_shared_like(directory: &Stat, file: &Stat) -> bool {
    let owner = |stat: &Stat| (stat.st_uid, stat.st_gid);
    owner(directory) == owner(file) && Mode::from_raw_mode(file.st_mode) == mode_like(directory)
}

/// Gives a file that this server has created to the owner and group of `like`, and lets the group read and write it as it may
/// `like`. As far as the server lacks the right, the file stays the server's own.
pub(crate) fn share_as(like: impl AsFd, file: impl AsFd) -> io::Result<()> {
    let like = fstat(like)?;
    let _ = fchown(&file, Some(like.st_uid), Some(like.st_gid)).or_else(|_| fchown(&file, None, Some(like.st_gid)));
    let is_of_group = fstat(&file)?.st_gid == like.st_gid;
    let group = if is_of_group { like.st_mode & 0o060 } else { 0 };
    let _ = fchmod(file, Mode::from_raw_mode(0o600 | group));
    Ok(())
}

/// Logs a warning if every user of this machine can read a file with secrets. Permission for a group may be intended.
pub(crate) fn warn_of_others(path: &Path) {
    if fs::metadata(path).is_ok_and(|file| file.mode() & 0o007 != 0) {
        log::warn!("other users can read or write {}: take their permissions away with chmod o=", path.display());
    }
}

/// Returns the mode of a file that everyone may read and write who may write to the directory.
fn mode_like(directory: &Stat) -> Mode {
    // The write permission of group and others becomes permission to read and write.
    let writable = directory.st_mode & 0o022;
    Mode::from_raw_mode(0o600 | writable | writable << 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn everyone_who_may_write_to_the_directory_may_write_to_the_file() {
        for (of_directory, of_file) in [(0o755, 0o600), (0o770, 0o660), (0o2775, 0o660), (0o1777, 0o666)] {
            let directory = tempfile::tempdir().unwrap();
            fs::set_permissions(directory.path(), Permissions::from_mode(of_directory)).unwrap();
            let path = directory.path().join("file");
            let file = File::create(&path).unwrap();
            let stat = |file: &File| fstat(file).unwrap();
            let opened = File::open(directory.path()).unwrap();
            share_like(&opened, &file).unwrap();
            assert!(is_shared_like(&stat(&opened), &stat(&file)));
            file.set_permissions(Permissions::from_mode(0o640)).unwrap();
            assert!(!is_shared_like(&stat(&opened), &stat(&file)));
            share_like(&opened, &file).unwrap();
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, of_file, "{of_directory:o}");
        }
    }

    #[test]
    fn root_gives_a_file_to_the_owner_of_its_directory() {
        if !geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        chown(directory.path(), Some(54321), Some(12345)).unwrap();
        let path = directory.path().join("file");
        let owner = || fs::metadata(&path).map(|made| (made.uid(), made.gid())).unwrap();
        let file = File::create(&path).unwrap();
        let other_name = directory.path().join("other");
        fs::hard_link(&path, &other_name).unwrap();
        give_to_owner_of_parent(&path, &file).unwrap();
        assert_eq!(owner(), (0, 0), "a file with another name was given away");
        fs::remove_file(other_name).unwrap();
        give_to_owner_of_parent(&path, &file).unwrap();
        assert_eq!(owner(), (54321, 12345));
    }
}
