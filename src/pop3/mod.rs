//! POP3 as the server speaks it: RFC 1939 with the capabilities of RFC 2449, the response codes of RFC 3206, the TLS of
//! RFC 2595 and the SASL of RFC 5034.
//!
//! - [`Command`] is a parsed command line; replies write themselves (`reply`).
//! - [`serve`] runs a session, generic over the connection; a thread of [`crate::pool`] calls it. Each state is a type
//!   of its own, and only the UPDATE state can remove messages.
//! - `transfer` sends a message, as it is stored or through a [`crate::transform`].
//! - [`End`] says why a session ended, [`Summary`] what it did, for the log.
//!
//! | state | commands |
//! |---|---|
//! | AUTHORIZATION | `USER name`, `PASS string`, `APOP name digest`, `AUTH [mechanism [response]]`, `STLS`, `CAPA`, `QUIT` |
//! | TRANSACTION | `STAT`, `LIST [msg]`, `RETR msg`, `DELE msg`, `NOOP`, `RSET`, `TOP msg n`, `UIDL [msg]`, `CAPA`, `QUIT` |
//! | UPDATE | none: entered by QUIT in TRANSACTION, it removes the marked messages and ends the session |

mod command;
mod reply;
mod session;
mod transfer;

pub use command::{Auth, Command, LINE_LIMIT, ParseError};
pub use reply::{BANNED, DRAINING, TOO_MANY_CONNECTIONS};
pub use session::{End, Summary, serve};
