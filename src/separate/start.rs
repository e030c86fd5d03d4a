//! Starts the monitor as a child of the server, and logs what it says.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::Duration;

use log::Level;

use super::Workers;
use super::door::{Door, pair};

/// The longest line of the monitor or of a module that is logged whole.
const LONGEST_LINE: u64 = 500;

/// The programs that modules start are looked for here.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How the log names the processes.
#[derive(Debug, Clone)]
pub struct Named {
    /// In front of each line that they write.
    pub prefix: &'static str,
    /// The logins that fail without them, as in "logins by PAM".
    pub logins: String,
}

/// A monitor that has been started.
#[derive(Debug)]
pub struct Monitored {
    child: Child,
    said: ChildStderr,
    named: Named,
}

/// Starts the monitor of workers, each of which may take `limit` for an answer, by this command. They keep the rights that
/// this process has now.
///
/// # Errors
/// When the program cannot be started.
pub fn start(mut command: Command, named: Named, limit: Duration) -> io::Result<(Workers, Monitored)> {
    let (ours, theirs) = pair()?;
    command.env_clear().env("PATH", PATH).current_dir("/").process_group(0);
    let mut child = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let said = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((Workers::new(Door::Shared(ours), limit), Monitored { child, said, named }))
}

impl Monitored {
    /// Starts a thread that logs what the monitor and the modules say, and that the monitor has ended.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn log(self) -> io::Result<()> {
        let Self { mut child, said, named: Named { prefix, logins } } = self;
        let listen = move || {
            log_lines(said, prefix);
            let how = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            log::error!(
                "the monitor of the {prefix} processes has ended ({how}). This server has no right to start it again: \
                 {logins} fail until the server is restarted"
            );
        };
        thread::Builder::new().name("separate".to_owned()).spawn(listen).map(drop)
    }
}

/// Logs each line, at the level that it begins with (sd-daemon(3)), or as a warning. A long one is logged in parts.
fn log_lines(said: ChildStderr, prefix: &str) {
    let mut said = BufReader::new(said);
    let mut line = Vec::new();
    while let Ok(1..) = said.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(line.trim_ascii_end());
        let levels = [("<3>", Level::Error), ("<4>", Level::Warn), ("<6>", Level::Info)];
        let levelled = levels.into_iter().find_map(|(word, level)| Some((level, text.strip_prefix(word)?)));
        let (level, text) = levelled.unwrap_or((Level::Warn, &text));
        log::log!(level, "{prefix}: {}", text.escape_debug());
        line.clear();
    }
}
