//! Room for many open files.

use std::io;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};

/// Has the kernel enlarge this process's table of open files at once, to `count` or as far as the limit allows.
/// Otherwise the table doubles each time that it is full, and who opens a file then waits until every processor has
/// taken notice (Linux's `expand_fdtable()`): some 20 ms each time, unless the process has one thread only.
pub fn make_room(count: u64) {
    let allowed = getrlimit(Resource::Nofile).current.map_or(count, |limit| limit.min(count));
    let Ok(highest) = i32::try_from(allowed.saturating_sub(1)) else { return };
    // Nothing is lost when that fails, and the table stays as large when this is closed.
    drop(fcntl_dupfd_cloexec(io::stdin(), highest));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn room() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        size.trim().parse().unwrap()
    }

    #[test]
    fn there_is_room_for_as_many_as_the_limit_allows() {
        let count = 2 * room();
        for few_enough in [0, 1, count] {
            make_room(few_enough);
        }
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(room() >= count.min(limit));
    }
}
