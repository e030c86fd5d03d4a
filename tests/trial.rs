//! `pop3d test`: a server for trying out mail programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{ChildGuard, Client, PATIENCE, PROGRAM, bounded_output, eventually, lines_of, trusting};

/// A running `pop3d test`. Its temporary directory is below a directory of the test.
struct Trial {
    process: ChildGuard,
    temporary: TempDir,
    stdout: Receiver<String>,
    _stderr: Receiver<String>,
}

impl Trial {
    fn start(arguments: &[&str]) -> Self {
        let temporary = TempDir::new().unwrap();
        let ready = temporary.path().join("ready.json");
        let mut command = Command::new(PROGRAM);
        command.args(["test", "--ready-file"]).arg(ready).args(arguments).env("TMPDIR", temporary.path());
        let mut child: Child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (lines_of(child.stdout.take().unwrap()), lines_of(child.stderr.take().unwrap()));
        Self { process: ChildGuard(child), temporary, stdout, _stderr: stderr }
    }

    fn ready_file(&self) -> PathBuf {
        self.temporary.path().join("ready.json")
    }

    /// Waits for the file that says how to use the server.
    fn ready(&self) -> Value {
        eventually("the server is ready", || self.ready_file().exists());
        serde_json::from_slice(&fs::read(self.ready_file()).unwrap()).unwrap()
    }

    /// Sends a signal and waits for the end. Returns the exit code.
    fn end(&mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_child(&self.process.0);
        kill_process(pid, signal).unwrap();
        self.process.wait().code()
    }

    fn is_nothing_left(&self) -> bool {
        fs::read_dir(self.temporary.path()).unwrap().next().is_none()
    }
}

fn text<'a>(ready: &'a Value, name: &str) -> &'a str {
    ready[name].as_str().unwrap_or_else(|| panic!("{name} in {ready}"))
}

fn client(ready: &Value, service: &str) -> Client {
    Client::connect(format!("{}:{}", text(ready, "host"), ready[service]).parse().unwrap())
}

#[test]
fn a_server_runs_until_it_is_told_to_stop_and_leaves_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut trial = Trial::start(&[]);
        let ready = trial.ready();
        let names: Vec<_> = ready.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = ["certificate", "directory", "fingerprint", "host", "password", "peep", "pop3", "pop3s", "user"];
        assert_eq!(names, expected);
        assert_eq!(fs::metadata(trial.ready_file()).unwrap().permissions().mode() & 0o777, 0o600);
        let directory = Path::new(text(&ready, "directory"));
        assert!(directory.starts_with(trial.temporary.path()));
        assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);

        // Mail can be delivered to the directory by hand.
        let new = directory.join("mail/test/new");
        fs::write(new.join("1.a.h"), "Subject: a\n\na\n").unwrap();
        let mut session = client(&ready, "pop3");
        session.ok();
        session.login(text(&ready, "user"), text(&ready, "password"));
        assert_eq!(session.fetch("RETR 1"), b"Subject: a\r\n\r\na\r\n");
        session.quit();
        let certificate = trusting(Path::new(text(&ready, "certificate")));
        let mut secure = client(&ready, "pop3s").try_tls(&certificate).unwrap();
        secure.ok();
        secure.login(text(&ready, "user"), text(&ready, "password"));
        secure.quit();
        let mut admin = client(&ready, "peep");
        admin.send(&format!("a {} {}", text(&ready, "user"), text(&ready, "password")));
        admin.expect("+");
        drop(admin);

        let printed: Vec<_> = (0..8).map(|_| trial.stdout.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(printed[0], format!("POP3         127.0.0.1:{}", ready["pop3"]));
        assert_eq!(printed[7], format!("fingerprint  {}", text(&ready, "fingerprint")));
        assert_eq!(trial.end(signal), Some(0));
        assert!(trial.is_nothing_left(), "{signal:?}");
    }
}

#[test]
fn the_fingerprint_is_the_certificates() {
    let trial = Trial::start(&[]);
    let ready = trial.ready();
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in", text(&ready, "certificate")]);
    let output = String::from_utf8(bounded_output(&mut command).stdout).unwrap();
    assert_eq!(output.trim().split_once('=').unwrap().1, text(&ready, "fingerprint"));
}

