//! The real `peepclient` against a server that plays a script.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use crate::harness::{Certificate, Server, accept};
use crate::tls_peer::{Identity, NAMES, Stream, secured};

pub(crate) const BANNER: &str = "Connected successfully to server through PEEP!\nSee available commands with 'help'\n";

/// `peepclient` for this port, without environment variables that change what it does. It is killed after a minute.
pub(crate) fn peepclient(port: u16) -> Command {
    peepclient_with(["-address", "127.0.0.1", "-port", &port.to_string()])
}

/// The exit code and the output of a client that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `peepclient` with these arguments alone, without a person's profiles and password. It is killed after a minute.
pub(crate) fn peepclient_with<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", env!("CARGO_BIN_EXE_peepclient")]).args(arguments);
    command.env_remove("PEEP_PASSWORD").env("XDG_CONFIG_HOME", "/nowhere");
    command
}

/// Runs `command` with `input` as its standard input until it ends. The input must fit into a pipe.
pub(crate) fn run(command: &mut Command, input: impl AsRef<[u8]>) -> Ended {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // The program may end without reading everything.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_ref());
    let output = child.wait_with_output().expect("the program ends");
    let text = |octets| String::from_utf8(octets).expect("UTF-8");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub(crate) fn ended(code: i32, stdout: impl Into<String>, stderr: impl Into<String>) -> Ended {
    Ended { code: Some(code), stdout: stdout.into(), stderr: stderr.into() }
}

/// A server of one connection. It expects each line of its script, gives the script's answer, and closes at the end.
struct Scripted {
    port: u16,
    thread: JoinHandle<()>,
}

/// The answer that stands for: the client hangs up here.
const HANG_UP: &str = "";

/// The first line of most scripts.
const LOGIN: (&str, &str) = ("a root root", "+\r\n");

impl Scripted {
    fn start(script: &[(&'static str, &'static str)]) -> Self {
        Self::listening(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"), script)
    }

    fn listening(listener: TcpListener, script: &[(&'static str, &'static str)]) -> Self {
        Self::over(listener, script, |socket| Box::new(socket))
    }

    /// Starts a server that uses TLS.
    fn by_tls(identity: &Identity, listener: TcpListener, script: &[(&'static str, &'static str)]) -> Self {
        let config = identity.config();
        Self::over(listener, script, |socket| secured(socket, config))
    }

    fn over(
        listener: TcpListener,
        script: &[(&'static str, &'static str)],
        stream: impl FnOnce(TcpStream) -> Box<dyn Stream> + Send + 'static,
    ) -> Self {
        let port = listener.local_addr().expect("its address").port();
        let script = script.to_vec();
        let thread = thread::spawn(move || {
            let mut lines = BufReader::new(stream(accept(&listener)));
            for (expected, answer) in script {
                let mut line = String::new();
                lines.read_line(&mut line).expect("a line");
                assert_eq!(line, if answer == HANG_UP { String::new() } else { format!("{expected}\r\n") });
                lines.get_mut().write_all(answer.as_bytes()).expect("the client listens");
            }
        });
        Self { port, thread }
    }

    /// Checks that the client has sent the lines of the script, and nothing else.
    fn heard_all(self) {
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Runs the client with the command `words` against a server that plays `script`.
fn once(script: &[(&'static str, &'static str)], words: &[&str]) -> Ended {
    let server = Scripted::start(script);
    let ended = run(peepclient(server.port).args(words), "");
    server.heard_all();
    ended
}

/// Runs the client as a filter for the commands in `input` against a server that plays `script`.
fn filter(script: &[(&'static str, &'static str)], input: impl AsRef<[u8]>) -> Ended {
    let server = Scripted::start(script);
    let ended = run(&mut peepclient(server.port), input);
    server.heard_all();
    ended
}

#[test]
fn a_filter_speaks_as_in_the_report() {
    let script = [
        LOGIN,
        ("rb?", "+395\r\n"),
        ("m?", "+../directories/\r\n"),
        ("cu?", "+0\r\n"),
        ("u+ one one", "+\r\n"),
        ("cu?", "+2\r\none\r\ntwo\r\n"),
        ("q", "+\r\n"),
    ];
    let input =
        "retrieved bytes\n\nMAILDIR\r\n  current logged users\nadd user one one\nCurrent Logged Users\nquit\nusers\n";
    let answers = "OK! 395\nOK! ../directories/\nOK!\nOK!\nOK! lines: 2\none\ntwo\nOK!\n";
    assert_eq!(filter(&script, input), ended(0, format!("{BANNER}{answers}"), ""));
}

#[test]
fn a_filter_goes_on_after_an_error_and_ends_with_1() {
    let script = [LOGIN, ("u- two", "-4\r\n"), ("m= ~", "-6\r\n"), ("t?", "+0\r\n"), ("", HANG_UP)];
    let input = b"delete user two\nset maildir ~\nfoo\nset timeout\nset timeout soon\n\xff\xfe\ntimeout";
    let answers = "ERROR! Invalid username, does not exist\n\
                   ERROR! Invalid path format\n\
                   ERROR! Unknown client command, see available commands with 'help'\n\
                   ERROR! Wrong number of arguments, the command is: set timeout <value>\n\
                   ERROR! Invalid <value>, it must be an integer\n\
                   ERROR! Invalid text, not UTF-8\n\
                   OK! 0\n";
    assert_eq!(filter(&script, input), ended(1, format!("{BANNER}{answers}"), ""));
}

#[test]
fn a_filter_is_usable_as_a_co_process() {
    let server = Scripted::start(&[LOGIN, ("t?", "+0\r\n"), ("u?", "+1\r\none\r\n"), ("", HANG_UP)]);
    let mut child =
        peepclient(server.port).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut commands = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("a line"));
    assert_eq!(lines.by_ref().take(2).collect::<Vec<_>>().join("\n") + "\n", BANNER);
    writeln!(commands, "timeout").expect("it reads");
    assert_eq!(lines.next().as_deref(), Some("OK! 0"));
    writeln!(commands, "users").expect("it reads");
    assert_eq!(lines.by_ref().take(2).collect::<Vec<_>>(), ["OK! lines: 1", "one"]);
    drop(commands);
    assert_eq!(lines.next(), None);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    server.heard_all();
}

#[test]
fn the_answer_to_one_command_is_printed_bare() {
    assert_eq!(once(&[LOGIN, ("rb?", "+395\r\n")], &["retrieved", "bytes"]), ended(0, "395\n", ""));
    assert_eq!(once(&[LOGIN, ("rb?", "+395\r\n")], &["Retrieved bytes"]), ended(0, "395\n", ""));
    assert_eq!(once(&[LOGIN, ("u?", "+2\r\none\r\ntwo\r\n")], &["users"]), ended(0, "one\ntwo\n", ""));
    assert_eq!(once(&[LOGIN, ("u?", "+0\r\n")], &["users"]), ended(0, "", ""));
    assert_eq!(
        once(&[LOGIN, ("t= -1", "-7\r\n")], &["set", "timeout", "-1"]),
        ended(1, "", "Invalid timeout amount\n")
    );
    assert_eq!(once(&[LOGIN, ("q", "+\r\n")], &["quit"]), ended(0, "", ""));
    assert_eq!(
        once(&[LOGIN, ("u- bob", "-8\r\n")], &["delete", "user", "bob"]),
        ended(1, "", "The users file cannot be written, nothing was changed\n")
    );
    assert_eq!(once(&[LOGIN, ("u?", "-99\r\n")], &["users"]), ended(1, "", "Unknown error code 99\n"));
}

#[test]
fn help_and_invalid_commands_need_no_server() {
    let help = run(peepclient(1).arg("help"), "");
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert!(
        help.stdout.starts_with("  capa  ") && help.stdout.contains("\n  kick user <username>  "),
        "{}",
        help.stdout
    );
    let about = "  add user <username> <password>    add an account\n";
    assert_eq!(run(peepclient(1).args(["help", "add"]), ""), ended(0, about, ""));
    for (words, error) in [
        (&["foo"][..], "Unknown client command, see available commands with 'help'"),
        (&["timeout", "5"], "Wrong number of arguments, the command is: timeout"),
        (&["set", "maildir", "a b"], "Invalid <path>, it must have 1 to 128 octets, no space and no control character"),
    ] {
        assert_eq!(run(peepclient(1).args(words), ""), ended(2, "", format!("peepclient: {error}\n")));
    }
    let unknown = run(peepclient(1).arg("-verbose"), "");
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(2), ""));
    assert!(unknown.stderr.contains("unexpected argument '--verbose'"), "{}", unknown.stderr);
    assert_eq!(
        run(peepclient(1).arg("-version"), ""),
        ended(0, concat!("peepclient ", env!("CARGO_PKG_VERSION"), "\n"), "")
    );
}

#[test]
fn the_password_comes_from_the_most_explicit_source() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    fs::write(&file, "from-file\nanother line\n").expect("a file");
    let file = file.to_str().expect("UTF-8");
    for (arguments, variable, login) in [
        (&["-pass", "-x", "--pass-file", file][..], Some("from-variable"), "a root -x"),
        (&["-pass-file", file, "-user", "me"], Some("from-variable"), "a me from-file"),
        (&[], Some("from-variable"), "a root from-variable"),
        (&[], None, "a root root"),
    ] {
        let server = Scripted::start(&[(login, "+\r\n"), ("t?", "+0\r\n")]);
        let mut command = peepclient(server.port);
        command.args(arguments).envs(variable.map(|password| ("PEEP_PASSWORD", password))).arg("timeout");
        assert_eq!(run(&mut command, ""), ended(0, "0\n", ""));
        server.heard_all();
    }
    let ended = run(peepclient(1).args(["-pass-file", "no-such-file", "timeout"]), "");
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.starts_with("peepclient: cannot read the password from no-such-file: No such file"));
}

