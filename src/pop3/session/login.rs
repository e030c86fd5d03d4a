//! The step from AUTHORIZATION to TRANSACTION: verifies credentials within the limits before login, then locks and opens
//! the maildrop.

use std::io;
use std::time::{Duration, Instant};

use super::{Authorization, End, Session, State, Transaction};
use crate::auth::{Denied, Login, Users};
use crate::connections::Stage;
use crate::events::{Lossy, Method, Reason, What};
use crate::faults::Kind;
use crate::guard::AttemptRefused;
use crate::pop3::reply::{Fault, Refusal};
use crate::transform::Sizes;
use crate::wire::Link;
use crate::{acting, counting};

/// What a client that logs in claims to be.
pub(super) struct Claim<'a> {
    name: &'a [u8],
    method: Method,
    /// When the credentials arrived.
    pub(super) since: Instant,
}

impl<'a> Claim<'a> {
    /// The claim of a client whose credentials have just arrived.
    pub(super) fn new(name: &'a [u8], method: Method) -> Self {
        Self { name, method, since: Instant::now() }
    }

    /// The claim of a client that has not given a name.
    pub(super) fn without_name(method: Method) -> Self {
        Self::new(b"", method)
    }

    /// The claim of a client whose credentials were verified in an earlier step, which took `time`.
    pub(super) fn verified_in(self, time: Duration) -> Self {
        Self { since: self.since.checked_sub(time).unwrap_or(self.since), ..self }
    }
}

impl<L: Link> Session<'_, L> {
    /// Carries out a login with a password.
    pub(super) fn log_in_by_password(&mut self, claim: Claim<'_>, password: &[u8]) -> Result<State, End> {
        let (name, address) = (claim.name, self.client.origin.ip());
        self.log_in(claim, Some(password), |users| users.authenticate(name, password, address))
    }

    /// Carries out a login whose credentials come in one step: `prove` verifies them. `secret` is the password, if the
    /// client sent one; repeating the same wrong password raises the penalty less than guessing.
    pub(super) fn log_in(
        &mut self,
        claim: Claim<'_>,
        secret: Option<&[u8]>,
        prove: impl FnOnce(&Users) -> Result<Login, Denied>,
    ) -> Result<State, End> {
        let proven = self.prove(&claim, secret, prove);
        self.end_login(&claim, proven)
    }

    /// Completes a login by any command: opens the maildrop and answers +OK, or answers -ERR.
    pub(super) fn end_login(&mut self, claim: &Claim<'_>, proven: Result<Login, Reason>) -> Result<State, End> {
        let allowed = proven.and_then(|login| self.unless_faulty(login));
        match allowed.and_then(|login| self.open_maildrop(claim, login)) {
            Ok(_) if !self.client.progress.enter(Stage::Transaction) => return self.end_kicked(),
            Ok(transaction) => {
                self.output.link.set_logged_in();
                self.ok("maildrop open");
                return Ok(State::Transaction(Box::new(transaction)));
            }
            Err(reason) => self.refuse_login(claim, &reason)?,
        }
        Ok(State::Authorization(Authorization::default()))
    }

    /// Verifies credentials, unless logins from the client's address are refused at present. That may be since the client
    /// has connected: an admin has banned the address, or other logins from there have failed. Every login attempt passes
    /// through here and is counted.
    pub(super) fn prove<T>(
        &mut self,
        claim: &Claim<'_>,
        secret: Option<&[u8]>,
        prove: impl FnOnce(&Users) -> Result<T, Denied>,
    ) -> Result<T, Reason> {
        if self.client.origin.ip().is_some_and(|address| self.shared.guard.is_banned(address)) {
            return Err(Reason::Banned);
        }
        let attempt = self.limits.attempt(claim.name, secret).map_err(|why| match why {
            AttemptRefused::Penalty(penalty) => Reason::Penalty(penalty),
            AttemptRefused::Busy => Reason::BusyAddress,
        })?;
        match prove(&self.shared.users) {
            Ok(proven) => {
                self.limits.succeeded(attempt);
                Ok(proven)
            }
            Err(denied) => {
                let reason = Reason::from(denied);
                if matches!(reason, Reason::Credentials(_))
                    && let Some(penalty) = self.limits.failed(attempt)
                {
                    self.emit(What::Penalty { penalty });
                }
                Err(reason)
            }
        }
    }

    /// Locks and opens the maildrop of a user whose credentials are right.
    fn open_maildrop(&self, claim: &Claim<'_>, login: Login) -> Result<Transaction, Reason> {
        let mut account_session = self.shared.admit(&login)?;
        let (acting, location) = self.shared.act_for_login(&login).map_err(Reason::Maildrop)?;
        let lock = self.shared.lock(&location, self.client)?;
        account_session.begin()?;
        let scan = Instant::now();
        let mut maildrop = lock.open().map_err(Reason::Maildrop)?;
        let exact = self.shared.transform_of(&login.user).filter(|it| it.rules().sizes == Sizes::Exact);
        if let Some(transform) = &exact {
            let goes_on = || !self.shared.connections.is_closing() && !self.client.progress.is_kicked();
            counting::complete(self.shared, &mut maildrop, &login, transform, goes_on).map_err(Reason::Uncounted)?;
        }
        self.client.set_user(login.user);
        self.emit(What::Login {
            method: claim.method,
            messages: maildrop.count(),
            octets: maildrop.octets(),
            took: claim.since.elapsed(),
            scan: scan.elapsed(),
        });
        Ok(Transaction { maildrop, account_session, lock, exact, acting })
    }

    /// Answers a failed login, and ends the session if the client may not try again.
    pub(super) fn refuse_login(&mut self, claim: &Claim<'_>, reason: &Reason) -> Result<(), End> {
        let Claim { name, method, since } = *claim;
        let user = (!name.is_empty()).then_some(Lossy(name));
        self.emit(What::LoginRefused { user, method, reason, took: since.elapsed() });
        if self.client.progress.is_kicked() {
            return self.end_kicked(); // for example while it waited for the maildrop
        }
        self.err(refusal(reason));
        if !acting::has_own_ids() {
            self.output.flush()?;
            return Err(End::Failed(io::Error::other("the thread has not got the server's ids back")));
        }
        let end = match reason {
            Reason::Banned => End::Banned,
            Reason::Penalty(_) => End::FailedLogins,
            _ if self.limits.failed_too_often() => End::FailedLogins,
            _ => return Ok(()),
        };
        self.output.flush()?;
        Err(end)
    }
}

/// What a client is told of the reason.
fn refusal(reason: &Reason) -> Refusal {
    match reason {
        Reason::Credentials(_) => Refusal::Credentials,
        Reason::Banned => Refusal::Banned,
        Reason::Penalty(penalty) => Refusal::Penalty(*penalty),
        Reason::BusyAddress | Reason::BusyVerifier => Refusal::Busy,
        Reason::NoTls => Refusal::InClear,
        Reason::Unavailable => Refusal::Unavailable,
        Reason::Exchange(failure) => Refusal::Exchange(*failure),
        Reason::TooManySessions(_) => Refusal::TooManySessions,
        Reason::InUse(_) | Reason::InUseElsewhere(_) => Refusal::InUse,
        Reason::Maildrop(error) => Refusal::Maildrop(Fault::from(error)),
        Reason::Uncounted(_) => Refusal::Uncounted,
        Reason::Fault(Kind::InUse) => Refusal::InUse,
        Reason::Fault(Kind::Auth) => Refusal::Credentials,
        Reason::Fault(_) => Refusal::Maildrop(Fault::Temporary),
    }
}
