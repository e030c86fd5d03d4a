//! `peepclient` with several servers at once.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::peepclient::{ON_A_TERMINAL, ended, peepclient_with, run};
use crate::peepclient_1_1::{Answering, SESSIONS, bare_client, first_lines, following, json_of};

/// A port that refuses connections, because it is bound and nothing listens on it. The socket keeps it bound.
fn refusing() -> (u16, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap().port(), socket)
}

fn fleet(ports: &[u16]) -> Command {
    let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    peepclient_with(["-address", &addresses.join(",")])
}

#[test]
fn several_servers_answer_in_one_table_with_sums() {
    let answers = [("hu?", "+3"), ("u?", "+1\nana"), ("w?", SESSIONS)];
    let (one, two) = (Answering::new(&answers).on_a_port(), Answering::new(&answers).on_a_port());
    let sums = format!("127.0.0.1:{one}\t3\n127.0.0.1:{two}\t3\nsum\t6\n");
    assert_eq!(run(fleet(&[one, two]).args(["all", "time", "logged", "amount"]), ""), ended(0, sums, ""));
    let users = format!("127.0.0.1:{one}\tana\n127.0.0.1:{two}\tana\n");
    assert_eq!(run(fleet(&[one, two]).arg("users"), ""), ended(0, users, ""));
    let sessions = run(fleet(&[one, two]).arg("sessions"), "").stdout;
    assert!(sessions.ends_with("sum\t-\t-\t-\t-\t-\t-\t-\t6\t20480\t2\t-\n"), "{sessions}");
    let json = json_of(&run(fleet(&[one, two]).args(["-json", "sessions"]), ""));
    assert_eq!((&json[1]["answer"][0]["id"], json.as_array().unwrap().len()), (&json!(17), 2));
}

#[test]
fn a_missing_server_is_reported_and_the_others_are_asked() {
    let (missing, _socket) = refusing();
    let one = Answering::new(&[("hu?", "+3")]).on_a_port();
    let ended = run(fleet(&[one, missing]).args(["all", "time", "logged", "amount"]), "");
    assert_eq!((ended.code, ended.stdout), (Some(3), format!("127.0.0.1:{one}\t3\nsum\t3\n")));
    let line = format!("peepclient: cannot connect to 127.0.0.1:{missing}: Connection refused");
    assert!(ended.stderr.starts_with(&line) && ended.stderr.lines().count() == 1, "{}", ended.stderr);
}

#[test]
fn a_change_is_made_on_all_servers_or_on_none() {
    let (missing, _socket) = refusing();
    let servers = [Answering::new(&[("d= 1", "+")]), Answering::new(&[("d= 1", "+")])];
    let [one, two] = servers.each_ref().map(Answering::on_a_port);
    let unasked = run(fleet(&[one, two]).arg("drain"), "");
    assert_eq!((unasked.code, unasked.stderr.contains("--all")), (Some(2), true), "{unasked:?}");
    let incomplete = run(fleet(&[one, two, missing]).args(["-all", "drain"]), "");
    assert_eq!((incomplete.code, incomplete.stderr.contains("nothing was changed")), (Some(3), true), "{incomplete:?}");
    assert!(servers.iter().all(|server| server.heard().is_empty()));
    let done = format!("127.0.0.1:{one}\tOK\n127.0.0.1:{two}\tOK\n");
    assert_eq!(run(fleet(&[one, two]).args(["-all", "drain"]), ""), ended(0, done, ""));
    assert!(servers.iter().all(|server| server.heard() == ["d= 1"]));
}

#[test]
fn several_servers_are_followed_together_and_asked_by_a_filter() {
    let (one, two) = (following("+\nevent one"), following("+\nevent two"));
    let mut child = bare_client(&[one, two]).arg("follow").stdout(Stdio::piped()).spawn().unwrap();
    let mut events = first_lines(&mut child, 2);
    // The output is closed now, and no further event comes.
    assert_eq!(child.wait().unwrap().code(), Some(0));
    events.sort();
    let mut expected = [format!("127.0.0.1:{one}\tevent one"), format!("127.0.0.1:{two}\tevent two")];
    expected.sort();
    assert_eq!(events, expected);
    let asked = run(&mut fleet(&[one, two]), "timeout\nusers\nquit\ntimeout\n");
    let answers = format!("127.0.0.1:{one}\t7\n127.0.0.1:{two}\t7\n");
    assert_eq!((asked.code, asked.stdout.ends_with(&answers)), (Some(1), true), "{asked:?}");
    assert_eq!(asked.stderr.matches("Unknown server command").count(), 2, "{asked:?}");
}

