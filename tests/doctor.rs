//! `pop3d doctor`: what it finds in maildrops, and that it changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::geteuid;
use serde_json::{Value, json};

mod against;

use crate::harness::{MailRoot, PROGRAM, Server, USER, bounded_output, copy_of_program};

/// An unprivileged user.
const NOBODY: u32 = 65534;

/// Runs `pop3d doctor` with these arguments. Returns its exit code, stdout and stderr.
fn doctor(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = bounded_output(Command::new(PROGRAM).arg("doctor").args(arguments));
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Examines the maildrop of one user and returns its exit code and the JSON object.
fn examined(mail: &MailRoot, user: &str, flags: &[&str]) -> (Option<i32>, Value) {
    let arguments = ["--json", "-m", mail.path().to_str().unwrap(), user];
    let (code, output, error) = doctor(&[&arguments, flags].concat());
    assert_eq!(error, "");
    let report: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(report["maildrops"].as_array().unwrap().len(), 1);
    assert_eq!(report["summary"]["need_a_hand"], json!(i32::from(code == Some(1))));
    (code, report["maildrops"][0].clone())
}

/// The findings of a maildrop: name, count and examples.
fn findings(maildrop: &Value) -> Vec<(String, u64, Vec<String>)> {
    let one = |finding: &Value| {
        let examples = finding["examples"].as_array().unwrap().iter();
        let examples = examples.map(|it| it.as_str().unwrap().to_owned()).collect();
        (finding["finding"].as_str().unwrap().to_owned(), finding["count"].as_u64().unwrap(), examples)
    };
    maildrop["findings"].as_array().unwrap().iter().map(one).collect()
}

fn found(name: &str, examples: &[&str]) -> (String, u64, Vec<String>) {
    (name.to_owned(), examples.len() as u64, examples.iter().map(ToString::to_string).collect())
}

/// Everything about a directory and what is in it that a program could change.
fn state(directory: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let text = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let times =
            (metadata.ino(), metadata.mtime_nsec() + metadata.mtime(), metadata.ctime_nsec() + metadata.ctime());
        all.insert(path, (times.0, times.1, times.2, metadata.mode(), text));
    }
    all
}

