//! Maildrops on disk: which files are messages, what their unique-ids are, and what happens when files change while a
//! session is open.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Signal, geteuid};

use crate::harness::{Client, MailRoot, Maildrop, NOBODY, PASSWORD, Server, USER, eventually};

const MESSAGE: &str = "Subject: a\r\n\r\nbody\r\n";

fn make_fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The unique-ids of a session in the order of its messages. Checks that they have the form that RFC 1939 section 7
/// asks for and that no two are equal.
#[track_caller]
fn unique_ids(session: &mut Client) -> Vec<String> {
    let lines = session.listing("UIDL");
    let ids: Vec<String> = (1..)
        .zip(lines)
        .map(|(number, line)| line.strip_prefix(&format!("{number} ")).expect("number and unique-id").to_owned())
        .collect();
    for (index, id) in ids.iter().enumerate() {
        assert!((1..=70).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_graphic()), "{id:?}");
        assert!(!ids[..index].contains(id), "two messages have the unique-id {id}");
    }
    ids
}

/// Puts files that are not messages into `folder`: directories, hidden files, symbolic links and FIFOs.
fn put_files_that_are_no_messages(folder: &Path, outside: &Path) {
    fs::create_dir_all(folder.join("1000000001.directory/below")).unwrap();
    fs::write(folder.join("1000000001.directory/below/1"), MESSAGE).unwrap();
    fs::write(folder.join(".1000000002.hidden"), MESSAGE).unwrap();
    symlink(outside, folder.join("1000000003.link")).unwrap();
    symlink(outside.parent().unwrap(), folder.join("1000000004.link")).unwrap();
    symlink("nothing", folder.join("1000000005.link")).unwrap();
    make_fifo(&folder.join("1000000006.fifo"));
}

#[test]
fn only_regular_files_are_messages() {
    let server = Server::start();
    let maildrop = server.maildrop();
    let outside = server.mail().maildrop("other").put("secret", "secret");
    maildrop.put("1000000000.message", MESSAGE);
    put_files_that_are_no_messages(&maildrop.path(""), &outside);
    let mut session = server.session();
    assert_eq!(session.call("STAT"), "1 20");
    assert_eq!(session.fetch("RETR 1"), MESSAGE.as_bytes());
    session.call("DELE 1");
    session.quit();
    assert_eq!(fs::read(outside).unwrap(), b"secret");
}

#[test]
fn only_regular_files_in_new_and_cur_are_messages() {
    let server = Server::start();
    let maildrop = server.maildrop();
    let outside = server.mail().maildrop("other").put("secret", "secret");
    maildrop.put("new/1000000000.message", MESSAGE);
    maildrop.put("cur/1000000007.message:2,S", MESSAGE);
    maildrop.put("tmp/1000000008.message", MESSAGE);
    maildrop.put("1000000009.message", MESSAGE);
    for folder in ["new", "cur"] {
        put_files_that_are_no_messages(&maildrop.path(folder), &outside);
    }
    fs::create_dir_all(maildrop.path(".Sent/cur")).unwrap();
    maildrop.put(".Sent/cur/1000000010.message:2,S", MESSAGE);
    let mut session = server.session();
    assert_eq!(session.call("STAT"), "2 40");
    assert_eq!(unique_ids(&mut session), ["1000000000.message", "1000000007.message"]);
}

#[test]
fn new_or_cur_alone_makes_a_maildir() {
    for folder in ["new", "cur"] {
        let server = Server::start();
        fs::create_dir_all(server.maildrop().path(folder)).unwrap();
        fs::write(server.maildrop().path(folder).join("1000000000.a"), MESSAGE).unwrap();
        fs::write(server.maildrop().path("flat"), MESSAGE).unwrap();
        assert_eq!(server.session().call("STAT"), "1 20", "{folder}");
    }
}

#[test]
fn an_empty_or_missing_directory_is_an_empty_maildrop() {
    let server = Server::builder().user("none", "pass").user("flat", "pass").user("maildir", "pass").start();
    fs::create_dir(server.mail().path().join("flat")).unwrap();
    server.mail().maildrop("maildir").make_maildir();
    for user in ["none", "flat", "maildir"] {
        let mut client = server.pop3();
        client.login(user, "pass");
        assert_eq!(client.call("STAT"), "0 0", "{user}");
        assert!(client.listing("LIST").is_empty());
        client.quit();
    }
    assert!(!server.mail().path().join("none").exists(), "a login has created a directory");
}

