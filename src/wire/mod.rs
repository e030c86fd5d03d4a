//! What goes over the wire, octet by octet; no sockets here.

mod lines;

pub use lines::{Line, Lines};
