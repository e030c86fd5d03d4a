//! The Debian package's systemd units, as systemd judges them. scripts/package-test tries the package itself.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::harness::PROGRAM;

const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/debian");

/// The exposure that systemd-analyze may find, in tenths. An ordinary unit without hardening has 96.
const EXPOSURE: &str = "--threshold=19";

/// The units under the names that they have when they are installed, with the program under test.
fn units() -> TempDir {
    let directory = TempDir::new().unwrap();
    for (file, unit) in [
        ("pop3d.service", "pop3d.service"),
        ("pop3d.socket", "pop3d.socket"),
        ("pop3d.pop3d-tls.socket", "pop3d-tls.socket"),
        ("pop3d.pop3d-pam.service", "pop3d-pam.service"),
        ("pop3d.pop3d-pam.socket", "pop3d-pam.socket"),
    ] {
        let text = fs::read_to_string(Path::new(PACKAGE).join(file)).unwrap();
        let text = text.replace("ExecStart=/usr/sbin/pop3d ", &format!("ExecStart={PROGRAM} "));
        let text = text.replace("ExecStart=/usr/libexec/pop3d/pop3d-pam ", &format!("ExecStart={PROGRAM} "));
        fs::write(directory.path().join(unit), text).unwrap();
    }
    directory
}

/// Runs systemd-analyze, for a minute at most. `None` if this machine does not have it.
fn analyze(arguments: &[&str], directory: &TempDir, units: &[&str]) -> Option<Output> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60", "systemd-analyze"]).args(arguments).args(units);
    let output = command.current_dir(directory).stdin(Stdio::null()).output().unwrap();
    // timeout(1) ends with 127 if there is no such program.
    if output.status.code() == Some(127) {
        eprintln!("passed over: there is no systemd-analyze (scripts/install-test-tools)");
        return None;
    }
    Some(output)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let directory = units();
    // The manual pages are not installed.
    let arguments = ["--man=no", "--recursive-errors=no", "verify"];
    let units =
        ["./pop3d.service", "./pop3d.socket", "./pop3d-tls.socket", "./pop3d-pam.service", "./pop3d-pam.socket"];
    let Some(output) = analyze(&arguments, &directory, &units) else { return };
    let text = text(&output);
    assert!(output.status.success() && !text.contains("pop3d"), "{text}");
}

#[test]
fn the_service_is_hardened() {
    let Some(output) = analyze(&["security", "--offline=yes", EXPOSURE], &units(), &["./pop3d.service"]) else {
        return;
    };
    let text = text(&output);
    assert!(output.status.success() && text.contains("Overall exposure level for pop3d.service: 1."), "{text}");
}

#[test]
fn the_service_that_asks_pam_has_few_of_roots_rights() {
    let Some(output) = analyze(&["security", "--offline=yes", "--threshold=45"], &units(), &["./pop3d-pam.service"])
    else {
        return;
    };
    assert!(output.status.success(), "{}", text(&output));
}
