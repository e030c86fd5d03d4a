//! Every system call of a session fails once.
//!
//! By default each call fails with one error of its list, and the errors take turns. `POP3D_FAULTS=all` makes each call
//! fail with each of its errors.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::harness::{Client, MailRoot, Maildrop, PASSWORD, PATIENCE, Server, USER, eventually, lines_of, settled};
use crate::octets::{top_of, wire_form};

/// The system calls of a session, and the errors with which each can fail.
const FAULTS: [(&str, &[&str]); 14] = [
    ("openat2", &["EIO", "EMFILE", "ESTALE", "EINTR", "ENOMEM"]),
    ("openat", &["EIO", "EMFILE", "ENOSPC", "EDQUOT", "ESTALE", "EINTR", "ENOMEM"]),
    ("getdents64", &["EIO", "ESTALE"]),
    ("fstat", &["EIO", "ESTALE"]),
    ("newfstatat", &["EIO", "ESTALE", "EACCES"]),
    ("read", &["EIO", "ESTALE", "EINTR"]),
    ("pread64", &["EIO", "ESTALE", "EINTR"]),
    ("preadv2", &["EAGAIN", "EIO", "EOPNOTSUPP", "ESTALE"]),
    ("write", &["ENOSPC", "EDQUOT", "EIO", "EINTR"]),
    ("renameat", &["EIO", "ENOSPC", "EDQUOT", "ESTALE"]),
    ("unlinkat", &["EIO", "ESTALE", "EROFS", "ENOSPC"]),
    ("recvfrom", &["EINTR", "EIO", "ECONNRESET"]),
    ("sendfile", &["EIO", "EINTR", "EPIPE", "ESTALE"]),
    ("sendto", &["EINTR", "EPIPE", "EIO", "ENOBUFS"]),
];

/// More calls than any session makes of one kind.
const MOST_CALLS: usize = 200;

/// The maildrop that the session finds.
#[derive(Debug, Clone, Copy)]
enum Scene {
    Flat,
    Maildir,
    /// A Maildir whose index has all messages.
    Indexed,
    /// A Maildir whose index has all messages but the last.
    IndexedButOne,
}

impl Scene {
    fn names(self) -> [&'static str; 4] {
        match self {
            Self::Flat => ["1", "2", "3", "4"],
            Self::Maildir | Self::Indexed | Self::IndexedButOne => {
                ["cur/1.a.b:2,S", "new/2.a.b", "cur/3.a.b:2,", "new/4.a.b"]
            }
        }
    }

    /// Puts the four messages into the maildrop: a large one that needs byte-stuffing, a large one that is sent as it
    /// is stored, and two small ones.
    fn set_up(self, server: &Server) {
        let maildrop = server.maildrop();
        let _ = fs::remove_dir_all(maildrop.path(""));
        match self {
            Self::Flat => self.put(&maildrop, 0..4),
            Self::Maildir => self.put_long_ago(&maildrop, 0..4),
            Self::Indexed => {
                self.put_long_ago(&maildrop, 0..4);
                server.session().quit();
            }
            Self::IndexedButOne => {
                self.put_long_ago(&maildrop, 0..3);
                server.session().quit();
                self.put_long_ago(&maildrop, 3..4);
            }
        }
    }

    fn put(self, maildrop: &Maildrop, which: Range<usize>) {
        for at in which {
            let name = self.names()[at];
            maildrop.put(name, stored(at));
            maildrop.set_modified(name, 1_000_000_000 + at as u64);
        }
    }

    /// The same, and gives the Maildir's folders an old modification time, so that the server trusts the index for
    /// them.
    fn put_long_ago(self, maildrop: &Maildrop, which: Range<usize>) {
        self.put(maildrop, which);
        for folder in ["new", "cur"] {
            maildrop.set_modified_directory(folder, 1_000_000_000);
        }
    }
}

fn stored(at: usize) -> Vec<u8> {
    match at {
        0 => [b"Subject: one\n\n".to_vec(), b".to be edited\n".repeat(6000)].concat(),
        1 => [b"Subject: two\r\n\r\n".to_vec(), b"in wire form\r\n".repeat(6000)].concat(),
        2 => b"Subject: three\r\n\r\none\r\ntwo\r\nthree".to_vec(),
        _ => b"\n.\n".to_vec(),
    }
}

/// The unique-ids of the four messages.
type UniqueIds = Vec<String>;

/// A client in whose session anything may fail. Its methods return `None` if the connection has ended.
struct Dialogue<'a> {
    client: Client,
    unique_ids: &'a UniqueIds,
}