#[test]
fn mail_to_begin_with_is_copied_and_stays() {
    let seeds = TempDir::new().unwrap();
    let path = |name: &str| seeds.path().join(name);
    for folder in ["maildir/new", "maildir/cur", "maildir/.Junk/cur", "flat"] {
        fs::create_dir_all(path(folder)).unwrap();
    }
    let message = "Subject: a\n\na\n";
    for file in ["maildir/cur/1.a.h:2,S", "maildir/.Junk/cur/2.a.h:2,", "maildir/cur/.pop3d-lock", "flat/1"] {
        fs::write(path(file), message).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", path("flat/2")).unwrap();
    fs::write(path("mbox"), format!("From a\n{message}")).unwrap();
    for (seed, flags, count) in
        [("maildir", &["--", "--folders", "INBOX,Junk"][..], 2), ("flat", &[], 1), ("mbox", &["--", "-q"], 1)]
    {
        let seed = path(seed);
        let mut trial = Trial::start(&[&["--seed", seed.to_str().unwrap()], flags].concat());
        let ready = trial.ready();
        let mut session = client(&ready, "pop3");
        session.ok();
        session.login(text(&ready, "user"), text(&ready, "password"));
        assert_eq!(session.call("STAT"), format!("{count} {}", 17 * count), "{}", seed.display());
        session.call("DELE 1");
        session.quit();
        assert_eq!(trial.end(Signal::TERM), Some(0));
        assert!(trial.is_nothing_left());
    }
    assert_eq!(fs::read_to_string(path("mbox")).unwrap(), format!("From a\n{message}"));
    assert!(path("flat/1").exists() && path("maildir/cur/1.a.h:2,S").exists());
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    for (arguments, code, reason) in [
        (&["--seed", "/nowhere"][..], 1, "cannot copy /nowhere to "),
        (&["--", "-p", "1"], 1, "cannot be used multiple times"),
        (&["--", "--timeout", "x"], 1, "invalid value"),
        (&["--", "check"], 1, "the subcommand 'check' cannot be used with"),
        (&["--ready-file", "/nowhere/file"], 1, "cannot write /nowhere/file: "),
        (&["--nonsense"], 2, "--nonsense"),
    ] {
        let temporary = TempDir::new().unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("test").args(arguments).env("TMPDIR", temporary.path()).stdin(Stdio::null());
        let output = bounded_output(&mut command);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{error}");
        assert!(error.contains(reason), "{error}");
        assert!(fs::read_dir(temporary.path()).unwrap().next().is_none(), "{arguments:?}");
    }
}

/// What people do with it: a test of a mail program in Python.
#[test]
fn poplib_uses_the_file() {
    let trial = Trial::start(&[]);
    let ready = trial.ready();
    let new = Path::new(text(&ready, "directory")).join("mail/test/new/1.a.h");
    fs::write(new, "Subject: a\n\nhello\n").unwrap();
    let script = "import json, poplib, ssl, sys\n\
         ready = json.load(open(sys.argv[1]))\n\
         context = ssl.create_default_context(cafile=ready['certificate'])\n\
         server = poplib.POP3_SSL(ready['host'], ready['pop3s'], context=context)\n\
         server.user(ready['user']); server.pass_(ready['password'])\n\
         print(server.retr(1)[1][-1].decode()); server.quit()\n";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(trial.ready_file());
    let output = bounded_output(&mut command);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "hello\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_signal_during_the_start_leaves_nothing() {
    let seed = TempDir::new().unwrap();
    fs::create_dir(seed.path().join("cur")).unwrap();
    for number in 0..3000 {
        fs::write(seed.path().join(format!("cur/{number}.a.h:2,")), "a\n").unwrap();
    }
    let mut trial = Trial::start(&["--seed", seed.path().to_str().unwrap()]);
    eventually("the directory is there", || !trial.is_nothing_left());
    // The server may be copying or serving now, so the exit code may be that of an error or not.
    assert!(trial.end(Signal::TERM).is_some(), "the signal has killed the program");
    assert!(trial.is_nothing_left());
}
