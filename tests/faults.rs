//! The n-th system call of a session fails, for every n: of the real server, by strace, which makes calls fail as the
//! kernel would. And disks that are full or read-only, clocks that jump, a server that is killed under load.
//!
//! Whatever fails: a message is whole in its place, or its deletion was committed; an answer is right, or -ERR with a
//! response code, or the connection closes; the server goes on and the next session is right.

mod calls;
mod clock;
mod disk;
mod kills;
mod users_file;
