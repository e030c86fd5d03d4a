//! Who fetched what: PEEP's `rp?` and `rd?`, `peepclient report`, and the file in the state directory.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Builder, MailRoot, PASSWORD, Server, USER, eventually};
use crate::peepclient::{ended, peepclient, peepclient_with, run};

const MESSAGE: &str = "Subject: one\r\n\r\ntext\r\n";

fn with_state(directory: &Path) -> Builder {
    Server::builder().flags(["--state", directory.to_str().unwrap()])
}

/// Runs a session with these commands, which ends with QUIT.
fn session(server: &Server, commands: &[&str]) {
    let mut client = server.session();
    for command in commands {
        if command.starts_with("RETR") || command.starts_with("TOP") {
            drop(client.fetch(command))
        } else {
            drop(client.call(command))
        }
    }
    client.quit();
}

/// The fields of the line of a user.
fn report(server: &Server, user: &str) -> Vec<String> {
    server.admin().values(&format!("rp? {user}"))[0].split(' ').map(str::to_owned).collect()
}

/// Waits until the report has these first commands, because a session is noted at its end.
fn eventually_client(server: &Server, client: &str) {
    eventually("the end of the session is noted", || report(server, USER)[7] == client);
}

fn is_time(field: &str) -> bool {
    field.len() == "2026-11-28T02:00:01Z".len() && field.ends_with('Z')
}

/// A mail program that leaves messages on the server retrieves only what is new.
#[test]
fn a_complete_fetch_leaves_nothing_that_was_never_retrieved() {
    let state = TempDir::new().unwrap();
    for folder in ["", "new/"] {
        let server = with_state(&state.path().join(format!("state{}", folder.len()))).start();
        let maildrop = server.maildrop();
        let put = |name: &str| drop(maildrop.put(&format!("{folder}{name}"), MESSAGE));
        ["1", "2", "3"].into_iter().for_each(put);
        let line = |fields: &[String]| (is_time(&fields[3]), fields[4].clone());
        assert_eq!(report(&server, USER), [USER, "-", "-", "-", "3", "0", "0", "-"]);
        session(&server, &["RETR 1", "RETR 2"]);
        assert_eq!(line(&report(&server, USER)), (false, "1".to_owned()), "a message is left");
        session(&server, &["TOP 3 1000"]);
        assert_eq!(line(&report(&server, USER)), (false, "1".to_owned()), "TOP is not RETR");
        let mut lost = server.session();
        lost.fetch("RETR 3");
        drop(lost);
        eventually("the lost session is noted", || report(&server, USER)[4] == "0");
        assert!(!is_time(&report(&server, USER)[3]), "it did not end with QUIT");
        session(&server, &["STAT"]);
        assert_eq!(line(&report(&server, USER)), (true, "0".to_owned()), "there is nothing new");
        put("4");
        assert_eq!(report(&server, USER)[4], "1");
    }
}

#[test]
fn a_session_that_removes_what_it_has_not_retrieved_leaves_nothing() {
    let state = TempDir::new().unwrap();
    let mail = MailRoot::new();
    let message = |name| format!("From a Thu Jan  1 00:00:00 2026\nSubject: {name}\n\nbody\n\n");
    fs::write(mail.path().join(USER), ["1", "2", "3"].map(message).concat()).unwrap();
    let server = with_state(state.path()).mail(&mail).user(USER, PASSWORD).start();
    session(&server, &["RETR 1", "RETR 3", "DELE 1"]);
    assert_eq!(report(&server, USER)[3..5], ["-", "1"]);
    session(&server, &["DELE 1"]);
    let fields = report(&server, USER);
    assert!(is_time(&fields[3]) && fields[4] == "0", "{fields:?}");
}

/// Then nothing is written to maildrops.
#[test]
fn without_a_state_directory_only_whole_fetches_are_known() {
    let server = Server::start();
    server.maildrop().put("1", MESSAGE);
    server.maildrop().put("2", MESSAGE);
    session(&server, &["RETR 1", "RETR 2"]);
    let fields = report(&server, USER);
    assert!(is_time(&fields[3]) && fields[4] == "-", "{fields:?}");
    assert!(!server.maildrop().path(".pop3d-ages").exists());
}

