//! A source that is another program or another machine: how many logins ask it at a time.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::name::UserName;
use super::outcome::Unchanged;
use super::permits::{Busy, Permits};
use super::source::{Answer, Attempt, Found, Source, Totals};
use super::verifier::Verifier;

/// How the server asks a source that is another program or another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskRules {
    /// How long an answer may take. The source itself keeps to it.
    pub timeout: Duration,
    /// How many logins may ask at a time. The others wait, no longer than `timeout`.
    pub at_once: usize,
    /// How long a right password is remembered; zero for not at all.
    pub cache: Duration,
    /// How much longer a remembered password counts while the source is unavailable.
    pub grace: Duration,
}

/// A source that is asked by rules.
#[derive(Debug)]
pub(super) struct Asked {
    source: Box<dyn Source>,
    permits: Permits,
}

impl Asked {
    pub(super) fn new(source: impl Source + 'static, rules: AskRules) -> Arc<Self> {
        let permits = Permits::new(rules.at_once, rules.timeout);
        Arc::new(Self { source: Box::new(source), permits })
    }
}

impl Source for Asked {
    fn name(&self) -> Cow<'_, str> {
        self.source.name()
    }

    fn check(&self) -> Result<Vec<String>, String> {
        self.source.check()
    }

    fn prepare(&self) -> io::Result<()> {
        self.source.prepare()
    }

    fn start(&self) {
        self.source.start();
    }

    fn find(&self, user: &UserName) -> Found {
        self.permits.run(|| self.source.find(user)).unwrap_or(Found::Unavailable)
    }

    fn verify(&self, attempt: &Attempt<'_>, verifier: &Verifier) -> Result<Answer, Busy> {
        self.permits.run(|| self.source.verify(attempt, verifier)).unwrap_or(Ok(Answer::Unavailable))
    }

    fn logged_in(&self, attempt: &Attempt<'_>) {
        self.source.logged_in(attempt);
    }

    fn verify_in_vain(&self, attempt: &Attempt<'_>) {
        let _ = self.permits.run(|| self.source.verify_in_vain(attempt));
    }

    fn totals(&self) -> Totals {
        self.source.totals()
    }

    fn names(&self) -> Vec<UserName> {
        self.source.names()
    }

    fn wrong_line(&self, user: &UserName) -> Option<usize> {
        self.source.wrong_line(user)
    }

    fn add(&self, user: &UserName, password: &[u8]) -> Result<(), Unchanged> {
        self.source.add(user, password)
    }

    fn remove(&self, user: &UserName) -> Result<(), Unchanged> {
        self.source.remove(user)
    }
}
