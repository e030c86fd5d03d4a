//! The account sources in the order in which they are asked: the accounts that the server has of its own, then those that
//! the configuration names.

use std::convert::Infallible;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::asked::{AskRules, Asked};
use super::hidden::Hidden;
use super::mailbox::Mailbox;
use super::name::UserName;
use super::outcome::{Denied, Unchanged, Wrong};
use super::own::Own;
use super::pam::Pam;
use super::permits::Busy;
use super::program::Program;
use super::separate_file::SeparateFile;
use super::source::{Answer, Attempt, Found, Login, Source, Totals};
use super::sql::{Sql, SqlSettings};
use super::text::Account;
use super::users_file::UsersFile;
use super::verifier::Verifier;
use crate::pam::Way;
use crate::transform::Transform;

/// An account source that the configuration names.
#[derive(Debug, Clone)]
pub struct AccountSource {
    source: Arc<dyn Source>,
    /// The source itself if it is a users file.
    file: Option<UsersFile>,
    /// The text in the configuration that declares it, which may have a password in it.
    text: Hidden<String>,
    /// True if [`AccountSource::check`] asks it.
    can_be_checked: bool,
}

impl From<UsersFile> for AccountSource {
    fn from(file: UsersFile) -> Self {
        Self { source: Arc::new(file.clone()), file: Some(file), text: Hidden(String::new()), can_be_checked: false }
    }
}

impl AccountSource {
    /// PAM, reached in this way. A source of this name is asked by these rules.
    #[must_use]
    pub fn pam(name: String, way: Way, rules: AskRules) -> Self {
        Self::asked(Pam::new(name, way, rules), rules)
    }

    /// A source that is another program or another machine. It is asked by these rules.
    pub(super) fn asked(source: impl Source + 'static, rules: AskRules) -> Self {
        Self { source: Asked::new(source, rules), file: None, text: Hidden(String::new()), can_be_checked: false }
    }

    /// A database of accounts, which is asked by these rules.
    ///
    /// # Errors
    /// What is wrong in the settings. The database is not asked yet.
    pub fn sql(settings: SqlSettings, rules: AskRules) -> Result<Self, String> {
        Ok(Self { can_be_checked: true, ..Self::asked(Sql::new(settings, &rules)?, rules) })
    }

    /// A users file with this absolute path that a process of its own reads, which is asked by these rules.
    #[must_use]
    pub fn separate_file(path: PathBuf, rules: AskRules) -> Self {
        Self { can_be_checked: true, ..Self::asked(SeparateFile::new(path, rules), rules) }
    }

    /// A program with the interface of checkpassword, which is asked by these rules.
    #[must_use]
    pub fn program(program: Transform, rules: AskRules) -> Self {
        Self::asked(Program::new(program, rules.timeout), rules)
    }

    /// Notes the text in the configuration that declares the source. A reload that finds the same text keeps the source.
    #[must_use]
    pub fn declared_by(self, text: &str) -> Self {
        Self { text: Hidden(text.to_owned()), ..self }
    }

    /// Returns true if both are the same source.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source)
    }

    /// Returns true if this text has declared the source.
    pub(super) fn is_declared_by(&self, text: &str) -> bool {
        !text.is_empty() && self.text.0 == text
    }

    /// Returns true if the source knows all its accounts, as a users file does.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// Returns true if [`AccountSource::check`] finds out whether the source can be used: if it is a database or a file. PAM's
    /// processes are started by a server only, and a program tells nothing without a password.
    #[must_use]
    pub fn can_be_checked(&self) -> bool {
        self.can_be_checked
    }

    /// Does what takes rights that only a server which starts has.
    ///
    /// # Errors
    /// If the source will never work.
    pub fn prepare(&self) -> io::Result<()> {
        self.source.prepare()
    }

    /// Asks a source that is elsewhere whether it can be used. Returns warnings. This may start threads, so it comes after
    /// the server has given up its rights.
    ///
    /// # Errors
    /// What is wrong, if it could never answer by its settings.
    pub fn check(&self) -> Result<Vec<String>, String> {
        self.source.check()
    }

    /// What the log and the admin call the source.
    #[must_use]
    pub fn name(&self) -> String {
        self.source.name().into_owned()
    }
}

/// All sources.
#[derive(Debug)]
pub(super) struct Sources {
    /// The accounts of the command line.
    pub(super) own: Own,
    configured: RwLock<Arc<[AccountSource]>>,
}