#[test]
fn the_first_commands_and_the_octets_of_the_day_are_reported() {
    let state = TempDir::new().unwrap();
    let server = with_state(state.path()).start();
    server.maildrop().put("1", MESSAGE);
    let mut client = server.pop3();
    client.call("CAPA");
    client.multiline();
    client.login(USER, PASSWORD);
    client.call("STAT");
    client.fetch("RETR 1");
    client.fetch("RETR 1");
    client.quit();
    eventually_client(&server, "CAPA%20USER%20PASS%20STAT%20RETR%20QUIT");
    let octets = (2 * MESSAGE.len()).to_string();
    let fields = report(&server, USER);
    assert_eq!(fields[6], octets);
    assert!(is_time(&fields[1]) && fields[2] == "127.0.0.1", "{fields:?}");
    let days = server.admin().values(&format!("rd? {USER}"));
    assert_eq!((days.len(), days[0].split(' ').next_back().unwrap()), (1, &*octets));
    assert_eq!(server.admin().values("rd?"), days);
    for query in ["rp? eve", "rd? eve", "rp? ..", "rp? a/b"] {
        let mut admin = server.admin();
        admin.send(query);
        admin.expect("-4");
    }
}

/// Nothing of what a client sends gets into the report or the file, except the keywords of commands.
#[test]
fn arguments_are_not_reported() {
    let state = TempDir::new().unwrap();
    let server = with_state(state.path()).start();
    let mut client = server.pop3();
    client.refused("hunter2\u{1b}[2J\t,\"");
    client.refused(&format!("PASS {PASSWORD}"));
    client.refused(&"x".repeat(2000));
    client.call(&format!("USER {USER}"));
    client.call(&format!("PASS {PASSWORD}"));
    client.refused("DELE x");
    client.quit();
    eventually_client(&server, "?%20PASS%20?%20USER%20PASS%20?%20QUIT");
    let file = state.path().join("fetches");
    eventually("the file is written", || fs::read_to_string(&file).is_ok_and(|text| text.contains("? PASS ? USER")));
    assert!(!fs::read_to_string(&file).unwrap().contains(PASSWORD));
    for text in ["hunter2", "\u{1b}", "xx"] {
        assert!(!fs::read_to_string(&file).unwrap().contains(text));
    }
}

#[test]
fn the_report_survives_a_restart_and_a_kill() {
    let (state, mail) = (TempDir::new().unwrap(), MailRoot::new());
    mail.maildrop(USER).put("1", MESSAGE);
    mail.maildrop(USER).put("2", MESSAGE);
    let start = || with_state(state.path()).mail(&mail).user(USER, PASSWORD).start();
    let mut server = start();
    session(&server, &["RETR 1"]);
    eventually_client(&server, "USER%20PASS%20RETR%20QUIT");
    let before = report(&server, USER);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));

    let server = start();
    assert_eq!(report(&server, USER), before);
    let file = state.path().join("fetches");
    session(&server, &["RETR 2"]);
    eventually_client(&server, "USER%20PASS%20RETR%20QUIT");
    let fields = report(&server, USER);
    assert!(fields[3] != "-" && fields[4] == "0", "{fields:?}");
    eventually("the complete fetch is written", || fs::read_to_string(&file).unwrap().contains(&time_in(&file)));
    drop(server); // by SIGKILL
    assert_eq!(report(&start(), USER)[3..], fields[3..]);
}

/// The third number of the first line, which is the time of the last complete fetch.
fn time_in(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let fetch = text.lines().nth(1).and_then(|line| line.split('\t').nth(4)).unwrap_or_default().to_owned();
    if fetch.parse::<u64>().is_ok() { fetch } else { "not yet".to_owned() }
}

#[test]
fn a_torn_file_is_used_as_far_as_it_goes() {
    let state = TempDir::new().unwrap();
    let file = state.path().join("fetches");
    let start = || with_state(state.path()).user("ana", "a").user("bob", "b").start();
    let mut server = start();
    for (name, password) in [("ana", "a"), ("bob", "b")] {
        let mut client = server.pop3();
        client.login(name, password);
        client.quit();
    }
    server.signal(Signal::TERM);
    server.wait();
    let text = fs::read(&file).unwrap();
    let first_line = text.iter().position(|&octet| octet == b'\n').unwrap() + 1;
    let second_line = first_line + text[first_line..].iter().position(|&octet| octet == b'\n').unwrap() + 1;
    for end in [0, 5, first_line, second_line, second_line + 1, text.len() - 1] {
        fs::write(&file, &text[..end]).unwrap();
        let server = start();
        let known = ["ana", "bob"].iter().filter(|user| report(&server, user)[1] != "-").count();
        assert_eq!(known, usize::from(end >= second_line), "{end}");
        if end != first_line && end != second_line {
            assert!(server.stderr().contains("who fetched what is not known: 1 lines are damaged"), "{end}");
        }
    }
}

#[test]
fn a_deleted_user_is_forgotten() {
    let server = Server::builder().user("ana", "a").start();
    let mut client = server.pop3();
    client.login("ana", "a");
    client.quit();
    assert!(is_time(&report(&server, "ana")[1]));
    let mut admin = server.admin();
    assert_eq!(admin.value("u- ana"), "");
    assert_eq!(admin.value("u+ ana b"), "");
    assert_eq!(report(&server, "ana")[1], "-");
}

