//! Accounts of the kind `program`.

use std::path::{Path, PathBuf};

use super::common::Common;
use super::{ConfigError, Uses};
use crate::auth::AccountSource;
use crate::confine::{Landlock, Reach};
use crate::transform::{Fences, Limit, OURSELVES, Transform};

/// The keys of a program that knows accounts.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(in crate::config) struct ProgramArgs {
    /// The program with its arguments, which has the interface of checkpassword
    #[arg(long, value_name = "COMMAND", required = true, value_parser = command)]
    command: String,

    /// A file or directory that the program reads or runs, besides its own directory and the system's programs; can be a list
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,

    /// Let the program use the network and the sockets of other programs on this machine
    #[arg(long)]
    network: bool,

    /// Limit what the program may use, as in cpu=10,memory=512M; the limits are those of --transform-limit
    #[arg(long, value_name = "NAME=N", value_delimiter = ',')]
    limit: Vec<Limit>,

    #[command(flatten)]
    common: Common,
}

fn command(text: &str) -> Result<String, String> {
    Transform::new(text, None).map(|_| text.to_owned()).ok_or_else(|| "it cannot be split into words".to_owned())
}

/// How a server confines the programs that it asks for accounts.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Fence {
    /// True if Landlock is in use.
    pub(in crate::config) landlock: bool,
    /// True if all files are forbidden that are not named.
    pub(in crate::config) files: bool,
}

impl ProgramArgs {
    fn program(&self) -> Option<Transform> {
        Transform::new(&self.command, None)
    }

    /// The files that the program needs.
    fn paths(&self) -> Vec<PathBuf> {
        let own = self.program().map(|program| program.files()).unwrap_or_default();
        own.into_iter().chain(self.path.iter().cloned()).collect()
    }

    /// Opens the source. A program that is missing is told of in the log; its users cannot log in.
    pub(super) fn open(&self, fence: Fence) -> Result<AccountSource, ConfigError> {
        let limits = &self.limit;
        let twice = (1..limits.len()).find(|&n| limits[..n].iter().any(|limit| limit.is_of_same(&limits[n])));
        if let Some(twice) = twice {
            return Err(ConfigError::LimitTwice(limits[twice].clone()));
        }
        let program = self.program().ok_or_else(|| ConfigError::Transform(self.command.clone()))?;
        if let Err(why) = program.program() {
            log::warn!("accounts: {why}");
        }
        let paths = self.paths().into_iter().chain([Path::new(OURSELVES).to_owned()]);
        let reach = paths.map(|path| ("--accounts", Reach::Run(path))).collect();
        let Fence { landlock, files } = fence;
        let (network, connect, ports) = (self.network, Vec::new(), Some(Vec::new()));
        let inner = Landlock { reach, programs: true, files, network, connect, ports };
        let fences = Fences { landlock: landlock.then_some(inner), sockets: self.network };
        Ok(AccountSource::program(program.restricted(limits, &fences), self.common.rules()))
    }

    /// What the source uses while the server runs.
    pub(super) fn uses(&self) -> Uses {
        let launcher = Path::new(OURSELVES).to_owned();
        let programs = self.paths().into_iter().chain([launcher]).collect();
        Uses { programs, network: self.network, ..Uses::default() }
    }
}
