//! Flags for the confinement of the server and its transform.

use std::path::{Path, PathBuf};

use clap::Args;

use super::accounts::Fence;
use super::args::{keep, within};
use super::{ConfigError, NEEDS_RESTART};
use crate::acting::{MailGroup, Owners};
use crate::auth::SqlReach;
use crate::confine::{Confinement, Landlock, Reach, RunAs};
use crate::transform::{Fences, Limit, OURSELVES, Transform};

/// The flags for the confinement.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Confinement")]
pub(super) struct ConfinementArgs {
    /// Run as this user and group (names or numbers) once the ports are bound and the files are open
    #[arg(long, value_name = "USER[:GROUP]", group = NEEDS_RESTART)]
    run_as: Option<RunAs>,

    /// Let PEEP choose this directory, or one below it, as mail directory, and let the transform write there; can be
    /// repeated
    #[arg(long, value_name = "DIR", group = NEEDS_RESTART)]
    allow_dir: Vec<PathBuf>,

    /// Let the transform read and run this file or directory, besides its own and the system's programs; can be repeated
    #[arg(long, value_name = "PATH", requires = "transform", group = NEEDS_RESTART)]
    transform_path: Vec<PathBuf>,

    /// Let the transform use the network and the sockets of other programs on this machine
    #[arg(long, requires = "transform", group = NEEDS_RESTART)]
    transform_network: bool,

    /// Let each session act with the uid, gid and groups of its user: those that the users file has, or those of the
    /// system's account of that name
    #[arg(long, group = NEEDS_RESTART)]
    as_owner: bool,

    /// With --as-owner, refuse users whose uid is lower than this one
    #[arg(long, value_name = "UID", default_value_t = 1000, value_parser = within((1, u64::from(u32::MAX) - 1)), requires = "as_owner")]
    first_uid: u64,

    /// With --as-owner, let sessions also use the rights of this group, such as mail to lock files in /var/mail
    #[arg(long, value_name = "GROUP", requires = "as_owner")]
    mail_group: Option<MailGroup>,

    /// Limit what the transform may use, as in cpu=10,memory=512M: cpu (seconds), memory and file-size (octets; K, M and G
    /// are units), files (open at once), processes
    #[arg(long, value_name = "NAME=N", value_delimiter = ',', requires = "transform")]
    pub(super) transform_limit: Vec<Limit>,

    /// Let the server and its transform use only the files that they need, so that PEEP cannot move the mail directory
    /// elsewhere; implied by --run-as, --allow-dir and --transform-path
    #[arg(long, group = NEEDS_RESTART)]
    confine: bool,

    /// Run without Landlock, which forbids all other files, outgoing TCP connections and signals to other processes
    #[arg(long, conflicts_with = "confine", group = NEEDS_RESTART)]
    no_landlock: bool,
}

/// The files and ports that a server uses while it runs. Each file has the flag that names it.
pub(super) struct Used {
    pub(super) mail_root: PathBuf,
    /// The state directory.
    pub(super) state: Option<PathBuf>,
    /// Files that are written or replaced.
    pub(super) written: Vec<(&'static str, PathBuf)>,
    /// The programs that account sources run, and what they read.
    pub(super) account_programs: Vec<PathBuf>,
    /// True if those programs use the network.
    pub(super) account_network: bool,
    /// The ports that are bound, and may be bound again.
    pub(super) ports: Vec<u16>,
    /// Files that are read again when they change.
    pub(super) read_again: Vec<(&'static str, PathBuf)>,
    /// What databases of accounts need.
    pub(super) databases: Vec<SqlReach>,
}

impl ConfinementArgs {
    /// Checks that no resource is limited twice.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let limits = &self.transform_limit;
        let twice = (1..limits.len()).find(|&n| limits[..n].iter().any(|limit| limit.is_of_same(&limits[n])));
        twice.map_or(Ok(()), |n| Err(ConfigError::LimitTwice(limits[n].clone())))
    }

    /// Returns true if the server becomes another user (`--run-as`).
    pub(super) fn becomes_user(&self) -> bool {
        self.run_as.is_some()
    }

    /// Replaces the settings that only a restart can change by those of `started`, because no process can regain rights
    /// that it has given up. Returns the names of the settings that differed.
    pub(super) fn keep_fixed(&mut self, started: &Self) -> Vec<&'static str> {
        let kept = [
            keep("run-as", &mut self.run_as, &started.run_as),
            keep("allow-dir", &mut self.allow_dir, &started.allow_dir),
            keep("transform-path", &mut self.transform_path, &started.transform_path),
            keep("transform-network", &mut self.transform_network, &started.transform_network),
            keep("as-owner", &mut self.as_owner, &started.as_owner),
            keep("confine", &mut self.confine, &started.confine),
            keep("no-landlock", &mut self.no_landlock, &started.no_landlock),
        ];
        kept.into_iter().flatten().collect()
    }

    /// Whose ids sessions take.
    pub(super) fn owners(&self) -> Option<Owners> {
        let first_uid = u32::try_from(self.first_uid).unwrap_or(u32::MAX);
        self.as_owner.then(|| Owners::new(first_uid, self.mail_group))
    }

