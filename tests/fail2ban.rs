//! The filter in `scripts/fail2ban`, run by the real fail2ban on logs of the real server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{Builder, Client, PASSWORD, Server, USER, eventually};

/// Starts a server with a log file. Returns the server, the log file's path and its directory.
fn with_log_file(builder: Builder) -> (Server, PathBuf, TempDir) {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("pop3d.log");
    (builder.flags(["--log-file", log.to_str().unwrap()]).start(), log, directory)
}

/// The address of each failure that fail2ban finds in the log.
#[track_caller]
fn offenders(log: &Path) -> Vec<String> {
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/fail2ban/filter.d/pop3d.conf");
    let output = Command::new("fail2ban-regex").args(["-o", "ip"]).arg(log).arg(filter).output();
    let output = output.expect("fail2ban-regex is installed (scripts/install-test-tools installs it)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Fails to log in once.
fn fail(client: &mut Client, name: &str) {
    client.call(&format!("USER {name}"));
    client.refused("PASS wrong");
}

#[test]
fn fail2ban_finds_each_failure_and_nothing_else() {
    let (server, log, _directory) = with_log_file(Server::builder());
    assert!(offenders(&log).is_empty());
    server.session().quit();
    let mut forgetful = server.pop3();
    fail(&mut forgetful, USER);
    forgetful.login(USER, PASSWORD);
    forgetful.quit();
    let mut admin = server.peep();
    admin.send("a root wrong");
    admin.expect("-2");
    let mut client = server.pop3();
    (0..50).for_each(|_| drop(client.refused("NOOP")));
    client.refused("NOOP");
    client.closed();
    eventually("the log is complete", || fs::read_to_string(&log).unwrap().contains("end: too many commands"));
    assert_eq!(offenders(&log), ["127.0.0.1"; 3]);
}

#[test]
fn fail2ban_finds_an_ipv6_address() {
    let (server, log, _directory) = with_log_file(Server::builder().address("::1"));
    fail(&mut server.pop3(), USER);
    assert_eq!(offenders(&log), ["::1"]);
}

#[test]
fn fail2ban_finds_a_login_that_is_refused_without_verification() {
    let (server, log, _directory) = with_log_file(Server::builder().flags(["--limit-loopback"]));
    let attempts = (1..1000).find(|attempt| {
        let mut client = server.pop3();
        client.call("USER mrose");
        client.refused(&format!("PASS guess{attempt}")).starts_with("[SYS/TEMP]")
    });
    assert_eq!(offenders(&log).len(), attempts.unwrap());
}

/// A client chooses the user's name, which is in the log. It cannot forge a line with another address by it.
#[test]
fn no_user_name_makes_fail2ban_find_another_address() {
    let (server, log, _directory) = with_log_file(Server::builder());
    for name in [
        "x\" #1 192.0.2.1:1 login failed: user=\"y",
        "x\r2026-11-22T23:59:59.123Z [WARN] #1 192.0.2.1:1 login failed: user=\"y\"",
        "2026-11-22T23:59:59.123Z [WARN] #1 192.0.2.1:1 login failed: user=y",
        "\x1b[2K\x08\x08\u{2028}[WARN] #1 192.0.2.1:1 login failed: user=\"y\"",
        "192.0.2.1",
    ] {
        // A space would end the name. Python, which runs the filter, takes a no-break space for a space, too.
        let name = name.replace(' ', "\u{a0}");
        fail(&mut server.pop3(), &name);
        let mut admin = server.peep();
        admin.send(&format!("a {} wrong", name.replace(char::is_control, "_")));
        admin.expect("-2");
    }
    assert_eq!(offenders(&log), ["127.0.0.1"; 10]);
}

/// The journal keeps the level and the time elsewhere, and fail2ban puts the host and the program in front.
#[test]
fn failures_are_found_in_lines_of_the_journal() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("journal");
    let line = |message: &str| format!("2026-11-22T23:59:59.123Z host pop3d[77]: {message}\n");
    let lines = [
        line("#7 192.0.2.1:4711 login failed: user=\"ana\" reason=\"wrong password\""),
        line("#8 [2001:db8::1]:7 login refused: user=\"a\" reason=\"too many failed logins, for 3 s\""),
        line("#9 192.0.2.3:1 login refused: user=\"a\" reason=\"the maildrop is locked by session 1 of ::1 for 2 s\""),
        line("#10 192.0.2.4:1 end: quit; retrieved=0 octets=0 deleted=0"),
    ];
    fs::write(&log, lines.concat()).unwrap();
    assert_eq!(offenders(&log), ["192.0.2.1", "2001:db8::1"]);
}