/// An answer: the text after +OK, or as an error the text after -ERR.
type Answer = Result<String, String>;

/// What the client knows about its session.
struct Record {
    /// The messages of the four that are marked as deleted.
    marked: Vec<usize>,
    /// `None` if the client has not sent QUIT, `Some(None)` if the server has not answered it.
    quit: Option<Option<Answer>>,
}

impl Dialogue<'_> {
    fn answer(&mut self) -> Option<Answer> {
        let line = String::from_utf8(self.client.try_line().ok()??).unwrap();
        match line.split_once(' ') {
            Some(("+OK", text)) => Some(Ok(text.to_owned())),
            Some(("-ERR", text)) => {
                assert!(text.starts_with("[SYS/TEMP] ") || text.starts_with("[SYS/PERM] "), "{text}");
                Some(Err(text.to_owned()))
            }
            _ => panic!("{line}"),
        }
    }

    fn ask(&mut self, command: &str) -> Option<Answer> {
        // The write fails if the server has closed the connection; reading the answer then finds that.
        let _ = self.client.try_write(format!("{command}\r\n"));
        self.answer()
    }

    /// Sends a command that has to succeed unless the connection ends.
    fn expect(&mut self, command: &str) -> Option<String> {
        Some(self.ask(command)?.unwrap_or_else(|refusal| panic!("{command}: {refusal}")))
    }

    fn multiline(&mut self) -> Option<Vec<u8>> {
        let mut octets = Vec::new();
        loop {
            let line = self.client.try_line().ok()??;
            if line == b"." {
                return Some(octets);
            }
            octets.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            octets.extend_from_slice(b"\r\n");
        }
    }

    fn listing(&mut self, command: &str) -> Option<Vec<String>> {
        self.expect(command)?;
        let lines = String::from_utf8(self.multiline()?).unwrap();
        Some((1..).zip(lines.lines()).map(|(number, line)| value(number, line)).collect())
    }

    /// Plays the whole session and notes in `record` what has happened.
    fn run(&mut self, record: &mut Record) -> Option<()> {
        self.expect(&format!("USER {USER}"))?;
        if self.ask(&format!("PASS {PASSWORD}"))?.is_err() {
            return Some(());
        }
        let stat = self.expect("STAT")?;
        let sizes = self.listing("LIST")?;
        let unique_ids = self.listing("UIDL")?;
        // The server leaves out messages that it cannot read.
        let known = |id: &String| self.unique_ids.iter().position(|other| other == id).expect("a known message");
        let listed: Vec<usize> = unique_ids.iter().map(known).collect();
        assert!(listed.is_sorted(), "{listed:?}");
        let wires: Vec<_> = listed.iter().map(|&at| wire_form(&stored(at))).collect();
        assert_eq!(sizes, wires.iter().map(|wire| wire.len().to_string()).collect::<Vec<_>>());
        assert_eq!(stat, format!("{} {}", listed.len(), wires.iter().map(Vec::len).sum::<usize>()));
        for (number, wire) in (1..).zip(&wires) {
            self.message(&format!("RETR {number}"), wire)?;
            self.message(&format!("TOP {number} 1"), &top_of(wire, 1))?;
        }
        // If a message was left out, no message is removed, so that the next login shows what this one has done to it.
        if listed.len() == 4 {
            for at in [0, 2] {
                match self.ask(&format!("DELE {}", at + 1))? {
                    Ok(_) => record.marked.push(at),
                    // The call that failed had to open or lock the lock file. The server removes nothing without a
                    // lock.
                    Err(refusal) => assert!(refusal.contains("the maildrop is read-only"), "{refusal}"),
                }
            }
        }
        record.quit = Some(None);
        record.quit = Some(self.ask("QUIT"));
        Some(())
    }

    fn message(&mut self, command: &str, expected: &[u8]) -> Option<()> {
        if self.ask(command)?.is_ok() {
            assert!(self.multiline()? == expected, "{command}");
        }
        Some(())
    }
}

/// The part of a listing's line after its message number.
fn value(number: usize, line: &str) -> String {
    line.strip_prefix(&format!("{number} ")).unwrap_or_else(|| panic!("line {number}: {line}")).to_owned()
}

// ---------------------------------------------------------------------------------------------------------------------
// strace

/// A running `strace` that makes a system call of one thread fail. It is ended when this is dropped.
pub(super) struct Tracer {
    strace: Child,
    output: NamedTempFile,
}

