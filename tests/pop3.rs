//! Commands and their timer, where it takes more than a dialogue to show them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Client, MailRoot, PASSWORD, Server, USER, eventually};

/// Every command, right and wrong, in both states.
fn every_command() -> Vec<u8> {
    let login = format!("USER {USER}\r\nPASS wrong\r\nPASS {PASSWORD}\r\nUSER {USER}\r\nPASS {PASSWORD}\r\n");
    let before = "CAPA\r\nSTAT\r\nNOSUCH\r\n\r\nPASS\r\n";
    let after = "CAPA\r\nSTAT\r\nLIST\r\nLIST 1\r\nLIST 9\r\nUIDL\r\nUIDL 2\r\nRETR 1\r\nRETR 2\r\nTOP 1 0\r\nTOP 2 1\r\n\
                 TOP 1\r\nDELE 1\r\nRETR 1\r\nLIST\r\nNOOP\r\nRSET\r\nLIST\r\nUSER x\r\nNOSUCH\r\nLIST 0\r\nQUIT\r\n";
    let too_long = [&b"NOOP "[..], &[b'x'; 1000], b"\r\n"].concat();
    [before.as_bytes(), login.as_bytes(), &too_long, after.as_bytes()].concat()
}

/// All that the server says to `octets` sent in `segments` of a length, the greeting apart.
fn answers(server: &Server, octets: &[u8], segment: usize) -> Vec<u8> {
    let mut client = Client::connect(server.pop3_address());
    for segment in octets.chunks(segment) {
        client.write(segment);
    }
    client.ok();
    client.rest()
}

/// RFC 1939 section 3, RFC 2449 section 6.6, checklist 14.
#[test]
fn segments_change_no_octet_of_the_answers() {
    let server = Server::start();
    server.maildrop().put("1", "Subject: one\n\n.\nbody");
    server.maildrop().put("2", "Subject: two\r\n\r\nbody\r\n");
    let commands = every_command();
    let at_once = answers(&server, &commands, commands.len());
    for segment in [1, 2, 3, 7, 100, 511, 512, 513] {
        assert_eq!(
            String::from_utf8_lossy(&answers(&server, &commands, segment)),
            String::from_utf8_lossy(&at_once),
            "segments of {segment}"
        );
    }
}

/// Sends `octets` from a thread of its own, and begins to read what comes back with `read` only when the sending is
/// done or stuck, as the server's answers have filled all buffers.
fn send_then_read(client: &mut Client, octets: &[u8], read: impl FnOnce(&mut Client)) {
    let mut socket = client.socket().try_clone().unwrap();
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for piece in octets.chunks(4096) {
                socket.write_all(piece).unwrap();
                sent.fetch_add(piece.len(), Ordering::Relaxed);
            }
        });
        wait_until_settled(octets.len(), || sent.load(Ordering::Relaxed));
        read(client);
    });
}

/// Waits until `progress` is at `end`, or has stood still for a while.
fn wait_until_settled(end: usize, progress: impl Fn() -> usize) {
    const STILL: Duration = Duration::from_millis(200);
    let (mut last, mut since) = (progress(), Instant::now());
    eventually("all is sent or stuck", || {
        let now = progress();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        now == end || since.elapsed() > STILL
    });
}

/// RFC 2449 section 6.6, checklist 69.
#[test]
fn twenty_thousand_noops_and_a_late_reader() {
    const COUNT: usize = 20_000;
    let server = Server::start();
    let mut client = server.session();
    let commands = [b"NOOP\r\n".repeat(COUNT), b"QUIT\r\n".to_vec()].concat();
    send_then_read(&mut client, &commands, |client| {
        for _ in 0..=COUNT {
            client.ok();
        }
        client.closed();
    });
}

