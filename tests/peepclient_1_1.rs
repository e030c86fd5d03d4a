//! `peepclient` with the commands of PEEP 1.1, with JSON and with several servers. Most tests run it against a scripted
//! server.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server, accept, eventually};
use crate::peepclient::{BANNER, Ended, ON_A_TERMINAL, ended, peepclient, peepclient_with, run};

/// A scripted server with a fixed answer for each line, and -0 for any other line. It serves any number of clients
/// until the test program ends.
#[derive(Clone, Default)]
pub(crate) struct Answering {
    answers: Arc<Mutex<HashMap<String, String>>>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Answering {
    pub(crate) fn new(answers: &[(&str, &str)]) -> Self {
        let server = Self::default();
        server.answer("a root root", "+");
        answers.iter().for_each(|(line, answer)| server.answer(line, answer));
        server
    }

    /// Sets the answer to a line. The lines of `answer` are separated by LF.
    pub(crate) fn answer(&self, line: &str, answer: &str) {
        self.answers.lock().unwrap().insert(line.to_owned(), answer.replace('\n', "\r\n") + "\r\n");
    }

    /// Closes the connection of whoever sends this line from now on.
    pub(crate) fn hang_up_at(&self, line: &str) {
        self.answers.lock().unwrap().insert(line.to_owned(), String::new());
    }

    /// The lines that clients have sent, without logins.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// Listens on a free port, and returns it.
    pub(crate) fn on_a_port(&self) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        self.serve_each(move || {
            let (socket, _) = listener.accept()?;
            socket.set_read_timeout(Some(2 * PATIENCE)).map(|()| socket)
        });
        port
    }

    fn on_a_socket(&self, path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        self.serve_each(move || {
            let (socket, _) = listener.accept()?;
            socket.set_read_timeout(Some(2 * PATIENCE)).map(|()| socket)
        });
    }

    /// Serves each connection that `accept` returns in a thread of its own.
    fn serve_each<S: Read + Write + Send + 'static>(&self, mut accept: impl FnMut() -> io::Result<S> + Send + 'static) {
        let server = self.clone();
        thread::spawn(move || {
            while let Ok(socket) = accept() {
                let server = server.clone();
                thread::spawn(move || server.serve(socket));
            }
        });
    }

    fn serve(&self, stream: impl Read + Write) {
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
            let command = line.trim_end();
            let answer = self.answers.lock().unwrap().get(command).cloned();
            if !command.starts_with("a ") {
                self.heard.lock().unwrap().push(command.to_owned());
            }
            let answer = answer.unwrap_or_else(|| "-0\r\n".to_owned());
            if answer.is_empty() || lines.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
            line.clear();
        }
    }
}

pub(crate) const SESSIONS: &str =
    "+2\n17 pop3s 192.0.2.4 transaction ana 312 4 3 10240 1 TLSv1.3\n2 peep - admin - 0 0 0 0 0 - new";

const ABOUT_BOB: &str = "+3\nmessages 2\nmaildir /var/mail/b%20ob\nlast_login -";

fn once(answers: &[(&str, &str)], arguments: &[&str]) -> Ended {
    run(peepclient(Answering::new(answers).on_a_port()).args(arguments), "")
}

