//! The server and a real Dovecot on the same Maildir: its IMAP clients store, flag and remove messages, with folders, the
//! plugin for quotas and the plugin that compresses.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

use crate::harness::{ChildGuard, Client, Maildrop, NOBODY, Server, USER};

/// Dovecot's configuration and the Maildir that it serves. Dovecot refuses to serve root, so its user is another one when
/// the tests run as root.
struct Dovecot {
    directory: TempDir,
}

impl Dovecot {
    /// Sets Dovecot up for a Maildir, which it may fill. New messages are compressed if `save` names a compression.
    fn new(maildrop: &Maildrop, save: Option<&str>) -> Self {
        maildrop.make_maildir();
        ["", "new", "cur", "tmp"].iter().for_each(|folder| give_away(&maildrop.path(folder)));
        fs::set_permissions(maildrop.path("").parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        let directory = TempDir::new().unwrap();
        let path = directory.path().display();
        let save = save.map_or(String::new(), |save| format!("zlib_save = {save}\n"));
        let config = format!(
            "mail_location = maildir:{}:LAYOUT=maildir++\n\
             first_valid_uid = 1\nfirst_valid_gid = 0\n\
             base_dir = {path}/run\nstate_dir = {path}/state\nssl = no\n\
             mail_plugins = zlib quota\n\
             protocol imap {{\nmail_plugins = zlib quota imap_quota\n}}\n\
             plugin {{\nquota = maildir:User quota\nquota_rule = *:storage=100M\n{save}}}\n",
            maildrop.path("").display()
        );
        fs::write(directory.path().join("dovecot.conf"), config).unwrap();
        give_away(directory.path());
        Self { directory }
    }

    /// Logs an IMAP client in.
    fn imap(&self) -> Imap {
        let imap = ["/usr/lib/dovecot/imap", "-c"];
        let mut command = Command::new("timeout");
        command.arg("300");
        if rustix::process::getuid().is_root() {
            let id = NOBODY.to_string();
            command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        }
        command.args(imap).arg(self.directory.path().join("dovecot.conf"));
        command.env("HOME", self.directory.path()).env("USER", USER);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut imap = Imap {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            log: process.stderr.take().unwrap(),
            process: ChildGuard(process),
            tag: 0,
        };
        let greeting = imap.line();
        assert!(greeting.starts_with("* PREAUTH"), "scripts/install-test-tools installs Dovecot: {greeting}");
        imap
    }
}

fn give_away(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    if rustix::process::getuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// An IMAP client.
struct Imap {
    process: ChildGuard,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Dovecot's log.
    log: ChildStderr,
    tag: u32,
}

impl Imap {
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.output.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Sends a command that must succeed. Returns the other lines of its answer.
    #[track_caller]
    fn call(&mut self, command: &str) -> Vec<String> {
        self.tag += 1;
        let tag = format!("t{} ", self.tag);
        write!(self.input, "{tag}{command}\r\n").unwrap();
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            match line.strip_prefix(&tag) {
                Some(status) if status.starts_with("OK") => return lines,
                Some(status) => panic!("{command}: {status}"),
                None if line.is_empty() => panic!("{command}: Dovecot has ended after {lines:?}: {}", self.log()),
                None => lines.push(line),
            }
        }
    }

    #[track_caller]
    fn append(&mut self, folder: &str, text: &str) {
        self.call(&format!("APPEND {folder} {{{}+}}\r\n{text}", text.len()));
    }

    /// The messages of a folder: flags by UID.
    #[track_caller]
    fn flags(&mut self, folder: &str) -> BTreeMap<u32, String> {
        self.call(&format!("SELECT {folder}"));
        let lines = self.call("FETCH 1:* (UID FLAGS)");
        let entry = |line: String| {
            let uid = line.split_once("UID ")?.1.split([' ', ')']).next()?.parse().ok()?;
            let flags = line.split_once("FLAGS (")?.1.split(')').next()?.replace("\\Recent", "");
            Some((uid, flags.trim().to_owned()))
        };
        lines.into_iter().filter_map(entry).collect()
    }

    /// The use of the quota in KiB, as Dovecot reads it from maildirsize.
    #[track_caller]
    fn quota(&mut self) -> u64 {
        let lines = self.call("GETQUOTAROOT INBOX");
        let line = lines.iter().find_map(|line| line.split_once("(STORAGE ")).expect("a quota");
        line.1.split(' ').next().unwrap().parse().unwrap()
    }

    fn log(&mut self) -> String {
        let mut log = String::new();
        let _ = self.log.read_to_string(&mut log);
        log
    }

    /// Logs out, and checks that Dovecot has logged no error.
    #[track_caller]
    fn end(mut self) {
        self.call("LOGOUT");
        self.process.0.wait().unwrap();
        let log = self.log();
        assert!(!["Error", "Panic", "Fatal"].iter().any(|word| log.contains(word)), "Dovecot's log: {log}");
    }
}

/// A message with CRLF line ends, a dot at the beginning of a line, and no line end at its end if `n` is even.
fn message(n: u32) -> String {
    let lines: String = (0..n % 7 * 300).map(|line| format!("{line} {}\r\n", line * n)).collect();
    format!("Subject: message {n}\r\n\r\n.dot\r\n{lines}end{}", if n.is_multiple_of(2) { "" } else { "\r\n" })
}

/// A message as a client receives it.
fn received(n: u32) -> String {
    let text = message(n);
    if text.ends_with("\r\n") { text } else { text + "\r\n" }
}

/// Which messages a session lists: their numbers in the session by the numbers in their subjects.
fn numbers(session: &mut Client) -> BTreeMap<u32, usize> {
    let count = session.listing("LIST").len();
    let subject = |number| {
        let top = String::from_utf8(session.fetch(&format!("TOP {number} 0"))).unwrap();
        top.lines().next().unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let numbers: BTreeMap<_, _> = (1..=count).map(subject).zip(1..).collect();
    assert_eq!(numbers.len(), count, "a message is there twice");
    numbers
}

/// Checks that a message is listed and sent as it was stored.
#[track_caller]
fn expect(session: &mut Client, numbers: &BTreeMap<u32, usize>, n: u32) {
    let number = numbers[&n];
    let sent = String::from_utf8(session.fetch(&format!("RETR {number}"))).unwrap();
    assert!(sent == received(n), "message {n}");
    assert_eq!(session.call(&format!("LIST {number}")), format!("{number} {}", sent.len()));
}

/// The sum of the lines of maildirsize: octets and messages.
fn noted(maildrop: &Maildrop) -> (i64, i64) {
    let text = fs::read_to_string(maildrop.path("maildirsize")).unwrap();
    let numbers = |line: &str| -> Vec<i64> { line.split_whitespace().map(|number| number.parse().unwrap()).collect() };
    text.lines().skip(1).map(numbers).fold((0, 0), |sum, line| (sum.0 + line[0], sum.1 + line[1]))
}

/// The octets and the number of the messages on disk, by the sizes in their names.
fn stored(maildrop: &Maildrop, folders: &[&str]) -> (i64, i64) {
    let names = folders.iter().flat_map(|folder| ["new", "cur"].map(|part| maildrop.path(folder).join(part)));
    let names = names.flat_map(|path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()));
    let size =
        |name: &str| -> i64 { name.split_once(",S=").unwrap().1.split([',', ':']).next().unwrap().parse().unwrap() };
    let names = names.filter_map(|name| name.into_string().ok()).filter(|name| !name.starts_with('.'));
    names.map(|name| size(&name)).fold((0, 0), |sum, size| (sum.0 + size, sum.1 + 1))
}

const FOLDERS: [&str; 3] = ["", ".Junk", ".Junk.Old"];

const FLAGS: [&str; 4] = ["--seen", "--hide-trashed", "--folders", "INBOX,Junk,Junk.Old,Missing"];

/// What a user does with two programs, one after the other.
fn share(save: Option<&str>) {
    let server = Server::builder().flags(FLAGS).start();
    let maildrop = server.maildrop();
    let dovecot = Dovecot::new(&maildrop, save);
    let mut imap = dovecot.imap();
    for folder in ["Junk", "Junk.Old"] {
        imap.call(&format!("CREATE {folder}"));
    }
    for n in 1..=9 {
        imap.append(["INBOX", "Junk", "Junk.Old"][(n as usize - 1) / 3], &message(n));
    }
    assert_eq!(noted(&maildrop), stored(&maildrop, &FOLDERS));
    let before = ["INBOX", "Junk", "Junk.Old"].map(|folder| imap.flags(folder).into_keys().collect::<Vec<_>>());
    assert_eq!(before, [[1, 2, 3]; 3]);

    let mut session = server.session();
    let ids = session.listing("UIDL");
    assert_eq!(ids.iter().map(|line| &line[2..]).collect::<BTreeSet<_>>().len(), 9, "{ids:?}");
    let listed = numbers(&mut session);
    for n in [1, 2, 4, 5, 7, 8, 9] {
        expect(&mut session, &listed, n);
    }
    for n in [1, 4, 6] {
        session.call(&format!("DELE {}", listed[&n]));
    }
    // An IMAP client looks at the folder and flags messages during the session.
    imap.call("SELECT INBOX");
    imap.call("UID STORE 2 +FLAGS (\\Flagged)");
    session.quit();

    assert_eq!(noted(&maildrop), stored(&maildrop, &FOLDERS));
    let flags = |entries: &[(u32, &str)]| entries.iter().map(|&(uid, flags)| (uid, flags.to_owned())).collect();
    assert_eq!(imap.flags("INBOX"), flags(&[(2, "\\Flagged \\Seen"), (3, "")]));
    assert_eq!(imap.flags("Junk"), flags(&[(2, "\\Seen")]));
    assert_eq!(imap.flags("Junk.Old"), flags(&[(1, "\\Seen"), (2, "\\Seen"), (3, "\\Seen")]));
    assert_eq!(imap.quota(), (stored(&maildrop, &FOLDERS).0 as u64).div_ceil(1024));

    // The server's own files are no folders and no messages.
    let folders = imap.call("LIST \"\" *");
    let names: Vec<_> = folders.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>(), ["INBOX", "Junk", "Junk.Old"].iter().collect(), "{folders:?}");

