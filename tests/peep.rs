//! PEEP as the server speaks it, octet by octet, and the effect of its settings on open sessions.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Client, PASSWORD, Server, USER, eventually, throughout};

/// The answer to `cap?`, before and after login.
const CAPABILITIES: &str = "+35\r\na\r\nc=1-998\r\nt=0-86400\r\nw?\r\nk=\r\nku=\r\nka=\r\nb+\r\nb-\r\nb?\r\n\
    s?\r\ni?\r\nat\r\ne?\r\nl=\r\nl?\r\nd=\r\nd?\r\nr\r\nf\r\nmt?\r\nex\r\nex?\r\ndl?\r\nud\r\nuds\r\n\
    rp?\r\nrd?\r\nft+\r\nft-\r\nft?\r\ntr=\r\ntr?\r\ntt\r\nv1.1";

/// Everything that the server answers on one connection to `octets` that are sent in segments of this length.
fn answers_to_segments(server: &Server, octets: impl AsRef<[u8]>, segment: usize) -> String {
    let mut client = server.peep();
    for segment in octets.as_ref().chunks(segment) {
        client.write(segment);
    }
    client.finish_writing();
    String::from_utf8(client.rest()).unwrap()
}

/// Everything that the server answers on one connection to `octets` that are sent in one segment.
fn answers(server: &Server, octets: impl AsRef<[u8]>) -> String {
    answers_to_segments(server, octets, usize::MAX)
}

/// The same after a login, without the answer to the login.
fn admin_answers(server: &Server, octets: impl AsRef<[u8]>) -> String {
    let answers = answers(server, [b"a root root\r\n", octets.as_ref()].concat());
    answers.strip_prefix("+\r\n").expect("a login").to_owned()
}

/// Sends commands and expects these answers, which are written without their last CRLF.
#[track_caller]
fn play<'a>(client: &mut Client, dialogue: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (command, answer) in dialogue {
        client.send(command);
        for line in answer.split("\r\n") {
            assert_eq!(client.line(), line, "{command:?}");
        }
    }
}

/// Checks that the server sends nothing for 100 ms. A slow server may pass although it is wrong, but a right one never
/// fails.
#[track_caller]
fn expect_silence(client: &Client) {
    let socket = client.socket();
    socket.set_nonblocking(true).unwrap();
    throughout(Duration::from_millis(100), || {
        assert!(socket.peek(&mut [0]).is_err(), "the server has sent something");
    });
    socket.set_nonblocking(false).unwrap();
}

// ---------------------------------------------------------------------------------------------------------------------
// Commands and their answers

#[test]
fn only_a_cap_and_q_are_known_before_login() {
    let server = Server::start();
    let mut client = server.peep();
    let later = "u+ x y,+a x y,u- x,u?,c= 5,c?,m= .,m?,t= 5,t?,rb?,re?,xe?,cc?,cu?,hc?,hu?".split(',');
    let others = ["", " ", "u+", "nonsense", "A root root", "CAP?", "cap", "quit", " q", "a? x y", "a\troot root"];
    let malformed = ["a", "a ", "a root", "a root ", "a  root root", "a root  root", "a root root ", "a ro\x01ot root"];
    let unknown = later.chain(others).map(|line| (line, "-0"));
    for (line, answer) in unknown.chain(malformed.map(|line| (line, "-1"))) {
        play(&mut client, [("cap?", CAPABILITIES), (line, answer)]);
        client.closed();
        client = server.peep();
    }
    for lines in
        [["a root wrong", "a wrong root"], ["a root Root", "a ROOT root"], ["a root rootroot", "a mrose tanstaaf"]]
    {
        client = server.peep();
        play(&mut client, lines.map(|line| (line, "-2")));
    }
    play(&mut client, [("a root root", "+"), ("u?", "+1\r\nmrose")]);
    client = server.peep();
    play(&mut client, [("q", "+")]);
    client.closed();
}

/// The third failed login ends the connection, and so does the 51st line, which is answered by -9.
#[test]
fn a_client_may_send_three_logins_and_fifty_lines_before_login() {
    let server = Server::start();
    let mut client = server.peep();
    client.send_all(["a root 1", "a root 2", "a root 3", "a root root"]);
    (0..3).for_each(|_| client.expect("-2"));
    client.closed();
    client = server.peep();
    client.send_all(["cap?"; 52]);
    for line in [CAPABILITIES; 50].iter().flat_map(|answer| answer.split("\r\n")) {
        client.expect(line);
    }
    client.expect("-9");
    client.closed();
    play(&mut server.admin(), [("hc?", "+0"); 60]);
}

