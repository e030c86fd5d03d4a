//! Refuses directories of the operating system as mail directories.
//!
//! With `/` as mail directory, a user called `etc` could read and delete the files in `/etc`. Directories are compared
//! by device and inode, so a symbolic link, `..` or a bind mount does not hide which directory it is.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, stat, statat};

use super::root::RootId;

/// Directories that are refused themselves. A mail directory may be below them.
const NOT_ITSELF: [&str; 12] = [
    "/",
    "/dev/shm",
    "/lost+found",
    "/root",
    "/run",
    "/usr/home",
    "/usr/local",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/spool",
];

/// Directories that are refused with everything below them.
const NOT_BELOW: [&str; 12] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"];

/// How many parent directories are followed towards `/`. The longest path that Linux accepts has half as many
/// components.
const DEEPEST: usize = 4096;

/// Refuses a directory of the operating system as mail directory.
///
/// # Errors
/// When the directory is one of [`NOT_ITSELF`], or is one of [`NOT_BELOW`] or below it.
pub(super) fn refuse(directory: impl AsFd) -> io::Result<()> {
    let id = |path: &str| Some(RootId::new(&statat(&directory, path, AtFlags::empty()).ok()?));
    let find = |paths: &[&'static str], id: RootId| {
        paths.iter().copied().find(|path| stat(*path).is_ok_and(|stat| RootId::new(&stat) == id))
    };
    let Some(mut at) = id(".") else { return Ok(()) };
    if let Some(path) = find(&NOT_ITSELF, at).or_else(|| find(&NOT_BELOW, at)) {
        return Err(no_mail(&format!("it is {path}")));
    }
    let mut up = String::new();
    for _ in 0..DEEPEST {
        up.push_str("../");
        match id(&up) {
            // The parent directory of / is / itself.
            Some(above) if above != at => at = above,
            _ => return Ok(()),
        }
        if find(&NOT_ITSELF, at).is_some() {
            return Ok(());
        }
        if let Some(path) = find(&NOT_BELOW, at) {
            return Err(no_mail(&format!("it is below {path}")));
        }
    }
    Ok(())
}

fn no_mail(why: &str) -> io::Error {
    let text = format!("{why}, which is the system's: name the directory that holds a directory of mail for each user");
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn refused(path: impl AsRef<Path>) -> Option<String> {
        refuse(File::open(path).unwrap()).err().map(|error| error.to_string())
    }

    #[test]
    fn system_directories_are_refused_by_any_name() {
        let temporary = tempfile::tempdir().unwrap();
        let link = temporary.path().join("link");
        symlink("/etc", &link).unwrap();
        let (up, link) = (link.join(".."), link.to_str().unwrap());
        for (path, why) in [
            ("/", "it is /,"),
            ("/etc", "it is /etc,"),
            ("/etc/../etc/./", "it is /etc,"),
            ("/usr/..", "it is /,"),
            (up.to_str().unwrap(), "it is /,"),
            (link, "it is /etc,"),
            ("/var", "it is /var,"),
            ("/dev", "it is /dev,"),
            ("/proc", "it is /proc,"),
            ("/proc/self/fd", "it is below /proc,"),
            ("/proc/self/root", "it is /,"),
            ("/usr/share", "it is below /usr,"),
        ] {
            let error = refused(path).unwrap_or_default();
            assert!(error.starts_with(why), "{path}: {error}");
        }
        for path in NOT_ITSELF.iter().chain(&NOT_BELOW).filter(|path| fs::read_dir(path).is_ok()) {
            assert!(refused(path).is_some(), "{path}");
        }
    }

    #[test]
    fn mail_may_be_elsewhere() {
        let temporary = tempfile::tempdir().unwrap();
        assert_eq!(refused(temporary.path()), None);
        for path in ["/var/mail", "/var/spool/mail", "/srv", "/home", "/tmp", "/opt", "/mnt", "/usr/local/share"] {
            if Path::new(path).is_dir() {
                assert_eq!(refused(path), None, "{path}");
            }
        }
        for above in ["/root", "/var/lib", "/dev/shm", "/run"] {
            // The test may lack the right to create a directory there.
            if let Ok(below) = tempfile::tempdir_in(above) {
                assert_eq!(refused(below.path()), None, "{above}");
            }
        }
    }
}
