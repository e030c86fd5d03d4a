//! `pop3d doctor --against`: with pop3d, with a real Dovecot, and with servers that are broken or hostile.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::geteuid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{NOBODY, doctor, state};
use crate::harness::{Certificate, ChildGuard, MailRoot, PASSWORD, PATIENCE, Server, USER};

/// A file with passwords for the other server.
fn passwords(text: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("passwords");
    fs::write(&path, text).unwrap();
    (directory, path)
}

/// Compares the maildrop of the test's user with a server, with these flags. Returns the exit code, the comparison and
/// the sums.
fn compared(mail: &MailRoot, server: SocketAddr, flags: &[&str]) -> (Option<i32>, Value, Value) {
    let (_directory, file) = passwords(&format!("{USER}:{PASSWORD}\n"));
    let (server, file) = (format!("localhost:{}", server.port()), file.display().to_string());
    let arguments = ["--json", "-m", mail.path().to_str().unwrap(), "--against", &server, "--passwords", &file];
    let (code, output, error) = doctor(&[&arguments, flags].concat());
    assert_eq!(error, "");
    let report: Value = serde_json::from_str(&output).unwrap();
    (code, report["maildrops"][0]["against"].clone(), report["summary"]["against"].clone())
}

/// A maildrop with three messages.
fn put_mail(mail: &MailRoot) {
    for number in 1..=3 {
        mail.maildrop(USER).put(&format!("new/{number}.a.h"), format!("Subject: {number}\n\n.\n"));
    }
}

#[test]
fn all_stays_if_the_other_server_is_this_one() {
    let server = Server::start();
    put_mail(server.mail());
    let before = server.maildrop().messages();
    let (code, comparison, sum) = compared(server.mail(), server.pop3_address(), &[]);
    let none = json!({"count": 0, "examples": []});
    let expected = json!({
        "error": null, "messages": 3, "same_ids": 3, "lost_ids": none, "new_ids": none, "same_sizes": 3,
        "other_sizes": none,
    });
    assert_eq!((code, comparison), (Some(0), expected));
    let sums = json!({
        "compared": 1, "failed": 0, "same_ids": 3, "lost_ids": 0, "same_sizes": 3, "other_sizes": 0,
    });
    assert_eq!(sum, sums);
    assert_eq!(server.maildrop().messages(), before);
}

#[test]
fn what_does_not_stay_is_named_in_the_text() {
    let server = Server::start();
    put_mail(server.mail());
    // The same mail after a move in which one message was lost, one was renamed, and one was changed.
    let moved = MailRoot::new();
    moved.maildrop(USER).put("new/1.a.h", "Subject: 1\n\n.\n.\n");
    moved.maildrop(USER).put("new/2.other", "Subject: 2\n\n.\n");
    let (_directory, file) = passwords(&format!("{USER}:{PASSWORD}\nbob:x\n"));
    let old = format!("127.0.0.1:{}", server.pop3_address().port());
    let arguments = ["-m", moved.path().to_str().unwrap(), "--against", &old, "--passwords", file.to_str().unwrap()];
    let (code, output, error) = doctor(&arguments);
    assert_eq!((code, error.as_str()), (Some(1), ""));
    let expected = "  old server: 3 messages; 1 of 3 unique-ids and 0 of 1 sizes stay\n  \
         fix: unique-ids that only the old server has: 2: 2 (old 2.a.h, here 2.other), 3 (old 3.a.h)\n  \
         fix: messages that clients fetch because their unique-id is new: 1: 2 (here 2.other)\n  \
         fix: sizes that differ: 1: 1 (old 17, here 20)\n";
    assert!(output.contains(expected), "{output}");
    assert!(output.contains("  fix: old server: not compared: the login failed: it answered -ERR "), "{output}");
    let end =
        "; 2 need a hand\nold server: 1 maildrop compared, 1 failed; unique-ids: 1 of 3 stay; sizes: 0 of 1 stay\n";
    assert!(output.ends_with(end), "{output}");
    let (code, output, _) = doctor(&[&arguments[..], &["eve"]].concat());
    assert_eq!(code, Some(1));
    assert!(output.contains("not compared: the file of --passwords has no line for the user\n"), "{output}");
}

