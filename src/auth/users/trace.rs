//! What each account source says to a name and a password, for an operator who wants to know why a login fails.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Denied, Users};
use crate::auth::outcome::Wrong;
use crate::auth::permits::Busy;
use crate::auth::source::{Answer, Attempt, Login, Source};
use crate::auth::sources::Verdict;

/// What the sources have said to a name and a password, or to a name, and what follows from it.
#[derive(Debug)]
pub struct Trace {
    /// In the order in which they were asked. The last one has decided, if one has.
    pub said: Vec<Said>,
    /// The login, or why it is refused. If no password was given, a name that a source knows is enough for a login.
    pub result: Result<Login, Denied>,
}

/// What one source has said.
#[derive(Debug)]
pub struct Said {
    /// The source, as the log calls it.
    pub source: String,
    /// How long the answer took.
    pub took: Duration,
    /// `None` if it says nothing of a name without a password.
    answer: Option<Answer>,
    /// The user's line in a users file, if it is wrong.
    line: Option<usize>,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.answer, self.line) {
            (None, _) => f.write_str("tells nothing without a password"),
            (Some(Answer::Accepted(_)), _) => f.write_str("accepted"),
            (Some(Answer::Refused { .. }), _) => Wrong::Password.fmt(f),
            (Some(Answer::Closed), _) => Wrong::Closed.fmt(f),
            (Some(Answer::Unknown), Some(line)) => write!(f, "line {line} cannot be used"),
            (Some(Answer::Unknown), None) => Wrong::Name.fmt(f),
            (Some(Answer::NotAccepted), _) => Wrong::NameOrPassword.fmt(f),
            (Some(Answer::Unavailable), _) => f.write_str("cannot be asked at present"),
        }
    }
}

impl Users {
    /// Asks the sources in order as [`Users::authenticate`] does. It is no login for the sources, and a wrong password takes no
    /// longer than it has to. An empty password asks only whether they know the name. If the name cannot be a user's, no source
    /// is asked.
    #[must_use]
    pub fn trace(&self, name: &[u8], password: &[u8], address: Option<IpAddr>) -> Trace {
        let mut said = Vec::new();
        let Some(user) = self.names.read().apply(name) else {
            return Trace { said, result: Err(Denied::Credentials(Wrong::Name)) };
        };
        let attempt = Attempt { user: &user, password, address };
        let asked = self.sources.until(|source| {
            let one = self.ask(source, &attempt)?;
            let is_decided = !matches!(one.answer, None | Some(Answer::Unknown | Answer::NotAccepted));
            said.push(one);
            Ok::<_, Busy>(is_decided)
        });
        let result = match asked {
            Err(Busy) => Err(Denied::Busy),
            Ok(()) => judge(&said).login(user),
        };
        Trace { said, result }
    }

    fn ask(&self, source: &dyn Source, attempt: &Attempt<'_>) -> Result<Said, Busy> {
        let begun = Instant::now();
        let answer = match attempt.password {
            [] if !source.tells_names() => None,
            [] => Some(source.find(attempt.user).without_password()),
            _ => Some(source.verify(attempt, &self.verifier)?),
        };
        let took = begun.elapsed();
        Ok(Said { source: source.name().into_owned(), took, answer, line: source.wrong_line(attempt.user) })
    }
}

/// The verdict of a login to which the sources have said this.
fn judge(said: &[Said]) -> Verdict {
    let answer = said.last().and_then(|last| last.answer.clone()).unwrap_or(Answer::Unknown);
    let is_unclear = said.iter().any(|one| matches!(one.answer, None | Some(Answer::NotAccepted)));
    Verdict::new(answer, said.iter().find_map(|one| one.line), is_unclear)
}
