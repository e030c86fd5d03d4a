//! Landlock: the kernel lets the server, and what it starts, reach what is listed here and nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, make_bitflags, path_beneath_rules,
};

use super::ConfineError;

/// What is asked of the kernel: all that has been tested. Of a kernel that knows less, what it knows.
const TESTED: ABI = ABI::V7;

/// Programs and what they are loaded from.
const PROGRAMS: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"];

/// What libraries look up, and what programs ask about themselves. Not the rest of /etc.
const LOOKED_UP: [&str; 9] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/ld-musl-x86_64.path",
    "/etc/localtime",
    "/etc/locale.alias",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/proc",
];

const RANDOM: [&str; 2] = ["/dev/random", "/dev/urandom"];
const NOTHING: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/full"];

/// A part of the file system, and what may be done there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// A file or directory to read.
    Read(PathBuf),
    /// A directory of files to read, write, rename and remove.
    Files(PathBuf),
    /// A directory to do anything in but to run programs from there.
    All(PathBuf),
    /// A program, or a directory of programs.
    Run(PathBuf),
}

impl Reach {
    fn path(&self) -> &Path {
        match self {
            Self::Read(path) | Self::Files(path) | Self::All(path) | Self::Run(path) => path,
        }
    }

    fn access(&self) -> BitFlags<AccessFs> {
        let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
        match self {
            Self::Read(_) => read,
            Self::Files(_) => read | make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | RemoveFile}),
            Self::All(_) => {
                AccessFs::from_all(TESTED) & !make_bitflags!(AccessFs::{Execute | MakeChar | MakeBlock | IoctlDev})
            }
            Self::Run(_) => read | AccessFs::Execute,
        }
    }
}

/// What the server may reach.
#[derive(Debug, Default)]
pub struct Landlock {
    /// Each has to be there, and is told by its flag when it is not.
    pub reach: Vec<(&'static str, Reach)>,
    /// Programs may be started: the system's own, beside those in `reach`.
    pub programs: bool,
    /// TCP connections may be made, and ports bound.
    pub network: bool,
}

impl Landlock {
    pub(super) fn enforce(self) -> Result<(), ConfineError> {
        for (flag, reach) in &self.reach {
            let fits = fs::metadata(reach.path()).and_then(|file| match reach {
                Reach::Files(_) | Reach::All(_) if !file.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
                _ => Ok(()),
            });
            fits.map_err(|error| ConfineError::Path(flag, reach.path().to_owned(), error))?;
        }
        let status = self.restrict().map_err(|error| ConfineError::Kernel(error.to_string()))?;
        match status.landlock {
            LandlockStatus::Available { effective_abi, .. } => match unenforced(effective_abi) {
                [] => log::info!("confined by Landlock to what it serves"),
                gaps => log::warn!("confined by Landlock, but this kernel does not know how to {}", gaps.join(", ")),
            },
            _ => log::warn!("not confined: this kernel has no Landlock, or it is not enabled"),
        }
        Ok(())
    }

    fn restrict(&self) -> Result<RestrictionStatus, RulesetError> {
        let mut ruleset =
            Ruleset::default().handle_access(AccessFs::from_all(TESTED))?.scope(Scope::from_all(TESTED))?;
        if !self.network {
            ruleset = ruleset.handle_access(AccessNet::from_all(TESTED))?;
        }
        let mut rules = ruleset.create()?;
        for (_, reach) in &self.reach {
            rules = rules.add_rules(path_beneath_rules([reach.path()], reach.access()))?;
        }
        if self.programs {
            let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
            rules = rules
                .add_rules(path_beneath_rules(PROGRAMS, read | AccessFs::Execute))?
                .add_rules(path_beneath_rules(LOOKED_UP, read))?
                .add_rules(path_beneath_rules(RANDOM, read))?
                .add_rules(path_beneath_rules(NOTHING, read | AccessFs::WriteFile))?;
        }
        rules.restrict_self()
    }
}

/// What a kernel with this version of Landlock leaves open.
fn unenforced(version: ABI) -> &'static [&'static str] {
    const GAPS: [&str; 4] =
        ["keep files from being truncated", "forbid TCP connections", "forbid ioctl on devices", "forbid signals"];
    match version {
        ABI::Unsupported | ABI::V1 | ABI::V2 => &GAPS,
        ABI::V3 => &GAPS[1..],
        ABI::V4 => &GAPS[2..],
        ABI::V5 => &GAPS[3..],
        _ => &[],
    }
}
