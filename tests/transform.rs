//! Transforms, which are programs that every message passes through: their output, their environment, and each way in
//! which they can fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Client, PASSWORD, Server, USER, eventually, reset, throughout};

/// Starts a server with one small message and the transform `program`.
fn server(program: &str) -> Server {
    server_with(program, &[])
}

fn server_with(program: &str, flags: &[&str]) -> Server {
    let server = Server::builder().flags(["-t", program]).flags(flags.iter().copied()).start();
    server.maildrop().put("1", "Subject: one\n\nbody\n");
    server
}

/// A directory where a transform writes the numbers of its processes for the test.
struct Notes(TempDir);

impl Notes {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("note")
    }

    /// Starts a server with one small message and a transform that may write to the directory.
    fn server(&self, program: &str, flags: &[&str]) -> Server {
        server_with(program, &[&["--allow-dir", self.0.path().to_str().unwrap()], flags].concat())
    }

    fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.file()).unwrap_or_default();
        text.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    /// Waits until the transform has noted `count` processes, and returns them.
    #[track_caller]
    fn expect(&self, count: usize) -> Vec<u32> {
        eventually("the program has noted its processes", || self.processes().len() == count);
        self.processes()
    }
}

/// Returns true if the process runs. A zombie does not run.
fn is_running(process: u32) -> bool {
    stat(process).is_some_and(|fields| fields[0] != "Z")
}

/// The fields of /proc/PID/stat after the program's name; the first is the state of the process.
fn stat(process: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// The server's child processes, including zombies.
fn children(server: &Server) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let parent = server.pid().to_string();
    processes.filter(|&process| stat(process).is_some_and(|fields| fields[1] == parent)).collect()
}

#[track_caller]
fn all_end(processes: &[u32]) {
    eventually("the program's processes have ended", || !processes.iter().copied().any(is_running));
}

#[track_caller]
fn no_children(server: &Server) {
    eventually("the server has no children", || children(server).is_empty());
}

