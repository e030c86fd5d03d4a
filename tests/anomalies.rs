//! What goes wrong in the world outside: connections that break, octets that come one at a time, servers that are
//! killed, mail that vanishes.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::Instant;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use clap::Parser;
use pop3d::config::Args;
use pop3d::pop3::{self, Summary};
use pop3d::shared::Shared;
use pop3d::wire::{Link, Tls};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::harness::{Client, MailRoot, Maildrop, PASSWORD, PATIENCE, Server, USER, eventually, reset};

// ---------------------------------------------------------------------------------------------------------------------
// A connection in memory

/// What the n-th operation on a [`Script`] does instead of its work.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Error(ErrorKind),
    /// A read finds the end, a write takes nothing.
    Nothing,
    Panic,
}

/// A client that sends its lines one by one, and keeps what it receives.
struct Script<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
    /// The most octets that a read or a write takes.
    most: usize,
    /// Which operation fails, and how.
    fault: Option<(usize, Fault)>,
    operations: &'a mut usize,
    /// Nobody on the way can read it.
    private: bool,
}

impl Script<'_> {
    /// Counts an operation; whether it has to do nothing.
    fn operation(&mut self) -> io::Result<bool> {
        let this = *self.operations;
        *self.operations += 1;
        match self.fault {
            Some((at, fault)) if at == this => match fault {
                Fault::Error(kind) => Err(kind.into()),
                Fault::Nothing => Ok(true),
                // Without the panic hook, which would write a stack trace each time.
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

/// What sessions share, for mail at `root`. The password is stored as a hash: with a readable one the greeting would
/// offer APOP, and be another one each time.
fn shared(root: &Path) -> Shared {
    let users = root.join(".users");
    fs::write(&users, format!("{USER}:{{SHA256}}{}", BASE64.encode(Sha256::digest(PASSWORD)))).unwrap();
    let [users, root] = [&users, root].map(|path| path.to_str().unwrap());
    let args = Args::try_parse_from(["pop3d", "--users", users, "-m", root]).unwrap();
    args.resolve().unwrap().into_shared().0
}

/// A maildrop of three messages, of which the script removes the first two.
struct Scene {
    mail: MailRoot,
    shared: Shared,
}

/// What came of playing a script.
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

    /// One that is stuffed, one that goes as it is stored, one that is small.
    fn put_messages(&self) {
        let maildrop = self.mail.maildrop(USER);
        // The same times each time: unique-ids are made of them.
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
        let visit = self.shared.guard.admit(Ipv4Addr::LOCALHOST.into()).unwrap();
        let session = AssertUnwindSafe(|| {
            let (input, output, operations) = (input.as_bytes(), &mut output, &mut operations);
            pop3::serve(Script { input, output, most, fault, operations, private: true }, &self.shared, &visit, "test")
        });
        let summary = panic::catch_unwind(session).ok();
        assert!(self.shared.locks.users().is_empty(), "the maildrop is not free: {fault:?}");
        Played { summary, output, operations }
    }

    fn messages(&self) -> Vec<String> {
        self.mail.maildrop(USER).messages()
    }
}

/// RFC 2595 section 2.3: where others can read along, no password is taken or asked for. What does not tell it is.
#[test]
fn in_clear_from_elsewhere_no_password_is_taken() {
    let mail = MailRoot::new();
    let user = format!("{USER}:{PASSWORD}");
    let session = |flags: &[&str]| {
        let args = [&["pop3d", "-u", &user, "-m", mail.path().to_str().unwrap()], flags].concat();
        let shared = Args::try_parse_from(args).unwrap().resolve().unwrap().into_shared().0;
        let input = b"CAPA\r\nUSER mrose\r\nAUTH PLAIN\r\nAUTH PLAIN AG1yb3NlAHRhbnN0YWFm\r\nAUTH\r\n\
                      AUTH SCRAM-SHA-256\r\n*\r\n";
        let (mut output, mut operations) = (Vec::new(), 0);
        let (most, operations) = (usize::MAX, &mut operations);
        let script = Script { input, output: &mut output, most, fault: None, operations, private: false };
        let visit = shared.guard.admit(Ipv4Addr::LOCALHOST.into()).unwrap();
        pop3::serve(script, &shared, &visit, "test");
        String::from_utf8(output).unwrap()
    };
    let refused = session(&[]);
    let lines: Vec<&str> = refused.lines().collect();
    assert!(lines[0].ends_with('>') && lines.contains(&"SASL SCRAM-SHA-256") && !lines.contains(&"USER"), "{refused}");
    let after = lines.iter().position(|line| *line == ".").unwrap() + 1;
    assert!(lines[after..after + 3].iter().all(|line| line.starts_with("-ERR [AUTH] ")), "{refused}");
    assert_eq!(lines[after + 4..after + 7], ["SCRAM-SHA-256", ".", "+ "], "{refused}");
    let taken = session(&["--allow-cleartext"]);
    assert!(taken.contains("\r\nUSER\r\n") && taken.contains("\r\nSASL PLAIN SCRAM-SHA-256\r\n"), "{taken}");
}

/// Each operation of a whole session fails in each way: no panic, nothing wrong is sent, and nothing is removed
/// unless the server has read QUIT.
#[test]
fn every_operation_fails_once() {
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
    let summary = played.summary.as_ref().unwrap_or_else(|| panic!("{what}: a panic"));
    assert!(whole.output.starts_with(&played.output), "{what}: other octets");
    // A read that has failed with a timeout before its time is tried again.
    let updated = has_read_quit || played.output == whole.output;
    assert_eq!(scene.messages(), if updated { &["3"][..] } else { &["1", "2", "3"] }, "{what}");
    assert_eq!(summary.deleted, if updated { 2 } else { 0 }, "{what}");
}

/// A signal that interrupts a system call changes nothing.
#[test]
fn every_operation_is_interrupted_once() {
    let scene = Scene::new();
    let quit = format!("{SESSION}QUIT\r\n");
    let whole = scene.play(&quit, usize::MAX, None);
    for at in 0..whole.operations {
        let played = scene.play(&quit, usize::MAX, Some((at, Fault::Error(ErrorKind::Interrupted))));
        assert!(played.output == whole.output, "operation {at}: other octets");
        assert_eq!(scene.messages(), ["3"], "operation {at}");
    }
}

#[test]
fn a_connection_that_takes_few_octets_at_once_gets_the_same() {
    let scene = Scene::new();
    let quit = format!("{SESSION}QUIT\r\n");
    let whole = scene.play(&quit, usize::MAX, None);
    for most in [1, 2, 3, 7, 511, 4096] {
        let played = scene.play(&quit, most, None);
        assert!(played.output == whole.output, "{most} at once: other octets");
        assert_eq!(scene.messages(), ["3"], "{most} at once");
    }
}

/// A fault of the server in the middle of a session: the maildrop is free, and all of the mail is there.
#[test]
fn a_session_that_panics_gives_the_maildrop_back() {
    let scene = Scene::new();
    let operations = scene.play(SESSION, usize::MAX, None).operations;
    for at in 0..operations {
        let played = scene.play(SESSION, usize::MAX, Some((at, Fault::Panic)));
        assert!(played.summary.is_none(), "operation {at}");
        assert_eq!(scene.messages(), ["1", "2", "3"], "operation {at}");
    }
    let quit = format!("{SESSION}QUIT\r\n");
    scene.play(&quit, usize::MAX, Some((operations, Fault::Panic)));
    assert_eq!(scene.messages(), ["3"], "QUIT has been read, its answer could not be sent");
}

// ---------------------------------------------------------------------------------------------------------------------
// Clients that go

/// By RST, after each octet and with all answers read: no lock stays, no message goes.
#[test]
fn a_client_that_resets_at_every_octet_of_a_dialogue() {
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
    eventually("all have gone", || admin.value("cc?") == "0");
    assert_eq!((admin.value("hc?"), admin.value("xe?")), ((dialogue.len() + 1).to_string(), "0".to_owned()));
    assert_eq!(server.session().call("STAT"), "2 10");
}

/// However it goes when it has said QUIT, and whether or not it hears the answer: both marked messages go, or none.
#[test]
fn a_client_that_goes_with_quit() {
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
            eventually("it has gone", || admin.value("cc?") == "0");
            let left = server.maildrop().messages();
            let whole = left == ["2"] || (resets && left == ["1", "2", "3"]);
            assert!(whole, "round {round}: {left:?}");
        }
    }
}

