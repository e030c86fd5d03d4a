//! The client programs against hostile servers, which try to take a client's memory or time, or to control its
//! terminal.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::harness::PATIENCE;
use crate::peepclient::{Ended, run};
use crate::tls_peer::{Identity, secured};

/// The limit of a program's address space, in KiB. The programs need a third of it.
const ADDRESS_SPACE: u32 = 150_000;

/// A program that is killed after a minute and whose memory is limited to [`ADDRESS_SPACE`].
fn bounded(program: &str) -> Command {
    let mut command = Command::new("timeout");
    let limits = format!("ulimit -v {ADDRESS_SPACE} && exec \"$@\"");
    command.args(["-s", "KILL", "60", "bash", "-c", &limits, "bounded", program]);
    // Otherwise glibc would reserve 64 MiB of address space for each thread.
    command.env("MALLOC_ARENA_MAX", "1").env_remove("PEEP_PASSWORD");
    command
}

fn peepclient(port: u16, arguments: &[&str]) -> Command {
    let mut command = bounded(env!("CARGO_BIN_EXE_peepclient"));
    command.args(["-address=127.0.0.1", &format!("-port={port}")]).args(arguments);
    command
}

/// Starts a server for one connection in a thread and returns its port. The thread ends when the client leaves.
fn server(serve: impl FnOnce(TcpStream) -> io::Result<()> + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        let (socket, _) = listener.accept()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        serve(socket)
    });
    port
}

/// Reads the login of a PEEP client, accepts it, and reads the client's first command, which the caller answers.
fn after_login(socket: TcpStream) -> io::Result<BufReader<TcpStream>> {
    let mut lines = BufReader::new(socket);
    lines.read_line(&mut String::new())?;
    lines.get_mut().write_all(b"+\r\n")?;
    lines.read_line(&mut String::new())?;
    Ok(lines)
}

/// Starts a POP3 server and returns its port. It answers each line with the result of `answer`, which gets the line and
/// the number of lines before it. After an answer without a line end or of several lines, it sends `more` again and
/// again.
fn pop3_server(answer: impl Fn(&str, usize) -> String + Send + 'static, more: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        let mut heard = 0;
        for socket in listener.incoming().flatten() {
            let _ = pop3_session(socket, &answer, more, &mut heard); // The error is that the client has left.
        }
    });
    port
}

fn pop3_session(
    socket: TcpStream,
    answer: impl Fn(&str, usize) -> String,
    more: &[u8],
    heard: &mut usize,
) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(socket);
    lines.get_mut().write_all(b"+OK\r\n")?;
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let text = answer(line.trim_end(), *heard);
        *heard += 1;
        lines.get_mut().write_all(text.as_bytes())?;
        if !more.is_empty() && text.matches("\r\n").count() != 1 {
            repeat(lines.get_mut(), &more.repeat(1000), Duration::ZERO)?;
        }
        line.clear();
    }
    Ok(())
}

fn popbench(port: u16, arguments: &str) -> Ended {
    let mut command = bounded(env!("CARGO_BIN_EXE_popbench"));
    command.args(arguments.split(' ')).args(["--threads=1", "--quiet", &format!("--address=127.0.0.1:{port}")]);
    run(&mut command, "")
}

/// Starts a PEEP server and returns its port. It accepts the login, reads a command, answers it with `first`, and then
/// sends `more` again and again.
fn peep_server(first: &'static [u8], more: &'static [u8], pause: Duration) -> u16 {
    server(move |socket| {
        let mut lines = after_login(socket)?;
        lines.get_mut().write_all(first)?;
        repeat(lines.get_mut(), more, pause)
    })
}

/// Sends octets again and again until the client leaves. `pause` is the pace of a slow server, not a wait for the
/// client.
fn repeat(to: &mut impl Write, octets: &[u8], pause: Duration) -> io::Result<()> {
    loop {
        to.write_all(octets)?;
        thread::sleep(pause);
    }
}

/// The pause of a slow server between octets: short enough that no single read times out, and too long for a whole
/// answer to arrive in time.
const DRIP: Duration = Duration::from_millis(50);