/// A message as Dovecot compresses it.
fn compressed(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_healthy_maildrop_is_one_line() {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    maildrop.put("cur/1.a.h,S=14,W=17:2,S", "Subject: a\n\na\n");
    maildrop.put("new/2.a.h", "Subject: b\r\n\r\nb\r\n");
    let before = state(mail.path());
    let (code, output, error) = doctor(&["-m", mail.path().to_str().unwrap(), USER]);
    let owner = output.split(", ").next().unwrap().trim_start_matches(&format!("{USER}: maildir of ")).to_owned();
    let expected = format!(
        "{USER}: maildir of {owner}, 2 messages, 34 octets\n1 maildrop, 2 messages, 34 octets; none needs a hand\n"
    );
    assert_eq!((code, output.as_str(), error.as_str()), (Some(0), expected.as_str(), ""));
    assert_eq!(state(mail.path()), before);
}

#[test]
fn every_fault_of_a_maildir_is_found_and_nothing_is_changed() {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    let text = "Subject: a\n\na\n";
    maildrop.put("cur/1.a.h,S=15:2,S", text);
    maildrop.put("cur/2.a.h,W=99:2,S", text);
    maildrop.put("cur/3.a h", text);
    maildrop.put("cur/4.nul.h", "a\0\n");
    maildrop.put("cur/5.end.h,S=1,W=1", "a");
    maildrop.put("cur/5.long.h", format!("{}\n", "x".repeat(999)));
    maildrop.put("cur/6.twice.h:2,", text);
    maildrop.put("new/6.twice.h", "Subject: other\n\n");
    maildrop.put("cur/7.z.h,S=14:2,SZ", compressed(text));
    maildrop.put("cur/7.zw.h,S=13:2,SZ", compressed(text));
    maildrop.put("cur/8.bad\u{1b}[2J", text);
    let old = maildrop.put("tmp/old", text);
    maildrop.put("tmp/young", text);
    let past = SystemTime::now() - Duration::from_secs(37 * 3600);
    File::options().write(true).open(&old).unwrap().set_modified(past).unwrap();
    fs::write(maildrop.path("maildirsize"), "1000S\n 14 1\n").unwrap();
    let before = state(mail.path());
    let (code, report) = examined(&mail, USER, &[]);
    assert_eq!((code, &report["layout"], &report["messages"]), (Some(1), &json!("maildir"), &json!(11)));
    assert_eq!(report["needs_a_hand"], json!(true));
    let duplicates = findings(&report).into_iter().find(|it| it.0 == "duplicate").unwrap();
    assert_eq!(duplicates.1, 1);
    let rest: Vec<_> = findings(&report).into_iter().filter(|it| it.0 != "duplicate").collect();
    let expected = [
        found("wrong_stored_size", &["cur/1.a.h,S=15:2,S", "cur/7.zw.h,S=13:2,SZ"]),
        found("wrong_wire_size", &["cur/2.a.h,W=99:2,S"]),
        found("left_over", &["tmp/old"]),
        found("quota", &["maildirsize"]),
        found("invalid_name", &["cur/3.a h", "cur/8.bad\u{1b}[2J"]),
        found("compressed", &["cur/7.z.h,S=14:2,SZ", "cur/7.zw.h,S=13:2,SZ"]),
        found("no_line_end", &["cur/5.end.h,S=1,W=1"]),
        found("nul", &["cur/4.nul.h"]),
        found("long_line", &["cur/5.long.h"]),
    ];
    assert_eq!(rest, expected);
    let (_, output, _) = doctor(&["-m", mail.path().to_str().unwrap(), USER]);
    assert!(!output.contains('\u{1b}') && output.contains("cur/8.bad\\u{1b}[2J"), "{output}");
    assert!(output.ends_with("; 1 needs a hand\n"), "{output}");
    assert_eq!(state(mail.path()), before);
}

#[test]
fn the_quota_file_may_or_may_not_count_what_is_in_the_trash() {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    maildrop.put("cur/1.a.h,S=14:2,S", "Subject: a\n\na\n");
    maildrop.put("cur/2.a.h:2,ST", "12345\n");
    for folder in [".Sent/cur", ".Trash/cur"] {
        fs::create_dir_all(maildrop.path(folder)).unwrap();
    }
    maildrop.put(".Sent/cur/3.a.h,S=100:2,", "compressed");
    maildrop.put(".Trash/cur/4.a.h:2,", "1234567890");
    for (octets, count, is_right) in [(114, 2, true), (120, 3, true), (124, 3, true), (130, 4, true), (14, 1, false)] {
        fs::write(maildrop.path("maildirsize"), format!("9S,9C\n{} 5\n-7 {}\n", octets + 7, count - 5)).unwrap();
        let (code, report) = examined(&mail, USER, &[]);
        assert_eq!((code, findings(&report).is_empty()), (Some(i32::from(!is_right)), is_right), "{octets} {count}");
    }
}

#[test]
fn flat_maildrops_mboxes_and_missing_ones_are_examined() {
    let mail = MailRoot::new();
    mail.maildrop("flat").put("a b", "x\n");
    let mbox = "From a\nSubject: 1\n\none\n\nFrom b\nSubject: 1\n\none\n\nFrom c\nSubject: 3\n\nno end";
    fs::write(mail.path().join("mbox"), mbox).unwrap();
    fs::write(mail.path().join("other"), "no mbox\n").unwrap();
    fs::create_dir_all(mail.path().join("home/Maildir/new")).unwrap();
    let before = state(mail.path());
    let (code, flat) = examined(&mail, "flat", &[]);
    assert_eq!((code, &flat["layout"], &flat["octets"], findings(&flat)), (Some(0), &json!("flat"), &json!(3), vec![]));
    let (code, report) = examined(&mail, "mbox", &[]);
    assert_eq!((code, &report["layout"], &report["messages"]), (Some(0), &json!("mbox"), &json!(3)));
    let names: Vec<_> = findings(&report).into_iter().map(|(name, count, _)| (name, count)).collect();
    assert_eq!(names, [("equal_messages".to_owned(), 1), ("no_line_end".to_owned(), 1)]);
    for refused in ["other", "home"] {
        let (code, report) = examined(&mail, refused, &[]);
        assert_eq!((code, findings(&report)), (Some(1), vec![found("refused", &[refused])]), "{report}");
    }
    let (code, report) = examined(&mail, "nobody", &[]);
    assert_eq!((code, findings(&report)), (Some(0), vec![found("missing", &["nobody"])]));
    let (code, report) = examined(&mail, "flat", &["--layout", "maildir"]);
    assert_eq!((code, findings(&report)), (Some(0), vec![found("missing", &["flat"])]));
    assert_eq!(state(mail.path()), before);
}

#[test]
fn messages_that_cannot_be_read_are_found() {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    for (name, mode) in [("new/1.a.h", 0o600), ("new/2.a.h", 0), ("new/3.a.h", 0)] {
        let path = maildrop.put(name, "a\n");
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let (program, _directory) = copy_of_program();
    let mut command = Command::new(program);
    if geteuid().is_root() {
        for path in state(mail.path()).into_keys() {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    command.args(["doctor", "-m", mail.path().to_str().unwrap(), USER, "--json"]);
    let output = bounded_output(&mut command);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let maildrop = &report["maildrops"][0];
    assert_eq!((output.status.code(), &maildrop["messages"]), (Some(1), &json!(1)));
    assert_eq!(findings(maildrop), [found("unreadable", &["new/2.a.h", "new/3.a.h"])]);
    assert!(maildrop["findings"][0]["detail"].as_str().unwrap().starts_with("Permission denied"));
}

#[test]
fn a_session_that_holds_the_maildrop_is_named() {
    for user in ["maildir", "flat"] {
        let server = Server::builder().user(user, "x").start();
        server.mail().maildrop("maildir").put("cur/1.a.h", "a\n");
        server.mail().maildrop("flat").put("1", "a\n");
        let mut session = server.pop3();
        session.login(user, "x");
        let pid = server.pid();
        let (code, report) = examined(server.mail(), user, &[]);
        let lock = &report["locks"][0];
        assert_eq!((code, &lock["lock"], &lock["process"]), (Some(0), &json!("session"), &json!(pid)));
        assert_eq!(lock["programs"], json!([{"name": "pop3d", "process": pid}]));
        let (_, output, _) = doctor(&["-m", server.mail().path().to_str().unwrap(), user]);
        assert!(output.contains(&format!(" (process {pid}) for ")), "{output}");
        session.quit();
        drop(session_end(&server, user));
        assert_eq!(examined(server.mail(), user, &[]).1["locks"], json!([]));
    }
}

/// A session that begins after the last one has released the maildrop, and that has ended as well.
fn session_end(server: &Server, user: &str) -> Server {
    let other = Server::builder().user(user, "x").mail(server.mail()).start();
    let mut session = other.pop3();
    session.login(user, "x");
    session.quit();
    other
}

#[test]
fn locks_of_an_mbox_are_found() {
    let mail = MailRoot::new();
    let mbox = mail.path().join(USER);
    fs::write(&mbox, "From a\nSubject: 1\n\none\n").unwrap();
    let file = File::options().read(true).write(true).open(&mbox).unwrap();
    fcntl_lock(&file, FlockOperation::NonBlockingLockShared).unwrap();
    let dot_lock = mail.path().join(format!("{USER}.lock"));
    let us = std::process::id();
    fs::write(&dot_lock, us.to_string()).unwrap();
    let (code, report) = examined(&mail, USER, &[]);
    let locks: Vec<_> =
        report["locks"].as_array().unwrap().iter().map(|it| (&it["lock"], &it["programs"][0]["process"])).collect();
    assert_eq!(locks, [(&json!("fcntl"), &json!(us)), (&json!("dot-lock"), &json!(us))]);
    assert_eq!(code, Some(0));
    drop(file);
    // No process has this number.
    fs::write(&dot_lock, "2147483646").unwrap();
    let before = state(mail.path());
    let (code, report) = examined(&mail, USER, &[]);
    assert_eq!(
        (code, &report["locks"], findings(&report)),
        (Some(1), &json!([]), vec![found("stale_lock", &[&format!("{USER}.lock")])])
    );
    assert_eq!(state(mail.path()), before);
}

#[test]
fn an_index_that_is_wrong_is_noticed_and_left() {
    let server = Server::start();
    let maildrop = server.maildrop();
    maildrop.put("cur/1.a.h", "one\n");
    for directory in ["cur", "new"] {
        maildrop.set_modified_directory(directory, 1_700_000_000);
    }
    maildrop.set_modified("cur/1.a.h", 1_700_000_000);
    server.session().quit();
    // Another program writes to the message in place and sets its time back.
    fs::write(maildrop.path("cur/1.a.h"), "on\n\n").unwrap();
    maildrop.set_modified("cur/1.a.h", 1_700_000_000);
    assert!(maildrop.path(".pop3d-index").exists());
    let before = state(server.mail().path());
    let (code, report) = examined(server.mail(), USER, &[]);
    assert_eq!((code, findings(&report)), (Some(0), vec![found("wrong_listed_size", &["cur/1.a.h"])]));
    assert_eq!(state(server.mail().path()), before);
}

#[test]
fn wrong_arguments_are_no_findings() {
    for arguments in [&["-m", "/nowhere", "ana"][..], &["--json", "a/b"], &["--users", "/nowhere"], &["--nonsense"]] {
        let (code, output, error) = doctor(arguments);
        assert_eq!((code, output.as_str()), (Some(2), ""), "{error}");
        assert!(error.starts_with("pop3d: "), "{error}");
    }
}

#[test]
fn the_users_file_says_whose_mail_is_where() {
    let mail = MailRoot::new();
    let elsewhere = MailRoot::new();
    elsewhere.maildrop("b").put("new/1.a.h", "a\n");
    mail.maildrop("ana").put("1", "a\n");
    let users = mail.path().join(".users");
    let line = format!("ana:{{PLAIN}}x\nbob:{{PLAIN}}x::::::userdb_mail=maildir:{}/b\n", elsewhere.path().display());
    fs::write(&users, line).unwrap();
    let arguments = ["--users", users.to_str().unwrap(), "-m", mail.path().to_str().unwrap(), "--json"];
    let (code, output, _) = doctor(&arguments);
    let report: Value = serde_json::from_str(&output).unwrap();
    let seen: Vec<_> =
        report["maildrops"].as_array().unwrap().iter().map(|it| (&it["user"], &it["messages"])).collect();
    assert_eq!(seen, [(&json!("ana"), &json!(1)), (&json!("bob"), &json!(1))]);
    assert_eq!(code, Some(0));
    assert_eq!(
        report["summary"],
        json!({"maildrops": 2, "messages": 2, "octets": 6, "need_a_hand": 0, "against": null})
    );
}

#[test]
fn folders_and_links_are_examined_as_a_session_sees_them() {
    let mail = MailRoot::new();
    let elsewhere = MailRoot::new();
    let maildrop = elsewhere.maildrop("Maildir");
    maildrop.put("cur/1.a.h:2,", "a\n");
    fs::create_dir_all(maildrop.path(".Junk/cur")).unwrap();
    maildrop.put(".Junk/cur/2.a.h:2,", "no end");
    maildrop.put(".Junk/cur/3.a.h:2,T", "a\n");
    std::os::unix::fs::symlink(elsewhere.path().join("Maildir"), mail.path().join(USER)).unwrap();
    let before = (state(mail.path()), state(elsewhere.path()));
    let (code, report) = examined(&mail, USER, &["--folders", "INBOX,Junk", "--hide-trashed"]);
    assert_eq!((code, &report["messages"]), (Some(0), &json!(2)));
    assert_eq!(findings(&report), [found("no_line_end", &[".Junk/cur/2.a.h:2,"])]);
    assert_eq!((state(mail.path()), state(elsewhere.path())), before);
}

#[test]
fn without_names_and_accounts_all_of_the_mail_directory_is_examined() {
    let mail = MailRoot::new();
    mail.maildrop("b.org/ana/Maildir").put("new/1.a.h", "a\n");
    mail.maildrop("b.org/bob/Maildir").put("new/1.a h", "a\n");
    let (code, output, error) = doctor(&["-m", mail.path().join("%d/%n/Maildir").to_str().unwrap()]);
    let names: Vec<_> = output.lines().map(|line| line.split(&[':', ','][..]).next().unwrap()).collect();
    assert_eq!(names, ["ana@b.org", "bob@b.org", "  note", "2 maildrops"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
}
