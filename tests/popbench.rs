//! The real `popbench` against a small scripted POP3 server that can misbehave in one way at a time.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

const MESSAGES: [&str; 3] = ["Subject: one\r\n\r\nbody\r\n", "Subject: two\r\n\r\n.\r\n..\r\n.leading dot\r\n", "\r\n"];

/// How the server departs from the protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Correct,
    /// A maildrop serves one session at a time.
    Locking,
    /// RETR brings one octet fewer than LIST tells.
    ShortBody,
    /// Letters are changed, sizes are not.
    OtherContent,
    /// Each RETR brings something else of the same size.
    ChangingContent,
    HangUpInBody,
    SilentAtRetr,
    RefuseLogin,
    NoSuchMessage,
    SpeakImap,
    BareLineFeeds,
    StatDisagrees,
    EmptyMaildrop,
}

/// A server on a port of its own; its threads end with the test program.
struct Server {
    address: SocketAddr,
}

/// What the server's sessions share.
#[derive(Default)]
struct State {
    live_users: HashSet<String>,
    retrieved: usize,
}

impl Server {
    fn start(manner: Manner) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                thread::spawn(move || serve(stream, manner, &state));
            }
        });
        Server { address }
    }

    fn bench(&self, arguments: &str) -> Run {
        popbench(&format!("{arguments} --address {} --password secret", self.address))
    }
}

/// One session, with an exclusive lock on its maildrop that is gone before QUIT is answered.
fn serve(stream: TcpStream, manner: Manner, state: &Mutex<State>) -> io::Result<()> {
    let mut user = String::new();
    let result = dialogue(stream, manner, state, &mut user);
    state.lock().unwrap().live_users.remove(&user);
    result
}

fn dialogue(mut stream: TcpStream, manner: Manner, state: &Mutex<State>, locked: &mut String) -> io::Result<()> {
    let messages: &[&str] = if manner == Manner::EmptyMaildrop { &[] } else { &MESSAGES };
    let total: usize = messages.iter().map(|message| message.len()).sum();
    let mut user = String::new();
    stream.write_all(if manner == Manner::SpeakImap { b"* OK IMAP\r\n" } else { b"+OK hello\r\n" })?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let number = argument.parse().unwrap_or(0);
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
                return stream.write_all(b"+OK bye\r\n");
            }
            _ => "-ERR what?\r\n".to_owned(),
        };
        let bare = manner == Manner::BareLineFeeds;
        let answer = if bare { answer.replace("\r\n", "\n") } else { answer };
        stream.write_all(answer.as_bytes())?;
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

/// What came of running the program.
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

    /// The JSON of a run that was fine.
    #[track_caller]
    fn fine(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.json()
    }

    /// Asserts the exit code and that every error was of this kind.
    #[track_caller]
    fn fails_with(&self, code: i32, kind: &str) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        let json = self.json();
        let kinds: Vec<_> = json["errors"].as_array().unwrap().iter().map(|error| &error["kind"]).collect();
        assert_eq!(kinds, [kind]);
    }
}

fn popbench(arguments: &str) -> Run {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_popbench")).args(arguments.split_whitespace()).output().unwrap();
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
fn percentiles_rise() {
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
fn idle_sessions_live_and_the_memory_of_a_process_is_told() {
    let server = Server::start(Manner::Correct);
    let pid = std::process::id();
    let options = format!("--users u{{1..20}} --duration 50ms --interval 10ms --pid {pid} --json");
    let json = server.bench(&format!("idle -c 20 {options}")).fine();
    assert_eq!((&json["logins"], &json["sessions"]), (&20.into(), &20.into()));
    assert!(json["server_pss_octets"].as_u64().unwrap() > 0);
}

#[test]
fn a_storm_is_served_once_for_each_client() {
    let server = Server::start(Manner::Correct);
    for threads in [1, 3] {
        let json = server.bench(&format!("storm -c 50 --users u{{1..50}} --threads {threads} --json")).fine();
        assert_eq!(json["sessions"], 50);
        assert_eq!(json["octets"], 50 * MESSAGES[0].len());
    }
}

#[test]
fn no_maildrop_is_used_twice_at_once_when_there_are_enough() {
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

#[test]
fn errors_are_told_by_kind() {
    let kinds = [
        (Manner::ShortBody, "octet mismatch"),
        (Manner::HangUpInBody, "hang-up"),
        (Manner::RefuseLogin, "-ERR [AUTH]"),
        (Manner::NoSuchMessage, "-ERR to RETR"),
        (Manner::SpeakImap, "protocol violation"),
        (Manner::BareLineFeeds, "protocol violation"),
        (Manner::StatDisagrees, "protocol violation"),
        (Manner::EmptyMaildrop, "empty maildrop"),
    ];
    for (manner, kind) in kinds {
        Server::start(manner).bench("sessions -c 1 -n 2 --json").fails_with(1, kind);
    }
    Server::start(Manner::SilentAtRetr).bench("retr --timeout 100ms --json").fails_with(1, "timeout");
    Server::start(Manner::ChangingContent).bench("retr -n 2 --hash --json").fails_with(1, "content changed");
}

#[test]
fn what_is_not_verified_is_not_an_error() {
    let server = Server::start(Manner::ShortBody);
    server.bench("retr --no-verify --json").fine();
    Server::start(Manner::StatDisagrees).bench("sessions -c 1 -n 1 --no-verify --json").fine();
}

#[test]
fn a_server_that_is_not_there_is_told_by_the_exit_code() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    popbench(&format!("logins --address {address} --json")).fails_with(3, "refused");
    let unknown = popbench("logins --address name.invalid");
    assert_eq!(unknown.code, Some(3));
    assert!(unknown.err.contains("name.invalid"), "{}", unknown.err);
}

#[test]
fn wrong_usage_is_told_by_the_exit_code() {
    for arguments in [
        "",
        "fetch",
        "retr --users u{1..",
        "retr --json --csv",
        "retr -n 1 -d 1s",
        "storm -n 5",
        "sessions --pipeline 1001",
        "retr --address localhost:port",
        "retr --users-file /nonexistent/file",
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
fn the_table_for_people_names_figure_and_errors() {
    let run = Server::start(Manner::ShortBody).bench("sessions -c 1 -n 2");
    assert_eq!(run.code, Some(1));
    for text in ["sessions on 127.0.0.1:", "0.0 sessions/s", "p99", "2 × octet mismatch"] {
        assert!(run.out.contains(text), "{text}: {}", run.out);
    }
}
