//! What an account source is: a place that knows accounts, such as the users file.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::mailbox::Mailbox;
use super::name::UserName;
use super::outcome::Unchanged;
use super::own_expiry::OwnExpiry;
use super::permits::Busy;
use super::text::Account;
use super::verifier::Verifier;

/// A client's attempt to log in with a password.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    /// The user whom the client means.
    pub(super) user: &'a UserName,
    /// The password, which is not empty.
    pub(super) password: &'a [u8],
    /// The client's address, if it has one.
    pub(super) address: Option<IpAddr>,
}

/// Does not show the password.
impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("user", &self.user).field("address", &self.address).finish_non_exhaustive()
    }
}

/// A place that knows accounts. [`super::Users`] asks its sources in order; the first one that knows a name decides. For
/// one login it asks each source once at the most.
///
/// A source of stored secrets (a file, a database) implements [`Source::find`] and leaves [`Source::verify`] as it is:
/// that limits costly verifications and remembers right passwords. A source that verifies passwords itself and shows no
/// secret (a program, PAM) implements [`Source::verify`]; it makes [`Totals::some_unreadable`] and
/// [`Totals::some_without_scram`] true, so that the mechanisms that need a secret are not announced, and its
/// [`Source::find`] answers [`Found::Unknown`].
///
/// A source is asked by many threads at a time. It does not wait for longer than a client would; when it cannot answer in
/// time, it says that it is unavailable. It logs the cause itself, once and not at each login.
pub(super) trait Source: fmt::Debug + Send + Sync {
    /// What the log and the admin call it: its kind, and which one of that kind it is.
    fn name(&self) -> Cow<'_, str>;

    /// Asks a source that is elsewhere whether it can be used, once the server has its final rights. Returns what the log
    /// shall tell, such as that it cannot be asked at present.
    ///
    /// # Errors
    /// What is wrong, if it could never answer by its settings.
    fn check(&self) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    /// Does what takes rights that only a server which starts has. It is called once, before the server gives them up, and
    /// not by programs that only look at accounts.
    ///
    /// # Errors
    /// If the source will never work.
    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    /// Starts the threads that the source needs. It is called once, when the server has given up its rights.
    fn start(&self) {}

    /// Returns false if the source says nothing of a name without a password. [`Source::find`] then finds none of its
    /// accounts.
    fn tells_names(&self) -> bool {
        true
    }

    /// Looks an account up, with its stored secret. APOP and SCRAM need it, and so does the server to find the maildrop of
    /// a user who has not logged in.
    fn find(&self, user: &UserName) -> Found;

    /// Verifies a password.
    ///
    /// # Errors
    /// When too many passwords are being verified.
    fn verify(&self, attempt: &Attempt<'_>, verifier: &Verifier) -> Result<Answer, Busy> {
        self.find(attempt.user).verify(attempt, verifier)
    }

    /// A client has logged in with an account of this source, be it by a remembered password. The source does not keep the
    /// client waiting.
    fn logged_in(&self, _attempt: &Attempt<'_>) {}

    /// Takes as long as [`Source::verify`] does for a name that the source does not know. This is called when an earlier
    /// source has refused the password.
    fn verify_in_vain(&self, attempt: &Attempt<'_>) {
        drop(self.find(attempt.user));
    }

    /// What is true of all accounts together. This is asked at each connection and each failed login, so a source that has
    /// its accounts elsewhere keeps the answer.
    fn totals(&self) -> Totals;

    /// The names of all accounts, in any order. A source that cannot list them has none here.
    fn names(&self) -> Vec<UserName>;

    /// Forgets what is remembered of a user's passwords, or of all passwords.
    fn forget(&self, _user: Option<&UserName>) {}

    /// The number of the wrong line that an unknown user has, in a source that consists of lines.
    fn wrong_line(&self, _user: &UserName) -> Option<usize> {
        None
    }

    /// Adds an account.
    ///
    /// # Errors
    /// [`Unchanged::ReadOnly`], unless the source can be written.
    fn add(&self, _user: &UserName, _password: &[u8]) -> Result<(), Unchanged> {
        Err(Unchanged::ReadOnly)
    }

    /// Deletes an account.
    ///
    /// # Errors
    /// As of [`Source::add`].
    fn remove(&self, _user: &UserName) -> Result<(), Unchanged> {
        Err(Unchanged::ReadOnly)
    }
}

/// What a source says to a name.
#[derive(Debug, Clone, Default)]
pub(super) enum Found {
    /// It has this account.
    Account(Arc<Account>),
    /// It has no such account, so the next source is asked.
    #[default]
    Unknown,
    /// It cannot be asked at present. No further source is asked: one of them might have another account of this name.
    Unavailable,
}

impl Found {
    /// Verifies a password against the account's secret.
    ///
    /// # Errors
    /// When too many passwords are being verified.
    pub(super) fn verify(self, attempt: &Attempt<'_>, verifier: &Verifier) -> Result<Answer, Busy> {
        match self {
            Self::Account(account) => verifier.check(attempt, &account),
            Self::Unknown => Ok(Answer::Unknown),
            Self::Unavailable => Ok(Answer::Unavailable),
        }
    }