    // One message is marked as deleted, another is moved, a third arrives.
    imap.call("SELECT Junk.Old");
    imap.call("UID STORE 2 +FLAGS (\\Deleted)");
    imap.call("UID MOVE 3 INBOX");
    imap.append("Junk", &message(10));
    let mut session = server.session();
    let listed = numbers(&mut session);
    assert_eq!(listed.keys().copied().collect::<Vec<_>>(), [2, 3, 5, 7, 9, 10]);
    listed.keys().for_each(|&n| expect(&mut session, &listed, n));
    session.call(&format!("DELE {}", listed[&10]));
    session.quit();
    imap.call("SELECT Junk.Old");
    imap.call("EXPUNGE");
    assert_eq!(noted(&maildrop), stored(&maildrop, &FOLDERS));
    assert_eq!(noted(&maildrop).1, 5);
    imap.end();
    let log = server.stderr();
    assert!(!log.contains("[ERROR]") && !log.contains("mrose/"), "{log}");
}

#[test]
fn a_maildir_is_shared_with_dovecot() {
    share(None);
}

#[test]
fn a_maildir_that_dovecot_compresses_is_shared() {
    thread::scope(|scope| {
        for save in ["gz", "zstd", "bz2"] {
            scope.spawn(move || share(Some(save)));
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// At the same time

/// How many messages the test delivers: 200, or as many as POP3D_SHARED_MESSAGES says.
fn count() -> u32 {
    env::var("POP3D_SHARED_MESSAGES").map_or(200, |count| count.parse().expect("a number of messages"))
}

/// Changes the flags of all messages in a folder until `done` is set. The number of rounds is limited, so that this ends
/// even if the test fails.
fn change_flags(mut imap: Imap, folder: &str, done: &AtomicBool) {
    imap.call(&format!("SELECT {folder}"));
    for round in 0..100_000 {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let change =
            ["+FLAGS.SILENT (\\Flagged)", "+FLAGS.SILENT (\\Answered)", "-FLAGS.SILENT (\\Flagged \\Seen)"][round % 3];
        imap.call(&format!("UID STORE 1:* {change}"));
        imap.call("NOOP");
    }
    imap.end();
}

/// Stops the changes of flags when it is dropped, also if the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Fetches all messages, and removes those whose number is not divisible by 5. Returns the removed ones.
fn fetch_and_remove(server: &Server) -> Vec<u32> {
    let mut session = server.session();
    let listed = numbers(&mut session);
    listed.keys().for_each(|&n| expect(&mut session, &listed, n));
    let due: Vec<u32> = listed.keys().copied().filter(|n| n % 5 > 0).collect();
    for n in &due {
        session.call(&format!("DELE {}", listed[n]));
    }
    session.quit();
    due
}

/// IMAP clients store and flag messages in two folders while POP3 sessions fetch, mark and remove them. No message is lost
/// or shown twice, and neither server logs an error.
#[test]
fn imap_and_pop3_change_a_maildir_at_the_same_time() {
    let count = count();
    let server = Server::builder().flags(FLAGS).start();
    let maildrop = server.maildrop();
    let dovecot = Dovecot::new(&maildrop, Some("gz"));
    let mut imap = dovecot.imap();
    imap.call("CREATE Junk");
    let done = AtomicBool::new(false);
    let mut removed = Vec::new();
    thread::scope(|scope| {
        let flaggers = ["INBOX", "Junk"].map(|folder| {
            let (imap, done) = (dovecot.imap(), &done);
            scope.spawn(move || change_flags(imap, folder, done))
        });
        let storing = scope.spawn(move || {
            for n in 1..=count {
                imap.append(["INBOX", "Junk"][n as usize % 2], &message(n));
            }
            imap
        });
        let stop = Stop(&done);
        while !storing.is_finished() {
            removed.extend(fetch_and_remove(&server));
        }
        drop(stop);
        storing.join().unwrap().end();
        flaggers.into_iter().for_each(|flagger| flagger.join().unwrap());
    });
    removed.extend(fetch_and_remove(&server));
    removed.sort_unstable();
    assert_eq!(removed, (1..=count).filter(|n| n % 5 > 0).collect::<Vec<_>>());
    let mut session = server.session();
    let left = numbers(&mut session);
    assert_eq!(left.keys().copied().collect::<Vec<_>>(), (1..=count).filter(|n| n % 5 == 0).collect::<Vec<_>>());
    session.quit();
    let mut imap = dovecot.imap();
    assert_eq!(imap.flags("INBOX").len() + imap.flags("Junk").len(), left.len());
    imap.end();
    let log = server.stderr();
    assert!(!log.contains("[ERROR]") && !log.contains("mrose/"), "{log}");
}