#[test]
fn a_host_is_a_name_or_an_address_of_either_family() {
    for (bound, host) in [("127.0.0.1:0", "localhost"), ("[::1]:0", "::1"), ("[::1]:0", "[::1]")] {
        let Ok(listener) = TcpListener::bind(bound) else { continue }; // a machine without IPv6
        let server = Scripted::listening(listener, &[LOGIN, ("t?", "+0\r\n")]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_peepclient"));
        command.args(["--address", host, "--port", &server.port.to_string(), "timeout"]).env_remove("PEEP_PASSWORD");
        assert_eq!(run(&mut command, ""), ended(0, "0\n", ""), "{host} at {bound}");
        server.heard_all();
    }
}

#[test]
fn a_refused_login_ends_with_4() {
    let server = Scripted::start(&[("a root wrong", "-2\r\n"), ("", HANG_UP)]);
    let port = server.port;
    let refused = format!("peepclient: 127.0.0.1:{port} refused the login: Incorrect username or password\n");
    assert_eq!(run(peepclient(port).args(["-pass", "wrong"]), "users\n"), ended(4, "", refused));
    server.heard_all();
}

#[test]
fn a_server_that_is_not_there_ends_with_3() {
    // The port is bound but not listened on, so that it refuses connections.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    let port = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("its address").port();
    let ended = run(peepclient(port).arg("users"), "");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""));
    let start = format!("peepclient: cannot connect to 127.0.0.1:{port}: Connection refused");
    assert!(ended.stderr.starts_with(&start) && ended.stderr.lines().count() == 1, "{}", ended.stderr);
}

