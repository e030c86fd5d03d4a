//! Limits how many costly password verifications run at the same time, and remembers passwords that were right a short
//! while ago, so that they need none.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::memory::{self, Memory};
use super::name::UserName;
use super::permits::{Busy, Permits};
use super::source::{Answer, Attempt};
use super::text::Account;

/// How long a login waits until it may verify its password. A longer wait would only make the queue longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most verifications at the same time on machines with many cores. Each verification may need much memory.
const AT_MOST: usize = 16;

/// How long a right password is remembered at least, and half of how long it is at the most. Mail programs log in every
/// few minutes.
const MEMORY: Duration = Duration::from_secs(30 * 60);

/// Verifies passwords against stored secrets.
#[derive(Debug)]
pub(super) struct Verifier {
    permits: Permits,
    recent: Memory<()>,
}

impl Verifier {
    pub(super) fn new() -> Self {
        Self { permits: Permits::new(cores(), PATIENCE), recent: Memory::new(MEMORY, memory::RIGHT) }
    }

    /// Verifies the password of an account. A right one is remembered if that was costly.
    pub(super) fn check(&self, attempt: &Attempt<'_>, account: &Account) -> Result<Answer, Busy> {
        let Attempt { user, password, .. } = *attempt;
        let accepted = || Ok(Answer::Accepted(Arc::clone(&account.mailbox)));
        if !account.secret.is_costly() {
            return if account.secret.matches(password) { accepted() } else { Ok(Answer::Refused { costly: false }) };
        }
        let mark = self.recent.mark(user, &account.field.0, password);
        let ticket = self.recent.ticket();
        if self.recent.recall(&mark).is_some() {
            return accepted();
        }
        if !self.run(|| account.secret.matches(password))? {
            return Ok(Answer::Refused { costly: true });
        }
        self.recent.remember(ticket, user, mark, ());
        accepted()
    }

    /// Forgets a user's passwords, or all passwords.
    pub(super) fn forget(&self, user: Option<&UserName>) {
        self.recent.forget(user);
    }

    /// Takes as long as the verification of a password of this account, if that is costly.
    pub(super) fn check_in_vain(&self, account: &Account, password: &[u8]) -> Result<(), Busy> {
        if account.secret.is_costly() {
            self.run(|| account.secret.matches(password))?;
        }
        Ok(())
    }

    /// Waits until it may run a costly verification, and runs it.
    pub(super) fn run<T>(&self, verify: impl FnOnce() -> T) -> Result<T, Busy> {
        self.permits.run(verify)
    }
}

/// The most verifications at the same time on this machine.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(AT_MOST)
}
