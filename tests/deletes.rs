//! What a deletion does (`--deletes`), and how it is undone.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::harness::{Client, MailRoot, PASSWORD, Server, USER};
use crate::shared_maildrops::{dovecot, give_away, imap_command};

/// Three messages in a flat maildrop, in a Maildir and in an mbox; two of the mbox are equal.
fn formats() -> [MailRoot; 3] {
    let [flat, maildir, mbox] = [MailRoot::new(), MailRoot::new(), MailRoot::new()];
    for (root, names) in [(&flat, ["1", "2", "3"]), (&maildir, ["new/1.a.h", "cur/2.a.h:2,S", "new/3.a.h"])] {
        names.iter().for_each(|name| drop(root.maildrop(USER).put(name, format!("Subject: {name}\r\n\r\nbody\r\n"))));
    }
    let message = |name| format!("From a Thu Jan  1 00:00:00 2026\nSubject: {name}\n\nbody\n\n");
    fs::write(mbox.path().join(USER), ["1", "2", "2"].map(message).concat()).unwrap();
    [flat, maildir, mbox]
}

fn start(mail: &MailRoot, flags: &[&str]) -> Server {
    Server::builder().mail(mail).user(USER, PASSWORD).flags(flags.iter().copied()).start()
}

/// The unique-ids and the messages.
fn content(server: &Server) -> Vec<(String, Vec<u8>)> {
    let mut session = server.session();
    let ids = session.listing("UIDL");
    let message = |line: &String| {
        let (number, id) = line.split_once(' ').unwrap();
        (id.to_owned(), session.fetch(&format!("RETR {number}")))
    };
    let mut all: Vec<_> = ids.iter().map(message).collect();
    session.quit();
    all.sort();
    all
}

fn delete(server: &Server, numbers: &[u32]) {
    let mut session = server.session();
    numbers.iter().for_each(|number| drop(session.call(&format!("DELE {number}"))));
    session.quit();
}

fn answer(admin: &mut Client, command: &str) -> String {
    admin.send(command);
    admin.line()
}

#[test]
fn deletions_can_be_refused() {
    for mail in formats() {
        let server = start(&mail, &["--deletes", "refuse"]);
        let before = content(&server);
        let mut session = server.session();
        let refusal = session.refused("DELE 1");
        assert!(refusal.starts_with("[SYS/PERM]"), "{refusal}");
        assert!(!session.refused("DELE 4").starts_with('['));
        assert!(session.call("STAT").starts_with("3 "));
        session.quit();
        assert_eq!(content(&server), before);
    }
}

/// Files stay where they are, and other servers' lists know nothing of it.
#[test]
fn hidden_messages_stay_for_other_programs() {
    for mail in formats() {
        let files = || -> Vec<_> {
            let mut files = mail.maildrop(USER).messages();
            files.sort();
            files
        };
        let is_mbox = mail.path().join(USER).is_file();
        let stored = is_mbox.then(|| fs::read(mail.path().join(USER)).unwrap());
        let before = if is_mbox { Vec::new() } else { files() };
        let server = start(&mail, &["--deletes", "hide"]);
        let all = content(&server);
        delete(&server, &[2]);
        assert_eq!(server.session().call("STAT").split(' ').next(), Some("2"));
        let left = content(&server);
        assert!(left.len() == 2 && left.iter().all(|message| all.contains(message)));
        drop(server);
        let server = start(&mail, &["--deletes", "hide"]);
        assert_eq!(content(&server), left, "after a restart");
        delete(&server, &[1, 2]);
        assert!(content(&server).is_empty());
        match stored {
            Some(stored) => assert_eq!(fs::read(mail.path().join(USER)).unwrap(), stored),
            None => assert_eq!(files(), before),
        }
        drop(server);
        assert_eq!(content(&start(&mail, &[])), all, "without the flag they are shown");
    }
}

/// Expiry removes what is shown, and only that, from an mbox of which a part is hidden.
#[test]
fn expiry_beside_hidden_messages() {
    for mail in formats() {
        let server = start(&mail, &["--deletes", "hide", "--expire-all", "0"]);
        let all = content(&server);
        delete(&server, &[2]);
        let hidden: Vec<_> = {
            let left = content(&server);
            all.iter().filter(|message| !left.contains(message)).cloned().collect()
        };
        assert!(server.admin().values("ex")[0].starts_with(&format!("{USER} 2 ")));
        assert!(content(&server).is_empty());
        drop(server);
        let left = content(&start(&mail, &[]));
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].1, hidden[0].1);
    }
}

