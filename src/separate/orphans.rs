//! Processes that modules have started and that outlive their worker. The monitor inherits them.
//!
//! A program of pam_exec leaves the process group of its worker, so killing the group would not end it.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

/// Makes this process the parent of all orphans among its descendants.
pub(super) fn inherit() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Kills the children of this process that are not among `workers`. Returns true if there were some. They may leave children
/// of their own behind, so this is to be called again soon then.
pub(super) fn kill(workers: &[Pid]) -> bool {
    let orphans = orphans(workers);
    for &orphan in &orphans {
        let _ = kill_process(orphan, Signal::KILL);
    }
    bury(&orphans);
    !orphans.is_empty()
}

/// Removes the orphans that have ended from the kernel's table of processes.
pub(super) fn bury_those_beside(workers: &[Pid]) {
    bury(&orphans(workers));
}

fn bury(orphans: &[Pid]) {
    for &orphan in orphans {
        let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
    }
}

fn orphans(workers: &[Pid]) -> Vec<Pid> {
    let own = getpid().as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|number| Pid::from_raw(number.parse().ok()?));
    children.filter(|child| !workers.contains(child)).collect()
}
