//! What the tests use: the real server on free ports, clients that speak to it line by line, and mail for it to serve.
//!
//! Every wait is bounded by [`PATIENCE`], so a server that hangs fails its test instead of blocking it. Nothing sleeps
//! for a result; [`eventually`] polls for one.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use socket2::SockRef;
use tempfile::TempDir;

/// How long a test waits before it takes the server for hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The interval of polling.
const POLL: Duration = Duration::from_millis(5);

/// The user of a server that a test gave no user: the one in RFC 1939's examples.
pub(crate) const USER: &str = "mrose";
/// The password of [`USER`].
pub(crate) const PASSWORD: &str = "tanstaaf";

/// Polls until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(POLL);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Mail

/// A temporary mail directory. Clones share it, and the last one removes it.
#[derive(Clone)]
pub(crate) struct MailRoot(Arc<TempDir>);

impl MailRoot {
    pub(crate) fn new() -> Self {
        Self(Arc::new(TempDir::new().unwrap()))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn maildrop(&self, user: &str) -> Maildrop {
        Maildrop::at(self.path().join(user))
    }
}

/// One user's directory. It is created with its first message.
#[derive(Clone)]
pub(crate) struct Maildrop {
    path: PathBuf,
}

impl Maildrop {
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The path of the file `name`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the maildrop an empty Maildir.
    pub(crate) fn make_maildir(&self) {
        for folder in ["tmp", "new", "cur"] {
            fs::create_dir_all(self.path(folder)).unwrap();
        }
    }

    /// Writes a message. `name` is `NAME` for a flat maildrop, `new/NAME` or `cur/NAME:2,FLAGS` for a Maildir.
    pub(crate) fn put(&self, name: &str, octets: impl AsRef<[u8]>) -> PathBuf {
        if name.starts_with("new/") || name.starts_with("cur/") {
            self.make_maildir();
        }
        fs::create_dir_all(&self.path).unwrap();
        let path = self.path(name);
        fs::write(&path, octets).unwrap();
        path
    }