#[test]
fn deleted_messages_come_back_with_their_unique_ids() {
    come_back("trash=7");
}

#[test]
fn hidden_messages_come_back_with_their_unique_ids() {
    come_back("hide");
}

fn come_back(deletes: &str) {
    for mail in formats() {
        let flags = ["--deletes", deletes];
        let server = start(&mail, &flags);
        let before = content(&server);
        delete(&server, &[1, 2]);
        delete(&server, &[1]);
        assert!(content(&server).is_empty());
        drop(server);
        let server = start(&mail, &flags);
        let mut admin = server.admin();
        let lines = admin.values(&format!("dl? {USER}"));
        let fields: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
        assert_eq!(fields.len(), 2, "{lines:?}");
        assert!(fields.iter().all(|fields| fields[2] == "127.0.0.1" && fields[0].starts_with(&format!("{USER}:"))));
        assert_eq!((fields[0][3], fields[1][3]), ("2", "1"));
        let session = server.session();
        assert_eq!(answer(&mut admin, &format!("ud {}", fields[0][0])), "-14", "the maildrop is in use");
        session.quit();
        assert_eq!(answer(&mut admin, &format!("ud {}", fields[1][0])), "+1");
        assert_eq!(answer(&mut admin, &format!("ud {}", fields[1][0])), "-13");
        assert_eq!(content(&server).len(), 1);
        assert_eq!(answer(&mut admin, &format!("uds {USER} 86400")), "+2");
        assert_eq!(content(&server), before);
        assert_eq!(answer(&mut admin, &format!("dl? {USER}")), "+0");
        assert_eq!(answer(&mut admin, &format!("uds {USER} 86400")), "-13");
        for (command, code) in [("dl? nobody", "-4"), ("uds nobody 5", "-4"), ("ud x", "-13"), ("ud nobody:1.2", "-4")]
        {
            assert_eq!(answer(&mut admin, command), code, "{command}");
        }
        // They can be deleted again.
        delete(&server, &[1, 2, 3]);
        assert!(content(&server).is_empty());
    }
}

/// What another program has removed cannot be shown again, and is not counted. What an earlier server has hidden has no session.
#[test]
fn hidden_messages_that_are_there_are_counted() {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    ["new/1.a.h", "new/2.a.h"].iter().for_each(|name| drop(maildrop.put(name, "Subject: x\r\n")));
    let server = start(&mail, &["--deletes", "hide"]);
    delete(&server, &[1, 2]);
    let list = || server.admin().values(&format!("dl? {USER}"));
    assert!(list()[0].ends_with(" 127.0.0.1 2 24"), "{:?}", list());
    maildrop.remove("new/1.a.h");
    assert!(list()[0].ends_with(" 127.0.0.1 1 12"), "{:?}", list());
    let ages = mail.path().join(USER).join(".pop3d-ages");
    let text = fs::read_to_string(&ages).unwrap();
    fs::write(&ages, text.split_inclusive('\n').filter(|line| !line.starts_with("s ")).collect::<String>()).unwrap();
    let lines = list();
    assert!(lines[0].ends_with(" unknown 1 12"), "{lines:?}");
    let session = lines[0].split(' ').next().unwrap();
    assert_eq!(answer(&mut server.admin(), &format!("ud {session}")), "+1");
    assert_eq!(content(&server).len(), 1);
}

/// The directory of the session is named by its time, so its messages are gone for good when that is long ago.
#[test]
fn deleted_messages_are_kept_for_days_only() {
    for mail in formats() {
        let server = start(&mail, &["--deletes", "trash=7"]);
        delete(&server, &[1]);
        delete(&server, &[1]);
        let trash = [".pop3d-trash", "cur/.pop3d-trash"].map(|name| mail.path().join(USER).join(name));
        let beside = mail.path().join(format!(".{USER}.pop3d-trash"));
        let trash = trash.into_iter().chain([beside]).find(|path| path.is_dir()).unwrap();
        let mut names: Vec<_> = fs::read_dir(&trash).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let (time, rest) = names[0].to_str().unwrap().split_once('.').unwrap();
        let old = format!("{}.{rest}", time.parse::<u64>().unwrap() - 7 * 86_400 - 1);
        fs::rename(trash.join(&names[0]), trash.join(&old)).unwrap();
        let mut admin = server.admin();
        assert_eq!(admin.values(&format!("dl? {USER}")).len(), 2);
        admin.values("ex");
        assert_eq!(admin.values(&format!("dl? {USER}")).len(), 1);
        assert!(!trash.join(&old).exists());
        assert_eq!(content(&server).len(), 1);
    }
}