#[test]
fn tls_is_checked_by_a_certificate() {
    let certificate = Certificate::new();
    let server = Server::builder().tls(&certificate).start();
    put_mail(server.mail());
    let chain = certificate.chain().display().to_string();
    for (address, how) in [(server.pop3_address(), "stls"), (server.pop3s_address(), "pop3s")] {
        let with = |flags: &[&str]| compared(server.mail(), address, &[&["--against-tls", how], flags].concat());
        let (code, comparison, _) = with(&["--ca", &chain]);
        assert_eq!((code, &comparison["same_ids"]), (Some(0), &json!(3)), "{how}");
        let (code, comparison, _) = with(&["--insecure"]);
        assert_eq!((code, &comparison["same_ids"]), (Some(0), &json!(3)), "{how}");
        let other = Certificate::new();
        let (code, comparison, _) = with(&["--ca", other.chain().to_str().unwrap()]);
        let error = comparison["error"].as_str().unwrap();
        assert!(error.starts_with("TLS with it failed: nobody trusted here has signed"), "{error}");
        assert_eq!(code, Some(1));
    }
    // A server without STLS gets no password.
    let (server, file) = (Server::start(), passwords(&format!("{USER}:{PASSWORD}\n")));
    let (_, comparison, _) = compared(server.mail(), server.pop3_address(), &["--against-tls", "stls", "--ca", &chain]);
    assert!(comparison["error"].as_str().unwrap().ends_with("(--against-tls none would send the password in clear)"));
    drop(file);
}