    /// Returns true if the server gives up the right to open some files.
    pub(super) fn gives_up_rights(&self) -> bool {
        self.is_service()
    }

    /// Returns true if the server runs as a service, which only needs the files that its flags name. In a quick local
    /// set-up, the admin may instead choose any mail directory that the server's user can use.
    fn is_service(&self) -> bool {
        self.confine || self.run_as.is_some() || !self.allow_dir.is_empty() || !self.transform_path.is_empty()
    }

    /// How programs of account sources are confined.
    pub(super) fn fence_of_accounts(&self) -> Fence {
        Fence { landlock: !self.no_landlock, files: self.is_service() }
    }

    /// Adds limits and the confinement to a transform. If files are restricted, it can read mail and programs, and change
    /// only files below a directory of `--allow-dir`.
    pub(super) fn restricted(&self, transform: Transform, mail_root: &Path) -> Transform {
        let flag = "--transform";
        let mut reach = vec![(flag, Reach::Read(mail_root.to_owned()))];
        reach.extend(transform.files().into_iter().map(|path| (flag, Reach::Run(path))));
        reach.extend(self.transform_path.iter().map(|path| (flag, Reach::Run(path.clone()))));
        reach.extend(self.allow_dir.iter().map(|path| (flag, Reach::All(path.clone()))));
        let landlock = Landlock {
            reach,
            programs: true,
            files: self.is_service(),
            network: self.transform_network,
            connect: Vec::new(),
            ports: Some(Vec::new()),
        };
        let fences = Fences { landlock: (!self.no_landlock).then_some(landlock), sockets: self.transform_network };
        transform.restricted(&self.transform_limit, &fences)
    }

    /// Returns the confinement of a server that uses these files and this transform.
    pub(super) fn confinement(&self, used: Used, transform: Option<&Transform>) -> Confinement {
        let Used { mail_root, state, written, read_again, ports, databases, account_programs, account_network } = used;
        let mut reach = vec![("--mailbox", Reach::Files(mail_root.clone()))];
        let mut add = |flag, paths: Vec<PathBuf>, reached: fn(PathBuf) -> Reach| {
            reach.extend(paths.into_iter().map(|path| (flag, reached(path))));
        };
        add("--state", state.iter().cloned().collect(), Reach::Files);
        // Files are replaced by renaming others, so the rule has to be for their directory.
        written.iter().for_each(|(flag, file)| add(flag, directories(file), Reach::Files));
        read_again.iter().for_each(|(flag, file)| add(flag, directories(file), Reach::Read));
        add("--allow-dir", self.allow_dir.clone(), Reach::All);
        for SqlReach { directory, ca, .. } in &databases {
            add("--accounts", directory.iter().filter(|path| path.is_dir()).cloned().collect(), Reach::Files);
            ca.iter().for_each(|file| add("--accounts", directories(file), Reach::Read));
        }
        if databases.iter().any(|database| database.names) {
            add("--accounts", name_files(), Reach::Read);
        }
        if self.as_owner {
            add("--as-owner", account_files(), Reach::Read);
        }
        if let Some(transform) = transform {
            transform.log_gaps();
            add("--transform", transform.files(), Reach::Run);
            add("--transform", transform.launcher().map(Path::to_owned).into_iter().collect(), Reach::Run);
            add("--transform-path", self.transform_path.clone(), Reach::Run);
        }
        let has_account_programs = !account_programs.is_empty();
        add("--accounts", account_programs, Reach::Run);
        let (programs, files) = (transform.is_some() || has_account_programs, self.is_service());
        // In a quick local set-up a reload may change the ports; a service can only bind its present ports again.
        let ports = files.then_some(ports);
        let connect = databases.into_iter().flat_map(|database| database.ports).collect();
        let landlock =
            Landlock { reach, programs, files, network: self.transform_network || account_network, connect, ports };
        Confinement {
            run_as: self.run_as.clone(),
            as_owner: self.as_owner,
            mail_root,
            own: state,
            launcher: transform.and_then(Transform::launcher).or(has_account_programs.then_some(Path::new(OURSELVES))),
            read_again: read_again.into_iter().map(|(_, file)| file).collect(),
            landlock: (!self.no_landlock).then_some(landlock),
        }
    }
}

/// Returns what the C library reads to look an account up. /etc/passwd is replaced when an account is added, so the rule has
/// to be for its directory.
fn account_files() -> Vec<PathBuf> {
    existing(&["/etc", "/lib", "/lib64", "/usr/lib"])
}

/// Returns what the C library reads to look up the address of another machine. /etc/resolv.conf is replaced when the network
/// changes, and may be a link to a file in /run.
fn name_files() -> Vec<PathBuf> {
    existing(&["/etc", "/lib", "/lib64", "/usr/lib", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager"])
}

fn existing(directories: &[&str]) -> Vec<PathBuf> {
    directories.iter().map(PathBuf::from).filter(|path| path.is_dir()).collect()
}

/// Returns the directory in the path of a file, and the directory of its target if the file is a symbolic link.
fn directories(file: &Path) -> Vec<PathBuf> {
    let parent = |file: &Path| match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let real = file.canonicalize().ok();
    [Some(file), real.as_deref()].into_iter().flatten().map(parent).collect()
}
