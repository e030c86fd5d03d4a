//! Limits how many costly password verifications run at the same time, and remembers passwords that were right a short
//! while ago, so that they need none.

use std::collections::HashSet;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::permits::{Busy, Permits};
use super::scram::hmac;
use super::source::{Answer, Attempt};
use super::text::Account;

/// How long a login waits until it may verify its password. A longer wait would only make the queue longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most verifications at the same time on machines with many cores. Each verification may need much memory.
const AT_MOST: usize = 16;

/// The size and the age at which a generation of remembered passwords is replaced. There are two generations, so a
/// password is remembered for once or twice this time. Mail programs log in every few minutes.
const REMEMBERED: usize = 10_000;
const MEMORY: Duration = Duration::from_secs(30 * 60);

/// Verifies passwords against stored secrets.
#[derive(Debug)]
pub(super) struct Verifier {
    permits: Permits,
    recent: Recent,
}

impl Verifier {
    pub(super) fn new() -> Self {
        Self { permits: Permits::new(cores(), PATIENCE), recent: Recent::new(super::random()) }
    }

    /// Verifies the password of an account. A right one is remembered if that was costly.
    pub(super) fn check(&self, attempt: &Attempt<'_>, account: &Account) -> Result<Answer, Busy> {
        let Attempt { user, password, .. } = *attempt;
        let accepted = || Ok(Answer::Accepted(Arc::clone(&account.mailbox)));
        if !account.secret.is_costly() {
            return if account.secret.matches(password) { accepted() } else { Ok(Answer::Refused { costly: false }) };
        }
        let mark = self.recent.mark(user.as_str(), &account.field.0, password);
        if self.recent.knows(&mark) {
            return accepted();
        }
        if !self.run(|| account.secret.matches(password))? {
            return Ok(Answer::Refused { costly: true });
        }
        self.recent.remember(mark);
        accepted()
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

/// Passwords that were right a short while ago. Only hashes with a key of this process are kept.
struct Recent {
    key: [u8; 32],
    remembered: Mutex<Remembered>,
}

struct Remembered {
    new: HashSet<[u8; 32]>,
    old: HashSet<[u8; 32]>,
    /// When the newer generation was begun.
    since: Instant,
}

impl Recent {
    fn new(key: [u8; 32]) -> Self {
        let remembered = Remembered { new: HashSet::new(), old: HashSet::new(), since: Instant::now() };
        Self { key, remembered: Mutex::new(remembered) }
    }

    /// Returns the hash under which a right password is remembered. The stored field goes into it, so the password is
    /// forgotten when the field changes.
    fn mark(&self, name: &str, field: &[u8], password: &[u8]) -> [u8; 32] {
        let length = |octets: &[u8]| octets.len().to_le_bytes();
        let parts = [name.as_bytes(), field, password];
        hmac(&self.key, &parts.map(|part| [&length(part)[..], part].concat()).concat())
    }

    fn knows(&self, mark: &[u8; 32]) -> bool {
        let mut remembered = self.remembered.lock();
        remembered.forget(Instant::now());
        remembered.new.contains(mark) || remembered.old.contains(mark)
    }

    fn remember(&self, mark: [u8; 32]) {
        let mut remembered = self.remembered.lock();
        remembered.forget(Instant::now());
        remembered.new.insert(mark);
    }
}

impl Remembered {
    /// Forgets the older generation when the newer one is large or old enough.
    fn forget(&mut self, now: Instant) {
        let age = now.duration_since(self.since);
        if age >= MEMORY || self.new.len() >= REMEMBERED {
            self.old = if age >= 2 * MEMORY { HashSet::new() } else { mem::take(&mut self.new) };
            self.new.clear();
            self.since = now;
        }
    }
}

/// Does not show the key.
impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_remembered_with_its_name_and_field() {
        let recent = Recent::new([7; 32]);
        recent.remember(recent.mark("ana", b"field", b"password"));
        assert!(recent.knows(&recent.mark("ana", b"field", b"password")));
        for (name, field, password) in
            [("an", "afield", "password"), ("ana", "fieldp", "assword"), ("bob", "field", "password")]
        {
            assert!(!recent.knows(&recent.mark(name, field.as_bytes(), password.as_bytes())));
        }
        assert_ne!(recent.mark("a", b"b", b"c"), Recent::new([8; 32]).mark("a", b"b", b"c"));
    }

    #[test]
    fn remembered_passwords_are_bounded_in_number_and_time() {
        let recent = Recent::new([7; 32]);
        let mark = |n: usize| recent.mark("ana", b"", &n.to_le_bytes());
        (0..5 * REMEMBERED / 2).for_each(|n| recent.remember(mark(n)));
        let mut remembered = recent.remembered.lock();
        assert_eq!((remembered.new.len(), remembered.old.len()), (REMEMBERED / 2, REMEMBERED));
        let since = remembered.since;
        remembered.forget(since + MEMORY);
        assert_eq!((remembered.new.len(), remembered.old.len()), (0, REMEMBERED / 2));
        remembered.new.insert([0; 32]);
        remembered.forget(since + 3 * MEMORY);
        assert_eq!((remembered.new.len(), remembered.old.len()), (0, 0));
    }
}