#[test]
fn a_server_that_does_not_answer_ends_with_3() {
    // The connection is never accepted: the client waits in the backlog, as it does if the server is full.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let silent = format!("peepclient: 127.0.0.1:{port}: the server does not answer\n");
    assert_eq!(run(peepclient(port).args(["-timeout", "1", "users"]), ""), ended(3, "", silent));
}

#[test]
fn a_lost_connection_or_another_protocol_ends_with_3() {
    let closed = "the server closed the connection";
    for (script, stdout, reason) in [
        (&[("a root root", "+")][..], "", closed),
        (&[LOGIN], BANNER, closed),
        (&[LOGIN, ("u?", "+2\r\none\r\n")], &format!("{BANNER}OK! lines: 2\none\n"), closed),
        (&[LOGIN, ("u?", "+12")], BANNER, closed),
        (&[LOGIN, ("u?", "+many\r\n")], BANNER, "the server's answer is not PEEP: \"+many\""),
        (&[LOGIN, ("u?", "\x1b[2J\r\n")], BANNER, "the server's answer is not PEEP: \"\\u{1b}[2J\""),
        (&[("a root root", "+OK POP3 ready\r\n")], "", "the server's answer is not PEEP: \"+OK POP3 ready\""),
        (
            &[("a root root", "HTTP/1.1 400 Bad Request\r\n")],
            "",
            "the server's answer is not PEEP: \"HTTP/1.1 400 Bad Request\"",
        ),
    ] {
        let server = Scripted::start(script);
        let failure = format!("peepclient: 127.0.0.1:{}: {reason}\n", server.port);
        assert_eq!(run(&mut peepclient(server.port), "users\ntimeout\n"), ended(3, stdout, failure));
        server.heard_all();
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let server = Scripted::start(&[LOGIN, ("", HANG_UP)]);
    let mut command = peepclient(server.port);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("UTF-8");
    assert_eq!((child.wait().expect("it ends").code(), stderr.as_str()), (Some(0), ""));
    server.heard_all();
}

/// A Python script that runs a program on a terminal of its own. In turn it waits for a text and the prompt behind it,
/// and types. At the end it prints what the terminal showed and exits as the program did. The alarm ends a program that
/// never prints the expected text.
pub(crate) const ON_A_TERMINAL: &str = r#"
import os, pty, signal, sys
signal.alarm(60)
program, dialogue = sys.argv[1:4], [text.encode() for text in sys.argv[4:]]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(program[0], program)

def read():
    try:
        return os.read(terminal, 4096)
    except OSError: # the program has closed it
        return b""

shown, start = b"", 0
for answer, typed in zip(dialogue[::2], dialogue[1::2]):
    for awaited in [answer] if answer.endswith(b"[y/N] ") else [answer, b"> "]:
        while awaited not in shown[start:]:
            data = read()
            if not data:
                sys.exit(f"ended without {awaited}: {shown}")
            shown += data
        start = shown.index(awaited, start) + len(awaited)
    os.write(terminal, typed)
while data := read():
    shown += data
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// Runs the client on a terminal against a server that plays `script`. The first part of each pair in `dialogue` is
/// expected before the second part is typed.
fn at_the_prompt(state: &Path, script: &[(&'static str, &'static str)], dialogue: &[(&str, &str)]) -> Ended {
    let server = Scripted::start(script);
    let mut python = Command::new("python3");
    python.args(["-c", ON_A_TERMINAL, env!("CARGO_BIN_EXE_peepclient")]);
    python.args(["-address=127.0.0.1", &format!("-port={}", server.port)]);
    python.args(dialogue.iter().flat_map(|&(awaited, typed)| [awaited, typed]));
    python.env_remove("PEEP_PASSWORD").env("XDG_STATE_HOME", state).env("XDG_CONFIG_HOME", state).env("TERM", "xterm");
    let ended = run(&mut python, "");
    server.heard_all();
    ended
}

#[test]
fn lines_at_the_prompt_are_edited_completed_and_recalled() {
    const UP: &str = "\x1b[A";
    const LEFT: &str = "\x1b[D";
    let state = tempfile::tempdir().expect("a folder");
    let script = [
        LOGIN,
        ("rb?", "+395\r\n"),
        ("t?", "+10\r\n"),
        ("t?", "+11\r\n"),
        ("cu?", "+1\r\none\r\n"),
        ("u+ bob secret", "+\r\n"),
        ("u- bob", "-4\r\n"),
        ("m?", "+/a\r\n"),
        ("u?", "+0\r\n"),
        ("c?", "+998\r\n"),
        ("", HANG_UP),
    ];
    let dialogue = [
        ("with 'help'\r\n", "retrieved bytez\x7fs\r"),
        ("OK! 395\r\n", &format!("timeut{LEFT}{LEFT}o\r")),
        ("OK! 10\r\n", &format!("{UP}\r")),
        ("OK! 11\r\n", "CUR\tl\t\r"),
        ("OK! lines: 1\r\none\r\n", "add user bob secret\r"),
        ("OK!\r\n", "ad user bob secret\r"),
        ("ERROR! Unknown", &format!("{UP}{UP}\x01\x0bdelete u\tbob\r")),
        ("ERROR! Invalid username, does not exist\r\n", "rubbish\x03"),
        ("rubbish\r\n", "maildir\rusers\rmax connections\r"), // typed ahead
        ("OK! 998\r\n", "\x04"),
    ];
    let ended = at_the_prompt(state.path(), &script, &dialogue);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    assert!(ended.stdout.starts_with(&BANNER.replace('\n', "\r\n")), "{}", ended.stdout);

    let history = state.path().join("peepclient/history");
    let kept = fs::read_to_string(&history).expect("a history");
    let commands = [
        "retrieved bytes",
        "timeout",
        "current logged users",
        "delete user bob",
        "maildir",
        "users",
        "max connections",
    ];
    assert_eq!(kept.lines().skip(1).collect::<Vec<_>>(), commands);
    assert_eq!(fs::metadata(&history).expect("a file").permissions().mode() & 0o777, 0o600);

    let again = [LOGIN, ("c?", "+998\r\n"), ("q", "+\r\n")];
    let ended = at_the_prompt(state.path(), &again, &[("", &format!("{UP}\r")), ("OK! 998\r\n", "quit\r")]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
}

#[test]
fn help_on_a_terminal_explains_one_command_or_all() {
    let state = tempfile::tempdir().expect("a folder");
    let dialogue = [
        ("with 'help'\r\n", "help\r"),
        ("metrics                           show all counters as OpenMetrics text\r\n", "help add\r"),
        ("add user <username> <password>    add an account\r\n", "help del\t\r"),
        ("delete user <username>            remove an account, its mail stays\r\n", "?\r"),
        ("metrics                           show all counters as OpenMetrics text\r\n", "help nothing\r"),
        ("ERROR! Unknown client command, see available commands with 'help'\r\n", "exit\r"),
    ];
    let ended = at_the_prompt(state.path(), &[LOGIN, ("q", "+\r\n"), ("", HANG_UP)], &dialogue);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("OK!\r\n") && !ended.stdout.contains("capa | "), "{}", ended.stdout);
}

#[test]
fn a_prompt_whose_server_dies_ends_with_3() {
    let state = tempfile::tempdir().expect("a folder");
    let ended = at_the_prompt(state.path(), &[LOGIN, ("u?", "+1\r\n")], &[("", "users\r")]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.stdout.ends_with(": the server closed the connection\r\n"), "{:?}", ended.stdout);
}

/// Runs the command `timeout` by TLS, with these further arguments.
fn ask_by_tls(port: u16, arguments: &[&str]) -> Ended {
    run(peepclient(port).arg("-tls").args(arguments).arg("timeout"), "")
}

/// Runs the client against a server of one connection, for which `serve` is called. Returns the client's error without
/// the server's name.
fn refusal_of(serve: impl FnOnce(TcpStream) + Send + 'static, arguments: &[&str]) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let server = thread::spawn(move || serve(accept(&listener)));
    let Ended { code, stdout, stderr } = ask_by_tls(port, arguments);
    server.join().expect("a server without fault");
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(3), "", 1), "{stderr}");
    stderr.strip_prefix(&format!("peepclient: 127.0.0.1:{port}: ")).expect("its name").trim_end().to_owned()
}

