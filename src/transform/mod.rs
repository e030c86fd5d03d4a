//! Passes messages through a program of the operator's choice (`--transform`). The message's file is the program's standard
//! input; what the program writes is sent to the client at once.
//!
//! - [`Transform`] is the program with its arguments, timeout and limits; [`Transform::start`] runs it on a message with
//!   the environment that [`Subject`] describes, without a shell, as the leader of a process group.
//! - [`Running`] reads its output. The group is killed when the program ends or fails, writes nothing for too long, or
//!   its [`Client`] has left; the program is always reaped. [`Failure`] says what went wrong.
//! - [`Rules`] say what clients see of it.
//! - [`Limit`] is one `--transform-limit`; [`launch()`] applies them in the new process.
//!
//! Account sources run programs the same way, by another interface (`checkpassword`).
//!
//! RETR and TOP in [`crate::pop3`] are the callers. [`Transform::run`] runs it for no client, to find out what it does:
//! [`crate::counting`] and PEEP call it.

mod checkpassword;
mod feed;
mod launch;
mod limits;
mod rules;
mod whole;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, access};
use rustix::io::{Errno, ioctl_fionread};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use sha2::{Digest, Sha256};

use crate::acting;
use crate::maildrop::{Fingerprint, MessageNumber, Source};
pub(crate) use checkpassword::Reply;
pub use checkpassword::report;
use feed::Feed;
pub use feed::Input;
pub(crate) use launch::OURSELVES;
pub use launch::{Fences, launch};
pub use limits::Limit;
pub use rules::{OnFailure, Rules, Sizes};

/// After the program has ended, how long the processes that it left behind may write nothing before they are killed.
const LINGER: Duration = Duration::from_secs(1);

/// The program that messages go through.
#[derive(Debug, Clone)]
pub struct Transform {
    /// The program as the operator wrote it.
    program: String,
    /// Where the program is, if it was found. It is looked up once: with only a name and an environment for the child, the
    /// standard library would have to fork(2), which copies the server's page tables and takes several times as long.
    path: Option<PathBuf>,
    arguments: Vec<String>,
    /// How long the program may write nothing; `None` for no limit.
    patience: Option<Duration>,
    /// The launcher's arguments. If they are empty, the program is started directly.
    restrictions: Vec<OsString>,
    rules: Rules,
}

/// What a transform is told about its message, by environment variables.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// `POP3_USER`: the user's name.
    pub user: &'a str,
    /// `POP3_UIDL`: the unique-id.
    pub unique_id: &'a str,
    /// `POP3_MESSAGE`: the message number in the session.
    pub number: MessageNumber,
}

/// A transform that is running on one message.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The program's output; `None` once it has been closed because the output is no longer wanted.
    stdout: Option<ChildStdout>,
    /// What the program still has to read, if the message is not the whole of its file.
    feed: Option<Feed>,
    /// A descriptor that becomes readable when the child has ended. The child still has to be reaped.
    ended: OwnedFd,
    /// How many octets are left in the pipe, once the program has ended and its other processes have been killed.
    rest: Option<u64>,
    reaped: bool,
    patience: Option<Duration>,
}

/// How a transform failed.
#[derive(Debug)]
pub enum Failure {
    /// It wrote nothing for too long.
    Silent,
    /// It was still writing when its time was over.
    Endless,
    /// The client disconnected, so the message is no longer wanted.
    ClientLeft,
    /// It ended with a status other than 0, or by a signal.
    Status(ExitStatus),
    /// It could not be started or read.
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("no output for too long"),
            Self::Endless => f.write_str("it takes too long"),
            Self::ClientLeft => f.write_str("the client went away"),
            Self::Status(status) => status.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Transform {
    /// Splits a command line into words by the shell's rules. Returns `None` if it has no words or an unclosed quote.
    #[must_use]
    pub fn new(command_line: &str, patience: Option<Duration>) -> Option<Self> {
        let mut words = shell_words::split(command_line).ok()?.into_iter();
        let program = words.next().filter(|program| !program.is_empty())?;
        let path = find_program(&program);
        Some(Self {
            program,
            path,
            arguments: words.collect(),
            patience,
            restrictions: Vec::new(),
            rules: Rules::default(),
        })
    }

    /// The program as the operator wrote it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.program
    }

    /// Returns the path of the program.
    ///
    /// # Errors
    /// If the program was not found.
    pub fn program(&self) -> Result<&Path, String> {
        self.path.as_deref().ok_or_else(|| format!("the program {:?} was not found", self.program))
    }