/// A name that was used again meanwhile is not overwritten.
#[test]
fn a_message_that_is_there_is_not_replaced() {
    let mail = MailRoot::new();
    mail.maildrop(USER).put("1", "Subject: old\r\n");
    let server = start(&mail, &["--deletes", "trash=7"]);
    delete(&server, &[1]);
    mail.maildrop(USER).put("1", "Subject: new\r\n");
    let mut admin = server.admin();
    assert_eq!(answer(&mut admin, &format!("uds {USER} 60")), "-15");
    assert_eq!(content(&server)[0].1, b"Subject: new\r\n");
    mail.maildrop(USER).remove("1");
    assert_eq!(answer(&mut admin, &format!("uds {USER} 60")), "+1");
    assert_eq!(content(&server)[0].1, b"Subject: old\r\n");
}

/// Wherever the server is killed, each message is in the maildrop or can be brought back, once.
#[test]
fn no_message_is_lost_or_doubled_when_the_server_is_killed() {
    const MESSAGES: usize = 300;
    for (round, is_mbox) in [(0, false), (1, false), (2, true), (3, true)] {
        let mail = MailRoot::new();
        let text = |number: usize| format!("Subject: {number}\n\n{}\n", "body\n".repeat(100));
        if is_mbox {
            let message = |number| format!("From a Thu Jan  1 00:00:00 2026\n{}\n", text(number));
            fs::write(mail.path().join(USER), (0..MESSAGES).map(message).collect::<String>()).unwrap();
        } else {
            (0..MESSAGES).for_each(|number| drop(mail.maildrop(USER).put(&format!("new/{number}.a.h"), text(number))));
        }
        let flags = ["--deletes", "trash=7"];
        let mut server = start(&mail, &flags);
        let before = content(&server);
        let mut session = server.session();
        let commands: String = (1..=MESSAGES).map(|number| format!("DELE {number}\r\n")).collect();
        session.write(&commands);
        (0..MESSAGES).for_each(|_| drop(session.ok()));
        session.send("QUIT");
        // The rounds kill it at different moments of the UPDATE state.
        let trash_of = |path: &str| mail.path().join(path);
        let trash = if is_mbox {
            trash_of(&format!(".{USER}.pop3d-trash"))
        } else {
            trash_of(&format!("{USER}/cur/.pop3d-trash"))
        };
        crate::harness::eventually("the removal has begun", || trash.exists());
        if round % 2 == 1 {
            // Those of an mbox are in one file.
            let enough = if is_mbox { 1 } else { MESSAGES / 3 };
            let count = || {
                fs::read_dir(&trash).unwrap().flatten().flat_map(|entry| fs::read_dir(entry.path())).flatten().count()
            };
            crate::harness::eventually("some are removed", || count() >= enough);
        }
        server.signal(Signal::KILL);
        server.wait();
        let mut server = start(&mail, &flags);
        let left = content(&server);
        assert!(left.iter().all(|message| before.contains(message)));
        // Killed once more while they come back.
        let mut admin = server.admin();
        admin.send(&format!("uds {USER} 86400"));
        server.signal(Signal::KILL);
        server.wait();
        server = start(&mail, &flags);
        let _ = answer(&mut server.admin(), &format!("uds {USER} 86400"));
        assert!(content(&server) == before, "round {round}: {} messages of {}", content(&server).len(), before.len());
    }
}