/// Returns the client's error for a server that has this certificate.
fn refused(identity: &Identity, arguments: &[&str]) -> String {
    let config = identity.config();
    let until_it_leaves = |socket| drop(secured(socket, config).read(&mut [0]));
    refusal_of(until_it_leaves, arguments)
}

#[test]
fn a_trusted_server_is_accepted() {
    let calls_itself_an_authority = Identity::with(&NAMES, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    for identity in [Identity::new(), Identity::of_an_authority(), calls_itself_an_authority] {
        for (bound, host) in [("127.0.0.1:0", "localhost"), ("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]")] {
            let Ok(listener) = TcpListener::bind(bound) else { continue }; // a machine without IPv6
            let server = Scripted::by_tls(&identity, listener, &[LOGIN, ("u?", "+1\r\none\r\n"), ("", HANG_UP)]);
            let mut command = Command::new(env!("CARGO_BIN_EXE_peepclient"));
            command.args(["-tls", "-ca", &identity.ca(), "-address", host, "-port", &server.port.to_string(), "users"]);
            assert_eq!(run(command.env_remove("PEEP_PASSWORD"), ""), ended(0, "one\n", ""), "{host}");
        }
    }
}

#[test]
fn the_systems_authorities_are_trusted_unless_others_are_named() {
    let identity = Identity::of_an_authority();
    let ask = |identity: &Identity, arguments: &[&str]| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let config = identity.config();
        thread::spawn(move || {
            let mut lines = BufReader::new(secured(accept(&listener), config)).lines();
            while let Some(Ok(_)) = lines.next() {}
        });
        let mut command = peepclient(port);
        command.env("SSL_CERT_FILE", identity.ca()).env_remove("SSL_CERT_DIR").args(["-tls", "-timeout", "1"]);
        run(command.args(arguments).arg("users"), "").stderr
    };
    assert!(ask(&identity, &[]).contains("the server does not answer"));
    assert!(ask(&identity, &["-ca", &Identity::new().ca()]).contains("nobody trusted here"));
}