impl Tracer {
    /// Makes the `which`-th `call` of the thread fail with `error`.
    pub(super) fn attach(thread: u32, call: &str, error: &str, which: usize) -> Self {
        Self::inject(thread, call, &format!("error={error}"), which)
    }

    /// Kills the server at the `which`-th `call` of the thread.
    pub(super) fn attach_to_kill(thread: u32, call: &str, which: usize) -> Self {
        Self::inject(thread, call, "signal=KILL", which)
    }

    fn inject(thread: u32, call: &str, fault: &str, which: usize) -> Self {
        let output = NamedTempFile::new().unwrap();
        let mut strace = Command::new("strace")
            .args(["-p", &thread.to_string(), "-e", &format!("trace={call},recvfrom"), "-e", "signal=none"])
            .args(["-e", &format!("inject={call}:{fault}:when={which}"), "-o"])
            .arg(output.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed (scripts/install-test-tools installs it)");
        let lines = lines_of(strace.stderr.take().unwrap());
        let tracer = Self { strace, output };
        let line = lines.recv_timeout(PATIENCE).expect("strace reports that it has attached to the thread");
        assert!(line.contains("attached"), "{line}");
        tracer
    }

    /// Detaches from the thread. Returns true if the call was made and has failed.
    pub(super) fn detach(mut self) -> bool {
        self.end();
        let traced = fs::read_to_string(self.output.path()).unwrap();
        assert!(traced.contains("recvfrom"), "strace has traced another thread: {traced}");
        traced.contains("(INJECTED)")
    }

    fn end(&mut self) {
        // On SIGTERM, strace detaches from the thread and writes its last lines.
        let _ = kill_process(Pid::from_child(&self.strace), Signal::TERM);
        eventually("strace ends", || !matches!(self.strace.try_wait(), Ok(None)));
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if matches!(self.strace.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// The descriptors that the server has open.
pub(super) fn descriptors(server: &Server) -> Descriptors {
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let described = |descriptor: fs::DirEntry| {
        let number = descriptor.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(descriptor.path()).ok()?))
    };
    open.filter_map(|descriptor| described(descriptor.unwrap())).collect()
}

/// Each descriptor with what it refers to, because a number is used again as soon as it is free.
pub(super) type Descriptors = BTreeSet<(u32, PathBuf)>;

/// Returns the server's descriptors when no client is connected. The server may still be opening and closing files of its
/// own when its ports are bound, so this waits until the descriptors stay the same.
pub(super) fn descriptors_at_rest(server: &Server) -> Descriptors {
    // Its threads and their descriptors come after its ports are bound. This thread is one of the last.
    eventually("the server has started its threads", || threads(server).any(|thread| is_called(&thread, "expiry")));
    settled("the server is at rest", || descriptors(server))
}

/// The directories of the server's threads in /proc.
fn threads(server: &Server) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().map(|thread| thread.unwrap().path())
}

fn is_called(thread: &Path, name: &str) -> bool {
    fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
}

/// The server's thread that is inside a system call on `descriptor`.
pub(super) fn thread_at(server: &Server, descriptor: u32) -> Option<u32> {
    let argument = format!("{descriptor:#x}");
    let tasks = PathBuf::from(format!("/proc/{}/task", server.pid()));
    let mut threads = fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().file_name().into_string().unwrap());
    let thread = threads.find(|thread| {
        let call = fs::read_to_string(tasks.join(thread).join("syscall")).unwrap_or_default();
        call.split_whitespace().nth(1) == Some(&argument)
    });
    thread.map(|thread| thread.parse().unwrap())
}

// ---------------------------------------------------------------------------------------------------------------------
// The trials

struct Trials {
    server: Server,
    /// The server's descriptors when no client is connected.
    at_rest: Descriptors,
    scene: Scene,
    unique_ids: UniqueIds,
}

impl Trials {
    fn new(scene: Scene) -> Self {
        let server = Server::builder().mail(&MailRoot::new()).start();
        let at_rest = descriptors_at_rest(&server);
        scene.set_up(&server);
        let listing = server.session().listing("UIDL");
        let unique_ids = (1..).zip(listing).map(|(number, line)| value(number, &line)).collect();
        Self { server, at_rest, scene, unique_ids }
    }

    fn wait_for_end_of_sessions(&self) {
        eventually("the last session has ended", || descriptors(&self.server) == self.at_rest);
    }