/// RFC 2449 section 6.6, checklist 69: in order, with answers many times larger than all buffers.
#[test]
fn twenty_thousand_messages_and_a_late_reader() {
    const COUNT: usize = 20_000;
    let server = Server::start();
    let messages: Vec<_> =
        (1..=3).map(|number| format!("Subject: {number}\r\n\r\n.\r\n{}\r\n", "x".repeat(300))).collect();
    for (number, message) in messages.iter().enumerate() {
        server.maildrop().put(&number.to_string(), message);
    }
    let mut client = server.session();
    let commands: String = (0..COUNT).map(|index| format!("RETR {}\r\n", index % 3 + 1)).collect();
    send_then_read(&mut client, commands.as_bytes(), |client| {
        for index in 0..COUNT {
            client.ok();
            assert_eq!(String::from_utf8(client.multiline()).unwrap(), messages[index % 3]);
        }
    });
    client.quit();
}

/// Checklist 12: each line is refused, none ends the session or is answered twice.
#[test]
fn lines_of_garbage() {
    const LINES: usize = 998;
    let server = Server::start();
    let mut client = server.session();
    let mut garbage = Vec::new();
    for line in 0..LINES {
        let length = line * 7 % 400;
        garbage.extend((0..length).map(|at| ((at * line + 128) % 256) as u8).filter(|&octet| octet != b'\n'));
        garbage.extend_from_slice(b"\xff\r\n");
    }
    client.write(&garbage);
    for _ in 0..LINES {
        client.err();
    }
    client.call("NOOP");
    client.quit();
}

/// Checklist 6: it is refused while it is still coming, and nothing of it is a command.
#[test]
fn a_line_without_end() {
    let server = Server::start();
    server.maildrop().put("1", "one\r\n");
    let mut client = server.session();
    for _ in 0..1000 {
        client.write(b"DELE 1 ".repeat(150));
    }
    client.err();
    client.write("\r\n");
    assert_eq!(client.call("STAT"), "1 5");
}

/// RFC 2449 section 6.4, checklist 66: no text but a response code begins with `[`.
#[test]
fn what_a_client_says_does_not_come_back_as_a_response_code() {
    let server = Server::start();
    let mut client = server.pop3();
    for command in ["[AUTH]", "[IN-USE] x", "USER", "PASS [AUTH]", "RETR [SYS/TEMP]"] {
        let text = client.refused(command);
        assert!(!text.starts_with('['), "{command}: {text}");
    }
    for command in ["USER [IN-USE]", "USER mrose"] {
        assert!(!client.call(command).starts_with('['));
    }
    client.call(&format!("PASS {PASSWORD}"));
    for command in ["[AUTH]", "RETR [SYS/PERM]", "DELE 1", "LIST [1]", "TOP [1] 0", "UIDL 1"] {
        let text = client.refused(command);
        assert!(!text.starts_with('['), "{command}: {text}");
    }
}

/// RFC 2449 section 6.4, checklist 66.
#[test]
fn the_greeting_has_no_response_code() {
    let server = Server::start();
    let greeting = Client::connect(server.pop3_address()).ok();
    assert!(!greeting.contains('['), "{greeting}");
}

/// RFC 2449 section 6.9, checklist 71.
#[test]
fn the_version_is_not_told() {
    let server = Server::start();
    let mut client = server.pop3();
    let version = env!("CARGO_PKG_VERSION");
    assert!(client.listing("CAPA").iter().all(|line| !line.contains(version)));
    assert!(!Client::connect(server.pop3_address()).ok().contains(version));
}

#[test]
fn the_other_address_family_is_served() {
    let server = Server::builder().address("::1").start();
    server.session().quit();
}

/// RFC 1939 section 3, checklist 17, 18: the end comes without a word, and without UPDATE.
#[test]
fn the_autologout_timer_closes_in_silence() {
    let server = Server::builder().flags(["-T", "1"]).start();
    server.maildrop().put("1", "one\r\n");
    let mut client = server.session();
    client.call("DELE 1");
    client.closed();
    assert_eq!(server.maildrop().messages(), ["1"]);
    assert_eq!(server.session().call("STAT"), "1 5");
}

