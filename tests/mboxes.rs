//! Maildrops that are mbox files, also while a real program delivers mail to them.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use crate::harness::{Client, MailRoot, PASSWORD, PATIENCE, Server, USER, eventually};
use crate::octets::Chance;

/// A message as a client receives it.
fn message(name: &str) -> String {
    format!("Subject: {name}\r\n\r\n{name}\r\n")
}

/// The same message as it is stored in an mbox.
fn stored(name: &str) -> String {
    format!("From {name}@example.com Thu Jan  1 00:00:00 2026\n{}\n", message(name).replace("\r\n", "\n"))
}

fn mbox(mail: &MailRoot) -> PathBuf {
    mail.path().join(USER)
}

/// A server whose only user has an mbox with these messages.
fn server(names: &[&str]) -> Server {
    let server = Server::start();
    fs::write(mbox(server.mail()), names.iter().map(|name| stored(name)).collect::<String>()).unwrap();
    server
}

#[test]
fn messages_of_an_mbox_are_listed_sent_and_removed() {
    let server = server(&["one", "two", "three"]);
    let mut session = server.session();
    assert_eq!(session.listing("LIST"), ["1 21", "2 21", "3 25"]);
    assert_eq!(session.fetch("RETR 2"), message("two").as_bytes());
    assert_eq!(session.fetch("TOP 3 0"), b"Subject: three\r\n\r\n");
    let ids = session.listing("UIDL");
    session.call("DELE 2");
    session.quit();
    assert_eq!(fs::read_to_string(mbox(server.mail())).unwrap(), stored("one") + &stored("three"));
    let left: Vec<_> = server.session().listing("UIDL").iter().map(|line| line[2..].to_owned()).collect();
    assert_eq!(left, [&ids[0][2..], &ids[2][2..]]);
}

#[test]
fn a_file_is_an_mbox_whichever_layout_directories_have() {
    for layout in ["auto", "maildir", "flat"] {
        let server = Server::builder().flags(["--layout", layout]).start();
        fs::write(mbox(server.mail()), stored("one") + &stored("two")).unwrap();
        let mut session = server.session();
        assert_eq!(session.listing("LIST"), ["1 21", "2 21"], "{layout}");
        session.call("DELE 1");
        session.quit();
        assert_eq!(fs::read_to_string(mbox(server.mail())).unwrap(), stored("two"), "{layout}");
    }
}

#[test]
fn dots_and_quoted_from_lines_are_sent_as_they_are_stored() {
    let server = Server::start();
    let body = ".\n..x\n\n>From a\nFrom b\n\n\nno end";
    fs::write(mbox(server.mail()), format!("From x\nSubject: s\n\n{body}")).unwrap();
    let mut session = server.session();
    let expected = format!("Subject: s\r\n\r\n{}\r\n", body.replace('\n', "\r\n"));
    assert_eq!(session.fetch("RETR 1"), expected.as_bytes());
    assert_eq!(session.call("STAT"), format!("1 {}", expected.len()));
}

#[test]
fn a_transform_gets_one_message_and_not_the_whole_mbox() {
    let big = "text\n".repeat(100_000);
    let server = Server::builder().flags(["-t", "tr a-z A-Z"]).start();
    let text = stored("one") + "From x\nSubject: big\n\n" + &big + "\n" + &stored("three");
    fs::write(mbox(server.mail()), text).unwrap();
    let mut session = server.session();
    assert_eq!(session.fetch("RETR 1"), b"SUBJECT: ONE\r\n\r\nONE\r\n");
    let expected = format!("SUBJECT: BIG\r\n\r\n{}", big.to_uppercase().replace('\n', "\r\n"));
    assert!(session.fetch("RETR 2") == expected.as_bytes());
    assert_eq!(session.fetch("TOP 2 0"), b"SUBJECT: BIG\r\n\r\n");
    assert_eq!(session.fetch("RETR 3"), b"SUBJECT: THREE\r\n\r\nTHREE\r\n");
    // The program need not read its input.
    let deaf = Server::builder().mail(server.mail()).flags(["-t", "echo deaf"]).start();
    session.quit();
    assert_eq!(deaf.session().fetch("RETR 2"), b"deaf\r\n");
}

