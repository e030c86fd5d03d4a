//! What outlives a server: counters in the state directory, the log of counters.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Builder, Server, eventually};

fn with_state(directory: &Path) -> Builder {
    Server::builder().flags(["--state", directory.to_str().unwrap()])
}

/// Counters that a restart must not change, for a session that has retrieved one message and removed it.
fn counters(server: &Server) -> [String; 5] {
    let mut admin = server.admin();
    ["rb?", "re?", "xe?", "hc?", "hu?"].map(|query| admin.value(query))
}

fn retrieve_and_remove(server: &Server) {
    server.maildrop().put("1", "Subject: one\n\ntext\n");
    let mut client = server.session();
    client.fetch("RETR 1");
    client.call("DELE 1");
    client.quit();
}

#[test]
fn counters_survive_a_restart() {
    let state = TempDir::new().unwrap();
    let mut server = with_state(&state.path().join("new")).start();
    retrieve_and_remove(&server);
    let before = counters(&server);
    assert_eq!(before[1..], ["1", "1", "1", "1"]);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));

    let server = with_state(&state.path().join("new")).start();
    assert_eq!(counters(&server), before);
    retrieve_and_remove(&server);
    assert_eq!(counters(&server)[1..], ["2", "2", "2", "2"]);
}

#[test]
fn counters_survive_a_kill() {
    let state = TempDir::new().unwrap();
    let server = with_state(state.path()).start();
    retrieve_and_remove(&server);
    let before = counters(&server);
    let file = state.path().join("counters");
    let kept = || before.iter().all(|value| fs::read_to_string(&file).unwrap().contains(&format!(" {value}\n")));
    eventually("the counters are written", kept);
    drop(server); // by SIGKILL
    assert_eq!(counters(&with_state(state.path()).start()), before);
}

/// A client may remember a password that it has salted (RFC 5802 section 5.1).
#[test]
fn a_users_salt_survives_a_restart() {
    let state = TempDir::new().unwrap();
    let salt = |server: &Server| {
        let mut client = server.pop3();
        client.send("AUTH SCRAM-SHA-256 biwsbj1tcm9zZSxyPXg="); // n,,n=mrose,r=x
        let line = client.line();
        let challenge = BASE64.decode(line.strip_prefix("+ ").unwrap()).unwrap();
        String::from_utf8(challenge).unwrap().split_once(",s=").unwrap().1.to_owned()
    };
    let kept = salt(&with_state(state.path()).start());
    assert_eq!(salt(&with_state(state.path()).start()), kept);
    assert_ne!(salt(&Server::start()), kept);
    let mode = fs::metadata(state.path().join("scram-salt-key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn damaged_counters_start_from_0_and_say_so() {
    let state = TempDir::new().unwrap();
    fs::write(state.path().join("counters"), "pop3d counters 1\nsent 395\n").unwrap();
    let server = with_state(state.path()).start();
    assert_eq!(counters(&server), ["0", "0", "0", "0", "0"]);
    let said = server.stderr();
    assert!(said.contains("counters: counting starts from 0: it is damaged"), "{said}");
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let state = TempDir::new().unwrap();
    let _server = with_state(state.path()).start();
    let output = with_state(state.path()).refused();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = format!("pop3d: cannot use {} as state directory: another server uses it\n", state.path().display());
    assert_eq!(said, expected);
}

#[test]
fn a_directory_that_cannot_be_used_is_refused() {
    let state = TempDir::new().unwrap();
    let file = state.path().join("file");
    fs::write(&file, "").unwrap();
    // A directory where the counters should be: nothing can be kept.
    let blocked = state.path().join("blocked");
    fs::create_dir_all(blocked.join("counters")).unwrap();
    for unusable in [file, state.path().join("missing/state"), blocked] {
        let output = with_state(&unusable).refused();
        assert_eq!(output.status.code(), Some(1), "{unusable:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let error = said.lines().last().unwrap();
        assert!(error.starts_with("pop3d: cannot "), "{said}");
    }
}

#[test]
fn a_line_of_counters_each_second_also_when_the_file_is_rotated() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("stats.csv");
    let server = Server::builder().flags(["--stats-log", &format!("{}:1", path.display())]).start();
    let _session = server.session();
    let lines = || fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    // time,rb,re,xe,cc,cu,hc,hu
    eventually("a line tells of the session", || lines().last().is_some_and(|line| line.ends_with(",0,0,1,1,1,1")));
    fs::rename(&path, directory.path().join("stats.csv.1")).unwrap();
    eventually("a new file", || lines().len() >= 2);
    assert_eq!(lines()[0], "time,rb,re,xe,cc,cu,hc,hu");
    assert!(lines()[1].ends_with(",0,0,1,1,1,1"));
}