#[test]
fn every_command_is_answered_after_login() {
    let server = Server::builder().allow("/tmp").allow(".").start();
    let root = server.mail().path().to_str().unwrap().to_owned();
    let missing = format!("m= {root}/missing");
    let file = format!("m= {root}/file");
    fs::write(server.mail().path().join("file"), "no directory").unwrap();
    fs::create_dir(server.mail().path().join("other")).unwrap();
    let (other, answer) = (format!("m= {root}/other"), format!("+{root}/other"));
    let mut admin = server.admin();
    play(&mut admin, [("cap?", CAPABILITIES), ("a root root", "-0"), ("a wrong", "-0")]);
    play(&mut admin, [("u?", "+1\r\nmrose"), ("u+ bob x", "+"), ("u+ bob y", "-3"), ("+a ana z", "+")]);
    play(&mut admin, [("+a ana z", "-3"), ("u?", "+3\r\nana\r\nbob\r\nmrose"), ("u- ana", "+"), ("u- ana", "-4")]);
    play(&mut admin, [("u- nobody", "-4"), ("u- ../x", "-4"), ("u- bob", "+"), ("u- mrose", "+"), ("u?", "+0")]);
    play(&mut admin, [("c?", "+998"), ("c= 997", "+"), ("c?", "+997"), ("c= 0", "-5"), ("c= 999", "-5")]);
    play(&mut admin, [("c= -1", "-5"), ("c= 99999999999999999999999", "-5"), ("c= 4294967297", "-5"), ("c?", "+997")]);
    play(&mut admin, [("c= x", "-1"), ("c= 5x", "-1"), ("c= 1.5", "-1"), ("c?", "+997"), ("c= 1", "+"), ("c?", "+1")]);
    play(&mut admin, [("c= 998", "+"), ("c?", "+998")]);
    play(&mut admin, [("t?", "+600"), ("t= 86401", "-7"), ("t= -1", "-7"), ("t= 18446744073709551617", "-7")]);
    play(&mut admin, [("t= x", "-1"), ("t= 1s", "-1"), ("t?", "+600"), ("t= 0", "+"), ("t?", "+0")]);
    play(&mut admin, [("t= 86400", "+"), ("t?", "+86400")]);
    play(&mut admin, [("m?", &*format!("+{root}")), (&*missing, "-6"), (&*file, "-6"), ("m?", &*format!("+{root}"))]);
    play(
        &mut admin,
        [(&*other, "+"), ("m?", &*answer), ("m= .", "+"), ("m?", "+."), ("m= /tmp", "+"), ("m?", "+/tmp")],
    );
    for counter in ["rb?", "re?", "xe?", "cc?", "hc?", "hu?"] {
        play(&mut admin, [(counter, "+0")]);
    }
    play(&mut admin, [("cu?", "+0"), ("q", "+")]);
    admin.closed();
}

#[test]
fn unknown_commands_and_malformed_arguments_are_refused() {
    let server = Server::start();
    let mut admin = server.admin();
    for line in ["", " ", " c?", "C?", "c", "c=5", "cc", "u", "+b", "help", "c?\t", "\0", "\u{e9}?", "abcdefgh?"] {
        play(&mut admin, [(line, "-0")]);
    }
    for line in ["u+", "u+ x", "+a", "+a x", "u-", "c=", "m=", "t=", "u- ", "c= ", "m= ", "t= ", "c? ", "cap? "] {
        play(&mut admin, [(line, "-1")]);
    }
    for line in ["u+  x y", "u+ x  y", "u+ x y ", "u-  x", "c=  5", "m=  .", "t=  5", "c?  x", "u- nobody  x"] {
        play(&mut admin, [(line, "-1")]);
    }
    for line in ["u- a\tb", "u+ a\x01 b", "u+ a b\x7f", "m= a\0", "u+ a\rb c", "c? a\x1b"] {
        play(&mut admin, [(line, "-1")]);
    }
    for name in ["a/b", "..", ".", ".hidden"] {
        play(&mut admin, [(&*format!("u+ {name} x"), "-1")]);
    }
    admin.write(b"u+ \xff x\r\n");
    admin.expect("-1");
    play(&mut admin, [("u?", "+1\r\nmrose"), ("c?", "+998")]);
}

