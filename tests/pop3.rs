//! POP3's commands and the autologout timer, in cases that a dialogue file cannot express.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Client, MailRoot, PASSWORD, Server, USER, eventually, settled, throughout};

/// Every command in both states, with right and wrong arguments.
fn every_command() -> Vec<u8> {
    let login = format!("USER {USER}\r\nPASS wrong\r\nPASS {PASSWORD}\r\nUSER {USER}\r\nPASS {PASSWORD}\r\n");
    let before = "CAPA\r\nSTAT\r\nNOSUCH\r\n\r\nPASS\r\n";
    let after = "CAPA\r\nSTAT\r\nLIST\r\nLIST 1\r\nLIST 9\r\nUIDL\r\nUIDL 2\r\nRETR 1\r\nRETR 2\r\nTOP 1 0\r\nTOP 2 1\r\n\
                 TOP 1\r\nDELE 1\r\nRETR 1\r\nLIST\r\nNOOP\r\nRSET\r\nLIST\r\nUSER x\r\nNOSUCH\r\nLIST 0\r\nQUIT\r\n";
    let too_long = [&b"NOOP "[..], &[b'x'; 1000], b"\r\n"].concat();
    [before.as_bytes(), login.as_bytes(), &too_long, after.as_bytes()].concat()
}

/// Everything that the server answers to `octets` that are sent in segments of this length, after the greeting.
fn answers(server: &Server, octets: &[u8], segment: usize) -> Vec<u8> {
    let mut client = Client::connect(server.pop3_address());
    for segment in octets.chunks(segment) {
        client.write(segment);
    }
    client.ok();
    client.rest()
}

/// RFC 1939 section 3, RFC 2449 section 6.6: commands may be split over segments and several may be in one.
#[test]
fn the_answers_do_not_depend_on_the_segments_of_the_commands() {
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

/// Sends `octets` from a thread and calls `read` when everything is sent, or when sending is stuck because the server's
/// answers have filled all buffers.
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
        settled("all octets are sent, or sending is stuck", || sent.load(Ordering::Relaxed));
        read(client);
    });
}