/// Messages come and go, and the file that says which were retrieved does not grow with them.
#[test]
fn what_was_retrieved_and_is_gone_is_forgotten() {
    let state = TempDir::new().unwrap();
    let server = with_state(state.path()).start();
    let maildrop = server.maildrop();
    let lines = || fs::read_to_string(maildrop.path(".pop3d-ages")).unwrap().lines().count();
    let mut longest = 0;
    for round in 0..8 {
        let names: Vec<_> = (0..400).map(|number| format!("{round}-{number}")).collect();
        names.iter().for_each(|name| drop(maildrop.put(name, MESSAGE)));
        let mut client = server.session();
        let commands: Vec<_> = (1..=400).map(|number| format!("RETR {number}")).collect();
        client.send_all(commands.iter().map(String::as_str));
        commands.iter().for_each(|_| {
            client.ok();
            client.multiline();
        });
        client.quit();
        assert_eq!(report(&server, USER)[4], "0");
        longest = longest.max(lines());
        names.iter().for_each(|name| maildrop.remove(name));
    }
    assert!((1600..=1801).contains(&longest), "{longest}");
}

#[test]
fn peepclient_shows_the_report_in_each_form() {
    let state = TempDir::new().unwrap();
    let server = with_state(state.path()).user("ana,\"x\"", "a").user(USER, PASSWORD).start();
    server.maildrop().put("1", MESSAGE);
    session(&server, &["RETR 1"]);
    eventually_client(&server, "USER%20PASS%20RETR%20QUIT");
    let fields = report(&server, USER);
    let (login, fetch, day) = (&fields[1], &fields[3], &fields[1][..10]);
    let headings = "user,last_login,address,last_complete_fetch,never_retrieved,octets_today,octets_30_days,client\n";
    let row = format!("{USER},{login},127.0.0.1,{fetch},0,{0},{0},USER PASS RETR QUIT\n", MESSAGE.len());
    let other = "\"ana,\"\"x\"\"\",,,,0,0,0,\n";
    let csv = |words: &[&str]| run(peepclient(server.peep_address().port()).args(words), "");
    assert_eq!(csv(&["report", "--csv"]), ended(0, format!("{headings}{other}{row}"), ""));
    assert_eq!(csv(&["-csv", "report", USER]), ended(0, format!("{headings}{row}"), ""));
    let days = format!("user,day,octets\n{USER},{day},{}\n", MESSAGE.len());
    assert_eq!(csv(&["report", "--days", "--csv"]), ended(0, &*days, ""));
    let tabs = format!("{USER}\t{login}\t127.0.0.1\t{fetch}\t0\t{0}\t{0}\tUSER PASS RETR QUIT\n", MESSAGE.len());
    assert_eq!(csv(&["report", USER]), ended(0, tabs, ""));
    let json: serde_json::Value = serde_json::from_str(&csv(&["report", USER, "--json"]).stdout).unwrap();
    assert_eq!((&json[0]["never_retrieved"], &json[0]["address"]), (&0.into(), &"127.0.0.1".into()));

    let address = format!("127.0.0.1:{}", server.peep_address().port());
    let two = run(peepclient_with(["-address", &format!("{address},{address}")]).args(["report", USER, "--csv"]), "");
    assert_eq!(two, ended(0, format!("server,{headings}{address},{row}{address},{row}"), ""));
}

/// `e?` is for what an admin has to know of. A report looks at the maildrops of all users, and its answer tells what it finds.
#[test]
fn a_report_leaves_the_remembered_problems_alone() {
    let names: Vec<_> = (0..30).map(|number| format!("user{number:02}")).collect();
    let builder = names.iter().fold(Server::builder().user(USER, PASSWORD), |builder, name| builder.user(name, "x"));
    let server = builder.start();
    // Neither a directory nor an mbox.
    let _socket = std::os::unix::net::UnixListener::bind(server.mail().path().join("user00")).unwrap();
    let mut admin = server.admin();
    let problems = admin.values("e?");
    for _ in 0..2 {
        let lines = admin.values("rp?");
        assert_eq!(lines.len(), 31);
        assert!(lines[1].starts_with("user00 - - - - "), "{lines:?}");
        assert!(lines[2].starts_with("user01 - - - 0 "), "{lines:?}");
    }
    assert_eq!(admin.values("e?"), problems);
    server.expect_log("INFO", "the maildrop of user00 cannot be reported: ");
    assert_eq!(server.stderr().matches("cannot be reported").count(), 1);
}
