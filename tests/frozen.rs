//! Files that are not read and not written for ever: FIFOs without another end stand for a file system that is frozen. What
//! enforces limits and what ends the server go on.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Certificate, Client, Server};

/// Opening it to write waits for a reader, and there is none.
fn put_fifo(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Expects that `t=` reaches a session that waits already, which only the main thread sees to; and that the server ends.
#[track_caller]
fn goes_on_and_ends(mut server: Server, mut admin: Client) {
    let mut idle = server.pop3();
    admin.send("t= 1");
    admin.expect("+");
    idle.rest();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_state_directory_that_is_frozen() {
    let state = TempDir::new().unwrap();
    let server = Server::builder().flags(["--state", state.path().to_str().unwrap()]).start();
    let admin = server.admin();
    // The file that the next counters are written to first.
    put_fifo(&state.path().join("counters.new"));
    server.session().quit();
    goes_on_and_ends(server, admin);
}

#[test]
fn a_log_of_counters_that_no_program_reads() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("stats.csv");
    put_fifo(&log);
    let server = Server::builder().flags(["--stats-log", &format!("{}:1", log.display())]).start();
    server.expect_log("ERROR", "counters cannot be logged: it is a FIFO that no program reads");
    let admin = server.admin();
    goes_on_and_ends(server, admin);
}

#[test]
fn a_certificate_that_is_frozen_when_it_is_read_again() {
    let certificate = Certificate::new();
    let server = Server::builder().tls(&certificate).start();
    let mut admin = server.peep().tls(&certificate);
    admin.send("a root root");
    admin.expect("+");
    put_fifo(&certificate.chain());
    // More than one request: none of them is waited for.
    for _ in 0..3 {
        server.signal(Signal::HUP);
    }
    goes_on_and_ends(server, admin);
}