    /// Sets the modification time of a message, in seconds since 1970.
    pub(crate) fn set_modified(&self, name: &str, seconds: u64) {
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    /// Sets the modification time of a sub-directory, in seconds since 1970.
    pub(crate) fn set_modified_directory(&self, name: &str, seconds: u64) {
        let directory = File::open(self.path(name)).unwrap();
        directory.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// The messages on disk, sorted: regular files whose name has no leading dot, in `new/` and `cur/` if there is
    /// one of these, else at the top.
    pub(crate) fn messages(&self) -> Vec<String> {
        let is_maildir = self.path("new").is_dir() || self.path("cur").is_dir();
        let folders: &[&str] = if is_maildir { &["new/", "cur/"] } else { &[""] };
        let mut found: Vec<String> = folders.iter().flat_map(|folder| self.files_in(folder)).collect();
        found.sort();
        found
    }

    fn files_in(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        entries
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .map(|name| format!("{folder}{name}"))
            .collect()
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Server

/// A certificate for the loopback addresses, and its key.
pub(crate) struct Certificate {
    directory: TempDir,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let certificate = Self { directory: TempDir::new().unwrap() };
        certificate.renew();
        certificate
    }

    /// Replaces it by a new certificate.
    pub(crate) fn renew(&self) {
        self.renew_with(|_| {});
    }

    /// Replaces it by a new certificate with changed parameters.
    pub(crate) fn renew_with(&self, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(str::to_owned)).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        fs::write(self.key(), key.serialize_pem()).unwrap();
        fs::set_permissions(self.key(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(self.chain(), params.self_signed(&key).unwrap().pem()).unwrap();
    }

    pub(crate) fn chain(&self) -> PathBuf {
        self.directory.path().join("chain.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    pub(crate) fn trusted(&self) -> Arc<rustls::ClientConfig> {
        trusting(&self.chain())
    }
}

/// The TLS configuration of a client that trusts this certificate and no other.
pub(crate) fn trusting(chain: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(chain).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.unwrap().with_root_certificates(roots).with_no_client_auth())
}

/// The settings with which a server is started.
pub(crate) struct Builder {
    mail: MailRoot,
    address: String,
    users: Vec<String>,
    users_file: Option<PathBuf>,
    flags: Vec<String>,
    uid: Option<u32>,
    /// The working directory of the server, and the mail directory's name from there.
    seen_from: Option<(PathBuf, String)>,
    /// A program and its arguments, behind which the server's command line stands.
    launcher: Vec<String>,
    environment: Vec<(String, String)>,
    stderr_is_read: bool,
}

impl Builder {
    /// Serves `mail` instead of a new mail directory, for maildrops that several servers serve in turn.
    pub(crate) fn mail(mut self, mail: &MailRoot) -> Self {
        self.mail = mail.clone();
        self
    }

    /// Listens there instead of on 127.0.0.1.
    pub(crate) fn address(mut self, address: &str) -> Self {
        self.address = address.to_owned();
        self
    }

    pub(crate) fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push(format!("{name}:{password}"));
        self
    }

    /// Serves the accounts of this users file, besides those given with [`Builder::user`].
    pub(crate) fn users_file(mut self, path: &Path) -> Self {
        self.users_file = Some(path.to_owned());
        self
    }

    /// Any further flags: `.flags(["-T", "1"])`.
    pub(crate) fn flags(mut self, flags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Allows it to use a directory outside its mail directory.
    pub(crate) fn allow(self, directory: impl AsRef<Path>) -> Self {
        self.flags(["--allow-dir", directory.as_ref().to_str().unwrap()])
    }

    /// With TLS, POP3S and PEEP over TLS.
    pub(crate) fn tls(self, certificate: &Certificate) -> Self {
        let (chain, key) = (certificate.chain(), certificate.key());
        self.flags(["--pop3s-port", "0", "--peep-tls", "--tls-cert"]).flags([
            chain.to_str().unwrap(),
            "--tls-key",
            key.to_str().unwrap(),
        ])
    }

    /// Starts it in `directory`, from where the mail root is called `name`.
    pub(crate) fn seen_from(mut self, directory: &Path, name: &str) -> Self {
        self.seen_from = Some((directory.to_owned(), name.to_owned()));
        self
    }

    /// Runs the server as an ordinary user if the tests run as root, so that file permissions count. The mail is given
    /// to that user.
    pub(crate) fn unprivileged(self) -> Self {
        self.unprivileged_as(NOBODY)
    }

    /// Runs the server as this user if the tests run as root.
    pub(crate) fn unprivileged_as(mut self, uid: u32) -> Self {
        self.uid = geteuid().is_root().then_some(uid);
        self
    }

    /// Allows it to have so many files open.
    pub(crate) fn descriptors(self, count: u64) -> Self {
        self.launched_by(["bash", "-c", "ulimit -n \"$0\" && exec \"$@\"", &count.to_string()])
    }

    /// Starts it by these words, which are to execute the command line behind them.
    pub(crate) fn launched_by<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.launcher = words.into_iter().map(str::to_owned).collect();
        self
    }

    /// Sets an environment variable.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves its stderr unread until [`Server::read_stderr`].
    pub(crate) fn unread_stderr(mut self) -> Self {
        self.stderr_is_read = false;
        self
    }

    /// Starts it and waits until it listens.
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
        let (mut server, lines) = Server::spawn(self.command(&program), self.mail, copy);
        if self.stderr_is_read {
            server.read_stderr();
        }
        server.wait_for_addresses(&lines);
        server
    }

    /// Starts it where `passwd` is /etc/passwd: in a mount namespace of its own. `None`, which is said, where there can
    /// be no such namespace.
    #[track_caller]
    pub(crate) fn start_with_passwd(self, passwd: &Path) -> Option<Server> {
        let bind = "mount --bind \"$0\" /etc/passwd";
        let namespace = || {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount"][if geteuid().is_root() { 2.. } else { 0.. }].iter());
            command.args(["sh", "-c"]).stdin(Stdio::null());
            command
        };
        let tried = namespace().arg(bind).arg(passwd).output().unwrap();
        if !tried.status.success() {
            eprintln!("SKIPPED, there are no mount namespaces here: {}", String::from_utf8_lossy(&tried.stderr));
            return None;
        }
        let this = if self.users.is_empty() { self.user(USER, PASSWORD) } else { self };
        let served = this.command(Path::new(PROGRAM));
        let mut command = namespace();
        command.arg(format!("{bind} && exec \"$@\"")).arg(passwd).arg(served.get_program()).args(served.get_args());
        let (mut server, lines) = Server::spawn(command, this.mail, None);
        server.read_stderr();
        server.wait_for_addresses(&lines);
        Some(server)
    }

    /// Starts a server that is expected to refuse its settings, and returns its output. If it does not end by itself it
    /// is killed and has no exit code.
    pub(crate) fn refused(self) -> Output {
        let mut command = self.command(Path::new(PROGRAM));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
            }
            thread::sleep(POLL);
        }
        child.wait_with_output().unwrap()
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

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_pop3d");

/// The ordinary user as whom tests run programs when they run as root.
pub(crate) const NOBODY: u32 = 65534;

/// A copy of the server program that every user may execute, and the directory that holds it.
pub(crate) fn copy_of_program() -> (PathBuf, TempDir) {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("pop3d");
    // Copied by another process: a child forked by another test at that moment would inherit a descriptor that is open
    // for writing, and a file that is open for writing cannot be executed.
    assert!(Command::new("cp").arg(PROGRAM).arg(&path).status().unwrap().success());
    (path, directory)
}

/// Makes `uid` the owner of `path` and of all below it.
fn give_to(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            give_to(&entry.unwrap().path(), uid);
        }
    }
}

/// A running server. Dropping it kills and reaps it.
pub(crate) struct Server {
    child: Child,
    mail: MailRoot,
    pop3: SocketAddr,
    pop3s: SocketAddr,
    peep: SocketAddr,
    stderr: Arc<Mutex<Vec<u8>>>,
    _program: Option<TempDir>,
}

impl Server {
    /// Its settings; with none of them it has an empty mail root and the one user [`USER`].
    pub(crate) fn builder() -> Builder {
        Builder {
            mail: MailRoot::new(),
            address: "127.0.0.1".to_owned(),
            users: Vec::new(),
            users_file: None,
            flags: Vec::new(),
            uid: None,
            seen_from: None,
            launcher: Vec::new(),
            environment: Vec::new(),
            stderr_is_read: true,
        }
    }

