//! How a transform's program is started: by way of this program, which puts fences and limits on itself and becomes the
//! program. A process can restrict itself alone.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, getppid, setrlimit};

use super::{Limit, system_calls};
use crate::confine::{Landlock, Reach};

/// This program, even when its file has been replaced meanwhile.
pub(super) const OURSELVES: &str = "/proc/self/exe";

/// The first argument that makes this program a launcher: `LAUNCH RESTRICTION… -- PATH NAME ARGUMENT…`.
const LAUNCH: &str = "launch-transform";

/// What a transform is kept from. It is a part of what the server itself is kept from, or more.
#[derive(Debug, Clone, Default)]
pub struct Fences {
    /// What Landlock leaves; `None` does without Landlock.
    pub landlock: Option<Landlock>,
    /// The transform may make sockets.
    pub sockets: bool,
}

/// One thing that the launcher does to itself, as one word of its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Restriction {
    Limit(Limit),
    /// Landlock's fences for signals and the like.
    Landlock,
    /// Its fence for TCP.
    NoTcp,
    /// Its fence for all files that no `Reach` names.
    Files,
    Reach(Reach),
    /// The filter of system calls, with sockets or without.
    Calls,
    CallsButSockets,
}

/// The words of restrictions that name nothing.
const PLAIN: [(&str, Restriction); 5] = [
    ("landlock", Restriction::Landlock),
    ("no-tcp", Restriction::NoTcp),
    ("files", Restriction::Files),
    ("calls", Restriction::Calls),
    ("calls-but-sockets", Restriction::CallsButSockets),
];

type MakeReach = fn(PathBuf) -> Reach;

/// The words of restrictions that name a path.
const REACHED: [(&str, MakeReach); 4] =
    [("read=", Reach::Read), ("change=", Reach::Files), ("all=", Reach::All), ("run=", Reach::Run)];

impl Restriction {
    fn encode(&self) -> OsString {
        let path = |at: usize, path: &Path| {
            let mut word = OsString::from(REACHED[at].0);
            word.push(path);
            word
        };
        match self {
            Self::Limit(limit) => limit.to_string().into(),
            Self::Reach(Reach::Read(read)) => path(0, read),
            Self::Reach(Reach::Files(changed)) => path(1, changed),
            Self::Reach(Reach::All(all)) => path(2, all),
            Self::Reach(Reach::Run(run)) => path(3, run),
            plain => PLAIN.iter().find(|(_, it)| it == plain).map_or_else(OsString::new, |(word, _)| word.into()),
        }
    }

    fn decode(word: &OsStr) -> io::Result<Self> {
        if let Some((_, plain)) = PLAIN.iter().find(|(name, _)| word == *name) {
            return Ok(plain.clone());
        }
        let octets = word.as_bytes();
        let path = |octets: &[u8]| PathBuf::from(OsString::from_vec(octets.to_vec()));
        let reached = REACHED.iter().find_map(|(name, reach)| Some(reach(path(octets.strip_prefix(name.as_bytes())?))));
        match reached {
            Some(reach) => Ok(Self::Reach(reach)),
            None => word.to_string_lossy().parse().map(Self::Limit).map_err(io::Error::other),
        }
    }
}

/// The restrictions of a transform, as a command line has them. None where none is asked for, or the kernel can none.
pub(super) fn restrictions(limits: &[Limit], fences: &Fences) -> Vec<OsString> {
    let mut all = Vec::new();
    if let Some(Landlock { reach, files, network, .. }) = &fences.landlock {
        all.push(Restriction::Landlock);
        all.extend((!network).then_some(Restriction::NoTcp));
        if *files {
            all.push(Restriction::Files);
            all.extend(reach.iter().map(|(_, reach)| Restriction::Reach(reach.clone())));
        }
    }
    if system_calls::can_be_filtered() {
        all.push(if fences.sockets { Restriction::CallsButSockets } else { Restriction::Calls });
    }
    all.extend(limits.iter().cloned().map(Restriction::Limit));
    all.iter().map(Restriction::encode).collect()
}