pub(crate) fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[test]
fn each_command_prints_its_answer() {
    for (line, answer, words, stdout) in [
        (
            "w?",
            SESSIONS,
            "sessions",
            "17\tpop3s\t192.0.2.4\ttransaction\tana\t312\t4\t3\t10240\t1\tTLSv1.3\n\
                                      2\tpeep\t-\tadmin\t-\t0\t0\t0\t0\t0\t-\n",
        ),
        ("k= 17", "+1", "kick 17", "1\n"),
        ("ku= ana", "+2", "kick user ana", "2\n"),
        ("ka= 192.0.2.0/24", "+2", "kick address 192.0.2.77/24", "2\n"),
        ("b+ ::1 60", "+", "ban ::1 60", ""),
        ("b- ::1", "+", "unban ::1/128", ""),
        ("b?", "+1\n192.0.2.0/24 60 failed%20logins", "bans", "192.0.2.0/24\t60\tfailed logins\n"),
        ("s?", "+2\nuptime 17\nlogins 3", "stats", "uptime\t17\nlogins\t3\n"),
        ("i? bob", ABOUT_BOB, "user bob", "messages\t2\nmaildir\t/var/mail/b ob\nlast_login\t-\n"),
        (
            "at bob x sources",
            "+ok seconds=0.002 maildrop=/mail/b%20ob messages=2 octets=46 source=sql%20x said=accepted took=0.0011",
            "test login bob x",
            "ok\nsql x: accepted (1.1 ms)\nmaildrop /mail/b ob: 2 messages, 46 octets\n",
        ),
        ("e?", "+1\n2026-11-28 WARN a line", "errors", "2026-11-28 WARN a line\n"),
        ("l= debug", "+", "set log level debug", ""),
        ("l?", "+info", "log level", "info\n"),
        ("d= 1", "+", "drain", ""),
        ("d= 0", "+", "resume", ""),
        ("d?", "+1", "draining", "1\n"),
        ("r", "+", "reload", ""),
        ("r", "+1\npeep-socket", "reload", "needs a restart: peep-socket\n"),
        ("mt?", "+2\nlogins_total 3\n# EOF", "metrics", "logins_total 3\n# EOF\n"),
    ] {
        assert_eq!(once(&[(line, answer)], &[words]), ended(0, stdout, ""), "{words}");
    }
}

#[test]
fn errors_have_their_texts() {
    for (line, code, words, text) in [
        ("k= 1", "-10", "kick 1", "No such connection or ban"),
        ("r", "-11", "reload", "The configuration cannot be used, the old one stays; the command errors tells why"),
        ("d= 1", "-12", "drain", "A viewer may not do this"),
        ("w?", "-0", "sessions", "Unknown server command"),
    ] {
        assert_eq!(once(&[(line, code)], &[words]), ended(1, "", format!("{text}\n")), "{words}");
    }
}

#[test]
fn a_login_that_would_be_refused_ends_with_1() {
    let answers = [("at bob x sources", "+wrong password")];
    assert_eq!(once(&answers, &["test login bob x"]), ended(1, "wrong password\n", ""));
    let filter = run(&mut peepclient(Answering::new(&answers).on_a_port()), "test login bob x\n");
    assert_eq!(filter, ended(1, format!("{BANNER}OK! wrong password\n"), ""));
}

#[test]
fn an_answer_that_breaks_off_is_whole_json_and_tells_why() {
    let port = Answering::new(&[("w?", "+2\n17 pop3 \x1b\nx")]).on_a_port();
    let broken = run(peepclient(port).args(["sessions", "--json"]), "");
    let reason = format!("127.0.0.1:{port}: the server's answer is not PEEP: \"17 pop3 \\u{{1b}}\"");
    assert_eq!((broken.code, json_of(&broken)), (Some(3), json!([{"error": reason}])));
    assert!(!broken.stdout.contains('\x1b'), "{broken:?}");
}

#[test]
fn csv_has_headings_for_every_answer() {
    for (line, answer, words, stdout) in [
        ("u?", "+2\nana\nb,ob", "users", "users\nana\n\"b,ob\"\n"),
        ("t?", "+60", "timeout", "timeout\n60\n"),
        ("b?", "+1\n::1 - x", "bans", "network,seconds_left,reason\n::1,,x\n"),
    ] {
        assert_eq!(once(&[(line, answer)], &["-csv", words]), ended(0, stdout, ""));
    }
}

#[test]
fn a_malformed_line_of_an_answer_ends_with_3() {
    let port = Answering::new(&[("w?", "+2\n17 pop3\nx")]).on_a_port();
    let failure = format!("peepclient: 127.0.0.1:{port}: the server's answer is not PEEP: \"17 pop3\"\n");
    assert_eq!(run(peepclient(port).arg("sessions"), ""), ended(3, "", failure));
}

