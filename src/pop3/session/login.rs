//! The step from AUTHORIZATION to TRANSACTION: verifies credentials within the limits before login, then locks and opens
//! the maildrop.

use std::io;

use super::{Authorization, End, Session, State, Transaction};
use crate::auth::{Denied, UserName, Users};
use crate::guard::AttemptRefused;
use crate::maildrop::Maildrop;
use crate::pop3::reply::{Fault, Refusal};
use crate::wire::Link;

impl<L: Link> Session<'_, L> {
    /// Carries out a login whose credentials come in one step: `prove` verifies them. `secret` is the password, if the
    /// client sent one; repeating the same wrong password raises the penalty less than guessing.
    pub(super) fn log_in(
        &mut self,
        name: &[u8],
        secret: Option<&[u8]>,
        prove: impl FnOnce(&Users) -> Result<UserName, Denied>,
    ) -> Result<State, End> {
        let proven = self.prove(name, secret, prove);
        self.end_login(proven)
    }

    /// Completes a login by any command: opens the maildrop and answers +OK, or answers -ERR.
    pub(super) fn end_login(&mut self, proven: Result<UserName, Refusal>) -> Result<State, End> {
        match proven.and_then(|user| self.open_maildrop(user)) {
            Ok(transaction) => {
                self.output.link.set_logged_in();
                self.ok("maildrop open");
                return Ok(State::Transaction(transaction));
            }
            Err(refusal) => self.refuse_login(refusal)?,
        }
        Ok(State::Authorization(Authorization::default()))
    }

    /// Verifies credentials, unless logins from the client's address are refused at present. Every login attempt passes
    /// through here and is counted.
    pub(super) fn prove<T>(
        &mut self,
        name: &[u8],
        secret: Option<&[u8]>,
        prove: impl FnOnce(&Users) -> Result<T, Denied>,
    ) -> Result<T, Refusal> {
        let shown = String::from_utf8_lossy(name);
        let attempt = self.limits.attempt(name, secret).map_err(|why| match why {
            AttemptRefused::Penalty(penalty) => {
                log::warn!("{} login refused: user={shown:?}, too many failed logins, for {penalty}", self.name);
                Refusal::Penalty(penalty)
            }
            AttemptRefused::Busy => {
                log::warn!("{} login refused: user={shown:?}, too many at once from the client's address", self.name);
                Refusal::Busy
            }
        })?;
        match prove(&self.shared.users) {
            Ok(proven) => {
                self.limits.succeeded(attempt);
                Ok(proven)
            }
            Err(Denied::Credentials) => {
                log::warn!("{} login failed: user={shown:?}", self.name);
                self.limits.failed(attempt);
                Err(Refusal::Credentials)
            }
            Err(Denied::Busy) => {
                log::warn!("{} login refused: user={shown:?}, too many are verified", self.name);
                Err(Refusal::Busy)
            }
        }
    }

    /// Locks and opens the maildrop of a user whose credentials are right.
    fn open_maildrop(&self, user: UserName) -> Result<Transaction, Refusal> {
        let shown = user.to_string();
        let unopened = |error: io::Error| {
            log::error!("{} login refused: user={shown:?}, the maildrop cannot be opened: {error}", self.name);
            Refusal::Maildrop(Fault::from(&error))
        };
        let location = self.shared.settings().mail_root.location(user).map_err(unopened)?;
        let lock = self.shared.locks.lock(&location).map_err(unopened)?.ok_or_else(|| {
            log::warn!("{} login refused: user={shown:?}, the maildrop is in use", self.name);
            Refusal::InUse
        })?;
        let maildrop = Maildrop::open(location).map_err(unopened)?;
        self.shared.stats.logins.add(1);
        log::info!("{} login: user={shown:?} messages={} octets={}", self.name, maildrop.count(), maildrop.octets());
        Ok(Transaction { maildrop, lock })
    }

    /// Answers a failed login, and ends the session if the client may not try again.
    fn refuse_login(&mut self, refusal: Refusal) -> Result<(), End> {
        self.err(refusal);
        if self.limits.failed_too_often() || matches!(refusal, Refusal::Penalty(_)) {
            self.output.flush()?;
            return Err(End::FailedLogins);
        }
        Ok(())
    }
}
