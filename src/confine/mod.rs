//! What the server gives up once its ports are bound and its files are opened, so that little is lost if it is taken
//! over. Programs that it starts inherit the confinement.
//!
//! - [`Confinement`] is everything to give up; [`Confinement::enforce`] does it before the first session thread starts.
//! - [`RunAs`] is the user and group of `--run-as`.
//! - [`Landlock`] is what the kernel still allows, [`Reach`] one part of the file system in it.
//!
//! [`crate::config`] makes the [`Confinement`] from the flags, `bin/pop3d.rs` enforces it.

mod landlock;
mod user;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;
use rustix::thread::set_no_new_privs;

pub use landlock::{Landlock, Reach};
pub use user::RunAs;

/// What the server is confined to.
#[derive(Debug)]
pub struct Confinement {
    /// The user to become.
    pub run_as: Option<RunAs>,
    /// The directory of the users' directories.
    pub mail_root: PathBuf,
    /// A directory of the server's own; it is the user's from now on.
    pub own: Option<PathBuf>,
    /// Files that are read again while the server runs.
    pub read_again: Vec<PathBuf>,
    /// A program that the server starts again and again.
    pub launcher: Option<&'static Path>,
    /// What may be reached, if not all.
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
    /// What is given up would be given up by one thread alone.
    Threads,
    /// The user cannot be become.
    User(RunAs, io::Error),
    /// The user could become root again.
    NotFinal(RunAs),
    /// A directory cannot be given to the user.
    Own(PathBuf, RunAs, io::Error),
    /// There would be no mail to serve.
    MailRoot(PathBuf, RunAs, io::Error),
    /// The user could not start transforms.
    Launcher(RunAs, io::Error),
    /// There is no such directory to reach, or no file, for the flag.
    Path(&'static str, PathBuf, io::Error),
    /// The kernel could, but does not.
    Kernel(String),
}

impl fmt::Display for ConfineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads => f.write_str("a thread runs before the server is confined"),
            Self::User(user, error) => write!(f, "cannot run as {user}: {error} (start as root for that)"),
            Self::NotFinal(user) => write!(f, "will not run as {user}: it could become root again"),
            Self::Own(path, user, error) => write!(f, "cannot give {} to {user}: {error}", path.display()),
            Self::MailRoot(path, user, error) => {
                write!(f, "{user} cannot use {} as mail directory: {error}", path.display())
            }
            Self::Launcher(user, error) => {
                write!(f, "{user} cannot start transforms, as it may not run this server's own program: {error}")
            }
            Self::Path(flag, path, error) => write!(f, "cannot use {} for {flag}: {error}", path.display()),
            Self::Kernel(error) => write!(f, "cannot be confined by Landlock (--no-landlock does without): {error}"),
        }
    }
}

impl std::error::Error for ConfineError {}

impl Confinement {
    /// The same for a process that is only to see whether it can be done: the server's own directory keeps its owner.
    #[must_use]
    pub fn without_own_directory(self) -> Self {
        Self { own: None, ..self }
    }

    /// Gives up what the server does not need any more. To be called when all ports are bound and before any thread
    /// is started.
    ///
    /// # Errors
    /// [`ConfineError`]; the server had better not serve then.
    pub fn enforce(self) -> Result<(), ConfineError> {
        // Where /proc is not there it is taken on trust.
        if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
            return Err(ConfineError::Threads);
        }
        // Opened with the rights of the user that starts the server: a directory that only root may enter, such as
        // that of a TLS key, is out of the other user's reach.
        let rules = self.landlock.as_ref().map(Landlock::open).transpose()?;
        match &self.run_as {
            Some(user) => self.become_user(user)?,
            None if geteuid().is_root() => {
                log::warn!("running as root: --run-as USER would run it as an ordinary user")
            }
            None => {}
        }
        set_no_new_privs(true).map_err(|error| ConfineError::Kernel(error.to_string()))?;
        match rules {
            Some(rules) => rules.enforce()?,
            None => log::warn!("--no-landlock: the server may reach all that its user may"),
        }
        Ok(())
    }

    fn become_user(&self, user: &RunAs) -> Result<(), ConfineError> {
        if let Some(path) = &self.own {
            user.take(path).map_err(|error| ConfineError::Own(path.clone(), user.clone(), error))?;
        }
        user.become_it().map_err(|error| ConfineError::User(user.clone(), error))?;
        if user.could_be_undone() {
            return Err(ConfineError::NotFinal(user.clone()));
        }
        access(&self.mail_root, Access::EXEC_OK)
            .map_err(|error| ConfineError::MailRoot(self.mail_root.clone(), user.clone(), error.into()))?;
        if let Some(launcher) = self.launcher {
            access(launcher, Access::EXEC_OK).map_err(|error| ConfineError::Launcher(user.clone(), error.into()))?;
        }
        for path in &self.read_again {
            if let Err(error) = access(path, Access::READ_OK) {
                log::warn!("{user} cannot read {} again when it changes: {error}", path.display());
            }
        }
        log::info!("running as {user}");
        Ok(())
    }
}
