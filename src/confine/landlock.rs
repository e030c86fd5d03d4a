//! Landlock: the kernel lets the server, and the programs that it starts, use only the files that are listed here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope, make_bitflags, path_beneath_rules,
};

use super::ConfineError;

/// The version of Landlock that the server has been tested with. On an older kernel, only the restrictions that it supports
/// are in force.
const TESTED: ABI = ABI::V7;

/// Directories of programs and shared libraries.
const PROGRAMS: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"];

/// Files that ordinary programs and libraries read. The rest of /etc stays forbidden.
const COMMON_FILES: [&str; 9] = [
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
const NULL_DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/full"];

/// A file or directory, and what a process may do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// A file or directory that may be read.
    Read(PathBuf),
    /// A directory in which files may be read, written, created, renamed, removed and moved to its sub-directories.
    Files(PathBuf),
    /// A directory in which everything is allowed except running programs.
    All(PathBuf),
    /// A program, or a directory of programs, that may be run.
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
            Self::Files(_) => read | make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | RemoveFile | Refer}),
            Self::All(_) => {
                AccessFs::from_all(TESTED) & !make_bitflags!(AccessFs::{Execute | MakeChar | MakeBlock | IoctlDev})
            }
            Self::Run(_) => read | AccessFs::Execute,
        }
    }
}

/// What Landlock still allows to a process. It always forbids signals to other processes and their abstract UNIX sockets.
#[derive(Debug, Clone, Default)]
pub struct Landlock {
    /// The files and directories that the process may use, each with the flag that named it, for error messages.
    pub reach: Vec<(&'static str, Reach)>,
    /// True if the system's programs may be started, in addition to those in `reach`.
    pub programs: bool,
    /// True if all other files are forbidden.
    pub files: bool,
    /// True if TCP connections may be made and all ports bound.
    pub network: bool,
    /// The TCP ports that may be connected to without `network`.
    pub connect: Vec<u16>,
    /// The TCP ports that may be bound without `network`, if not all. 0 stands for those that the kernel chooses.
    pub ports: Option<Vec<u16>>,
}

impl Landlock {
    /// Opens the files that the rules name, with the present rights of the process. The rules are in force only after
    /// [`Rules::enforce`].
    pub(super) fn open(&self) -> Result<Rules, ConfineError> {
        for (flag, reach) in &self.reach {
            let fits = fs::metadata(reach.path()).and_then(|file| match reach {
                Reach::Files(_) | Reach::All(_) if !file.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
                _ => Ok(()),
            });
            fits.map_err(|error| ConfineError::Path(flag, reach.path().to_owned(), error))?;
        }
        let rules = self.rules().map_err(|error| ConfineError::Kernel(error.to_string()))?;
        Ok(Rules { rules, files: self.files, network: self.network })
    }

    /// Puts the rules in force at once and logs nothing. Paths that do not exist are skipped.
    ///
    /// # Errors
    /// If the kernel supports Landlock but refuses the rules.
    pub fn restrict(&self) -> Result<(), String> {
        let restricted = self.rules().and_then(RulesetCreated::restrict_self);
        restricted.map(|_| ()).map_err(|error| error.to_string())
    }

    fn rules(&self) -> Result<RulesetCreated, RulesetError> {
        let mut ruleset = Ruleset::default().scope(Scope::from_all(TESTED))?;
        if self.files {
            ruleset = ruleset.handle_access(AccessFs::from_all(TESTED))?;
        }
        let ports = self.ports.as_ref().filter(|_| !self.network);
        if !self.network {
            ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
        }
        if ports.is_some() {
            ruleset = ruleset.handle_access(AccessNet::BindTcp)?;
        }
        let mut rules = ruleset.create()?;
        for port in self.connect.iter().filter(|_| !self.network) {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        for port in ports.into_iter().flatten() {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
        }
        if !self.files {
            return Ok(rules);
        }
        for (_, reach) in &self.reach {
            rules = rules.add_rules(path_beneath_rules([reach.path()], reach.access()))?;
        }
        if self.programs {
            let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
            rules = rules
                .add_rules(path_beneath_rules(PROGRAMS, read | AccessFs::Execute))?
                .add_rules(path_beneath_rules(COMMON_FILES, read))?
                .add_rules(path_beneath_rules(RANDOM, read))?
                .add_rules(path_beneath_rules(NULL_DEVICES, read | AccessFs::WriteFile))?;
        }
        Ok(rules)
    }
}

/// Rules that are ready to be put in force: their files are open.
pub(super) struct Rules {
    rules: RulesetCreated,
    files: bool,
    network: bool,
}

impl Rules {
    /// Puts the rules in force, which cannot be undone, and logs the result.
    pub(super) fn enforce(self) -> Result<(), ConfineError> {
        let Self { rules, files, network } = self;
        let status = rules.restrict_self().map_err(|error| ConfineError::Kernel(error.to_string()))?;
        let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
            log::warn!("not confined: this kernel has no Landlock, or it is not enabled");
            return Ok(());
        };
        if files {
            log::info!("confined by Landlock to the files that it serves");
        } else {
            log::info!(
                "not confined to the files that it serves: it can use all files that its user can use (see --confine)"
            );
        }
        let gaps = unenforced(effective_abi, files, network);
        if !gaps.is_empty() {
            log::warn!("this kernel's version of Landlock cannot {}", gaps.join(", "));
        }
        Ok(())
    }
}

/// Returns the requested restrictions that this version of Landlock does not support.
fn unenforced(version: ABI, files: bool, network: bool) -> Vec<&'static str> {
    let asked = [
        (files, ABI::V3, "keep files from being truncated"),
        (!network, ABI::V4, "forbid TCP connections"),
        (files, ABI::V5, "forbid ioctl on devices"),
        (true, ABI::V6, "forbid signals"),
    ];
    asked.into_iter().filter(|(asked, since, _)| *asked && version < *since).map(|(.., what)| what).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requested_restrictions_are_reported_as_missing() {
        assert_eq!(unenforced(ABI::V7, true, false), [""; 0]);
        assert_eq!(unenforced(ABI::V5, false, false), ["forbid signals"]);
        assert_eq!(unenforced(ABI::V1, false, true), ["forbid signals"]);
        assert_eq!(unenforced(ABI::V1, true, false).len(), 4);
    }
}