    /// Adds limits and a confinement. [`Transform::log_gaps`] logs what the kernel does not support.
    #[must_use]
    pub fn restricted(self, limits: &[Limit], fences: &Fences) -> Self {
        Self { restrictions: launch::restrictions(limits, fences), ..self }
    }

    /// Sets what clients see of it.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// What clients see of it.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Logs a warning if the program was not found or the kernel cannot filter system calls.
    pub fn log_gaps(&self) {
        if self.path.is_none() {
            log::warn!("the transform's program {:?} was not found", self.program);
        }
        if !crate::confine::system_calls::can_be_filtered() {
            log::warn!("the transform may make all system calls, since this kernel cannot filter them (seccomp)");
        }
    }

    /// Returns the path of the launcher, which is this server's executable, if the transform needs one.
    #[must_use]
    pub fn launcher(&self) -> Option<&'static Path> {
        (!self.restrictions.is_empty()).then_some(Path::new(OURSELVES))
    }

    /// Returns the files and directories that the command line names, so that the confinement can allow them: the
    /// program's directory and those arguments that are files.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let near = self.path.as_deref().map(surroundings);
        let arguments = self.arguments.iter().map(PathBuf::from).filter(|argument| argument.is_file());
        near.into_iter().chain(arguments).collect()
    }

    /// Identifies the command line with the program's file and the files among its arguments, so that a change of one of
    /// them is noticed.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for word in std::iter::once(&self.program).chain(&self.arguments) {
            hash.update(word);
            hash.update([0]);
        }
        let files = self.path.iter().cloned().chain(self.arguments.iter().map(PathBuf::from));
        for file in files.filter_map(|path| fs::metadata(path).ok()).filter(fs::Metadata::is_file) {
            hash.update(file.size().to_le_bytes());
            hash.update(file.mtime().to_le_bytes());
            hash.update(file.mtime_nsec().to_le_bytes());
        }
        hash.finalize().into()
    }

    /// Starts the program on a message.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&self, message: impl Into<Input>, subject: Subject<'_>) -> Result<Running, Failure> {
        self.start_with(message, subject, Stdio::inherit())
    }

    fn start_with(&self, message: impl Into<Input>, subject: Subject<'_>, stderr: Stdio) -> Result<Running, Failure> {
        let (stdin, source) = message.into().into_stdin();
        let inherited = ["PATH", "LANG"].into_iter().filter_map(|name| Some((name, env::var_os(name)?)));
        let mut command = launch::command(&self.program, self.path.as_deref(), &self.restrictions);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(inherited)
            .env("POP3_USER", subject.user)
            .env("POP3_UIDL", subject.unique_id)
            .env("POP3_MESSAGE", subject.number.to_string())
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0);
        let mut child = acting::spawn(&mut command)?;
        match Pipes::of(&mut child, source) {
            Ok(Pipes { stdout, feed, ended }) => {
                let patience = self.patience;
                Ok(Running { child, stdout: Some(stdout), feed, ended, rest: None, reaped: false, patience })
            }
            Err(error) => {
                let _ = kill_and_reap(&mut child);
                Err(error.into())
            }
        }
    }
}

/// The descriptors by which the server follows a program.
struct Pipes {
    stdout: ChildStdout,
    feed: Option<Feed>,
    ended: OwnedFd,
}

impl Pipes {
    fn of(child: &mut Child, source: Option<Source>) -> io::Result<Self> {
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the child has no stdout"))?;
        let feed = match (source, child.stdin.take()) {
            (Some(source), Some(stdin)) => Some(Feed::new(source, stdin)?),
            _ => None,
        };
        Ok(Self { stdout, feed, ended: pidfd_open(Pid::from_child(child), PidfdFlags::empty())? })
    }
}

/// Finds a program as execvp(3) does.
fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let path = env::var_os("PATH")?;
    let is_program = |path: &PathBuf| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    env::split_paths(&path).map(|directory| directory.join(name)).find(is_program)
}

/// Returns the directory of a program, because the program may need other files there. If the directory is /, returns
/// only the program.
fn surroundings(program: &Path) -> PathBuf {
    // A name without a directory is in the working directory.
    let directory = Path::new(".").join(program.parent().unwrap_or(Path::new("")));
    match directory.canonicalize() {
        Ok(real) if real.parent().is_some() => directory,
        _ => program.to_owned(),
    }
}