#[test]
fn extra_arguments_are_ignored() {
    let server = Server::start();
    let mut client = server.peep();
    play(&mut client, [("cap? x", CAPABILITIES), ("a root root and more words", "+"), ("c? a b c d e", "+998")]);
    play(&mut client, [("u+ ana secret c d", "+"), ("u- ana b c", "+"), ("t= 5 6", "+"), ("t?", "+5"), ("q now", "+")]);
    client.closed();
}

/// The default admin's name and password are known to everybody.
#[test]
fn the_default_admin_gets_a_warning() {
    let warning =
        "[WARN] every user of this machine may log in by PEEP as the default admin root:root: see --peep-admin";
    let server = Server::builder().unprivileged().start();
    play(&mut server.peep(), [("a root root", "+")]);
    eventually("the log has the warning", || server.stderr().contains(warning));
    let own = Server::builder().unprivileged().flags(["-a", "boss:secret"]).start();
    play(&mut own.peep(), [("a boss secret", "+")]);
    assert!(!own.stderr().contains("default admin"));
}

#[test]
fn peep_admin_replaces_the_default_admin() {
    let server = Server::builder().flags(["-a", "boss:a:b"]).start();
    let mut client = server.peep();
    play(&mut client, [("a root root", "-2"), ("a boss a", "-2"), ("a boss a:b", "+"), ("c?", "+998")]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Lines

#[test]
fn an_argument_has_at_most_128_characters() {
    let server = Server::start();
    let (longest, over) = ("x".repeat(128), "y".repeat(129));
    let mut admin = server.admin();
    play(&mut admin, [(&*format!("u+ {longest} {longest}"), "+"), (&*format!("u+ {longest} b"), "-3")]);
    for line in [
        format!("u+ {over} b"),
        format!("u+ a {over}"),
        format!("u- {over}"),
        format!("m= {over}"),
        format!("c= {over}"),
        format!("c? {over}"),
        format!("u- a b {over}"),
    ] {
        play(&mut admin, [(&*line, "-1")]);
    }
    play(&mut admin, [("u?", &*format!("+2\r\nmrose\r\n{longest}"))]);
    let mut client = server.pop3();
    client.login(&longest, &longest);
    play(&mut admin, [("cu?", &*format!("+1\r\n{longest}")), (&*format!("u- {longest}"), "+")]);
    let mut client = server.peep();
    play(&mut client, [(&*format!("a {longest} {longest}"), "-2"), ("a root root", "+")]);
    for line in [format!("a {over} root"), format!("a root {over}")] {
        let mut client = server.peep();
        play(&mut client, [(&*line, "-1")]);
        client.closed();
    }
}

#[test]
fn a_path_has_at_most_128_characters() {
    let server = Server::start();
    let root = server.mail().path().to_str().unwrap();
    let path = format!("{root}/{}", "d".repeat(128 - root.len() - 1));
    fs::create_dir(&path).unwrap();
    fs::create_dir(format!("{path}d")).unwrap();
    let mut admin = server.admin();
    play(&mut admin, [(&*format!("m= {path}d"), "-1"), (&*format!("m= {path}"), "+"), ("m?", &*format!("+{path}"))]);
}

/// A line of `c?` with arguments that are ignored. It has this number of octets, including its line end.
fn line_of(octets: usize, end: &str) -> String {
    let words = format!("c? {} {} ", "x".repeat(128), "y".repeat(128));
    format!("{words}{}{end}", "z".repeat(octets - words.len() - end.len()))
}

#[test]
fn a_line_has_at_most_268_octets() {
    let server = Server::start();
    for octets in [267, 268] {
        assert_eq!(admin_answers(&server, line_of(octets, "\r\n")), "+998\r\n", "{octets}");
    }
    for octets in [269, 270, 300, 388] {
        let lines = format!("{}c?\r\n", line_of(octets, "\r\n"));
        assert_eq!(admin_answers(&server, lines), "-1\r\n+998\r\n", "{octets}");
    }
    assert_eq!(admin_answers(&server, line_of(267, "\n")), "+998\r\n");
    assert_eq!(admin_answers(&server, line_of(269, "\n")), "-1\r\n");
    for before_login in [line_of(269, "\r\n") + "a root root\r\n", "x".repeat(300)] {
        assert_eq!(answers(&server, before_login), "-1\r\n");
    }
}

#[test]
fn a_longer_line_is_answered_once_and_the_rest_dropped() {
    let server = Server::start();
    for (octets, segment) in [(1000, 1), (100_000, 1000), (100_000, usize::MAX), (2048, 100), (2049, 2048)] {
        let long = "u- mrose ".repeat(octets / 9);
        let lines = format!("a root root\r\n{long}u- mrose\r\nu?\r\n{long}\nu?\r\n");
        assert_eq!(
            answers_to_segments(&server, lines, segment),
            "+\r\n-1\r\n+1\r\nmrose\r\n-1\r\n+1\r\nmrose\r\n",
            "{octets} in segments of {segment}"
        );
    }
}

#[test]
fn a_longer_line_is_refused_before_it_ends() {
    let server = Server::start();
    let mut admin = server.admin();
    admin.write("x".repeat(500));
    admin.expect("-1");
    admin.write("u- mrose\n");
    play(&mut admin, [("u?", "+1\r\nmrose")]);
}

/// Right and wrong commands before and after a login.
const SESSION: &str = "cap?\r\na root wrong\r\ncap? x\r\na root root\r\nu?\r\n\r\na root\r\nu+ ana x\r\nu+ ana x\r\nu- ana\r\n\
                       c= 0\r\nc= 998\r\nc?\r\nt= 99999\r\nt= 600\r\nt?\r\nm= \r\nhc?\r\ncu?\r\nnonsense\r\n  \r\ncap?\r\nq\r\n";

#[test]
fn a_bare_lf_ends_a_line() {
    let server = Server::start();
    assert_eq!(answers(&server, SESSION.replace('\r', "")), answers(&server, SESSION));
}

#[test]
fn the_answers_do_not_depend_on_the_segments_of_the_commands() {
    let server = Server::start();
    let at_once = answers(&server, SESSION);
    for segment in [1, 2, 3, 5, 8, 13, 100] {
        assert_eq!(answers_to_segments(&server, SESSION, segment), at_once, "segments of {segment}");
    }
}

#[test]
fn every_answer_line_ends_in_crlf() {
    let server = Server::start();
    let all = answers(&server, SESSION);
    assert!(all.ends_with("\r\n"));
    for line in all.split_inclusive('\n') {
        assert!(line.ends_with("\r\n") && line.len() <= 512, "{line:?}");
        assert!(!line.trim_end_matches("\r\n").contains(['\r', '\n']), "{line:?}");
    }
}

#[test]
fn a_deep_pipeline_is_answered_in_order() {
    const ROUNDS: usize = 3000;
    let server = Server::start();
    let mut admin = server.admin();
    let mut socket = admin.socket().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for round in 0..ROUNDS {
                let seconds = round % 7 + 100;
                write!(socket, "t= {seconds}\r\nt?\r\nu+ u{round} x\r\nu?\r\nu- u{round}\r\n\r\n").unwrap();
            }
            socket.write_all(b"q\r\nc?\r\n").unwrap();
        });
        for round in 0..ROUNDS {
            for line in ["+", &format!("+{}", round % 7 + 100), "+", "+2", USER, &format!("u{round}"), "+", "-0"] {
                admin.expect(line);
            }
        }
    });
    admin.expect("+");
    admin.closed();
}

