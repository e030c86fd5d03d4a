//! Faults of the system below the server: system calls that fail, disks that are full or read-only, clocks that jump,
//! and a server that is killed under load.
//!
//! `strace` makes the n-th system call of a session fail, for every n. Whatever fails, these rules hold: a message is
//! whole and in its place unless a QUIT has removed it; every answer is right or is -ERR with a response code, or the
//! connection closes; and the next session is served without a fault.

mod calls;
mod clock;
mod disk;
mod kills;
mod mbox;
mod owners;
mod users_file;
