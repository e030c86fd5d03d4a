//! Processes of their own, which keep rights that the server gives up.
//!
//! Some things take rights that a server which talks to strangers should not have, such as reading the hashes of passwords.
//! So the server has none of this in itself. It asks a worker, which is another process:
//!
//! ```text
//! server ──── question ───► worker ──► files, modules of PAM, …
//!        ◄─── answer ──────    ▲
//!                              │ starts, kills when its time is up, starts again
//!                           monitor
//! ```
//!
//! - [`Workers`] is how the server asks. `door` has the two ways to reach a worker: through the sockets that the server
//!   made when it started the monitor, or through a UNIX socket on which another service's workers wait.
//! - [`start()`] starts the monitor as a child of the server, which has to happen before the server gives up its rights.
//! - [`watch`] is the monitor. It keeps the rights, and reads nothing from the server.
//! - [`Work`] is a worker: it gets questions, has them answered, and sends the answers.
//!
//! A message is at most [`MOST`] octets. It goes by a socket of type `SOCK_SEQPACKET`, so it arrives whole or not at all, and
//! each question has a connection of its own: if the worker dies, the connection ends, and the server knows. What questions
//! and answers mean is decided by [`crate::pam`] and by the account source of a users file; `fields` has what their messages
//! have in common.

mod door;
pub(crate) mod fields;
mod monitor;
mod orphans;
mod rights;
mod start;
mod worker;
mod workers;

pub use door::Door;
pub use fields::MOST;
pub use monitor::{Monitor, watch};
pub use start::{Monitored, Named, start};
pub use worker::Work;
pub use workers::{Unanswered, Workers};