/// RFC 2449 section 6.6: a client may send commands without waiting for the answers.
#[test]
fn twenty_thousand_pipelined_noops_are_answered() {
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

/// RFC 2449 section 6.6: the answers come in the order of the commands, also if they are larger than all buffers.
#[test]
fn twenty_thousand_pipelined_retrs_are_answered_in_order() {
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

/// RFC 1939 section 3: an unrecognized command gets a negative status indicator.
#[test]
fn each_line_of_garbage_is_refused_once_and_the_session_goes_on() {
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

/// RFC 2449 section 4 limits command lines. A longer line is refused before its end has arrived.
#[test]
fn no_part_of_an_endless_line_is_taken_for_a_command() {
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

/// RFC 2449 section 6.4: the text of an answer may begin with `[` only if it has a response code.
#[test]
fn a_clients_words_are_not_answered_as_a_response_code() {
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

/// RFC 2449 section 6.4: only the text of an answer with a response code may begin with `[`.
#[test]
fn the_greeting_has_no_response_code() {
    let server = Server::start();
    let greeting = Client::connect(server.pop3_address()).ok();
    assert!(!greeting.contains('['), "{greeting}");
}

/// RFC 2449 section 6.9: a server may withhold its version.
#[test]
fn neither_the_greeting_nor_capa_has_the_version() {
    let server = Server::start();
    let mut client = server.pop3();
    let version = env!("CARGO_PKG_VERSION");
    assert!(client.listing("CAPA").iter().all(|line| !line.contains(version)));
    assert!(!Client::connect(server.pop3_address()).ok().contains(version));
}

#[test]
fn clients_are_served_by_ipv6() {
    let server = Server::builder().address("::1").start();
    server.session().quit();
}

/// RFC 1939 section 3: when the timer expires, the server closes the connection without an answer and without UPDATE.
#[test]
fn the_autologout_timer_sends_nothing_and_removes_nothing() {
    let server = Server::builder().flags(["-T", "1"]).start();
    server.maildrop().put("1", "one\r\n");
    let mut client = server.session();
    client.call("DELE 1");
    client.closed();
    assert_eq!(server.maildrop().messages(), ["1"]);
    assert_eq!(server.session().call("STAT"), "1 5");
}

#[test]
fn the_autologout_timer_runs_before_login() {
    let server = Server::builder().flags(["-T", "1"]).start();
    server.pop3().closed();
    let mut client = server.pop3();
    client.call(&format!("USER {USER}"));
    client.closed();
}

/// RFC 1939 section 3: the receipt of a command resets the timer.
#[test]
fn octets_without_a_line_end_do_not_reset_the_timer() {
    let server = Server::builder().flags(["-T", "1"]).start();
    let mut client = server.session();
    let mut socket = client.socket().try_clone().unwrap();
    thread::spawn(move || eventually("the server closes the connection", || socket.write_all(b"x").is_err()));
    client.closed();
    server.session().quit();
}

/// RFC 1939 section 3: the receipt of any command resets the timer.
#[test]
fn a_refused_command_resets_the_timer() {
    let server = Server::builder().flags(["-T", "2"]).start();
    let mut client = server.session();
    throughout(Duration::from_secs(4), || {
        client.call("NOOP");
        client.refused("NOSUCH");
    });
    client.quit();
}

/// RFC 1939 section 3: the timer is for inactive clients. A client that is receiving a message is active.
#[test]
fn the_timer_does_not_cut_off_a_message_for_a_slow_reader() {
    let server = Server::builder().flags(["-T", "1"]).start();
    let message = b"0123456789abcdef\r\n".repeat(1 << 19);
    server.maildrop().put("1", &message);
    let mut client = server.session();
    client.send("RETR 1");
    client.ok();
    let mut received = Vec::with_capacity(message.len());
    // The client takes more than two seconds for the message, and never pauses for long.
    while received.len() < message.len() {
        let line = client.octets_of_line();
        received.extend_from_slice(&line);
        received.extend_from_slice(b"\r\n");
        if received.len() % (1 << 19) < line.len() + 2 {
            thread::sleep(Duration::from_millis(150)); // This is the pace of the slow client, not a wait for the server.
        }
    }
    client.expect(".");
    assert!(received == message);
}

/// RFC 2449 section 6.6: a client may send all its commands at once. It may also shut down its side of the connection.
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

#[test]
fn listings_larger_than_any_buffer_leave_out_marked_messages() {
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

/// RFC 1939 section 6: messages are removed only after QUIT.
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

#[test]
fn a_client_that_reads_nothing_does_not_keep_the_server_from_ending() {
    let mut server = Server::start();
    server.maildrop().put("1", b"line\r\n".repeat(4 << 20));
    let mut client = server.session();
    client.send("RETR 1");
    client.ok();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.stderr());
    assert!(!client.rest().ends_with(b"\r\n.\r\n"), "the message that was cut off has a terminator");
}

#[test]
fn messages_left_by_a_server_killed_during_update_are_whole() {
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
    eventually("the first message is removed", || maildrop.messages().len() <= COUNT);
    server.signal(Signal::KILL);
    server.wait();

    let left = maildrop.messages();
    assert!(left.contains(&format!("{}.eml", COUNT + 1)), "an unmarked message was removed");
    for name in &left {
        let number = name.strip_suffix(".eml").unwrap();
        assert_eq!(std::fs::read_to_string(maildrop.path(name)).unwrap(), format!("Subject: {number}\r\n\r\n"));
    }
    let server = Server::builder().mail(&mail).start();
    assert!(server.session().call("STAT").starts_with(&format!("{} ", left.len())));
}

/// The connection ends without the terminator, so that the client does not take the message for whole.
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
        assert!(received.len() < line.len() << 20, "the whole message was sent");
        assert!(!received.ends_with(b"\r\n.\r\n"), "the message that was cut off has a terminator");
        server.expect_log("ERROR", "message 1 was cut off: the file has become shorter meanwhile");
        assert!(server.session().call("STAT").starts_with("2 "));
    }
}

#[test]
fn a_message_that_grows_while_it_is_sent_is_sent_as_it_was_at_login() {
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

/// A client closes its connection after any octet of a dialogue. The server releases the lock and removes no message.
#[test]
fn closing_the_connection_removes_nothing_at_any_octet_of_a_dialogue() {
    let server = Server::start();
    server.maildrop().put("1", "one\r\n");
    let dialogue = format!("USER {USER}\r\nPASS {PASSWORD}\r\nSTAT\r\nRETR 1\r\nDELE 1\r\nQUIT");
    for length in 0..=dialogue.len() {
        let mut client = Client::connect(server.pop3_address());
        client.write(&dialogue.as_bytes()[..length]);
        // Every second client reads the answers before it closes the connection.
        if length % 2 == 0 {
            client.finish_writing();
            client.rest();
        }
    }
    let mut admin = server.admin();
    let connections = (dialogue.len() + 1).to_string();
    eventually("all sessions have ended", || admin.value("hc?") == connections && admin.value("cc?") == "0");
    assert!(admin.values("cu?").is_empty());
    assert_eq!(server.session().call("STAT"), "1 5");
}

/// The server ignores commands after QUIT, and the client still gets the answer to QUIT.
#[test]
fn commands_after_quit_are_ignored() {
    let server = Server::start();
    server.maildrop().put("1", "one\r\n");
    let mut client = server.session();
    client.write(format!("QUIT\r\nDELE 1\r\nQUIT\r\n{}", "NOOP\r\n".repeat(5000)));
    client.ok();
    client.closed();
    assert_eq!(server.maildrop().messages(), ["1"]);
}

/// The answer and the FIN are in one packet, so a client that has read the answer need not wait for the end.
#[test]
fn the_answer_to_quit_comes_with_the_end_of_the_connection() {
    let server = Server::start();
    for _ in 0..100 {
        let mut client = TcpStream::connect(server.pop3_address()).unwrap();
        client.write_all(b"QUIT\r\n").unwrap();
        let (mut answers, mut part) = (Vec::new(), [0; 4096]);
        while !answers.ends_with(b"bye\r\n") {
            let length = client.read(&mut part).unwrap();
            assert!(length > 0, "no answer to QUIT");
            answers.extend(&part[..length]);
        }
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut part).unwrap(), 0);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Other protocols

/// A web page can make a browser connect here, and a misconfigured client may begin with TLS. The server answers once
/// and closes the connection: nothing that follows is taken for a command, and the slot is free at once.
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
                let _ = client.try_write(piece); // This fails if the server has closed the connection.
            }
            assert!(client.err().contains(protocol), "{begin:?}");
            // The connection ends by a reset if the server closed it before it had read everything.
            assert!(!matches!(client.try_line(), Ok(Some(_))), "more than one answer to {begin:?}");
        }
    }
    // The server does not wait for a line end if the octets begin a handshake.
    let mut client = server.pop3();
    client.write(handshake);
    client.err();
    client.closed();
    server.expect_log("INFO", "end: client speaks TLS");
    server.expect_log("INFO", "end: client speaks HTTP");
    assert_eq!(server.session().call("STAT"), "1 5");

    // After login such a line is refused like any unknown command.
    let mut session = server.session();
    session.refused("GET / HTTP/1.1");
    session.write("\x16\x03\r\n");
    session.err();
    session.quit();
}
