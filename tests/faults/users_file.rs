//! System calls that fail while PEEP changes the users file. The answer to the admin has to say what is on disk.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::calls::{Descriptors, Tracer, descriptors, descriptors_at_rest, thread_at};
use crate::harness::{Server, eventually};

/// The system calls that change the users file, and the errors with which each can fail. A call may have several names;
/// strace ignores a name that begins with `?` if the machine has no such call.
const FAULTS: [(&str, &[&str]); 12] = [
    ("?readlink,?readlinkat", &["EIO", "EACCES"]),
    ("openat", &["EMFILE", "EIO", "ENOSPC", "EACCES"]),
    ("statx", &["EIO", "ESTALE"]),
    ("flock", &["ENOLCK", "EIO", "EINTR"]),
    ("read", &["EIO", "EINTR"]),
    ("write", &["ENOSPC", "EDQUOT", "EIO", "EINTR"]),
    ("?fchmod,?fchmodat", &["EPERM", "EROFS"]),
    ("utimensat", &["EPERM", "EROFS"]),
    ("fsync", &["EIO", "ENOSPC", "EDQUOT"]),
    ("?rename,?renameat,?renameat2", &["EIO", "ENOSPC", "EXDEV"]),
    ("?unlink,?unlinkat", &["EIO", "EROFS"]),
    ("lseek", &["EIO", "EINVAL"]),
];

/// More calls than any command makes of one kind.
const MOST_CALLS: usize = 30;

const BEFORE: &str = "ana:{PLAIN}a\nbob:{PLAIN}b\n";

/// Returns true if this user can log in.
fn can_log_in(server: &Server, name: &str, password: &str) -> bool {
    let mut client = server.pop3();
    client.call(&format!("USER {name}"));
    client.send(&format!("PASS {password}"));
    client.line().starts_with("+OK")
}

struct Trials {
    _directory: TempDir,
    users: std::path::PathBuf,
    server: Server,
    at_rest: Descriptors,
}

impl Trials {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let users = directory.path().join("users");
        fs::write(&users, BEFORE).unwrap();
        let server = Server::builder().users_file(&users).start();
        let at_rest = descriptors_at_rest(&server);
        Self { _directory: directory, users, server, at_rest }
    }

    /// Runs `command` while its `which`-th `call` fails. Returns false if the command makes fewer of these calls.
    fn fails(&self, command: &str, call: &str, error: &str, which: usize) -> bool {
        eventually("the last session has ended", || descriptors(&self.server) == self.at_rest);
        fs::write(&self.users, BEFORE).unwrap();
        File::open(&self.users).unwrap().set_modified(SystemTime::now() - Duration::from_secs(10)).unwrap();
        let mut admin = self.server.admin();
        // This makes the server read the file before any call fails.
        assert_eq!(admin.values("u?"), ["ana", "bob"]);
        let mut thread = None;
        eventually("a thread waits for the admin", || {
            let open = descriptors(&self.server);
            thread = match open.difference(&self.at_rest).collect::<Vec<_>>()[..] {
                [(connection, _)] => thread_at(&self.server, *connection),
                _ => None,
            };
            thread.is_some()
        });
        let tracer = Tracer::attach(thread.unwrap(), call, error, which);
        admin.send(command);
        let answer = admin.line();
        drop(admin);
        eventually("the session has ended", || descriptors(&self.server) == self.at_rest);
        let failed = tracer.detach();

        let text = fs::read_to_string(&self.users).unwrap();
        let what = format!("{command}: {answer} when {call} {which} fails with {error}: {text}");
        let (ana, eve) = (can_log_in(&self.server, "ana", "a"), can_log_in(&self.server, "eve", "e"));
        match (&*answer, command) {
            ("-8", _) => assert!(text == BEFORE && ana && !eve, "{what}"),
            ("+", "u- ana") => assert!(text == "bob:{PLAIN}b\n" && !ana, "{what}"),
            ("+", _) => assert!(text.starts_with(BEFORE) && text.lines().count() == 3 && ana && eve, "{what}"),
            _ => panic!("{what}"),
        }
        assert!(can_log_in(&self.server, "bob", "b"), "{what}");
        failed
    }

    /// Makes every call of each kind fail once, and returns the number of calls that have failed.
    fn all(&self, command: &str) -> usize {
        let mut count = 0;
        for (call, errors) in FAULTS {
            for which in 1..MOST_CALLS {
                let error = errors[which % errors.len()];
                println!("{command}: {call} {which} fails with {error}");
                if !self.fails(command, call, error, which) {
                    break;
                }
                count += 1;
            }
        }
        count
    }
}

#[test]
fn the_answer_to_adding_a_user_says_what_is_on_disk() {
    let count = Trials::new().all("u+ eve e");
    assert!(count > 15, "only {count} calls failed");
}

#[test]
fn the_answer_to_deleting_a_user_says_what_is_on_disk() {
    let count = Trials::new().all("u- ana");
    assert!(count > 15, "only {count} calls failed");
}
