//! Processes that a server has started.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const PAGE: usize = 4096;

/// The bit of an entry of /proc/PID/pagemap that says that the page is in memory.
const PRESENT: u64 = 1 << 63;

/// The processes that have this one as their parent.
pub(crate) fn children_of(process: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// Returns true if the process runs. A zombie does not run.
pub(crate) fn is_running(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
}

/// Ends a process by SIGKILL.
pub(crate) fn kill(process: u32) {
    signal(process, Signal::KILL);
}

/// Sends a signal to a process.
pub(crate) fn signal(process: u32, signal: Signal) {
    let pid = Pid::from_raw(process.try_into().unwrap()).unwrap();
    pidfd_send_signal(pidfd_open(pid, PidfdFlags::empty()).unwrap(), signal).unwrap();
}

/// A set of capabilities of a process: a field of /proc/PID/status.
pub(crate) fn capabilities(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// Returns true if these octets are anywhere in the memory of a process. This takes the rights of root.
pub(crate) fn memory_has(process: u32, octets: &[u8]) -> bool {
    let file = |name: &str| File::open(format!("/proc/{process}/{name}")).unwrap();
    let (memory, pages) = (file("mem"), file("pagemap"));
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    maps.lines().filter(|line| !line.contains("[v")).any(|line| {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16).unwrap() / PAGE);
        let mut entries = vec![0; (end - start) * 8];
        let _ = pages.read_at(&mut entries, (start * 8) as u64);
        let is_present =
            |page: &usize| u64::from_le_bytes(*entries[(page - start) * 8..].first_chunk().unwrap()) & PRESENT != 0;
        let mut present = Vec::new();
        for page in (start..end).filter(is_present) {
            let mut octets = vec![0; PAGE];
            if memory.read_exact_at(&mut octets, (page * PAGE) as u64).is_ok() {
                present.extend(octets);
            }
        }
        memchr::memmem::find(&present, octets).is_some()
    })
}
