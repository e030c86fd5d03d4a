//! System calls that fail.
//!
//! By default each failing call takes another error of its list; `POP3D_FAULTS=all` tries each with each.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::harness::{Client, MailRoot, Maildrop, PASSWORD, Server, USER, eventually};
use crate::octets::{top_of, wire_form};

/// The calls that a session lives on, each by its names on all machines, and how it can fail.
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

/// No session makes more calls of a kind.
const MOST_CALLS: usize = 200;

/// How the maildrop is found.
#[derive(Debug, Clone, Copy)]
enum Scene {
    Flat,
    Maildir,
    /// An index tells all.
    Known,
    /// An index tells all but the last.
    Delivered,
}

impl Scene {
    fn names(self) -> [&'static str; 4] {
        match self {
            Self::Flat => ["1", "2", "3", "4"],
            Self::Maildir | Self::Known | Self::Delivered => {
                ["cur/1.a.b:2,S", "new/2.a.b", "cur/3.a.b:2,", "new/4.a.b"]
            }
        }
    }

    /// Lays out the four messages: one that is stuffed and one that is sent as it is, both large; two small ones.
    fn set(self, server: &Server) {
        let maildrop = server.maildrop();
        let _ = fs::remove_dir_all(maildrop.path(""));
        match self {
            Self::Flat => self.put(&maildrop, 0..4),
            Self::Maildir => self.put_and_rest(&maildrop, 0..4),
            Self::Known => {
                self.put_and_rest(&maildrop, 0..4);
                server.session().quit();
            }
            Self::Delivered => {
                self.put_and_rest(&maildrop, 0..3);
                server.session().quit();
                self.put_and_rest(&maildrop, 3..4);
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

    /// The same, and makes the Maildir's directories look as if nothing had happened for long: what the index tells of
    /// them can be trusted.
    fn put_and_rest(self, maildrop: &Maildrop, which: Range<usize>) {
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

/// What a client calls a message, and its place among the four.
type Names = Vec<String>;

/// A session in which each thing may fail. `None` is the end of the connection.
struct Talk<'a> {
    client: Client,
    names: &'a Names,
}

/// An answer: +OK or -ERR, and its text.
type Answer = Result<String, String>;

/// How a session went, as the client knows.
struct Told {
    /// Which of the four are marked as deleted.
    marked: Vec<usize>,
    /// QUIT was sent; and how it was answered.
    quit: Option<Option<Answer>>,
}

impl Talk<'_> {
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
        // A client cannot know that the server has closed.
        let _ = self.client.try_write(format!("{command}\r\n"));
        self.answer()
    }

    /// A command that only a lost connection can keep from success.
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

    /// The whole session. What is left out of `told` has not happened.
    fn run(&mut self, told: &mut Told) -> Option<()> {
        self.expect(&format!("USER {USER}"))?;
        if self.ask(&format!("PASS {PASSWORD}"))?.is_err() {
            return Some(());
        }
        let stat = self.expect("STAT")?;
        let sizes = self.listing("LIST")?;
        let unique_ids = self.listing("UIDL")?;
        // One that cannot be read is left out.
        let known = |unique_id: &String| self.names.iter().position(|name| name == unique_id).expect("a known message");
        let listed: Vec<usize> = unique_ids.iter().map(known).collect();
        assert!(listed.is_sorted(), "{listed:?}");
        let wires: Vec<_> = listed.iter().map(|&at| wire_form(&stored(at))).collect();
        assert_eq!(sizes, wires.iter().map(|wire| wire.len().to_string()).collect::<Vec<_>>());
        assert_eq!(stat, format!("{} {}", listed.len(), wires.iter().map(Vec::len).sum::<usize>()));
        for (number, wire) in (1..).zip(&wires) {
            self.message(&format!("RETR {number}"), wire)?;
            self.message(&format!("TOP {number} 1"), &top_of(wire, 1))?;
        }
        // With one left out nothing is removed, so that the next login finds what this one has made of it.
        if listed.len() == 4 {
            for at in [0, 2] {
                match self.ask(&format!("DELE {}", at + 1))? {
                    Ok(_) => told.marked.push(at),
                    // The call that failed was to open or lock the lock file: nothing is removed without that.
                    Err(refusal) => assert!(refusal.contains("the maildrop is read-only"), "{refusal}"),
                }
            }
        }
        told.quit = Some(None);
        told.quit = Some(self.ask("QUIT"));
        Some(())
    }

    fn message(&mut self, command: &str, expected: &[u8]) -> Option<()> {
        if self.ask(command)?.is_ok() {
            assert!(self.multiline()? == expected, "{command}");
        }
        Some(())
    }
}

/// What follows its number in a listing's line.
fn value(number: usize, line: &str) -> String {
    line.strip_prefix(&format!("{number} ")).unwrap_or_else(|| panic!("line {number}: {line}")).to_owned()
}

// ---------------------------------------------------------------------------------------------------------------------
// strace

/// Makes a thread's calls fail until it is dropped.
pub(super) struct Tracer {
    strace: Child,
    output: NamedTempFile,
}

impl Tracer {
    /// The `which`-th `call` of the thread fails with `error`.
    pub(super) fn attach(thread: u32, call: &str, error: &str, which: usize) -> Self {
        let output = NamedTempFile::new().unwrap();
        let mut strace = Command::new("strace")
            .args(["-p", &thread.to_string(), "-e", &format!("trace={call},recvfrom"), "-e", "signal=none"])
            .args(["-e", &format!("inject={call}:error={error}:when={which}"), "-o"])
            .arg(output.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is there: scripts/install-test-tools installs it");
        let mut said = String::new();
        BufReader::new(strace.stderr.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("attached"), "{said}");
        Self { strace, output }
    }

    /// Lets the thread go; whether a call has failed.
    pub(super) fn detach(mut self) -> bool {
        self.end();
        let traced = fs::read_to_string(self.output.path()).unwrap();
        assert!(traced.contains("recvfrom"), "another thread was traced: {traced}");
        traced.contains("(INJECTED)")
    }

    fn end(&mut self) {
        let _ = kill_process(Pid::from_child(&self.strace), Signal::TERM);
        let _ = self.strace.wait();
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
pub(super) fn descriptors(server: &Server) -> BTreeSet<u32> {
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    open.map(|descriptor| descriptor.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// The server's thread that is in a call on `descriptor`.
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
    /// Its descriptors without a client.
    at_rest: BTreeSet<u32>,
    scene: Scene,
    names: Names,
}

impl Trials {
    fn new(scene: Scene) -> Self {
        let server = Server::builder().mail(&MailRoot::new()).start();
        let at_rest = descriptors(&server);
        scene.set(&server);
        let names = (1..).zip(server.session().listing("UIDL")).map(|(number, line)| value(number, &line)).collect();
        Self { server, at_rest, scene, names }
    }

    fn await_rest(&self) {
        eventually("the last session has ended", || descriptors(&self.server) == self.at_rest);
    }

    /// A client that has been greeted, and the thread that serves it, which waits for a command.
    fn connect(&self) -> (Client, u32) {
        self.await_rest();
        let client = self.server.pop3();
        let mut thread = None;
        eventually("a thread waits for the client", || {
            let open = descriptors(&self.server);
            thread = match open.difference(&self.at_rest).collect::<Vec<_>>()[..] {
                [connection] => thread_at(&self.server, *connection),
                _ => None,
            };
            thread.is_some()
        });
        (client, thread.unwrap())
    }

    /// Whether the session came to the `which`-th `call`, which has failed then.
    fn fails(&self, call: &str, error: &str, which: usize) -> bool {
        self.scene.set(&self.server);
        let (client, thread) = self.connect();
        let tracer = Tracer::attach(thread, call, error, which);
        let mut talk = Talk { client, names: &self.names };
        let mut told = Told { marked: Vec::new(), quit: None };
        let _ = talk.run(&mut told);
        drop(talk);
        self.await_rest();
        let failed = tracer.detach();
        self.check_disk(&told);
        self.check_next_session();
        failed
    }

    fn left(&self) -> Vec<usize> {
        let there = self.server.maildrop().messages();
        (0..4).filter(|&at| there.contains(&self.scene.names()[at].to_owned())).collect()
    }

    fn check_disk(&self, told: &Told) {
        let left = self.left();
        for at in 0..4 {
            let name = self.scene.names()[at];
            if left.contains(&at) {
                assert!(fs::read(self.server.maildrop().path(name)).unwrap() == stored(at), "{name} has changed");
                let committed = matches!(told.quit, Some(Some(Ok(_))));
                assert!(!(committed && told.marked.contains(&at)), "{name} was deleted and is there");
            } else {
                assert!(told.quit.is_some() && told.marked.contains(&at), "{name} has gone");
            }
        }
        if let Some(Some(Err(_))) = told.quit {
            assert!(told.marked.iter().any(|at| left.contains(at)), "nothing failed");
        }
    }

    fn check_next_session(&self) {
        let left = self.left();
        let wires: Vec<_> = left.iter().map(|&at| wire_form(&stored(at))).collect();
        let mut session = self.server.session();
        let sizes: Vec<_> = (1..).zip(&wires).map(|(number, wire)| format!("{number} {}", wire.len())).collect();
        assert_eq!(session.listing("LIST"), sizes);
        let names: Vec<_> = (1..).zip(&left).map(|(number, &at)| format!("{number} {}", self.names[at])).collect();
        assert_eq!(session.listing("UIDL"), names);
        for (number, wire) in (1..).zip(&wires) {
            assert!(session.fetch(&format!("RETR {number}")) == *wire, "message {number}");
        }
        session.quit();
    }

    /// Every call of each kind fails once; gives how many.
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
fn every_call_fails_once_in_a_flat_maildrop() {
    let count = Trials::new(Scene::Flat).all();
    assert!(count > 60, "only {count} calls failed");
}

#[test]
fn every_call_fails_once_in_a_maildir() {
    let count = Trials::new(Scene::Maildir).all();
    assert!(count > 60, "only {count} calls failed");
}

#[test]
fn every_call_fails_once_with_an_index() {
    let count = Trials::new(Scene::Known).all();
    assert!(count > 40, "only {count} calls failed");
}

#[test]
fn every_call_fails_once_with_an_index_and_new_mail() {
    let count = Trials::new(Scene::Delivered).all();
    assert!(count > 60, "only {count} calls failed");
}