#[test]
fn wrong_files_and_addresses_are_refused_without_a_password_in_the_message() {
    let (_directory, file) = passwords("ana:x\nsecret\n");
    let file = file.to_str().unwrap();
    for (arguments, reason) in [
        (&["--against", "a", "--passwords", file][..], "line 2: it has to have the form NAME:PASSWORD"),
        (&["--against", "a", "--passwords", "/nowhere"], "cannot read /nowhere: "),
        (&["--against", "a"], "--passwords"),
        (&["--passwords", file], "--against"),
        (&["--against", "a:0", "--passwords", file], "HOST:PORT"),
        (&["--insecure"], "--against"),
    ] {
        let (code, output, error) = doctor(arguments);
        assert_eq!((code, output.as_str()), (Some(2), ""));
        assert!(error.contains(reason) && !error.contains("secret"), "{error}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Dovecot

/// A POP3 server that serves one maildrop by the real program of Dovecot. Its own part is the greeting and the login, of
/// which that program has none.
fn dovecot(mail: &MailRoot, connections: usize) -> (SocketAddr, TempDir) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().display();
    let config = format!(
        "mail_location = maildir:{}\nfirst_valid_uid = 1\nfirst_valid_gid = 0\nlog_path = {path}/log\n\
         base_dir = {path}/run\nstate_dir = {path}/state\nssl = no\n",
        mail.path().join(USER).display()
    );
    let file = directory.path().join("dovecot.conf");
    fs::write(&file, config).unwrap();
    for root in [directory.path(), mail.path()] {
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        give_away(root);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let home = directory.path().to_owned();
    thread::spawn(move || {
        for _ in 0..connections {
            serve_by_dovecot(&listener.accept()?.0, &file, &home)?;
        }
        io::Result::Ok(())
    });
    (address, directory)
}

fn serve_by_dovecot(socket: &TcpStream, config: &Path, home: &Path) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut lines, mut socket) = (BufReader::new(socket.try_clone()?).lines(), socket.try_clone()?);
    for (expected, answer) in
        [(None, "+OK\r\n"), (Some("CAPA"), "-ERR\r\n"), (Some("USER "), "+OK\r\n"), (Some("PASS "), "+OK\r\n")]
    {
        if let Some(expected) = expected {
            let line = lines.next().unwrap()?;
            assert!(line.starts_with(expected), "{line}");
        }
        socket.write_all(answer.as_bytes())?;
    }
    socket.set_read_timeout(None)?;
    let mut command = Command::new("/usr/lib/dovecot/pop3");
    command.arg("-c").arg(config).env("HOME", home).env("USER", USER).stderr(Stdio::null());
    command.stdin(OwnedFd::from(socket.try_clone()?)).stdout(OwnedFd::from(socket));
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    ChildGuard(command.spawn()?).wait();
    Ok(())
}

/// Gives a directory and everything in it to the user whom Dovecot serves, because it refuses to serve root.
fn give_away(path: &Path) {
    if geteuid().is_root() {
        for path in state(path).into_keys() {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
}

#[test]
fn a_real_dovecots_unique_ids_stay_with_the_flag_for_them() {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    for number in 1..=30 {
        let folder = if number % 2 == 0 { "cur" } else { "new" };
        maildrop.put(&format!("{folder}/17000000{number:02}.M1P1.h"), format!("Subject: {number}\n\n.\nbody\n"));
    }
    let (address, _directory) = dovecot(&mail, 3);
    let (code, comparison, _) = compared(&mail, address, &["--unique-ids", "dovecot"]);
    assert_eq!((&comparison["same_ids"], &comparison["same_sizes"]), (&json!(30), &json!(30)), "{comparison}");
    assert_eq!(code, Some(0));
    // Without the flag, every client would fetch every message once more.
    let (code, comparison, _) = compared(&mail, address, &[]);
    assert_eq!((&comparison["same_ids"], &comparison["lost_ids"]["count"]), (&json!(0), &json!(30)));
    assert_eq!((&comparison["new_ids"]["count"], code), (&json!(30), Some(1)));
    // Dovecot does not count the line end that is added to a message without one.
    maildrop.put("new/1700000099.M1P1.h", "no end");
    give_away(mail.path());
    let (code, comparison, _) = compared(&mail, address, &["--unique-ids", "dovecot"]);
    assert_eq!((&comparison["same_ids"], code), (&json!(31), Some(1)));
    assert_eq!(comparison["other_sizes"]["examples"], json!([{"number": 31, "old": "6", "here": "8"}]));
}

// ---------------------------------------------------------------------------------------------------------------------
// Broken and hostile servers

/// A server that sends `greeting`, and then the next one of the answers for each line.
fn scripted(greeting: &'static str, answers: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(greeting.as_bytes())?;
        let mut lines = BufReader::new(socket.try_clone()?).lines();
        for answer in answers {
            lines.next().transpose()?;
            socket.write_all(answer.as_bytes())?;
        }
        if !answers.is_empty() {
            lines.next().transpose()?; // the client leaves, or says QUIT
        }
        io::Result::Ok(())
    });
    address
}

#[test]
fn broken_servers_are_described() {
    let long: &str = Box::leak(format!("+OK {}\r\n", "x".repeat(600)).into_boxed_str());
    let many: &str = Box::leak(format!("+OK\r\n{}.\r\n", "X\r\n".repeat(101)).into_boxed_str());
    let ok: &str = "+OK\r\n";
    let cases: [(&'static str, &'static [&'static str], &str); 12] = [
        ("", &[], "it closed the connection"),
        ("220 smtp ESMTP\r\n", &[], "it does not speak POP3: 220 smtp ESMTP"),
        ("+OKAY\r\n", &[], "it does not speak POP3: +OKAY"),
        ("-ERR [SYS/TEMP] no\u{1b}[2J\r\n", &[], "it answered -ERR [SYS/TEMP] no\u{1b}[2J"),
        (long, &[], "it sent a line of more than 512 octets"),
        (ok, Box::leak(Box::new([many])), "CAPA has more than 100 lines"),
        (ok, &["-ERR\r\n", "+OK\r\n", "-ERR no\r\n"], "the login failed: it answered -ERR no"),
        (ok, &["-ERR\r\n", "+OK\r\n", "+OK\r\n", "-ERR what\r\n"], "it answered -ERR what"),
        (ok, &["-ERR\r\n", "+OK\r\n", "+OK\r\n", "+OK\r\nx y\r\n.\r\n"], "UIDL has a line that is none: x y"),
        (
            ok,
            &["-ERR\r\n", "+OK\r\n", "+OK\r\n", "+OK\r\n1 a\r\n.\r\n", "+OK\r\n.\r\n"],
            "UIDL has 1 messages and LIST 0",
        ),
        (
            ok,
            &["-ERR\r\n", "+OK\r\n", "+OK\r\n", "+OK\r\n1 a\r\n.\r\n", "+OK\r\n2 7\r\n.\r\n"],
            "LIST does not have message 1 of UIDL",
        ),
        (ok, &["+OK\r\nSASL LOGIN PLAIN\r\n.\r\n", "-ERR no\r\n"], "the login failed: it answered -ERR no"),
    ];
    let mail = MailRoot::new();
    for (greeting, answers, reason) in cases {
        let (code, comparison, _) = compared(&mail, scripted(greeting, answers), &[]);
        assert_eq!((code, &comparison["error"]), (Some(1), &json!(reason)));
    }
}

#[test]
fn a_server_without_capa_or_with_sizes_that_have_more_words_is_accepted() {
    let server = scripted(
        "+OK\r\n",
        &["-ERR\r\n", "+OK\r\n", "+OK\r\n", "+OK\r\n1 a\u{1b}[2J\r\n.\r\n", "+OK\r\n1 7 octets\r\n.\r\n"],
    );
    let mail = MailRoot::new();
    let (_directory, file) = passwords(&format!("{USER}:{PASSWORD}\n"));
    let old = server.to_string();
    let arguments = ["-m", mail.path().to_str().unwrap(), "--against", &old, "--passwords", file.to_str().unwrap()];
    let (code, output, _) = doctor(&arguments);
    assert!(
        output.contains("only the old server has: 1: 1 (old a\\u{1b}[2J)\n") && !output.contains('\u{1b}'),
        "{output}"
    );
    assert_eq!(code, Some(1));
}

#[test]
fn a_slow_server_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept()?;
        // An octet now and then, so that no single read takes long.
        while socket.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
        io::Result::Ok(())
    });
    let (code, comparison, _) = compared(&MailRoot::new(), address, &["--against-timeout", "1"]);
    assert_eq!((code, &comparison["error"]), (Some(1), &json!("it did not answer in time")));
}