#[test]
fn the_timer_runs_before_login_too() {
    let server = Server::builder().flags(["-T", "1"]).start();
    server.pop3().closed();
    let mut client = server.pop3();
    client.call(&format!("USER {USER}"));
    client.closed();
}

/// Checklist 17: it is commands that reset the timer, not octets.
#[test]
fn octets_without_a_command_do_not_reset_the_timer() {
    let server = Server::builder().flags(["-T", "1"]).start();
    let mut client = server.session();
    let mut socket = client.socket().try_clone().unwrap();
    let trickle = thread::spawn(move || {
        while socket.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(50))
        }
    });
    client.closed();
    trickle.join().unwrap();
    server.session().quit();
}

/// Checklist 17: every command resets it, also one that is refused.
#[test]
fn commands_reset_the_timer() {
    let server = Server::builder().flags(["-T", "2"]).start();
    let mut client = server.session();
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        client.call("NOOP");
        client.refused("NOSUCH");
        thread::sleep(Duration::from_millis(100));
    }
    client.quit();
}

/// RFC 1939 section 3: the timer is for idle clients; who is being sent a message is none, and gets all of it.
#[test]
fn a_slow_reader_gets_all_of_a_message() {
    let server = Server::builder().flags(["-T", "1"]).start();
    let message = b"0123456789abcdef\r\n".repeat(1 << 19);
    server.maildrop().put("1", &message);
    let mut client = server.session();
    client.send("RETR 1");
    client.ok();
    let mut received = Vec::with_capacity(message.len());
    // Two seconds and more over it, with the server's next write never far away.
    while received.len() < message.len() {
        let line = client.octets_of_line();
        received.extend_from_slice(&line);
        received.extend_from_slice(b"\r\n");
        if received.len() % (1 << 19) < line.len() + 2 {
            thread::sleep(Duration::from_millis(150));
        }
    }
    client.expect(".");
    assert!(received == message);
}

/// RFC 2449 section 6.6: a client may send all it has to say and say that this was all.
#[test]
fn commands_before_the_end_of_the_input_are_carried_out() {
    let server = Server::start();
    server.maildrop().put("1", "one\r\n");
    let mut client = server.session();
    client.send_all(["RETR 1", "DELE 1", "QUIT"]);
    client.finish_writing();
    client.ok();
    assert_eq!(client.multiline(), b"one\r\n");
    client.ok();
    client.ok();
    client.closed();
    assert!(server.maildrop().messages().is_empty());
}

/// Listings larger than any buffer, with gaps.
#[test]
fn long_listings() {
    const COUNT: usize = 5000;
    let server = Server::start();
    for number in 1..=COUNT {
        server.maildrop().put(&format!("{number}.eml"), "x".repeat(number % 100));
    }
    let mut client = server.session();
    let size = |number: usize| if number.is_multiple_of(100) { 0 } else { number % 100 + 2 };
    let scan_listings =
        |left: &dyn Fn(usize) -> bool| (1..=COUNT).filter(|&n| left(n)).map(|n| format!("{n} {}", size(n))).collect();
    let all: Vec<String> = scan_listings(&|_| true);
    assert_eq!(client.listing("LIST"), all);
    let ids = client.listing("UIDL");
    let dele: Vec<String> = (1..=COUNT).step_by(3).map(|number| format!("DELE {number}")).collect();
    client.send_all(dele.iter().map(String::as_str));
    for _ in &dele {
        client.ok();
    }
    let is_left = |number: usize| number % 3 != 1;
    let left: Vec<String> = scan_listings(&is_left);
    assert_eq!(client.listing("LIST"), left);
    let left_ids: Vec<String> = (1..).zip(ids).filter(|(number, _)| is_left(*number)).map(|(_, id)| id).collect();
    assert_eq!(client.listing("UIDL"), left_ids);
    client.quit();
    assert_eq!(server.maildrop().messages().len(), left.len());
}

