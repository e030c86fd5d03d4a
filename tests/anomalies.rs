//! Failures outside the server: connections that break, octets that arrive one at a time, a server that is killed, and
//! mail that vanishes.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::Instant;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use clap::Parser;
use pop3d::config::Args;
use pop3d::events::{self, Service};
use pop3d::net::Origin;
use pop3d::pop3::{self, Summary};
use pop3d::shared::Shared;
use pop3d::wire::{Link, Tls};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::harness::{Client, MailRoot, Maildrop, PASSWORD, PATIENCE, Server, USER, eventually, reset};

// ---------------------------------------------------------------------------------------------------------------------
// A connection in memory

/// What an operation on a [`Script`] does instead of its work.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Error(ErrorKind),
    /// A read finds the end of the connection, and a write takes no octets.
    Nothing,
    Panic,
}

/// The server's end of a connection in memory. The client sends its lines one by one and keeps what it receives.
struct Script<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
    /// The most octets that one read or write transfers.
    most: usize,
    /// The number of the operation that fails, and how it fails.
    fault: Option<(usize, Fault)>,
    /// The number of operations so far.
    operations: &'a mut usize,
    /// True if nobody on the way can read the connection.
    private: bool,
}

impl Script<'_> {
    /// Counts an operation, and makes it fail if it is the one to fail. Returns true if it has to do nothing.
    fn operation(&mut self) -> io::Result<bool> {
        let this = *self.operations;
        *self.operations += 1;
        match self.fault {
            Some((at, fault)) if at == this => match fault {
                Fault::Error(kind) => Err(kind.into()),
                Fault::Nothing => Ok(true),
                // This does not call the panic hook, which would print a stack trace each time.
                Fault::Panic => panic::resume_unwind(Box::new("the connection panics")),
            },
            _ => Ok(false),
        }
    }
}

impl Read for Script<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.operation()? {
            return Ok(0);
        }
        let line = self.input.iter().position(|&octet| octet == b'\n').map_or(self.input.len(), |at| at + 1);
        let length = line.min(self.most).min(buffer.len());
        let (now, later) = self.input.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.input = later;
        Ok(length)
    }
}

