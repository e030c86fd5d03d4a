//! Faults on demand: the server misbehaves as a tester has ordered, to show what a mail program makes of it.
//!
//! - An [`Order`] says which clients ([`Who`]) get which fault ([`What`]), how often and for how long. [`Faults`] are the
//!   orders in force. A server has them only with `--allow-faults`.
//! - A POP3 session of such a server has a [`FaultyLink`] around its connection. It produces the faults of octets and
//!   packets. For the others the session asks [`crate::wire::Link::fault`] before it answers.
//!
//! A server without `--allow-faults` runs sessions without this wrapper, for which the answer is known to be "none" when
//! they are compiled.
//!
//! [`crate::manual::faults`] tells the rest. No fault removes a message. Only a client's DELE and QUIT do, as in any session.

mod due;
mod link;
mod order;
mod orders;
#[cfg(test)]
mod tests;

pub use link::{Breakable, FaultyLink};
pub use order::{Kind, Order, What, Who};
pub use orders::{Faults, InForce};