#[test]
fn rates_have_a_line_for_each_server_that_is_there() {
    let counters = [("cc?", "+3"), ("hc?", "+9"), ("hu?", "+9"), ("re?", "+9"), ("xe?", "+0"), ("rb?", "+9")];
    let (missing, _socket) = refusing();
    let [one, two] = [(); 2].map(|()| Answering::new(&counters).on_a_port());
    let stat = |arguments: &[&str]| {
        run(fleet(&[one, missing, two]).args(["-stat", "-interval=10ms", "-repeat=1"]).args(arguments), "")
    };
    let ended = stat(&[]);
    let lines =
        format!("127.0.0.1:{one}\t3\t0\t0\t0\t0\t0\n127.0.0.1:{two}\t3\t0\t0\t0\t0\t0\nsum\t6\t0\t0\t0\t0\t0\n");
    assert_eq!((ended.code, ended.stdout), (Some(3), lines));
    assert!(
        ended.stderr.starts_with(&format!("peepclient: cannot connect to 127.0.0.1:{missing}: ")),
        "{}",
        ended.stderr
    );
    let csv = stat(&["-csv"]).stdout;
    let first = format!(
        "server,connections,connected_per_second,logins_per_second,retrieved_per_second,removed_per_second,octets_per_second\n127.0.0.1:{one},3,0,0,0,0,0\n"
    );
    assert!(csv.starts_with(&first) && csv.lines().count() == 3, "{csv}");
}

#[test]
fn a_change_that_one_server_made_is_a_success() {
    let servers = [
        Answering::new(&[("ku= ana", "+1"), ("b- ::1", "-10")]),
        Answering::new(&[("ku= ana", "-10"), ("b- ::1", "-10")]),
    ];
    let [one, two] = servers.each_ref().map(Answering::on_a_port);
    let kicked = format!("127.0.0.1:{one}\t1\n127.0.0.1:{two}\t0\nsum\t1\n");
    assert_eq!(run(fleet(&[one, two]).args(["-all", "kick", "user", "ana"]), ""), ended(0, kicked, ""));
    let none = run(fleet(&[one, two]).args(["-all", "unban", "::1"]), "");
    assert_eq!((none.code, none.stderr.matches("No such connection or ban").count()), (Some(1), 2), "{none:?}");
}

#[test]
fn json_has_the_reason_why_a_server_did_not_answer() {
    let (missing, _socket) = refusing();
    let one = Answering::new(&[("u?", "+1\nana")]).on_a_port();
    let answers = json_of(&run(fleet(&[one, missing]).args(["-json", "users"]), ""));
    let reason = answers[1]["error"].as_str().unwrap();
    assert!(reason.starts_with(&format!("cannot connect to 127.0.0.1:{missing}: Connection refused")), "{answers}");
}

/// The question names the command and the servers, and a user is completed from the first server.
#[test]
fn at_the_prompt_of_several_servers_a_change_is_asked_for() {
    let answers = [("u?", "+2\nana\nbob"), ("ku= bob", "+1")];
    let servers = [Answering::new(&answers), Answering::new(&answers)];
    let [one, two] = servers.each_ref().map(Answering::on_a_port);
    let state = tempfile::tempdir().unwrap();
    let question = format!("kick user bob on 127.0.0.1:{one}, 127.0.0.1:{two}? [y/N] ");
    let mut python = Command::new("python3");
    python.args(["-c", ON_A_TERMINAL, env!("CARGO_BIN_EXE_peepclient")]);
    python.args([&format!("-address=127.0.0.1:{one},127.0.0.1:{two}"), "-user=root"]);
    python.args(["with 'help'\r\n", "kick user b\t\r", &question, "n\r", "nothing was changed", "kick user bob\r"]);
    python.args([&question, "y\r", "sum", "\x04"]);
    python.env_remove("PEEP_PASSWORD").env("XDG_STATE_HOME", state.path()).env("XDG_CONFIG_HOME", state.path());
    let ended = run(python.env("TERM", "xterm"), "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for server in servers {
        assert_eq!(server.heard().iter().filter(|line| *line == "ku= bob").count(), 1);
    }
}

#[test]
fn wait_is_for_all_servers() {
    let servers = [Answering::new(&[("cc?", "+0")]), Answering::new(&[("cc?", "+1")])];
    let [one, two] = servers.each_ref().map(Answering::on_a_port);
    let waiting = || run(fleet(&[one, two]).args(["wait", "sessions", "==0", "--timeout", "0s"]), "");
    let told = format!("peepclient: 127.0.0.1:{two}: sessions is \"1\", not ==0\n");
    assert_eq!(waiting(), ended(1, "", told));
    servers[1].answer("cc?", "+0");
    assert_eq!(waiting(), ended(0, "", ""));
}