#[test]
fn commands_after_q_are_ignored() {
    let server = Server::start();
    assert_eq!(admin_answers(&server, "q\r\nu- mrose\r\n"), "+\r\n");
    assert_eq!(admin_answers(&server, "u?\r\n"), "+1\r\nmrose\r\n");
}

#[test]
fn a_line_without_a_line_end_is_no_command() {
    let server = Server::start();
    assert_eq!(admin_answers(&server, "c?\r\nu- mrose"), "+998\r\n");
    assert_eq!(admin_answers(&server, "u?\r\n"), "+1\r\nmrose\r\n");
}

// ---------------------------------------------------------------------------------------------------------------------
// Counters

/// Sends the commands of a POP3 session, and returns everything that the server sends.
fn pop3_session(server: &Server, commands: &str) -> Vec<u8> {
    let mut client = Client::connect(server.pop3_address());
    client.write(commands);
    client.finish_writing();
    client.rest()
}

#[test]
fn counters_are_exact() {
    let server = Server::start();
    let maildrop = server.maildrop();
    maildrop.put("1", "Subject: one\n\n.stuffed\nno end");
    maildrop.put("2", "Subject: two\r\n\r\n".to_owned() + &"in wire form already\r\n".repeat(20_000));
    maildrop.put("3", "Subject: three\n\n".to_owned() + &".to be edited\n".repeat(20_000));
    maildrop.put("4", "four\r\n");
    maildrop.put("5", "five\r\n");
    let login = format!("USER {USER}\r\nPASS {PASSWORD}\r\n");
    let mut admin = server.admin();

    let received = [
        pop3_session(
            &server,
            &format!("{login}STAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\nTOP 3 5\r\nQUIT\r\n"),
        ),
        pop3_session(
            &server,
            &format!("{login}RETR 1\r\nRETR 1\r\nRETR 9\r\nRETR x\r\nDELE 1\r\nRETR 1\r\nRSET\r\nQUIT\r\n"),
        ),
        pop3_session(&server, &format!("{login}DELE 4\r\nDELE 5\r\nDELE 5\r\nDELE 9\r\nQUIT\r\n")),
        pop3_session(&server, &format!("{login}DELE 1\r\nDELE 2\r\n")),
        pop3_session(&server, &format!("USER {USER}\r\nPASS wrong\r\n{}\r\nCAPA\r\nQUIT\r\n", "x".repeat(600))),
        pop3_session(&server, ""),
    ];

    let octets: usize = received.iter().map(Vec::len).sum();
    let counters = ["rb?", "re?", "xe?", "cc?", "hc?", "hu?"].map(|counter| admin.value(counter));
    assert_eq!(counters, [&*octets.to_string(), "5", "2", "0", "6", "4"]);
    assert_eq!(maildrop.messages(), ["1", "2", "3"]);
}