/// RFC 1939 section 6, checklist 18, 19: a server told to end removes nothing that no QUIT has asked for.
#[test]
fn shutting_down_removes_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start();
        server.maildrop().put("1", "one\r\n");
        let mut client = server.session();
        client.call("DELE 1");
        server.signal(signal);
        client.closed();
        assert_eq!(server.wait().code(), Some(0), "{signal:?}: {}", server.stderr());
        assert_eq!(server.maildrop().messages(), ["1"]);
    }
}

/// One client that takes nothing of its answer does not keep the server from ending.
#[test]
fn shutting_down_with_a_blocked_client() {
    let mut server = Server::start();
    server.maildrop().put("1", b"line\r\n".repeat(4 << 20));
    let mut client = server.session();
    client.send("RETR 1");
    client.ok();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.stderr());
    assert!(!client.rest().ends_with(b"\r\n.\r\n"), "it looks whole");
}

/// RFC 1939 section 6: killed in the middle of an UPDATE, what is left of the maildrop is whole.
#[test]
fn killed_in_the_middle_of_an_update() {
    const COUNT: usize = 1000;
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    for number in 1..=COUNT + 1 {
        maildrop.put(&format!("{number}.eml"), format!("Subject: {number}\r\n\r\n"));
    }
    let mut server = Server::builder().mail(&mail).start();
    let mut client = server.session();
    let commands: String = (1..=COUNT).map(|number| format!("DELE {number}\r\n")).collect();
    client.write(commands);
    for _ in 0..COUNT {
        client.ok();
    }
    client.send("QUIT");
    eventually("the first message goes", || maildrop.messages().len() <= COUNT);
    server.signal(Signal::KILL);
    server.wait();

    let left = maildrop.messages();
    assert!(left.contains(&format!("{}.eml", COUNT + 1)), "one that was not marked has gone");
    for name in &left {
        let number = name.strip_suffix(".eml").unwrap();
        assert_eq!(std::fs::read_to_string(maildrop.path(name)).unwrap(), format!("Subject: {number}\r\n\r\n"));
    }
    let server = Server::builder().mail(&mail).start();
    assert!(server.session().call("STAT").starts_with(&format!("{} ", left.len())));
}

/// A message cut while it is sent must not look whole: the connection ends without the terminator.
#[test]
fn a_message_cut_while_it_is_sent_has_no_terminator() {
    for line in [&b"in wire form already\r\n"[..], b"of bare line feeds\n"] {
        let server = Server::start();
        let path = server.maildrop().put("1", line.repeat(1 << 20));
        server.maildrop().put("2", "two\r\n");
        let mut client = server.session();
        client.send("RETR 1");
        client.ok();
        File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        let received = client.rest();
        assert!(received.len() < line.len() << 20, "nothing was cut");
        assert!(!received.ends_with(b"\r\n.\r\n"), "it looks whole");
        server.expect_log("ERROR", "message 1 was cut off: the file has become shorter meanwhile");
        assert!(server.session().call("STAT").starts_with("2 "));
    }
}

/// A message that grows while it is sent is sent as it was at login.
#[test]
fn a_message_that_grows_while_it_is_sent() {
    for line in [&b"in wire form already\r\n"[..], b"of bare line feeds\n"] {
        let server = Server::start();
        let stored = line.repeat(1 << 19);
        let path = server.maildrop().put("1", &stored);
        let mut client = server.session();
        let size: usize = client.call("LIST 1").strip_prefix("1 ").unwrap().parse().unwrap();
        client.send("RETR 1");
        client.ok();
        File::options().append(true).open(path).unwrap().write_all(b"and more\r\n").unwrap();
        assert_eq!(client.multiline().len(), size);
        client.quit();
    }
}

