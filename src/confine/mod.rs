//! Confines the server once its ports are bound and its files are open, so that an attacker who takes it over can do
//! little. Programs that the server starts inherit the confinement.
//!
//! - [`Confinement`] says what to give up; [`Confinement::enforce`] does so before any thread is started.
//! - [`RunAs`] is the user and group of `--run-as`.
//! - [`Landlock`] is what the kernel still allows; each [`Reach`] in it is a file or directory.
//! - `system_calls` forbids some system calls to processes that the server starts.
//!
//! [`crate::config`] makes the [`Confinement`] from the flags, `bin/pop3d.rs` enforces it.

mod landlock;
pub(crate) mod system_calls;
mod user;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;
use rustix::thread::set_no_new_privs;

use crate::acting;

pub use landlock::{Landlock, Reach};
pub use user::RunAs;

/// How the server is to be confined.
#[derive(Debug)]
pub struct Confinement {
    /// The user to run as.
    pub run_as: Option<RunAs>,
    /// True if sessions act with their users' ids. The server keeps the right to change ids then.
    pub as_owner: bool,
    /// The mail directory.
    pub mail_root: PathBuf,
    /// A directory of the server's own (`--state`). The user of `run_as` becomes its owner.
    pub own: Option<PathBuf>,
    /// Files that are read again while the server runs.
    pub read_again: Vec<PathBuf>,
    /// A program that the server has to be able to start: the launcher of transforms.
    pub launcher: Option<&'static Path>,
    /// What Landlock still allows; `None` for no Landlock.
    pub landlock: Option<Landlock>,
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.run_as {
            Some(user) => write!(f, "runs as {user}"),
            None => f.write_str("runs as the user who starts it"),
        }
    }
}

/// Why the server cannot be confined.
#[derive(Debug)]
pub enum ConfineError {
    /// Another thread is running already. It would not be confined.
    Threads,
    /// The server cannot become the user.
    User(RunAs, io::Error),
    /// The user could become root again.
    NotFinal(RunAs),
    /// The state directory cannot be given to the user.
    Own(PathBuf, RunAs, io::Error),
    /// Sessions cannot act as their users.
    Owners(io::Error),
    /// The user cannot use the mail directory.
    MailRoot(PathBuf, RunAs, io::Error),
    /// The user cannot start transforms.
    Launcher(RunAs, io::Error),
    /// The file or directory that a flag names cannot be used.
    Path(&'static str, PathBuf, io::Error),
    /// The kernel supports Landlock but refuses the rules.
    Kernel(String),
}

impl fmt::Display for ConfineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads => f.write_str("a thread is already running before the server is confined"),
            Self::User(user, error) => {
                write!(f, "cannot run as {user}: {error} (the server has to be started as root for this)")
            }
            Self::NotFinal(user) => write!(f, "will not run as {user}: it could become root again"),
            Self::Own(path, user, error) => write!(f, "cannot give {} to {user}: {error}", path.display()),
            Self::Owners(error) => write!(
                f,
                "sessions cannot act as their users (--as-owner): {error}; the server needs the capabilities CAP_SETUID and \
                 CAP_SETGID, which root has (systemd gives them by AmbientCapabilities=)"
            ),
            Self::MailRoot(path, user, error) => {
                write!(f, "{user} cannot use {} as mail directory: {error}", path.display())
            }
            Self::Launcher(user, error) => {
                write!(f, "{user} cannot start transforms, because it may not run the server's executable: {error}")
            }
            Self::Path(flag, path, error) => write!(f, "cannot use {} for {flag}: {error}", path.display()),
            Self::Kernel(error) => {
                write!(f, "cannot confine the server by Landlock (--no-landlock runs without): {error}")
            }
        }
    }
}

impl std::error::Error for ConfineError {}

impl Confinement {
    /// The same confinement for a check: the state directory keeps its owner.
    #[must_use]
    pub fn without_own_directory(self) -> Self {
        Self { own: None, ..self }
    }

    /// Puts the confinement in force. To be called after all ports are bound and before any thread is started.
    ///
    /// # Errors
    /// [`ConfineError`]; the server should not go on then.
    pub fn enforce(self) -> Result<(), ConfineError> {
        // Without /proc this cannot be checked.
        if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
            return Err(ConfineError::Threads);
        }
        // The files of the rules are opened with the rights of the user who starts the server, because the other user may
        // not be allowed to enter a directory such as that of a TLS key.
        let rules = self.landlock.as_ref().map(Landlock::open).transpose()?;
        match &self.run_as {
            Some(user) => self.become_user(user)?,
            None if geteuid().is_root() => {
                log::warn!("running as root; --run-as USER would run the server as an ordinary user")
            }
            None => {}
        }
        if self.as_owner {
            acting::give_up_other_rights().map_err(ConfineError::Owners)?;
        }
        set_no_new_privs(true).map_err(|error| ConfineError::Kernel(error.to_string()))?;
        match rules {
            Some(rules) => rules.enforce()?,
            None => log::warn!("--no-landlock: the server can use all files that its user can use"),
        }
        Ok(())
    }

    fn become_user(&self, user: &RunAs) -> Result<(), ConfineError> {
        if let Some(path) = &self.own {
            user.take(path).map_err(|error| ConfineError::Own(path.clone(), user.clone(), error))?;
        }
        user.become_it(self.as_owner).map_err(|error| ConfineError::User(user.clone(), error))?;
        if user.could_be_undone() {
            return Err(ConfineError::NotFinal(user.clone()));
        }
        // With --as-owner, the users themselves use it.
        if !self.as_owner {
            access(&self.mail_root, Access::EXEC_OK)
                .map_err(|error| ConfineError::MailRoot(self.mail_root.clone(), user.clone(), error.into()))?;
        }
        if let Some(launcher) = self.launcher {
            access(launcher, Access::EXEC_OK).map_err(|error| ConfineError::Launcher(user.clone(), error.into()))?;
        }
        for path in &self.read_again {
            if let Err(error) = access(path, Access::READ_OK) {
                log::warn!("{user} will not be able to read {} again when it changes: {error}", path.display());
            }
        }
        log::info!("running as {user}");
        Ok(())
    }
}