#[test]
fn every_answer_can_be_json() {
    let answers = [
        ("w?", SESSIONS),
        ("s?", "+2\nuptime 17\nversion 0.1.0"),
        ("i? bob", ABOUT_BOB),
        ("u?", "+2\nana\nbob"),
        ("rb?", "+395"),
        ("d?", "+0"),
        ("d= 1", "+"),
        ("r", "+"),
        ("b?", "+0"),
    ];
    for (words, expected) in [
        ("stats", json!({"uptime": 17, "version": "0.1.0"})),
        ("user bob", json!({"messages": 2, "maildir": "/var/mail/b ob", "last_login": null})),
        ("users", json!(["ana", "bob"])),
        ("retrieved bytes", json!({"retrieved_bytes": 395})),
        ("draining", json!({"draining": false})),
        ("drain", json!({"ok": true})),
        ("reload", json!([])),
        ("bans", json!([])),
    ] {
        let ended = once(&answers, &["-json", words]);
        assert_eq!((ended.code, json_of(&ended)), (Some(0), expected), "{words}");
    }
    let sessions = json_of(&once(&answers, &["-json", "sessions"]));
    assert_eq!(sessions[0]["octets"], 10_240);
    assert_eq!((&sessions[0]["user"], &sessions[1]["user"]), (&json!("ana"), &Value::Null));
    let refused = once(&[("u- eve", "-4")], &["-json", "delete user eve"]);
    assert_eq!(json_of(&refused), json!({"error": "Invalid username, does not exist", "code": 4}));
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), "Invalid username, does not exist\n"));
    let help = json_of(&run(peepclient(1).args(["-json", "help"]), ""));
    assert!(help.as_array().unwrap().iter().any(|it| it["command"] == "kick <id>"), "{help}");
}

#[test]
fn a_filter_answers_each_command_with_a_value_of_json() {
    let port = Answering::new(&[("t?", "+0"), ("u?", "+1\nana")]).on_a_port();
    let ended = run(peepclient(port).arg("-json"), "timeout\nusers\nsessions\nnonsense\nquit\n");
    let lines = "{\"timeout\":0}\n[\"ana\"]\n{\"error\":\"Unknown server command\",\"code\":0}\n\
                 {\"error\":\"Unknown client command, see available commands with 'help'\"}\n\
                 {\"error\":\"Unknown server command\",\"code\":0}\n";
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), lines), "{}", ended.stderr);
}

#[test]
fn a_filter_labels_the_answers_of_peep_1_1() {
    let answers = [("w?", SESSIONS), ("k= 17", "+1"), ("q", "+")];
    let port = Answering::new(&answers).on_a_port();
    let answers = "OK! lines: 2\n17\tpop3s\t192.0.2.4\ttransaction\tana\t312\t4\t3\t10240\t1\tTLSv1.3\n\
                   2\tpeep\t-\tadmin\t-\t0\t0\t0\t0\t0\t-\nOK! 1\nOK!\n";
    assert_eq!(run(&mut peepclient(port), "sessions\nkick 17\nquit\n"), ended(0, format!("{BANNER}{answers}"), ""));
}

#[test]
fn repeat_sends_a_command_again() {
    let server = Answering::new(&[("t?", "+7")]);
    let port = server.on_a_port();
    let repeated = run(peepclient(port).args(["-repeat", "3", "-interval", "10ms", "timeout"]), "");
    assert_eq!((repeated, server.heard().len()), (ended(0, "7\n7\n7\n", ""), 3));
    assert_eq!(run(peepclient(port).args(["-repeat", "3"]), "timeout\n").code, Some(2));
}

#[test]
fn stat_prints_rates_repeatedly() {
    let counters = [("cc?", "+3"), ("hc?", "+9"), ("hu?", "+9"), ("re?", "+9"), ("xe?", "+0"), ("rb?", "+9")];
    let port = Answering::new(&counters).on_a_port();
    let ended_with = run(peepclient(port).args(["-stat", "-interval=10ms", "-repeat=2"]), "");
    assert_eq!(ended_with, ended(0, "3\t0\t0\t0\t0\t0\n3\t0\t0\t0\t0\t0\n", ""));
    let json = json_of(&run(peepclient(port).args(["-stat", "-interval=10ms", "-repeat=1", "-json"]), ""));
    assert_eq!((&json["connections"], &json["logins_per_second"]), (&json!(3), &json!(0)));
}

// ---------------------------------------------------------------------------------------------------------------------
// wait