/// A client that hangs up at any point of a dialogue leaves nothing behind: no lock, no lost message.
#[test]
fn hanging_up_at_every_octet_of_a_dialogue() {
    let server = Server::start();
    server.maildrop().put("1", "one\r\n");
    let dialogue = format!("USER {USER}\r\nPASS {PASSWORD}\r\nSTAT\r\nRETR 1\r\nDELE 1\r\nQUIT");
    for length in 0..=dialogue.len() {
        let mut client = Client::connect(server.pop3_address());
        client.write(&dialogue.as_bytes()[..length]);
        // Every other one waits for the answers first.
        if length % 2 == 0 {
            client.finish_writing();
            client.rest();
        }
    }
    let mut admin = server.admin();
    let connections = (dialogue.len() + 1).to_string();
    eventually("all have come and gone", || admin.value("hc?") == connections && admin.value("cc?") == "0");
    assert!(admin.values("cu?").is_empty());
    assert_eq!(server.session().call("STAT"), "1 5");
}

/// Commands behind QUIT are not carried out, and do not cost the client the reply to QUIT.
#[test]
fn what_follows_quit_is_dropped() {
    let server = Server::start();
    server.maildrop().put("1", "one\r\n");
    let mut client = server.session();
    client.write(format!("QUIT\r\nDELE 1\r\nQUIT\r\n{}", "NOOP\r\n".repeat(5000)));
    client.ok();
    client.closed();
    assert_eq!(server.maildrop().messages(), ["1"]);
}

/// One packet has both: a client that has the one need not wait for the other.
#[test]
fn the_reply_to_quit_comes_with_the_end_of_the_connection() {
    let server = Server::start();
    for _ in 0..100 {
        let mut client = TcpStream::connect(server.pop3_address()).unwrap();
        client.write_all(b"QUIT\r\n").unwrap();
        let (mut answers, mut part) = (Vec::new(), [0; 4096]);
        while !answers.ends_with(b"bye\r\n") {
            let length = client.read(&mut part).unwrap();
            assert!(length > 0, "no reply to QUIT");
            answers.extend(&part[..length]);
        }
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut part).unwrap(), 0);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Other protocols

/// A browser that a web page has sent here, or a client that begins with TLS, is told once and closed: none of what
/// follows is taken for a command, and the connection slot is free at once.
#[test]
fn another_protocol_before_login_ends_the_connection() {
    let server = Server::start();
    server.maildrop().put("1", "one\r\n");
    let injected = format!("\nUSER {USER}\nPASS {PASSWORD}\nDELE 1\nQUIT\n");
    let http =
        ["GET / HTTP/1.0", "POST /x HTTP/1.1", "USER /x HTTP/1.1", "Host: localhost"].map(|line| line.to_owned());
    let handshake = "\x16\x03\x01\x02\0\x01\0\x01\u{c}\x03\x03";
    let tls = [0, 500, 600, 3000].map(|more| format!("{handshake}{}", "x".repeat(more)));
    for (protocol, begin) in http.iter().map(|line| ("HTTP", line)).chain(tls.iter().map(|octets| ("TLS", octets))) {
        for segment in [1, usize::MAX] {
            let mut client = server.pop3();
            for piece in format!("{begin}{injected}").as_bytes().chunks(segment) {
                let _ = client.try_write(piece); // the server may have closed
            }
            assert!(client.err().contains(protocol), "{begin:?}");
            // By a reset, if the server closed before it had read all.
            assert!(!matches!(client.try_line(), Ok(Some(_))), "more than one answer to {begin:?}");
        }
    }
    // A handshake that has no line end in it is not waited for.
    let mut client = server.pop3();
    client.write(handshake);
    client.err();
    client.closed();
    server.expect_log("INFO", "end: client speaks TLS");
    server.expect_log("INFO", "end: client speaks HTTP");
    assert_eq!(server.session().call("STAT"), "1 5");

    // A user who has logged in is told of a wrong line, as ever.
    let mut session = server.session();
    session.refused("GET / HTTP/1.1");
    session.write("\x16\x03\r\n");
    session.err();
    session.quit();
}