/// A size in KiB from the server's /proc/PID/status.
fn memory(server: &Server, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Reads the rest of a message. Checks that the server closes the connection without the message's terminator.
#[track_caller]
fn expect_cut_off(client: &mut Client) -> Vec<u8> {
    let rest = client.rest();
    assert!(!rest.ends_with(b"\r\n.\r\n") && rest != b".\r\n", "{}", rest.escape_ascii());
    rest
}

/// Checks that the server refuses a command for now, that the session goes on, and that no message counts as retrieved.
#[track_caller]
fn expect_refusal(server: &Server, client: &mut Client, command: &str) {
    let text = client.refused(command);
    assert!(text.starts_with("[SYS/TEMP]"), "{text}");
    assert_eq!(client.call("STAT").split(' ').next(), Some("1"));
    assert_eq!(server.admin().value("re?"), "0");
    no_children(server);
}

// ---------------------------------------------------------------------------------------------------------------------
// Output

#[test]
fn every_message_goes_through_the_program() {
    let server = server("tr a-z A-Z");
    server.maildrop().put("2", "Subject: two\n\nzwei\n");
    let mut client = server.session();
    for _ in 0..2 {
        assert_eq!(client.fetch("RETR 1"), b"SUBJECT: ONE\r\n\r\nBODY\r\n");
        assert_eq!(client.fetch("TOP 2 0"), b"SUBJECT: TWO\r\n\r\n");
        assert_eq!(client.fetch("RETR 2"), b"SUBJECT: TWO\r\n\r\nZWEI\r\n");
    }
    assert_eq!(server.admin().value("re?"), "4");
    no_children(&server);
}

#[test]
fn stat_and_list_report_the_sizes_of_the_stored_messages() {
    let server = server("sed p");
    let mut client = server.session();
    assert_eq!(client.call("STAT"), "1 22");
    assert_eq!(client.fetch("RETR 1").len(), 44);
    assert_eq!((client.call("STAT"), client.call("LIST 1")), ("1 22".to_owned(), "1 22".to_owned()));
}

#[test]
fn output_is_sent_in_wire_form() {
    for (output, wire) in [
        (".", "..\r\n"),
        (r".\n..x\r\n\n.", "..\r\n...x\r\n\r\n..\r\n"),
        (r"bare\ncrlf\r\nlone\rcr\r", "bare\r\ncrlf\r\nlone\rcr\r\r\n"),
        (r"no end", "no end\r\n"),
        (r"\n", "\r\n"),
    ] {
        let server = server(&format!("printf '{output}'"));
        let mut client = server.session();
        client.call("RETR 1");
        client.send("QUIT");
        let rest = String::from_utf8(client.rest()).unwrap();
        assert_eq!(rest.strip_prefix(wire).map(|rest| &rest[..6]), Some(".\r\n+OK"), "{output}: {rest:?}");
    }
}

/// The transform writes one octet at a time, so that reads of the server may split every line end and every dot.
#[test]
fn output_in_single_octets_is_sent_like_output_in_blocks() {
    let message = "A: b\r\n.c: d\n\n.\n..\r\n.\r.\r\n\r\r\n.\n\n.end\r\n.";
    let at_once = server("cat");
    let in_octets = server("dd bs=1 status=none");
    let fetch = |server: &Server, command| {
        server.maildrop().put("1", message);
        server.session().fetch(command)
    };
    for command in ["RETR 1", "TOP 1 0", "TOP 1 1", "TOP 1 3", "TOP 1 99"] {
        assert_eq!(fetch(&in_octets, command), fetch(&at_once, command), "{command}");
    }
}

#[test]
fn empty_output_is_an_empty_message() {
    let server = server("true");
    let mut client = server.session();
    assert_eq!(client.fetch("RETR 1"), b"");
    assert_eq!(client.fetch("TOP 1 5"), b"");
    client.quit();
    assert_eq!(server.admin().value("re?"), "1");
}

#[test]
fn octets_of_all_values_pass_unchanged() {
    let server = server("cat");
    let all: Vec<u8> = (0..=255).filter(|octet| !b"\r\n.".contains(octet)).collect();
    server.maildrop().put("1", [&all[..], b"\r\n"].concat());
    assert_eq!(server.session().fetch("RETR 1"), [&all[..], b"\r\n"].concat());
}

#[test]
fn output_is_sent_before_the_transform_ends() {
    let notes = Notes::new();
    let server = server(&format!(
        "sh -c 'printf first; until [ -e \"$0\" ]; do sleep 0.01; done; echo; echo last' '{}'",
        notes.file().display()
    ));
    let mut client = server.session();
    client.call("RETR 1");
    let mut first = Vec::new();
    while first.len() < 5 {
        let mut octet = [0];
        assert_eq!(client.read(&mut octet), 1);
        first.extend(octet);
    }
    assert_eq!(first, b"first");
    fs::write(notes.file(), "").unwrap();
    assert_eq!(client.multiline(), b"\r\nlast\r\n");
}

#[test]
fn answers_to_earlier_commands_do_not_wait_for_the_transform() {
    let notes = Notes::new();
    let server =
        server(&format!("sh -c 'until [ -e \"$0\" ]; do sleep 0.01; done; echo done' '{}'", notes.file().display()));
    let mut client = server.session();
    client.send_all(["NOOP", "STAT", "RETR 1", "NOOP"]);
    client.ok();
    client.ok();
    fs::write(notes.file(), "").unwrap();
    client.ok();
    assert_eq!(client.multiline(), b"done\r\n");
    client.ok();
}

/// The transform writes 60 MB, and the server's memory grows by a small part of that.
#[test]
fn a_large_output_is_not_kept_in_memory() {
    const LINES: u64 = 1_000_000;
    let server = server(&format!("sh -c 'yes .{} | head -n {LINES}'", "x".repeat(58)));
    let mut client = server.session();
    let before = memory(&server, "VmHWM");
    client.call("RETR 1");
    client.send("QUIT");
    let mut received = 0;
    let mut piece = vec![0; 1 << 20];
    let mut last = Vec::new();
    loop {
        match client.read(&mut piece) {
            0 => break,
            length => {
                received += length as u64;
                last.extend_from_slice(&piece[length.saturating_sub(64)..length]);
                last.drain(..last.len().saturating_sub(64));
            }
        }
    }
    let grown = memory(&server, "VmHWM") - before;
    // Each line has a dot and a CR more than the transform's. After the lines come the terminator and the answer to
    // QUIT.
    assert_eq!(received, LINES * 62 + ".\r\n+OK bye\r\n".len() as u64);
    assert!(last.ends_with(b"x\r\n.\r\n+OK bye\r\n"), "{}", last.escape_ascii());
    assert!(grown < 8 * 1024, "{grown} KiB more");
}

#[test]
fn top_ends_the_transform_when_it_has_enough_lines() {
    for (command, top) in [("TOP 1 0", "A: b\r\n\r\n"), ("TOP 1 2", "A: b\r\n\r\n1\r\n..2\r\n")] {
        let notes = Notes::new();
        let program = format!(
            "sh -c 'sleep 1000 & echo $$ $! >\"$0\"; printf \"A: b\\n\\n1\\n.2\\n3\\n\"; wait' '{}'",
            notes.file().display()
        );
        let server = notes.server(&program, &[]);
        let mut client = server.session();
        client.send_all([command, "STAT"]);
        client.ok();
        for line in top.lines().chain(["."]) {
            client.expect(line);
        }
        client.ok();
        all_end(&notes.expect(2));
        no_children(&server);
    }
}

#[test]
fn forty_clients_have_their_own_transforms_at_once() {
    const CLIENTS: usize = 40;
    let mut builder = Server::builder().flags(["-t", "tr a-z A-Z"]);
    for number in 0..CLIENTS {
        builder = builder.user(&format!("user{number}"), "x");
    }
    let server = builder.start();
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let user = format!("user{number}");
            server.mail().maildrop(&user).put("1", format!("from {user}\n").repeat(2000));
            let mut client = server.pop3();
            client.login(&user, "x");
            client
        })
        .collect();
    clients.iter_mut().for_each(|client| client.send("RETR 1"));
    for (number, client) in clients.iter_mut().enumerate() {
        client.ok();
        let expected = format!("FROM USER{number}\r\n").repeat(2000);
        assert_eq!(String::from_utf8(client.multiline()).unwrap(), expected);
    }
    no_children(&server);
}

