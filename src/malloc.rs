//! How the C library's allocator treats 998 threads and large maildrops.
//!
//! glibc's allocator is told two things, each of which keeps it from holding memory that the server no longer uses:
//!
//! - `tcache_max`: it keeps pieces that a thread has freed for that thread, seven of each size up to 1 KiB, and the
//!   memory between these pieces cannot be used for larger ones. Sessions free pieces of ever other sizes, so with all
//!   threads at work the server grew to some 35 MB in hours, while 12 MB were in use. It now keeps the smallest pieces
//!   only.
//! - `mmap_threshold`: it asks the system for each large piece by itself and gives it back when it is freed; but it
//!   raises the size from which it does so whenever such a piece is freed, up to 32 MiB. After a few logins to large
//!   maildrops their lists were in the arenas and stayed there: 48 sessions of 100,000 messages left 375 MB. Now the
//!   size is fixed.
//!
//! It can be told so only by the environment that a program starts with, so the server executes itself once more, as
//! the same process and under the same name. `POP3D_STARTED` in its environment says that this has been done.
//! Transforms get an environment of their own, without either variable. A server that was started with
//! `GLIBC_TUNABLES` already does not execute itself again.
//!
//! Another allocator would need no second exec, and none was good enough. Memory in MB (PSS) at the start, with 900 idle
//! sessions, and after an hour in which sessions came and went:
//!
//! ```text
//! glibc with the tunables       14 / 21-26 / 24-30
//! mimalloc 3                   224 / 600   / 879
//! mimalloc 2                   119 / 163   / 200
//! jemalloc                      40 /  79   /  90
//! jemalloc, tuned               19 /  26   /  28    tcache:false,narenas:4,dirty_decay_ms:1000
//! ```
//!
//! Tuned jemalloc needs as little memory, but with it a login takes 12 % more processor time and a session 5 %.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where glibc looks, and what it is to find there; other C libraries do not look.
const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_max=128:glibc.malloc.mmap_threshold=131072");

/// Set when the program has been started so already. The tunables alone do not tell that: the C library removes them
/// from a program that gets more rights by being executed.
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
