//! Prepares the process for many open files; the server and `popbench` call this.

use std::io;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};

/// Makes the kernel enlarge this process's table of open files once, to `count` or as far as the limit allows.
/// Otherwise the table doubles each time that it is full, and in a process with several threads the thread that opens
/// the file then waits some 20 ms until every processor has noticed (Linux's `expand_fdtable()`).
pub fn enlarge_table(count: u64) {
    let allowed = getrlimit(Resource::Nofile).current.map_or(count, |limit| limit.min(count));
    let Ok(highest) = i32::try_from(allowed.saturating_sub(1)) else { return };
    // If this fails, the table grows later. If it succeeds, the table stays large after the descriptor is closed.
    drop(fcntl_dupfd_cloexec(io::stdin(), highest));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn table_size() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        size.trim().parse().unwrap()
    }

    #[test]
    fn the_table_is_enlarged_as_far_as_the_limit_allows() {
        let count = 2 * table_size();
        for few_enough in [0, 1, count] {
            enlarge_table(few_enough);
        }
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(table_size() >= count.min(limit));
    }
}
