//! Passes messages through a program of the operator's choice (`--transform`). The message's file is the program's standard
//! input; what the program writes is sent to the client at once.
//!
//! - [`Transform`] is the program with its arguments, timeout and limits; [`Transform::start`] runs it on a message with
//!   the environment that [`Subject`] describes, without a shell, as the leader of a process group.
//! - [`Running`] reads its output. The group is killed when the program ends or fails, writes nothing for too long, or
//!   its [`Client`] has left; the program is always reaped. [`Failure`] says what went wrong.
//! - [`Rules`] say what clients see of it.
//! - [`Limit`] is one `--transform-limit`; [`launch()`] applies them in the new process.
//!
//! Account sources run programs the same way, by another interface (`checkpassword`).
//!
//! RETR and TOP in [`crate::pop3`] are the callers. [`Transform::run`] runs it for no client, to find out what it does:
//! [`crate::counting`] and PEEP call it.

mod checkpassword;
mod feed;
mod launch;
mod limits;
mod rules;
mod running;
#[cfg(test)]
mod tests;
mod whole;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use sha2::{Digest, Sha256};

use crate::acting;
use crate::maildrop::{Fingerprint, MessageNumber};
pub(crate) use checkpassword::Reply;
pub use checkpassword::report;
pub use feed::Input;
pub(crate) use launch::OURSELVES;
pub use launch::{Fences, launch};
pub use limits::Limit;
pub use rules::{OnFailure, Rules, Sizes};
pub use running::{Client, Failure, Running};

/// The program that messages go through.
#[derive(Debug, Clone)]
pub struct Transform {
    /// The program as the operator wrote it.
    program: String,
    /// Where the program is, if it was found. It is looked up once: with only a name and an environment for the child, the
    /// standard library would have to fork(2), which copies the server's page tables and takes several times as long.
    path: Option<PathBuf>,
    arguments: Vec<String>,
    /// How long the program may write nothing; `None` for no limit.
    patience: Option<Duration>,
    /// The launcher's arguments. If they are empty, the program is started directly.
    restrictions: Vec<OsString>,
    rules: Rules,
}

/// What a transform is told about its message, by environment variables.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// `POP3_USER`: the user's name.
    pub user: &'a str,
    /// `POP3_UIDL`: the unique-id.
    pub unique_id: &'a str,
    /// `POP3_MESSAGE`: the message number in the session.
    pub number: MessageNumber,
}

impl Transform {
    /// Splits a command line into words by the shell's rules. Returns `None` if it has no words or an unclosed quote.
    #[must_use]
    pub fn new(command_line: &str, patience: Option<Duration>) -> Option<Self> {
        let mut words = shell_words::split(command_line).ok()?.into_iter();
        let program = words.next().filter(|program| !program.is_empty())?;
        let path = find_program(&program);
        Some(Self {
            program,
            path,
            arguments: words.collect(),
            patience,
            restrictions: Vec::new(),
            rules: Rules::default(),
        })
    }

    /// The program as the operator wrote it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.program
    }

    /// Returns the path of the program.
    ///
    /// # Errors
    /// If the program was not found.
    pub fn program(&self) -> Result<&Path, String> {
        self.path.as_deref().ok_or_else(|| format!("the program {:?} was not found", self.program))
    }

    /// Adds limits and a confinement. [`Transform::log_gaps`] logs what the kernel does not support.
    #[must_use]
    pub fn restricted(self, limits: &[Limit], fences: &Fences) -> Self {
        Self { restrictions: launch::restrictions(limits, fences), ..self }
    }

    /// Sets what clients see of it.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// What clients see of it.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Logs a warning if the program was not found or the kernel cannot filter system calls.
    pub fn log_gaps(&self) {
        if self.path.is_none() {
            log::warn!("the transform's program {:?} was not found", self.program);
        }
        if !crate::confine::system_calls::can_be_filtered() {
            log::warn!("the transform may make all system calls, since this kernel cannot filter them (seccomp)");
        }
    }

    /// Returns the path of the launcher, which is this server's executable, if the transform needs one.
    #[must_use]
    pub fn launcher(&self) -> Option<&'static Path> {
        (!self.restrictions.is_empty()).then_some(Path::new(OURSELVES))
    }

    /// Returns the files and directories that the command line names, so that the confinement can allow them: the
    /// program's directory and those arguments that are files.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let near = self.path.as_deref().map(surroundings);
        let arguments = self.arguments.iter().map(PathBuf::from).filter(|argument| argument.is_file());
        near.into_iter().chain(arguments).collect()
    }

    /// Identifies the command line with the program's file and the files among its arguments, so that a change of one of
    /// them is noticed.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for word in std::iter::once(&self.program).chain(&self.arguments) {
            hash.update(word);
            hash.update([0]);
        }
        let files = self.path.iter().cloned().chain(self.arguments.iter().map(PathBuf::from));
        for file in files.filter_map(|path| fs::metadata(path).ok()).filter(fs::Metadata::is_file) {
            hash.update(file.size().to_le_bytes());
            hash.update(file.mtime().to_le_bytes());
            hash.update(file.mtime_nsec().to_le_bytes());
        }
        hash.finalize().into()
    }

    /// Starts the program on a message.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&self, message: impl Into<Input>, subject: Subject<'_>) -> Result<Running, Failure> {
        self.start_with(message, subject, Stdio::inherit())
    }

    fn start_with(&self, message: impl Into<Input>, subject: Subject<'_>, stderr: Stdio) -> Result<Running, Failure> {
        let (stdin, source) = message.into().into_stdin();
        let inherited = ["PATH", "LANG"].into_iter().filter_map(|name| Some((name, env::var_os(name)?)));
        let mut command = launch::command(&self.program, self.path.as_deref(), &self.restrictions);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(inherited)
            .env("POP3_USER", subject.user)
            .env("POP3_UIDL", subject.unique_id)
            .env("POP3_MESSAGE", subject.number.to_string())
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0);
        Running::follow(acting::spawn(&mut command)?, source, self.patience)
    }
}

/// Finds a program as execvp(3) does.
fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let path = env::var_os("PATH")?;
    let is_program = |path: &PathBuf| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    env::split_paths(&path).map(|directory| directory.join(name)).find(is_program)
}

/// Returns the directory of a program, because the program may need other files there. If the directory is /, returns
/// only the program.
fn surroundings(program: &Path) -> PathBuf {
    // A name without a directory is in the working directory.
    let directory = Path::new(".").join(program.parent().unwrap_or(Path::new("")));
    match directory.canonicalize() {
        Ok(real) if real.parent().is_some() => directory,
        _ => program.to_owned(),
    }
}
