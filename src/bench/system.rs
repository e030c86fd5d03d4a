//! Requests to the operating system: descriptors for many sockets, the CPU time of this process, and the memory of a
//! server's processes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::descriptors;

/// The descriptors that are needed besides one socket for each client.
const SPARE_DESCRIPTORS: u64 = 16;

/// Raises the limit of open files as far as allowed, and enlarges the descriptor table before there are threads.
/// Returns false if that is not enough for `clients` sockets.
pub(super) fn allow_sockets(clients: usize) -> bool {
    let wanted = clients as u64 + SPARE_DESCRIPTORS;
    let enough = raise_limit(wanted);
    descriptors::enlarge_table(wanted);
    enough
}

/// Returns false if the limit is lower than `wanted`.
fn raise_limit(wanted: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|files| files >= wanted);
    if enough(limit.current) {
        return true;
    }
    // Root may raise the hard limit too. Other users get at most the hard limit.
    let maximum = limit.maximum.map(|files| files.max(wanted));
    let lifted = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    if !lifted {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    enough(getrlimit(Resource::Nofile).current)
}

/// The user and system time that this process has used so far.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The proportional set size, in octets, of process `root` and all its descendants.
pub(super) fn tree_pss(root: u32) -> io::Result<u64> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that has ended since it was listed has no memory.
        if let Some(parent) = fs::read_to_string(format!("/proc/{pid}/stat")).ok().as_deref().and_then(parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut total = pss(root)?;
    let mut unvisited = vec![root];
    while let Some(pid) = unvisited.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            total += pss(child).unwrap_or(0);
            unvisited.push(child);
        }
    }
    Ok(total)
}

fn pss(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    parse_pss(&rollup).ok_or_else(|| io::Error::other(format!("process {pid} tells no Pss")))
}

fn parse_pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The parent's id in `/proc/PID/stat`: the second field after the name, which may itself contain parentheses.
fn parent(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(parent("12 (a) b) S 7 12 0"), Some(7));
        assert_eq!(parent("12 (pop3)"), None);
    }

    #[test]
    fn pss_is_the_total_in_octets_and_not_a_part() {
        let rollup = "0-1 ---p 0 0:0 0 [rollup]\nRss:  9 kB\nPss:   5 kB\nPss_Anon:  3 kB\n";
        assert_eq!(parse_pss(rollup), Some(5 * 1024));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(tree_pss(std::process::id()).unwrap() > 0);
        assert!(tree_pss(u32::MAX).is_err());
    }
}
