//! PEEP, the protocol with which an admin watches and changes the server while it runs: the server's side and a client.
//!
//! - [`Command`] and [`Reply`] are the grammar, used by both sides; [`ErrorCode`] has the errors. [`SessionLine`],
//!   [`BanLine`], [`NameValue`] and [`EventLine`] are lines of answers of version 1.1.
//! - [`serve`] runs an admin's session; a thread of [`crate::pool`] calls it. The settings and counters that it changes
//!   and reads are in [`crate::shared`].
//! - [`client`] is `peepclient`; [`Answer`] is a reply as a client reads it.
//!
//! A command is one line: a *commencement* (lowercase letters, then perhaps one of `+ - = ?`), then up to two
//! arguments (`ft+` has four), each after one space. An answer is `+`, `+VALUE`, `+n` followed by n lines, or `-N`, an error.
//!
//! | command | answer | errors | what it is |
//! |---|---|---|---|
//! | `a NAME PASSWORD` | `+` | -2 | authenticates; the only one before that besides `cap?` and `q` |
//! | `cap?` | `+n`, n lines | | capabilities |
//! | `q` | `+` | | ends the session |
//! | `u+ NAME PASSWORD` | `+` | -3, -8 | adds a user (`+a` is another spelling) |
//! | `u- NAME` | `+` | -4, -8 | deletes a user; -8 when the users file cannot be written |
//! | `u?` | `+n`, n names | | users |
//! | `c= N`, `c?` | `+`, `+N` | -5 | most connections at once, POP3 and PEEP together |
//! | `m= PATH`, `m?` | `+`, `+PATH` | -6 | mail directory |
//! | `t= SECONDS`, `t?` | `+`, `+SECONDS` | -7 | autologout timer, 0 for none |
//! | `rb?` | `+N` | | octets sent to POP3 clients |
//! | `re?` | `+N` | | messages retrieved |
//! | `xe?` | `+N` | | messages deleted |
//! | `cc?` | `+N` | | POP3 connections now |
//! | `cu?` | `+n`, n names | | users logged in now |
//! | `hc?` | `+N` | | POP3 connections ever |
//! | `hu?` | `+N` | | logins ever |
//!
//! Version 1.1 adds these. NET is a network or an address; a NAME is percent-encoded where it has to be:
//!
//! | command | answer | errors | what it is |
//! |---|---|---|---|
//! | `w?` | `+n`, n of [`SessionLine`] | | connections |
//! | `k= ID`, `ku= NAME`, `ka= NET` | `+N`, how many | -10 | ends connections without an UPDATE state |
//! | `b+ NET SECONDS`, `b- NET` | `+` | -10 | keeps addresses out (0 for no end), or no longer |
//! | `b?` | `+n`, n of [`BanLine`] | | bans and penalties |
//! | `s?` | `+n`, n of [`NameValue`] | | every counter, gauge and setting |
//! | `i? NAME` | `+n`, n of [`NameValue`] | -4 | an account and its maildrop |
//! | `at NAME PASSWORD` | `+REASON` | | whether a login would succeed: `ok`, or why not; with `sources` behind it as [`TestedLogin`] |
//! | `e?` | `+n`, n lines of the log | | the last warnings and errors, oldest first |
//! | `l= LEVEL`, `l?` | `+`, `+LEVEL` | | the log's level |
//! | `d= 0`, `d= 1`, `d?` | `+`, `+0` or `+1` | | whether new POP3 clients are turned away |
//! | `r` | `+`, or `+n` and n lines | -11 | reads the configuration again; the lines are what needs a restart |
//! | `f`, `f NAME` | `+`, then a line for each event | | follows events until the client sends a line; `+` answers it |
//! | `mt?` | `+n`, n lines | | OpenMetrics text |
//! | `ex`, `ex?` | `+n`, n of [`ExpiryLine`] | | removes expired messages, or tells which would be removed |
//! | `dl? NAME` | `+n`, n of [`DeletionLine`] | -4, -15 | what a user's sessions have deleted and is still kept |
//! | `ud SESSION`, `uds NAME SECONDS` | `+N`, how many messages | -4, -13, -14, -15 | brings back what one session has deleted, or all sessions since then |
//! | `rp?`, `rp? NAME` | `+n`, n of [`ReportLine`] | -4 | who fetched what |
//! | `rd?`, `rd? NAME` | `+n`, n of [`DayLine`] | -4 | the same octets by day |
//! | `ft+ WHO WHAT COUNT SECONDS` | `+ID` | -4, -16 | orders a fault for `*`, a network or a user (see [`crate::faults`]) |
//! | `ft-`, `ft- ID` | `+N`, how many | -16, -17 | clears all faults, or one |
//! | `ft?` | `+n`, n of [`FaultLine`] | -16 | the faults in force |
//! | `tr= NAME 0`, `tr= NAME 1` | `+` | -4, -18 | whether a user's messages go through the transform |
//! | `tr?` | `+n`, n names | | the users whose messages do not |
//! | `tt NAME N` | `+n`, n of [`NameValue`] | -4, -15, -18, -19 | what the transform does to a message |
//!
//! A viewer may send what ends in `?`, `f` and `q`; anything else is answered by -12.
//!
//! Before the login the first line that is not `a`, `cap?` or `q` with proper arguments is answered by its error, and
//! the connection is closed: it may be of another protocol, with lines in it that an attacker has chosen.
//!
//! To anything before the login, and in place of an answer at once, -9: too many connections from the client's address,
//! too many failed logins from there, too many lines. The connection is closed.

mod answer;
mod argument;
pub mod client;
mod command;
mod fields;
mod lines;
mod reply;
mod session;
mod tested;
mod text;

pub use answer::{Answer, UnreadableAnswer, read_line};
pub use argument::Encoded;
pub(crate) use argument::is_argument;
pub use command::{Command, Form, LINE_LIMIT, VERSION_1_1};
pub use fields::Malformed;
pub use lines::{
    BanLine, DayLine, DeletionLine, EventLine, Expiration, ExpiryLine, FaultLine, NameValue, ReportLine, SessionLine,
    Spoken, State,
};
pub use reply::{ErrorCode, Reply};
pub use session::{TOO_MANY_CONNECTIONS, serve};
pub use tested::{MORE, SourceSaid, TestedLogin, TestedMaildrop};
pub use text::{time, time_of};