#[test]
fn an_untrusted_certificate_is_refused_with_the_reason() {
    let good = Identity::new();
    let nobody = "nobody trusted here has signed the server's certificate: name it, or its issuer's, with --ca FILE";
    assert_eq!(refused(&good, &["-ca", &Identity::new().ca()]), nobody);
    assert_eq!(refused(&Identity::of_an_authority(), &["-ca", &good.ca()]), nobody);
    assert_eq!(refused(&good, &[]), nobody);

    let other = Identity::with(&["mail.example", "192.0.2.1"], |_| {});
    let names = "the server's certificate is for mail.example, 192.0.2.1, not for 127.0.0.1";
    assert_eq!(refused(&other, &["-ca", &other.ca()]), names);
    let nameless = Identity::with(&[], |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    assert!(refused(&nameless, &["-ca", &nameless.ca()]).contains("is for no name at all"));

    let expired = Identity::with(&NAMES, |params| params.not_after = rcgen::date_time_ymd(2020, 2, 29));
    let date = "the server's certificate has expired: 2020-02-29 was its last day";
    assert_eq!(refused(&expired, &["-ca", &expired.ca()]), date);
    let future = Identity::with(&NAMES, |params| params.not_before = rcgen::date_time_ymd(2999, 1, 1));
    assert!(refused(&future, &["-ca", &future.ca()]).contains("not valid before 2999-01-01"));
}

#[test]
fn every_certificate_is_accepted_with_insecure() {
    let bad = Identity::with(&["mail.example"], |params| params.not_after = rcgen::date_time_ymd(2020, 2, 29));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let server = Scripted::by_tls(&bad, listener, &[LOGIN, ("t?", "+0\r\n"), ("", HANG_UP)]);
    assert_eq!(ask_by_tls(server.port, &["-insecure"]), ended(0, "0\n", ""));
}

#[test]
fn the_error_tells_whether_the_server_has_no_tls_hangs_up_or_is_silent() {
    let read = |socket: &mut TcpStream| assert!(socket.read(&mut [0; 4096]).expect("a handshake") > 0);
    let answer = move |mut socket: TcpStream| {
        read(&mut socket);
        socket.write_all(b"-1\r\n-0\r\n").expect("the client listens");
        let _ = socket.read(&mut [0]); // until it leaves
    };
    let no_tls = "what the server sends is not TLS: does it speak TLS on this port?";
    assert_eq!(refusal_of(answer, &["-insecure"]), no_tls);
    let closed = "the server closed the connection in the TLS handshake";
    assert_eq!(refusal_of(move |mut socket| read(&mut socket), &["-insecure"]), closed);
    assert_eq!(refusal_of(drop, &["-insecure"]), closed);
    let silence = move |mut socket: TcpStream| while socket.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {};
    assert_eq!(refusal_of(silence, &["-insecure", "-timeout=1"]), "the server does not complete the TLS handshake");
}

#[test]
fn the_error_in_clear_tells_that_the_server_uses_tls() {
    let server = Server::builder().tls(&Certificate::new()).start();
    let ended = run(peepclient(server.peep_address().port()).arg("users"), "");
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.ends_with("the server speaks TLS here (see --tls)\n"), "{}", ended.stderr);
}

#[test]
fn tls_flags_that_contradict_each_other_are_refused() {
    let identity = Identity::new();
    let ca = identity.ca();
    for arguments in [
        &["-ca", &ca, "users"][..],
        &["-insecure", "users"],
        &["-tls", "-ca", &ca, "-insecure", "users"],
        &["-tls", "-ca", "no-such-file", "users"],
        &["-tls", "-ca", file!(), "users"],
        &["-tls", "-insecure", "-address", "no name", "users"],
    ] {
        let ended = run(peepclient(1).args(arguments), "");
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty());
    }
}

#[test]
fn the_real_server_is_administered_by_tls() {
    let certificate = crate::harness::Certificate::new();
    let server = Server::builder().tls(&certificate).start();
    let chain = certificate.chain().into_os_string().into_string().expect("UTF-8");
    let ended = ask_by_tls(server.peep_address().port(), &["-ca", &chain]);
    assert_eq!(ended, super::peepclient::ended(0, "600\n", ""));
}