    /// Starts one with all its defaults.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    /// Gives what it prints, too.
    fn spawn(mut command: Command, mail: MailRoot, program: Option<TempDir>) -> (Self, mpsc::Receiver<String>) {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let stderr = Arc::default();
        (Self { child, mail, pop3: unknown, pop3s: unknown, peep: unknown, stderr, _program: program }, lines)
    }

    /// Reads its stderr from now on.
    pub(crate) fn read_stderr(&mut self) {
        gather(self.child.stderr.take().unwrap(), Arc::clone(&self.stderr));
    }

    #[track_caller]
    fn wait_for_addresses(&mut self, lines: &mpsc::Receiver<String>) {
        while self.pop3.port() == 0 || self.peep.port() == 0 {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => self.note_address(&line),
                Err(error) => panic!("the server did not say where it listens ({error}): {}", self.stderr()),
            }
        }
    }

    /// Keeps the first address of each protocol from lines like `POP3 listening on 127.0.0.1:41234`.
    fn note_address(&mut self, line: &str) {
        let Some((protocol, address)) = line.split_once(" listening on ") else { return };
        let slot = match protocol {
            "POP3" => &mut self.pop3,
            "POP3S" => &mut self.pop3s,
            "PEEP" | "PEEP over TLS" => &mut self.peep,
            _ => return,
        };
        if slot.port() == 0 {
            *slot = address.trim_end().parse().unwrap();
        }
    }

    pub(crate) fn pop3_address(&self) -> SocketAddr {
        self.pop3
    }

    /// Where it serves POP3 by TLS; a server that does has said so before it says where PEEP is.
    pub(crate) fn pop3s_address(&self) -> SocketAddr {
        self.pop3s
    }

    pub(crate) fn peep_address(&self) -> SocketAddr {
        self.peep
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn mail(&self) -> &MailRoot {
        &self.mail
    }

    /// [`USER`]'s maildrop.
    pub(crate) fn maildrop(&self) -> Maildrop {
        self.mail.maildrop(USER)
    }

    /// A POP3 client that has been greeted.
    #[track_caller]
    pub(crate) fn pop3(&self) -> Client {
        let mut client = Client::connect(self.pop3);
        client.ok();
        client
    }

    /// A POP3 client with [`USER`] logged in.
    #[track_caller]
    pub(crate) fn session(&self) -> Client {
        let mut client = self.pop3();
        client.login(USER, PASSWORD);
        client
    }

    /// A PEEP client, not yet authenticated.
    #[track_caller]
    pub(crate) fn peep(&self) -> Client {
        Client::connect(self.peep)
    }

    /// A PEEP client with the default admin logged in.
    #[track_caller]
    pub(crate) fn admin(&self) -> Client {
        let mut client = self.peep();
        client.send("a root root");
        client.expect("+");
        client
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).unwrap();
    }

