//! What goes over the wire, octet by octet; no sockets here.

mod foreign;
mod line_ends;
mod lines;
mod message;
mod output;
mod spare;

pub use foreign::Foreign;
pub use lines::{Line, Lines};
pub use message::{Measure, Meter, Stuffer, Top};
pub use output::{BLOCK, Block, Link, Output, Tls, is_timeout};