/// The answer of all sources to a name and a password.
#[derive(Debug)]
pub(super) struct Verdict {
    /// That of the source that has decided, or [`Answer::Unknown`].
    pub(super) answer: Answer,
    /// What is wrong, if the credentials are.
    pub(super) wrong: Wrong,
}

impl Verdict {
    /// Judges by the answer of the source that has decided, the user's wrong line in a users file, and whether a source does
    /// not tell what is wrong.
    pub(super) fn new(answer: Answer, line: Option<usize>, is_unclear: bool) -> Self {
        let wrong = match wrong(answer.is_of_known_user(), line) {
            _ if answer == Answer::Closed => Wrong::Closed,
            Wrong::Name if is_unclear => Wrong::NameOrPassword,
            wrong => wrong,
        };
        Self { answer, wrong }
    }

    /// The login of a user whose name is `user` for the client.
    ///
    /// # Errors
    /// [`Denied`]
    pub(super) fn login(self, user: UserName) -> Result<Login, Denied> {
        match self.answer {
            Answer::Accepted(mailbox) => Ok(Login { user: mailbox.user.clone().unwrap_or(user), mailbox }),
            Answer::Unavailable => Err(Denied::Unavailable),
            _ => Err(Denied::Credentials(self.wrong)),
        }
    }
}

/// What is known of an account that a user may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// It exists, and this is where its mail is.
    Exists(Arc<Mailbox>),
    /// It may exist: a source tells nothing of it without its password.
    Untold,
    /// It may exist: the source that has to decide cannot be asked at present.
    Unavailable,
}

/// The answer of all sources to a name.
#[derive(Debug, Default)]
pub(super) struct LookUp {
    pub(super) found: Found,
    /// How many sources were asked.
    asked: usize,
    /// True if one of them tells nothing of a name.
    is_untold: bool,
}

impl LookUp {
    /// The account, if there is one.
    pub(super) fn account(&self) -> Option<&Arc<Account>> {
        match &self.found {
            Found::Account(account) => Some(account),
            Found::Unknown | Found::Unavailable => None,
        }
    }

    /// What is known of the account. Returns `None` if there certainly is no such account.
    pub(super) fn known(&self) -> Option<Known> {
        match &self.found {
            Found::Account(account) => Some(Known::Exists(Arc::clone(&account.mailbox))),
            Found::Unavailable => Some(Known::Unavailable),
            Found::Unknown => self.is_untold.then_some(Known::Untold),
        }
    }

    /// The same for a login.
    ///
    /// # Errors
    /// [`Denied::Unavailable`]
    pub(super) fn account_or_unavailable(&self) -> Result<Option<&Arc<Account>>, Denied> {
        match &self.found {
            Found::Unavailable => Err(Denied::Unavailable),
            _ => Ok(self.account()),
        }
    }
}

impl Sources {
    pub(super) fn new(configured: Vec<AccountSource>) -> Self {
        Self { own: Own::default(), configured: RwLock::new(configured.into()) }
    }

    /// Replaces the sources that the configuration names.
    pub(super) fn replace(&self, configured: Vec<AccountSource>) {
        *self.configured.write() = configured.into();
    }

    /// The sources that the configuration names.
    pub(super) fn configured(&self) -> Arc<[AccountSource]> {
        Arc::clone(&self.configured.read())
    }

    /// The users file with this path, if there is one among the sources.
    pub(super) fn file(&self, path: &Path) -> Option<UsersFile> {
        let configured = self.configured();
        configured.iter().filter_map(|source| source.file.clone()).find(|file| file.path() == path)
    }

    /// Asks the sources in order whether a password is right, until one knows the name. If that one refuses the password,
    /// the others are asked in vain, so that the time does not tell which source knows the name.
    pub(super) fn verify(&self, attempt: &Attempt<'_>, verifier: &Verifier) -> Result<Verdict, Busy> {
        let (mut answer, mut line, mut is_unclear) = (Answer::Unknown, None, false);
        self.until(|source| {
            match answer {
                Answer::Unknown | Answer::NotAccepted => answer = source.verify(attempt, verifier)?,
                _ => source.verify_in_vain(attempt),
            }
            line = line.or_else(|| source.wrong_line(attempt.user));
            if matches!(answer, Answer::Accepted(_)) {
                source.logged_in(attempt);
            }
            is_unclear |= answer == Answer::NotAccepted;
            Ok::<_, Busy>(matches!(answer, Answer::Accepted(_) | Answer::Unavailable))
        })?;
        Ok(Verdict::new(answer, line, is_unclear))
    }

    /// Refuses a login without a password.
    pub(super) fn refuse(&self, user: &UserName) -> Verdict {
        Verdict { answer: Answer::Unknown, wrong: self.explain(user, &self.look_up(user)) }
    }