#[test]
fn a_template_and_a_link_lead_to_an_mbox() {
    let elsewhere = MailRoot::new();
    fs::write(elsewhere.path().join("inbox"), stored("one")).unwrap();
    fs::create_dir_all(elsewhere.path().join("b")).unwrap();
    fs::write(elsewhere.path().join("b/ana"), stored("two")).unwrap();
    let server = Server::builder().user("ana@b", "pass").seen_from(elsewhere.path(), "%d/%n").start();
    let mut client = server.pop3();
    client.login("ana@b", "pass");
    assert_eq!(client.fetch("RETR 1"), message("two").as_bytes());
    let server = Server::start();
    std::os::unix::fs::symlink(elsewhere.path().join("inbox"), mbox(server.mail())).unwrap();
    let mut session = server.session();
    session.call("DELE 1");
    session.quit();
    assert_eq!(fs::read(elsewhere.path().join("inbox")).unwrap(), b"");
}

#[test]
fn an_mbox_that_cannot_be_locked_is_read_only_or_stays_whole() {
    let server = server(&["one", "two"]);
    let mut session = server.session();
    session.call("DELE 1");
    // Another program holds the dot-lock, and its process is alive.
    let lock = server.mail().path().join(format!("{USER}.lock"));
    fs::write(&lock, std::process::id().to_string()).unwrap();
    session.refused("QUIT");
    assert_eq!(fs::read_to_string(mbox(server.mail())).unwrap(), stored("one") + &stored("two"));
    fs::remove_file(lock).unwrap();
}

// ---------------------------------------------------------------------------------------------------------------------
// procmail

/// Delivers messages by procmail, which locks the mbox by fcntl(2) and by a dot-lock.
struct Procmail {
    rc: PathBuf,
    _directory: tempfile::TempDir,
}

impl Procmail {
    fn new(mbox: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rc = directory.path().join("rc");
        fs::write(&rc, format!("LOCKSLEEP=1\n:0:\n{}\n", mbox.display())).unwrap();
        Self { rc, _directory: directory }
    }

    fn deliver(&self, name: &str) {
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(stored(name).as_bytes()).unwrap();
        input.rewind().unwrap();
        // `timeout` ends it if it waits for a lock for too long.
        let status = Command::new("timeout")
            .args(["60", "procmail", "-m", self.rc.to_str().unwrap()])
            .stdin(input)
            .status()
            .expect("timeout is a program of the system");
        assert!(status.success(), "procmail (scripts/install-test-tools installs it) delivers {name}: {status}");
    }
}

/// A session that reads all messages and deletes some. Returns the names of those that are removed if QUIT succeeds;
/// `None` if the connection ended before QUIT.
fn session(mut client: Client, chance: &mut Chance) -> Option<(Vec<String>, bool)> {
    let mut ask = |command: &str| {
        client.try_write(format!("{command}\r\n")).ok()?;
        let line = client.try_line().ok()??;
        assert!(line.starts_with(b"+OK"), "{command}: {:?}", String::from_utf8_lossy(&line));
        let is_multiline = command.starts_with("RETR");
        let mut text = String::from_utf8(line).unwrap();
        if is_multiline {
            loop {
                match client.try_line().ok()?? {
                    line if line == b"." => break,
                    line => text = format!("{text}\n{}", String::from_utf8(line).unwrap()),
                }
            }
        }
        Some(text)
    };
    ask(&format!("USER {USER}"))?;
    ask(&format!("PASS {PASSWORD}"))?;
    let count: usize = ask("STAT")?.split(' ').nth(1).unwrap().parse().unwrap();
    let mut removed = Vec::new();
    for number in 1..=count {
        if chance.below(2) == 0 {
            let text = ask(&format!("RETR {number}"))?;
            let lines: Vec<_> = text.lines().collect();
            let name = lines[1].strip_prefix("Subject: ").unwrap();
            assert_eq!(lines[2..], ["", name], "message {number}");
            ask(&format!("DELE {number}"))?;
            removed.push(name.to_owned());
        }
    }
    let is_answered = ask("QUIT").is_some();
    Some((removed, is_answered))
}

/// The names of the messages in the mbox.
fn names(mbox: &Path) -> Vec<String> {
    let text = fs::read_to_string(mbox).unwrap_or_default();
    text.lines().filter_map(|line| Some(line.strip_prefix("Subject: ")?.to_owned())).collect()
}