#[test]
fn wait_ends_when_the_condition_holds() {
    let server = Answering::new(&[("i? bob", "+1\nmessages 2"), ("cc?", "+1")]);
    let port = server.on_a_port();
    for (words, line, now) in [
        (&["wait", "user", "bob", "messages", ">=3", "--timeout", "60s"][..], "i? bob", "+1\nmessages 3"),
        (&["wait", "sessions", "==0", "-timeout=60s"], "cc?", "+0"),
    ] {
        let mut child = peepclient(port).args(words).stdout(Stdio::null()).spawn().unwrap();
        let asked = || server.heard().iter().filter(|heard| *heard == line).count();
        eventually("the client asks twice", || asked() >= 2);
        assert!(child.try_wait().unwrap().is_none());
        server.answer(line, now);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{words:?}");
    }
}

#[test]
fn wait_ends_with_1_after_its_timeout() {
    let answers = [("i? bob", "+2\nmessages 2\nsession -"), ("l?", "+info")];
    let port = Answering::new(&answers).on_a_port();
    for (words, code, stderr) in [
        ("wait user bob messages >=3 --timeout 100ms", 1, "peepclient: user bob messages is \"2\", not >=3\n"),
        ("wait user bob octets >=3 --timeout 100ms", 1, "peepclient: user bob octets is \"-\", not >=3\n"),
        ("wait user bob session >0 --timeout 0s", 1, "peepclient: user bob session is \"-\", not >0\n"),
        ("wait user bob session ==-", 0, ""),
        ("wait log level ==debug --timeout 100ms", 1, "peepclient: log level is \"info\", not ==debug\n"),
        ("wait log level !=debug --timeout 100ms", 0, ""),
    ] {
        assert_eq!(run(peepclient(port).args(words.split(' ')), ""), ended(code, "", stderr), "{words}");
    }
    let usage = run(peepclient(1).args(["wait", "sessions"]), "");
    assert_eq!((usage.code, usage.stderr.contains("wait <what> <condition>")), (Some(2), true), "{}", usage.stderr);
}

#[test]
fn wait_ends_with_2_if_what_it_waits_for_can_never_be() {
    let answers = [("i? bob", "+2\nmessages 2\nx\x1b[2Jy -"), ("i? eve", "-4"), ("s?", "+1\nlogins 1")];
    let port = Answering::new(&answers).on_a_port();
    for (words, told) in [
        ("wait user bob mesages >=3", "user bob mesages: there is no \"mesages\", but messages, x\\u{1b}[2Jy"),
        ("wait stats messages >=3", "stats messages: there is no \"messages\", but logins"),
        ("wait user eve messages >=3", "user eve messages: Invalid username, does not exist"),
        ("wait max connections >=3", "max connections: Unknown server command"),
    ] {
        assert_eq!(run(peepclient(port).args(words.split(' ')), ""), ended(2, "", format!("peepclient: {told}\n")));
    }
}

#[test]
fn wait_sees_mail_arrive_in_a_real_server() {
    let server = Server::start();
    let connected = server.pop3();
    let port = server.peep_address().port();
    let arguments = ["wait", "sessions", "==0", "--timeout", "50ms"];
    assert_eq!(run(peepclient(port).args(arguments), "").code, Some(1));
    drop(connected);
    assert_eq!(run(peepclient(port).args(["wait", "sessions", "==0", "--timeout", "30s"]), ""), ended(0, "", ""));
}

// ---------------------------------------------------------------------------------------------------------------------
// follow

/// Starts a server that answers `f` with these events, and returns its port.
pub(crate) fn following(events: &str) -> u16 {
    Answering::new(&[("f", events), ("f ana", events), ("", "one more event\n+"), ("t?", "+7")]).on_a_port()
}

/// The client without a program around it, so that it can be killed.
pub(crate) fn bare_client(ports: &[u16]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peepclient"));
    let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    command.env_remove("PEEP_PASSWORD").env("XDG_CONFIG_HOME", "/nowhere").args(["-address", &addresses.join(",")]);
    command
}

pub(crate) fn first_lines(child: &mut Child, count: usize) -> Vec<String> {
    BufReader::new(child.stdout.take().unwrap()).lines().take(count).map(Result::unwrap).collect()
}

