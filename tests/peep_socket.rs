//! PEEP on a UNIX socket.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};

use rustix::process::{Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::harness::{NOBODY, PASSWORD, Server, USER, bounded_output};

/// A directory that every user may enter, with the configuration of a server whose PEEP is on a UNIX socket in it.
struct SetUp {
    directory: TempDir,
}

impl SetUp {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(directory.path().join("mail")).unwrap();
        Self { directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("peep.sock")
    }

    /// A server with these lines in its configuration, besides the socket.
    fn server(&self, lines: &str) -> Server {
        Server::builder().configured_by(&self.configuration(lines)).start()
    }

    fn configuration(&self, lines: &str) -> PathBuf {
        let path = self.directory.path().join("pop3d.toml");
        let (mail, socket) = (self.directory.path().join("mail"), self.socket());
        let text = format!(
            "user = [\"{USER}:{PASSWORD}\"]\nmailbox = {mail:?}\naddress = [\"127.0.0.1\"]\npop3-port = 0\npeep-socket = {socket:?}\n{lines}"
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn peepclient(&self, words: &[&str]) -> Output {
        bounded_output(Command::new(env!("CARGO_BIN_EXE_peepclient")).arg("-socket").arg(self.socket()).args(words))
    }
}

/// Sends lines to the socket, and returns as many lines of answers.
fn answers(socket: &Path, lines: &[&str]) -> Vec<String> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all((lines.join("\r\n") + "\r\n").as_bytes()).unwrap();
    BufReader::new(stream).lines().take(lines.len()).map(Result::unwrap).collect()
}

#[track_caller]
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn who_may_open_the_socket_is_the_admin() {
    let set_up = SetUp::new();
    let server = set_up.server("");
    assert_eq!(text(&set_up.peepclient(&["users"])), format!("{USER}\n"));
    text(&set_up.peepclient(&["set", "timeout", "700"]));
    // A client that logs in all the same, as on a port, is answered as there. Nobody compares its password.
    assert_eq!(answers(&set_up.socket(), &["t?", "a root root", "u?", "q"])[..3], ["+700", "+", "+1"]);
    let client = format!("pid={},uid={} admin login: name=\"uid=", process::id(), geteuid().as_raw());
    server.expect_log("INFO", &client);
    let sessions = text(&set_up.peepclient(&["sessions"]));
    assert!(sessions.contains(&format!("peep\t-\tadmin\tuid={}", geteuid().as_raw())), "{sessions}");
}

#[test]
fn the_socket_has_the_mode_and_the_group_of_the_flags() {
    let set_up = SetUp::new();
    let group = rustix::process::getegid().as_raw();
    let _server = set_up.server(&format!("peep-socket-mode = \"660\"\npeep-socket-group = \"{group}\"\n"));
    let file = fs::metadata(set_up.socket()).unwrap();
    assert_eq!((file.mode() & 0o777, file.gid()), (0o660, group));
}

#[test]
fn other_users_are_kept_out() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can start programs of two users");
        return;
    }
    let set_up = SetUp::new();
    let _server = set_up.server("");
    let script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    let connect = |user| {
        let mut python = Command::new("python3");
        bounded_output(python.args(["-c", script]).arg(set_up.socket()).uid(user).current_dir("/"))
    };
    assert!(connect(0).status.success());
    let refused = connect(NOBODY);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("PermissionError"), "{refused:?}");
}

#[test]
fn the_socket_of_a_killed_server_is_replaced_and_that_of_a_running_one_is_not() {
    let set_up = SetUp::new();
    let mut first = set_up.server("");
    let second = Server::builder().configured_by(&set_up.configuration("")).refused();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(error.contains("peep.sock: another server listens on it"), "{error}");
    assert_eq!(text(&set_up.peepclient(&["users"])), format!("{USER}\n"));
    kill_process(first.process(), Signal::KILL).unwrap();
    first.wait();
    assert!(set_up.socket().exists());
    let mut second = set_up.server("");
    assert_eq!(text(&set_up.peepclient(&["users"])), format!("{USER}\n"));
    second.signal(Signal::TERM);
    assert!(second.wait().success());
    assert!(!set_up.socket().exists());
}

#[test]
fn the_socket_works_in_a_confined_server_of_another_user() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let set_up = SetUp::new();
    let mut server = set_up.server("run-as = \"nobody\"\n");
    assert_eq!(text(&set_up.peepclient(&["users"])), format!("{USER}\n"));
    server.signal(Signal::TERM);
    assert!(server.wait().success());
}

#[test]
fn a_reload_keeps_the_socket_and_tells_of_a_change_that_needs_a_restart() {
    let set_up = SetUp::new();
    let _server = set_up.server("");
    set_up.configuration("peep-socket-mode = \"666\"\ntimeout = 700\n");
    assert_eq!(answers(&set_up.socket(), &["r", "q"])[0], "+1");
    assert_eq!(answers(&set_up.socket(), &["t?", "q"])[0], "+700");
    assert_eq!(fs::metadata(set_up.socket()).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_kick_and_a_ban_leave_the_socket_alone() {
    let set_up = SetUp::new();
    let _server = set_up.server("per-address = 1\nlimit-loopback = true\n");
    let mut first = UnixStream::connect(set_up.socket()).unwrap();
    let lines = ["b+ 0.0.0.0/0 0", "b+ ::/0 0", "ka= 0.0.0.0/0", "ka= ::/0", "q"];
    assert_eq!(answers(&set_up.socket(), &lines)[..4], ["+", "+", "-10", "-10"]);
    first.write_all(b"u?\r\n").unwrap();
    let mut answer = String::new();
    BufReader::new(first).read_line(&mut answer).unwrap();
    assert_eq!(answer.trim_end(), "+1");
}

#[test]
fn there_can_be_a_port_beside_the_socket_or_neither() {
    let set_up = SetUp::new();
    let server = Server::builder()
        .configured_by(&set_up.configuration("peep-address = [\"127.0.0.1\"]\npeep-port = 0\n"))
        .start();
    let mut admin = server.peep();
    admin.send("a root root");
    admin.expect("+");
    assert_eq!(text(&set_up.peepclient(&["users"])), format!("{USER}\n"));
    drop(server);
    let configuration = set_up.configuration("");
    let lines = fs::read_to_string(&configuration).unwrap();
    fs::write(
        &configuration,
        lines.lines().filter(|line| !line.starts_with("peep-socket")).collect::<Vec<_>>().join("\n"),
    )
    .unwrap();
    let neither = Server::builder().configured_by(&configuration).flags(["--no-peep"]).without_peep().start();
    assert!(!neither.stderr().contains("PEEP"), "{}", neither.stderr());
    neither.session().quit();
}

#[test]
fn a_port_that_is_not_used_is_warned_of() {
    let set_up = SetUp::new();
    let warning = "--peep-port is not used: beside --peep-socket PEEP has a port only if --peep-address is given";
    let server = set_up.server("peep-port = 0\n");
    server.expect_log("WARN", warning);
    drop(server);
    let server = set_up.server("peep-port = 0\npeep-address = [\"127.0.0.1\"]\n");
    assert!(!server.stderr().contains("--peep-port"), "{}", server.stderr());
}
