//! Every system call of a session on an mbox fails once, or the server is killed at it. Each message that was not to be
//! removed is there afterwards, once.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use super::calls::{Descriptors, Tracer, descriptors, descriptors_at_rest, thread_at};
use crate::harness::{Client, MailRoot, PASSWORD, Server, USER, eventually};

/// The system calls with which a session changes or reads the mbox, its index and its journal.
const CALLS: [(&str, &str); 12] = [
    ("openat2", "EIO"),
    ("openat", "ENOSPC"),
    ("newfstatat", "EIO"),
    ("fstat", "EIO"),
    ("pread64", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("write", "ENOSPC"),
    ("fallocate", "ENOSPC"),
    ("ftruncate", "EIO"),
    ("fdatasync", "EIO"),
    ("renameat", "EIO"),
    ("unlinkat", "EROFS"),
];

/// More calls than any session makes of one kind.
const MOST_CALLS: usize = 60;

const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];

/// The messages that the session marks.
const MARKED: [usize; 2] = [1, 3];

fn stored(name: &str) -> String {
    format!("From {name} Thu Jan  1 00:00:00 2026\nSubject: {name}\n\n{}\n", "text\n".repeat(200))
}

fn text(which: impl Fn(usize) -> bool) -> String {
    (0..NAMES.len()).filter(|&at| which(at)).map(|at| stored(NAMES[at])).collect()
}

fn mbox(mail: &MailRoot) -> PathBuf {
    mail.path().join(USER)
}

/// Removes every file, and puts the mbox with its messages.
fn set_up(mail: &MailRoot) {
    for entry in fs::read_dir(mail.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::write(mbox(mail), text(|_| true)).unwrap();
}

/// Plays a session that marks messages. Returns the answer to QUIT; `None` if it was not answered or not sent.
fn play(mut client: Client) -> Option<bool> {
    let mut ask = |command: &str| {
        let _ = client.try_write(format!("{command}\r\n"));
        let line = client.try_line().ok()??;
        Some(line.starts_with(b"+OK"))
    };
    ask(&format!("USER {USER}"))?;
    if !ask(&format!("PASS {PASSWORD}"))? {
        return None;
    }
    let mut all_marked = true;
    for at in MARKED {
        all_marked &= ask(&format!("DELE {}", at + 1))?;
    }
    let answer = ask("QUIT")?;
    (all_marked || !answer).then_some(answer)
}

/// The thread that waits for the first command of the only client.
fn thread_of(server: &Server, at_rest: &Descriptors) -> u32 {
    let mut thread = None;
    eventually("a thread waits for the client", || {
        let open = descriptors(server);
        thread = match open.difference(at_rest).collect::<Vec<_>>()[..] {
            [(connection, _)] => thread_at(server, *connection),
            _ => None,
        };
        thread.is_some()
    });
    thread.unwrap()
}

/// Checks the mbox after a session, and that the next one is served. `answer` is what QUIT was answered.
fn check(server: &Server, answer: Option<bool>, what: &str) {
    let mut session = server.session();
    let count: usize = session.call("STAT").split(' ').next().unwrap().parse().unwrap();
    for n in 1..=count {
        session.fetch(&format!("RETR {n}"));
    }
    session.quit();
    let (all, without) = (text(|_| true), text(|at| !MARKED.contains(&at)));
    let left = fs::read_to_string(mbox(server.mail())).unwrap();
    assert!(left == without || (left == all && answer != Some(true)), "{what}: {} octets left", left.len());
    assert!(!server.mail().path().join(format!(".{USER}.pop3d-journal")).exists(), "{what}");
}

#[test]
fn no_failing_call_loses_mail_in_an_mbox() {
    let server = Server::start();
    let at_rest = descriptors_at_rest(&server);
    let mut count = 0;
    for (call, error) in CALLS {
        for which in 1..MOST_CALLS {
            eventually("the last session has ended", || descriptors(&server) == at_rest);
            set_up(server.mail());
            let client = server.pop3();
            let tracer = Tracer::attach(thread_of(&server, &at_rest), call, error, which);
            let answer = play(client);
            eventually("the session has ended", || descriptors(&server) == at_rest);
            let failed = tracer.detach();
            // A dot-lock that could not be removed is this server's own, and it lives: other programs wait for it.
            let _ = fs::remove_file(server.mail().path().join(format!("{USER}.lock")));
            check(&server, answer, &format!("{call} {which} fails with {error}"));
            if !failed {
                break;
            }
            count += 1;
        }
    }
    assert!(count > 40, "only {count} calls failed");
}

#[test]
fn a_server_killed_at_any_call_loses_no_mail_in_an_mbox() {
    let mut count = 0;
    for call in ["pwrite64", "ftruncate", "fdatasync", "renameat", "unlinkat", "fallocate"] {
        for which in 1..MOST_CALLS {
            let mut server = Server::start();
            let at_rest = descriptors_at_rest(&server);
            set_up(server.mail());
            let client = server.pop3();
            let tracer = Tracer::attach_to_kill(thread_of(&server, &at_rest), call, which);
            let answer = play(client);
            let killed = answer.is_none();
            if !killed {
                server.signal(Signal::KILL);
            }
            server.wait();
            drop(tracer);
            let next = Server::builder().mail(server.mail()).start();
            check(&next, answer, &format!("killed at {call} {which}"));
            if !killed {
                break;
            }
            count += 1;
        }
    }
    assert!(count > 10, "the server was killed only {count} times");
}