/// The client that the transform's output is for.
pub trait Client {
    /// Returns the descriptor to poll for the end of the client's connection, if there is one.
    fn watch(&self) -> Option<BorrowedFd<'_>>;

    /// Returns true if the client has disconnected. Called when the client has closed its side of the connection.
    fn left(&mut self) -> bool;
}

impl Running {
    /// Reads output of the program, waiting for it while `client` is connected. Returns `Ok(0)` at the end of the output.
    ///
    /// # Errors
    /// Any [`Failure`] except [`Failure::Status`] and [`Failure::Endless`].
    pub fn read(&mut self, buffer: &mut [u8], client: &mut impl Client) -> Result<usize, Failure> {
        let Some(stdout) = &mut self.stdout else { return Ok(0) };
        if self.rest.is_none() {
            if wait(&[stdout.as_fd(), self.ended.as_fd()], &mut self.feed, client, self.patience)? == 0 {
                return Ok(stdout.read(buffer)?);
            }
            // The program has ended, but another process keeps its stdout open. That process may still have a part of the
            // message to write, so it gets some time.
            if !is_silent(stdout, client)? {
                return Ok(stdout.read(buffer)?);
            }
            kill_group(&self.child);
            // A process that has left the group may still run. What it writes from now on is ignored.
            self.rest = Some(ioctl_fionread(&*stdout).map_err(io::Error::from)?);
        }
        let Some(rest @ 1..) = self.rest else { return Ok(0) };
        let room = usize::try_from(rest).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let read = stdout.read(&mut buffer[..room])?;
        self.rest = Some(rest - read as u64);
        Ok(read)
    }

    /// Waits for the program to end, to be called at the end of its output.
    ///
    /// # Errors
    /// [`Failure::Status`] if the program failed; others if it keeps running without output.
    pub fn finish(&mut self, client: &mut impl Client) -> Result<(), Failure> {
        wait(&[self.ended.as_fd()], &mut self.feed, client, self.patience)?;
        self.reaped = true;
        let status = kill_and_reap(&mut self.child)?;
        if status.success() { Ok(()) } else { Err(Failure::Status(status)) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Once the child is reaped, another process may have its number.
        if !self.reaped {
            // A program that runs as another user cannot be killed. It ends when it writes to the closed pipe.
            self.stdout = None;
            let _ = kill_and_reap(&mut self.child);
        }
    }
}

/// Returns true if nothing can be read from the pipe, not even its end, for as long as [`LINGER`].
fn is_silent(stdout: &ChildStdout, client: &mut impl Client) -> Result<bool, Failure> {
    match wait(&[stdout.as_fd()], &mut None, client, Some(LINGER)) {
        Ok(_) => Ok(false),
        Err(Failure::Silent) => Ok(true),
        Err(failure) => Err(failure),
    }
}

/// Waits until one of `fds` is readable and returns its index; the first if several are. The program is fed meanwhile.
fn wait(
    fds: &[BorrowedFd<'_>],
    feed: &mut Option<Feed>,
    client: &mut impl Client,
    patience: Option<Duration>,
) -> Result<usize, Failure> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    // POLLHUP and POLLERR, which the kernel always reports, mean that the connection is lost. POLLRDHUP means only that
    // the client will send no more; it may still want the message.
    let mut interest = PollFlags::RDHUP;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        polled.extend(client.watch().map(|client| PollFd::from_borrowed_fd(client, interest)));
        let pipe = feed.as_ref().and_then(Feed::pipe);
        polled.extend(pipe.map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::OUT)));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) => return Err(Failure::Silent),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        if let Some(ready) = polled[..fds.len()].iter().position(|fd| !fd.revents().is_empty()) {
            return Ok(ready);
        }
        if pipe.is_some() && polled.pop().is_some_and(|pipe| !pipe.revents().is_empty()) {
            drop(polled);
            if let Some(feed) = feed {
                feed.push()?;
            }
            continue;
        }
        let events = polled.last().map_or(PollFlags::empty(), PollFd::revents);
        if events.intersects(PollFlags::HUP | PollFlags::ERR) || !events.is_empty() && client.left() {
            return Err(Failure::ClientLeft);
        }
        interest = PollFlags::empty();
    }
}

fn kill_group(leader: &Child) {
    let _ = kill_process_group(Pid::from_child(leader), Signal::KILL);
}