/// The server opens nothing through a symbolic link, except one in the mail directory that root or its own user has
/// made.
#[test]
fn a_maildrop_behind_a_users_symbolic_link_is_refused() {
    let elsewhere = MailRoot::new();
    elsewhere.maildrop("other").put("new/1000000000.a", "secret");
    let server = Server::builder().user("all", "pass").user("new", "pass").start();
    symlink(elsewhere.path().join("other"), server.mail().path().join("all")).unwrap();
    let users: &[&str] = if geteuid().is_root() {
        lchown(server.mail().path().join("all"), Some(NOBODY), Some(NOBODY)).unwrap();
        &["all", "new"]
    } else {
        &["new"]
    };
    fs::create_dir(server.mail().path().join("new")).unwrap();
    symlink(elsewhere.path().join("other/new"), server.mail().path().join("new/new")).unwrap();
    for user in users {
        let mut client = server.pop3();
        client.call(&format!("USER {user}"));
        let text = client.refused("PASS pass");
        assert!(text.starts_with("[SYS/"), "{user}: {text}");
    }
    assert_eq!(elsewhere.maildrop("other").messages(), ["new/1000000000.a"]);
}

#[test]
fn a_maildrop_that_is_no_directory_is_refused() {
    let server = Server::builder().user("file", "pass").user("fifo", "pass").start();
    fs::write(server.mail().path().join("file"), MESSAGE).unwrap();
    make_fifo(&server.mail().path().join("fifo"));
    for user in ["file", "fifo"] {
        let mut client = server.pop3();
        client.call(&format!("USER {user}"));
        let text = client.refused("PASS pass");
        assert!(text.starts_with("[SYS/PERM]"), "{user}: {text}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Layouts

/// Checks that the server refuses logins of [`USER`] because of the maildrop and logs `why`. These refusals do not
/// count as failed logins.
#[track_caller]
fn expect_refused_maildrop(server: &Server, why: &str) {
    let mut client = server.pop3();
    for _ in 0..8 {
        client.call(&format!("USER {USER}"));
        assert_eq!(client.refused(&format!("PASS {PASSWORD}")), "[SYS/PERM] the maildrop cannot be opened");
    }
    client.call("QUIT");
    eventually("the log has the reason and the remedy", || {
        let log = server.stderr();
        // The reason is quoted in the log, so quotes in it are escaped.
        log.contains(&why.replace('"', "\\\"")) && log.contains("serve them all the same with --layout flat")
    });
}

/// The names in a directory, sorted.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.collect();
    names.sort();
    names
}

/// The other files of a directory that contains a Maildir are not mail.
#[test]
fn documents_beside_a_maildir_are_not_served() {
    for (folder, maildir) in [("Maildir", "cur"), ("Maildir", "new"), (".maildir", "cur")] {
        let server = Server::start();
        let maildrop = server.maildrop();
        maildrop.put("thesis.odt", "a document");
        fs::create_dir_all(maildrop.path(&format!("{folder}/{maildir}"))).unwrap();
        expect_refused_maildrop(&server, &format!("its sub-directory {folder:?} is a Maildir"));
        assert_eq!(names_in(&maildrop.path("")), [folder, "thesis.odt"].map(str::to_owned), "a file was written");
    }
}

#[test]
fn a_flat_maildrop_is_refused_when_a_subdirectory_becomes_a_maildir() {
    let server = Server::start();
    let maildrop = server.maildrop();
    maildrop.put("1.eml", MESSAGE);
    fs::create_dir_all(maildrop.path("other/folder")).unwrap();
    assert_eq!(server.session().call("STAT"), "1 20");
    fs::create_dir(maildrop.path("other/cur")).unwrap();
    expect_refused_maildrop(&server, "its sub-directory \"other\" is a Maildir");
}

#[test]
fn the_layout_flag_decides_how_a_directory_is_served() {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    maildrop.put("1.eml", "flat\r\n");
    maildrop.put("new/1000000000.a", MESSAGE);
    fs::create_dir_all(maildrop.path("other/cur")).unwrap();
    let octets = |layout: &str| {
        let server = Server::builder().mail(&mail).flags(["--layout", layout]).start();
        server.session().listing("LIST")
    };
    // Each server finds the index that one with another layout has left.
    for _ in 0..2 {
        for (layout, expected) in [("auto", "1 20"), ("flat", "1 6"), ("maildir", "1 20")] {
            assert_eq!(octets(layout), [expected], "{layout}");
            for directory in ["", "new", "cur"] {
                maildrop.set_modified_directory(directory, 1_000_000_000);
            }
        }
    }
    for folder in ["new", "cur"] {
        fs::rename(maildrop.path(folder), maildrop.path(&format!("no-{folder}"))).unwrap();
    }
    assert!(octets("maildir").is_empty());
}

/// The mail directory may be /home by mistake. The server runs in a mount namespace with a /etc/passwd of its own.
#[test]
fn a_home_directory_is_not_served_as_a_flat_maildrop() {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    maildrop.put("thesis.odt", "a document");
    fs::set_permissions(mail.path(), Permissions::from_mode(0o755)).unwrap();
    let home = maildrop.path("");
    // Starts a server on a system that has an account of this name and uid whose home is the maildrop.
    let start = |account: &str, uid: u32, flags: &[&str]| {
        let passwd = mail.path().join("passwd");
        let line = format!("{account}:x:{uid}:{uid}::{}/./:/bin/sh\n", home.display());
        fs::write(&passwd, format!("{}{line}", fs::read_to_string("/etc/passwd").unwrap())).unwrap();
        Server::builder().mail(&mail).flags(flags.iter().copied()).start_with_passwd(&passwd)
    };
    let owner = fs::metadata(&home).unwrap().uid();
    for (account, uid) in [(USER, 54321), ("of-the-owner", owner), ("anybody", 54321)] {
        let Some(server) = start(account, uid, &[]) else { return };
        expect_refused_maildrop(&server, &format!("the directory is the home of the account \"{account}\""));
        assert_eq!(names_in(&home), ["thesis.odt"], "a file was written");
    }
    let server = start(USER, owner, &["--layout", "flat"]).unwrap();
    assert_eq!(server.session().call("STAT"), "1 12");
}

// ---------------------------------------------------------------------------------------------------------------------
// Unique-ids

/// A base name that RFC 1939 section 7 allows as a unique-id is used as one.
#[test]
fn the_unique_id_of_a_maildir_message_is_its_base_name() {
    let server = Server::start();
    let longest = format!("1000000002.{}", "x".repeat(59));
    server.maildrop().put("new/1000000000.M1P2.host,S=20,W=20", MESSAGE);
    server.maildrop().put("cur/1000000001.M1P2.host:2,FS", MESSAGE);
    server.maildrop().put(&format!("cur/{longest}:2,"), MESSAGE);
    assert_eq!(unique_ids(&mut server.session()), ["1000000000.M1P2.host,S=20,W=20", "1000000001.M1P2.host", &longest]);
}

/// File names that RFC 1939 does not allow as unique-ids, some of which contain control sequences of terminals.
fn odd_names() -> Vec<Vec<u8>> {
    let long = [b'x'; 80];
    vec![
        b"1000000000.with space".to_vec(),
        b"1000000000.\xff\xfe".to_vec(),
        b"1000000000.line\r\nend".to_vec(),
        b"1000000000.line\nend".to_vec(),
        b"1000000000.\x1b[31m".to_vec(),
        b"1000000000.\xc3\xa9".to_vec(),
        [b"1000000000.a", &long[..]].concat(),
        [b"1000000000.", &long[..], b"b"].concat(),
        [b"1000000000.", &long[..], b"c"].concat(),
        b"1000000000.ok".to_vec(),
    ]
}

fn put_odd_names(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for name in odd_names() {
        fs::write(folder.join(OsStr::from_bytes(&name)), MESSAGE).unwrap();
    }
}

#[test]
fn messages_whose_names_are_no_valid_unique_ids_get_other_ones() {
    for folder in ["new", "cur", ""] {
        let mail = MailRoot::new();
        put_odd_names(&mail.maildrop(USER).path(folder));
        let count = odd_names().len();
        let first = {
            let server = Server::builder().mail(&mail).start();
            let mut session = server.session();
            for number in 1..=count {
                assert_eq!(session.fetch(&format!("RETR {number}")), MESSAGE.as_bytes());
            }
            unique_ids(&mut session)
        };
        assert_eq!(first.len(), count);
        let server = Server::builder().mail(&mail).start();
        let mut session = server.session();
        assert_eq!(unique_ids(&mut session), first, "{folder}");
        for number in 1..=count {
            session.call(&format!("DELE {number}"));
        }
        session.quit();
        assert_eq!(server.session().call("STAT"), "0 0");
    }
}

/// RFC 1939 section 7: unique-ids persist across sessions.
#[test]
fn unique_ids_stay_when_the_server_restarts() {
    for folder in ["", "new/"] {
        let mail = MailRoot::new();
        for number in 0..20 {
            mail.maildrop(USER).put(&format!("{folder}{}.host", 1_000_000_000 + number), MESSAGE);
        }
        let mut ids = Vec::new();
        for signal in [Signal::TERM, Signal::KILL, Signal::INT] {
            let mut server = Server::builder().mail(&mail).start();
            ids.push(unique_ids(&mut server.session()));
            server.signal(signal);
            server.wait();
        }
        assert_eq!(ids[0].len(), 20);
        assert!(ids[0] == ids[1] && ids[1] == ids[2]);
    }
}

/// RFC 1939 section 7: unique-ids persist across sessions.
#[test]
fn unique_ids_stay_when_messages_are_moved_and_flagged_between_restarts() {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    maildrop.put("new/1000000000.a", MESSAGE);
    maildrop.put("new/1000000001.b c", MESSAGE);
    let ids = || unique_ids(&mut Server::builder().mail(&mail).start().session());
    let first = ids();
    maildrop.rename("new/1000000000.a", "cur/1000000000.a:2,");
    maildrop.rename("new/1000000001.b c", "cur/1000000001.b c:2,");
    assert_eq!(ids(), first);
    maildrop.rename("cur/1000000000.a:2,", "cur/1000000000.a:2,PRS");
    maildrop.rename("cur/1000000001.b c:2,", "cur/1000000001.b c:2,Sab");
    assert_eq!(ids(), first);
}

/// RFC 1939 section 7: no two messages of a maildrop have the same unique-id.
#[test]
fn two_files_of_the_same_base_name_have_different_unique_ids() {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    maildrop.put("new/1000000000.a", "one\r\n");
    maildrop.put("cur/1000000000.a:2,S", "three\r\n");
    maildrop.put("cur/1000000000.a:2,RS", "seven\r\n");
    let listings = || {
        let server = Server::builder().mail(&mail).start();
        let mut session = server.session();
        (unique_ids(&mut session), session.listing("LIST"))
    };
    let first = listings();
    assert_eq!(first.0.len(), 3);
    assert_eq!(listings(), first);
}

/// RFC 1939 section 7: a unique-id is never used for another message.
#[test]
fn a_new_file_of_the_same_base_name_does_not_get_an_existing_unique_id() {
    let server = Server::start();
    let maildrop = server.maildrop();
    maildrop.put("cur/1000000000.a:2,S", "one\r\n");
    let before = unique_ids(&mut server.session());
    maildrop.put("new/1000000000.a", "another\r\n");
    let mut session = server.session();
    let ids = unique_ids(&mut session);
    let number = 1 + ids.iter().position(|id| *id == before[0]).expect("the first message has kept its unique-id");
    assert_eq!(session.fetch(&format!("RETR {number}")), b"one\r\n", "another message has got the unique-id");
}

/// In a flat maildrop a name may be used again. The new file is another message (RFC 1939 section 7).
#[test]
fn a_replaced_file_has_another_unique_id() {
    let server = Server::start();
    let maildrop = server.maildrop();
    maildrop.put("mail", MESSAGE);
    maildrop.set_modified("mail", 1_000_000_000);
    let before = unique_ids(&mut server.session());
    maildrop.put(".new", MESSAGE);
    maildrop.set_modified(".new", 1_000_000_001);
    maildrop.rename(".new", "mail");
    assert_ne!(unique_ids(&mut server.session()), before);
}

/// GNU tar restores modification times in whole seconds.
#[test]
fn a_flat_maildrop_restored_from_tar_has_its_unique_ids() {
    let mail = MailRoot::new();
    let maildrop = mail.maildrop(USER);
    for number in 0..5 {
        maildrop.put(&format!("{number}.eml"), MESSAGE);
        let file = File::options().write(true).open(maildrop.path(&format!("{number}.eml"))).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789)).unwrap();
    }
    let ids = || unique_ids(&mut Server::builder().mail(&mail).start().session());
    let before = ids();
    let archive = mail.path().join("mail.tar");
    let tar = |arguments: &[&str]| {
        let mut command = Command::new("tar");
        command.arg("-C").arg(mail.path()).arg("-f").arg(&archive).args(arguments).stdin(Stdio::null());
        assert!(command.status().unwrap().success());
    };
    tar(&["-c", USER]);
    fs::remove_dir_all(maildrop.path("")).unwrap();
    tar(&["-x"]);
    assert_eq!(ids(), before);
}

