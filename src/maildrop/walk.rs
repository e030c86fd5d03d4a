//! Finds a maildrop whose path may lead through directories of users.
//!
//! A user could put a symbolic link on the way, which leads into another user's mail. So the path is opened one component
//! at a time, and links are followed only in its *fixed part*: the beginning of the path that only the operator can have
//! chosen. The operator is root and the server's own user. A name is the operator's if
//!
//! - only the operator may create and rename files in its directory, or
//! - its directory is the operator's and sticky, as `/tmp` is, and what it names belongs to the operator.
//!
//! The first directory in which a name can be a user's is the fixed part's own directory. A link directly in it is followed
//! if it belongs to the operator. Links on the way to its target are not followed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::getuid;

use super::is_missing;
use super::root::{self, SEARCH};

/// How many links are followed at most, as by Linux.
const MOST_LINKS: usize = 40;

/// The mode's bits that let others than the owner create and rename files in a directory. Access control lists show here, too.
const OTHERS_WRITE: u32 = 0o022;

const STICKY: u32 = 0o1000;

/// Where a path leads. It is not a link there.
#[derive(Debug)]
pub(super) struct Found {
    /// The directory of the last component. If directories are missing, the last one that exists.
    pub(super) directory: OwnedFd,
    /// The path from there; `.` for the directory itself.
    pub(super) rest: Vec<u8>,
}

impl Found {
    /// Returns true if the directory of the last component is missing.
    pub(super) fn misses_directory(&self) -> bool {
        self.rest.contains(&b'/')
    }
}

/// Finds what `path` names. It is absolute or relative to the working directory, which counts as chosen by the operator.
///
/// # Errors
/// `PermissionDenied` if a link on the way is not followed; other errors if a directory cannot be examined.
pub(super) fn find(path: &[u8]) -> io::Result<Found> {
    Walk::from(fs::openat(CWD, if path.starts_with(b"/") { "/" } else { "." }, SEARCH, Mode::empty())?, true)?
        .along(path)
}

/// Finds what the target of a link in `directory` names. Links on the way are not followed.
///
/// # Errors
/// As of [`find`].
pub(super) fn find_target(directory: impl AsFd, target: &[u8]) -> io::Result<Found> {
    let from = if target.starts_with(b"/") { "/" } else { "." };
    Walk::from(fs::openat(directory, from, SEARCH, Mode::empty())?, false)?.along(target)
}

/// Returns true if a file of this owner is the operator's. The effective uid may be that of a maildrop's user (see
/// [`crate::acting`]), so the real one counts.
pub(super) fn is_operators(file: &Stat) -> bool {
    [0, getuid().as_raw()].contains(&file.st_uid)
}

/// A walk along a path, from directory to directory.
#[derive(Debug)]
struct Walk {
    directory: OwnedFd,
    stat: Stat,
    /// True as long as only the operator can have chosen this directory.
    is_fixed: bool,
    /// How many links were followed.
    links: usize,
}

impl Walk {
    fn from(directory: OwnedFd, is_fixed: bool) -> io::Result<Self> {
        let stat = fs::fstat(&directory)?;
        Ok(Self { directory, stat, is_fixed, links: 0 })
    }

