//! A PEEP session on the server: reads commands, carries them out on what all sessions share, and answers.
//!
//! - [`serve`] is the loop. `login` is the only command before it, `commands` carries out those of version 1.0 and passes
//!   the others on.
//! - `clients` is about connections and addresses: `w?`, `k=`, `b+` and their like.

mod clients;
mod commands;
mod login;

use std::io;
use std::time::Instant;

use super::{Command, ErrorCode, LINE_LIMIT, Reply};
use crate::events::{Client, What};
use crate::guard::{Admission, PreLoginLimits};
use crate::shared::{LOGIN_LIMIT, Shared};
use crate::wire::{Foreign, Line, Lines, Link, Output, is_timeout};

/// The reply to a connection when there are too many from its address: [`ErrorCode::TooMany`].
pub const TOO_MANY_CONNECTIONS: &str = "-9\r\n";

/// Runs a PEEP session over `link` until it ends. Its events are those of `client`.
///
/// # Errors
/// Those of the connection.
pub fn serve<L: Link>(link: L, shared: &Shared, admission: &Admission, client: &Client) -> io::Result<()> {
    let mut session = Session { shared, client, limits: PreLoginLimits::new(admission), authenticated: false };
    let mut lines = Lines::new(LINE_LIMIT);
    let mut output = Output::new(link);
    let login_by = Instant::now() + LOGIN_LIMIT;
    loop {
        while let Some(command) = session.next_command(&mut lines) {
            // Before authentication a line that is no command may belong to another protocol, whose next line may have
            // been chosen by an attacker: see `Foreign`. Nothing that follows it is read.
            let is_foreign = !session.authenticated && command.is_err();
            let last = is_foreign || command == Ok(Command::Quit);
            let reply =
                command.and_then(|command| session.carry_out(command, &output.link)).unwrap_or_else(Reply::Error);
            reply.write(output.pending());
            output.flush_if_large()?;
            let refused = reply == Reply::Error(ErrorCode::TooMany) || session.limits.failed_too_often();
            if last || refused || shared.connections.is_closing() || client.progress.is_kicked() {
                return output.flush();
            }
        }
        if session.authenticated {
            output.link.set_logged_in();
        }
        output.flush()?;
        output.release();
        output.link.expect_command(Instant::now(), (!session.authenticated).then_some(login_by));
        match lines.fill(&mut output.link) {
            Ok(0) => return Ok(()),
            Ok(_) if !session.authenticated && Instant::now() >= login_by => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) && (session.authenticated || Instant::now() < login_by) => {}
            Err(error) if is_timeout(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

struct Session<'a> {
    shared: &'a Shared,
    client: &'a Client,
    limits: PreLoginLimits<'a>,
    authenticated: bool,
}

impl Session<'_> {
    /// The next command of the session's state, if a complete line has arrived.
    fn next_command(&mut self, lines: &mut Lines) -> Option<Result<Command, ErrorCode>> {
        if !self.authenticated && lines.begin_tls() {
            return Some(Err(ErrorCode::UnknownCommand));
        }
        let line = lines.next()?;
        if !self.authenticated && !self.limits.allow_command() {
            return Some(Err(ErrorCode::TooMany));
        }
        Some(match line {
            // A line of HTTP can look like a login: `a /name HTTP/1.1`.
            Line::Complete(line) if !self.authenticated && Foreign::of(line).is_some() => {
                Err(ErrorCode::UnknownCommand)
            }
            Line::Complete(line) => Command::parse(line, self.authenticated),
            Line::TooLong => Err(ErrorCode::BadSyntax),
        })
    }

    fn log_change(&self, change: std::fmt::Arguments<'_>) {
        self.emit(What::AdminChange { change });
    }

    fn emit(&self, what: What<'_>) {
        self.shared.events.emit(self.client, what);
    }
}
