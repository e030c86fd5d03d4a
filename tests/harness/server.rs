//! A running server.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::pipe::gather;
use super::{Builder, Client, MailRoot, Maildrop, PASSWORD, PATIENCE, USER, eventually, lines_of};

/// A running server. Dropping it kills and reaps it.
pub(crate) struct Server {
    child: Child,
    mail: MailRoot,
    pop3: SocketAddr,
    pop3s: SocketAddr,
    peep: SocketAddr,
    /// True once it serves PEEP, on a port or on a UNIX socket.
    has_peep: bool,
    stderr: Arc<Mutex<Vec<u8>>>,
    /// The copy of the program that the server runs from, if it has one of its own.
    _program: Option<TempDir>,
}

impl Server {
    /// The settings of a server to start. By default it has an empty mail directory and the one account [`USER`].
    pub(crate) fn builder() -> Builder {
        Builder::new()
    }

    /// Starts a server with the default settings.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    /// Runs the command of a server, and returns the server with the lines that it prints on stdout.
    pub(super) fn spawn(
        mut command: Command,
        mail: MailRoot,
        program: Option<TempDir>,
    ) -> (Self, mpsc::Receiver<String>) {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let stderr = Arc::default();
        (
            Self {
                child,
                mail,
                pop3: unknown,
                pop3s: unknown,
                peep: unknown,
                has_peep: false,
                stderr,
                _program: program,
            },
            lines,
        )
    }

    /// Reads the server's stderr from now on.
    pub(crate) fn read_stderr(&mut self) {
        gather(self.child.stderr.take().unwrap(), Arc::clone(&self.stderr));
    }

    #[track_caller]
    pub(super) fn wait_for_addresses(&mut self, lines: &mpsc::Receiver<String>, with_peep: bool) {
        while self.pop3.port() == 0 || self.has_peep != with_peep {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => self.note_address(&line),
                Err(error) => panic!("the server did not print its addresses ({error}): {}", self.stderr()),
            }
        }
    }

    /// Keeps the first address of each protocol from lines like `POP3 listening on 127.0.0.1:41234`. PEEP may listen on a
    /// path instead.
    fn note_address(&mut self, line: &str) {
        let Some((protocol, address)) = line.split_once(" listening on ") else { return };
        let slot = match protocol {
            "POP3" => &mut self.pop3,
            "POP3S" => &mut self.pop3s,
            "PEEP" | "PEEP over TLS" => &mut self.peep,
            _ => return,
        };
        self.has_peep |= protocol.starts_with("PEEP");
        if slot.port() == 0 && !address.starts_with('/') {
            *slot = address.trim_end().parse().unwrap();
        }
    }

    pub(crate) fn pop3_address(&self) -> SocketAddr {
        self.pop3
    }

    /// The address of POP3S. The server prints it before PEEP's address, so it is known once the server has started.
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

    /// Connects a POP3 client and reads the greeting.
    #[track_caller]
    pub(crate) fn pop3(&self) -> Client {
        let mut client = Client::connect(self.pop3);
        client.ok();
        client
    }

    /// Connects a POP3 client and logs in as [`USER`].
    #[track_caller]
    pub(crate) fn session(&self) -> Client {
        let mut client = self.pop3();
        client.login(USER, PASSWORD);
        client
    }

    /// Connects a POP3 client and logs in. The error is the server's answer to a login that it refuses.
    #[track_caller]
    pub(crate) fn log_in(&self, user: &str, password: &str) -> Result<Client, String> {
        let mut client = self.pop3();
        client.call(&format!("USER {user}"));
        client.send(&format!("PASS {password}"));
        let line = client.line();
        if line.starts_with("+OK") { Ok(client) } else { Err(line) }
    }

    /// Connects a PEEP client and does not authenticate.
    #[track_caller]
    pub(crate) fn peep(&self) -> Client {
        Client::connect(self.peep)
    }

    /// Connects a PEEP client and authenticates as the default admin.
    #[track_caller]
    pub(crate) fn admin(&self) -> Client {
        let mut client = self.peep();
        client.send("a root root");
        client.expect("+");
        client
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).unwrap();
    }

    /// Everything that the server has written to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Waits until the log has a line of this level that contains `text`.
    #[track_caller]
    pub(crate) fn expect_log(&self, level: &str, text: &str) {
        let is_expected = |line: &str| line.contains(&format!("[{level}]")) && line.contains(text);
        eventually(&format!("a log line [{level}] with {text:?}"), || self.stderr().lines().any(is_expected));
    }

    /// Waits until the server's process has ended, and returns its exit status.
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