/// The command that starts `program`, which is at `path` as far as is known, with `restrictions`.
pub(super) fn command(program: &str, path: Option<&Path>, restrictions: &[OsString]) -> Command {
    let path = path.unwrap_or(Path::new(program));
    let mut command;
    if restrictions.is_empty() {
        command = Command::new(path);
        command.arg0(program);
    } else {
        command = Command::new(OURSELVES);
        command.arg(LAUNCH).args(restrictions).arg("--").arg(path).arg(program);
    }
    command
}

/// If this process was started as a launcher: what has kept it from becoming the program.
#[must_use]
pub fn launch(arguments: env::ArgsOs) -> Option<io::Error> {
    let mut arguments = arguments.skip(1);
    (arguments.next()? == LAUNCH).then(|| become_program(arguments).unwrap_or_else(|error| error))
}

fn become_program(mut arguments: impl Iterator<Item = OsString>) -> io::Result<io::Error> {
    let words = arguments.by_ref().take_while(|argument| argument != "--");
    restrict(words.map(|word| Restriction::decode(&word)).collect::<io::Result<_>>()?)?;
    let path = arguments.next().ok_or_else(|| io::Error::other("no program"))?;
    let name = arguments.next().ok_or_else(|| io::Error::other("no name of the program"))?;
    let error = Command::new(&path).arg0(name).args(arguments).exec();
    Ok(io::Error::new(error.kind(), format!("cannot run {}: {error}", path.display())))
}

/// Restricts this process: limits last, as they may leave no descriptor for anything else.
fn restrict(restrictions: Vec<Restriction>) -> io::Result<()> {
    let has = |wanted| restrictions.contains(&wanted);
    if has(Restriction::Landlock) {
        let reach = restrictions.iter().filter_map(|restriction| match restriction {
            Restriction::Reach(reach) => Some(("", reach.clone())),
            _ => None,
        });
        let (files, network) = (has(Restriction::Files), !has(Restriction::NoTcp));
        let landlock = Landlock { reach: reach.collect(), programs: true, files, network, ports: Some(Vec::new()) };
        landlock.restrict().map_err(|error| io::Error::other(format!("cannot be confined by Landlock: {error}")))?;
    }
    if has(Restriction::Calls) || has(Restriction::CallsButSockets) {
        system_calls::forbid(has(Restriction::CallsButSockets))
            .map_err(|error| io::Error::other(format!("cannot be kept from system calls: {error}")))?;
    }
    restrictions.iter().try_for_each(|restriction| match restriction {
        Restriction::Limit(limit) => limit_to(limit),
        _ => Ok(()),
    })
}

fn limit_to(limit: &Limit) -> io::Result<()> {
    let resource = limit.resource();
    // The kernel counts all threads of a user, of which the server's are many.
    let others = if resource == Resource::Nproc { threads_of_parent()? } else { 0 };
    let most = Some(limit.most().saturating_add(others));
    setrlimit(resource, Rlimit { current: most, maximum: most })
        .map_err(|error| io::Error::other(format!("cannot limit {limit}: {error}")))
}

/// How many threads the server has that has started this process.
fn threads_of_parent() -> io::Result<u64> {
    let parent = getppid().ok_or_else(|| io::Error::other("the server has gone"))?;
    let status = fs::read_to_string(format!("/proc/{}/status", parent.as_raw_nonzero()))?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok());
    threads.ok_or_else(|| io::Error::other("/proc does not tell the server's threads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_carries_every_restriction() {
        let odd = || PathBuf::from(OsString::from_vec(b"/srv/\xFF=--".to_vec()));
        let all = PLAIN.iter().map(|(_, plain)| plain.clone());
        let all = all.chain(REACHED.iter().map(|(_, reach)| Restriction::Reach(reach(odd()))));
        for restriction in all.chain([Restriction::Limit("memory=5M".parse().unwrap())]) {
            assert_eq!(Restriction::decode(&restriction.encode()).unwrap(), restriction);
        }
        for bad in ["", "landlock=", "read", "write=/", "cpu=x"] {
            assert!(Restriction::decode(OsStr::new(bad)).is_err(), "{bad:?}");
        }
    }
}
