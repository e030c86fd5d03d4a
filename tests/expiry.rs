//! Mail that expires: `--expire-read`, `--expire-all`, and `peepclient expire`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Client, MailRoot, PASSWORD, Server, USER, eventually};

const DAY: u64 = 86_400;

/// Mail of one format.
struct Mail {
    root: MailRoot,
    /// The messages' files; none for an mbox.
    names: &'static [&'static str],
}

impl Mail {
    /// Three messages in each format.
    fn all() -> [Self; 3] {
        let flat = Self { root: MailRoot::new(), names: &["1", "2", "3"] };
        let maildir = Self { root: MailRoot::new(), names: &["new/1.a.h", "cur/2.a.h:2,S", "new/3.a.h"] };
        for mail in [&flat, &maildir] {
            mail.names.iter().for_each(|name| drop(mail.root.maildrop(USER).put(name, "Subject: a\r\n\r\nbody\r\n")));
        }
        let mbox = Self { root: MailRoot::new(), names: &[] };
        let message = |name| format!("From a Thu Jan  1 00:00:00 2026\nSubject: {name}\n\nbody\n\n");
        fs::write(mbox.root.path().join(USER), ["1", "2", "3"].map(message).concat()).unwrap();
        [flat, maildir, mbox]
    }

    fn start(&self, flags: &[&str]) -> Server {
        Server::builder().mail(&self.root).user(USER, PASSWORD).flags(flags.iter().copied()).start()
    }

    /// The file that says when messages were read.
    fn ages(&self) -> PathBuf {
        self.own("ages")
    }

    fn own(&self, kind: &str) -> PathBuf {
        match self.names {
            [] => self.root.path().join(format!(".{USER}.pop3d-{kind}")),
            _ => self.root.path().join(USER).join(format!(".pop3d-{kind}")),
        }
    }
}

/// Moves all times in the file this many days back.
fn age(path: &Path, days: u64) {
    let mut text = String::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            [kind @ ("r" | "a"), time, id, _] => {
                let line = format!("{kind} {} {id}", time.parse::<u64>().unwrap() - days * DAY);
                text += &format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes()));
            }
            _ => text += &format!("{line}\n"),
        }
    }
    fs::write(path, text).unwrap();
}

fn ids(server: &Server) -> Vec<String> {
    let mut session = server.session();
    let ids = session.listing("UIDL").iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    session.quit();
    ids
}

fn expire(admin: &mut Client) -> Vec<String> {
    admin.values("ex")
}

#[test]
fn what_was_read_expires_and_nothing_else() {
    for mail in Mail::all() {
        let server = mail.start(&["--expire-read", "0"]);
        let before = ids(&server);
        let mut admin = server.admin();
        assert!(expire(&mut admin).is_empty());
        let mut session = server.session();
        session.fetch("RETR 2");
        session.fetch("TOP 3 0");
        assert_eq!(expire(&mut admin), [format!("{USER} 0 0 busy")]);
        session.quit();
        assert_eq!(admin.values("ex?"), [format!("{USER} 1 20 due")]);
        assert_eq!(ids(&server), before, "a dry run removes nothing");
        assert_eq!(expire(&mut admin), [format!("{USER} 1 20 done")]);
        assert_eq!(ids(&server), [&*before[0], &before[2]]);
        assert!(expire(&mut admin).is_empty() && admin.values("ex?").is_empty());
        let stats = admin.values("s?");
        assert!(stats.contains(&"expired_messages 1".to_owned()), "{stats:?}");
        assert_eq!(admin.value("xe?"), "0");
        server.expect_log("INFO", &format!("expired: user=\"{USER}\" removed=1 failed=0"));
    }
}

/// A session that is lost has read what it has read.
#[test]
fn a_session_without_quit_has_read_messages() {
    for mail in Mail::all() {
        let server = mail.start(&["--expire-read", "0"]);
        let mut session = server.session();
        session.fetch("RETR 1");
        session.call("DELE 2");
        drop(session);
        assert_eq!(ids(&server).len(), 3);
        assert_eq!(expire(&mut server.admin()), [format!("{USER} 1 20 done")]);
        assert_eq!(ids(&server).len(), 2);
    }
}

