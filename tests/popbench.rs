//! The real `popbench` against a scripted POP3 server that can depart from the protocol in one way at a time.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::ServerConfig;
use serde_json::Value;

use crate::harness::{self, Certificate};
use crate::tls_peer::{Identity, Stream, secured};

const MESSAGES: [&str; 3] = ["Subject: one\r\n\r\nbody\r\n", "Subject: two\r\n\r\n.\r\n..\r\n.leading dot\r\n", "\r\n"];

/// How the server departs from the protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Correct,
    /// Each session locks its maildrop.
    Locking,
    /// A message has one octet fewer than LIST says.
    ShortBody,
    /// The messages differ in one letter and have the same sizes.
    OtherContent,
    /// Each RETR sends another content of the same size.
    ChangingContent,
    HangUpInBody,
    SilentAtRetr,
    RefuseLogin,
    NoSuchMessage,
    SpeakImap,
    BareLineFeeds,
    StatDisagrees,
    EmptyMaildrop,
    EndlessList,
    EndlessUidl,
    EndlessBody,
    /// Like `EndlessBody`, but slowly.
    DrippedBody,
}

impl Manner {
    /// The line that the answer to this command repeats without end, and the pause after each line. The pause is the
    /// pace of a slow server, not a wait for the client.
    fn endless(self, verb: &str) -> Option<(&'static [u8], Duration)> {
        match (self, verb) {
            (Manner::EndlessList, "LIST") => Some((b"3 2\r\n", Duration::ZERO)),
            (Manner::EndlessUidl, "UIDL") => Some((b"3 uid\r\n", Duration::ZERO)),
            (Manner::EndlessBody, "RETR") => Some((b"more\r\n", Duration::ZERO)),
            (Manner::DrippedBody, "RETR") => Some((b"more\r\n", Duration::from_millis(10))),
            _ => None,
        }
    }
}

/// A server on a free port. Its threads end with the test program.
struct Server {
    address: SocketAddr,
}

/// How the server uses TLS.
#[derive(Clone)]
enum Tls {
    None,
    AtOnce(Arc<ServerConfig>),
    Stls(Arc<ServerConfig>),
    /// The server answers STLS and sends another reply in clear after the answer.
    Planted,
}

/// The state that the server's sessions share.
#[derive(Default)]
struct State {
    live_users: HashSet<String>,
    retrieved: usize,
}

impl Server {
    fn start(manner: Manner) -> Server {
        Server::with(manner, Tls::None)
    }

    fn with(manner: Manner, tls: Tls) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, state) = (tls.clone(), Arc::clone(&state));
                thread::spawn(move || serve(stream, manner, &tls, &state));
            }
        });
        Server { address }
    }

    fn bench(&self, arguments: &str) -> Run {
        popbench(&format!("{arguments} --address {} --password secret", self.address))
    }
}

/// Serves one session. Its lock on the maildrop is released before QUIT is answered.
fn serve(mut socket: TcpStream, manner: Manner, tls: &Tls, state: &Mutex<State>) -> io::Result<()> {
    let mut user = String::new();
    let stream = match tls {
        Tls::None => Box::new(socket),
        Tls::AtOnce(config) => secured(socket, Arc::clone(config)),
        Tls::Stls(config) => {
            socket.write_all(b"+OK hello\r\n")?;
            let mut stls = [0; 6];
            socket.read_exact(&mut stls)?;
            assert_eq!(&stls, b"STLS\r\n");
            socket.write_all(b"+OK\r\n")?;
            secured(socket, Arc::clone(config))
        }
        Tls::Planted => {
            socket.write_all(b"+OK hello\r\n")?;
            socket.read_exact(&mut [0; 6])?;
            socket.write_all(b"+OK\r\n+OK\r\n")?;
            let _ = socket.read(&mut [0]); // returns when the client leaves
            return Ok(());
        }
    };
    let greeting = if matches!(tls, Tls::Stls(_)) { "" } else { "+OK hello\r\n" };
    let result = dialogue(stream, greeting, manner, state, &mut user);
    state.lock().unwrap().live_users.remove(&user);
    result
}

