//! Faults that a tester has ordered, where the session itself has to show them. A link without faults has none, which is
//! known when this is compiled.

use super::{NoCommand, Session};
use crate::auth::Login;
use crate::events::Reason;
use crate::faults::Kind;
use crate::maildrop::{Maildrop, MessageNumber};
use crate::pop3::transfer::Body;
use crate::pop3::{Command, ParseError};
use crate::wire::Link;

/// The sizes that a session tells.
pub(super) enum Sizes {
    /// The messages' octets.
    True,
    /// Twice as many for each second message, half as many for the others.
    Wrong,
}

impl Sizes {
    /// The size that is told for the message with this number, counted from 1, which has these octets.
    pub(super) fn of(&self, number: usize, octets: u64) -> u64 {
        match self {
            Self::True => octets,
            Self::Wrong if number.is_multiple_of(2) => octets.saturating_mul(2),
            Self::Wrong => octets / 2,
        }
    }

    /// The size of the maildrop.
    pub(super) fn of_all(&self, maildrop: &Maildrop) -> u64 {
        match self {
            Self::True => maildrop.octets(),
            Self::Wrong => {
                let sizes = maildrop.sizes().map(|(number, octets)| self.of(number, octets));
                sizes.fold(0, u64::saturating_add)
            }
        }
    }
}

impl<L: Link> Session<'_, L> {
    /// Returns true if the session has to show this fault.
    pub(super) fn is_faulty(&mut self, kind: Kind) -> bool {
        self.output.link.fault(kind)
    }

    /// Returns the command, unless the server has to pretend that it does not know it.
    pub(super) fn unless_unknown(&mut self, command: Command) -> Result<Command, NoCommand> {
        let kind = match command {
            Command::Capa => Kind::NoCapa,
            Command::Uidl(_) => Kind::NoUidl,
            Command::Top { .. } => Kind::NoTop,
            _ => return Ok(command),
        };
        match self.is_faulty(kind) {
            true => Err(NoCommand { why: ParseError::UnknownCommand.to_string(), protocol: None }),
            false => Ok(command),
        }
    }

    /// Returns the login of a user whose credentials are right, unless it has to be refused.
    pub(super) fn unless_faulty(&mut self, login: Login) -> Result<Login, Reason> {
        match self.output.link.fault_at_login(&[Kind::InUse, Kind::SysTemp, Kind::Auth], login.user.as_str()) {
            Some(kind) => Err(Reason::Fault(kind)),
            None => Ok(login),
        }
    }

    /// The sizes for an answer to STAT or LIST.
    pub(super) fn sizes(&mut self) -> Sizes {
        if self.is_faulty(Kind::LieSize) { Sizes::Wrong } else { Sizes::True }
    }

    /// How much of a message RETR sends, or TOP with this number of lines.
    pub(super) fn body(&mut self, maildrop: &Maildrop, number: MessageNumber, lines: Option<u32>) -> Body {
        match maildrop.octets_of(number) {
            Some(octets) if self.is_faulty(Kind::TruncateSilently) => Body::Truncated { lines, octets: octets / 2 },
            _ => lines.map_or(Body::Whole, Body::Lines),
        }
    }
}
