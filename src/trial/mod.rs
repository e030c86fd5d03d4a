//! `pop3d test`: a server for trying out mail programs, with everything that it needs in a temporary directory.
//!
//! - [`TrialArgs`] are its flags. A [`Trial`] is the directory with mail, certificate and state, and the command line of
//!   the server; dropping it removes everything.
//! - `mail` copies the mail to begin with. `ready` describes the running server, for people and for programs.
//!
//! `bin/pop3d.rs` makes the trial, serves with its command line and announces the server.

mod mail;
mod ready;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::auth::random;
use crate::server::Server;
use ready::{Ready, ReadyFile};

/// The only user.
const USER: &str = "test";

/// The flags of `pop3d test`.
#[derive(Debug, clap::Args)]
pub struct TrialArgs {
    /// Begin with a copy of this mail: a Maildir, a directory with a file for each message, or an mbox
    #[arg(long, value_name = "PATH")]
    seed: Option<PathBuf>,

    /// Write addresses, user, password and certificate to this file as JSON as soon as the server can be used; it is removed
    /// at the end
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    /// Further flags of the server, behind --
    #[arg(last = true, value_name = "FLAG")]
    flags: Vec<OsString>,
}

/// A directory for one server, which is removed when this is dropped.
#[derive(Debug)]
pub struct Trial {
    directory: PathBuf,
    password: String,
    flags: Vec<OsString>,
    ready_file: Option<PathBuf>,
    written: Option<ReadyFile>,
}

impl Trial {
    /// Makes the directory and copies the mail.
    ///
    /// # Errors
    /// A message, if that fails. Nothing is left then.
    pub fn new(args: &TrialArgs) -> Result<Self, String> {
        let directory = std::env::temp_dir().join(format!("pop3d-test-{}", hexadecimal(random::<8>())));
        let failed = |error: io::Error| format!("cannot make {}: {error}", directory.display());
        fs::DirBuilder::new().mode(0o700).create(&directory).map_err(failed)?;
        let trial = Self {
            directory: directory.clone(),
            password: hexadecimal(random::<8>()),
            flags: args.flags.clone(),
            ready_file: args.ready_file.clone(),
            written: None,
        };
        for path in [trial.mail(), trial.state()] {
            fs::create_dir(path).map_err(failed)?;
        }
        let maildrop = trial.mail().join(USER);
        match &args.seed {
            Some(seed) => mail::copy(seed, &maildrop).map_err(|(path, error)| {
                format!("cannot copy {} to {}: {error}", path.display(), maildrop.display())
            })?,
            None => mail::make_maildir(&maildrop).map_err(failed)?,
        }
        Ok(trial)
    }

    fn mail(&self) -> PathBuf {
        self.directory.join("mail")
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    fn certificate(&self) -> PathBuf {
        self.state().join("tls-cert.pem")
    }

    /// The command line of the server. The user is the admin, too.
    #[must_use]
    pub fn command_line(&self) -> Vec<OsString> {
        let account = format!("{USER}:{}", self.password);
        let mut line: Vec<OsString> =
            ["pop3d", "-p", "0", "-P", "0", "--pop3s-port", "0", "--tls-self-signed", "--allow-faults"]
                .into_iter()
                .chain(["--address", ready::HOST, "--peep-address", ready::HOST, "-u", &account, "-a", &account])
                .map(OsString::from)
                .collect();
        line.extend(["-m".into(), self.mail().into(), "--state".into(), self.state().into()]);
        line.extend(self.flags.iter().cloned());
        line
    }

    /// Prints what a person needs to use the server, and writes the file of `--ready-file`.
    ///
    /// # Errors
    /// A message, if the file cannot be written.
    pub fn announce(&mut self, server: &Server) -> Result<(), String> {
        let ready = Ready::of(server, &self.password, &self.directory, &self.certificate())?;
        if let Some(path) = &self.ready_file {
            let failed = |error| format!("cannot write {}: {error}", path.display());
            self.written = Some(ReadyFile::write(path, &ready).map_err(failed)?);
        }
        // The server serves even if nobody reads this.
        let _ = write!(io::stdout(), "{ready}");
        Ok(())
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.written = None;
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory) {
        log::error!("{} cannot be removed: {error}", directory.display());
    }
}

fn hexadecimal<const N: usize>(octets: [u8; N]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
