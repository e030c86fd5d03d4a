//! Finds the locks that programs hold on a maildrop, and who holds them. It takes none.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use procfs::process::{FDTarget, Process, all_processes};
use rustix::fs::{fstat, stat};

use super::{Fault, Findings, Layout};
use crate::maildrop::location::Location;
use crate::maildrop::mbox::{self, DotLockState};
use crate::maildrop::{Elsewhere, RootId, lock_file};

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What is locked.
    pub by: HeldBy,
    /// The programs that hold it, as far as this process may see them: their names and process numbers.
    pub programs: Vec<(String, i32)>,
    /// The session that the lock file names. It may be of a server on another machine.
    pub session: Option<Elsewhere>,
}

/// The kinds of locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBy {
    /// A POP3 session has the maildrop open.
    Session,
    /// A program is reading or writing the mbox.
    Fcntl,
    /// A program has made a dot-lock beside the mbox.
    DotLock,
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session",
            Self::Fcntl => "fcntl",
            Self::DotLock => "dot-lock",
        })
    }
}

/// Finds the locks on a maildrop.
pub(super) fn held(location: &Location, layout: Layout, findings: &mut Findings) -> Vec<Held> {
    let root = location.root();
    let mut held = Vec::new();
    if let Some((file, session)) = lock_file::held_elsewhere(location) {
        held.extend(lock_on(&file, HeldBy::Session).map(|it| Held { session, ..it }));
    }
    if layout != Layout::Mbox {
        return held;
    }
    if let Ok((file, _)) = root.file(location.path()) {
        held.extend(lock_on(&file, HeldBy::Fcntl));
    }
    match mbox::dot_lock(location) {
        Some(DotLockState { is_stale: true, .. }) => {
            findings.add(Fault::StaleLock, Cow::Owned([location.path(), b".lock"].concat()));
        }
        Some(DotLockState { process, .. }) => {
            let named = |id| Process::new(id).and_then(|process| process.stat()).map(|stat| (stat.comm, id));
            let programs = process.and_then(|id| named(id).ok()).into_iter().collect();
            held.push(Held { by: HeldBy::DotLock, programs, session: None });
        }
        None => {}
    }
    if mbox::has_journal(location) {
        findings.add(Fault::InterruptedRemoval, Cow::Borrowed(location.path()));
    }
    held
}

/// Returns the lock that another program holds on a file, if there is one.
fn lock_on(file: &File, by: HeldBy) -> Option<Held> {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
    if i32::from(lock.l_type) == libc::F_UNLCK {
        return None;
    }
    let programs = match lock.l_pid {
        process if process > 0 => Process::new(process).and_then(|it| it.stat()).map(|it| vec![(it.comm, process)]),
        // A lock of an open file belongs to no process, so the processes that have it open are looked through.
        _ => programs_that_lock(file),
    };
    Some(Held { by, programs: programs.unwrap_or_default(), session: None })
}

fn programs_that_lock(file: &File) -> procfs::ProcResult<Vec<(String, i32)>> {
    let id = RootId::new(&fstat(file).map_err(io::Error::from)?);
    let mut found = Vec::new();
    for process in all_processes()?.flatten() {
        let Ok(descriptors) = process.fd() else { continue }; // it has ended, or is another user's
        let locks = |fd: i32| {
            let path = format!("/proc/{}/fd/{fd}", process.pid);
            let info = format!("/proc/{}/fdinfo/{fd}", process.pid);
            stat(path).is_ok_and(|stat| RootId::new(&stat) == id)
                && fs::read_to_string(info).is_ok_and(|text| text.lines().any(|line| line.starts_with("lock:")))
        };
        let mut files = descriptors.flatten().filter(|it| matches!(it.target, FDTarget::Path(_)));
        if files.any(|it| locks(it.fd)) {
            found.push((process.stat()?.comm, process.pid));
        }
    }
    Ok(found)
}
