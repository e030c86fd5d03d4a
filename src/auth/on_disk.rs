//! Reads, locks and replaces the users file. It is replaced by a rename, so a crash leaves either the old file or the new
//! one.
//!
//! Another program may be writing the file while it is read: an editor, `cp`, or a script that appends line by line. Then
//! only a part of the file is read. The two times of the file tell: a write sets the modification time and the change time
//! to the same moment. A rename, or setting the times or the mode after the last write, advances only the change time. So
//! a file whose two times are the same recent moment may still be being written; any other file is complete.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

/// The largest file that is accepted, in octets. It has room for half a million users.
const SIZE_LIMIT: u64 = 1 << 26;

/// How long after a change another program may still be writing the file. Within this time the file may also change again
/// without a change of its times, because they are only as fine as the file system's clock.
const UNSETTLED: Duration = Duration::from_secs(2);

/// How far this server sets the modification time of its files into the past. It then differs from the change time, which
/// marks the file as complete.
const WRITTEN_BEFORE: Duration = Duration::from_millis(50);

/// The pause between two attempts to lock the file.
const POLL: Duration = Duration::from_millis(10);

/// The suffix of the file in which the next version is written.
const NEW: &str = ".new";

/// Identifies a version of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Stamp {
    /// Returns true if the file was changed a moment ago. `now` is the time since 1970. A change time far in the future does
    /// not count as recent; it dates from before the clock was set back.
    fn is_fresh(&self, now: Duration) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        changed.abs_diff(now.as_nanos().cast_signed()) <= UNSETTLED.as_nanos()
    }

    /// Returns true if another program may be writing the file.
    fn may_be_written(&self, now: Duration) -> bool {
        self.modified == self.changed && self.is_fresh(now)
    }
}

/// A version of the file that was read.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) text: Vec<u8>,
    pub(super) metadata: Metadata,
    /// True if no other program was writing the file when it was read.
    pub(super) is_complete: bool,
    /// True if every later change will give the file another stamp.
    pub(super) is_settled: bool,
}

impl Snapshot {
    /// Reads the file. This needs no lock, because this server changes the file only by a rename.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let mut text = Vec::new();
        (&mut file).take(SIZE_LIMIT + 1).read_to_end(&mut text)?;
        if text.len() as u64 > SIZE_LIMIT {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 MiB"));
        }
        let metadata = file.metadata()?;
        let (stamp, now) = (Stamp::from(&metadata), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        Ok(Self {
            is_complete: stamp == Stamp::from(&before) && !stamp.may_be_written(now),
            is_settled: stamp == Stamp::from(&before) && !stamp.is_fresh(now),
            text,
            metadata,
        })
    }

    /// Returns the stamp of this version, unless a later version may have the same stamp.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.is_settled.then(|| Stamp::from(&self.metadata))
    }

    /// Replaces the file at `path` by one with this text, unless another program has changed it since it was read. Returns
    /// true if the file has the new text. After an error it has the old one.
    pub(super) fn replace(&self, path: &Path, text: &[u8]) -> io::Result<bool> {
        let new = beside(path);
        let mut written = None;
        let replaced = write(&new, text, &self.metadata).and_then(|file| {
            written = Some(file);
            // Another program may have changed it without locking it.
            let unchanged = Stamp::from(&fs::metadata(path)?) == Stamp::from(&self.metadata);
            if unchanged { fs::rename(&new, path).map(|()| true) } else { Ok(false) }
        });
        // A network file system may report an error although it has renamed the file.
        let has_new_text = matches!(replaced, Ok(true))
            || written.is_some_and(|written| fs::metadata(path).is_ok_and(|named| is_same(&written, &named)));
        if !has_new_text {
            let _ = fs::remove_file(&new);
            return replaced;
        }
        if let Err(error) = sync_directory(path) {
            log::warn!(
                "{} was changed, but the change may be lost if the machine loses power now: {error}",
                path.display()
            );
        }
        Ok(true)
    }
}

/// Locks the file at `path`. If the file was replaced during the wait for the lock, locks the new one.
pub(super) fn lock(path: &Path, deadline: Instant) -> io::Result<File> {
    loop {
        let file = File::open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_same(&file.metadata()?, &fs::metadata(path)?) => return Ok(file),
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(POLL),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another program has locked it"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The path where the next version is written. It is always the same, because only the holder of the lock writes there. So
/// a file that was left by a crash is overwritten.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(NEW);
    name.into()
}

/// Writes the next version with the owner and mode of the old one, and waits until it is on the disk. The caller renames
/// it.
fn write(path: &Path, text: &[u8], old: &Metadata) -> io::Result<Metadata> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    let metadata = file.metadata()?;
    if (metadata.uid(), metadata.gid()) != (old.uid(), old.gid()) {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
    file.set_modified(SystemTime::now() - WRITTEN_BEFORE)?;
    file.sync_all()?;
    Ok(metadata)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(modified: (i64, i64), changed: (i64, i64)) -> Stamp {
        Stamp { device: 0, inode: 0, size: 0, modified, changed }
    }

    #[test]
    fn a_file_is_settled_some_time_after_its_last_change() {
        for (changed, fresh) in [(100, true), (98, true), (102, true), (97, false), (5000, false), (-5, false)] {
            assert_eq!(stamp((0, 0), (changed, 0)).is_fresh(Duration::from_secs(100)), fresh, "{changed}");
        }
    }

    #[test]
    fn a_file_may_be_incomplete_if_its_last_change_was_a_recent_write() {
        let now = Duration::new(100, 500);
        assert!(stamp((100, 400), (100, 400)).may_be_written(now));
        // The last change was a rename or set the times, or it was long ago.
        for whole in [stamp((100, 300), (100, 400)), stamp((5, 0), (100, 400)), stamp((97, 0), (97, 0))] {
            assert!(!whole.may_be_written(now), "{whole:?}");
        }
    }

    #[test]
    fn a_file_that_this_server_has_written_is_complete_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        fs::write(&path, "old").unwrap();
        let old = Snapshot::read(&path).unwrap();
        assert!(old.replace(&path, b"new").unwrap());
        let new = Snapshot::read(&path).unwrap();
        assert_eq!((new.text.as_slice(), new.is_complete, new.is_settled), (&b"new"[..], true, false));
        // The file has changed since it was read, so it is not replaced.
        assert!(!old.replace(&path, b"newer").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