/// Kills the child's process group, and the child itself in case it has left the group, then reaps it. The child is reaped
/// last, because afterwards another process may have its number.
fn kill_and_reap(child: &mut Child) -> io::Result<ExitStatus> {
    kill_group(child);
    let _ = child.kill();
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::kill_process;
    use std::fs::File;
    use std::io::{Seek, Write};

    fn subject() -> Subject<'static> {
        Subject { user: "ana", unique_id: "1.2.h", number: MessageNumber::new(3).unwrap() }
    }

    /// A client that stays connected.
    struct Patient;

    impl Client for Patient {
        fn watch(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        fn left(&mut self) -> bool {
            false
        }
    }

    fn message(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    fn run(command_line: &str, patience: Option<Duration>) -> Result<String, Failure> {
        let mut running = Transform::new(command_line, patience).unwrap().start(message("some mail\n"), subject())?;
        let mut text = Vec::new();
        let mut buffer = [0; 4];
        loop {
            match running.read(&mut buffer, &mut Patient)? {
                0 => break,
                read => text.extend_from_slice(&buffer[..read]),
            }
        }
        running.finish(&mut Patient)?;
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        assert_eq!(run(r#"sh -c 'cat; echo "$0|$1"' 'a b' c\ d"#, None).unwrap(), "some mail\na b|c d\n");
        for bad in ["", "  ", "tr 'a", "''"] {
            assert!(Transform::new(bad, None).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_environment_contains_only_known_variables() {
        let names = run("sh -c 'env | cut -d= -f1 | sort'", None).unwrap();
        for name in names.lines() {
            // Shells set the last four themselves.
            let known = ["PATH", "LANG", "POP3_USER", "POP3_UIDL", "POP3_MESSAGE", "PWD", "OLDPWD", "SHLVL", "_"];
            assert!(known.contains(&name), "{name}");
        }
        assert_eq!(run("sh -c 'echo $POP3_USER $POP3_UIDL $POP3_MESSAGE'", None).unwrap(), "ana 1.2.h 3\n");
    }

    #[test]
    fn background_processes_are_killed_when_the_program_ends() {
        assert_eq!(run("sh -c 'cat; sleep 1000 &'", None).unwrap(), "some mail\n");
    }

    /// The child leaves the process group before the program ends, so it outlives the program. The test kills it.
    #[test]
    fn a_process_that_has_left_the_group_does_not_delay_the_message() {
        let script = "import os, sys, time\n\
            left, leave = os.pipe()\n\
            child = os.fork()\n\
            if child == 0:\n\
            \x20   os.setsid()\n\
            \x20   os.write(leave, b'x')\n\
            \x20   time.sleep(60)\n\
            else:\n\
            \x20   os.read(left, 1)\n\
            \x20   print(sys.stdin.read(), child)\n";
        let text = run(&format!("python3 -c \"{script}\""), Some(Duration::from_secs(20))).unwrap();
        let (mail, child) = text.trim_end().rsplit_once(' ').unwrap();
        let _ = kill_process(Pid::from_raw(child.parse().unwrap()).unwrap(), Signal::KILL);
        assert_eq!(mail, "some mail\n");
    }

    #[test]
    fn a_process_left_behind_may_write_the_rest_of_the_message() {
        assert_eq!(run("bash -c 'cat > >(tr a-z A-Z)'", None).unwrap(), "SOME MAIL\n");
        let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(run("sh -c 'seq 100000 &'", None).unwrap(), numbers);
    }

    #[test]
    fn each_failure_is_reported_as_what_it_is() {
        assert!(matches!(run("/dev/null/program", None), Err(Failure::Io(_))));
        assert!(matches!(run("false", None), Err(Failure::Status(_))));
        let patience = Some(Duration::from_millis(50));
        assert!(matches!(run("sleep 1000", patience), Err(Failure::Silent)));
        assert!(matches!(run("sh -c 'exec >&-; sleep 1000'", patience), Err(Failure::Silent)));
    }

    #[test]
    fn a_program_need_not_read_its_stdin() {
        assert_eq!(run("echo hello", None).unwrap(), "hello\n");
    }

    #[test]
    fn the_whole_group_ends_with_the_program() {
        // The grandchild would hold the test's pipe open if it went on.
        let started = run("sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'", None).unwrap();
        let grandchild = Pid::from_raw(started.trim().parse().unwrap()).unwrap();
        // The kill is immediate, but init reaps the process later.
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_running(grandchild) {
            assert!(Instant::now() < deadline, "{grandchild:?} still runs");
            std::thread::yield_now();
        }
    }

    fn is_running(pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
    }
}