    /// Looks an account up in the first source that knows it.
    pub(super) fn look_up(&self, user: &UserName) -> LookUp {
        let mut look_up = LookUp::default();
        let Ok(()) = self.until(|source| {
            look_up.found = source.find(user);
            look_up.asked += 1;
            look_up.is_untold |= !source.tells_names();
            Ok::<_, Infallible>(!matches!(look_up.found, Found::Unknown))
        });
        look_up
    }

    /// Says what is wrong with credentials whose name was looked up. The sources that were not asked for the name are asked
    /// now, in vain, so that the time does not tell which source knows it.
    pub(super) fn explain(&self, user: &UserName, look_up: &LookUp) -> Wrong {
        let (mut asked, mut line) = (0, None);
        self.for_each(|source| {
            asked += 1;
            if asked > look_up.asked {
                drop(source.find(user));
            }
            line = line.or_else(|| source.wrong_line(user));
        });
        wrong(look_up.account().is_some(), line)
    }

    /// Does what takes rights that only a server which starts has.
    pub(super) fn prepare(&self) -> io::Result<()> {
        self.configured().iter().try_for_each(AccountSource::prepare)
    }

    /// Starts the threads that sources need.
    pub(super) fn start(&self) {
        self.for_each(|source| source.start());
    }

    /// Adds an account to the first configured source that can be written. If no source is configured, the account lasts as
    /// long as the server.
    pub(super) fn add(&self, user: UserName, password: &[u8]) -> Result<(), Unchanged> {
        let configured = self.configured();
        if configured.is_empty() {
            return if self.own.add(user, password) { Ok(()) } else { Err(Unchanged::Exists) };
        }
        match self.look_up(&user).found {
            Found::Unknown => {}
            Found::Account(_) => return Err(Unchanged::Exists),
            Found::Unavailable => return Err(Unchanged::Source("one cannot be asked whether it has the name".into())),
        }
        first_written(&configured, |source| source.add(&user, password))
    }

    /// Deletes an account from the first configured source that can be written, and that of the command line. That there is
    /// no such account is said only if it is certain.
    pub(super) fn remove(&self, user: &UserName) -> Result<(), Unchanged> {
        let configured = self.configured();
        let removed = first_written(&configured, |source| source.remove(user));
        match removed {
            Err(Unchanged::File(_) | Unchanged::Source(_)) => removed,
            _ if self.own.remove(user) => Ok(()),
            Err(Unchanged::ReadOnly) if configured.is_empty() => Err(Unchanged::Missing),
            Err(Unchanged::Missing) if self.look_up(user).known().is_some() => Err(Unchanged::Elsewhere),
            _ => removed,
        }
    }

    /// Forgets what is remembered of a user's passwords, or of all passwords.
    pub(super) fn forget(&self, user: Option<&UserName>) {
        self.for_each(|source| source.forget(user));
    }

    /// The names of all users in order.
    pub(super) fn names(&self) -> Vec<UserName> {
        let mut names = Vec::new();
        self.for_each(|source| names.extend(source.names()));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What is true of the accounts of all sources together.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.for_each(|source| totals = mem::take(&mut totals).with(source.totals()));
        totals
    }

    fn for_each(&self, mut ask: impl FnMut(&dyn Source)) {
        let Ok(()) = self.until(|source| {
            ask(source);
            Ok::<_, Infallible>(false)
        });
    }

    /// Asks the sources in order until `ask` returns true or fails. No lock is held while a source is asked.
    pub(super) fn until<E>(&self, mut ask: impl FnMut(&dyn Source) -> Result<bool, E>) -> Result<(), E> {
        if ask(&self.own)? {
            return Ok(());
        }
        let configured = self.configured();
        for AccountSource { source, .. } in configured.iter() {
            if ask(&**source)? {
                break;
            }
        }
        Ok(())
    }
}

/// Changes the first source that can be written.
fn first_written(
    configured: &[AccountSource],
    mut change: impl FnMut(&dyn Source) -> Result<(), Unchanged>,
) -> Result<(), Unchanged> {
    let mut changes = configured.iter().map(|AccountSource { source, .. }| change(&**source));
    changes.find(|changed| !matches!(changed, Err(Unchanged::ReadOnly))).unwrap_or(Err(Unchanged::ReadOnly))
}

fn wrong(is_known: bool, line: Option<usize>) -> Wrong {
    match line {
        _ if is_known => Wrong::Password,
        Some(line) => Wrong::Line(line),
        None => Wrong::Name,
    }
}
