//! Flags for what the server gives up, and for what it and its transform keep.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::confine::{Confinement, Landlock, Reach, RunAs};
use crate::transform::{Limit, Transform};

/// How the server is confined.
#[derive(Debug, Args)]
#[command(next_help_heading = "Confinement")]
pub(super) struct ConfinementArgs {
    /// Run as this user once the ports are bound and the files opened; names or numbers
    #[arg(long, value_name = "USER[:GROUP]")]
    run_as: Option<RunAs>,

    /// A further directory where PEEP may move the mail directory to, and where the transform may write; can be given
    /// many times
    #[arg(long, value_name = "DIR")]
    allow_dir: Vec<PathBuf>,

    /// Something that the transform may read and run, beside itself and the system's programs; can be given many times
    #[arg(long, value_name = "PATH", requires = "transform")]
    transform_path: Vec<PathBuf>,

    /// Let the transform use TCP
    #[arg(long, requires = "transform")]
    transform_network: bool,

    /// What the transform may use at most, as cpu=10,memory=512M: cpu (seconds), memory, file-size (octets, or K, M,
    /// G), files (open), processes
    #[arg(long, value_name = "NAME=N", value_delimiter = ',', requires = "transform")]
    pub(super) transform_limit: Vec<Limit>,

    /// Do without Landlock, which keeps the server and its transform from all other files
    #[arg(long)]
    no_landlock: bool,
}

/// What a server uses while it runs.
pub(super) struct Used {
    pub(super) mail_root: PathBuf,
    /// The directory of its own.
    pub(super) state: Option<PathBuf>,
    /// Files that are written or replaced.
    pub(super) written: Vec<PathBuf>,
    /// Files that are read again when they change.
    pub(super) read_again: Vec<PathBuf>,
}

impl ConfinementArgs {
    /// What a server that uses this, and this transform, is confined to.
    pub(super) fn confinement(&self, used: Used, transform: Option<&Transform>) -> Confinement {
        let Used { mail_root, state, written, read_again } = used;
        let mut reach = vec![Reach::Files(mail_root.clone())];
        reach.extend(state.iter().cloned().map(Reach::Files));
        // Files are replaced by others of the same name, which only their directory lets through.
        reach.extend(written.iter().flat_map(|file| directories(file)).map(Reach::Files));
        reach.extend(read_again.iter().flat_map(|file| directories(file)).map(Reach::Read));
        reach.extend(self.allow_dir.iter().cloned().map(Reach::All));
        if let Some(transform) = transform {
            reach.extend(transform.files().into_iter().map(Reach::Run));
            reach.extend(self.transform_path.iter().cloned().map(Reach::Run));
        }
        let landlock = Landlock { reach, programs: transform.is_some(), network: self.transform_network };
        Confinement {
            run_as: self.run_as.clone(),
            mail_root,
            own: state,
            read_again,
            landlock: (!self.no_landlock).then_some(landlock),
        }
    }
}

/// The directory that a file is named in, and the one where it is.
fn directories(file: &Path) -> Vec<PathBuf> {
    let parent = |file: &Path| match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let real = file.canonicalize().ok();
    [Some(file), real.as_deref()].into_iter().flatten().map(parent).collect()
}