#[test]
fn connections_and_logged_in_users_are_counted() {
    let server = Server::builder().user("zoe", "z").user("ana", "a").start();
    let mut admin = server.admin();
    let mut clients: Vec<_> = (0..4).map(|_| server.pop3()).collect();
    play(&mut admin, [("cc?", "+4"), ("cu?", "+0"), ("hc?", "+4"), ("hu?", "+0")]);
    clients[0].login("zoe", "z");
    clients[1].login("ana", "a");
    clients[2].call("USER ana");
    clients[2].refused("PASS wrong");
    play(&mut admin, [("cc?", "+4"), ("cu?", "+2\r\nana\r\nzoe"), ("hu?", "+2")]);
    let other_admin = server.admin();
    play(&mut admin, [("cc?", "+4"), ("hc?", "+4")]);
    drop(other_admin);
    for left in (0..4).rev() {
        clients.pop().unwrap().quit();
        assert_eq!(admin.value("cc?"), left.to_string());
    }
    play(&mut admin, [("cu?", "+0"), ("hc?", "+4"), ("hu?", "+2")]);
}

/// Messages that another program has removed before QUIT are not counted, nor are those that QUIT could not remove.
#[test]
fn only_messages_that_quit_has_removed_are_counted() {
    let server = Server::start();
    for name in ["1", "2", "3"] {
        server.maildrop().put(name, "text\r\n");
    }
    let mut client = server.session();
    for number in ["1", "2", "3"] {
        client.call(&format!("DELE {number}"));
    }
    server.maildrop().remove("1");
    server.maildrop().put("2", "another text\r\n");
    client.refused("QUIT");
    assert_eq!(server.admin().value("xe?"), "1");
    assert_eq!(server.maildrop().messages(), ["2"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Settings and open sessions

#[test]
fn an_added_user_can_log_in_on_a_waiting_connection() {
    let server = Server::start();
    let mut client = server.pop3();
    client.call("USER ana");
    play(&mut server.admin(), [("u+ ana a:b", "+")]);
    client.call("PASS a:b");
}

#[test]
fn a_deleted_user_cannot_log_in_on_a_waiting_connection() {
    let server = Server::start();
    let mut client = server.pop3();
    client.call(&format!("USER {USER}"));
    play(&mut server.admin(), [("u- mrose", "+")]);
    assert!(client.refused(&format!("PASS {PASSWORD}")).starts_with("[AUTH]"));
}

#[test]
fn a_session_goes_on_when_its_user_is_deleted() {
    let server = Server::start();
    server.maildrop().put("1", "one\r\n");
    server.maildrop().put("2", "two\r\n");
    let mut admin = server.admin();
    let mut client = server.session();
    play(&mut admin, [("u- mrose", "+"), ("u?", "+0"), ("cu?", "+1\r\nmrose"), ("u- mrose", "-4")]);
    assert_eq!(client.fetch("RETR 2"), b"two\r\n");
    client.call("DELE 2");
    let mut next = server.pop3();
    next.call("USER mrose");
    assert!(next.refused(&format!("PASS {PASSWORD}")).starts_with("[AUTH]"));
    client.quit();
    assert_eq!(server.maildrop().messages(), ["1"]);
    play(&mut admin, [("cu?", "+0"), ("xe?", "+1"), ("u+ mrose new", "+")]);
    next.login(USER, "new");
}

#[test]
fn a_lowered_timeout_ends_sessions_that_are_already_idle() {
    let server = Server::builder().user("ana", "a").flags(["-T", "0"]).start();
    server.mail().maildrop("ana").put("1", "one\r\n");
    let mut admin = server.admin();
    let mut idle = [server.pop3(), server.pop3()];
    idle[0].login("ana", "a");
    idle[0].call("DELE 1");
    idle[1].write("NOO");
    play(&mut admin, [("t= 1", "+")]);
    for client in &mut idle {
        client.closed();
    }
    play(&mut admin, [("cc?", "+0"), ("t?", "+1")]);
    let mut new = server.pop3();
    new.closed();
    assert_eq!(server.mail().maildrop("ana").messages(), ["1"]);
}

#[test]
fn a_lowered_timeout_is_logged_as_a_timeout() {
    for before in ["0", "600"] {
        let server = Server::builder().flags(["-T", before]).start();
        let mut client = server.session();
        play(&mut server.admin(), [("t= 1", "+")]);
        client.closed();
        eventually("the log has the end of the session", || server.stderr().contains("end: "));
        assert!(server.stderr().contains("end: timeout"), "from {before}");
    }
}

/// The sessions are idle for longer than the old timeout.
#[test]
fn a_raised_timeout_applies_to_sessions_that_are_already_idle() {
    let server = Server::builder().flags(["-T", "3"]).start();
    let mut admin = server.admin();
    let mut clients = [server.session(), server.pop3()];
    play(&mut admin, [("t= 86400", "+")]);
    throughout(Duration::from_millis(3500), || play(&mut admin, [("cc?", "+2")]));
    play(&mut admin, [("t= 0", "+")]);
    clients[0].call("NOOP");
    clients[1].call("CAPA");
}

#[test]
fn the_timeout_does_not_apply_to_admins() {
    let server = Server::builder().flags(["-T", "1"]).start();
    let mut admin = server.admin();
    server.pop3().closed();
    play(&mut admin, [("cc?", "+0"), ("t?", "+1")]);
}

#[test]
fn another_mail_directory_is_used_from_the_next_login_on() {
    let elsewhere = TempDir::new().unwrap();
    let server = Server::builder().allow(elsewhere.path()).start();
    server.maildrop().put("1", "old\r\n");
    fs::create_dir(elsewhere.path().join(USER)).unwrap();
    fs::write(elsewhere.path().join(USER).join("1"), "this is new\r\n").unwrap();
    let mut old = server.session();
    let mut waiting = server.pop3();
    waiting.call(&format!("USER {USER}"));
    play(&mut server.admin(), [(&*format!("m= {}", elsewhere.path().display()), "+")]);
    waiting.call(&format!("PASS {PASSWORD}"));
    assert_eq!(waiting.fetch("RETR 1"), b"this is new\r\n");
    assert_eq!(old.fetch("RETR 1"), b"old\r\n");
    old.call("DELE 1");
    old.quit();
    assert!(server.maildrop().messages().is_empty());
    assert_eq!(waiting.call("STAT"), "1 13");
    assert!(elsewhere.path().join(USER).join("1").exists());
}

#[test]
fn a_relative_path_of_the_mail_directory_starts_at_the_working_directory() {
    let server = Server::builder().allow(".").start();
    let here = TempDir::new_in(".").unwrap();
    let name = here.path().file_name().unwrap().to_str().unwrap();
    fs::create_dir(here.path().join(USER)).unwrap();
    fs::write(here.path().join(USER).join("1"), "here\r\n").unwrap();
    play(&mut server.admin(), [(&*format!("m= {name}"), "+"), ("m?", &*format!("+{name}"))]);
    assert_eq!(server.session().fetch("RETR 1"), b"here\r\n");
}

#[test]
fn a_lowered_limit_closes_no_session_and_admits_no_client() {
    let server = Server::start();
    let mut admin = server.admin();
    let mut clients: Vec<_> = (0..4).map(|_| server.pop3()).collect();
    play(&mut admin, [("c= 3", "+"), ("c?", "+3")]);
    let mut waiting = Client::connect(server.pop3_address());
    for _ in 0..3 {
        for client in &mut clients {
            client.call("CAPA");
            client.multiline();
        }
        expect_silence(&waiting);
        play(&mut admin, [("hc?", "+4")]);
        clients.pop().unwrap().quit();
    }
    // The remaining POP3 client and the admin leave one of three slots.
    waiting.ok();
    play(&mut admin, [("cc?", "+2"), ("hc?", "+5")]);
}

#[test]
fn a_raised_limit_serves_waiting_clients() {
    let server = Server::builder().flags(["-c", "2"]).start();
    let mut admin = server.admin();
    let _first = server.pop3();
    let mut waiting: Vec<_> = (0..20).map(|_| Client::connect(server.pop3_address())).collect();
    waiting.iter().for_each(expect_silence);
    play(&mut admin, [("cc?", "+1"), ("c= 12", "+")]);
    for client in &mut waiting[..10] {
        client.ok();
    }
    waiting[10..].iter().for_each(expect_silence);
    play(&mut admin, [("cc?", "+11"), ("c= 998", "+")]);
    for client in &mut waiting[10..] {
        client.ok();
    }
    play(&mut admin, [("cc?", "+21"), ("hc?", "+21")]);
}

#[test]
fn the_limit_counts_admins() {
    let server = Server::start();
    let mut admin = server.admin();
    play(&mut admin, [("c= 1", "+")]);
    let mut other = server.peep();
    other.send("a root root");
    expect_silence(&other);
    play(&mut admin, [("q", "+")]);
    admin.closed();
    other.expect("+");
    play(&mut other, [("c?", "+1"), ("c= 998", "+")]);
}

#[test]
fn fifty_admins_can_work_at_once() {
    const ADMINS: usize = 50;
    let server = Server::start();
    let mut admins: Vec<_> = (0..ADMINS).map(|_| server.admin()).collect();
    for (number, admin) in admins.iter_mut().enumerate() {
        play(admin, [(&*format!("u+ user{number:02} x"), "+")]);
    }
    for admin in &mut admins {
        assert_eq!(admin.values("u?").len(), ADMINS + 1);
    }
    for (number, admin) in admins.iter_mut().enumerate().rev() {
        play(admin, [(&*format!("u- user{number:02}"), "+"), ("cc?", "+0")]);
    }
    play(&mut admins[0], [("u?", "+1\r\nmrose")]);
}

/// Many admins add the same users at the same time.
#[test]
fn each_user_is_added_by_exactly_one_admin() {
    const ROUNDS: usize = 200;
    let server = Server::start();
    let added: usize = thread::scope(|scope| {
        let admins: Vec<_> = (0..4)
            .map(|_| {
                let mut admin = server.admin();
                let lines: String = (0..ROUNDS).map(|round| format!("u+ user{round} x\r\n")).collect();
                scope.spawn(move || {
                    admin.write(lines);
                    (0..ROUNDS).filter(|_| admin.line() == "+").count()
                })
            })
            .collect();
        admins.into_iter().map(|admin| admin.join().unwrap()).sum()
    });
    assert_eq!(added, ROUNDS);
}

#[test]
fn only_complete_commands_of_an_admin_who_leaves_are_carried_out() {
    // If the server runs as root, it refuses the default admin to a client that has already left. So this sets another
    // one.
    let server = Server::builder().flags(["-a", "boss:secret"]).start();
    let login = || {
        let mut admin = server.peep();
        play(&mut admin, [("a boss secret", "+")]);
        admin
    };
    let mut admin = login();
    for octets in ["", "a boss", "a boss secret\r\nc= 99", "a boss secret\r\nu+ ana x\r\n", "xxxxxxxx"] {
        server.peep().write(octets);
    }
    eventually("the complete command is carried out", || admin.values("u?").len() == 2);
    play(&mut admin, [("c?", "+998")]);
    for _ in 0..997 {
        drop(server.peep());
    }
    play(&mut login(), [("c?", "+998")]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Other protocols

/// Sends `octets` to PEEP's port. Checks that the server answers with one error and closes the connection.
#[track_caller]
fn expect_one_refusal(server: &Server, octets: &[u8]) {
    let mut client = server.peep();
    // This fails if the server closes the connection before it has read all octets.
    let _ = client.try_write(octets);
    let mut answers = Vec::new();
    while let Ok(Some(answer)) = client.try_line() {
        answers.push(answer);
    }
    assert!(matches!(&answers[..], [answer] if answer.starts_with(b"-")), "{answers:?} to {}", octets.escape_ascii());
    assert_eq!(server.admin().values("u?"), [USER], "after {}", octets.escape_ascii());
}

/// Lines that add a user if the server takes them for commands.
const INJECTED: &str = "\na root root\nu+ eve evil\n";

/// A web page can make a browser send a form to any port of the browser's machine, and can choose the form's path and
/// text. A page from the same host can also choose the method.
#[test]
fn a_web_page_cannot_speak_peep() {
    let server = Server::start();
    let long = format!("/{}", "a".repeat(300));
    for (method, path) in [("POST", "/"), ("POST", &*long), ("GET", "/"), ("a", "/root"), ("q", "/"), ("cap?", "/")] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r");
        expect_one_refusal(&server, format!("{head}{INJECTED}").as_bytes());
    }
}

/// A TLS client chooses many octets of its first message, such as the name of a pre-shared key or of the server.
#[test]
fn a_tls_handshake_is_not_taken_for_commands() {
    let server = Server::start();
    let head = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for before in [0, 1, 200, 255, 300, 2000] {
        let filling = vec![b'x'; before];
        expect_one_refusal(&server, &[&head[..], &filling, INJECTED.as_bytes()].concat());
    }
    // These octets have no line end.
    expect_one_refusal(&server, head);
    expect_one_refusal(&server, &[&head[..], &[b'x'; 500]].concat());
    // These are other protocols too, and the octets arrive one by one.
    for octets in [&head[..], b"\0\x01", b"SSH-2.0-x\r", b"EHLO x\r", b"\r", b"*1\r\n$4\r\nPING\r"] {
        let lines = [octets, INJECTED.as_bytes()].concat();
        let mut client = server.peep();
        // The server closes the connection at the first line. Writes after that fail, and may discard the answer.
        let _ = lines.chunks(1).try_for_each(|octet| client.try_write(octet));
        let mut answers = 0;
        while let Ok(Some(_)) = client.try_line() {
            answers += 1;
        }
        assert!(answers <= 1, "{}", octets.escape_ascii());
        assert_eq!(server.admin().values("u?"), [USER]);
    }
}

/// A real TLS client sends the commands in its handshake.
#[test]
fn openssl_cannot_be_made_to_speak_peep() {
    let server = Server::start();
    let address = server.peep_address().to_string();
    let identity = "x\na root root\nu+ eve evil\n";
    for arguments in [&["-tls1_3", "-psk", "00112233", "-psk_identity", identity][..], &["-servername", identity]] {
        let mut openssl = Command::new("timeout");
        openssl.args(["10", "openssl", "s_client", "-connect", &address]).args(arguments);
        let output = openssl.stdin(Stdio::null()).output().expect("timeout(1) is installed");
        let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(127) {
            eprintln!("SKIPPED: openssl is not installed ({printed})");
            return;
        }
        assert!(printed.contains("CONNECTED"), "{printed}");
        assert_ne!(output.status.code(), Some(124), "the server has not closed the connection");
        assert_eq!(server.admin().values("u?"), [USER]);
    }
}
