//! Every system call that changes a thread's ids fails once (`--as-owner`).

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use rustix::process::geteuid;
use tempfile::TempDir;

use super::calls::{Descriptors, Tracer, descriptors, descriptors_at_rest, thread_at};
use crate::harness::{Client, MailRoot, PASSWORD, Server, USER, eventually};
use crate::owners::threads_by;

/// The system calls that get and set the ids and rights of a thread.
const CALLS: [&str; 6] = ["capget", "capset", "getgroups", "setgroups", "setresgid", "setresuid"];

/// Connects a client and returns the thread that waits for its first command.
fn connect(server: &Server, at_rest: &Descriptors) -> (Client, u32) {
    eventually("the last session has ended", || descriptors(server) == *at_rest);
    let client = server.pop3();
    let mut thread = None;
    eventually("a thread waits for the client", || {
        let connection = descriptors(server).difference(at_rest).next().map(|(number, _)| *number);
        thread = connection.and_then(|connection| thread_at(server, connection));
        thread.is_some()
    });
    (client, thread.unwrap())
}

#[test]
fn a_thread_whose_ids_cannot_be_restored_ends() {
    if !geteuid().is_root() {
        return;
    }
    let (mail, users) = (MailRoot::new(), TempDir::new().unwrap());
    let file = users.path().join("users");
    fs::write(&file, format!("{USER}:{{PLAIN}}{PASSWORD}:2001:3001::\n")).unwrap();
    let top = mail.path().join(USER);
    fs::create_dir(&top).unwrap();
    for path in [mail.path(), users.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    chown(&top, Some(2001), Some(3001)).unwrap();
    let server = Server::builder().mail(&mail).users_file(&file).flags(["--as-owner"]).start();
    // The first login starts the threads that look accounts up.
    server.session().quit();
    let at_rest = descriptors_at_rest(&server);
    let before = threads_by(&server, "Uid");
    assert_eq!(before.len(), 1);
    let (mut ended, mut refused) = (0, 0);
    for call in CALLS {
        for which in 1..20 {
            let (mut client, thread) = connect(&server, &at_rest);
            let tracer = Tracer::attach(thread, call, "EAGAIN", which);
            client.call(&format!("USER {USER}"));
            client.send(&format!("PASS {PASSWORD}"));
            let line = client.line();
            if line.starts_with("+OK") {
                client.call("QUIT");
            } else {
                assert!(line.starts_with("-ERR [SYS/TEMP]"), "{call} {which}: {line}");
                refused += 1;
            }
            drop(client);
            eventually("the session has ended", || descriptors(&server) == at_rest);
            let has_failed = tracer.detach();
            // No thread has a user's ids any more, and there are as many threads as before.
            eventually(&format!("the threads are as before {call} {which} failed"), || {
                ["Uid", "Gid", "Groups", "CapEff"].iter().all(|field| threads_by(&server, field).len() == 1)
                    && threads_by(&server, "Uid") == before
            });
            let task = format!("/proc/{}/task/{thread}", server.pid());
            ended += u32::from(!fs::exists(task).unwrap());
            server.session().quit();
            if !has_failed {
                assert!(which > 1, "no session calls {call}");
                break;
            }
        }
    }
    assert!(ended >= 4 && refused >= 6, "{ended} threads have ended and {refused} logins were refused");
    server.expect_log("ERROR", "a thread cannot take the server's ids back, so it ends with this session");
}