#[test]
fn events_are_printed_as_they_arrive() {
    let port = following("+\n2026-11-28T02:00:00Z login user=ana\n2026-11-28T02:00:01Z quit\x1b user=ana");
    for (arguments, expected) in [
        (&["follow"][..], ["2026-11-28T02:00:00Z login user=ana", "2026-11-28T02:00:01Z quit\\u{1b} user=ana"]),
        (
            &["-json", "follow", "ana"],
            [
                "{\"time\":\"2026-11-28T02:00:00Z\",\"event\":\"login\",\"user\":\"ana\"}",
                "{\"time\":\"2026-11-28T02:00:01Z\",\"event\":\"quit\\u001b\",\"user\":\"ana\"}",
            ],
        ),
    ] {
        let mut child = bare_client(&[port]).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(first_lines(&mut child, 2), expected);
        // The output is closed now, and no further event comes.
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_filter_prints_events_until_the_next_line() {
    let port = following("+\nan event");
    let mut child = peepclient(port).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut commands = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    writeln!(commands, "follow").unwrap();
    assert_eq!(lines.by_ref().take(4).skip(2).collect::<Vec<_>>(), ["OK!", "an event"]);
    writeln!(commands, "timeout").unwrap();
    assert_eq!(lines.next().as_deref(), Some("OK! 7"));
    drop(commands);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_server_that_dies_while_it_is_followed_ends_with_3() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let mut lines = BufReader::new(accept(&listener));
        for answer in ["+\r\n", "+\r\nevent\r\n"] {
            lines.read_line(&mut String::new()).unwrap();
            lines.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    let lost = format!("peepclient: 127.0.0.1:{port}: the server closed the connection\n");
    assert_eq!(run(peepclient(port).arg("follow"), ""), ended(3, "event\n", lost));
    server.join().unwrap();
}

// ---------------------------------------------------------------------------------------------------------------------
// Where the server is

#[test]
fn a_unix_socket_needs_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peep.sock");
    let server = Answering::new(&[("a root -", "+"), ("t?", "+7")]);
    server.on_a_socket(&path);
    let path = path.to_str().unwrap();
    assert_eq!(run(&mut peepclient_with(["-socket", path, "timeout"]), ""), ended(0, "7\n", ""));
    let missing = run(&mut peepclient_with(["-socket", "/nowhere/peep.sock", "timeout"]), "");
    assert_eq!(missing.code, Some(3));
    assert!(
        missing.stderr.starts_with("peepclient: cannot connect to /nowhere/peep.sock: No such file"),
        "{missing:?}"
    );
}

#[test]
fn a_profile_names_server_user_and_password_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("pop3d")).unwrap();
    let one = Answering::new(&[("a root secret", "+"), ("t?", "+1")]).on_a_port();
    let two = Answering::new(&[("a me secret", "+"), ("t?", "+2")]).on_a_port();
    let profiles = format!(
        "address = \"127.0.0.1:{one}\"\npass-file = \"word\"\n\
         [prod]\naddress = \"127.0.0.1:{two}\"\nuser = \"me\"\npass-file = \"word\"\n"
    );
    fs::write(folder.path().join("pop3d/peepclient.toml"), profiles).unwrap();
    fs::write(folder.path().join("pop3d/word"), "secret\n").unwrap();
    let ask = |arguments: &[&str]| {
        let mut command = peepclient_with(arguments.iter().copied());
        run(command.env("XDG_CONFIG_HOME", folder.path()).arg("timeout"), "")
    };
    assert_eq!(ask(&[]), ended(0, "1\n", ""));
    assert_eq!(ask(&["-@", "prod"]), ended(0, "2\n", ""));
    assert_eq!(ask(&["--profile=prod", "-address", &format!("127.0.0.1:{one}"), "-user", "root"]), ended(0, "1\n", ""));
    let unknown = ask(&["-@", "test"]);
    assert_eq!((unknown.code, unknown.stderr.contains("there is no profile \"test\"")), (Some(2), true), "{unknown:?}");
}

// ---------------------------------------------------------------------------------------------------------------------
// On a terminal

