//! The processes that read the users file: the monitor, and the worker that it watches. Both are this executable, started
//! again with these first arguments.
//!
//! The worker has the right to read any file, if the server was started as root, and a connection to the server. It opens
//! no other files than those of the file's directory, no sockets, and looks into no other process.

use std::ffi::OsString;
use std::io::{self, Write};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Arc;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use rustix::thread::{CapabilitySet, set_no_new_privs};

use super::super::name::UserName;
use super::super::permits::Busy;
use super::super::source::{Answer as Said, Attempt, Found, Source};
use super::super::users_file::UsersFile;
use super::super::verifier::Verifier;
use super::message::{Answer, Question};
use crate::confine::{Landlock, Reach, system_calls};
use crate::separate::{self, Monitor, Monitored, Named, Work, Workers};
use crate::transform::OURSELVES;

/// The first arguments of the two processes. The others are the file, how many questions are answered at a time, and, for the
/// monitor, how many seconds an answer may take.
const MONITOR: &str = "users-file-monitor";
const WORKER: &str = "users-file-worker";

/// Starts the monitor of the process that reads this file. The processes keep the rights that this process has now.
///
/// # Errors
/// When it cannot be started.
pub(super) fn start(path: &Path, at_once: usize, limit: Duration) -> io::Result<(Workers, Monitored)> {
    let mut command = Command::new(OURSELVES);
    command.arg(MONITOR).arg(path).arg(at_once.to_string()).arg(limit.as_secs().max(1).to_string());
    let logins = format!("logins by the users file {}", path.display());
    separate::start(command, Named { prefix: "users file", logins }, limit)
}

/// If this process was started as one of the two, does its work. Returns `None` if it was not, and otherwise when the server
/// has gone.
#[must_use]
pub fn read_users_file_for_server(arguments: impl Iterator<Item = OsString>) -> Option<io::Result<()>> {
    let words: Vec<OsString> = arguments.skip(1).collect();
    let number = |word: &OsString| word.to_str()?.parse().ok();
    match &words[..] {
        [word, path, at_once, seconds] if word == MONITOR => {
            let worker = vec![OURSELVES.into(), WORKER.into(), path.clone(), at_once.clone()];
            let limit = Duration::from_secs(number(seconds)?);
            let keep = CapabilitySet::DAC_READ_SEARCH;
            Some(separate::watch(&Monitor { worker, count: 1, limit, keep }))
        }
        [word, path, at_once] if word == WORKER => Some(work(path.into(), usize::try_from(number(at_once)?).ok()?)),
        _ => None,
    }
}

fn work(path: PathBuf, threads: usize) -> io::Result<()> {
    static LOG: Lines = Lines;
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    // A thread that ended alone would leave its question without an answer, and the others fewer.
    panic::set_hook(Box::new(|panic| {
        log::error!("{panic}");
        process::exit(101);
    }));
    if let Err(error) = give_up_rights(&path) {
        log::warn!("the process that reads {} has more rights than it needs: {error}", path.display());
    }
    let reader = Reader { path, file: Mutex::default(), verifier: Verifier::new() };
    let _ = reader.file(); // so that the log tells of faults at once
    Work { threads, renewed_after: None }.run(|question| reader.answer(&Question::decode(question)?).encode())
}

/// Gives up what a process does not need that only reads this file.
fn give_up_rights(path: &Path) -> Result<(), String> {
    set_no_new_privs(true).map_err(|error| error.to_string())?;
    // Whether this is possible is read from a file that Landlock forbids.
    if system_calls::can_be_filtered() {
        system_calls::forbid(false).map_err(|error| error.to_string())?;
    }
    let behind_links = path.canonicalize().ok();
    let directories = [Some(path), behind_links.as_deref()].into_iter().flatten().filter_map(Path::parent);
    let mut reach: Vec<_> = directories.map(|directory| ("", Reach::Read(directory.to_owned()))).collect();
    reach.push(("", Reach::Read("/dev/null".into())));
    let landlock = Landlock { reach, files: true, ports: Some(Vec::new()), ..Landlock::default() };
    landlock.restrict()
}

/// Answers questions about the file.
struct Reader {
    path: PathBuf,
    /// The file, once it could be read.
    file: Mutex<Option<UsersFile>>,
    verifier: Verifier,
}

impl Reader {
    fn answer(&self, question: &Question) -> Answer {
        let file = match self.file() {
            Ok(file) => file,
            Err(error) => return Answer::Unavailable(error.to_string()),
        };
        let unknown = |user: &UserName| Answer::Unknown(file.wrong_line(user));
        match question {
            Question::Verify(user, password) => {
                let attempt = Attempt { user, password, address: None };
                match self.verify(&file, &attempt) {
                    Ok(Said::Accepted(mailbox)) => Answer::Accepted(Arc::unwrap_or_clone(mailbox)),
                    Ok(Said::Refused { .. }) => Answer::Refused,
                    Ok(_) => unknown(user),
                    Err(Busy) => Answer::Busy,
                }
            }
            Question::Find(user) => match file.find(user) {
                Found::Account(account) => Answer::Accepted((*account.mailbox).clone()),
                Found::Unknown | Found::Unavailable => unknown(user),
            },
            Question::Names(after) => file.with_names_behind(after.as_ref(), |names| Answer::names(names)),
            Question::Totals => Answer::Totals(file.totals().expiries.into_iter().collect()),
        }
    }

    /// Verifies a password. A name that is unknown takes as long as one that is known.
    fn verify(&self, file: &UsersFile, attempt: &Attempt<'_>) -> Result<Said, Busy> {
        let said = file.verify(attempt, &self.verifier)?;
        let takes_its_time = matches!(said, Said::Accepted(_) | Said::Refused { costly: true });
        if !takes_its_time && let Some(decoy) = file.totals().costliest {
            self.verifier.check_in_vain(&decoy, attempt.password)?;
        }
        Ok(said)
    }

    /// The file. It is opened when it is first asked for, and again as long as it cannot be used.
    fn file(&self) -> io::Result<UsersFile> {
        let mut file = self.file.lock();
        if let Some(file) = &*file {
            return Ok(file.clone());
        }
        let opened = UsersFile::open(self.path.clone())?;
        *file = Some(opened.clone());
        Ok(opened)
    }
}

/// Writes what is logged to stderr, each line with its level as systemd knows them (sd-daemon(3)).
struct Lines;

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info | Level::Debug | Level::Trace => 6,
        };
        let _ = writeln!(io::stderr(), "<{level}>{}", record.args());
    }

    fn flush(&self) {}
}
