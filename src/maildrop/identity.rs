//! Identities of files and directories, by which a later look recognises them and sees whether they have changed.

use std::time::SystemTime;

use rustix::fs::Stat;

/// Identifies a file and its state: another file, or the same file after a change, has a different identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) inode: u64,
    pub(super) size: u64,
    /// When the file's content was last changed, in ns since 1970.
    pub(super) modified: i64,
    /// When the file's content, name, owner or permissions were last changed. No program can set this time back.
    pub(super) changed: i64,
}

impl Identity {
    pub(super) fn new(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// How old, in ns, a change has to be so that a later change is certain to have a different time stamp. Some file
/// systems keep times in steps of 2 s.
const SETTLED: i64 = 2_000_000_000;

/// Returns true if a change at the time `changed` is so old that any later change before `now` has a different time
/// stamp. Both times are in ns since 1970.
pub(super) fn is_settled(changed: i64, now: i64) -> bool {
    changed.saturating_add(SETTLED) < now
}

/// Identifies a directory and its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    pub(super) inode: u64,
    /// When an entry was last added, removed or renamed, in ns since 1970.
    pub(super) modified: i64,
    /// When anything about the directory was last changed, in ns since 1970. No program can set this time back.
    pub(super) changed: i64,
}

impl Stamp {
    pub(super) fn new(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// The states of a Maildir's `new/` and `cur/`, each if it exists.
pub(super) type Stamps = [Option<Stamp>; 2];

/// Converts a time of a [`Stat`] to ns. A time more than 292 years away from 1970 saturates.
fn nanoseconds(seconds: i64, rest: u64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add_unsigned(rest)
}

/// The time now, in ns since 1970.
pub(super) fn nanoseconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