/// Checks that the client has given up for this reason.
#[track_caller]
fn expect_given_up(ended: &Ended, reason: &str) {
    assert_eq!(ended.code, Some(3), "{reason}: {}", ended.stderr);
    assert!(ended.stderr.ends_with(&format!(": {reason}\n")), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn peepclient_gives_up_on_a_line_without_end() {
    let too_long = "the server's answer has a line of more than 4096 octets";
    for first in [&b"+"[..], b"-", b"", b"+2\r\n", b"+2\r\none\r\n"] {
        let port = peep_server(first, &[b'1'; 64 * 1024], Duration::ZERO);
        expect_given_up(&run(&mut peepclient(port, &["users"]), ""), too_long);
        let port = peep_server(first, &[b'1'; 64 * 1024], Duration::ZERO);
        expect_given_up(&run(&mut peepclient(port, &[]), "users\n"), too_long);
    }
}

#[test]
fn peepclient_refuses_an_impossible_number_of_lines() {
    let port = peep_server(b"+99999999999\r\n", b"name\r\n", Duration::ZERO);
    let reason = "the server's answer announces 99999999999 lines, which is more than 10000000";
    expect_given_up(&run(&mut peepclient(port, &["users"]), ""), reason);
}

#[test]
fn peepclient_prints_a_long_listing_as_it_arrives() {
    // The listing has 200 MB, which is more than the client's memory.
    const LINE: &[u8] = &[b'u'; 400];
    const COUNT: usize = 500_000;
    let port = server(|socket| {
        let mut lines = after_login(socket)?;
        let piece = [LINE, b"\r\n"].concat().repeat(1000);
        write!(lines.get_mut(), "+{COUNT}\r\n")?;
        (0..COUNT / 1000).try_for_each(|_| lines.get_mut().write_all(&piece))
    });
    let mut child = peepclient(port, &["users"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a client");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let (mut count, mut line) = (0, Vec::new());
    while lines.read_until(b'\n', &mut line).expect("its output") > 0 {
        assert_eq!(line.strip_suffix(b"\n"), Some(LINE));
        line.clear();
        count += 1;
    }
    assert_eq!((count, child.wait().expect("it ends").code()), (COUNT, Some(0)));
}

#[test]
fn peepclient_prints_the_lines_that_arrive_before_a_timeout() {
    let port = peep_server(b"+3\r\none\r\n", b"x", DRIP);
    let ended = run(&mut peepclient(port, &["-timeout=1", "users"]), "");
    assert_eq!(ended.stdout, "one\n");
    expect_given_up(&ended, "the server's answer takes longer than --timeout allows");
}

#[test]
fn peepclient_gives_up_on_an_answer_that_arrives_too_slowly() {
    let too_slow = "the server's answer takes longer than --timeout allows";
    for (first, more) in [(&b"+"[..], &b"1"[..]), (b"+1000\r\n", b"u\r\n")] {
        let port = peep_server(first, more, DRIP);
        expect_given_up(&run(&mut peepclient(port, &["-timeout=1", "users"]), ""), too_slow);
    }
    let login = server(|mut socket| repeat(&mut socket, b"1", DRIP));
    expect_given_up(&run(&mut peepclient(login, &["-timeout=1", "users"]), ""), too_slow);
    // These octets are the beginning of a record of 16 KiB.
    let handshake = server(|mut socket| {
        socket.write_all(&[22, 3, 3, 64, 0])?;
        repeat(&mut socket, &[0], DRIP)
    });
    let ended = run(&mut peepclient(handshake, &["-tls", "-insecure", "-timeout=1", "users"]), "");
    expect_given_up(&ended, "the server does not complete the TLS handshake");
    let identity = Identity::new();
    let config = identity.config();
    let by_tls = server(move |socket| {
        let mut stream = secured(socket, config);
        stream.read_exact(&mut [0])?;
        repeat(&mut stream, b"1", DRIP)
    });
    expect_given_up(&run(&mut peepclient(by_tls, &["-tls", "-insecure", "-timeout=1", "users"]), ""), too_slow);
}

/// Characters that a program must not print. The first two begin commands of a terminal, and the others hide or reorder
/// text.
const UNSAFE: &str = "\u{1b}[2J\u{9b}1A\u{202e}\u{2066}\u{200e}\u{200f}\u{61c}\u{200b}\u{feff}\u{2028}\u{2029}\u{ad}";
const ESCAPED: &str = "\\u{1b}[2J\\u{9b}1A\\u{202e}\\u{2066}\\u{200e}\\u{200f}\\u{61c}\\u{200b}\\u{feff}\\u{2028}\
                       \\u{2029}\\u{ad}";

#[test]
fn peepclient_escapes_control_characters_of_a_server() {
    let answer = |answer: String| {
        server(move |socket| {
            let mut lines = BufReader::new(socket);
            lines.read_line(&mut String::new())?;
            lines.get_mut().write_all(b"+\r\n")?;
            lines.read_line(&mut String::new())?;
            lines.get_mut().write_all(answer.as_bytes())
        })
    };
    let (value, listing) = (format!("+a{UNSAFE}b\r\n"), format!("+1\r\na{UNSAFE}b\r\n"));
    let shown = format!("a{ESCAPED}b\n");
    for (text, command, labelled, bare) in [
        (&value, "maildir", format!("OK! {shown}"), &shown),
        (&listing, "users", format!("OK! lines: 1\n{shown}"), &shown),
    ] {
        assert_eq!(run(&mut peepclient(answer(text.clone()), &[command]), "").stdout, *bare);
        let ended = run(&mut peepclient(answer(text.clone()), &[]), command);
        assert!(ended.stdout.ends_with(&labelled), "{}", ended.stdout);
    }
    let nonsense = run(&mut peepclient(answer(format!("{UNSAFE}\r\n")), &["maildir"]), "");
    expect_given_up(&nonsense, &format!("the server's answer is not PEEP: \"{ESCAPED}\""));
}

#[test]
fn popbench_refuses_an_impossible_number_of_messages() {
    let answer = |line: &str, _| match line {
        "STAT" => "+OK 4000000000 4000000000\r\n".to_owned(),
        "LIST" => "+OK\r\n1 1\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    };
    let port = pop3_server(answer, b"1 1\r\n");
    for workload in ["sessions -c 1 -n 1", "maildrop"] {
        let ended = popbench(port, workload);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let why = "1 × protocol violation; the first: STAT told of 4000000000 messages, which is more than 10000000\n";
        assert!(ended.stdout.ends_with(why), "{}", ended.stdout);
    }
}

#[test]
fn popbench_does_not_keep_a_listing_in_memory() {
    // A list of these numbers and sizes would be larger than the program's memory.
    const COUNT: usize = 5_000_000;
    let answer = |line: &str, _| match line {
        "STAT" => format!("+OK {COUNT} {COUNT}\r\n"),
        "LIST" => format!("+OK\r\n{}.\r\n", "1 1\r\n".repeat(COUNT)),
        "UIDL" => "-ERR no\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    };
    let ended = popbench(pop3_server(answer, b""), "maildrop");
    assert!(ended.stdout.contains("1 × -ERR to UIDL"), "{}{}", ended.stdout, ended.stderr);
}

#[test]
fn popbench_gives_up_on_a_line_without_end() {
    for endless in ["USER", "PASS", "LIST 1"] {
        let answer = move |line: &str, _| if line.starts_with(endless) { "+OK" } else { "+OK\r\n" }.to_owned();
        let ended = popbench(pop3_server(answer, b"1"), "retr --users user");
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let why = "1 × protocol violation; the first: a line of more than 4096 octets\n";
        assert!(ended.stdout.ends_with(why), "{endless}: {}", ended.stdout);
    }
}

#[test]
fn popbench_escapes_control_characters_of_a_server() {
    for (answer, shown) in [
        (format!("-ERR {UNSAFE}\r\n"), format!("-ERR to USER; the first: USER was answered -ERR {ESCAPED}")),
        (format!("-ERR [{UNSAFE}] x\r\n"), format!("-ERR to USER; the first: USER was answered -ERR [{ESCAPED}] x")),
        (format!("{UNSAFE}\r\n"), format!("protocol violation; the first: USER was answered '{ESCAPED}'")),
    ] {
        let port = pop3_server(move |_, _| answer.clone(), b"");
        let ended = popbench(port, "logins -c 1 -n 1");
        assert!(ended.stdout.ends_with(&format!("    1 × {shown}\n")), "{}", ended.stdout);
        let json = popbench(port, "logins -c 1 -n 1 --json").stdout;
        assert!(!json.contains(|c: char| UNSAFE.contains(c) && !c.is_ascii_graphic()), "{json}");
    }
}

#[test]
fn popbench_counts_errors_of_too_many_kinds_together() {
    let port = pop3_server(|_, heard| format!("-ERR [X-{heard}] no\r\n"), b"");
    let ended = popbench(port, "logins -c 1 -n 300");
    assert!(ended.stdout.contains("    1 × -ERR [X-7]; the first: "), "{}", ended.stdout);
    assert!(ended.stdout.contains("    200 × other errors; the first: "), "{}", ended.stdout);
}

#[test]
fn peepclient_bounds_and_escapes_the_events_of_a_server() {
    let endless = peep_server(b"+\r\n", &[b'1'; 64 * 1024], Duration::ZERO);
    expect_given_up(
        &run(&mut peepclient(endless, &["follow"]), ""),
        "the server's answer has a line of more than 4096 octets",
    );
    let dripping = peep_server(b"+\r\n", b"1", DRIP);
    expect_given_up(
        &run(&mut peepclient(dripping, &["-timeout=1", "follow"]), ""),
        "the server's answer takes longer than --timeout allows",
    );
    let event = format!("now login user=a{UNSAFE}b reason=%1B[2J%E2%80%AE");
    for (flag, shown) in
        [("-timeout=9", format!("user=a{ESCAPED}b ")), ("-json", "\\u001b[2J\\u009b1A\\u202e".to_owned())]
    {
        let event = event.clone();
        let port = server(move |socket| {
            let mut lines = BufReader::new(socket);
            for answer in ["+\r\n".to_owned(), format!("+\r\n{event}\r\n")] {
                lines.read_line(&mut String::new())?;
                lines.get_mut().write_all(answer.as_bytes())?;
            }
            Ok(())
        });
        let ended = run(&mut peepclient(port, &[flag, "follow"]), "");
        expect_given_up(&ended, "the server closed the connection");
        assert!(ended.stdout.contains(&shown), "{}", ended.stdout);
        assert!(
            !ended.stdout.contains(|c: char| c != '\n' && UNSAFE.contains(c) && !c.is_ascii_graphic()),
            "{ended:?}"
        );
    }
}

#[test]
fn peepclient_prints_json_as_it_arrives_and_escapes_it() {
    // In all 200 MB, more than the client may have.
    const COUNT: usize = 500_000;
    let port = server(|socket| {
        let mut lines = after_login(socket)?;
        let line = format!("name{UNSAFE}{} value%1B[2J\r\n", "x".repeat(300));
        write!(lines.get_mut(), "+{COUNT}\r\n")?;
        let piece = line.repeat(1000);
        (0..COUNT / 1000).try_for_each(|_| lines.get_mut().write_all(piece.as_bytes()))
    });
    let mut client = peepclient(port, &["-json", "stats"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap());
    let (mut count, mut line) = (0, String::new());
    while lines.read_line(&mut line).unwrap() > 0 {
        assert!(!line.contains(|c: char| c != '\n' && !c.is_ascii_graphic() && c != ' '), "{line:?}");
        line.clear();
        count += 1;
    }
    assert_eq!((count, client.wait().unwrap().code()), (COUNT, Some(0)));
}

#[test]
fn peepclient_bounds_the_answers_of_several_servers() {
    let port = peep_server(b"+9999999\r\n", b"name\r\n", Duration::ZERO);
    let other = peep_server(b"+9999999\r\n", b"name\r\n", Duration::ZERO);
    let both = format!("-address=127.0.0.1:{port},127.0.0.1:{other}");
    let ended = run(bounded(env!("CARGO_BIN_EXE_peepclient")).args([&both, "users"]), "");
    assert_eq!(
        (ended.code, ended.stderr.matches("which is more than 50000").count()),
        (Some(3), 2),
        "{}",
        ended.stderr
    );
}
