//! The launcher of transforms. A process can only restrict itself, so the server starts its own executable with the
//! restrictions as arguments; that process restricts itself and then executes the transform's program.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, getppid, setrlimit};

use super::{Limit, checkpassword};
use crate::confine::{Landlock, Reach, system_calls};

/// The running executable, even if its file has been replaced since.
pub(crate) const OURSELVES: &str = "/proc/self/exe";

/// The first argument of a launcher, whose command line is `LAUNCH RESTRICTION… -- PATH NAME ARGUMENT…`.
const LAUNCH: &str = "launch-transform";

/// The confinement of transforms. It is at least as strict as that of the server, because it is added to it.
#[derive(Debug, Clone, Default)]
pub struct Fences {
    /// What Landlock still allows; `None` for no Landlock.
    pub landlock: Option<Landlock>,
    /// True if the transform may create sockets.
    pub sockets: bool,
}

/// One restriction that the launcher puts on itself. Each is one word of its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Restriction {
    Limit(Limit),
    /// Landlock forbids signals to other processes and their abstract UNIX sockets.
    Landlock,
    /// Landlock forbids TCP connections.
    NoTcp,
    /// Landlock forbids all files except those that a `Reach` names.
    Files,
    Reach(Reach),
    /// A filter of system calls that forbids sockets.
    Calls,
    /// A filter of system calls that allows sockets.
    CallsButSockets,
}

/// The words of the restrictions without a path or number.
const PLAIN: [(&str, Restriction); 5] = [
    ("landlock", Restriction::Landlock),
    ("no-tcp", Restriction::NoTcp),
    ("files", Restriction::Files),
    ("calls", Restriction::Calls),
    ("calls-but-sockets", Restriction::CallsButSockets),
];

type MakeReach = fn(PathBuf) -> Reach;

/// The words of the restrictions with a path.
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

/// Returns the restrictions of a transform as words of the launcher's command line. Restrictions that this kernel does not
/// support are left out.
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

/// Returns the command that starts `program` with `restrictions`. `path` is where the program is, if it was found.
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

/// If this process was started as a launcher, becomes the transform's program. Returns only if it was not started as one
/// (`None`) or with the error that stopped it.
#[must_use]
pub fn launch(arguments: env::ArgsOs) -> Option<io::Error> {
    let mut arguments = arguments.skip(1);
    let became = match arguments.next()?.to_str()? {
        LAUNCH => become_program(arguments),
        checkpassword::ASK => checkpassword::become_program(arguments),
        _ => return None,
    };
    Some(became.unwrap_or_else(|error| error))
}

fn become_program(mut arguments: impl Iterator<Item = OsString>) -> io::Result<io::Error> {
    restrict_by(arguments.by_ref().take_while(|argument| argument != "--"))?;
    let path = arguments.next().ok_or_else(|| io::Error::other("no program"))?;
    let name = arguments.next().ok_or_else(|| io::Error::other("no name of the program"))?;
    let error = Command::new(&path).arg0(name).args(arguments).exec();
    Ok(io::Error::new(error.kind(), format!("cannot run {}: {error}", path.display())))
}

/// Restricts this process by these words of its command line.
pub(super) fn restrict_by(words: impl Iterator<Item = OsString>) -> io::Result<()> {
    restrict(words.map(|word| Restriction::decode(&word)).collect::<io::Result<_>>()?)
}

/// Restricts this process. Limits come last, because a limit on open files may leave no descriptor for the rest.
fn restrict(restrictions: Vec<Restriction>) -> io::Result<()> {
    let has = |wanted| restrictions.contains(&wanted);
    if has(Restriction::Landlock) {
        let reach = restrictions.iter().filter_map(|restriction| match restriction {
            Restriction::Reach(reach) => Some(("", reach.clone())),
            _ => None,
        });
        let (files, network) = (has(Restriction::Files), !has(Restriction::NoTcp));
        let landlock = Landlock {
            reach: reach.collect(),
            programs: true,
            files,
            network,
            connect: Vec::new(),
            ports: Some(Vec::new()),
        };
        landlock
            .restrict()
            .map_err(|error| io::Error::other(format!("cannot confine the transform by Landlock: {error}")))?;
    }
    if has(Restriction::Calls) || has(Restriction::CallsButSockets) {
        system_calls::forbid(has(Restriction::CallsButSockets))
            .map_err(|error| io::Error::other(format!("cannot forbid system calls to the transform: {error}")))?;
    }
    restrictions.iter().try_for_each(|restriction| match restriction {
        Restriction::Limit(limit) => limit_to(limit),
        _ => Ok(()),
    })
}

fn limit_to(limit: &Limit) -> io::Result<()> {
    let resource = limit.resource();
    // The kernel counts all threads of the user, and the server's many threads are among them.
    let others = if resource == Resource::Nproc { threads_of_parent()? } else { 0 };
    let most = Some(limit.most().saturating_add(others));
    setrlimit(resource, Rlimit { current: most, maximum: most })
        .map_err(|error| io::Error::other(format!("cannot limit {limit}: {error}")))
}

/// Returns the number of threads of the server that started this process.
fn threads_of_parent() -> io::Result<u64> {
    let parent = getppid().ok_or_else(|| io::Error::other("the server has ended"))?;
    let status = fs::read_to_string(format!("/proc/{}/status", parent.as_raw_nonzero()))?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok());
    threads.ok_or_else(|| io::Error::other("/proc does not show how many threads the server has"))
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
