//! A source that is another program or another machine: bounds how many logins ask it at a time, and remembers its answers.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::mailbox::Mailbox;
use super::memory::{self, Mark, Memory};
use super::name::UserName;
use super::outcome::Unchanged;
use super::permits::{Busy, Permits};
use super::source::{Answer, Attempt, Found, Source, Totals};
use super::verifier::Verifier;

/// How long a wrong password is remembered. Mail programs repeat it at once.
const WRONG: Duration = Duration::from_secs(3);

/// While a source cannot answer, it is asked about remembered passwords only once in this time. So one of their users waits
/// for it, and all others are let in at once.
const PAUSE: Duration = Duration::from_secs(5);

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
    rules: AskRules,
    permits: Permits,
    /// Each right password with its encoded mailbox, which takes one small block of memory instead of several.
    right: Memory<Box<[u8]>>,
    wrong: Memory<Answer>,
    /// Set while the source cannot answer.
    failure: Mutex<Option<Failure>>,
}

/// A source that could not answer when it was asked last.
#[derive(Debug)]
struct Failure {
    /// The time of the latest failure.
    at: Instant,
    /// When a login with a remembered password asked it last; at first, the time of the first failure.
    tried: Instant,
}

impl Asked {
    pub(super) fn new(source: impl Source + 'static, rules: AskRules) -> Arc<Self> {
        let permits = Permits::new(rules.at_once, rules.timeout);
        let right = Memory::new((rules.cache + rules.grace).max(Duration::from_secs(1)), memory::RIGHT);
        let (wrong, failure) = (Memory::new(WRONG, memory::WRONG), Mutex::default());
        Arc::new(Self { source: Box::new(source), rules, permits, right, wrong, failure })
    }

    /// Returns the mailbox of a user whose password was right at most this long ago.
    fn remembered(&self, mark: &Mark, most: Duration) -> Option<Answer> {
        let (mailbox, _) = self.right.recall(mark).filter(|(_, age)| *age < most)?;
        Mailbox::decode(&mailbox).map(|mailbox| Answer::Accepted(Arc::new(mailbox)))
    }

    /// Returns true if a remembered password counts without asking the source, because it cannot answer. Once in
    /// [`PAUSE`] it is asked nevertheless.
    fn is_paused(&self) -> bool {
        self.failure.lock().as_mut().is_some_and(|failure| {
            let is_paused = failure.tried.elapsed() < PAUSE;
            if !is_paused {
                failure.tried = Instant::now();
            }
            is_paused
        })
    }

    fn ask(&self, attempt: &Attempt<'_>, verifier: &Verifier) -> Result<Answer, Busy> {
        let began = Instant::now();
        self.permits.run(|| self.ask_unless_failed(began, attempt, verifier)).unwrap_or_else(|Busy| {
            // It may still answer the logins that it is being asked for.
            self.fails(began);
            Ok(Answer::Unavailable)
        })
    }

    /// Asks the source, unless it has failed to answer another login since this time. So a login does not wait for that one
    /// and then as long again for its own answer.
    fn ask_unless_failed(&self, since: Instant, attempt: &Attempt<'_>, verifier: &Verifier) -> Result<Answer, Busy> {
        if self.failure.lock().as_ref().is_some_and(|failure| failure.at >= since) {
            return Ok(Answer::Unavailable);
        }
        let answer = self.source.verify(attempt, verifier);
        if matches!(answer, Ok(Answer::Unavailable)) {
            self.fails(Instant::now());
        } else {
            *self.failure.lock() = None;
        }
        answer
    }

    fn fails(&self, at: Instant) {
        let mut failure = self.failure.lock();
        let failure = failure.get_or_insert_with(|| Failure { at, tried: Instant::now() });
        failure.at = failure.at.max(at);
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

    fn tells_names(&self) -> bool {
        self.source.tells_names()
    }

    fn find(&self, user: &UserName) -> Found {
        self.permits.run(|| self.source.find(user)).unwrap_or(Found::Unavailable)
    }

    fn verify(&self, attempt: &Attempt<'_>, verifier: &Verifier) -> Result<Answer, Busy> {
        let AskRules { cache, grace, .. } = self.rules;
        let mark = self.right.mark(attempt.user, b"", attempt.password);
        if let Some(accepted) = self.remembered(&mark, cache) {
            return Ok(accepted);
        }
        let covered = || self.remembered(&mark, cache + grace).filter(|_| !grace.is_zero());
        if let Some(accepted) = covered()
            && self.is_paused()
        {
            return Ok(accepted);
        }
        let mark_of_wrong = self.wrong.mark(attempt.user, b"", attempt.password);
        if let Some((answer, _)) = self.wrong.recall(&mark_of_wrong).filter(|(_, age)| *age < WRONG) {
            return Ok(answer);
        }
        let (ticket, ticket_of_wrong) = (self.right.ticket(), self.wrong.ticket());
        let answer = self.ask(attempt, verifier)?;
        match &answer {
            Answer::Accepted(mailbox) => {
                // A mailbox that is too long to be encoded is asked for at each login.
                if let Some(mailbox) = mailbox.encode() {
                    self.right.remember(ticket, attempt.user, mark, mailbox.into());
                }
            }
            Answer::Unavailable => return Ok(covered().unwrap_or(answer)),
            Answer::Refused { .. } | Answer::Unknown | Answer::NotAccepted | Answer::Closed => {
                self.right.forget_mark(&mark);
                // The next login with it is refused without a costly verification.
                let is_refused = matches!(answer, Answer::Refused { .. });
                let answer = if is_refused { Answer::Refused { costly: false } } else { answer.clone() };
                self.wrong.remember(ticket_of_wrong, attempt.user, mark_of_wrong, answer);
            }
        }
        Ok(answer)
    }

    fn logged_in(&self, attempt: &Attempt<'_>) {
        self.source.logged_in(attempt);
    }

    fn verify_in_vain(&self, attempt: &Attempt<'_>) {
        let mark = self.wrong.mark(attempt.user, b"in vain", attempt.password);
        if self.wrong.recall(&mark).is_some_and(|(_, age)| age < WRONG) {
            return;
        }
        let ticket = self.wrong.ticket();
        if self.permits.run(|| self.source.verify_in_vain(attempt)).is_ok() {
            self.wrong.remember(ticket, attempt.user, mark, Answer::Unknown);
        }
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

    fn forget(&self, user: Option<&UserName>) {
        self.right.forget(user);
        // The source may know the user by another name than the client.
        if let Some(user) = user {
            let is_named = |mailbox: &[u8]| Mailbox::decode(mailbox).is_some_and(|it| it.user.as_ref() == Some(user));
            self.right.forget_if(|mailbox| is_named(mailbox));
        }
        self.wrong.forget(user);
        self.source.forget(user);
    }
}

#[cfg(test)]
mod tests;
