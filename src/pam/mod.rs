//! Passwords that PAM verifies, in processes of their own.
//!
//! The modules of PAM need rights that a server which talks to strangers should not have: they read the hashes of
//! /etc/shadow, or speak to a directory service as root. They are also code that may block for minutes or crash. So the
//! server has none of this in itself. It asks a worker, which is another program (`pop3d-pam`) in another process:
//!
//! ```text
//! server ──── question: user, password, address ───► worker ──► libpam and its modules
//!        ◄─── answer: accepted, refused, … ─────────    ▲
//!                                                       │ starts, kills when its time is up, starts again
//!                                                    monitor
//! ```
//!
//! - [`Question`] and [`Answer`] are the two messages, of at most [`MOST`] octets each.
//! - [`Workers`] is how the server asks. `door` has the two ways to reach a worker: through the sockets that the server
//!   made when it started the monitor, or through a UNIX socket on which another service's workers wait.
//! - [`start()`] starts the monitor as a child of the server, which has to happen before the server gives up its rights.
//! - [`watch`] is the monitor. It keeps the rights, and reads nothing from the server.
//! - [`work`] is a worker: it gets a question, has it answered, and sends the answer.
//!
//! Only `bin/pop3d-pam.rs` calls libpam. A message goes by a socket of type `SOCK_SEQPACKET`, so it arrives whole or not at
//! all, and each question has a connection of its own: if the worker dies, the connection ends, and the server knows.

mod door;
mod message;
mod monitor;
mod orphans;
mod rights;
mod start;
mod worker;
mod workers;

pub use door::Door;
pub use message::{Answer, MOST, Question, Verdict};
pub use monitor::{Monitor, watch};
pub use start::{Monitored, Way, find_program, start};
pub use worker::work;
pub use workers::{Unanswered, Workers};

/// The name of the program that calls libpam.
pub const PROGRAM: &str = "pop3d-pam";

/// The first argument of a worker.
pub const WORKER: &str = "worker";