fn dialogue(
    stream: Box<dyn Stream>,
    greeting: &str,
    manner: Manner,
    state: &Mutex<State>,
    locked: &mut String,
) -> io::Result<()> {
    let messages: &[&str] = if manner == Manner::EmptyMaildrop { &[] } else { &MESSAGES };
    let total: usize = messages.iter().map(|message| message.len()).sum();
    let mut user = String::new();
    let mut stream = BufReader::new(stream);
    let greeting = if manner == Manner::SpeakImap { "* OK IMAP\r\n" } else { greeting };
    stream.get_mut().write_all(greeting.as_bytes())?;
    let mut line = String::new();
    while stream.read_line(&mut line)? > 0 {
        let command = mem::take(&mut line);
        let line = command.trim_end_matches("\r\n");
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let number = argument.parse().unwrap_or(0);
        if let Some((line, pause)) = manner.endless(verb) {
            stream.get_mut().write_all(b"+OK\r\n")?;
            loop {
                stream.get_mut().write_all(line)?; // fails when the client leaves
                thread::sleep(pause);
            }
        }
        let answer = match verb {
            "USER" => {
                user = argument.to_owned();
                "+OK\r\n".to_owned()
            }
            "PASS" if manner == Manner::RefuseLogin || argument != "secret" => "-ERR [AUTH] no\r\n".to_owned(),
            "PASS" if manner == Manner::Locking && !state.lock().unwrap().live_users.insert(user.clone()) => {
                "-ERR [IN-USE] locked\r\n".to_owned()
            }
            "PASS" => {
                locked.clone_from(&user);
                "+OK\r\n".to_owned()
            }
            "STAT" if manner == Manner::StatDisagrees => format!("+OK 3 {}\r\n", total + 1),
            "STAT" => format!("+OK {} {total}\r\n", messages.len()),
            "LIST" if argument.is_empty() => listing(messages, |message| message.len().to_string()),
            "LIST" if number <= messages.len() => {
                format!("+OK {number} {}\r\n", messages[number - 1].len())
            }
            "UIDL" => listing(messages, |message| format!("uid-of-{}", message.len())),
            "RETR" if manner == Manner::SilentAtRetr => continue,
            "RETR" if manner == Manner::NoSuchMessage => "-ERR no such message\r\n".to_owned(),
            "RETR" => {
                let mut state = state.lock().unwrap();
                state.retrieved += 1;
                retr(messages[number - 1], manner, state.retrieved)
            }
            "NOOP" => "+OK\r\n".to_owned(),
            "QUIT" => {
                state.lock().unwrap().live_users.remove(locked);
                locked.clear();
                return stream.get_mut().write_all(b"+OK bye\r\n");
            }
            _ => "-ERR what?\r\n".to_owned(),
        };
        let bare = manner == Manner::BareLineFeeds;
        let answer = if bare { answer.replace("\r\n", "\n") } else { answer };
        stream.get_mut().write_all(answer.as_bytes())?;
        if verb == "RETR" && manner == Manner::HangUpInBody {
            return Ok(());
        }
    }
    Ok(())
}

fn listing(messages: &[&str], value: impl Fn(&str) -> String) -> String {
    let lines = (1..).zip(messages).map(|(number, message)| format!("{number} {}\r\n", value(message)));
    format!("+OK\r\n{}.\r\n", lines.collect::<String>())
}

fn retr(message: &str, manner: Manner, turn: usize) -> String {
    let mut lines: Vec<String> = message
        .split_inclusive("\r\n")
        .map(|line| if line.starts_with('.') { format!(".{line}") } else { line.to_owned() })
        .collect();
    match manner {
        Manner::ShortBody => drop(lines[0].remove(0)),
        Manner::OtherContent => lines[0] = lines[0].replace("Subject", "Sabject"),
        Manner::ChangingContent => lines[0] = lines[0].replace("Subject", &format!("{turn:07}")),
        Manner::HangUpInBody => return "+OK\r\nSubj".to_owned(),
        _ => {}
    }
    format!("+OK\r\n{}.\r\n", lines.concat())
}

/// The exit code and the output of the program.
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// The JSON report of a run without errors.
    #[track_caller]
    fn fine(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.json()
    }

    /// Checks the exit code, and that all errors are of this kind.
    #[track_caller]
    fn fails_with(&self, code: i32, kind: &str) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        let json = self.json();
        let kinds: Vec<_> = json["errors"].as_array().unwrap().iter().map(|error| &error["kind"]).collect();
        assert_eq!(kinds, [kind]);
    }
}

/// Runs the program, which is killed after two minutes.
fn popbench(arguments: &str) -> Run {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "120", env!("CARGO_BIN_EXE_popbench")]).args(arguments.split_whitespace());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    Run { code: status.code(), out: text(stdout), err: text(stderr) }
}

