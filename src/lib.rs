//! `pop3d`: a POP3 server for directories of mail, its admin protocol PEEP, PEEP's client and a load generator.
//!
//! This page is the map. The programs in `bin/` parse their arguments and call one function here. The modules form
//! three layers; a module uses only modules of its own layer or of a layer below.
//!
//! - **The process**: [`config`] (the command line and the configuration file), [`server`] (signals, shutdown),
//!   [`acceptors`] (listening sockets), `admission` (from an accepted connection to its session), [`reload`] (reads
//!   the configuration again), [`pool`] (the threads of sessions), [`cores`] (the core on which a session begins),
//!   [`confine`] (gives up rights), [`acting`] (whose rights a thread has), `recovery` (finishes what a killed server
//!   has begun), [`logging`] (the log), [`metrics`] (counters and histograms for Prometheus), [`records`] (writes the
//!   counters, and who fetched what, to files), [`systemd`] (sockets from the service manager, and notifications for it), [`malloc`]
//!   (settings of the C library's allocator), [`import`] (keeps the unique-ids of other servers), [`doctor`]
//!   (examines maildrops instead of serving them), [`check_user`] (asks the account sources for a user), [`trial`] (a server in a temporary directory).
//! - **Sessions**: [`pop3`] and [`peep`], a protocol each, generic over the connection, and [`shared`], what all
//!   sessions have in common; [`settings`], the part of it that is replaced while the server runs; [`expiry`]
//!   removes expired messages between sessions, and [`counting`] determines the sizes of transformed messages.
//! - **What they use**: [`auth`] (accounts and credentials), [`pam`] (passwords that PAM verifies), [`separate`]
//!   (processes of their own, with rights that the server gives up),
//!   [`maildrop`] (a user's messages; the only code that removes any), [`transform`] (a message through a program),
//!   [`wire`] (lines in, messages out), [`net`] (sockets and TLS),
//!   [`connections`] (connection slots), [`account_sessions`] (how many sessions each account has), [`events`] (what happens, for the log, counters, metrics and followers),
//!   [`fetches`] (who fetched what), [`guard`] (limits by address and before login), [`stats`] (counters), [`state`] (the state
//!   directory), [`clock`] (the time in the server's own files), [`descriptors`] (the limit of open files), [`append`]
//!   (opens files that lines are appended to), [`faults`] (faults that a tester orders).
//!
//! The clients are [`peep::client`] (`peepclient`) and [`mod@bench`] (`popbench`). `peepclient` and [`doctor`] connect
//! by [`dial`]. All use [`trust`] to check certificates and [`mod@printable`] to show a server's text. Apart from these and [`descriptors`], `popbench` shares
//! nothing with the server.
//!
//! A connection's way: [`server`] accepts it, [`guard`] and [`connections`] admit it, a thread of [`pool`] runs
//! [`pop3::serve`] or [`peep::serve`], and its slot is released when that returns. [`manual::architecture`] tells more;
//! the [`manual`] also has everything that users see.

pub mod acceptors;
pub mod account_sessions;
pub mod acting;
mod admission;
pub mod append;
pub mod auth;
pub mod bench;
pub mod check_user;
pub mod clock;
pub mod config;
pub mod confine;
pub mod connections;
pub mod cores;
pub mod counting;
pub mod descriptors;
pub mod dial;
pub mod doctor;
pub mod events;
pub mod expiry;
pub mod faults;
pub mod fetches;
pub mod guard;
mod hourly;
pub mod import;
pub mod logging;
mod look_up;
pub mod maildrop;
pub mod malloc;
pub mod manual;
pub mod metrics;
pub mod net;
mod owner;
pub mod pam;
pub mod peep;
pub mod pool;
pub mod pop3;
pub mod printable;
pub mod records;
mod recovery;
pub mod reload;
pub mod separate;
pub mod server;
pub mod settings;
pub mod shared;
mod span;
pub mod state;
pub mod stats;
pub mod systemd;
pub mod transform;
pub mod trial;
pub mod trust;
pub mod wire;