    /// What the server has written to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Waits until a line of its log is of this level and contains `text`.
    #[track_caller]
    pub(crate) fn expect_log(&self, level: &str, text: &str) {
        let told = |line: &str| line.contains(&format!("[{level}]")) && line.contains(text);
        eventually("the log tells it", || self.stderr().lines().any(told));
    }

    /// Waits until the server has ended by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the server's stderr ---\n{}", self.stderr());
        }
    }
}

/// Reads a pipe to its end in a thread, so that the writer never blocks, and passes on its lines.
pub(crate) fn lines_of(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

/// Adds the octets of a pipe to `gathered` as they come.
fn gather(mut pipe: impl Read + Send + 'static, gathered: Arc<Mutex<Vec<u8>>>) {
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut piece) {
            gathered.lock().unwrap().extend_from_slice(&piece[..length]);
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Client

/// A connection in clear or by TLS.
enum Stream {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(socket) => socket,
            Self::Tls(stream) => stream.get_ref(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.write(octets),
            Self::Tls(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A client for both protocols that sends and receives lines. Each read waits for at most [`PATIENCE`].
pub(crate) struct Client {
    stream: BufReader<Stream>,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, PATIENCE)?)
    }

    /// Makes a client of an open connection.
    pub(crate) fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(Stream::Clear(stream)) })
    }

    /// Starts TLS. Fails with rustls's error if the server's certificate is not `trusted`.
    pub(crate) fn try_tls(self, trusted: &Arc<rustls::ClientConfig>) -> io::Result<Self> {
        assert!(self.stream.buffer().is_empty(), "the server has said something before the handshake");
        let Stream::Clear(mut socket) = self.stream.into_inner() else { panic!("TLS is active already") };
        let name = ServerName::from(socket.peer_addr()?.ip());
        let mut connection = ClientConnection::new(Arc::clone(trusted), name).unwrap();
        connection.complete_io(&mut socket)?;
        Ok(Self { stream: BufReader::new(Stream::Tls(Box::new(StreamOwned::new(connection, socket)))) })
    }

    #[track_caller]
    pub(crate) fn tls(self, certificate: &Certificate) -> Self {
        self.try_tls(&certificate.trusted()).unwrap()
    }

    /// The server's own certificate in DER.
    pub(crate) fn peer_certificate(&self) -> Vec<u8> {
        let Stream::Tls(stream) = self.stream.get_ref() else { panic!("TLS is not active") };
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// Returns true if its TLS session was resumed.
    pub(crate) fn is_resumed(&self) -> bool {
        let Stream::Tls(stream) = self.stream.get_ref() else { return false };
        stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The socket itself, to write from another thread or to change its options.
    pub(crate) fn socket(&self) -> &TcpStream {
        self.stream.get_ref().socket()
    }

    /// Sends octets as they are, in one write.
    pub(crate) fn try_write(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(octets.as_ref())?;
        self.stream.get_mut().flush()
    }

    /// The next line without its CRLF, or `None` when the server has closed. A line end without CR is an error.
    pub(crate) fn try_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && line.is_empty() => return Ok(None),
            result => result?,
        };
        if !line.ends_with(b"\r\n") {
            let what = format!("a line that does not end in CRLF: {}", line.escape_ascii());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        line.truncate(line.len() - 2);
        Ok(Some(line))
    }

    #[track_caller]
    pub(crate) fn write(&mut self, octets: impl AsRef<[u8]>) {
        self.try_write(octets).unwrap();
    }

    /// Sends a command line.
    #[track_caller]
    pub(crate) fn send(&mut self, command: &str) {
        self.write(format!("{command}\r\n"));
    }

    /// Sends many command lines in one write.
    #[track_caller]
    pub(crate) fn send_all<'a>(&mut self, commands: impl IntoIterator<Item = &'a str>) {
        let lines: String = commands.into_iter().flat_map(|command| [command, "\r\n"]).collect();
        self.write(lines);
    }

    /// The next line without its CRLF.
    #[track_caller]
    pub(crate) fn octets_of_line(&mut self) -> Vec<u8> {
        match self.try_line() {
            Ok(line) => line.expect("the server has closed the connection"),
            Err(error) => panic!("no line from the server: {error}"),
        }
    }

    /// The next line as text.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        String::from_utf8_lossy(&self.octets_of_line()).into_owned()
    }

    /// Expects exactly this line.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// Expects a line that starts with `status` as a word, and gives what follows the word.
    #[track_caller]
    fn expect_status(&mut self, status: &str) -> String {
        let line = self.line();
        match line.strip_prefix(status) {
            Some(rest) if rest.is_empty() || rest.starts_with(' ') => rest.trim_start().to_owned(),
            _ => panic!("expected {status}, got {line}"),
        }
    }

    /// Expects `+OK` and gives its text.
    #[track_caller]
    pub(crate) fn ok(&mut self) -> String {
        self.expect_status("+OK")
    }

    /// Expects `-ERR` and gives its text, the response code included.
    #[track_caller]
    pub(crate) fn err(&mut self) -> String {
        self.expect_status("-ERR")
    }

    /// Sends a command that has to succeed and gives the text of its status line.
    #[track_caller]
    pub(crate) fn call(&mut self, command: &str) -> String {
        self.send(command);
        self.ok()
    }

    /// Sends a command that has to be refused and gives the text of its status line.
    #[track_caller]
    pub(crate) fn refused(&mut self, command: &str) -> String {
        self.send(command);
        self.err()
    }

    /// The rest of a multi-line response: its octets without byte-stuffing and terminator.
    #[track_caller]
    pub(crate) fn multiline(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        loop {
            let line = self.octets_of_line();
            if line == b"." {
                return octets;
            }
            octets.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            octets.extend_from_slice(b"\r\n");
        }
    }

    /// Sends a command with a multi-line response and gives its octets.
    #[track_caller]
    pub(crate) fn fetch(&mut self, command: &str) -> Vec<u8> {
        self.call(command);
        self.multiline()
    }

    /// Sends a command with a multi-line response and gives its lines.
    #[track_caller]
    pub(crate) fn listing(&mut self, command: &str) -> Vec<String> {
        String::from_utf8(self.fetch(command)).unwrap().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    pub(crate) fn login(&mut self, name: &str, password: &str) {
        self.call(&format!("USER {name}"));
        self.call(&format!("PASS {password}"));
    }

    /// PEEP: the value of a query, without its `+`.
    #[track_caller]
    pub(crate) fn value(&mut self, query: &str) -> String {
        self.send(query);
        let line = self.line();
        line.strip_prefix('+').unwrap_or_else(|| panic!("{query}: {line}")).to_owned()
    }

    /// PEEP: the lines of a query.
    #[track_caller]
    pub(crate) fn values(&mut self, query: &str) -> Vec<String> {
        let count: usize = self.value(query).parse().unwrap();
        (0..count).map(|_| self.line()).collect()
    }

    /// Sends QUIT and waits until the server has closed.
    #[track_caller]
    pub(crate) fn quit(mut self) {
        self.call("QUIT");
        self.closed();
    }

    /// Expects that the server has closed, without another octet.
    #[track_caller]
    pub(crate) fn closed(&mut self) {
        match self.try_line() {
            Ok(None) => {}
            Ok(Some(line)) => panic!("expected the end, got {}", line.escape_ascii()),
            Err(error) => panic!("expected the end, got: {error}"),
        }
    }

    /// Some of what comes next; 0 octets at the end.
    #[track_caller]
    pub(crate) fn read(&mut self, piece: &mut [u8]) -> usize {
        self.stream.read(piece).unwrap()
    }

    /// All that the server sends until it closes.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        self.stream.read_to_end(&mut octets).unwrap();
        octets
    }

    /// Says that nothing more will be sent, and stays to read.
    pub(crate) fn finish_writing(&self) {
        self.socket().shutdown(Shutdown::Write).unwrap();
    }
}

/// Ends a client's connection as a crash of its host would: by RST.
pub(crate) fn reset(client: Client) {
    SockRef::from(client.socket()).set_linger(Some(Duration::ZERO)).unwrap();
}
