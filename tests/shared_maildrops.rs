//! Maildrops that other programs use at the same time, and maildrops on file systems without stable inode numbers.
//!
//! `POP3D_SHARED_MESSAGES=50000 cargo test --test all shared_maildrops` sets the number of messages that are removed
//! while Dovecot's IMAP clients use the maildrop (default: 400).

use std::collections::BTreeSet;
use std::env;
use std::fs;

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{ChildGuard, Client, MailRoot, Maildrop, Server, USER, eventually, lines_of};

const MESSAGE: &str = "Subject: a\r\n\r\nbody\r\n";

/// Debian's interpreter, for which its Python packages are installed. It may not be the first python3 in PATH.
const PYTHON: &str = "/usr/bin/python3";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shared_maildrops").join(name)
}

/// The base names of the messages on disk.
fn base_names(maildrop: &Maildrop) -> BTreeSet<String> {
    let base = |file: &String| file["new/".len()..].split(":2,").next().unwrap().to_owned();
    maildrop.messages().iter().map(base).collect()
}

/// Marks all messages of a session and sends QUIT. Returns their unique-ids, which are their base names, and true if
/// QUIT was answered by +OK.
fn remove_all(mut session: Client) -> (BTreeSet<String>, bool) {
    let ids: BTreeSet<String> =
        session.listing("UIDL").iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
    for number in 1..=ids.len() {
        session.call(&format!("DELE {number}"));
    }
    session.send("QUIT");
    let answer = session.line();
    session.closed();
    (ids, answer.starts_with("+OK"))
}

// ---------------------------------------------------------------------------------------------------------------------
// A program that changes flags

/// Renames the messages of a Maildir as fast as possible until `done` is set. The number of rounds is limited, so that
/// this ends even if the test fails.
fn change_flags(maildrop: &Maildrop, done: &AtomicBool) {
    const ROUNDS: usize = 1_000_000;
    for round in 0..ROUNDS {
        if done.load(Ordering::Relaxed) {
            return;
        }
        for file in maildrop.messages() {
            let base = file["new/".len()..].split(":2,").next().unwrap();
            let flags = ["", "S", "FS", "RS"][round % 4];
            // This fails if the message was removed meanwhile.
            let _ = fs::rename(maildrop.path(&file), maildrop.path(&format!("cur/{base}:2,{flags}")));
        }
    }
}

