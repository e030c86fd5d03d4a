//! The settings with which a test starts a server.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::geteuid;
use tempfile::TempDir;

use super::{Certificate, MailRoot, PASSWORD, Server, USER, bounded_output, can_unshare, unshare};

/// The server program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_pop3d");

/// The uid and gid of an unprivileged user, for programs that must not have root's rights when the tests run as root.
pub(crate) const NOBODY: u32 = 65534;

/// A copy of the server program that every user may execute, and the directory that holds it.
pub(crate) fn copy_of_program() -> (PathBuf, TempDir) {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("pop3d");
    // `cp` makes the copy in a process of its own. If this process wrote it, another test could fork a child meanwhile;
    // the child would inherit the open descriptor, and Linux refuses to execute a file that is open for writing.
    assert!(Command::new("cp").arg(PROGRAM).arg(&path).status().unwrap().success());
    (path, directory)
}

/// Makes `uid` the owner of `path` and of everything below it.
fn give_to(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            give_to(&entry.unwrap().path(), uid);
        }
    }
}

/// The settings with which a server is started.
pub(crate) struct Builder {
    mail: MailRoot,
    address: String,
    users: Vec<String>,
    users_file: Option<PathBuf>,
    flags: Vec<String>,
    uid: Option<u32>,
    /// The server's working directory, and the mail directory's path relative to it.
    seen_from: Option<(PathBuf, String)>,
    /// A program with arguments that executes the server's command line, which is appended to them.
    launcher: Vec<String>,
    environment: Vec<(String, String)>,
    configuration: Option<PathBuf>,
    stderr_is_read: bool,
    stdin: Option<OwnedFd>,
    has_peep: bool,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            mail: MailRoot::new(),
            address: "127.0.0.1".to_owned(),
            users: Vec::new(),
            users_file: None,
            flags: Vec::new(),
            uid: None,
            seen_from: None,
            launcher: Vec::new(),
            environment: Vec::new(),
            configuration: None,
            stderr_is_read: true,
            stdin: None,
            has_peep: true,
        }
    }

    /// Starts it with this configuration file and [`Builder::flags`], and no other settings.
    pub(crate) fn configured_by(mut self, path: &Path) -> Self {
        self.configuration = Some(path.to_owned());
        self
    }

    /// Serves `mail` instead of a new mail directory. With it, a test can start several servers on one mail directory.
    pub(crate) fn mail(mut self, mail: &MailRoot) -> Self {
        self.mail = mail.clone();
        self
    }

    /// Listens on this address instead of 127.0.0.1.
    pub(crate) fn address(mut self, address: &str) -> Self {
        self.address = address.to_owned();
        self
    }

    pub(crate) fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push(format!("{name}:{password}"));
        self
    }

    /// Loads the accounts of this users file, in addition to those of [`Builder::user`].
    pub(crate) fn users_file(mut self, path: &Path) -> Self {
        self.users_file = Some(path.to_owned());
        self
    }

    /// Adds flags to the command line, for example `.flags(["-T", "1"])`.
    pub(crate) fn flags(mut self, flags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Allows the server to use a directory outside its mail directory.
    pub(crate) fn allow(self, directory: impl AsRef<Path>) -> Self {
        self.flags(["--allow-dir", directory.as_ref().to_str().unwrap()])
    }

    /// Enables STLS, POP3S and PEEP over TLS with this certificate.
    pub(crate) fn tls(self, certificate: &Certificate) -> Self {
        let (chain, key) = (certificate.chain(), certificate.key());
        self.flags(["--pop3s-port", "0", "--peep-tls", "--tls-cert"]).flags([
            chain.to_str().unwrap(),
            "--tls-key",
            key.to_str().unwrap(),
        ])
    }

    /// Starts the server in `directory` and passes it `name` as the path of the mail directory.
    pub(crate) fn seen_from(mut self, directory: &Path, name: &str) -> Self {
        self.seen_from = Some((directory.to_owned(), name.to_owned()));
        self
    }

    /// Runs the server as an unprivileged user if the tests run as root, because root ignores file permissions. That
    /// user becomes the owner of the mail.
    pub(crate) fn unprivileged(self) -> Self {
        self.unprivileged_as(NOBODY)
    }

    /// Runs the server as this user if the tests run as root. The user becomes the owner of the mail.
    pub(crate) fn unprivileged_as(mut self, uid: u32) -> Self {
        self.uid = geteuid().is_root().then_some(uid);
        self
    }

    /// Sets the limit of open files (RLIMIT_NOFILE) to `count`.
    pub(crate) fn descriptors(self, count: u64) -> Self {
        self.launched_by(["bash", "-c", "ulimit -n \"$0\" && exec \"$@\"", &count.to_string()])
    }

    /// Starts the server through another program. `words` are the program and its arguments; the program has to execute
    /// the command line that follows them.
    pub(crate) fn launched_by<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.launcher = words.into_iter().map(str::to_owned).collect();
        self
    }

    /// Passes a listening socket to the launcher as its standard input.
    pub(crate) fn stdin(mut self, socket: &TcpListener) -> Self {
        self.stdin = Some(socket.try_clone().unwrap().into());
        self
    }

    /// Sets an environment variable of the server.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves the server's stderr unread until [`Server::read_stderr`] is called.
    pub(crate) fn unread_stderr(mut self) -> Self {
        self.stderr_is_read = false;
        self
    }

    /// The server is one that does not serve PEEP.
    pub(crate) fn without_peep(mut self) -> Self {
        self.has_peep = false;
        self
    }

    /// Starts the server and waits until it listens.
    #[track_caller]
    pub(crate) fn start(mut self) -> Server {
        if self.users.is_empty() && self.users_file.is_none() {
            self = self.user(USER, PASSWORD);
        }
        let (program, copy) = match self.uid {
            None => (PathBuf::from(PROGRAM), None),
            Some(uid) => {
                give_to(self.mail.path(), uid);
                let (path, directory) = copy_of_program();
                (path, Some(directory))
            }
        };
        let mut command = self.command(&program);
        command.stdin(self.stdin.map_or_else(Stdio::null, Stdio::from));
        let (mut server, lines) = Server::spawn(command, self.mail, copy);
        if self.stderr_is_read {
            server.read_stderr();
        }
        server.wait_for_addresses(&lines, self.has_peep);
        server
    }

    /// Starts the server in a mount namespace in which the file `passwd` is mounted as /etc/passwd. Returns `None` if
    /// the kernel does not let the test make such a namespace.
    #[track_caller]
    pub(crate) fn start_with_passwd(self, passwd: &Path) -> Option<Server> {
        let flags = ["--user", "--map-root-user", "--mount"];
        let flags = if geteuid().is_root() { &flags[2..] } else { &flags };
        let bind = format!("mount --bind '{}' /etc/passwd", passwd.display());
        if !can_unshare(flags, &bind) {
            return None;
        }
        let this = if self.users.is_empty() { self.user(USER, PASSWORD) } else { self };
        let served = this.command(Path::new(PROGRAM));
        let mut command = unshare(flags);
        command.args(["bash", "-c", &format!("{bind} && exec \"$0\" \"$@\"")]);
        command.arg(served.get_program()).args(served.get_args()).stdin(Stdio::null());
        let (mut server, lines) = Server::spawn(command, this.mail, None);
        server.read_stderr();
        server.wait_for_addresses(&lines, true);
        Some(server)
    }

    /// Starts a server that is expected to refuse its settings, and returns its output.
    pub(crate) fn refused(self) -> Output {
        bounded_output(&mut self.command(Path::new(PROGRAM)))
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = match self.launcher.split_first() {
            None => Command::new(program),
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(program);
                command
            }
        };
        if let Some(path) = &self.configuration {
            command.arg("--config").arg(path).args(&self.flags).envs(self.environment.iter().cloned());
            return command;
        }
        command.args(["-p", "0", "-P", "0", "--address", &self.address, "--peep-address", &self.address]);
        match &self.seen_from {
            Some((directory, name)) => command.current_dir(directory).args(["-m", name]),
            None => command.arg("-m").arg(self.mail.path()),
        };
        for user in &self.users {
            command.arg("-u").arg(user);
        }
        if let Some(path) = &self.users_file {
            command.arg("--users").arg(path);
        }
        command.args(&self.flags).envs(self.environment.iter().cloned());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }
}