/// The server was killed before it had copied all that was to be removed from an mbox, so nothing was removed.
#[test]
fn a_copy_that_is_not_complete_is_not_used() {
    let [_, _, mail] = formats();
    let mbox = mail.path().join(USER);
    let text = fs::read(&mbox).unwrap();
    let server = start(&mail, &["--deletes", "trash=7"]);
    let before = content(&server);
    delete(&server, &[1, 3]);
    let trash = mail.path().join(format!(".{USER}.pop3d-trash"));
    let copies = || fs::read_dir(&trash).unwrap().map(|entry| entry.unwrap().path().join(".messages"));
    let copy = fs::read(copies().next().unwrap()).unwrap();
    for length in [0, 10, copy.len() / 2, copy.len() - 1] {
        fs::write(&mbox, &text).unwrap();
        let session = format!("1795831201.{}", 1000 + length);
        let directory = trash.join(format!("{session}@local"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(".messages"), &copy[..length]).unwrap();
        let mut admin = server.admin();
        assert_eq!(admin.values(&format!("dl? {USER}")).len(), 1);
        assert_eq!(answer(&mut admin, &format!("ud {USER}:{session}")), "-13");
        assert!(content(&server) == before && !directory.exists());
    }
    // Of the whole copy, nothing comes twice.
    assert_eq!(answer(&mut server.admin(), &format!("uds {USER} 86400")), "+2");
    assert!(content(&server) == before && copies().count() == 0);
}

/// Earlier versions kept each message of an mbox in a file of its own, named by its unique-id.
#[test]
fn what_an_earlier_version_has_kept_of_an_mbox_comes_back_or_is_removed_in_time() {
    let [_, _, mail] = formats();
    let mbox = mail.path().join(USER);
    let text = fs::read_to_string(&mbox).unwrap();
    let message = text.len() / 3;
    let before = content(&start(&mail, &[]));
    let ids = start(&mail, &[]).session().listing("UIDL");
    let server = start(&mail, &["--deletes", "trash=7"]);
    let trash = mail.path().join(format!(".{USER}.pop3d-trash"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let batch = |time: u64, session: u64, numbers: &[usize]| {
        let directory = trash.join(format!("{time}.{session}@192.0.2.4"));
        fs::create_dir_all(&directory).unwrap();
        for number in numbers {
            let kept = &text[(number - 1) * message..number * message];
            fs::write(directory.join(&ids[number - 1][2..]), kept).unwrap();
        }
        directory
    };
    // The third message is deleted in the present form.
    delete(&server, &[3]);
    fs::write(&mbox, "").unwrap();
    let (first, second) = (batch(now - 60, 4, &[1]), batch(now - 60, 5, &[2]));
    let mut admin = server.admin();
    let lines = admin.values(&format!("dl? {USER}"));
    let (start, end) = (format!("{USER}:{}.4 ", now - 60), format!(" 192.0.2.4 1 {message}"));
    assert!(lines.len() == 3 && lines[0].starts_with(&start) && lines[0].ends_with(&end), "{lines:?}");
    assert_eq!(answer(&mut admin, &format!("ud {USER}:{}.4", now - 60)), "+1");
    assert!(content(&server).iter().all(|message| before.contains(message)) && !first.exists());
    assert_eq!(answer(&mut admin, &format!("uds {USER} 86400")), "+2");
    assert!(content(&server) == before && !second.exists());
    // The sweeper removes what is too old, also what is left of an earlier undelete that was killed.
    let old = batch(now - 8 * 86_400, 6, &[1, 2]);
    fs::write(old.join(".before"), "0 x").unwrap();
    let new = batch(now - 6 * 86_400, 6, &[1]);
    admin.values("ex");
    assert!(!old.exists() && new.exists());
    assert_eq!(content(&server), before);
}

/// What is kept is no mail and no folder for an IMAP server.
#[test]
fn dovecot_does_not_see_what_is_kept() {
    let server = Server::builder().flags(["--deletes", "trash=7"]).start();
    let maildrop = server.maildrop();
    maildrop.make_maildir();
    fs::set_permissions(server.mail().path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    ["", "new", "cur", "tmp"].iter().for_each(|folder| give_away(&maildrop.path(folder)));
    let directory = dovecot(&maildrop);
    let imap = || {
        let mut imap = Command::new("sh");
        imap.args(["-c", &imap_command(directory.path())]).env("HOME", directory.path()).env("USER", USER);
        let mut child = imap.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let script = "a LIST \"\" *\r\nb STATUS INBOX (MESSAGES)\r\nc SELECT INBOX\r\nd LOGOUT\r\n";
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for number in 1..=3 {
        maildrop.put(&format!("new/{number}.a.h"), "Subject: a\r\n\r\nbody\r\n");
    }
    let (before, ids) = (imap(), content(&server));
    assert!(before.contains("* 3 EXISTS"), "{before}");
    delete(&server, &[1, 3]);
    let during = imap();
    assert!(during.contains("* 1 EXISTS") && during.contains("MESSAGES 1"), "{during}");
    assert!(!during.contains("trash"), "{during}");
    let folders = |text: &str| text.lines().filter(|line| line.starts_with("* LIST")).count();
    assert_eq!((folders(&before), folders(&during)), (1, 1), "{during}");
    assert_eq!(answer(&mut server.admin(), &format!("uds {USER} 60")), "+2");
    assert!(imap().contains("* 3 EXISTS"));
    assert_eq!(content(&server), ids);
}