/// What was read is known after a restart, without the index and at another place. Losing it keeps mail.
#[test]
fn days_are_counted_from_the_first_retrieval() {
    for mail in Mail::all() {
        let flags = ["--expire-read", "30"];
        let server = mail.start(&flags);
        let mut session = server.session();
        session.fetch("RETR 1");
        session.quit();
        drop(server);
        age(&mail.ages(), 29);
        let server = mail.start(&flags);
        let before = ids(&server);
        let mut session = server.session();
        session.fetch("RETR 1");
        session.fetch("RETR 2");
        session.quit();
        assert!(expire(&mut server.admin()).is_empty());
        drop(server);
        age(&mail.ages(), 1);
        let kept = fs::read(mail.ages()).unwrap();
        fs::remove_file(mail.ages()).unwrap();
        assert!(expire(&mut mail.start(&flags).admin()).is_empty(), "losing the times keeps the mail");
        fs::write(mail.ages(), kept).unwrap();
        let _ = fs::remove_file(mail.own("index"));
        let moved = Mail { root: MailRoot::new(), ..mail };
        fs::remove_dir(moved.root.path()).unwrap();
        fs::rename(mail.root.path(), moved.root.path()).unwrap();
        fs::create_dir(mail.root.path()).unwrap();
        let server = moved.start(&flags);
        assert_eq!(ids(&server), before);
        assert_eq!(expire(&mut server.admin()), [format!("{USER} 1 20 done")]);
        assert_eq!(ids(&server), before[1..]);
    }
}

#[test]
fn all_mail_expires_by_the_time_of_its_arrival() {
    for mail in Mail::all() {
        let server = mail.start(&["--expire-all", "2"]);
        let mut admin = server.admin();
        assert!(expire(&mut admin).is_empty());
        age(&mail.ages(), 1);
        assert!(expire(&mut admin).is_empty());
        age(&mail.ages(), 1);
        assert_eq!(admin.values("ex?"), [format!("{USER} 3 60 due")]);
        assert_eq!(expire(&mut admin), [format!("{USER} 3 60 done")]);
        assert!(ids(&server).is_empty());
    }
    for mail in Mail::all() {
        let server = mail.start(&["--expire-all", "0", "--expire-read", "9"]);
        assert_eq!(expire(&mut server.admin()), [format!("{USER} 3 60 done")]);
    }
}

/// RFC 2449 section 6.7: the days for which messages are kept at least.
#[test]
fn capa_tells_the_truth() {
    for (flags, expected) in [
        (&["--expire-read", "0", "--expire-all", "90"][..], "EXPIRE 0"),
        (&["--expire-read", "30"], "EXPIRE 30"),
        (&["--expire-all", "60", "--expire-read", "90"], "EXPIRE 60"),
        (&[], "EXPIRE NEVER"),
    ] {
        let server = Server::builder().flags(flags.iter().copied()).start();
        let mut before = server.pop3();
        for client in [&mut before, &mut server.session()] {
            let listed = client.listing("CAPA");
            let told: Vec<_> = listed.iter().filter(|line| line.starts_with("EXPIRE")).collect();
            assert_eq!(told, [expected]);
        }
    }
}

#[test]
fn more_messages_than_are_removed_at_once_expire_in_one_run() {
    let root = MailRoot::new();
    (0..2500).for_each(|number| drop(root.maildrop(USER).put(&format!("new/{number}.a.h"), "Subject: a\r\n")));
    let mail = Mail { root, names: &["new/0.a.h"] };
    let server = mail.start(&["--expire-all", "0"]);
    assert_eq!(expire(&mut server.admin()), [format!("{USER} 2500 30000 done")]);
    assert!(ids(&server).is_empty());
}

/// A users file with these fields of accounts.
fn users_file(directory: &Path, accounts: &[(&str, &str)]) -> PathBuf {
    let path = directory.join("users");
    let line = |(name, fields): &(&str, &str)| format!("{name}:{{PLAIN}}secret::::::{fields}\n");
    fs::write(&path, accounts.iter().map(line).collect::<String>()).unwrap();
    path
}

