//! The program `pop3d`: its flags, its errors at the start, its log, and its end.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::harness::{
    ChildGuard, Client, MailRoot, NOBODY, PASSWORD, PATIENCE, PROGRAM, Server, USER, bounded_output, copy_of_program,
    eventually, lines_of, reset,
};

// ---------------------------------------------------------------------------------------------------------------------
// Helpers

/// A program started with exactly these flags, for tests that the harness's server does not suit.
struct Program {
    child: ChildGuard,
    lines: mpsc::Receiver<String>,
}

impl Program {
    fn start(flags: &[&str]) -> Self {
        Self::run(Command::new(PROGRAM).args(flags))
    }

    fn run(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child: ChildGuard(child), lines }
    }

    /// Waits for the next line that the program prints.
    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the program prints a line")
    }

    /// Reads a line `PROTOCOL listening on ADDRESS` and returns the address.
    #[track_caller]
    fn address(&self, protocol: &str) -> SocketAddr {
        let line = self.line();
        let address = line.strip_prefix(protocol).and_then(|line| line.strip_prefix(" listening on "));
        address.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.0), signal).unwrap();
    }

    /// Waits until the program has ended, and checks that it has ended with status 0.
    #[track_caller]
    fn succeeds(&mut self) {
        expect_success(self.child.wait());
    }
}

/// Runs a program that should end at once. Returns its output.
fn output(flags: &[&str]) -> Output {
    let patience = PATIENCE.as_secs().to_string();
    let ports = ["-p", "-P"].into_iter().filter(|flag| !flags.contains(flag)).flat_map(|flag| [flag, "0"]);
    let mut command = Command::new("timeout");
    command.args([&patience, PROGRAM]).args(ports).args(["--address", "127.0.0.1"]).args(flags);
    command.stdin(Stdio::null()).output().unwrap()
}

/// Checks that the program does not start and gives the reason in one line.
#[track_caller]
fn expect_refusal(flags: &[&str], code: i32, why: &[&str]) {
    let output = output(flags);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{flags:?}: {text}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{flags:?}");
    assert!(!text.contains("panicked"), "{flags:?}: {text}");
    for why in why {
        assert!(text.contains(why), "{flags:?}: {text}");
    }
    assert_eq!(text.lines().count(), 1, "{flags:?}: {text}");
}

/// Sends an admin's query to the PEEP server at `address` and returns the answer.
#[track_caller]
fn query(address: SocketAddr, admin: &str, query: &str) -> String {
    let mut client = Client::connect(address);
    client.send(&format!("a {admin}"));
    client.expect("+");
    client.value(query)
}

/// A server with one message for [`USER`].
fn server_with_mail(flags: &[&str]) -> Server {
    let server = Server::builder().flags(flags.iter().copied()).start();
    server.maildrop().put("1", "Subject: one\n\nbody\n");
    server
}

/// Signals the server and checks that it ends with status 0 in time. The server promises to end within five seconds.
/// [`PATIENCE`] allows more time, for a busy machine.
#[track_caller]
fn end(server: &mut Server, signal: Signal) {
    server.signal(signal);
    expect_success(server.wait());
}

#[track_caller]
fn expect_success(status: ExitStatus) {
    assert_eq!(status.code(), Some(0), "{status}");
}

// ---------------------------------------------------------------------------------------------------------------------
// Flags

