//! A POP3 session: the loop that reads commands and passes each to the present state.
//!
//! - `authorization` carries out the commands before login, `login` verifies credentials and opens the maildrop.
//! - `transaction` carries out the commands after login.
//! - `faults` asks for the faults that a tester has ordered.
//! - `update` removes the marked messages. Only QUIT in the TRANSACTION state calls it. If a session ends in any other
//!   way, its [`Transaction`] is dropped, which removes nothing and unlocks the maildrop.
//! - [`End`] and [`Summary`] say how a session ended and what it did, for the log.
//!
//! [`crate::server`] calls [`serve`] on a thread of the pool.

mod authorization;
mod end;
mod faults;
mod login;
mod transaction;
mod update;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

pub use self::end::{End, Summary};
use super::reply::{self, Offer, Refusal};
use super::{Command, LINE_LIMIT};
use crate::account_sessions::AccountSession;
use crate::acting::ActingAs;
use crate::auth::{self, Abilities};
use crate::connections::EndedBy;
use crate::events::{Client, Counts, What};
use crate::faults::Kind;
use crate::guard::{Admission, PreLoginLimits};
use crate::maildrop::{Expiry, Lock, Maildrop};
use crate::shared::{LOGIN_LIMIT, Shared};
use crate::transform::Transform;
use crate::wire::{Foreign, Line, Lines, Link, Output, is_timeout};

/// Runs a POP3 session over `link` until it ends. Its events are those of `client`.
pub fn serve<L: Link>(link: L, shared: &Shared, admission: &Admission, client: &Client) -> Summary {
    let abilities = shared.users.abilities();
    let mut session = Session {
        shared,
        client,
        connected: Instant::now(),
        abilities,
        timestamp: abilities.apop.then(auth::timestamp),
        lines: Lines::new(LINE_LIMIT),
        output: Output::new(link),
        limits: PreLoginLimits::new(admission),
        counts: Counts::default(),
    };
    let Err(end) = session.run();
    let end = match end {
        End::Quit => End::Quit,
        // An end from outside may have shown as a failed write.
        end => client.progress.ended_by().map_or(end, End::from),
    };
    Summary { end, counts: session.counts }
}

/// What all states of a session use.
struct Session<'a, L> {
    shared: &'a Shared,
    client: &'a Client,
    /// When the connection was handed to the session; the login deadline counts from here.
    connected: Instant,
    /// The mechanisms that every account supported when the greeting was sent. CAPA announces the same.
    abilities: Abilities,
    /// The timestamp in the greeting, if the greeting announces APOP.
    timestamp: Option<String>,
    lines: Lines,
    output: Output<L>,
    limits: PreLoginLimits<'a>,
    counts: Counts,
}

/// A line that is not a command.
struct NoCommand {
    why: String,
    /// The other protocol that the line looks like, if any.
    protocol: Option<Foreign>,
}

enum State {
    Authorization(Authorization),
    Transaction(Box<Transaction>),
}

/// The data of the AUTHORIZATION state.
#[derive(Default)]
struct Authorization {
    /// The name that USER gave, if the preceding command was USER.
    user: Option<Vec<u8>>,
}

/// The data of the TRANSACTION state. Fields are dropped in this order: the lock is released once nothing uses the maildrop
/// and the session does not count for its account any more, and at last the thread gets the server's ids back.
struct Transaction {
    maildrop: Maildrop,
    /// Dropped before the lock, so that a login that waits for the lock finds a session less.
    account_session: AccountSession,
    lock: Lock,
    /// The transform of this session, if the client was told the sizes of its output.
    exact: Option<Arc<Transform>>,
    /// Under whose ids all of this is done.
    acting: ActingAs,
}