    fn along(mut self, path: &[u8]) -> io::Result<Found> {
        // The components that are left, in reverse order.
        let mut left = components(path);
        while let Some(name) = left.pop() {
            match self.look(&name, left.is_empty()) {
                Ok(At::Directory(directory)) => self.enter(directory)?,
                Ok(At::Link(link)) => left.extend(self.follow(&name, &link)?),
                Ok(At::End) => return Ok(Found { directory: self.directory, rest: name }),
                Err(error) if is_missing(&error) => {
                    left.push(name);
                    left.reverse();
                    return Ok(Found { directory: self.directory, rest: left.join(&b'/') });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Found { directory: self.directory, rest: b".".to_vec() })
    }

    /// Returns what has this name in the directory.
    fn look(&self, name: &[u8], is_last: bool) -> io::Result<At> {
        if !is_last || matches!(name, b"." | b"..") {
            // With these flags the kernel mounts what is to be mounted there when it is needed.
            match fs::openat(&self.directory, name, SEARCH | OFlags::NOFOLLOW, Mode::empty()) {
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                directory => return Ok(At::Directory(directory?)),
            }
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.directory, name, flags, Mode::empty())?;
        match FileType::from_raw_mode(fs::fstat(&file)?.st_mode) {
            FileType::Symlink => Ok(At::Link(file)),
            _ if is_last => Ok(At::End),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    fn enter(&mut self, directory: OwnedFd) -> io::Result<()> {
        let stat = fs::fstat(&directory)?;
        self.is_fixed &= self.has_operators_name(&stat);
        (self.directory, self.stat) = (directory, stat);
        Ok(())
    }

    /// Returns true if only the operator can have given a file in the directory its name.
    fn has_operators_name(&self, file: &Stat) -> bool {
        let others_write = self.stat.st_mode & OTHERS_WRITE != 0;
        is_operators(&self.stat) && (!others_write || (self.stat.st_mode & STICKY != 0 && is_operators(file)))
    }

    /// Goes to where a link's target begins, and returns the target's components in reverse order.
    fn follow(&mut self, name: &[u8], link: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
        let stat = fs::fstat(link)?;
        let has_operators_name = self.has_operators_name(&stat);
        if !(self.is_fixed && (has_operators_name || is_operators(&stat))) {
            let link = root::display(name);
            let why = format!("the symbolic link {link} on the way to it may be a user's, so it is not followed");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = fs::readlinkat(link, c"", Vec::new())?.into_bytes();
        if target.starts_with(b"/") {
            self.directory = fs::openat(CWD, "/", SEARCH, Mode::empty())?;
            self.stat = fs::fstat(&self.directory)?;
        }
        self.is_fixed = has_operators_name;
        Ok(components(&target))
    }
}

/// What has a name in a directory.
enum At {
    Directory(OwnedFd),
    Link(OwnedFd),
    /// The last component, which is no link.
    End,
}

/// The components of a path in reverse order. A `.` is left out, but for one at the end: there it means the directory itself.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let mut components: Vec<_> = path.split(|&octet| octet == b'/').filter(|name| !name.is_empty()).collect();
    let last = components.pop();
    components.retain(|name| *name != b".");
    last.into_iter().chain(components.into_iter().rev()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir_all, set_permissions, write};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};
    use std::path::{Path, PathBuf};

    use super::*;

    const USER: u32 = 12345;

    /// A directory with these directories in it. Those called `user…` belong to a user.
    fn with(directories: &[&str]) -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let top = temporary.path().canonicalize().unwrap();
        let of = move |path: &str| top.join(path);
        for directory in directories {
            create_dir_all(of(directory)).unwrap();
            if directory.starts_with("user") && rustix::process::geteuid().is_root() {
                lchown(of(directory), Some(USER), Some(USER)).unwrap();
            }
        }
        (temporary, of)
    }

    fn found(path: &Path) -> io::Result<(u64, String)> {
        let Found { directory, rest } = find(path.as_os_str().as_bytes())?;
        Ok((fs::fstat(directory)?.st_ino, String::from_utf8(rest).unwrap()))
    }

    #[track_caller]
    fn assert_found(path: &Path, directory: &Path, rest: &str) {
        let inode = fs::stat(directory).unwrap().st_ino;
        assert_eq!(found(path).unwrap(), (inode, rest.to_owned()), "{}", path.display());
    }

    #[track_caller]
    fn assert_refused(path: &Path) {
        assert_eq!(found(path).unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{}", path.display());
    }

    #[test]
    fn a_path_may_end_where_nothing_is() {
        let (_temporary, of) = with(&["a"]);
        write(of("file"), "").unwrap();
        assert_found(&of("a"), &of(""), "a");
        assert_found(&of("a/b"), &of("a"), "b");
        assert_found(&of("a/b/c/d"), &of("a"), "b/c/d");
        assert_found(&of("file"), &of(""), "file");
        assert_found(&of("a/../a/./b"), &of("a"), "b");
        let directory_itself = [of("a").as_os_str().as_bytes(), b"/."].concat();
        assert_eq!(find(&directory_itself).unwrap().rest, b".");
        assert_eq!(found(&of("file/b")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn the_operators_links_in_the_fixed_part_are_followed() {
        let (_temporary, of) = with(&["disk/mail/ana"]);
        symlink("disk", of("link")).unwrap();
        symlink(of("link/mail"), of("other")).unwrap();
        symlink("ana", of("disk/mail/bob")).unwrap();
        symlink("absent/mail", of("dangling")).unwrap();
        symlink("loop", of("loop")).unwrap();
        assert_found(&of("link/mail/ana"), &of("disk/mail"), "ana");
        assert_found(&of("other/bob"), &of("disk/mail"), "ana");
        assert_found(&of("other/bob/new"), &of("disk/mail/ana"), "new");
        assert_found(&of("dangling/ana"), &of(""), "absent/mail/ana");
        assert_eq!(Errno::from_io_error(&found(&of("loop")).unwrap_err()), Some(Errno::LOOP));
        // The target of a link that is not in the fixed part.
        assert_eq!(
            find_target(find(of("link/.").as_os_str().as_bytes()).unwrap().directory, b"mail/ana").unwrap().rest,
            b"ana"
        );
        let other = [of("").as_os_str().as_bytes(), b"other/bob"].concat();
        assert_eq!(find_target(CWD, &other).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn no_link_is_followed_that_may_be_a_users() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make another user's directory");
            return;
        }
        let (_temporary, of) = with(&["other/Maildir", "user", "user/Maildir", "shared", "sticky"]);
        for (mode, directory) in [(0o2775, "shared"), (0o1777, "sticky")] {
            set_permissions(of(directory), Permissions::from_mode(mode)).unwrap();
        }
        for directory in ["user", "shared", "sticky"] {
            symlink(of("other"), of(&format!("{directory}/users"))).unwrap();
            lchown(of(&format!("{directory}/users")), Some(USER), Some(USER)).unwrap();
            assert_refused(&of(&format!("{directory}/users")));
            assert_refused(&of(&format!("{directory}/users/Maildir")));
            // The operator's own link in the fixed part's own directory.
            symlink(of("other"), of(&format!("{directory}/roots"))).unwrap();
            assert_found(&of(&format!("{directory}/roots/Maildir")), &of("other"), "Maildir");
        }
        assert_found(&of("user/Maildir"), &of("user"), "Maildir");
        // Below it, not even the operator's are followed: a user may have moved them there.
        symlink(of("other"), of("user/Maildir/roots")).unwrap();
        assert_refused(&of("user/Maildir/roots/Maildir"));
        // The target of the operator's link leads through a user's directory, or through another link.
        symlink(of("user/users"), of("to-users")).unwrap();
        assert_refused(&of("to-users/Maildir"));
        symlink(of("sticky/roots"), of("shared/twice")).unwrap();
        assert_refused(&of("shared/twice/Maildir"));
        symlink(of("sticky/roots"), of("twice")).unwrap();
        assert_found(&of("twice/Maildir"), &of("other"), "Maildir");
    }
}
