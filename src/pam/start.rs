//! The program that calls libpam: where it is, and how it is started.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::thread::CapabilitySet;

use super::{Answer, PROGRAM, Question};
use crate::separate::{self, Monitor, Monitored, Named, Work, Workers};

/// Where the Debian package has the program.
const PACKAGED: &str = "/usr/libexec/pop3d";

/// After how many questions a worker ends, so that a module that loses memory or descriptors does no harm. The monitor
/// starts another one.
const RENEWED_AFTER: usize = 1000;

/// The capabilities that modules of PAM use. Modules that run as root read files of root, change to a user's ids for a
/// program, keep files for each user (such as the failures that pam_faillock counts), and report to the kernel's audit log.
/// They need no other right of root's: they mount nothing, bind no ports, load no modules of the kernel, and look into no
/// other process.
const NEEDED: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// How workers come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The server starts this program, whose workers ask PAM for this service.
    Program {
        /// The program's path.
        program: PathBuf,
        /// The name of a file in /etc/pam.d.
        service: String,
    },
    /// Another service has started them, and they wait at this UNIX socket.
    Socket(PathBuf),
}

/// Returns the path of the program that calls libpam: beside this program, or where the Debian package has it.
///
/// # Errors
/// When it is in neither place.
pub fn find_program() -> Result<PathBuf, String> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PROGRAM)));
    let places = beside.into_iter().chain([Path::new(PACKAGED).join(PROGRAM)]);
    let mut programs = places.filter(|path| access(path, Access::EXEC_OK).is_ok());
    programs.next().ok_or_else(|| {
        format!("the program {PROGRAM} was found neither beside this one nor in {PACKAGED}: PAM needs it, and a build without the feature pam does not have it")
    })
}

/// Starts the monitor of `count` workers for a service of PAM, each of which may take `limit` for an answer. They keep the
/// rights that this process has now.
///
/// # Errors
/// When the program cannot be started.
pub fn start(program: &Path, service: &str, count: usize, limit: Duration) -> io::Result<(Workers, Monitored)> {
    let mut command = Command::new(program);
    command.args(["--service", service, "--processes", &count.to_string()]);
    command.args(["--timeout", &limit.as_secs().max(1).to_string()]);
    separate::start(command, Named { prefix: "PAM", logins: "logins by PAM".to_owned() }, limit)
}

/// Watches `count` processes that this command starts, each of which may take `limit` for an answer.
///
/// # Errors
/// When a system call fails that never does.
pub fn watch(worker: Vec<OsString>, count: usize, limit: Duration) -> io::Result<()> {
    separate::watch(&Monitor { worker, count, limit, keep: NEEDED })
}

/// Answers questions, one at a time.
///
/// # Errors
/// When a system call fails.
pub fn work(answer: impl Fn(&Question) -> Answer + Sync) -> io::Result<()> {
    let work = Work { threads: 1, renewed_after: Some(RENEWED_AFTER) };
    work.run(|question| Some(answer(&Question::decode(question)?).encode()))
}