#[test]
fn nothing_is_lost_or_doubled_while_procmail_delivers() {
    const DELIVERIES: usize = 150;
    let server = server(&[]);
    let procmail = Procmail::new(&mbox(server.mail()));
    let delivered = AtomicUsize::new(0);
    let mut removed = Vec::new();
    thread::scope(|scope| {
        for half in 0..2 {
            let (procmail, delivered) = (&procmail, &delivered);
            scope.spawn(move || {
                for n in 0..DELIVERIES / 2 {
                    procmail.deliver(&format!("{half}-{n}"));
                    delivered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut chance = Chance(1);
        let end = Instant::now() + PATIENCE * 4;
        while delivered.load(Ordering::Relaxed) < DELIVERIES && Instant::now() < end {
            let (names, is_answered) = session(server.pop3(), &mut chance).expect("the server goes on");
            assert!(is_answered);
            removed.extend(names);
        }
    });
    assert!(!removed.is_empty());
    let mut all = [removed, names(&mbox(server.mail()))].concat();
    all.sort();
    let mut expected: Vec<_> =
        (0..2).flat_map(|half| (0..DELIVERIES / 2).map(move |n| format!("{half}-{n}"))).collect();
    expected.sort();
    assert_eq!(all, expected);
}

#[test]
fn a_killed_server_loses_no_mail() {
    let kills = std::env::var("POP3D_KILLS").map_or(8, |kills| kills.parse().unwrap());
    let mail = MailRoot::new();
    let mut chance = Chance(2);
    let mut kept: Vec<String> = Vec::new();
    let mut delivered = 0;
    for _ in 0..kills {
        // The mbox is large, so that UPDATE takes a while.
        let mut text = fs::read_to_string(mbox(&mail)).unwrap_or_default();
        while kept.len() < 150 {
            delivered += 1;
            kept.push(format!("m{delivered}"));
            text += &stored(&format!("m{delivered}"));
        }
        fs::write(mbox(&mail), text).unwrap();
        let mut server = Server::builder().mail(&mail).start();
        let client = server.pop3();
        let is_quitting = AtomicUsize::new(0);
        let outcome = thread::scope(|scope| {
            let running = scope.spawn(|| {
                let outcome = session(client, &mut chance);
                is_quitting.store(1, Ordering::Relaxed);
                outcome
            });
            let journal = mail.path().join(format!(".{USER}.pop3d-journal"));
            let deadline = Instant::now() + PATIENCE;
            while !journal.exists() && is_quitting.load(Ordering::Relaxed) == 0 && Instant::now() < deadline {
                thread::yield_now();
            }
            server.signal(Signal::KILL);
            running.join().unwrap()
        });
        server.wait();
        let (removed, is_answered) = outcome.unwrap_or_default();
        delivered += 1;
        // Mail is delivered before the next login, by a program that sees that the lock's process has ended.
        let _ = fs::remove_file(mail.path().join(format!("{USER}.lock")));
        let mut file = File::options().append(true).create(true).open(mbox(&mail)).unwrap();
        file.write_all(stored(&format!("during-{delivered}")).as_bytes()).unwrap();
        kept.push(format!("during-{delivered}"));
        let next = Server::builder().mail(&mail).start();
        next.session().quit();
        let left = names(&mbox(&mail));
        let without: Vec<_> = kept.iter().filter(|name| !removed.contains(name)).cloned().collect();
        assert!(left == without || (!is_answered && left == kept), "{} of {} left", left.len(), kept.len());
        kept = left;
    }
    eventually("no journal is left", || !mail.path().join(format!(".{USER}.pop3d-journal")).exists());
}

#[test]
fn a_server_finishes_at_its_start_what_a_killed_one_has_left() {
    let mail = MailRoot::new();
    let others: Vec<_> = (0..20_000).map(|n| n.to_string()).collect();
    let names = [&["first".to_owned()], &others[..]].concat();
    fs::write(mbox(&mail), names.iter().map(|name| stored(name)).collect::<String>()).unwrap();
    let mut killed = Server::builder().mail(&mail).start();
    let mut session = killed.session();
    session.call("DELE 1");
    let journal = mail.path().join(format!(".{USER}.pop3d-journal"));
    session.send("QUIT");
    let before = fs::metadata(mbox(&mail)).unwrap().len();
    eventually("the removal has begun", || journal.exists() || fs::metadata(mbox(&mail)).unwrap().len() < before);
    killed.signal(Signal::KILL);
    killed.wait();
    let lock = mail.path().join(format!("{USER}.lock"));
    // If the server was faster, the lock is put there.
    let dead = killed.pid();
    fs::write(&lock, dead.to_string()).unwrap();
    // Nobody logs in.
    let _server = Server::builder().mail(&mail).start();
    eventually("journal and lock are gone", || !journal.exists() && !lock.exists());
    // A journal that was not complete means that the removal had not begun.
    let left = self::names(&mbox(&mail));
    assert!(left == others || left == names, "{} messages", left.len());
}