// ---------------------------------------------------------------------------------------------------------------------
// Arguments and environment

#[test]
fn the_command_line_is_split_by_the_shells_rules() {
    let server = server(r#"printf '%s|' 'a b' c\ d "e f" g"h 'i"'j' '' '$HOME' * \* "\"" ~"#);
    let output = server.session().fetch("RETR 1");
    assert_eq!(String::from_utf8(output).unwrap(), "a b|c d|e f|gh 'ij||$HOME|*|*|\"|~|\r\n");
}

#[test]
fn the_transform_is_started_without_a_shell() {
    let server = server("echo $HOME `id` $(id) ; exit 1 | cat > x & y");
    assert_eq!(server.session().fetch("RETR 1"), b"$HOME `id` $(id) ; exit 1 | cat > x & y\r\n");
}

#[test]
fn the_environment_has_only_the_documented_variables() {
    let server = server("env");
    server.maildrop().put("2", "two");
    let mut client = server.session();
    let unique_id = client.call("UIDL 2").split_once(' ').unwrap().1.to_owned();
    let output = String::from_utf8(client.fetch("RETR 2")).unwrap();
    let mut expected = vec![format!("POP3_USER={USER}"), format!("POP3_UIDL={unique_id}"), "POP3_MESSAGE=2".to_owned()];
    for name in ["PATH", "LANG"] {
        expected.extend(std::env::var(name).map(|value| format!("{name}={value}")));
    }
    expected.sort();
    let mut lines: Vec<_> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn stdin_is_the_messages_file() {
    let server = server("readlink /proc/self/fd/0");
    let path = fs::canonicalize(server.maildrop().path("1")).unwrap();
    assert_eq!(server.session().fetch("RETR 1"), format!("{}\r\n", path.display()).as_bytes());
}

/// The transform inherits neither sockets nor other messages. `ls` finds the same descriptors as without the server.
#[test]
fn the_transform_inherits_no_other_descriptors() {
    let log = TempDir::new().unwrap();
    let server = server_with("ls /proc/self/fd", &["--log-file", log.path().join("log").to_str().unwrap()]);
    let _others = [server.pop3(), server.pop3(), server.admin()];
    let ours = Command::new("ls").arg("/proc/self/fd").stdin(Stdio::null()).output().unwrap().stdout;
    let expected = String::from_utf8(ours).unwrap().replace('\n', "\r\n");
    let mut client = server.session();
    for _ in 0..2 {
        assert_eq!(String::from_utf8(client.fetch("RETR 1")).unwrap(), expected);
    }
}

#[test]
fn the_transform_leads_its_own_process_group() {
    let server = server("cut -d ' ' -f 1,5 /proc/self/stat");
    let output = String::from_utf8(server.session().fetch("RETR 1")).unwrap();
    let (process, group) = output.trim_end().split_once(' ').unwrap();
    assert_eq!(process, group);
}

/// The server ignores SIGPIPE because it checks the results of its writes. Other programs expect that SIGPIPE ends
/// them.
#[test]
fn the_transform_does_not_ignore_sigpipe() {
    const SIGPIPE: u64 = 1 << (13 - 1);
    let server = server("sed -n s/^SigIgn:.//p /proc/self/status");
    let output = String::from_utf8(server.session().fetch("RETR 1")).unwrap();
    assert_eq!(u64::from_str_radix(output.trim_end(), 16).unwrap() & SIGPIPE, 0, "{output}");
}

#[test]
fn the_transform_need_not_read_its_stdin() {
    let server = server("echo hello");
    server.maildrop().put("1", "x".repeat(3 << 20));
    let mut client = server.session();
    for _ in 0..3 {
        assert_eq!(client.fetch("RETR 1"), b"hello\r\n");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Failures

#[test]
fn retr_is_refused_if_the_transform_does_not_exist() {
    let server = server("/dev/null/program");
    let mut client = server.session();
    expect_refusal(&server, &mut client, "RETR 1");
    expect_refusal(&server, &mut client, "TOP 1 0");
}

#[test]
fn retr_is_refused_if_the_transform_is_not_executable() {
    let server = server("/etc/passwd");
    expect_refusal(&server, &mut server.session(), "RETR 1");
}

#[test]
fn retr_is_refused_if_the_transform_fails_before_its_first_octet() {
    for program in ["false", "sh -c 'cat >/dev/null; exit 3'", "sh -c 'kill -9 $$'", "sh -c 'kill $$'"] {
        let server = server(program);
        let mut client = server.session();
        expect_refusal(&server, &mut client, "RETR 1");
        expect_refusal(&server, &mut client, "TOP 1 0");
    }
}

#[test]
fn the_message_is_cut_off_if_the_transform_fails_after_some_octets() {
    for program in [
        "sh -c 'echo some; exit 1'",
        "sh -c 'echo some; kill -9 $$'",
        "sh -c 'yes some | head -c 1000000; exit 1'",
        "sh -c 'printf some; exit 1'",
        "sh -c 'printf \"some\\n.\\n\"; exit 1'",
    ] {
        let server = server(program);
        let mut client = server.session();
        client.call("DELE 1");
        client.call("RSET");
        client.call("RETR 1");
        assert!(expect_cut_off(&mut client).starts_with(b"some"), "{program}");
        server.expect_log("ERROR", "message 1 was cut off: transform: ");
        assert_eq!(server.admin().value("re?"), "0", "{program}");
        no_children(&server);
        server.session().quit();
    }
}

/// The session ends without QUIT being read, so nothing is removed (RFC 1939 section 6).
#[test]
fn nothing_is_removed_when_the_transform_fails_in_the_middle() {
    let server = server("sh -c 'echo some; exit 1'");
    server.maildrop().put("2", "two\n");
    let mut client = server.session();
    client.send_all(["DELE 1", "RETR 2", "QUIT"]);
    expect_cut_off(&mut client);
    assert_eq!(server.maildrop().messages(), ["1", "2"]);
}

#[test]
fn a_transform_without_output_is_ended_after_the_timeout() {
    for program in ["sleep 1000", "sh -c 'sleep 1000 & wait'", "sh -c 'exec >&-; sleep 1000'"] {
        let server = server_with(program, &["--transform-timeout", "1"]);
        expect_refusal(&server, &mut server.session(), "RETR 1");
    }
}

#[test]
fn a_transform_that_stops_its_output_is_ended_after_the_timeout() {
    let notes = Notes::new();
    let program = format!("sh -c 'sleep 1000 & echo $$ $! >\"$0\"; echo some; wait' '{}'", notes.file().display());
    let server = notes.server(&program, &["--transform-timeout", "1"]);
    let mut client = server.session();
    client.call("RETR 1");
    assert_eq!(expect_cut_off(&mut client), b"some\r\n");
    all_end(&notes.expect(2));
    no_children(&server);
}

/// The transform takes three seconds in all, but is never without output for as long as the timeout.
#[test]
fn the_timeout_counts_only_the_time_without_output() {
    let server =
        server_with("sh -c 'for i in 1 2 3 4 5 6; do sleep 0.5; echo $i; done'", &["--transform-timeout", "2"]);
    assert_eq!(server.session().fetch("RETR 1"), b"1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n");
}

/// The transform moves to another process group, so that a signal to its own group does not reach it.
#[test]
fn a_transform_that_leaves_its_process_group_is_ended() {
    let program = "python3 -c 'import os, time; os.setpgid(0, os.getpgid(os.getppid())); time.sleep(20)'";
    let server = server_with(program, &["--transform-timeout", "1"]);
    expect_refusal(&server, &mut server.session(), "RETR 1");
}

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Close,
    Reset,
}

/// A client sends `commands` and leaves while the transform runs. Checks that all processes of the transform end, and
/// that the slot and the maildrop are released.
fn client_leaves(program: &str, commands: &str, leave: Leave) {
    let notes = Notes::new();
    let program = format!("sh -c '{program}' '{}'", notes.file().display());
    let server = notes.server(&program, &["--transform-timeout", "0"]);
    let mut client = server.session();
    client.write(commands);
    let processes = notes.expect(2);
    match leave {
        Leave::Close => drop(client),
        Leave::Reset => reset(client),
    }
    all_end(&processes);
    no_children(&server);
    let mut admin = server.admin();
    eventually("the slot is released", || admin.value("cc?") == "0");
    server.session().quit();
}

const SILENT: &str = "sleep 1000 & echo $$ $! >\"$0\"; wait";
const SILENT_AFTER_SOME: &str = "sleep 1000 & echo some; echo $$ $! >\"$0\"; wait";
const SILENT_WITHOUT_STDOUT: &str = "exec >&-; sleep 1000 & echo $$ $! >\"$0\"; wait";
const NEVER_SILENT: &str = "yes & echo $$ $! >\"$0\"; wait";

#[test]
fn the_transform_is_ended_when_the_client_closes_the_connection() {
    client_leaves(SILENT, "RETR 1\r\n", Leave::Close);
    client_leaves(SILENT_AFTER_SOME, "RETR 1\r\n", Leave::Close);
    client_leaves(NEVER_SILENT, "RETR 1\r\n", Leave::Close);
    client_leaves(SILENT, "TOP 1 0\r\n", Leave::Close);
}

#[test]
fn the_transform_is_ended_when_the_client_resets_the_connection() {
    client_leaves(SILENT, "RETR 1\r\n", Leave::Reset);
    client_leaves(SILENT_AFTER_SOME, "RETR 1\r\n", Leave::Reset);
    client_leaves(NEVER_SILENT, "RETR 1\r\n", Leave::Reset);
}

/// The end of the input does not end a transform while commands are left, because the client may have closed only its
/// side of the connection. A reset does.
#[test]
fn the_transform_is_ended_when_a_pipelining_client_resets_the_connection() {
    client_leaves(SILENT, "RETR 1\r\nNOOP\r\nQUIT\r\n", Leave::Reset);
    client_leaves(SILENT_AFTER_SOME, "RETR 1\r\nNOOP\r\n", Leave::Reset);
}

#[test]
fn a_transform_that_has_closed_its_stdout_is_ended_when_the_client_leaves() {
    client_leaves(SILENT_WITHOUT_STDOUT, "RETR 1\r\n", Leave::Close);
    client_leaves(SILENT_WITHOUT_STDOUT, "RETR 1\r\n", Leave::Reset);
}

/// `printf 'USER …' | nc` sends all its commands, shuts down its side of the connection and reads the answers.
#[test]
fn a_client_that_has_shut_down_its_side_gets_all_answers() {
    let server = server("sh -c 'sleep 0.2; cat'");
    let mut client = Client::connect(server.pop3_address());
    client.write(format!("USER {USER}\r\nPASS {PASSWORD}\r\nRETR 1\r\nRETR 1\r\nQUIT\r\n"));
    client.finish_writing();
    for _ in 0..3 {
        client.ok();
    }
    for _ in 0..2 {
        client.ok();
        assert_eq!(client.multiline(), b"Subject: one\r\n\r\nbody\r\n");
    }
    client.ok();
    client.closed();
}

/// The transform waits for the slow client as any writer to a pipe does. This time does not count as time without
/// output.
#[test]
fn a_transform_is_not_ended_while_it_waits_for_a_slow_client() {
    let server = server_with("sh -c 'yes | head -n 5000000'", &["--transform-timeout", "1"]);
    let mut client = server.session();
    client.send_all(["RETR 1", "QUIT"]);
    client.ok();
    // All buffers are full for longer than the transform may be without output.
    throughout(Duration::from_millis(1500), || assert!(!children(&server).is_empty(), "the transform was ended"));
    let mut octets = 0;
    let mut piece = vec![0; 1 << 20];
    while let length @ 1.. = client.read(&mut piece) {
        octets += length;
    }
    assert_eq!(octets, 5_000_000 * "y\r\n".len() + ".\r\n+OK bye\r\n".len());
    no_children(&server);
}

/// The server keeps the output in no temporary file.
#[test]
fn no_file_is_left_beside_the_mail() {
    let server = server("sh -c 'yes | head -c 3000000'");
    let mut client = server.session();
    client.fetch("RETR 1");
    client.quit();
    let visible = |path: &Path| -> Vec<String> {
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect()
    };
    assert_eq!(visible(server.mail().path()), [USER]);
    assert_eq!(visible(&server.mail().path().join(USER)), ["1"]);
}