/// More than all buffers between server and client hold.
const LARGE: usize = 16 << 20;

/// The two ways by which a message is sent.
const LINES: [&str; 2] = ["in wire form already\r\n", ".to be edited\n"];

#[test]
fn a_client_that_goes_in_the_middle_of_a_message() {
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
        eventually("all have gone", || admin.value("cc?") == "0");
        assert_eq!((admin.value("re?"), admin.value("xe?")), ("0".to_owned(), "0".to_owned()));
        assert_eq!(server.maildrop().messages(), ["1"]);
        server.session().quit();
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A server that is killed

/// The message `number` of those that [`killed_in_an_update`] makes.
fn text(number: usize) -> String {
    format!("Subject: {number}\r\n\r\n{}\r\n", "x".repeat(number % 50))
}

/// Kills a server in the middle of a QUIT with 1,000 deletions, once the `trigger`-th marked message has gone. Gives
/// how many had gone then.
fn killed_in_an_update(maildir: bool, trigger: usize) -> usize {
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
    // Every other one, so that what is marked and what is not are neighbours everywhere.
    client.write((1..=COUNT).step_by(2).map(|number| format!("DELE {number}\r\n")).collect::<String>());
    for _ in (1..=COUNT).step_by(2) {
        client.ok();
    }
    let trigger = maildrop.path(&name(2 * trigger + 1));
    client.send("QUIT");
    let deadline = Instant::now() + PATIENCE;
    while trigger.exists() {
        assert!(Instant::now() < deadline, "nothing is removed");
    }
    server.signal(Signal::KILL);
    server.wait();

    let left: Vec<usize> = (1..=COUNT).filter(|&number| maildrop.path(&name(number)).exists()).collect();
    for &number in &left {
        assert_eq!(fs::read_to_string(maildrop.path(&name(number))).unwrap(), text(number));
    }
    let unmarked = left.iter().filter(|&&number| number % 2 == 0).count();
    assert_eq!(unmarked, COUNT / 2, "one that was not marked has gone");
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

/// At the beginning, in the middle and near the end. A test that always comes too late would show nothing, so it
/// has to come in time once.
#[test]
fn a_server_that_is_killed_in_the_middle_of_an_update() {
    let mut gone = Vec::new();
    for maildir in [false, true] {
        for trigger in [0, 200, 600, 950] {
            gone.push(killed_in_an_update(maildir, trigger));
        }
    }
    while gone.iter().all(|&gone| gone == 1000) {
        assert!(gone.len() < 50, "never in the middle");
        gone.push(killed_in_an_update(false, 0));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Mail that vanishes

/// Its file is open, so all of it arrives.
#[test]
fn a_message_that_is_removed_while_it_is_sent() {
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

/// A mail directory of its own for a server, in place of the one that the harness keeps.
fn moved_to(server: &Server, name: &str) -> Maildrop {
    let path = server.mail().path().join(name);
    fs::create_dir(&path).unwrap();
    let mut admin = server.admin();
    admin.send(&format!("m= {}", path.display()));
    admin.expect("+");
    Maildrop::at(path.join(USER))
}

#[test]
fn a_mail_directory_that_vanishes_and_comes_back() {
    let server = Server::start();
    let maildrop = moved_to(&server, "mail");
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
        // The session in the directory that has gone removes nothing in the new one.
        assert!(old.refused("RETR 1").starts_with("[SYS/TEMP]"));
        old.call("DELE 1");
        old.quit();
        assert_eq!(maildrop.messages(), ["1"]);
        client.quit();
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
    }
}

/// What an operator does who moves mail to another disk: a link with the old name.
#[test]
fn a_mail_directory_that_becomes_a_link() {
    let elsewhere = TempDir::new().unwrap();
    let server = Server::builder().allow(elsewhere.path()).start();
    let maildrop = moved_to(&server, "mail");
    maildrop.put("1", "one\r\n");
    assert_eq!(server.session().call("STAT"), "1 5");
    Maildrop::at(elsewhere.path().join(USER)).put("1", "elsewhere\r\n");
    let root = server.mail().path().join("mail");
    fs::rename(&root, server.mail().path().join("old")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &root).unwrap();
    assert_eq!(server.session().fetch("RETR 1"), b"elsewhere\r\n");
}

#[test]
fn a_mail_directory_that_may_not_be_searched() {
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

/// Connections that say nothing, or too little, are forgotten like all others.
#[test]
fn a_client_that_never_says_anything() {
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
    eventually("all have gone", || admin.value("hc?") == "200" && admin.value("cc?") == "0");
}
