//! `peepclient` with several servers at once.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::peepclient::{ended, peepclient_with, run};
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
fn wait_is_for_all_servers() {
    let servers = [Answering::new(&[("cc?", "+0")]), Answering::new(&[("cc?", "+1")])];
    let [one, two] = servers.each_ref().map(Answering::on_a_port);
    let waiting = || run(fleet(&[one, two]).args(["wait", "sessions", "==0", "--timeout", "0s"]), "");
    let told = format!("peepclient: 127.0.0.1:{two}: sessions is \"1\", not ==0\n");
    assert_eq!(waiting(), ended(1, "", told));
    servers[1].answer("cc?", "+0");
    assert_eq!(waiting(), ended(0, "", ""));
}