/// The line of CAPA before login, and after login as this user.
fn announced(server: &Server, user: &str) -> [String; 2] {
    let mut client = server.pop3();
    let line =
        |client: &mut Client| client.listing("CAPA").into_iter().find(|line| line.starts_with("EXPIRE")).unwrap();
    let before = line(&mut client);
    client.login(user, "secret");
    let after = line(&mut client);
    client.quit();
    [before, after]
}

fn retrieve(server: &Server, user: &str) {
    server.mail().maildrop(user).put("1", "Subject: a\r\n\r\nbody\r\n");
    let mut client = server.pop3();
    client.login(user, "secret");
    client.fetch("RETR 1");
    client.quit();
}

/// RFC 2449 section 6.7: before login the fewest days of all users are announced, and after it those of the user.
#[test]
fn an_account_may_have_its_own_rules() {
    let directory = tempfile::tempdir().unwrap();
    let accounts = [
        ("ana", "userdb_expire_read=0"),
        ("bob", "x=y userdb_expire_read=never userdb_expire_all=never"),
        ("cat", "x=y"),
    ];
    let server =
        Server::builder().users_file(&users_file(directory.path(), &accounts)).flags(["--expire-read", "30"]).start();
    for (name, after) in [("ana", "EXPIRE 0"), ("bob", "EXPIRE NEVER"), ("cat", "EXPIRE 30")] {
        retrieve(&server, name);
        assert_eq!(announced(&server, name), ["EXPIRE 0 USER", after]);
    }
    let ages = |name| server.mail().path().join(name).join(".pop3d-ages").exists();
    assert_eq!(["ana", "bob", "cat"].map(ages), [true, false, true], "of bob nothing needs to be known");
    let mut admin = server.admin();
    assert_eq!(admin.values("ex?"), ["ana 1 20 due"]);
    assert_eq!(expire(&mut admin), ["ana 1 20 done"]);
    assert_eq!(["ana", "bob", "cat"].map(|name| server.mail().maildrop(name).messages().len()), [0, 1, 1]);
}

#[test]
fn rules_of_accounts_are_in_force_without_any_for_all() {
    let directory = tempfile::tempdir().unwrap();
    let accounts = |read| [("ana", read), ("bob", "")];
    let path = users_file(directory.path(), &accounts("userdb_expire_read=0"));
    let server = Server::builder().users_file(&path).start();
    retrieve(&server, "ana");
    retrieve(&server, "bob");
    assert_eq!(announced(&server, "bob"), ["EXPIRE 0 USER", "EXPIRE NEVER"]);
    assert_eq!(server.admin().values("ex?"), ["ana 1 20 due"]);
    // The file is read again, and what it says now counts.
    users_file(directory.path(), &accounts("userdb_expire_all=3660"));
    eventually("the new rule is announced", || announced(&server, "ana") == ["EXPIRE 3660 USER", "EXPIRE 3660"]);
    assert!(expire(&mut server.admin()).is_empty());
    users_file(directory.path(), &accounts("userdb_expire_all=never"));
    eventually("no rule is announced", || announced(&server, "ana") == ["EXPIRE NEVER", "EXPIRE NEVER"]);
    assert_eq!(server.mail().maildrop("ana").messages().len(), 1);
}

/// A mistake in the file must not remove mail.
#[test]
fn a_wrong_number_of_days_keeps_the_user_out_and_the_mail_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = users_file(directory.path(), &[("ana", "userdb_expire_all=3d"), ("bob", "")]);
    let server = Server::builder().users_file(&path).flags(["--expire-all", "0"]).start();
    server.mail().maildrop("ana").put("1", "Subject: a\r\n\r\nbody\r\n");
    server.expect_log("ERROR", "line 1: userdb_expire_all has to be 0 to 3660 days, or never; the user is kept out");
    assert!(expire(&mut server.admin()).is_empty());
    let mut client = server.pop3();
    client.call("USER ana");
    client.refused("PASS secret");
    assert_eq!(server.mail().maildrop("ana").messages(), ["1"]);
}