impl<L: Link> Session<'_, L> {
    /// Runs the session. Every way to end it is an `Err`, so that `?` can end it at any depth.
    fn run(&mut self) -> Result<Infallible, End> {
        let mut since = self.connected;
        let mut state = State::Authorization(Authorization::default());
        match self.timestamp.clone() {
            Some(timestamp) => self.ok(format_args!("{} {timestamp}", reply::GREETING)),
            None => self.ok(reply::GREETING),
        }
        loop {
            while let Some(command) = self.next_command(matches!(state, State::Authorization(_))) {
                if self.shared.connections.is_closing() {
                    self.output.flush()?;
                    return Err(End::ShuttingDown);
                }
                if self.client.progress.is_kicked() {
                    return self.end_kicked();
                }
                self.counts.commands += 1;
                self.counts.first_commands.add(command.as_ref().ok().map(Command::keyword));
                let command = command.and_then(|command| self.unless_unknown(command));
                match &command {
                    Ok(command) => log::debug!("{} {command}", self.client),
                    Err(no_command) => log::debug!("{} no command: {}", self.client, no_command.why),
                }
                state = match state {
                    State::Authorization(authorization) => self.authorization(authorization, command)?,
                    State::Transaction(transaction) => self.transaction(transaction, command)?,
                };
                self.output.flush_if_large()?;
                since = Instant::now();
            }
            self.output.flush()?;
            self.output.release();
            let login_by = matches!(state, State::Authorization(_)).then(|| self.connected + LOGIN_LIMIT);
            self.await_input(since, login_by)?;
        }
    }

    /// Returns the next command that has arrived completely; `Some(Err)` for a line that is not a command.
    fn next_command(&mut self, before_login: bool) -> Option<Result<Command, NoCommand>> {
        if before_login && self.lines.begin_tls() {
            return Some(Err(NoCommand {
                why: Refusal::Foreign(Foreign::Tls).to_string(),
                protocol: Some(Foreign::Tls),
            }));
        }
        Some(match self.lines.next()? {
            Line::Complete(line) => {
                Command::parse(line).map_err(|error| NoCommand { why: error.to_string(), protocol: Foreign::of(line) })
            }
            Line::TooLong => Err(NoCommand { why: Refusal::TooLong.to_string(), protocol: None }),
        })
    }

    /// Waits for input. The autologout timer starts at the last complete command (`since`), so a part of a command does
    /// not reset it. The setting is read again after each wait, because PEEP may have changed it.
    fn await_input(&mut self, since: Instant, login_by: Option<Instant>) -> Result<(), End> {
        let deadline = || {
            let logout = self.shared.timeout().map(|timeout| since + timeout);
            [logout, login_by].into_iter().flatten().min()
        };
        let overdue = || deadline().is_some_and(|deadline| Instant::now() >= deadline);
        loop {
            self.output.link.expect_command(since, deadline());
            match self.lines.fill(&mut self.output.link) {
                Ok(0) if self.shared.connections.is_closing() => return Err(End::ShuttingDown),
                Ok(0) if self.client.progress.is_kicked() => return self.end_kicked(),
                // Input does not extend the deadline: it may arrive octet by octet, or never contain a login.
                Ok(_) if overdue() => return Err(End::Timeout),
                Ok(0) => return Err(End::HangUp),
                Ok(_) => return Ok(()),
                Err(error) if is_timeout(&error) => {
                    if overdue() {
                        return Err(End::Timeout);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells the client that its session was ended from outside.
    fn end_kicked<T>(&mut self) -> Result<T, End> {
        let by = self.client.progress.ended_by().unwrap_or(EndedBy::Admin);
        self.err(match by {
            EndedBy::Admin => Refusal::Kicked,
            EndedBy::Login => Refusal::TakenOver,
        });
        self.output.flush()?;
        Err(by.into())
    }

    /// Sends the last reply and ends the session.
    fn quit(&mut self) -> Result<State, End> {
        self.output.finish()?;
        Err(End::Quit)
    }

    /// Answers CAPA. `expiry` is the rule for the user who has logged in, if one has.
    fn capabilities(&mut self, stls: bool, expiry: Option<Expiry>) {
        log::trace!("{} +OK capabilities", self.client);
        let (expire, expire_by_user) = match expiry {
            Some(expiry) => (expiry.shortest(), false),
            None => self.shared.settings().mail_root.expiry().announced(self.shared.users.own_expiries()),
        };
        let (uidl, top) = (!self.is_faulty(Kind::NoUidl), !self.is_faulty(Kind::NoTop));
        let (user, mechanisms) = (self.takes_passwords(), self.mechanisms());
        let offer = Offer { user, stls, uidl, top, mechanisms, expire, expire_by_user };
        reply::capabilities(self.output.pending(), &offer);
    }

    fn emit(&self, what: What<'_>) {
        self.shared.events.emit(self.client, what);
    }

    fn ok(&mut self, text: impl fmt::Display) {
        log::trace!("{} +OK {text}", self.client);
        reply::ok(self.output.pending(), text);
    }

    fn err(&mut self, text: impl fmt::Display) {
        log::trace!("{} -ERR {text}", self.client);
        reply::err(self.output.pending(), text);
    }
}
