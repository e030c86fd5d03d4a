//! `pop3d check-user`.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A directory with a maildrop for ana and a configuration with two users files.
struct Accounts(TempDir);

impl Accounts {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        fs::create_dir_all(directory.path().join("mail/ana")).unwrap();
        write("mail/ana/1.eml", "Subject: one\n\nFirst\n");
        write("first", "bob:{PLAIN}hunter2\nbroken:{NONE}x\n");
        write("second", "ana:{PLAIN}secret\nbob:{PLAIN}other\n");
        write(
            "pop3d.toml",
            "[[accounts]]\nkind = 'users-file'\nfile = 'first'\n[[accounts]]\nkind = 'users-file'\nfile = 'second'\n",
        );
        Self(directory)
    }

    /// Runs `check-user` with these arguments and one line of standard input. Returns the exit code, and what is printed
    /// without times.
    fn check(&self, arguments: &[&str], password: &str) -> (i32, Vec<String>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pop3d"));
        command.arg("check-user").args(["--config", "pop3d.toml", "-m", "mail"]).args(arguments);
        command.current_dir(self.0.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // A program that does not read it may have ended already.
        let _ = child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap().replace(self.0.path().to_str().unwrap(), "DIR");
        let without_time = |line: &str| match line.rsplit_once(" (") {
            Some((said, took)) => {
                assert!(took.ends_with(" ms)"), "{line}");
                said.to_owned()
            }
            None => line.to_owned(),
        };
        (output.status.code().unwrap(), text.lines().map(without_time).collect())
    }
}

#[test]
fn each_source_is_told_until_one_decides() {
    let accounts = Accounts::new();
    let (own, first, second) = ("command line: unknown user", "users file first: ", "users file second: ");
    let said = |source: &str, what: &str| format!("{source}{what}");
    assert_eq!(
        accounts.check(&["ana"], "secret"),
        (
            0,
            vec![
                own.to_owned(),
                said(first, "unknown user"),
                said(second, "accepted"),
                "maildrop DIR/mail/ana: 1 messages, 23 octets".to_owned()
            ]
        )
    );
    assert_eq!(
        accounts.check(&["ana"], "wrong"),
        (1, vec![own.to_owned(), said(first, "unknown user"), said(second, "wrong password")])
    );
    // The first source that knows the name decides.
    assert_eq!(accounts.check(&["bob"], "other"), (1, vec![own.to_owned(), said(first, "wrong password")]));
    assert_eq!(
        accounts.check(&["broken"], "x"),
        (1, vec![own.to_owned(), said(first, "line 2 cannot be used"), said(second, "unknown user")])
    );
}

#[test]
fn without_a_password_only_the_name_is_asked_for() {
    let accounts = Accounts::new();
    let (code, lines) = accounts.check(&["--no-password", "bob"], "");
    assert_eq!((code, lines.len()), (0, 3), "{lines:?}");
    assert_eq!(lines[2], "maildrop DIR/mail/bob: 0 messages, 0 octets");
    assert_eq!(accounts.check(&["--no-password", "nobody"], "").0, 1);
    assert_eq!(accounts.check(&["--no-password", "../ana"], "").0, 1);
    assert_eq!(accounts.check(&["ana"], ""), (2, vec![]), "an empty password is none");
}

#[test]
fn a_maildrop_that_cannot_be_opened_is_told() {
    let accounts = Accounts::new();
    fs::create_dir_all(accounts.0.path().join("mail/ana/Maildir/new")).unwrap();
    let (code, lines) = accounts.check(&["ana"], "secret");
    assert_eq!(code, 1);
    assert!(lines[3].starts_with("maildrop DIR/mail/ana: it cannot be opened: "), "{lines:?}");
}