#[test]
fn retr_counts_messages_and_their_unstuffed_octets() {
    let server = Server::start(Manner::Correct);
    for options in ["", "--no-verify --hash", "--hash"] {
        let json = server.bench(&format!("retr --message 2 -n 7 --json {options}")).fine();
        assert_eq!(json["workload"], "retr");
        assert_eq!(json["sessions"], 7);
        assert_eq!(json["messages"], 7);
        assert_eq!(json["octets"], 7 * MESSAGES[1].len());
        assert_eq!(json["latency_ms"]["retr"]["count"], 7);
        assert_eq!(json["figure"]["unit"], "MB/s");
        assert!(json["megabytes_per_second"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn retr_runs_each_client_once_unless_told_otherwise() {
    let json = Server::start(Manner::Correct).bench("retr -c 3 --users u{1..3} --json").fine();
    assert_eq!(json["sessions"], 3);
}

#[test]
fn sessions_retrieve_at_every_depth() {
    let server = Server::start(Manner::Correct);
    for depth in [1, 2, 20] {
        for verify in ["--verify", "--no-verify"] {
            let options = format!("--retr 20 --pipeline {depth} {verify} --json");
            let json = server.bench(&format!("sessions -c 2 -n 6 --users u{{1..2}} {options}")).fine();
            assert_eq!(json["sessions"], 6);
            assert_eq!(json["messages"], 120);
            for (step, count) in [("login", 6), ("session", 6), ("retr", 120), ("stat", 6), ("list", 6)] {
                assert_eq!(json["latency_ms"][step]["count"], count, "{step}");
            }
        }
    }
}

#[test]
fn percentiles_are_in_ascending_order() {
    let json = Server::start(Manner::Correct).bench("logins -c 1 -n 20 --json").fine();
    let login = &json["latency_ms"]["login"];
    let times: Vec<f64> = ["p50", "p90", "p99", "max"].map(|name| login[name].as_f64().unwrap()).to_vec();
    assert!(times.is_sorted() && times[0] > 0.0, "{times:?}");
}

#[test]
fn logins_retrieve_nothing() {
    let json = Server::start(Manner::Correct).bench("logins -c 4 -n 40 --users u{0..7} --json").fine();
    assert_eq!((&json["sessions"], &json["messages"]), (&40.into(), &0.into()));
}

#[test]
fn maildrop_counts_what_is_listed() {
    let json = Server::start(Manner::Correct).bench("maildrop -n 2 --json").fine();
    assert_eq!(json["messages"], 6);
    assert_eq!(json["latency_ms"]["uidl"]["count"], 2);
}

#[test]
fn idle_sessions_survive_and_the_memory_of_a_process_is_reported() {
    let server = Server::start(Manner::Correct);
    let pid = std::process::id();
    let options = format!("--users u{{1..20}} --duration 50ms --interval 10ms --pid {pid} --json");
    let json = server.bench(&format!("idle -c 20 {options}")).fine();
    assert_eq!((&json["logins"], &json["sessions"]), (&20.into(), &20.into()));
    assert!(json["server_pss_octets"].as_u64().unwrap() > 0);
}

#[test]
fn a_storm_runs_one_session_for_each_client() {
    let server = Server::start(Manner::Correct);
    for threads in [1, 3] {
        let json = server.bench(&format!("storm -c 50 --users u{{1..50}} --threads {threads} --json")).fine();
        assert_eq!(json["sessions"], 50);
        assert_eq!(json["octets"], 50 * MESSAGES[0].len());
    }
}

#[test]
fn clients_use_different_maildrops_if_there_are_enough() {
    let server = Server::start(Manner::Locking);
    server.bench("logins -c 5 -n 200 --users u{1..5} --json").fine();
    let run = server.bench("idle -c 2 --users one --duration 10ms --json");
    run.fails_with(1, "-ERR [IN-USE]");
    assert!(run.err.contains("2 clients share 1 maildrops"), "{}", run.err);
}

#[test]
fn accounts_come_from_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a:secret\nb:wrong\n").unwrap();
    let server = Server::start(Manner::Correct);
    let options = format!("--users-file {} --json", file.path().display());
    let run = popbench(&format!("logins -c 1 -n 4 --address {} {options}", server.address));
    run.fails_with(1, "-ERR [AUTH]");
    assert_eq!(run.json()["sessions"], 2);
}

#[test]
fn a_duration_bounds_the_run() {
    let json = Server::start(Manner::Correct).bench("sessions -c 2 -d 50ms --users u{1..2} --json").fine();
    assert!(json["sessions"].as_u64().unwrap() >= 2);
}

/// No single read times out, but the session would never end.
#[test]
fn a_session_is_ended_with_the_run() {
    let server = Server::start(Manner::DrippedBody);
    server.bench("sessions -c 2 --users u{1..2} -d 50ms --timeout 200ms --json").fails_with(1, "timeout");
}

#[test]
fn errors_are_counted_by_kind() {
    let kinds = [
        (Manner::ShortBody, "octet mismatch"),
        (Manner::HangUpInBody, "hang-up"),
        (Manner::RefuseLogin, "-ERR [AUTH]"),
        (Manner::NoSuchMessage, "-ERR to RETR"),
        (Manner::SpeakImap, "protocol violation"),
        (Manner::BareLineFeeds, "protocol violation"),
        (Manner::StatDisagrees, "protocol violation"),
    ];
    for (manner, kind) in kinds {
        Server::start(manner).bench("sessions -c 1 -n 2 --json").fails_with(1, kind);
    }
    Server::start(Manner::EndlessList)
        .bench("sessions -c 1 -n 2 --no-verify --json")
        .fails_with(1, "protocol violation");
    Server::start(Manner::EndlessUidl).bench("maildrop --json").fails_with(1, "protocol violation");
    Server::start(Manner::EndlessBody).bench("sessions -c 1 -n 2 --json").fails_with(1, "octet mismatch");
    Server::start(Manner::SilentAtRetr).bench("retr --timeout 100ms --json").fails_with(1, "timeout");
    Server::start(Manner::ChangingContent).bench("retr -n 2 --hash --json").fails_with(1, "content changed");
}

#[test]
fn an_account_without_mail_ends_the_run_with_one_note() {
    let (empty, full) = (Server::start(Manner::EmptyMaildrop), Server::start(Manner::Correct));
    let start = format!("popbench: {}: nothing can be retrieved from the maildrop of \"u", empty.address);
    for (arguments, why) in [
        ("sessions -c 8 -d 60s --users u{0..7}".to_owned(), "it has no messages"),
        ("sessions -c 1 -d 60s --json --users u".to_owned(), "it has no messages"),
        ("retr -d 60s --users u".to_owned(), "there is no message 1"),
        ("storm -c 20 --quiet --users u{0..19}".to_owned(), "there is no message 1"),
        (format!("retr -d 60s --users u --compare {}", full.address), "there is no message 1"),
    ] {
        let run = empty.bench(&arguments);
        assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{arguments}");
        assert!(run.err.starts_with(&start), "{arguments}: {}", run.err);
        assert!(run.err.ends_with(&format!(": {why}; the run was stopped\n")), "{arguments}: {}", run.err);
        assert_eq!(run.err.lines().count(), 1, "{arguments}: {}", run.err);
    }
    // A missing message is reported in the same way. Workloads that retrieve nothing need no mail.
    let run = full.bench("retr --message 9");
    assert!(run.err.ends_with(": there is no message 9; the run was stopped\n"), "{}", run.err);
    empty.bench("maildrop -n 2 --json").fine();
    empty.bench("logins -c 1 -n 2 --json").fine();
}

#[test]
fn without_verification_wrong_octets_are_no_error() {
    let server = Server::start(Manner::ShortBody);
    server.bench("retr --no-verify --json").fine();
    Server::start(Manner::StatDisagrees).bench("sessions -c 1 -n 1 --no-verify --json").fine();
}

#[test]
fn the_exit_code_is_3_if_there_is_no_server() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    popbench(&format!("logins --address {address} --json")).fails_with(3, "refused");
    let unknown = popbench("logins --address name.invalid");
    assert_eq!(unknown.code, Some(3));
    assert!(unknown.err.contains("name.invalid"), "{}", unknown.err);
}

#[test]
fn the_exit_code_is_2_for_wrong_usage() {
    for arguments in [
        "",
        "fetch",
        "retr --users u{1..",
        "retr --json --csv",
        "retr -n 1 -d 1s",
        "storm -n 5",
        "logins -n 0",
        "logins --retr 5",
        "sessions --pipeline 1001",
        "retr --address localhost:port",
        "retr --users-file /nonexistent/file",
        "retr --insecure",
        "retr --ca /etc/hostname",
        "retr --tls-cipher TLS_AES_128_GCM_SHA256",
        "retr --tls-resume",
        "retr --tls --stls",
        "retr --tls --ca /nonexistent/file",
        "retr --tls --tls-cipher TLS_RSA_WITH_AES_128_CBC_SHA",
    ] {
        let run = popbench(arguments);
        assert_eq!(run.code, Some(2), "{arguments}: {}", run.out);
        assert!(!run.err.is_empty() && run.out.is_empty());
    }
    assert_eq!(popbench("--help").code, Some(0));
}

#[test]
fn csv_has_a_heading_and_a_line_for_each_run() {
    let server = Server::start(Manner::Correct);
    let other = Server::start(Manner::Correct);
    let run = server.bench(&format!("logins -c 1 -n 2 --csv --compare {} --rounds 2", other.address));
    assert_eq!(run.code, Some(0), "{}", run.err);
    let fields: Vec<Vec<&str>> = run.out.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(fields.len(), 5);
    assert!(fields.iter().all(|line| line.len() == fields[0].len()));
    let (a, b) = (server.address.to_string(), other.address.to_string());
    let column = fields[0].iter().position(|&name| name == "address").unwrap();
    let addresses: Vec<_> = fields[1..].iter().map(|line| line[column]).collect();
    assert_eq!(addresses, [&a, &b, &a, &b]);
}

#[test]
fn two_servers_are_compared_by_ratio_and_content() {
    let server = Server::start(Manner::Correct);
    let compare = |manner| {
        let other = Server::start(manner);
        server.bench(&format!("retr -n 2 --hash --json --rounds 3 --compare {}", other.address))
    };

    let json = compare(Manner::Correct).fine();
    assert_eq!(json["a"].as_array().unwrap().len(), 3);
    assert_eq!(json["b"].as_array().unwrap().len(), 3);
    assert_eq!(json["a"][0]["hash"], json["b"][0]["hash"]);
    let ratio = |name| json["ratio"][name].as_f64().unwrap();
    assert!(0.0 < ratio("min") && ratio("min") <= ratio("median") && ratio("median") <= ratio("max"));

    let differing = compare(Manner::OtherContent);
    assert_eq!(differing.code, Some(1));
    assert_eq!(differing.json()["differing_messages"], 1);
    assert_ne!(differing.json()["a"][0]["hash"], differing.json()["b"][0]["hash"]);
}

#[test]
fn the_text_report_has_the_figure_and_the_errors() {
    let run = Server::start(Manner::ShortBody).bench("sessions -c 1 -n 2");
    assert_eq!(run.code, Some(1));
    for text in ["sessions on 127.0.0.1:", "0.0 sessions/s", "p99", "2 × octet mismatch"] {
        assert!(run.out.contains(text), "{text}: {}", run.out);
    }
}

/// Servers for both ways to start TLS, each with its flag.
fn by_tls(identity: &Identity, manner: Manner) -> [(&'static str, Server); 2] {
    let config = identity.config();
    [
        ("--tls", Server::with(manner, Tls::AtOnce(Arc::clone(&config)))),
        ("--stls", Server::with(manner, Tls::Stls(config))),
    ]
}

#[test]
fn every_workload_runs_by_tls() {
    let identity = Identity::new();
    let ca = identity.ca();
    for (flag, server) in by_tls(&identity, Manner::Correct) {
        for (workload, sessions) in [
            ("retr --message 2 -n 3", 3),
            ("retr --message 2 -n 3 --no-verify", 3),
            ("sessions -c 2 -n 6 --users u{1..2} --retr 20 --pipeline 20", 6),
            ("logins -c 4 -n 40 --users u{0..7} --threads 2", 40),
            ("maildrop -n 2", 2),
            ("idle -c 20 --users u{1..20} -d 50ms --interval 10ms", 20),
            ("storm -c 50 --users u{1..50}", 50),
        ] {
            let json = server.bench(&format!("{workload} {flag} --ca {ca} --json")).fine();
            assert_eq!(json["sessions"], sessions, "{workload} {flag}");
            assert_eq!(json["latency_ms"]["tls"]["count"], sessions);
            assert_eq!(json["tls"][0]["version"], "TLSv1.3");
            assert_eq!((&json["tls"][0]["resumed"], &json["tls"][0]["handshakes"]), (&false.into(), &sessions.into()));
        }
    }
}

/// The message takes many TLS records, which do not end where its lines end.
#[test]
fn a_message_is_the_same_by_tls_and_in_clear() {
    let certificate = Certificate::new();
    let pop3d = harness::Server::builder().tls(&certificate).user("u", "secret").start();
    let line = "0123456789".repeat(7);
    let message: String =
        (0..30_000).map(|number| format!("{}{line} {number}\n", ["", ".", ".."][number % 3])).collect();
    pop3d.mail().maildrop("u").put("1", message);
    pop3d.mail().maildrop("u").put("2", "small\n");
    let ca = certificate.chain();
    let ca = ca.to_str().unwrap();
    let run = |address: SocketAddr, options: &str| {
        popbench(&format!("{options} --users u --password secret --json --address {address}")).fine()
    };
    let by_tls = |options: &str| run(pop3d.pop3s_address(), &format!("{options} --tls --ca {ca}"));
    let by_stls = |options: &str| run(pop3d.pop3_address(), &format!("{options} --stls --ca {ca}"));
    let in_clear = |options: &str| run(pop3d.pop3_address(), options);
    let hash = &in_clear("retr --hash")["hash"];
    for options in ["retr --hash", "retr --hash --tls-cipher TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"] {
        assert_eq!(&by_tls(options)["hash"], hash);
        assert_eq!(&by_stls(options)["hash"], hash);
    }
    for options in ["retr --no-verify -n 3", "sessions -c 1 -n 3 --retr 8 --pipeline 4 --no-verify"] {
        let unread = by_tls(options);
        assert_eq!(unread["octets"], in_clear(options)["octets"]);
        assert_eq!(unread["messages"], if options.starts_with("retr") { 3 } else { 24 });
    }
}

#[test]
fn delete_removes_the_first_messages() {
    let pop3d = harness::Server::builder().user("u", "secret").start();
    for number in 1..=5 {
        pop3d.mail().maildrop("u").put(&number.to_string(), "small\n");
    }
    let delete = |count: u32| {
        let address = pop3d.pop3_address();
        popbench(&format!("delete --delete {count} --users u --password secret --json --address {address}"))
    };
    let json = delete(2).fine();
    assert_eq!((&json["messages"], &json["sessions"]), (&2.into(), &1.into()));
    assert_eq!(pop3d.mail().maildrop("u").messages(), ["3", "4", "5"]);
    // A session that is refused a deletion says no QUIT.
    delete(4).fails_with(1, "-ERR to DELE");
    assert_eq!(pop3d.mail().maildrop("u").messages(), ["3", "4", "5"]);
}

#[test]
fn one_cipher_is_offered_and_reported() {
    let identity = Identity::new();
    let [(_, server), _] = by_tls(&identity, Manner::Correct);
    for (cipher, version) in [
        ("TLS_AES_128_GCM_SHA256", "TLSv1.3"),
        ("TLS_AES_256_GCM_SHA384", "TLSv1.3"),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLSv1.2"),
    ] {
        let options = format!("logins -c 1 -n 2 --tls --ca {} --tls-cipher {cipher}", identity.ca());
        let json = server.bench(&format!("{options} --json")).fine();
        assert_eq!((&json["tls"][0]["version"], &json["tls"][0]["cipher"]), (&version.into(), &cipher.into()));
        assert!(server.bench(&options).out.contains(&format!("{version} {cipher}, 2 × full handshake")));
        assert!(server.bench(&format!("{options} --csv")).out.contains(&format!(",{version},{cipher},")));
    }
    let of_rsa = "logins -c 1 -n 1 --json --tls --insecure --tls-cipher TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    server.bench(of_rsa).fails_with(3, "TLS");
}

#[test]
fn tls_sessions_are_resumed_with_tls_resume() {
    let certificate = Certificate::new();
    let pop3d = harness::Server::builder().tls(&certificate).user("u", "secret").start();
    for (version, cipher) in
        [("TLSv1.3", "TLS_AES_128_GCM_SHA256"), ("TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")]
    {
        let options =
            format!("logins -c 1 -n 5 --users u --password secret --json --tls --insecure --tls-cipher {cipher}");
        let run = |flag: &str| {
            popbench(&format!("{options} --address {} {flag}", pop3d.pop3s_address())).fine()["tls"].take()
        };
        let outcome = |resumed: bool, handshakes: u32| serde_json::json!({ "version": version, "cipher": cipher, "resumed": resumed, "handshakes": handshakes });
        assert_eq!(run(""), Value::from(vec![outcome(false, 5)]));
        assert_eq!(run("--tls-resume"), Value::from(vec![outcome(false, 1), outcome(true, 4)]));
    }
}

#[test]
fn no_login_is_sent_to_an_untrusted_server() {
    let (identity, another) = (Identity::new(), Identity::new());
    for (flag, server) in by_tls(&identity, Manner::Correct) {
        let code = if flag == "--tls" { 3 } else { 1 }; // With STLS the connection was established before the error.
        let run = server.bench(&format!("logins -c 2 -n 2 {flag} --ca {} --json", another.ca()));
        run.fails_with(code, "TLS");
        assert!(run.out.contains("nobody trusted here"), "{}", run.out);
        server.bench(&format!("logins -c 1 -n 2 {flag} --insecure --json")).fine();
    }
    let other = Identity::with(&["mail.example"], |_| {});
    let [(_, server), _] = by_tls(&other, Manner::Correct);
    let run = server.bench(&format!("logins -c 1 -n 1 --tls --ca {}", other.ca()));
    assert_eq!(run.code, Some(3));
    assert!(run.out.contains("the server's certificate is for mail.example, not for 127.0.0.1"), "{}", run.out);
}

#[test]
fn a_server_without_tls_is_an_error() {
    let clear = Server::start(Manner::Correct);
    clear.bench("logins -c 1 -n 1 --tls --insecure --json").fails_with(3, "TLS");
    clear.bench("logins -c 1 -n 1 --stls --insecure --json").fails_with(1, "-ERR to STLS");
    let planted = Server::with(Manner::Correct, Tls::Planted);
    planted.bench("logins -c 1 -n 1 --stls --insecure --json").fails_with(1, "protocol violation");
    let by_tls = Server::with(Manner::Correct, Tls::AtOnce(Identity::new().config()));
    by_tls.bench("logins -c 1 -n 1 --timeout 100ms --json").fails_with(3, "timeout");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    popbench(&format!("logins --tls --insecure --address {address} --json")).fails_with(3, "refused");
}

#[test]
fn errors_are_of_the_same_kinds_by_tls_as_in_clear() {
    let identity = Identity::new();
    for (manner, kind) in [
        (Manner::ShortBody, "octet mismatch"),
        (Manner::HangUpInBody, "hang-up"),
        (Manner::RefuseLogin, "-ERR [AUTH]"),
        (Manner::BareLineFeeds, "protocol violation"),
    ] {
        for (flag, server) in by_tls(&identity, manner) {
            server.bench(&format!("sessions -c 1 -n 2 {flag} --insecure --json")).fails_with(1, kind);
        }
    }
    let [(_, silent), _] = by_tls(&identity, Manner::SilentAtRetr);
    silent.bench("retr --timeout 100ms --tls --insecure --json").fails_with(1, "timeout");
}

#[test]
fn two_servers_are_compared_by_tls() {
    let identity = Identity::new();
    let [(_, a), _] = by_tls(&identity, Manner::Correct);
    let [(_, b), _] = by_tls(&identity, Manner::Correct);
    let options = format!("--tls --ca {} --tls-resume --hash --rounds 2 --compare {}", identity.ca(), b.address);
    let run = a.bench(&format!("retr -n 2 {options}"));
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    for server in ["A", "B"] {
        assert!(run.out.contains(&format!("  {server}: TLSv1.3 TLS_AES_256_GCM_SHA384, ")), "{}", run.out);
    }
}

/// The report is written to a pipe whose reader has left, which is no error, or to a full disk.
#[test]
fn a_report_that_cannot_be_written_is_an_error_unless_its_reader_has_left() {
    let server = Server::start(Manner::Correct);
    let run = |out: Stdio| {
        let options = ["retr", "-n", "1", "--password", "secret", "--address"];
        let mut command = Command::new("timeout");
        command
            .args(["-s", "KILL", "60", env!("CARGO_BIN_EXE_popbench")])
            .args(options)
            .arg(server.address.to_string())
            .arg("--quiet");
        let Output { status, stderr, .. } = command.stdout(out).stderr(Stdio::piped()).output().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    };
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(writer.into()), (Some(0), String::new()));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let why = "popbench: cannot write the report: No space left on device (os error 28)\n";
    assert_eq!(run(full.into()), (Some(1), why.to_owned()));
}
