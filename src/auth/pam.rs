//! PAM as an account source: passwords that the processes of [`crate::pam`] verify.
//!
//! PAM cannot list its users and shows no stored secret, so this source only verifies passwords. Where a user's mail is
//! follows from the name, and with `--as-owner` from the system's account of that name.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::asked::AskRules;
use super::mailbox::Mailbox;
use super::name::UserName;
use super::permits::Busy;
use super::source::{Answer, Attempt, Found, Source, Totals};
use super::verifier::Verifier;
use crate::pam::{self, Question, Verdict, Way};
use crate::separate::{Door, Monitored, Unanswered, Workers};

/// A wrong password is refused after this time at the earliest. It is the delay that PAM's own modules ask for, which PAM
/// varies by a half.
const LEAST_REFUSAL: Duration = Duration::from_secs(2);

/// The longest time to which refusals are drawn out because an earlier one has taken that long.
const LONGEST_REFUSAL: Duration = Duration::from_secs(5);

/// PAM, asked for one of its services.
#[derive(Debug)]
pub(super) struct Pam {
    name: String,
    way: Way,
    rules: AskRules,
    /// Those that are asked, once they are known.
    workers: OnceLock<Workers>,
    /// The monitor that this server has started, until its lines are logged.
    monitored: Mutex<Option<Monitored>>,
    /// The longest time that a refusal has taken.
    longest_refusal: Mutex<Duration>,
    /// True since there was no answer.
    is_failing: AtomicBool,
}

impl Pam {
    /// A source of this name.
    pub(super) fn new(name: String, way: Way, rules: AskRules) -> Self {
        Self {
            name,
            way,
            rules,
            workers: OnceLock::new(),
            monitored: Mutex::default(),
            longest_refusal: Mutex::new(LEAST_REFUSAL),
            is_failing: AtomicBool::new(false),
        }
    }

    fn workers(&self) -> Option<&Workers> {
        match &self.way {
            Way::Socket(path) => {
                Some(self.workers.get_or_init(|| Workers::new(Door::Path(path.clone()), self.rules.timeout)))
            }
            Way::Program { .. } => self.workers.get(),
        }
    }

    fn judged(&self, answer: &pam::Answer, took: Duration) -> Answer {
        if matches!(answer.verdict, Verdict::Refused | Verdict::Unknown) {
            let mut longest = self.longest_refusal.lock();
            *longest = took.min(LONGEST_REFUSAL).max(*longest);
        }
        if answer.verdict == Verdict::Unavailable {
            self.fails(&answer.why);
        } else if self.is_failing.swap(false, Ordering::Relaxed) {
            log::info!("{}: passwords are verified again", self.name);
        }
        match answer.verdict {
            Verdict::Accepted => Answer::Accepted(Arc::new(Mailbox::default())),
            Verdict::Refused => Answer::Refused { costly: false },
            Verdict::Closed => Answer::Closed,
            Verdict::Unknown => Answer::Unknown,
            Verdict::Unavailable => Answer::Unavailable,
        }
    }

    /// Logs why no password can be verified, unless that is known already.
    fn fails(&self, why: &str) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            log::error!("{}: passwords cannot be verified: {}", self.name, why.escape_debug());
        }
    }
}

/// Logs what PAM's modules say.
fn log_messages(user: &UserName, answer: &pam::Answer) {
    for message in &answer.messages {
        log::info!("PAM tells user {:?}: {message:?}", user.as_str());
    }
    if answer.verdict == Verdict::Closed {
        log::info!("PAM does not open the account of user {:?}: {}", user.as_str(), answer.why.escape_debug());
    }
}

impl Source for Pam {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }

    fn prepare(&self) -> io::Result<()> {
        let Way::Program { program, service } = &self.way else { return Ok(()) };
        let AskRules { timeout, at_once, .. } = self.rules;
        let started = pam::start(program, service, at_once, timeout);
        let (workers, monitored) = started.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: cannot start {}: {error}", self.name, program.display()))
        })?;
        *self.monitored.lock() = Some(monitored);
        self.workers.set(workers).map_err(|_| io::Error::other("the processes of PAM run already"))
    }

    fn start(&self) {
        if let Some(monitored) = self.monitored.lock().take()
            && let Err(error) = monitored.log()
        {
            log::error!("cannot start a thread for what PAM's processes say: {error}");
        }
    }

    fn tells_names(&self) -> bool {
        false
    }

    fn find(&self, _: &UserName) -> Found {
        Found::Unknown
    }

    fn verify(&self, attempt: &Attempt<'_>, _: &Verifier) -> Result<Answer, Busy> {
        let Attempt { user, password, address } = attempt;
        let question = Question {
            user: user.to_string(),
            password: password.to_vec(),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
        };
        let Some(workers) = self.workers() else {
            self.fails("its processes have not been started");
            return Ok(Answer::Unavailable);
        };
        let begun = Instant::now();
        match workers.ask(question.encode(), pam::Answer::decode) {
            Ok(answer) => {
                log_messages(user, &answer);
                Ok(self.judged(&answer, begun.elapsed()))
            }
            // The password is longer than any that PAM takes.
            Err(Unanswered::TooLong) => Ok(Answer::Refused { costly: false }),
            Err(Unanswered::Busy) => Err(Busy),
            Err(unanswered) => {
                self.fails(&unanswered.to_string());
                Ok(Answer::Unavailable)
            }
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            some: true,
            some_unreadable: true,
            some_without_scram: true,
            least_refusal: *self.longest_refusal.lock(),
            ..Totals::default()
        }
    }

    fn names(&self) -> Vec<UserName> {
        Vec::new()
    }
}
