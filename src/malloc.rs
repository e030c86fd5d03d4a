//! How the C library's allocator treats 998 threads.
//!
//! glibc's keeps pieces that a thread has freed for that thread, seven of each size up to 1 KiB, and what lies between
//! them cannot be used for larger ones. Sessions free pieces of ever other sizes, so with all threads at work that
//! grows to some 35 MB in hours, for a server that has 12 MB in use. It is to keep the smallest ones only, which is all
//! that a large maildrop needs; but it can be told so only by the environment that a program starts with.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where glibc looks, and what it is to find there; other C libraries do not look.
const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_max=128");

/// That the program has been started so already. Who runs with more rights than were inherited loses the tunables.
const STARTED: &str = "POP3D_STARTED";

/// Starts this program once more, in the same process, unless that has been done or the operator has tunables of their
/// own. Returns when there is no need, or what has kept it from that.
#[must_use]
pub fn restart_with_small_caches() -> Option<io::Error> {
    if !cfg!(target_env = "gnu") || env::var_os(STARTED).is_some() || env::var_os(TUNABLES.0).is_some() {
        return None;
    }
    let mut arguments = env::args_os();
    let name = arguments.next()?;
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return Some(error),
    };
    Some(Command::new(program).arg0(name).args(arguments).env(TUNABLES.0, TUNABLES.1).env(STARTED, "1").exec())
}