/// Tests each flag that has a short form, in both forms.
#[test]
fn short_and_long_flags_do_the_same() {
    let mail = MailRoot::new();
    mail.maildrop("ana").put("1", "abc\n");
    let root = mail.path().to_str().unwrap();
    let short =
        ["-m", root, "-u", "ana:x:y", "-u", "bob:z", "-a", "boss:b:c", "-t", "tr a-z A-Z", "-T", "77", "-c", "55"];
    let long = ["--mailbox", root, "--user", "ana:x:y", "--user", "bob:z", "--peep-admin", "boss:b:c"];
    let rest = ["--transform", "tr a-z A-Z", "--timeout", "77", "--max-connections", "55"];
    let equals = [
        &format!("--maildir={root}"),
        "--user=ana:x:y",
        "-ubob:z",
        "--peep-admin=boss:b:c",
        "-ttr a-z A-Z",
        "-T77",
        "--max-connections=55",
    ];
    for (flags, ports) in [
        (short.to_vec(), ["-p", "0", "-P", "0"]),
        ([&long[..], &rest[..]].concat(), ["--pop3-port", "0", "--peep-port", "0"]),
        (equals.to_vec(), ["-p0", "-P0", "--transform-timeout", "5"]),
    ] {
        let flags = [&flags[..], &ports[..], &["--address", "127.0.0.1", "--peep-address", "127.0.0.1"]].concat();
        let mut program = Program::start(&flags);
        let (pop3, peep) = (program.address("POP3"), program.address("PEEP"));
        let mut client = Client::connect(pop3);
        client.ok();
        client.login("ana", "x:y");
        assert_eq!(client.fetch("RETR 1"), b"ABC\r\n");
        let admin = "boss b:c";
        assert_eq!(["m?", "t?", "c?", "u?"].map(|setting| query(peep, admin, setting)), [root, "77", "55", "2"]);
        program.signal(Signal::TERM);
        program.succeeds();
    }
}

#[test]
fn the_mail_directory_is_the_working_directory_by_default() {
    let mail = MailRoot::new();
    mail.maildrop(USER).put("1", "abc\n");
    let mut command = Command::new(PROGRAM);
    command.args(["-p", "0", "-P", "0", "-u", &format!("{USER}:{PASSWORD}")]).current_dir(mail.path());
    let program = Program::run(&mut command);
    let port = program.address("POP3").port();
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    client.ok();
    client.login(USER, PASSWORD);
    assert_eq!(client.call("STAT"), "1 5");
}

/// Each protocol has one port on all of its addresses. PEEP listens on loopback only.
#[test]
fn by_default_pop3_listens_everywhere_and_peep_on_loopback() {
    let program = Program::start(&["-p", "0", "-P", "0"]);
    let mut addresses = Vec::new();
    loop {
        let line = program.line();
        let (protocol, address) = line.split_once(" listening on ").unwrap();
        let address: SocketAddr = address.parse().unwrap();
        addresses.push((protocol.to_owned(), address));
        if protocol == "PEEP" && (address.is_ipv6() || addresses.iter().all(|(_, address)| address.is_ipv4())) {
            break;
        }
    }
    for (protocol, address) in &addresses {
        assert_ne!(address.port(), 0);
        assert_eq!(address.ip().is_unspecified(), protocol == "POP3", "{address}");
        assert_eq!(address.ip().is_loopback(), protocol == "PEEP", "{address}");
    }
    let ports: std::collections::BTreeSet<_> =
        addresses.iter().map(|(protocol, address)| (protocol.clone(), address.port())).collect();
    assert_eq!(ports.len(), 2, "{addresses:?}");
}

#[test]
fn each_address_is_served() {
    let flags =
        ["-p", "0", "-P", "0", "--address", "127.0.0.1", "--address", "127.0.0.2", "--peep-address", "127.0.0.3"];
    let program = Program::start(&flags);
    for expected in ["127.0.0.1", "127.0.0.2"] {
        let address = program.address("POP3");
        assert_eq!(address.ip().to_string(), expected);
        Client::connect(address).ok();
    }
    let peep = program.address("PEEP");
    assert_eq!((peep.ip().to_string(), query(peep, "root root", "hc?")), ("127.0.0.3".to_owned(), "2".to_owned()));
}

