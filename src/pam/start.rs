//! Starts the monitor as a child of the server, and logs what it says.

use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::fs::{Access, access};

use super::door::{Door, pair};
use super::{PROGRAM, Workers};

/// Where the Debian package has the program.
const PACKAGED: &str = "/usr/libexec/pop3d";

/// The longest line of the monitor or of a module that is logged whole.
const LONGEST_LINE: u64 = 500;

/// The programs that modules start are looked for here.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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

/// A monitor that has been started.
#[derive(Debug)]
pub struct Monitored {
    child: Child,
    said: ChildStderr,
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
    let (ours, theirs) = pair()?;
    let mut command = Command::new(program);
    command.args(["--service", service, "--processes", &count.to_string()]);
    command.args(["--timeout", &limit.as_secs().max(1).to_string()]);
    command.env_clear().env("PATH", PATH).current_dir("/").process_group(0);
    let mut child = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let said = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((Workers::new(Door::Shared(ours), limit), Monitored { child, said }))
}

impl Monitored {
    /// Starts a thread that logs what the monitor and the modules say, and that the monitor has ended.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn log(self) -> io::Result<()> {
        let Self { mut child, said } = self;
        let listen = move || {
            log_lines(said);
            let how = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            log::error!(
                "the monitor of the PAM processes has ended ({how}). This server has no right to start it again: logins \
                 by PAM fail until the server is restarted"
            );
        };
        thread::Builder::new().name("pam".to_owned()).spawn(listen).map(drop)
    }
}

/// Logs each line. A long one is logged in parts.
fn log_lines(said: ChildStderr) {
    let mut said = BufReader::new(said);
    let mut line = Vec::new();
    while let Ok(1..) = said.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(line.trim_ascii_end());
        log::warn!("PAM: {}", text.escape_debug());
        line.clear();
    }
}