/// Runs the client on a terminal. The first part of each pair is expected before the second is typed.
fn at_the_prompt(port: u16, state: &Path, dialogue: &[(&str, &str)]) -> Ended {
    let mut python = Command::new("python3");
    python.args(["-c", ON_A_TERMINAL, env!("CARGO_BIN_EXE_peepclient")]);
    python.args(["-address=127.0.0.1", &format!("-port={port}")]);
    python.args(dialogue.iter().flat_map(|&(awaited, typed)| [awaited, typed]));
    python.env_remove("PEEP_PASSWORD").env("XDG_STATE_HOME", state).env("XDG_CONFIG_HOME", state).env("TERM", "xterm");
    run(&mut python, "")
}

#[test]
fn arguments_at_the_prompt_are_completed_from_the_server() {
    let answers = [
        ("w?", SESSIONS),
        ("k= 17", "+1"),
        ("u?", "+2\nana\nbob"),
        ("i? bob", ABOUT_BOB),
        ("q", "+"),
        ("b- 192.0.2.0/24", "+"),
        ("b?", "+1\n192.0.2.0/24 60 x"),
        ("at bob secret sources", "+ok"),
    ];
    let server = Answering::new(&answers);
    let state = tempfile::tempdir().unwrap();
    let dialogue = [
        ("with 'help'\r\n", "kick \t\t1\t\r"),
        ("OK! 1\r\n", "user b\t\r"),
        ("last_login", "unban 1\t\r"),
        ("OK!\r\n", "test login bob secret\r"),
        ("OK! ok\r\n", "sessions\r"),
        ("OCTETS  MARKED  TLS\r\n", "quit\r"),
    ];
    let ended = at_the_prompt(server.on_a_port(), state.path(), &dialogue);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    let offered = |line: &str| line.contains("kick user <username>") && line.contains("17");
    assert!(ended.stdout.lines().any(offered), "{}", ended.stdout);
    let heard = server.heard();
    for line in ["k= 17", "i? bob", "b- 192.0.2.0/24", "at bob secret sources"] {
        assert!(heard.iter().any(|heard| heard == line), "{heard:?}");
    }
    let history = fs::read_to_string(state.path().join("peepclient/history")).unwrap();
    assert!(history.contains("kick 17") && !history.contains("secret"), "{history}");
}

/// Names with characters that would control the terminal are not offered.
#[test]
fn a_hostile_server_completes_nothing_that_steers_the_terminal() {
    let server =
        Answering::new(&[("u?", "+3\n\x1b]0;stolen\x07\nb\u{202e}ob\nana"), ("i? ana", ABOUT_BOB), ("q", "+")]);
    let state = tempfile::tempdir().unwrap();
    let dialogue = [("with 'help'\r\n", "user \t\r"), ("last_login", "user b\t\r"), ("ERROR!", "quit\r")];
    let ended = at_the_prompt(server.on_a_port(), state.path(), &dialogue);
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert!(!ended.stdout.contains("stolen") && !ended.stdout.contains('\u{202e}'), "{}", ended.stdout);
    assert!(server.heard().iter().any(|heard| heard == "i? ana"), "{:?}", server.heard());
}

#[test]
fn the_enter_key_or_control_c_ends_the_events_at_the_prompt() {
    for key in ["\r", "\x03"] {
        let port = following("+\nan event> ");
        let state = tempfile::tempdir().unwrap();
        let dialogue = [("with 'help'\r\n", "follow\r"), ("an event", key), ("", "timeout\r"), ("OK! 7\r\n", "\x04")];
        let ended = at_the_prompt(port, state.path(), &dialogue);
        assert_eq!(ended.code, Some(0), "{key:?}: {}", ended.stdout);
    }
}

#[test]
fn events_on_a_terminal_are_decoded() {
    let state = tempfile::tempdir().unwrap();
    let port = following("+\nnow login-refused reason=wrong%20%1Bpassword x=%3E%20");
    let dialogue = [("with 'help'\r\n", "follow\r"), ("reason=\"wrong \\u{1b}password\"", "\r"), ("", "\x04")];
    let ended = at_the_prompt(port, state.path(), &dialogue);
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
}
