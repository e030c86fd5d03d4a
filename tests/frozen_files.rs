//! File systems that are frozen, so that reads and writes of files never return. FIFOs without another end stand for
//! such files. The server's timeouts and its end have to work all the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Certificate, Client, Server};

/// Replaces a file by a FIFO. Opening it waits forever, because nothing opens the other end.
fn put_fifo(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Checks that a lowered timeout ends an idle session, which is the main thread's work, and that SIGTERM ends the
/// server.
#[track_caller]
fn expect_timeout_and_end(mut server: Server, mut admin: Client) {
    let mut idle = server.pop3();
    admin.send("t= 1");
    admin.expect("+");
    idle.rest();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_frozen_state_directory_does_not_stop_the_server() {
    let state = TempDir::new().unwrap();
    let server = Server::builder().flags(["--state", state.path().to_str().unwrap()]).start();
    let admin = server.admin();
    // The server writes counters to this file first and then renames it.
    put_fifo(&state.path().join("counters.new"));
    server.session().quit();
    expect_timeout_and_end(server, admin);
}

#[test]
fn a_fifo_without_a_reader_for_counters_does_not_stop_the_server() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("stats.csv");
    put_fifo(&log);
    let server = Server::builder().flags(["--stats-log", &format!("{}:1", log.display())]).start();
    server.expect_log("ERROR", "the counters cannot be written: it is a FIFO that no program reads");
    let admin = server.admin();
    expect_timeout_and_end(server, admin);
}

#[test]
fn a_frozen_certificate_does_not_stop_the_server_when_it_is_reloaded() {
    let certificate = Certificate::new();
    let server = Server::builder().tls(&certificate).start();
    let mut admin = server.peep().tls(&certificate);
    admin.send("a root root");
    admin.expect("+");
    put_fifo(&certificate.chain());
    // The main thread waits for none of several reloads.
    for _ in 0..3 {
        server.signal(Signal::HUP);
    }
    expect_timeout_and_end(server, admin);
}
