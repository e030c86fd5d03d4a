//! What goes over the wire, octet by octet. There are no sockets here.
//!
//! - [`Lines`] cuts what a client sends into lines of bounded length.
//! - [`Meter`] finds the size of a stored message on the wire, its [`Measure`]. [`Stuffer`] writes the message in that
//!   form: CRLF line ends, leading dots doubled, the termination octet at the end. [`Top`] finds where TOP ends.
//! - [`Output`] gathers replies for a connection, which it sees as a [`Link`], and sends them when nothing more is to
//!   come at once.
//!
//! Sessions of both protocols use it, and [`crate::maildrop`] to measure messages.

mod foreign;
mod line_ends;
mod lines;
mod message;
mod output;
mod spare;

pub use foreign::Foreign;
pub use lines::{Line, Lines};
pub use message::{Measure, Meter, Stuffer, Top};
pub use output::{BLOCK, Block, Link, Output, Tls, copy_range, is_timeout};
