//! A PEEP session on the server: reads commands, carries them out on what all sessions share, and answers.
//!
//! - [`serve`] is the loop. `login` carries out `a`. `commands` carries out the commands of version 1.0 and calls the
//!   other modules for those of version 1.1.
//! - `about` tells about the server and its accounts, `test_login` what a login would lead to, `follow` sends events.
//! - `expire` removes expired messages, `deletions` brings back what sessions have deleted,
//!   `report` tells who fetched what.
//! - `clients` is about connections and addresses: `w?`, `k=`, `b+` and their like.

mod about;
mod clients;
mod commands;
mod deletions;
mod difference;
mod expire;
mod faults;
mod follow;
mod login;
mod report;
mod test_login;
mod transforms;

use std::io;
use std::time::Instant;

use super::{Command, ErrorCode, LINE_LIMIT, Reply};
use crate::acting;
use crate::events::{Client, What};
use crate::guard::{Admission, PreLoginLimits};
use crate::net::Origin;
use crate::shared::{LOGIN_LIMIT, Shared};
use crate::wire::{Foreign, Line, Lines, Link, Output, is_timeout};

/// The reply to a connection when there are too many from its address: [`ErrorCode::TooMany`].
pub const TOO_MANY_CONNECTIONS: &str = "-9\r\n";

/// Runs a PEEP session over `link` until it ends. Its events are those of `client`.
///
/// # Errors
/// Those of the connection.
pub fn serve<L: Link>(link: L, shared: &Shared, admission: &Admission, client: &Client) -> io::Result<()> {
    let mut session = Session { shared, client, limits: PreLoginLimits::new(admission), role: None };
    if let Origin::Process { uid, .. } = client.origin {
        // The permissions of the UNIX socket say who may connect to it.
        session.has_logged_in(&format!("uid={uid}"), Role::Admin);
    }
    let mut lines = Lines::new(LINE_LIMIT);
    let mut output = Output::new(link);
    let login_by = Instant::now() + LOGIN_LIMIT;
    loop {
        while let Some(command) = session.next_command(&mut lines) {
            // Before authentication a line that is no command may belong to another protocol, whose next line may have
            // been chosen by an attacker: see `Foreign`. Nothing that follows it is read.
            let is_foreign = session.role.is_none() && command.is_err();
            let last = is_foreign || command == Ok(Command::Quit);
            if let Ok(Command::Follow { name }) = command {
                let events = shared.events.follow(name.map(|name| name.0));
                Reply::Done.write(output.pending());
                if !session.follow(events, &mut lines, &mut output)? {
                    return output.flush();
                }
                continue;
            }
            let reply =
                command.and_then(|command| session.carry_out(command, &output.link)).unwrap_or_else(Reply::Error);
            reply.write(output.pending());
            output.flush_if_large()?;
            let refused = reply == Reply::Error(ErrorCode::TooMany) || session.limits.failed_too_often();
            let is_lost = !acting::has_own_ids(); // `i?` and `at` look into maildrops
            if last || refused || is_lost || shared.connections.is_closing() || client.progress.is_kicked() {
                return output.flush();
            }
        }
        if session.role.is_some() {
            output.link.set_logged_in();
        }
        output.flush()?;
        output.release();
        output.link.expect_command(Instant::now(), (session.role.is_none()).then_some(login_by));
        match lines.fill(&mut output.link) {
            Ok(0) => return Ok(()),
            Ok(_) if session.role.is_none() && Instant::now() >= login_by => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) && (session.role.is_some() || Instant::now() < login_by) => {}
            Err(error) if is_timeout(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

struct Session<'a> {
    shared: &'a Shared,
    client: &'a Client,
    limits: PreLoginLimits<'a>,
    /// `None` before the login.
    role: Option<Role>,
}

/// The rights of the client that has logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// May do everything.
    Admin,
    /// May ask and follow.
    Viewer,
}

impl Session<'_> {
    /// The next command of the session's state, if a complete line has arrived.
    fn next_command(&mut self, lines: &mut Lines) -> Option<Result<Command, ErrorCode>> {
        if self.role.is_none() && lines.begin_tls() {
            return Some(Err(ErrorCode::UnknownCommand));
        }
        let line = lines.next()?;
        if self.role.is_none() && !self.limits.allow_command() {
            return Some(Err(ErrorCode::TooMany));
        }
        Some(match line {
            // A line of HTTP can look like a login: `a /name HTTP/1.1`.
            Line::Complete(line) if self.role.is_none() && Foreign::of(line).is_some() => {
                Err(ErrorCode::UnknownCommand)
            }
            Line::Complete(line) => match Command::parse(line, false) {
                Ok(login @ Command::Authenticate { .. }) if self.is_on_socket() => Ok(login),
                _ => Command::parse(line, self.role.is_some()).and_then(|command| self.permitted(command)),
            },
            Line::TooLong => Err(ErrorCode::BadSyntax),
        })
    }

    /// Returns true if the client has connected to the UNIX socket.
    fn is_on_socket(&self) -> bool {
        self.client.origin.ip().is_none()
    }

    /// Returns the command if the role allows it.
    fn permitted(&self, command: Command) -> Result<Command, ErrorCode> {
        if self.role == Some(Role::Viewer) && !command.is_for_viewers() {
            return Err(ErrorCode::NotForViewers);
        }
        Ok(command)
    }

    fn log_change(&self, change: std::fmt::Arguments<'_>) {
        self.emit(What::AdminChange { change });
    }

    fn emit(&self, what: What<'_>) {
        self.shared.events.emit(self.client, what);
    }
}