impl Write for Script<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.operation()? {
            return Ok(0);
        }
        let length = octets.len().min(self.most);
        self.output.extend_from_slice(&octets[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for Script<'_> {
    fn expect_command(&mut self, _: Instant, _: Option<Instant>) {}

    fn send_file(&mut self, file: &File, range: Range<u64>) -> io::Result<()> {
        let mut block = [0; 100_000];
        let mut at = range.start;
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap();
            let length = file.read_at(&mut block[..left.min(100_000)], at)?;
            if length == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.write_all(&block[..length])?;
            at += length as u64;
        }
        Ok(())
    }

    fn client_left(&mut self) -> bool {
        false
    }

    fn watch(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn is_private(&self) -> bool {
        self.private
    }

    fn tls(&self) -> Tls {
        Tls::Absent
    }

    fn start_tls(&mut self, _: Instant) -> io::Result<String> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// The state that sessions share, for mail in the directory `root`. The password is stored as a hash. With a plaintext
/// password the greeting would offer APOP by a timestamp, so that each session's output would be different.
fn shared(root: &Path) -> Shared {
    let users = root.join(".users");
    fs::write(&users, format!("{USER}:{{SHA256}}{}", BASE64.encode(Sha256::digest(PASSWORD)))).unwrap();
    let [users, root] = [&users, root].map(|path| path.to_str().unwrap());
    let args = Args::try_parse_from(["pop3d", "--users", users, "-m", root]).unwrap();
    args.resolve().unwrap().into_shared()
}

/// A maildrop of three messages, of which the script removes the first two.
struct Scene {
    mail: MailRoot,
    shared: Shared,
}

/// The result of playing a script.
struct Played {
    /// `None` when the session panicked.
    summary: Option<Summary>,
    output: Vec<u8>,
    operations: usize,
}

const SESSION: &str = "CAPA\r\nUSER mrose\r\nPASS tanstaaf\r\nSTAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\n\
                       TOP 3 2\r\nDELE 3\r\nRSET\r\nDELE 1\r\nRETR 1\r\nDELE 2\r\nNOOP\r\n";

impl Scene {
    fn new() -> Self {
        let mail = MailRoot::new();
        let scene = Self { shared: shared(mail.path()), mail };
        scene.put_messages();
        scene
    }

    /// Puts the messages that are missing: one that needs byte-stuffing, one that is sent as it is stored, and a small
    /// one.
    fn put_messages(&self) {
        let maildrop = self.mail.maildrop(USER);
        // The modification times are always the same, because unique-ids are made of them.
        for (name, text) in [
            ("1", "Subject: one\n\n".to_owned() + &".to be edited\n".repeat(10_000)),
            ("2", "Subject: two\r\n\r\n".to_owned() + &"in wire form\r\n".repeat(10_000)),
            ("3", "Subject: three\r\n\r\none\r\ntwo\r\nthree".to_owned()),
        ] {
            if !maildrop.path(name).exists() {
                maildrop.put(name, text);
                maildrop.set_modified(name, 1_000_000_000);
            }
        }
    }

    fn play(&self, input: &str, most: usize, fault: Option<(usize, Fault)>) -> Played {
        self.put_messages();
        let (mut output, mut operations) = (Vec::new(), 0);
        let admission = self.shared.guard.admit(origin()).unwrap();
        let session = AssertUnwindSafe(|| {
            let (input, output, operations) = (input.as_bytes(), &mut output, &mut operations);
            pop3::serve(
                Script { input, output, most, fault, operations, private: true },
                &self.shared,
                &admission,
                &client(),
            )
        });
        let summary = panic::catch_unwind(session).ok();
        assert!(self.shared.locks.users().is_empty(), "the session has left the maildrop locked: {fault:?}");
        Played { summary, output, operations }
    }

    fn messages(&self) -> Vec<String> {
        self.mail.maildrop(USER).messages()
    }
}

fn origin() -> Origin {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into()
}

fn client() -> events::Client {
    events::Client::new(1, origin(), Service::Pop3)
}

/// RFC 2595 section 2.3: on a connection that others can read, the server neither accepts nor offers mechanisms that
/// send the password. SCRAM does not send it and is offered.
#[test]
fn passwords_are_refused_on_cleartext_connections_from_other_machines() {
    let mail = MailRoot::new();
    let user = format!("{USER}:{PASSWORD}");
    let session = |flags: &[&str]| {
        let args = [&["pop3d", "-u", &user, "-m", mail.path().to_str().unwrap()], flags].concat();
        let shared = Args::try_parse_from(args).unwrap().resolve().unwrap().into_shared();
        let input = b"CAPA\r\nUSER mrose\r\nAUTH PLAIN\r\nAUTH PLAIN AG1yb3NlAHRhbnN0YWFm\r\n\
                      AUTH LOGIN bXJvc2U=\r\nAUTH\r\nAUTH SCRAM-SHA-256\r\n*\r\n";
        let (mut output, mut operations) = (Vec::new(), 0);
        let (most, operations) = (usize::MAX, &mut operations);
        let script = Script { input, output: &mut output, most, fault: None, operations, private: false };
        let admission = shared.guard.admit(origin()).unwrap();
        pop3::serve(script, &shared, &admission, &client());
        String::from_utf8(output).unwrap()
    };
    let refused = session(&[]);
    let lines: Vec<&str> = refused.lines().collect();
    assert!(lines[0].ends_with('>') && lines.contains(&"SASL SCRAM-SHA-256") && !lines.contains(&"USER"), "{refused}");
    let after = lines.iter().position(|line| *line == ".").unwrap() + 1;
    assert!(lines[after..after + 4].iter().all(|line| line.starts_with("-ERR [AUTH] ")), "{refused}");
    assert_eq!(lines[after + 5..after + 8], ["SCRAM-SHA-256", ".", "+ "], "{refused}");
    let taken = session(&["--allow-cleartext"]);
    assert!(taken.contains("\r\nUSER\r\n") && taken.contains("\r\nSASL PLAIN LOGIN SCRAM-SHA-256\r\n"), "{taken}");
}

/// Each operation on the connection fails once in each way. The session does not panic and sends nothing wrong, and it
/// removes messages only if it has read QUIT.
#[test]
fn no_failure_of_the_connection_removes_mail_without_quit() {
    let scene = Scene::new();
    let quit = format!("{SESSION}QUIT\r\n");
    let until_quit = scene.play(SESSION, usize::MAX, None).operations - 1;
    let whole = scene.play(&quit, usize::MAX, None);
    assert_eq!(scene.messages(), ["3"]);
    for kind in [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::TimedOut, ErrorKind::Other] {
        for at in 0..whole.operations {
            let played = scene.play(&quit, usize::MAX, Some((at, Fault::Error(kind))));
            check(&scene, &whole, &played, at > until_quit, &format!("operation {at}: {kind:?}"));
        }
    }
    for at in 0..whole.operations {
        let played = scene.play(&quit, usize::MAX, Some((at, Fault::Nothing)));
        check(&scene, &whole, &played, at > until_quit, &format!("operation {at} does nothing"));
    }
}

#[track_caller]
fn check(scene: &Scene, whole: &Played, played: &Played, has_read_quit: bool, what: &str) {
    let summary = played.summary.as_ref().unwrap_or_else(|| panic!("{what}: the session has panicked"));
    assert!(whole.output.starts_with(&played.output), "{what}: the session has sent other octets");
    // The session repeats a read that has failed with a timeout before its deadline.
    let updated = has_read_quit || played.output == whole.output;
    assert_eq!(scene.messages(), if updated { &["3"][..] } else { &["1", "2", "3"] }, "{what}");
    assert_eq!(summary.counts.deleted, if updated { 2 } else { 0 }, "{what}");
}

#[test]
fn a_signal_that_interrupts_an_operation_changes_nothing() {
    let scene = Scene::new();
    let quit = format!("{SESSION}QUIT\r\n");
    let whole = scene.play(&quit, usize::MAX, None);
    for at in 0..whole.operations {
        let played = scene.play(&quit, usize::MAX, Some((at, Fault::Error(ErrorKind::Interrupted))));
        assert!(played.output == whole.output, "operation {at}: the session has sent other octets");
        assert_eq!(scene.messages(), ["3"], "operation {at}");
    }
}

#[test]
fn a_connection_that_takes_few_octets_at_once_gets_the_same_answers() {
    let scene = Scene::new();
    let quit = format!("{SESSION}QUIT\r\n");
    let whole = scene.play(&quit, usize::MAX, None);
    for most in [1, 2, 3, 7, 511, 4096] {
        let played = scene.play(&quit, most, None);
        assert!(played.output == whole.output, "{most} octets at once: the session has sent other octets");
        assert_eq!(scene.messages(), ["3"], "{most} octets at once");
    }
}

/// A session that panics releases the maildrop and removes no mail, unless it has read QUIT.
#[test]
fn a_session_that_panics_releases_the_maildrop() {
    let scene = Scene::new();
    let operations = scene.play(SESSION, usize::MAX, None).operations;
    for at in 0..operations {
        let played = scene.play(SESSION, usize::MAX, Some((at, Fault::Panic)));
        assert!(played.summary.is_none(), "operation {at}");
        assert_eq!(scene.messages(), ["1", "2", "3"], "operation {at}");
    }
    let quit = format!("{SESSION}QUIT\r\n");
    scene.play(&quit, usize::MAX, Some((operations, Fault::Panic)));
    assert_eq!(scene.messages(), ["3"], "the session had read QUIT before it panicked");
}

// ---------------------------------------------------------------------------------------------------------------------
// Clients that leave

/// A client resets its connection after each octet of a dialogue. The server releases the lock each time and removes no
/// message.
#[test]
fn a_reset_connection_removes_nothing_at_any_octet_of_a_dialogue() {
    let server = Server::start();
    server.maildrop().put("1", "one\r\n");
    server.maildrop().put("2", "two\r\n");
    let dialogue =
        format!("USER {USER}\r\nPASS {PASSWORD}\r\nSTAT\r\nDELE 1\r\nNOOP\r\nRSET\r\nDELE 2\r\nLIST 1\r\nQUIT\r");
    for length in 0..=dialogue.len() {
        let said = &dialogue[..length];
        let mut client = server.pop3();
        client.write(said);
        for _ in said.matches('\n') {
            client.ok();
        }
        reset(client);
    }
    let mut admin = server.admin();
    eventually("no session is left", || admin.value("cc?") == "0");
    assert_eq!((admin.value("hc?"), admin.value("xe?")), ((dialogue.len() + 1).to_string(), "0".to_owned()));
    assert_eq!(server.session().call("STAT"), "2 10");
}

/// A client sends QUIT and leaves without reading the answer. Either both marked messages are removed or none.
#[test]
fn a_client_that_leaves_after_quit_has_all_marked_messages_removed_or_none() {
    for resets in [false, true] {
        let server = Server::start();
        for round in 0..40 {
            for name in ["1", "2", "3"] {
                server.maildrop().put(name, "text\r\n");
            }
            let mut client = server.session();
            client.call("DELE 1");
            client.call("DELE 3");
            client.send("QUIT");
            if resets {
                reset(client);
            } else {
                drop(client);
            }
            let mut admin = server.admin();
            eventually("the session has ended", || admin.value("cc?") == "0");
            let left = server.maildrop().messages();
            let whole = left == ["2"] || (resets && left == ["1", "2", "3"]);
            assert!(whole, "round {round}: {left:?}");
        }
    }
}

/// More octets than all buffers between server and client hold.
const LARGE: usize = 16 << 20;

/// A line of a message that is sent as it is stored, and one of a message that is edited while it is sent.
const LINES: [&str; 2] = ["in wire form already\r\n", ".to be edited\n"];

#[test]
fn a_client_that_leaves_in_the_middle_of_a_message_has_not_retrieved_it() {
    for line in LINES {
        let server = Server::start();
        server.maildrop().put("1", line.repeat(LARGE / line.len()));
        for resets in [false, true] {
            for lines in [0, 1, 1000, 100_000] {
                let mut client = server.session();
                client.send_all(["DELE 1", "RSET", "RETR 1", "DELE 1", "QUIT"]);
                for _ in 0..3 {
                    client.ok();
                }
                for _ in 0..lines {
                    client.line();
                }
                if resets {
                    reset(client);
                }
            }
        }
        let mut admin = server.admin();
        eventually("no session is left", || admin.value("cc?") == "0");
        assert_eq!((admin.value("re?"), admin.value("xe?")), ("0".to_owned(), "0".to_owned()));
        assert_eq!(server.maildrop().messages(), ["1"]);
        server.session().quit();
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A server that is killed

/// The text of the message `number` in the maildrop of [`kill_during_quit`].
fn text(number: usize) -> String {
    format!("Subject: {number}\r\n\r\n{}\r\n", "x".repeat(number % 50))
}

/// Kills a server during a QUIT with 1,000 deletions, once the `trigger`-th marked message was removed. Checks that
/// every message is whole or removed and that unmarked messages are there. Returns the number of messages that were
/// removed.
fn kill_during_quit(maildir: bool, trigger: usize) -> usize {
    const COUNT: usize = 2000;
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    let name = |number: usize| if maildir { format!("cur/{number}.a.b:2,S") } else { format!("{number}") };
    for number in 1..=COUNT {
        maildrop.put(&name(number), text(number));
    }
    let mut server = Server::builder().mail(&mail).start();
    let mut client = server.session();
    let listed = client.listing("UIDL");
    // Every second message is marked, so that each marked message is next to unmarked ones.
    client.write((1..=COUNT).step_by(2).map(|number| format!("DELE {number}\r\n")).collect::<String>());
    for _ in (1..=COUNT).step_by(2) {
        client.ok();
    }
    let trigger = maildrop.path(&name(2 * trigger + 1));
    client.send("QUIT");
    let deadline = Instant::now() + PATIENCE;
    while trigger.exists() {
        assert!(Instant::now() < deadline, "QUIT removes nothing");
    }
    server.signal(Signal::KILL);
    server.wait();

    let left: Vec<usize> = (1..=COUNT).filter(|&number| maildrop.path(&name(number)).exists()).collect();
    for &number in &left {
        assert_eq!(fs::read_to_string(maildrop.path(&name(number))).unwrap(), text(number));
    }
    let unmarked = left.iter().filter(|&&number| number % 2 == 0).count();
    assert_eq!(unmarked, COUNT / 2, "an unmarked message was removed");
    let server = Server::builder().mail(&mail).start();
    let mut client = server.session();
    let unique_ids = |lines: &[String]| -> Vec<String> {
        lines.iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    };
    let before = unique_ids(&listed);
    let expected: Vec<_> = left.iter().map(|&number| before[number - 1].clone()).collect();
    assert_eq!(unique_ids(&client.listing("UIDL")), expected);
    let (last, &number) = (left.len(), left.last().unwrap());
    assert_eq!(client.fetch(&format!("RETR {last}")), text(number).as_bytes());
    client.quit();
    COUNT - left.len()
}

/// The server is killed at the beginning, in the middle and near the end of QUIT. At least one kill has to come before
/// all messages are removed, since the test would show nothing otherwise.
#[test]
fn a_server_killed_during_quit_leaves_each_message_whole_or_removed() {
    let mut gone = Vec::new();
    for maildir in [false, true] {
        for trigger in [0, 200, 600, 950] {
            gone.push(kill_during_quit(maildir, trigger));
        }
    }
    while gone.iter().all(|&gone| gone == 1000) {
        assert!(gone.len() < 50, "the server was never killed before QUIT had removed all messages");
        gone.push(kill_during_quit(false, 0));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Mail that vanishes

/// The session has the message's file open, so the removal of its name does not cut the message off.
#[test]
fn a_message_that_is_removed_while_it_is_sent_arrives_whole() {
    for line in LINES {
        let server = Server::start();
        let count = LARGE / line.len();
        let path = server.maildrop().put("1", line.repeat(count));
        server.maildrop().put("2", "two\r\n");
        let mut client = server.session();
        client.call("RETR 1");
        fs::remove_file(path).unwrap();
        assert_eq!(client.multiline().len(), count * (line.trim_end().len() + 2));
        assert!(client.refused("RETR 1").starts_with("[SYS/TEMP]"));
        assert_eq!(client.fetch("RETR 2"), b"two\r\n");
        client.quit();
    }
}

/// Moves the server's mail directory to a new sub-directory, which a test can remove. Returns [`USER`]'s maildrop
/// there.
fn move_mail_directory(server: &Server, name: &str) -> Maildrop {
    let path = server.mail().path().join(name);
    fs::create_dir(&path).unwrap();
    let mut admin = server.admin();
    admin.send(&format!("m= {}", path.display()));
    admin.expect("+");
    Maildrop::at(path.join(USER))
}

#[test]
fn logins_work_again_when_a_removed_mail_directory_comes_back() {
    let server = Server::start();
    let maildrop = move_mail_directory(&server, "mail");
    let root = server.mail().path().join("mail");
    for round in 0..5 {
        maildrop.put("1", "one\r\n");
        maildrop.put("2", format!("round {round}\r\n"));
        let mut old = server.session();
        fs::remove_dir_all(&root).unwrap();
        let mut client = server.pop3();
        for _ in 0..2 {
            client.call(&format!("USER {USER}"));
            let refused = client.refused(&format!("PASS {PASSWORD}"));
            assert!(refused.starts_with("[SYS/TEMP]"), "{refused}");
        }
        assert!(old.refused("RETR 1").starts_with("[SYS/TEMP]"));
        assert!(old.call("STAT").starts_with("2 "));

        fs::create_dir(&root).unwrap();
        maildrop.put("1", "new\r\n");
        client.login(USER, PASSWORD);
        assert_eq!(client.fetch("RETR 1"), b"new\r\n");
        // The session in the removed directory removes nothing in the new one.
        assert!(old.refused("RETR 1").starts_with("[SYS/TEMP]"));
        old.call("DELE 1");
        old.quit();
        assert_eq!(maildrop.messages(), ["1"]);
        client.quit();
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
    }
}

/// An operator who moves the mail to another disk leaves a symbolic link at the old path.
#[test]
fn a_mail_directory_may_be_replaced_by_a_symbolic_link() {
    let elsewhere = TempDir::new().unwrap();
    let server = Server::builder().allow(elsewhere.path()).start();
    let maildrop = move_mail_directory(&server, "mail");
    maildrop.put("1", "one\r\n");
    assert_eq!(server.session().call("STAT"), "1 5");
    Maildrop::at(elsewhere.path().join(USER)).put("1", "elsewhere\r\n");
    let root = server.mail().path().join("mail");
    fs::rename(&root, server.mail().path().join("old")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &root).unwrap();
    assert_eq!(server.session().fetch("RETR 1"), b"elsewhere\r\n");
}

#[test]
fn logins_are_refused_while_the_mail_directory_may_not_be_searched() {
    let server = Server::builder().unprivileged().start();
    server.maildrop().put("1", "one\r\n");
    let set_mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(server.mail().path(), permissions).unwrap();
    };
    set_mode(0o000);
    let mut client = server.pop3();
    client.call(&format!("USER {USER}"));
    assert!(client.refused(&format!("PASS {PASSWORD}")).starts_with("[SYS/PERM]"));
    let mut admin = server.admin();
    admin.send(&format!("m= {}", server.mail().path().display()));
    admin.expect("-6");
    set_mode(0o755);
    client.login(USER, PASSWORD);
}

#[test]
fn the_slots_of_clients_that_never_send_anything_are_released() {
    let server = Server::start();
    let mut admin = server.admin();
    for round in 0..200 {
        let client = Client::connect(server.pop3_address());
        match round % 3 {
            0 => drop(client),
            1 => reset(client),
            _ => client.finish_writing(),
        }
    }
    eventually("no session is left", || admin.value("hc?") == "200" && admin.value("cc?") == "0");
}
