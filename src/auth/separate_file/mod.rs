//! A users file that the server itself does not read: a process of its own does ([`crate::separate`]), which verifies the
//! passwords, too. It keeps the rights of the user who starts the server, so the file can be one that only root reads.
//!
//! - [`SeparateFile`] is the account source, in the server. It learns no hash.
//! - `process` is the other side: it answers from a [`super::UsersFile`].
//! - `message` has what they say to each other.

mod message;
mod process;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{Access, access};

use super::asked::AskRules;
use super::hidden::Hidden;
use super::mailbox::Mailbox;
use super::name::UserName;
use super::outage::Outage;
use super::own_expiry::OwnExpiry;
use super::permits::Busy;
use super::secret::Secret;
use super::source::{Answer as Said, Attempt, Found, Source, Totals};
use super::text::Account;
use super::verifier::Verifier;
use crate::separate::{Monitored, Unanswered, Workers};
use message::{Answer, Question};
pub use process::read_users_file_for_server;

/// How old the totals may be.
const FRESH: Duration = Duration::from_secs(5);

/// A users file, asked through the process that reads it.
#[derive(Debug)]
pub(super) struct SeparateFile {
    path: PathBuf,
    rules: AskRules,
    workers: OnceLock<Workers>,
    /// The monitor, until its lines are logged.
    monitored: Mutex<Option<Monitored>>,
    outage: Outage,
    expiries: Mutex<(BTreeSet<OwnExpiry>, Option<Instant>)>,
    /// The lines of names that have only a wrong line, as far as they were asked for.
    wrong_lines: Mutex<BTreeMap<UserName, usize>>,
}

impl SeparateFile {
    /// A source for this file. Its path is absolute.
    pub(super) fn new(path: PathBuf, rules: AskRules) -> Self {
        Self {
            path,
            rules,
            workers: OnceLock::new(),
            monitored: Mutex::default(),
            outage: Outage::default(),
            expiries: Mutex::default(),
            wrong_lines: Mutex::default(),
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Asks the process. `None` if the file cannot be asked at present, which is logged.
    fn ask(&self, question: &Question) -> Option<Answer> {
        self.try_to_ask(question).inspect_err(|why| self.outage.begins(&self.name(), why)).ok()
    }

    fn try_to_ask(&self, question: &Question) -> Result<Answer, String> {
        let workers = self.workers().map_err(|error| format!("its process cannot be started: {error}"))?;
        let answer = match workers.ask(question.encode(), Answer::decode) {
            Ok(Answer::Unavailable(why)) => return Err(why),
            Ok(answer) => answer,
            Err(Unanswered::Busy) => Answer::Busy,
            // No password is as long as that.
            Err(Unanswered::TooLong) => Answer::Refused,
            Err(unanswered) => return Err(unanswered.to_string()),
        };
        self.outage.ends(&self.name());
        Ok(answer)
    }

    /// The way to the process. A server has started it before it gave up its rights; other programs start it when they ask.
    fn workers(&self) -> io::Result<&Workers> {
        if self.workers.get().is_none() {
            self.prepare()?;
            self.start();
        }
        self.workers.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn note_line(&self, user: &UserName, answer: &Answer) {
        let mut lines = self.wrong_lines.lock();
        match answer {
            Answer::Unknown(Some(line)) => drop(lines.insert(user.clone(), *line)),
            _ => drop(lines.remove(user)),
        }
    }

    /// Asks for the totals, unless that was done a moment ago.
    fn refresh_totals(&self) -> Result<(), String> {
        let is_fresh = |at: &Instant| at.elapsed() < FRESH;
        if self.expiries.lock().1.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        if let Answer::Totals(expiries) = self.try_to_ask(&Question::Totals)? {
            *self.expiries.lock() = (expiries.into_iter().collect(), Some(Instant::now()));
        }
        Ok(())
    }
}

impl Source for SeparateFile {
    fn name(&self) -> Cow<'_, str> {
        format!("users file {}, read by a process of its own", self.path().display()).into()
    }

    fn check(&self) -> Result<Vec<String>, String> {
        self.start();
        self.refresh_totals().map_err(|why| format!("{} cannot be used: {why}", self.path().display()))?;
        let warning = || {
            format!(
                "the server's user can read {} itself: make it a file of root's with mode 600, and see --run-as",
                self.path().display()
            )
        };
        Ok(access(self.path(), Access::READ_OK).is_ok().then(warning).into_iter().collect())
    }

    fn prepare(&self) -> io::Result<()> {
        let (workers, monitored) = process::start(self.path(), self.rules.at_once, self.rules.timeout)?;
        *self.monitored.lock() = Some(monitored);
        self.workers.set(workers).map_err(|_| io::Error::other("the process of the users file runs already"))
    }

    fn start(&self) {
        if let Some(monitored) = self.monitored.lock().take()
            && let Err(error) = monitored.log()
        {
            log::error!("cannot start a thread for what the process of the users file says: {error}");
        }
    }

    /// The account has no secret here.
    fn find(&self, user: &UserName) -> Found {
        let Some(answer) = self.ask(&Question::Find(user.clone())) else { return Found::Unavailable };
        self.note_line(user, &answer);
        match answer {
            Answer::Accepted(mailbox) => Found::Account(Arc::new(account(mailbox))),
            Answer::Unknown(_) => Found::Unknown,
            _ => Found::Unavailable,
        }
    }

    fn verify(&self, attempt: &Attempt<'_>, _: &Verifier) -> Result<Said, Busy> {
        let Attempt { user, password, .. } = attempt;
        let Some(answer) = self.ask(&Question::Verify((*user).clone(), password.to_vec())) else {
            return Ok(Said::Unavailable);
        };
        self.note_line(user, &answer);
        let _ = self.refresh_totals(); // an outage is logged at the next question
        match answer {
            Answer::Accepted(mailbox) => Ok(Said::Accepted(Arc::new(mailbox))),
            Answer::Refused => Ok(Said::Refused { costly: false }),
            Answer::Unknown(_) => Ok(Said::Unknown),
            Answer::Busy => Err(Busy),
            _ => Ok(Said::Unavailable),
        }
    }

    fn verify_in_vain(&self, attempt: &Attempt<'_>) {
        let Attempt { user, password, .. } = attempt;
        drop(self.ask(&Question::Verify((*user).clone(), password.to_vec())));
    }

    fn totals(&self) -> Totals {
        Totals {
            some: true,
            some_unreadable: true,
            some_without_scram: true,
            expiries: self.expiries.lock().0.clone(),
            ..Totals::default()
        }
    }

    fn names(&self) -> Vec<UserName> {
        let mut all = Vec::new();
        while let Some(Answer::Names(names)) = self.ask(&Question::Names(all.last().cloned())) {
            if names.is_empty() {
                break;
            }
            all.extend(names);
        }
        all
    }

    fn wrong_line(&self, user: &UserName) -> Option<usize> {
        self.wrong_lines.lock().get(user).copied()
    }
}

/// An account whose secret is not known here.
fn account(mailbox: Mailbox) -> Account {
    Account { field: Hidden(Vec::new()), secret: Secret::Elsewhere, mailbox: Arc::new(mailbox) }
}
