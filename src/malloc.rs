//! Settings of glibc's allocator, so that 998 threads and large maildrops do not use too much memory.
//!
//! Two settings make the allocator return memory that the server no longer uses:
//!
//! - `tcache_max`: each thread has a cache of the blocks that it has freed, by default seven of each size up to 1 KiB.
//!   Cached blocks fragment the memory between them. Sessions free blocks of many sizes, so with all threads at work the
//!   server grew to some 35 MB in hours, while 12 MB were in use. Now only blocks of up to 128 octets are cached.
//! - `mmap_threshold`: blocks above this size get pages of their own, which are returned to the system when the block is
//!   freed. By default the threshold grows, up to 32 MiB, each time that such a block is freed. After a few logins the
//!   lists of large maildrops were below the threshold and their memory was kept: 48 sessions of 100,000 messages left
//!   375 MB. Now the threshold is fixed.
//!
//! glibc reads these settings only from the environment at the start of a program. So the server sets `GLIBC_TUNABLES` and
//! executes itself again, in the same process and under the same name. `POP3D_STARTED` in its environment says that this
//! has been done. A server that was started with `GLIBC_TUNABLES` does not do it. Transforms get neither variable.
//!
//! Another allocator would not need the second exec(2), but none was good enough. Memory in MB (PSS) at the start, with 900
//! idle sessions, and after an hour of changing sessions:
//!
//! ```text
//! glibc with the tunables       14 / 21-26 / 24-30
//! mimalloc 3                   224 / 600   / 879
//! mimalloc 2                   119 / 163   / 200
//! jemalloc                      40 /  79   /  90
//! jemalloc, tuned               19 /  26   /  28    tcache:false,narenas:4,dirty_decay_ms:1000
//! ```
//!
//! Tuned jemalloc needs as little memory, but it takes 12 % more processor time for a login and 5 % more for a session.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable with glibc's settings, and its value. Other C libraries ignore it.
const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_max=128:glibc.malloc.mmap_threshold=131072");

/// The variable that says that the program has executed itself. `GLIBC_TUNABLES` cannot say so, because glibc removes it
/// when the program gains rights by being executed (setuid).
const STARTED: &str = "POP3D_STARTED";

/// Executes this program again in the same process, with the settings in its environment. Returns `None` if that has been
/// done or the operator has set `GLIBC_TUNABLES`, or the error if it fails.
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
