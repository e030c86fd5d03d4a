//! Scripts that people start by hand.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::PROGRAM;

/// A directory with the scripts and the program under test, in which `scripts/build` builds nothing.
fn checkout() -> TempDir {
    let directory = TempDir::new().unwrap();
    let scripts = directory.path().join("scripts");
    fs::create_dir(&scripts).unwrap();
    for name in ["demo", "make-mail", "server.bash"] {
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name), scripts.join(name)).unwrap();
    }
    fs::write(scripts.join("build"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(scripts.join("build"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink(PROGRAM, directory.path().join("pop3d")).unwrap();
    directory
}

#[test]
fn the_demo_takes_options_with_or_without_a_directory() {
    let checkout = checkout();
    let mail = checkout.path().join("mail");
    let mail = mail.to_str().unwrap();
    for (arguments, shown) in [(vec!["-p", "0", "-P", "0"], "/mail."), (vec![mail, "-p", "0", "-P", "0"], mail)] {
        // `timeout` sends SIGTERM after a minute, and the script then ends its server.
        let mut demo = Command::new("timeout");
        demo.args(["-k", "5", "60"]).arg(checkout.path().join("scripts/demo")).args(&arguments);
        let mut demo = demo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
        let text: Vec<_> = lines.take_while(|line| line != "Ctrl-C ends it.").collect();
        kill_process(Pid::from_child(&demo), Signal::TERM).unwrap();
        assert_eq!(demo.wait().unwrap().code(), Some(143), "{text:?}");
        assert!(text.iter().any(|line| line.contains("curl pop3://u1:pass@127.0.0.1:")), "{arguments:?}: {text:?}");
        assert!(text.iter().any(|line| line.contains(shown)), "{arguments:?}: {text:?}");
        assert_eq!(fs::exists(mail).unwrap(), arguments.len() == 5);
    }
    let help = Command::new(checkout.path().join("scripts/demo")).arg("--help").output().unwrap();
    assert!(help.status.success() && help.stdout.starts_with(b"usage: scripts/demo [DIRECTORY] [POP3D-OPTION...]"));
}

/// The real programs, with the one fault that they treat differently.
#[test]
fn client_faults_prints_what_each_client_does() {
    let mut script = Command::new("timeout");
    script.args(["-k", "5", "120"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/client-faults"));
    script.arg("no-uidl").env("POP3D_PROGRAMS", Path::new(PROGRAM).parent().unwrap());
    let output = script.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let row = text.lines().find(|line| line.starts_with("| `no-uidl` | ")).expect("a row");
    let cells: Vec<_> = row.trim_matches(['|', ' ']).split(" | ").collect();
    let getmail = "exit code 127, then fetches all";
    assert_eq!(cells[1..6], ["fetches all", getmail, "fetches all", "fetches all", "fetches all"]);
    // Thunderbird is not installed everywhere.
    assert!(["-", "fetches all"].contains(&cells[6]) && cells.len() == 7, "{cells:?}");
    let help = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/client-faults")).arg("-h").output();
    assert!(help.unwrap().stdout.starts_with(b"Shows what mail programs make of a server that misbehaves"));
}