#[test]
fn help_names_every_flag_and_version_prints_the_version() {
    for flag in ["--help", "-h"] {
        let output = output(&[flag]);
        expect_success(output.status);
        let help = String::from_utf8(output.stdout).unwrap();
        for flag in "user mailbox maildir peep-admin pop3-port peep-port transform timeout max-connections address \
                     peep-address transform-timeout verbose quiet log-file help version"
            .split_whitespace()
        {
            assert!(help.contains(&format!("--{flag}")), "{flag}");
        }
        assert!(output.stderr.is_empty());
    }
    for flag in ["--version", "-V"] {
        let output = output(&[flag]);
        expect_success(output.status);
        assert_eq!(output.stdout, format!("pop3d {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Refusals at the start

#[test]
fn an_invalid_flag_or_value_is_refused() {
    for (flags, why) in [
        (&["--unknown"][..], &["--unknown"][..]),
        (&["-x"], &["-x"]),
        (&["stray"], &["an argument that belongs to no flag"]),
        (&["-vvv"], &["--verbose"]),
        (&["-qqq"], &["--quiet"]),
        (&["--trusted", "10.1.2.3/8"], &["--trusted", "10.0.0.0/8"]),
        (&["--stats-log", "s.csv:x"], &["--stats-log", "seconds"]),
        (&["-t", "cat", "--transform-limit", "cpu=1,cpu=2"], &["--transform-limit", "cpu=2"]),
        (&["-u", "ana:x", "-u", "bob:y", "-u", "ana:z"], &["ana", "twice"]),
        (&["-t", ""], &["transform"]),
        (&["-t", "tr 'a"], &["transform", "tr 'a"]),
        (&["--peep-address", "0.0.0.0"], &["0.0.0.0", "--peep-admin"]),
        (&["--peep-address", "::", "-a", "root:root"], &["::", "--peep-admin"]),
        (&["--peep-address", "0.0.0.0", "-a", "boss:x"], &["0.0.0.0", "--peep-tls"]),
        (&["-c", "0"], &["max-connections", "0", "998"]),
        (&["-c", "999"], &["max-connections", "999", "998"]),
        (&["-c", "many"], &["max-connections", "many"]),
        (&["-T", "86401"], &["timeout", "86401", "86400"]),
        (&["-T=-1"], &["timeout"]),
        (&["-p", "65536"], &["pop3-port", "65536"]),
        (&["-P", "x"], &["peep-port", "x"]),
        (&["--address", "nowhere"], &["address", "nowhere"]),
        (&["--peep-address", "::g"], &["peep-address", "::g"]),
        (&["--transform-timeout", "x"], &["transform-timeout", "x"]),
        (&["-u", "ana"], &["user", "NAME:PASSWORD"]),
        (&["-u", "ana:"], &["user", "password"]),
        (&["-u", ":x"], &["user", "name"]),
        (&["-u", "a/b:x"], &["user", "name"]),
        (&["-u", "..:x"], &["user", "name"]),
        (&["-a", "root"], &["peep-admin", "NAME:PASSWORD"]),
        // PEEP cannot carry these names and passwords, so the admin could never log in.
        (&["-a", "boss:a b"], &["peep-admin", "password"]),
        (&["-a", "boss:a\tb"], &["peep-admin", "password"]),
        (&["-a", &format!("boss:{}", "x".repeat(129))], &["peep-admin", "password"]),
        (&["-v", "-q"], &["verbose", "quiet"]),
        (&["-m"], &["mailbox"]),
        (&["-m", ".", "-m", "."], &["mailbox"]),
    ] {
        expect_refusal(flags, 2, why);
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("file"), "").unwrap();
    expect_refusal(&["-m", &path("missing")], 1, &["missing", "No such file or directory"]);
    expect_refusal(&["-m", &path("file")], 1, &["file", "Not a directory"]);
    expect_refusal(&["-m", ""], 2, &["mailbox"]);
    expect_refusal(&["--log-file", &path("missing/log")], 1, &["missing/log", "No such file or directory"]);
    expect_refusal(&["--log-file", &path("")], 1, &["log file"]);
    expect_refusal(&["--address", "192.0.2.1"], 1, &["192.0.2.1"]);
}

#[test]
fn error_messages_contain_no_password() {
    for flags in [
        &["-u", "a/b:hunter2"][..],
        &["-u", "ana:hunter2", "-u", "ana:hunter2"],
        &["-a", "a b:hunter2"],
        &["-u", "ana:hunter2", "--unknown"],
        &["-u", "ana:", "hunter2"],
        &["-u", "ana:x", "hunter2"],
        &["-a", "boss:hunter2", "-m", "missing"],
    ] {
        let output = output(flags);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && !text.contains("hunter2"), "{flags:?}: {text}");
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port().to_string();
    expect_refusal(&["-p", &port], 1, &[&address.to_string(), "in use"]);
    expect_refusal(&["--peep-address", "127.0.0.1", "-P", &port], 1, &[&address.to_string(), "in use"]);
}

/// The limit is that of a container with few processes. Root has no such limit, so the program runs as a user who has
/// no other processes.
#[test]
fn a_limit_of_threads_that_is_too_low_is_refused() {
    const OWN_USER: u32 = NOBODY - 1;
    let (program, _directory) = copy_of_program();
    for threads in ["1", "2", "500", "1000", "1001"] {
        let mut command = Command::new("bash");
        let script = "ulimit -u \"$1\" && exec \"$0\" -q -a boss:x -u ana:x -p 0 -P 0 --address 127.0.0.1";
        command.args(["-c", script]).arg(&program).arg(threads);
        if geteuid().is_root() {
            command.uid(OWN_USER);
        }
        let output = bounded_output(command.current_dir("/tmp").stdin(Stdio::null()));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{}: {text}", output.status);
        assert!(!text.contains("panicked") && text.contains("thread"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The end of the server

#[test]
fn a_signal_ends_idle_sessions() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = server_with_mail(&[]);
        let mut waiting = server.pop3();
        let mut admin = server.admin();
        let mut client = server.session();
        client.call("DELE 1");
        client.write("QUI");
        end(&mut server, signal);
        for client in [&mut waiting, &mut admin, &mut client] {
            client.closed();
        }
        assert_eq!(server.maildrop().messages(), ["1"]);
    }
}

/// A script may send a signal as soon as the addresses are printed.
#[test]
fn a_signal_right_after_the_start_ends_the_server() {
    for round in 0..40 {
        let mut program =
            Program::start(&["-p", "0", "-P", "0", "--address", "127.0.0.1", "--peep-address", "127.0.0.1"]);
        program.address("POP3");
        program.signal(if round % 2 == 0 { Signal::TERM } else { Signal::INT });
        program.succeeds();
    }
}

/// The octets of a message that does not fit into the buffers between server and client.
const LARGE: usize = 16 << 20;

#[test]
fn a_message_that_is_being_sent_is_finished_before_the_end() {
    for line in ["in wire form already\r\n", ".to be edited\n"] {
        let mut server = server_with_mail(&[]);
        let count = LARGE / line.len();
        server.maildrop().put("1", line.repeat(count));
        let mut client = server.session();
        client.send_all(["DELE 1", "RSET", "RETR 1", "DELE 1", "QUIT"]);
        for _ in 0..3 {
            client.ok();
        }
        server.signal(Signal::TERM);
        eventually("the server is shutting down", || server.stderr().contains("shutting down"));
        let dots = if line.starts_with('.') { 1 } else { 0 };
        let expected = count * (line.trim_end().len() + 2 + dots) + ".\r\n".len();
        let received = client.rest();
        assert_eq!(received.len(), expected, "{line:?}");
        assert!(received.ends_with(b"\r\n.\r\n"), "{line:?}");
        expect_success(server.wait());
        assert_eq!(server.maildrop().messages(), ["1"]);
    }
}

#[test]
fn a_message_that_the_client_does_not_read_does_not_delay_the_end() {
    let mut server = server_with_mail(&[]);
    server.maildrop().put("1", "x".repeat(LARGE));
    let mut client = server.session();
    client.send_all(["RETR 1", "DELE 1", "QUIT"]);
    client.ok();
    end(&mut server, Signal::TERM);
    assert!(!client.rest().ends_with(b"\r\n.\r\n"));
    assert_eq!(server.maildrop().messages(), ["1"]);
}

/// Commands that the client has sent after RETR make no difference.
#[test]
fn a_running_transform_is_finished_before_the_end() {
    for behind in [&[][..], &["NOOP"]] {
        let mut server = server_with_mail(&["-t", "sh -c 'cat; sleep 1; echo end'"]);
        let mut client = server.session();
        client.send_all(["RETR 1"].iter().chain(behind).copied());
        client.ok();
        client.expect("Subject: one");
        server.signal(Signal::TERM);
        assert_eq!(client.multiline(), b"\r\nbody\r\nend\r\n", "{behind:?}");
        client.closed();
        expect_success(server.wait());
    }
}

/// The server and the transform's process end within the five seconds, whatever the transform was doing.
#[test]
fn a_transform_that_does_not_end_is_killed() {
    for (program, behind) in [
        ("sleep 1000", &[][..]),
        ("sleep 1000", &["NOOP", "QUIT"]),
        ("echo some; sleep 1000", &[]),
        ("exec >&-; sleep 1000", &[]),
        ("exec >&-; sleep 1000", &["NOOP"]),
        ("yes", &[]),
        ("yes", &["NOOP"]),
    ] {
        let notes = TempDir::new().unwrap();
        let note = notes.path().join("note");
        let transform = format!("sh -c 'echo $$ >\"$0.new\"; mv \"$0.new\" \"$0\"; {program}' '{}'", note.display());
        let mut server = server_with_mail(&["-t", &transform, "--allow-dir", notes.path().to_str().unwrap()]);
        let mut client = server.session();
        client.send_all(["RETR 1"].iter().chain(behind).copied());
        eventually("the program runs", || note.exists());
        let process = fs::read_to_string(&note).unwrap();
        end(&mut server, Signal::TERM);
        assert!(!client.rest().ends_with(b"\r\n.\r\n"), "{program} {behind:?}");
        let stat = format!("/proc/{}/stat", process.trim_end());
        let has_ended = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        eventually(&format!("{program} {behind:?} has ended"), has_ended);
    }
}

#[test]
fn clients_that_wait_for_a_slot_do_not_delay_the_end() {
    let mut server = Server::builder().flags(["-c", "2"]).start();
    let _first = server.pop3();
    let mut waiting: Vec<_> = (0..5).map(|_| Client::connect(server.pop3_address())).collect();
    end(&mut server, Signal::TERM);
    waiting.iter_mut().for_each(Client::closed);
}

/// A login that waits for the maildrop's lock does not delay the end.
#[test]
fn a_waiting_login_does_not_delay_the_end() {
    let mut server = server_with_mail(&[]);
    let _first = server.session();
    let mut second = server.pop3();
    second.call(&format!("USER {USER}"));
    second.send(&format!("PASS {PASSWORD}"));
    end(&mut server, Signal::INT);
}

#[test]
fn a_second_signal_changes_nothing() {
    let mut server = server_with_mail(&[]);
    server.maildrop().put("1", "x".repeat(LARGE));
    let mut client = server.session();
    client.send("RETR 1");
    client.ok();
    server.signal(Signal::TERM);
    server.signal(Signal::TERM);
    end(&mut server, Signal::INT);
}

/// Connections that the old server has closed itself are in the TIME-WAIT state.
#[test]
fn a_server_can_be_started_again_on_the_same_ports_at_once() {
    let (mut pop3, mut peep) = ("0".to_owned(), "0".to_owned());
    for _ in 0..5 {
        let mut program =
            Program::start(&["-p", &pop3, "-P", &peep, "--address", "127.0.0.1", "--peep-address", "127.0.0.1"]);
        let addresses = (program.address("POP3"), program.address("PEEP"));
        (pop3, peep) = (addresses.0.port().to_string(), addresses.1.port().to_string());
        let mut open = [Client::connect(addresses.0), Client::connect(addresses.1)];
        open[0].ok();
        assert_eq!(query(addresses.1, "root root", "cc?"), "1");
        program.signal(Signal::TERM);
        program.succeeds();
        open.iter_mut().for_each(Client::closed);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The log

/// The lines of the server's log that contain `text`.
fn log_lines(server: &Server, text: &str) -> Vec<String> {
    server.stderr().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

/// Waits for a log line that contains all of `texts`.
#[track_caller]
fn expect_log_line(server: &Server, texts: &[&str]) {
    eventually(&format!("the log has {texts:?}"), || {
        server.stderr().lines().any(|line| texts.iter().all(|text| line.contains(text)))
    });
}

fn local_address(client: &Client) -> String {
    client.socket().local_addr().unwrap().to_string()
}

#[test]
fn sessions_are_logged_from_connect_to_end() {
    let server = server_with_mail(&[]);
    server.maildrop().put("2", "Subject: two\n\nbody\n");
    let mut client = server.session();
    let address = local_address(&client);
    client.fetch("RETR 1");
    client.fetch("RETR 2");
    client.fetch("TOP 1 1");
    client.call("DELE 1");
    client.quit();
    expect_log_line(&server, &[&address, "connected"]);
    expect_log_line(&server, &[&address, "login", "\"mrose\"", "messages=2", "octets=44"]);
    expect_log_line(&server, &[&address, "end: quit", "retrieved=2", "octets=44", "deleted=1"]);
}

#[test]
fn the_log_says_how_each_session_ended() {
    let server = server_with_mail(&["-T", "1"]);
    let mut client = server.session();
    let hang_up = local_address(&client);
    client.call("DELE 1");
    drop(client);
    expect_log_line(&server, &[&hang_up, "end: client hung up", "deleted=0"]);
    let client = server.session();
    let broken = local_address(&client);
    reset(client);
    expect_log_line(&server, &[&broken, "end: client hung up"]);
    let mut client = server.pop3();
    let idle = local_address(&client);
    client.closed();
    expect_log_line(&server, &[&idle, "end: timeout"]);
    let mut server = server_with_mail(&[]);
    let client = server.session();
    let open = local_address(&client);
    end(&mut server, Signal::TERM);
    expect_log_line(&server, &["shutting down", "SIGTERM"]);
    expect_log_line(&server, &[&open, "end: server shutting down"]);
}

#[test]
fn failed_logins_are_logged_with_the_address() {
    let server = server_with_mail(&[]);
    let mut client = server.pop3();
    let address = local_address(&client);
    for user in [USER, "nobody"] {
        client.call(&format!("USER {user}"));
        client.refused("PASS wrong");
        expect_log_line(&server, &["[WARN]", &address, "login failed", &format!("\"{user}\"")]);
    }
    let mut peep = server.peep();
    peep.send("a root wrong");
    peep.expect("-2");
    expect_log_line(&server, &["[WARN]", &local_address(&peep), "login failed", "\"root\""]);
    let _holder = server.session();
    client.call(&format!("USER {USER}"));
    client.refused(&format!("PASS {PASSWORD}"));
    expect_log_line(&server, &[&address, "login refused", "locked by session"]);
}

#[test]
fn changed_settings_are_logged() {
    let server = server_with_mail(&["--allow-dir", "/tmp"]);
    let mut admin = server.admin();
    let address = local_address(&admin);
    for (command, expected) in [
        ("u+ ana hunter2", "\"ana\" added"),
        ("u- ana", "\"ana\" deleted"),
        ("c= 77", "connections = 77"),
        ("t= 99", "timeout = 99"),
        ("m= /tmp", "directory = \"/tmp\""),
    ] {
        admin.send(command);
        admin.expect("+");
        expect_log_line(&server, &[&address, expected]);
    }
    let before = log_lines(&server, "set:").len();
    for (command, code) in
        [("u- ana", "-4"), ("c= 0", "-5"), ("t= -1", "-7"), ("m= /missing", "-6"), ("u+ mrose x", "-3")]
    {
        admin.send(command);
        admin.expect(code);
    }
    assert_eq!(log_lines(&server, "set:").len(), before);
}

#[test]
fn no_password_is_logged_at_any_level() {
    let server = server_with_mail(&["-vv", "-a", "boss:admin-secret"]);
    let mut client = server.pop3();
    client.login(USER, PASSWORD);
    client.refused("PASS pop3-secret");
    client.send_all(["PASS", "pass pop3-secret", "PASS  pop3-secret x", "QUIT"]);
    client.rest();
    let mut client = server.pop3();
    client.refused("PASS pop3-secret");
    client.call("USER nobody");
    client.refused("PASS pop3-secret with spaces");
    client.call(&format!("USER {USER}"));
    client.refused(&format!("PASS pop3-secret{}", "x".repeat(600)));
    let mut peep = server.peep();
    peep.send_all([
        "a boss peep-secret",
        "a boss admin-secret",
        "u+ ana user-secret",
        "u+ ana user-secret",
        "+a ana",
        "q",
    ]);
    peep.rest();
    expect_log_line(&server, &["added"]);
    client.quit();
    expect_log_line(&server, &["PASS"]);
    for secret in ["secret", PASSWORD] {
        assert_eq!(log_lines(&server, secret), [""; 0]);
    }
}

#[test]
fn text_from_clients_cannot_break_a_log_line() {
    let server = server_with_mail(&["-vv"]);
    let mut client = server.pop3();
    client.write(b"USER a\rb\x1b[31m\0\x07\xff\xe2\x80\xa8\x0b\x0c\x85\r\nPASS x\r\n\x1b]0;x\x07\r\n");
    client.ok();
    client.err();
    client.err();
    client.quit();
    let mut peep = server.peep();
    peep.write("a evil\u{2028}name x\r\na ev\u{202e}il x\r\na root root\r\nm= /\u{2028}x\r\nu- \u{9b}x\r\nq\r\n");
    peep.rest();
    expect_log_line(&server, &["end: quit"]);
    expect_log_line(&server, &["#2", "end"]);
    let log = server.stderr();
    for line in log.lines().filter(|line| !line.is_empty()) {
        let stamped = line.get(..4).is_some_and(|year| year.bytes().all(|octet| octet.is_ascii_digit()));
        assert!(stamped && line.contains("Z ["), "{line:?}");
    }
    let odd = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202e}');
    assert!(!log.contains(odd), "{log:?}");
}

#[test]
fn flags_set_the_log_level() {
    for (flags, levels) in [
        (&["-q", "-q"][..], &["ERROR"][..]),
        (&["-qq"], &["ERROR"]),
        (&["--quiet"], &["ERROR", "WARN"]),
        (&[], &["ERROR", "WARN", "INFO"]),
        (&["-v"], &["ERROR", "WARN", "INFO", "DEBUG"]),
        (&["-v", "--verbose"], &["ERROR", "WARN", "INFO", "DEBUG", "TRACE"]),
    ] {
        let mut server = server_with_mail(flags);
        let mut client = server.pop3();
        client.call(&format!("USER {USER}"));
        client.refused("PASS wrong"); // WARN
        client.login(USER, PASSWORD); // INFO, DEBUG, TRACE
        server.maildrop().remove("1");
        client.refused("RETR 1"); // ERROR
        client.quit();
        end(&mut server, Signal::TERM);
        for level in ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"] {
            let found = !log_lines(&server, &format!("[{level}]")).is_empty();
            assert_eq!(found, levels.contains(&level), "{level} with {flags:?}");
        }
    }
}

#[test]
fn a_log_file_is_appended_to() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log");
    fs::write(&file, "what was there\n").unwrap();
    for runs in 1..=3 {
        let mut server = server_with_mail(&["--log-file", file.to_str().unwrap()]);
        server.session().quit();
        end(&mut server, Signal::TERM);
        let log = fs::read_to_string(&file).unwrap();
        assert!(log.starts_with("what was there\n"), "{log}");
        assert_eq!(log.matches("end: quit").count(), runs, "{log}");
        assert_eq!(server.stderr(), "");
    }
}

/// Does as logrotate does: renames the file, then sends the signal.
#[test]
fn a_log_file_is_opened_again_on_sighup() {
    let directory = TempDir::new().unwrap();
    let (file, moved) = (directory.path().join("log"), directory.path().join("log.1"));
    let mut server = server_with_mail(&["--log-file", file.to_str().unwrap()]);
    server.session().quit();
    fs::rename(&file, &moved).unwrap();
    server.signal(Signal::HUP);
    eventually("the server writes to a new file", || {
        fs::read_to_string(&file).is_ok_and(|log| log.contains("opened again"))
    });
    server.session().quit();
    end(&mut server, Signal::TERM);
    assert_eq!(fs::read_to_string(&moved).unwrap().matches("end: quit").count(), 1);
    assert_eq!(fs::read_to_string(&file).unwrap().matches("end: quit").count(), 1);
}

/// glibc reads its tunables only from the environment at the start. So the program sets them and executes itself again
/// in the same process, with the same name.
#[test]
fn the_server_limits_the_memory_that_its_threads_keep_after_freeing() {
    let environment = |server: &Server| fs::read_to_string(format!("/proc/{}/environ", server.pid())).unwrap();
    let server = server_with_mail(&[]);
    assert_eq!(environment(&server).contains("GLIBC_TUNABLES="), cfg!(target_env = "gnu"));
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", server.pid())).unwrap(), "pop3d\n");
    let own = Server::builder().environment("GLIBC_TUNABLES", "glibc.malloc.tcache_max=64").start();
    assert!(environment(&own).contains("GLIBC_TUNABLES=glibc.malloc.tcache_max=64\0"));
}
