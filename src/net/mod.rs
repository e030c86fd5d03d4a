//! Sockets: binding, accepting, and a connection as sessions see it.

mod listener;
mod socket;

pub use listener::{Listener, WRITE_STALL, bind};
pub use socket::{Socket, discard_input};