    /// Connects a client and reads the greeting. Returns the client, and the thread that waits for its first command.
    fn connect(&self) -> (Client, u32) {
        self.wait_for_end_of_sessions();
        let client = self.server.pop3();
        let mut thread = None;
        eventually("a thread waits for the client", || {
            let open = descriptors(&self.server);
            thread = match open.difference(&self.at_rest).collect::<Vec<_>>()[..] {
                [(connection, _)] => thread_at(&self.server, *connection),
                _ => None,
            };
            thread.is_some()
        });
        (client, thread.unwrap())
    }

    /// Plays a session whose `which`-th `call` fails. Returns false if the session makes fewer of these calls.
    fn fails(&self, call: &str, error: &str, which: usize) -> bool {
        self.scene.set_up(&self.server);
        let (client, thread) = self.connect();
        let tracer = Tracer::attach(thread, call, error, which);
        let mut dialogue = Dialogue { client, unique_ids: &self.unique_ids };
        let mut record = Record { marked: Vec::new(), quit: None };
        let _ = dialogue.run(&mut record);
        drop(dialogue);
        self.wait_for_end_of_sessions();
        let failed = tracer.detach();
        self.check_disk(&record);
        self.check_next_session();
        failed
    }

    /// The messages of the four that are still on disk.
    fn left(&self) -> Vec<usize> {
        let there = self.server.maildrop().messages();
        (0..4).filter(|&at| there.contains(&self.scene.names()[at].to_owned())).collect()
    }

    fn check_disk(&self, record: &Record) {
        let left = self.left();
        for at in 0..4 {
            let name = self.scene.names()[at];
            if left.contains(&at) {
                assert!(fs::read(self.server.maildrop().path(name)).unwrap() == stored(at), "{name} has changed");
                let committed = matches!(record.quit, Some(Some(Ok(_))));
                assert!(!(committed && record.marked.contains(&at)), "QUIT succeeded and has not removed {name}");
            } else {
                assert!(record.quit.is_some() && record.marked.contains(&at), "{name} was removed without a QUIT");
            }
        }
        if let Some(Some(Err(_))) = record.quit {
            assert!(
                record.marked.iter().any(|at| left.contains(at)),
                "QUIT was refused, but has removed every message"
            );
        }
    }

    fn check_next_session(&self) {
        let left = self.left();
        let wires: Vec<_> = left.iter().map(|&at| wire_form(&stored(at))).collect();
        let mut session = self.server.session();
        let sizes: Vec<_> = (1..).zip(&wires).map(|(number, wire)| format!("{number} {}", wire.len())).collect();
        assert_eq!(session.listing("LIST"), sizes);
        let ids: Vec<_> = (1..).zip(&left).map(|(number, &at)| format!("{number} {}", self.unique_ids[at])).collect();
        assert_eq!(session.listing("UIDL"), ids);
        for (number, wire) in (1..).zip(&wires) {
            assert!(session.fetch(&format!("RETR {number}")) == *wire, "message {number}");
        }
        session.quit();
    }

    /// Makes every call of each kind fail once, and returns the number of calls that have failed.
    fn all(&self) -> usize {
        let every_error = env::var("POP3D_FAULTS").is_ok_and(|faults| faults == "all");
        let mut count = 0;
        for (call, errors) in FAULTS {
            for which in 1..MOST_CALLS {
                let errors = if every_error { errors } else { &errors[which % errors.len()..][..1] };
                let failed: Vec<bool> = errors
                    .iter()
                    .map(|error| {
                        println!("{:?}: {call} {which} fails with {error}", self.scene);
                        self.fails(call, error, which)
                    })
                    .collect();
                count += failed.iter().filter(|failed| **failed).count();
                if !failed.contains(&true) {
                    break;
                }
            }
        }
        count
    }
}

#[test]
fn no_failing_call_loses_mail_in_a_flat_maildrop() {
    let count = Trials::new(Scene::Flat).all();
    assert!(count > 60, "only {count} calls failed");
}

#[test]
fn no_failing_call_loses_mail_in_a_maildir() {
    let count = Trials::new(Scene::Maildir).all();
    assert!(count > 60, "only {count} calls failed");
}

#[test]
fn no_failing_call_loses_mail_with_an_index() {
    let count = Trials::new(Scene::Indexed).all();
    assert!(count > 40, "only {count} calls failed");
}

#[test]
fn no_failing_call_loses_mail_with_an_index_and_new_mail() {
    let count = Trials::new(Scene::IndexedButOne).all();
    assert!(count > 60, "only {count} calls failed");
}