    /// The answer to a name without a password: one that is known is accepted.
    pub(super) fn without_password(self) -> Answer {
        match self {
            Self::Account(account) => Answer::Accepted(Arc::clone(&account.mailbox)),
            Self::Unknown => Answer::Unknown,
            Self::Unavailable => Answer::Unavailable,
        }
    }
}

/// What a source says to a name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The password is right, and this is where the user's mail is.
    Accepted(Arc<Mailbox>),
    /// The password is wrong.
    Refused {
        /// True if a costly verification has told so. After a cheap one, and for an unknown name, [`super::Users`] runs a
        /// costly verification whose result does not matter, so that the time does not tell who exists.
        costly: bool,
    },
    /// The password is right, but the account may not be used at present.
    Closed,
    /// As [`Found::Unknown`].
    Unknown,
    /// The name is unknown or the password is wrong, and the source does not tell which. The next source is asked.
    NotAccepted,
    /// As [`Found::Unavailable`]. This is no failed login of the client, and nothing is remembered of it.
    Unavailable,
}

impl Answer {
    /// Returns true if the source certainly knows the name.
    pub(super) fn is_of_known_user(&self) -> bool {
        matches!(self, Self::Accepted(_) | Self::Refused { .. } | Self::Closed)
    }
}

/// What is true of all accounts of a source together.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    /// True if there are accounts.
    pub(super) some: bool,
    /// An account whose password takes the longest to verify.
    pub(super) costliest: Option<Arc<Account>>,
    /// True if an account has its password stored as it is.
    pub(super) some_readable: bool,
    /// True if an account's password cannot be read, so that APOP is impossible.
    pub(super) some_unreadable: bool,
    /// True if an account cannot log in by SCRAM.
    pub(super) some_without_scram: bool,
    /// The iterations of the first stored SCRAM keys, if there are any.
    pub(super) scram_iterations: Option<u32>,
    /// The rules for mail that expires that accounts have of their own.
    pub(super) expiries: BTreeSet<OwnExpiry>,
    /// A login that is refused takes at least this time, whichever source has refused it. It is for a source that takes
    /// different times for known and unknown names.
    pub(super) least_refusal: Duration,
}

impl Totals {
    /// What is true of these accounts and the `others` of the next source.
    pub(super) fn with(self, others: Self) -> Self {
        let cost = |account: &Arc<Account>| account.secret.cost();
        Self {
            some: self.some || others.some,
            costliest: [self.costliest, others.costliest].into_iter().flatten().max_by_key(cost),
            some_readable: self.some_readable || others.some_readable,
            some_unreadable: self.some_unreadable || others.some_unreadable,
            some_without_scram: self.some_without_scram || others.some_without_scram,
            scram_iterations: self.scram_iterations.or(others.scram_iterations),
            expiries: self.expiries.into_iter().chain(others.expiries).collect(),
            least_refusal: self.least_refusal.max(others.least_refusal),
        }
    }
}

/// A user whose credentials are right, and what the account's source says about the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: UserName,
    /// Where the user's mail is, and whose it is.
    pub mailbox: Arc<Mailbox>,
}