/// RFC 1939 section 6: QUIT is answered by +OK if all marked messages were removed, and by -ERR if some were not.
#[test]
fn the_answer_to_quit_is_right_while_flags_change() {
    let server = Server::start();
    let maildrop = server.maildrop();
    maildrop.make_maildir();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let flagger = scope.spawn(|| change_flags(&maildrop, &done));
        let sessions = scope.spawn(|| {
            let mut removed = 0;
            for round in 0..40 {
                for number in 0..5 {
                    maildrop.put(&format!("new/{}.M{number}.h", 1_000_000_000 + round), MESSAGE);
                }
                let (marked, is_done) = remove_all(server.session());
                let left = base_names(&maildrop).intersection(&marked).count();
                assert_eq!(left == 0, is_done, "round {round}: {left} of {} are left", marked.len());
                removed += if is_done { marked.len() } else { 0 };
            }
            assert!(removed > 0, "nothing was removed");
        });
        let result = sessions.join();
        done.store(true, Ordering::Relaxed);
        flagger.join().unwrap();
        result.unwrap();
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Dovecot

/// The user whom Dovecot serves when the tests run as root, because it refuses to serve root.
const NOBODY: u32 = 65534;

/// An IMAP client that changes flags. It is killed when this is dropped.
struct ImapClient {
    process: ChildGuard,
    /// The client goes on until this is closed.
    _stdin: ChildStdin,
}

impl ImapClient {
    fn start(directory: &Path) -> Self {
        let command = imap_command(directory);
        let mut process = Command::new(PYTHON)
            .arg(script("imap_flags.py"))
            .arg(command)
            .env("HOME", directory)
            .env("USER", USER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(process.stdout.take().unwrap());
        let client = Self { _stdin: process.stdin.take().unwrap(), process: ChildGuard(process) };
        let line = lines.recv_timeout(START_LIMIT);
        assert_eq!(
            line.as_deref(),
            Ok("ready"),
            "the IMAP client does not start (scripts/install-test-tools installs Dovecot)"
        );
        client
    }

    fn is_running(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_none()
    }
}

/// The command that runs Dovecot's IMAP server on its standard input and output.
pub(crate) fn imap_command(directory: &Path) -> String {
    let imap = format!("/usr/lib/dovecot/imap -c {}", directory.join("dovecot.conf").display());
    if rustix::process::getuid().is_root() {
        format!("setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {imap}")
    } else {
        imap
    }
}

/// How long the IMAP client may take to start. It gives up by itself after 30 s.
const START_LIMIT: Duration = Duration::from_secs(35);

/// Makes a directory with a configuration for Dovecot, which the user whom Dovecot serves may use.
pub(crate) fn dovecot(maildrop: &Maildrop) -> TempDir {
    let directory = TempDir::new().unwrap();
    let path = directory.path().display();
    let config = format!(
        "mail_location = maildir:{}\n\
         first_valid_uid = 1\n\
         first_valid_gid = 0\n\
         log_path = {path}/log\n\
         base_dir = {path}/run\n\
         state_dir = {path}/state\n\
         ssl = no\n",
        maildrop.path("").display()
    );
    fs::write(directory.path().join("dovecot.conf"), config).unwrap();
    give_away(directory.path());
    directory
}

/// Gives a directory to the user whom Dovecot serves.
pub(crate) fn give_away(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    if rustix::process::getuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// Two IMAP clients of a real Dovecot change the flags of all messages while POP3 sessions fetch and remove them.
#[test]
fn no_message_is_refused_or_kept_while_dovecot_changes_flags() {
    const BATCH: usize = 40;
    let count = env::var("POP3D_SHARED_MESSAGES").map_or(400, |count| count.parse().expect("a number of messages"));
    let server = Server::start();
    let maildrop = server.maildrop();
    maildrop.make_maildir();
    fs::set_permissions(server.mail().path(), fs::Permissions::from_mode(0o755)).unwrap();
    ["", "new", "cur", "tmp"].iter().for_each(|folder| give_away(&maildrop.path(folder)));
    let directory = dovecot(&maildrop);
    let mut clients = [0; 2].map(|_| ImapClient::start(directory.path()));
    let (mut delivered, mut removed) = (0, 0);
    while removed < count {
        for _ in 0..BATCH {
            maildrop.put(&format!("new/{}.M1.h", 1_000_000_000 + delivered), MESSAGE);
            delivered += 1;
        }
        let mut session = server.session();
        let messages = session.listing("LIST").len();
        for number in 1..=messages {
            assert_eq!(session.fetch(&format!("RETR {number}")), MESSAGE.as_bytes());
        }
        let (marked, is_done) = remove_all(session);
        let left = base_names(&maildrop).intersection(&marked).count();
        assert!(
            is_done && left == 0,
            "after {removed} messages: QUIT was answered by +OK: {is_done}; {left} messages are left"
        );
        removed += marked.len();
    }
    assert!(clients.iter_mut().all(ImapClient::is_running), "an IMAP client ended early");
    drop(clients);
    remove_all(server.session());
    assert_eq!(maildrop.messages(), [""; 0]);
}

// ---------------------------------------------------------------------------------------------------------------------
// File systems without stable inodes

/// A directory of mail that is mounted by FUSE. It is unmounted when this is dropped.
struct Mount {
    process: ChildGuard,
    path: PathBuf,
}

impl Mount {
    /// Mounts `source` at `path`. Returns `None` if this machine does not let the tests do that.
    fn new(source: &Path, path: &Path, listing: &str) -> Option<Self> {
        if let Err(error) = fs::File::options().read(true).write(true).open("/dev/fuse") {
            eprintln!("SKIPPED: no file system can be mounted, because /dev/fuse cannot be opened: {error}");
            return None;
        }
        let found = Command::new(PYTHON).args(["-c", "import fusepy"]).status();
        assert!(found.is_ok_and(|it| it.success()), "python3-fusepy is not installed: run scripts/install-test-tools");
        let mut command = Command::new(PYTHON);
        command.arg(script("renumbering.py")).args([source, path]).arg(listing).stdin(Stdio::null());
        let mut mount = Self { process: ChildGuard(command.spawn().unwrap()), path: path.to_owned() };
        let mut has_ended = false;
        eventually("the file system is mounted, or its program has ended", || {
            has_ended = mount.process.0.try_wait().unwrap().is_some();
            has_ended || mount.is_mounted()
        });
        if has_ended {
            eprintln!("SKIPPED: no file system can be mounted by FUSE");
            return None;
        }
        Some(mount)
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1) == self.path.to_str())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A lazy unmount works also while files are open. The process is killed after it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

/// RETR opens the file that was listed at login. On these file systems it has another inode number each time.
#[test]
fn mail_is_served_where_inode_numbers_change() {
    for listing in ["random", "unknown"] {
        let (source, mail) = (MailRoot::new(), MailRoot::new());
        let names = [["1.eml", "2.eml", "3.eml"], ["new/1.M.h", "cur/2.M.h:2,S", "cur/3.M.h:2,"]];
        for (user, names) in ["flat", "maildir"].iter().zip(names) {
            for (size, name) in (1..).zip(names) {
                source.maildrop(user).put(name, "x\r\n".repeat(size));
                source.maildrop(user).set_modified(name, 1_000_000_000);
            }
        }
        let Some(_mount) = Mount::new(source.path(), mail.path(), listing) else { return };
        let server = Server::builder().mail(&mail).user("flat", "pass").user("maildir", "pass").start();
        for user in ["flat", "maildir"] {
            let login = || {
                let mut session = server.pop3();
                session.login(user, "pass");
                session
            };
            let ids = login().listing("UIDL");
            let mut session = login();
            assert_eq!(session.listing("UIDL"), ids);
            assert_eq!(session.listing("LIST"), ["1 3", "2 6", "3 9"]);
            if user == "maildir" {
                source.maildrop(user).rename("new/1.M.h", "cur/1.M.h:2,F");
            }
            for size in 1..=3 {
                assert_eq!(session.fetch(&format!("RETR {size}")), "x\r\n".repeat(size).as_bytes(), "{user}");
            }
            session.call("DELE 1");
            session.call("DELE 3");
            if user == "maildir" {
                source.maildrop(user).rename("cur/1.M.h:2,F", "cur/1.M.h:2,FS");
                source.maildrop(user).remove("cur/3.M.h:2,");
            }
            session.quit();
            assert_eq!(source.maildrop(user).messages().len(), 1, "{user}");
            assert_eq!(login().fetch("RETR 1"), b"x\r\nx\r\n");
        }
    }
}
