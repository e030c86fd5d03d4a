//! What a transform may use at most. A process can limit itself alone, so a program with limits is started by way of
//! this program, which limits itself and becomes it.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use rustix::process::{Resource, Rlimit, getppid, setrlimit};

/// This program, even when its file has been replaced meanwhile.
pub(super) const OURSELVES: &str = "/proc/self/exe";

/// The first argument that makes this program a launcher: `LAUNCH LIMIT… -- PROGRAM ARGUMENT…`.
const LAUNCH: &str = "launch-limited";

/// One limit, as `cpu=10`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    resource: Resource,
    most: u64,
    /// As it was written.
    text: String,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = text.split_once('=').ok_or("it has to be NAME=N")?;
        let (resource, most) = match name {
            "cpu" => (Resource::Cpu, number.parse().ok()),
            "memory" => (Resource::As, octets(number)),
            "file-size" => (Resource::Fsize, octets(number)),
            "files" => (Resource::Nofile, number.parse().ok()),
            // The program is one.
            "processes" => (Resource::Nproc, number.parse().ok().filter(|most| *most > 0)),
            _ => return Err("there are cpu, memory, file-size, files and processes".to_owned()),
        };
        let most = most.ok_or_else(|| format!("{number:?} is no number for it"))?;
        Ok(Self { resource, most, text: text.to_owned() })
    }
}

impl Limit {
    /// Whether the other one limits the same resource.
    #[must_use]
    pub fn is_of_same(&self, other: &Self) -> bool {
        self.resource == other.resource
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `512M` and the like.
fn octets(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().last()? {
        (at, 'K') => (&text[..at], 1 << 10),
        (at, 'M') => (&text[..at], 1 << 20),
        (at, 'G') => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// The command that starts `program`, which is at `path` as far as is known, with `limits`.
pub(super) fn command(program: &str, path: Option<&Path>, limits: &[Limit]) -> Command {
    let path = path.unwrap_or(Path::new(program));
    let mut command;
    if limits.is_empty() {
        command = Command::new(path);
        command.arg0(program);
    } else {
        command = Command::new(OURSELVES);
        command.arg(LAUNCH).args(limits.iter().map(ToString::to_string)).arg("--").arg(path);
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
    let limits: Vec<_> = arguments.by_ref().take_while(|argument| argument != "--").collect();
    for limit in limits {
        let Limit { resource, most, .. } = limit.to_string_lossy().parse().map_err(io::Error::other)?;
        // The kernel counts all threads of a user, of which the server's are many.
        let others = if resource == Resource::Nproc { threads_of_parent()? } else { 0 };
        let most = Some(most.saturating_add(others));
        setrlimit(resource, Rlimit { current: most, maximum: most })
            .map_err(|error| io::Error::other(format!("cannot limit {}: {error}", limit.display())))?;
    }
    let program = arguments.next().ok_or_else(|| io::Error::other("no program"))?;
    let error = Command::new(&program).args(arguments).exec();
    Ok(io::Error::new(error.kind(), format!("cannot run {}: {error}", program.display())))
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
    fn limits_are_names_and_numbers() {
        for (text, resource, most) in [
            ("cpu=10", Resource::Cpu, 10),
            ("memory=512M", Resource::As, 512 << 20),
            ("file-size=0", Resource::Fsize, 0),
            ("file-size=3K", Resource::Fsize, 3072),
            ("memory=1G", Resource::As, 1 << 30),
            ("files=16", Resource::Nofile, 16),
            ("processes=5", Resource::Nproc, 5),
        ] {
            let limit: Limit = text.parse().unwrap();
            assert_eq!((limit.resource, limit.most, limit.to_string()), (resource, most, text.to_owned()));
        }
        let overflows = format!("memory={}G", u64::MAX);
        for bad in ["", "cpu", "cpu=", "cpu=-1", "cpu=1M", "memory=M", "memory=1T", "size=1", "processes=0", &overflows]
        {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }
}