/// The server recognizes a file that was replaced within the same second by its size.
#[test]
fn a_file_replaced_by_one_of_another_size_has_another_unique_id() {
    let server = Server::start();
    let maildrop = server.maildrop();
    let mut ids = Vec::new();
    for message in [MESSAGE, "Subject: b\r\n\r\n"] {
        maildrop.put("mail", message);
        maildrop.set_modified("mail", 1_000_000_000);
        ids.extend(unique_ids(&mut server.session()));
    }
    assert_ne!(ids[0], ids[1]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Changes while a session is open

/// Logs in to a maildrop of three messages and has `change` change the second one. Checks that the second message is
/// refused and that the session goes on with the others. Does this with a flat maildrop and with a Maildir.
#[track_caller]
fn expect_refusal_after(change: impl Fn(&Maildrop, &str)) {
    for folder in ["", "new/"] {
        let server = Server::start();
        let maildrop = server.maildrop();
        let [one, two, three] = [1, 2, 3].map(|number| format!("{folder}100000000{number}.a"));
        for (name, message) in [(&one, "one\r\n"), (&two, MESSAGE), (&three, "three\r\n")] {
            maildrop.put(name, message);
        }
        let mut session = server.session();
        change(&maildrop, &two);
        for command in ["RETR 2", "TOP 2 0"] {
            let text = session.refused(command);
            assert!(text.starts_with("[SYS/TEMP]"), "{command}: {text}");
        }
        assert_eq!(session.fetch("RETR 1"), b"one\r\n");
        assert_eq!(session.fetch("RETR 3"), b"three\r\n");
        assert_eq!(session.call("STAT"), "3 32");
        session.call("DELE 1");
        session.quit();
        assert!(!maildrop.messages().contains(&one) && maildrop.messages().contains(&three));
    }
}

#[test]
fn a_message_that_was_removed_since_login_is_refused() {
    expect_refusal_after(|maildrop, name| maildrop.remove(name));
}

#[test]
fn a_message_that_was_truncated_since_login_is_refused() {
    expect_refusal_after(|maildrop, name| {
        File::options().write(true).open(maildrop.path(name)).unwrap().set_len(3).unwrap();
    });
}

#[test]
fn a_message_that_has_grown_since_login_is_refused() {
    expect_refusal_after(|maildrop, name| {
        File::options().append(true).open(maildrop.path(name)).unwrap().write_all(b"more\r\n").unwrap();
    });
}

#[test]
fn a_message_that_was_replaced_since_login_is_refused() {
    expect_refusal_after(|maildrop, name| {
        maildrop.remove(name);
        maildrop.put(name, "Subject: b\r\n\r\nBODY\r\n");
    });
}

#[test]
fn a_message_that_was_replaced_by_a_symbolic_link_is_refused() {
    expect_refusal_after(|maildrop, name| {
        let kept = maildrop.path(".kept");
        fs::rename(maildrop.path(name), &kept).unwrap();
        symlink(kept, maildrop.path(name)).unwrap();
    });
}

#[test]
fn a_message_that_was_replaced_by_a_fifo_is_refused() {
    expect_refusal_after(|maildrop, name| {
        maildrop.remove(name);
        make_fifo(&maildrop.path(name));
    });
}

#[test]
fn a_message_that_was_replaced_by_a_directory_is_refused() {
    expect_refusal_after(|maildrop, name| {
        maildrop.remove(name);
        fs::create_dir(maildrop.path(name)).unwrap();
    });
}

/// RFC 1939 section 6: QUIT removes the messages that were marked. A file that has taken a marked message's name was
/// not.
#[test]
fn quit_does_not_remove_a_new_file_of_a_marked_messages_name() {
    for name in ["1000000000.a", "new/1000000000.a"] {
        let server = Server::start();
        let maildrop = server.maildrop();
        maildrop.put(name, MESSAGE);
        let mut session = server.session();
        session.call("DELE 1");
        maildrop.remove(name);
        maildrop.put(name, "quite another one\r\n");
        session.send("QUIT");
        session.line();
        session.closed();
        assert_eq!(fs::read(maildrop.path(name)).unwrap(), b"quite another one\r\n");
    }
}

/// In a Maildir a message's content never changes under its name. So the server may trust its index for one session in
/// spite of the change. It then refuses the message, and the next session is right.
#[test]
fn a_message_rewritten_between_sessions_is_sent_as_it_is_now() {
    for (name, may_be_refused) in [("1000000000.a", false), ("new/1000000000.a", true)] {
        let server = Server::start();
        let maildrop = server.maildrop();
        maildrop.put(name, MESSAGE);
        server.session().quit();
        maildrop.put(name, "quite another one\r\n");
        let mut session = server.session();
        if may_be_refused {
            session.send("RETR 1");
            if session.line().starts_with("-ERR [SYS/TEMP] ") {
                session.quit();
                session = server.session();
            } else {
                session.multiline();
            }
        }
        assert_eq!(session.call("STAT"), "1 19");
        assert_eq!(session.fetch("RETR 1"), b"quite another one\r\n");
    }
}

/// The index of a flat maildrop is not trusted for a file that was rewritten, even if its size and modification time
/// are the same, because its lines may need byte-stuffing now.
#[test]
fn a_message_rewritten_with_the_same_size_and_time_is_sent_as_it_is_now() {
    const TIME: u64 = 1_000_000_000;
    for filler in [100_000, 0] {
        let filler = "filler\r\n".repeat(filler);
        let server = Server::start();
        let maildrop = server.maildrop();
        for message in [format!("{filler}xx\r\n"), format!("{filler}.\nx\n")] {
            maildrop.put("1", message);
            maildrop.set_modified("1", TIME);
            server.session().quit();
        }
        let expected = format!("{filler}.\r\nx\r\n");
        let mut session = server.session();
        assert!(session.fetch("RETR 1") == expected.as_bytes(), "RETR has sent something else than the stored message");
        assert_eq!(session.call("LIST 1"), format!("1 {}", expected.len()));
    }
}

#[test]
fn the_session_goes_on_when_its_maildrop_is_removed() {
    for name in ["1000000000.a", "new/1000000000.a"] {
        let server = Server::start();
        server.maildrop().put(name, MESSAGE);
        let mut session = server.session();
        fs::remove_dir_all(server.maildrop().path("")).unwrap();
        assert!(session.refused("RETR 1").starts_with("[SYS/TEMP]"));
        session.call("DELE 1");
        session.quit();
        assert_eq!(server.session().call("STAT"), "0 0");
    }
}

/// RFC 1939 section 4: the messages of a session are fixed at login, and so is the layout.
#[test]
fn a_session_keeps_its_flat_maildrop_when_that_becomes_a_maildir() {
    let server = Server::start();
    let maildrop = server.maildrop();
    maildrop.put("1", MESSAGE);
    let mut session = server.session();
    maildrop.put("new/1000000000.a", "new one\r\n");
    assert_eq!(session.fetch("RETR 1"), MESSAGE.as_bytes());
    assert_eq!(session.call("STAT"), "1 20");
    session.call("DELE 1");
    session.quit();
    assert_eq!(maildrop.messages(), ["new/1000000000.a"]);
    assert!(!maildrop.path("1").exists());
}

// ---------------------------------------------------------------------------------------------------------------------
// Permissions

/// RFC 1939 section 4: if the maildrop cannot be opened, the server answers -ERR and the client may try again.
#[test]
fn an_unreadable_maildrop_is_refused_and_not_locked() {
    let mail = MailRoot::new();
    let path = mail.maildrop(USER).put("1", MESSAGE);
    let directory = path.parent().unwrap();
    let server = Server::builder().mail(&mail).unprivileged().start();
    set_mode(directory, 0o000);
    let mut client = server.pop3();
    for _ in 0..2 {
        client.call(&format!("USER {USER}"));
        let text = client.refused(&format!("PASS {PASSWORD}"));
        assert!(text.starts_with("[SYS/"), "{text}");
        assert!(server.admin().values("cu?").is_empty());
    }
    set_mode(directory, 0o755);
    client.login(USER, PASSWORD);
    assert_eq!(client.fetch("RETR 1"), MESSAGE.as_bytes());
}

#[test]
fn an_unreadable_message_does_not_affect_the_others() {
    for folder in ["", "new/"] {
        let mail = MailRoot::new();
        let maildrop = mail.maildrop(USER);
        maildrop.put(&format!("{folder}1000000000.a"), MESSAGE);
        let unreadable = maildrop.put(&format!("{folder}1000000001.b"), "not for all\r\n");
        let server = Server::builder().mail(&mail).unprivileged().start();
        set_mode(&unreadable, 0o000);
        let mut session = server.session();
        assert_eq!(session.fetch("RETR 1"), MESSAGE.as_bytes());
        assert!(!session.refused("RETR 2").is_empty());
        session.call("NOOP");
        session.quit();
        assert!(unreadable.exists());
    }
}

#[test]
fn a_message_that_becomes_unreadable_is_refused_and_the_session_goes_on() {
    let mail = MailRoot::new();
    let path = mail.maildrop(USER).put("1", MESSAGE);
    mail.maildrop(USER).put("2", "two\r\n");
    let server = Server::builder().mail(&mail).unprivileged().start();
    let mut session = server.session();
    set_mode(&path, 0o000);
    let text = session.refused("RETR 1");
    assert!(text.starts_with("[SYS/"), "{text}");
    assert_eq!(session.fetch("RETR 2"), b"two\r\n");
    session.quit();
}

/// RFC 1939 section 6: QUIT is answered by -ERR if some marked messages were not removed. The connection is closed and
/// the lock is released all the same.
#[test]
fn quit_is_refused_if_messages_cannot_be_removed() {
    for folder in ["", "new/"] {
        let mail = MailRoot::new();
        let path = mail.maildrop(USER).put(&format!("{folder}1000000000.a"), MESSAGE);
        let directory = path.parent().unwrap();
        let server = Server::builder().mail(&mail).unprivileged().start();
        let mut session = server.session();
        session.call("DELE 1");
        set_mode(directory, 0o555);
        let text = session.refused("QUIT");
        assert!(text.starts_with("[SYS/"), "{text}");
        session.closed();
        assert!(server.admin().values("cu?").is_empty());
        let mut session = server.session();
        assert_eq!(session.fetch("RETR 1"), MESSAGE.as_bytes());
        set_mode(directory, 0o755);
        session.call("DELE 1");
        session.quit();
        assert!(!path.exists());
    }
}

#[test]
fn a_maildrop_that_the_server_can_only_read_is_served() {
    let mail = MailRoot::new();
    let path = mail.maildrop(USER).put("new/1000000000.a", MESSAGE);
    let server = Server::builder().mail(&mail).unprivileged().start();
    let directories = [path.parent().unwrap().to_owned(), mail.maildrop(USER).path("")];
    directories.iter().for_each(|directory| set_mode(directory, 0o555));
    for _ in 0..2 {
        let mut session = server.session();
        assert_eq!(session.fetch("RETR 1"), MESSAGE.as_bytes());
        assert_eq!(unique_ids(&mut session), ["1000000000.a"]);
        session.quit();
    }
    directories.iter().for_each(|directory| set_mode(directory, 0o755)); // so that the test can remove them
}

/// Each server finds an index that the other one has written.
#[test]
fn two_servers_can_serve_the_same_maildrop() {
    for folder in ["", "new/"] {
        let mail = MailRoot::new();
        let maildrop = mail.maildrop(USER);
        let servers = [Server::builder().mail(&mail).start(), Server::builder().mail(&mail).start()];
        let mut expected: Vec<String> = Vec::new();
        for n in 0..12 {
            maildrop.put(&format!("{folder}{}.a", 1_000_000_000 + n), "x\r\n".repeat(n + 1));
            expected.push((3 * (n + 1)).to_string());
            for server in &servers {
                let mut session = server.session();
                let listing = session.listing("LIST");
                let sizes: Vec<&str> = listing.iter().map(|line| line.split_once(' ').unwrap().1).collect();
                assert_eq!(sizes, expected);
                session.quit();
            }
            if n % 3 == 2 {
                let mut session = servers[n % 2].session();
                session.call("DELE 1");
                session.quit();
                expected.remove(0);
            }
        }
        assert_eq!(maildrop.messages().len(), expected.len());
    }
}
