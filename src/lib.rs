//! `pop3d`: a POP3 server for directories of mail, its admin protocol PEEP, and PEEP's client.
//!
//! Three layers, and the arrows between them point down only.
//!
//! - **Plumbing**: [`server`] (acceptors, shut-down), [`pool`] (the sessions' threads), [`cores`] (where they begin) and
//!   [`net`] (listening, a client's socket).
//! - **Sessions**, generic over the connection: [`pop3`] (its states, a message's transfer) and [`peep`] (the server's
//!   side and the client's), both on what they [share](shared).
//! - **What they stand on**: [`maildrop`] (a user's messages as a numbered list, the only code that removes any),
//!   [`transform`] (a message through a program), [`auth`] (accounts, and what proves them), [`guard`] (what strangers
//!   may do), [`connections`] (how many, who, their places), [`stats`], [`state`] (what outlives the server), [`wire`]
//!   (lines in, wire form out: octets to values and back).
//!
//! [`config`] turns the command line into what [`server`] needs, and [`confine`] takes from it what it does not;
//! [`logging`] writes the log, and [`malloc`] keeps so many threads small.
//! [`mod@bench`] is the load generator: a POP3 client that shares nothing with the server but [`descriptors`], room for
//! many open files. [`trust`] is both clients': whose certificates are believed, and why one is not; so is
//! [`mod@printable`], which keeps a server's text from steering the terminal.

pub mod auth;
pub mod bench;
pub mod config;
pub mod confine;
pub mod connections;
pub mod cores;
pub mod descriptors;
pub mod guard;
pub mod logging;
pub mod maildrop;
pub mod malloc;
pub mod manual;
pub mod net;
mod owner;
pub mod peep;
pub mod pool;
pub mod pop3;
pub mod printable;
pub mod server;
pub mod shared;
pub mod state;
pub mod stats;
pub mod transform;
pub mod trust;
pub mod wire;
