//! State that outlives the server: the state directory with counters and a key, and the file of `--stats-log`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine as _};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Builder, Server, eventually};

/// A server that keeps its state in `directory`.
fn with_state(directory: &Path) -> Builder {
    Server::builder().flags(["--state", directory.to_str().unwrap()])
}

/// The values of the counters that a restart must not change.
fn counters(server: &Server) -> [String; 5] {
    let mut admin = server.admin();
    ["rb?", "re?", "xe?", "hc?", "hu?"].map(|query| admin.value(query))
}

/// Runs a session that retrieves a message and removes it.
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

/// A client may store a salted password instead of the password (RFC 5802 section 5.1).
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
fn damaged_counters_start_from_0_with_a_line_in_the_log() {
    let state = TempDir::new().unwrap();
    fs::write(state.path().join("counters"), "pop3d counters 1\nsent 395\n").unwrap();
    let server = with_state(state.path()).start();
    assert_eq!(counters(&server), ["0", "0", "0", "0", "0"]);
    let log = server.stderr();
    assert!(log.contains("counters: counting starts from 0: it is damaged"), "{log}");
}

#[test]
fn a_second_server_with_the_same_state_directory_does_not_start() {
    let state = TempDir::new().unwrap();
    let _server = with_state(state.path()).start();
    let output = with_state(state.path()).refused();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let expected = format!("pop3d: cannot use {} as state directory: another server uses it\n", state.path().display());
    assert_eq!(stderr, expected);
}

#[test]
fn a_server_with_an_unusable_state_directory_does_not_start() {
    let state = TempDir::new().unwrap();
    let file = state.path().join("file");
    fs::write(&file, "").unwrap();
    // There is a directory in the place of the file of counters.
    let blocked = state.path().join("blocked");
    fs::create_dir_all(blocked.join("counters")).unwrap();
    for unusable in [file, state.path().join("missing/state"), blocked] {
        let output = with_state(&unusable).refused();
        assert_eq!(output.status.code(), Some(1), "{unusable:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let error = stderr.lines().last().unwrap();
        assert!(error.starts_with("pop3d: cannot "), "{stderr}");
    }
}

#[test]
fn a_line_of_counters_is_written_each_second_also_after_rotation() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("stats.csv");
    let server = Server::builder().flags(["--stats-log", &format!("{}:1", path.display())]).start();
    let _session = server.session();
    let lines = || fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    // time,rb,re,xe,cc,cu,hc,hu
    eventually("a line counts the session", || lines().last().is_some_and(|line| line.ends_with(",0,0,1,1,1,1")));
    fs::rename(&path, directory.path().join("stats.csv.1")).unwrap();
    eventually("the server starts a new file", || lines().len() >= 2);
    assert_eq!(lines()[0], "time,rb,re,xe,cc,cu,hc,hu");
    assert!(lines()[1].ends_with(",0,0,1,1,1,1"));
}
