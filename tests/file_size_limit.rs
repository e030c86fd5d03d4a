//! The limit of file sizes (`ulimit -f`): writing a larger file fails, and SIGXFSZ does not end the server.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use tempfile::TempDir;

use crate::harness::{Server, eventually};

/// Sets the largest size in octets of a file that the server writes.
fn limit_files(server: &Server, octets: Option<u64>) {
    let limit = Rlimit { current: octets, maximum: None };
    prlimit(Some(server.process()), Resource::Fsize, limit).unwrap();
}

#[test]
fn an_index_that_would_be_too_large_is_not_written() {
    let server = Server::start();
    for number in 0..500 {
        let name = format!("new/{number}.M.h");
        server.maildrop().put(&name, "x\n");
        server.maildrop().set_modified(&name, 1_000_000_000); // Only old files are entered in the index.
    }
    limit_files(&server, Some(512));
    for _ in 0..2 {
        let mut session = server.session();
        assert_eq!(session.call("STAT"), "500 1500");
        session.quit();
    }
    assert!(!server.maildrop().path(".pop3d-index").exists());
    limit_files(&server, None);
    server.session().quit();
    assert!(server.maildrop().path(".pop3d-index").exists());
}

/// The server ignores SIGXFSZ. A program that it starts has the signal's default action.
#[test]
fn a_transform_does_not_ignore_sigxfsz() {
    let server = Server::builder().flags(["-t", "sed -n s/^SigIgn:[[:space:]]*//p /proc/self/status"]).start();
    server.maildrop().put("1", "x\n");
    let mut session = server.session();
    let ignored = String::from_utf8(session.fetch("RETR 1")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    assert_eq!(ignored & 1 << (Signal::XFSZ.as_raw() - 1), 0, "{ignored:x}");
    session.quit();
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_line_of_counters_after_a_failed_write_is_whole() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("stats.csv");
    let server = Server::builder().flags(["--stats-log", &format!("{}:1", path.display())]).start();
    eventually("the file has lines", || lines(&path).len() >= 2);
    // This leaves room for a line or two and a part of the next.
    limit_files(&server, Some(fs::metadata(&path).unwrap().len() + 50));
    server.expect_log("ERROR", "the counters cannot be written: File too large");
    let before = lines(&path).len();
    limit_files(&server, None);
    eventually("the server writes further lines", || lines(&path).len() > before + 1);
    for line in lines(&path) {
        assert_eq!(line.matches(',').count(), 7, "{line}");
    }
}
