//! Passwords that PAM verifies, in processes of their own ([`crate::separate`]).
//!
//! The modules of PAM need rights that a server which talks to strangers should not have: they read the hashes of
//! /etc/shadow, or speak to a directory service as root. They are also code that may block for minutes or crash. So the
//! server has none of this in itself. It asks a worker, which is another program (`pop3d-pam`) in another process.
//!
//! - [`Question`] and [`Answer`] are the two messages.
//! - [`start()`] starts the monitor as a child of the server; [`Way`] says how workers come about otherwise.
//! - [`watch`] is the monitor, and [`work`] is a worker.
//!
//! Only `bin/pop3d-pam.rs` calls libpam.

mod message;
mod start;

pub use message::{Answer, Question, Verdict};
pub use start::{Way, find_program, start, watch, work};

/// The name of the program that calls libpam.
pub const PROGRAM: &str = "pop3d-pam";

/// The first argument of a worker.
pub const WORKER: &str = "worker";
