//! Locations of maildrops: templates, home directories and locations in the users file, symbolic links of the operator,
//! and rules for names.

use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::process::Command;

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::harness::{Client, MailRoot, NOBODY, PROGRAM, Server, bounded_output};

const MESSAGE: &str = "Subject: a\r\n\r\nbody\r\n";

/// Logs in and returns the answer to STAT.
#[track_caller]
fn stat(server: &Server, name: &str) -> String {
    let mut client: Client = server.pop3();
    client.login(name, "pass");
    let stat = client.call("STAT");
    client.quit();
    stat
}

/// The refusal of a login with the right password.
#[track_caller]
fn refusal(server: &Server, name: &str) -> String {
    let mut client = server.pop3();
    client.call(&format!("USER {name}"));
    client.refused("PASS pass")
}

#[test]
fn maildrops_are_where_the_template_says() {
    let mail = MailRoot::new();
    mail.maildrop("example.com/ana/Maildir").put("new/1000000000.a", MESSAGE);
    mail.maildrop("example.org/ana/Maildir").make_maildir();
    let builder = Server::builder().user("ana@example.com", "pass").user("ana@example.org", "pass");
    let builder = builder.user("ana", "pass").user("x@..", "pass").user("new@example.com", "pass");
    let server = builder.seen_from(mail.path(), "%d/%n/Maildir").start();
    assert_eq!(stat(&server, "ana@example.com"), "1 20");
    assert_eq!(stat(&server, "ana@example.org"), "0 0");
    for name in ["ana", "x@.."] {
        assert!(refusal(&server, name).starts_with("[SYS/"), "{name}");
    }
    // A maildrop that does not exist is empty, and one warning is logged.
    for _ in 0..2 {
        assert_eq!(stat(&server, "new@example.com"), "0 0");
    }
    server.expect_log(
        "WARN",
        "\"new@example.com\" has an empty maildrop because \"example.com/new/Maildir\" does not exist",
    );
    assert_eq!(server.stderr().matches("has an empty maildrop").count(), 1);
}

/// As when the disk is unmounted: a client that saw an empty maildrop would forget which messages it has fetched.
#[test]
fn logins_are_refused_while_the_fixed_part_is_missing() {
    let disk = MailRoot::new();
    disk.maildrop("mail/ana/Maildir").put("new/1000000000.a", MESSAGE);
    let server =
        Server::builder().user("ana", "pass").user("new", "pass").seen_from(disk.path(), "mail/%u/Maildir").start();
    assert_eq!(stat(&server, "ana"), "1 20");
    fs::rename(disk.path().join("mail"), disk.path().join("away")).unwrap();
    for name in ["ana", "new"] {
        assert!(refusal(&server, name).starts_with("[SYS/TEMP]"), "{name}");
    }
    server.expect_log("ERROR", "the maildrop cannot be opened: No such file or directory");
    fs::rename(disk.path().join("away"), disk.path().join("mail")).unwrap();
    assert_eq!(stat(&server, "ana"), "1 20");
    assert_eq!(stat(&server, "new"), "0 0");
}

#[test]
fn peep_can_set_a_template() {
    let server = Server::builder().user("ana@b", "pass").start();
    server.mail().maildrop("b/ana").put("1", MESSAGE);
    assert_eq!(stat(&server, "ana@b"), "0 0");
    let template = format!("{}/%d/%n", server.mail().path().display());
    let mut admin = server.admin();
    admin.send(&format!("m= {template}"));
    assert!(admin.line().starts_with('+'));
    assert_eq!(admin.value("m?"), template);
    assert_eq!(stat(&server, "ana@b"), "1 20");
    for wrong in [format!("m= {}/%x", server.mail().path().display()), "m= /%u".to_owned()] {
        admin.send(&wrong);
        assert!(admin.line().starts_with('-'), "{wrong}");
    }
}

#[test]
fn homes_and_locations_in_the_users_file_are_used() {
    let place = TempDir::new().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let mail = MailRoot::new();
    mail.maildrop("home/ana/Maildir").put("new/1000000000.a", MESSAGE);
    mail.maildrop("home/bob/mail").put("new/1000000000.a", MESSAGE.repeat(2));
    mail.maildrop("virtual/eve").put("new/1000000000.a", MESSAGE.repeat(3));
    let home = mail.path().join("home");
    let (home, mail) = (home.display(), mail.path().display());
    let users = format!(
        "ana:{{PLAIN}}pass:::::::\nbob:{{PLAIN}}pass::::{home}/bob::userdb_mail=maildir:~/mail\n\
         eve:{{PLAIN}}pass::::::userdb_mail=maildir:{mail}/virtual/%u\nall:{{PLAIN}}pass::::{home}/ana\n\
         exact:{{PLAIN}}pass::::::userdb_mail=maildir:{mail}/virtual/eve\n"
    );
    fs::write(path("users"), users).unwrap();
    let server = Server::builder().users_file(path("users").as_ref()).seen_from(place.path(), "%h/Maildir").start();
    assert_eq!(stat(&server, "all"), "1 20");
    assert_eq!(stat(&server, "bob"), "1 40");
    assert_eq!(stat(&server, "eve"), "1 60");
    assert_eq!(stat(&server, "exact"), "1 60");
    assert!(refusal(&server, "ana").starts_with("[SYS/"), "an account without a home");
}

/// What is in a user's directory is the user's: a link there could lead into another user's mail.
#[test]
fn a_users_own_link_on_the_way_to_a_location_is_not_followed() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can make another user's link");
        return;
    }
    let place = TempDir::new().unwrap();
    let mail = MailRoot::new();
    mail.maildrop("bob/x/Maildir").put("new/1000000000.a", MESSAGE);
    mail.maildrop("ana/own/Maildir").put("new/1000000000.a", MESSAGE.repeat(2));
    let root = mail.path().display();
    let users_own = |link: &str| lchown(mail.path().join(link), Some(NOBODY), Some(NOBODY)).unwrap();
    symlink(mail.path().join("bob/x"), mail.path().join("ana/mail")).unwrap();
    symlink(mail.path().join("bob/x/Maildir"), mail.path().join("ana/own/link")).unwrap();
    ["ana/mail", "ana/own/link", "ana/own", "ana"].into_iter().for_each(users_own);
    symlink(mail.path().join("bob/x"), mail.path().join("operators")).unwrap();
    let mut lines = String::new();
    // In the account's home, in a directory that is not, and for an account without a home.
    for (account, home) in [("in", format!("{root}/ana")), ("out", format!("{root}/bob")), ("none", String::new())] {
        for (name, location) in [
            ("link", "ana/mail/Maildir"),
            ("below", "ana/own/link"),
            ("own", "ana/own/Maildir"),
            ("operators", "operators/Maildir"),
        ] {
            lines += &format!("{account}-{name}:{{PLAIN}}pass::::{home}::userdb_mail=maildir:{root}/{location}\n");
        }
    }
    lines += &format!("home:{{PLAIN}}pass::::{root}/ana/mail::userdb_mail=maildir:~/Maildir\n");
    let users = place.path().join("users");
    fs::write(&users, lines).unwrap();
    let server = Server::builder().mail(&mail).users_file(&users).start();
    for account in ["in", "out", "none"] {
        for name in ["link", "below"] {
            assert!(refusal(&server, &format!("{account}-{name}")).starts_with("[SYS/PERM]"), "{account}-{name}");
        }
        assert_eq!(stat(&server, &format!("{account}-own")), "1 40");
        assert_eq!(stat(&server, &format!("{account}-operators")), "1 20");
    }
    assert!(refusal(&server, "home").starts_with("[SYS/PERM]"));
    server.expect_log("ERROR", "on the way to it may be a user's, so it is not followed");
}

/// The users file's word counts for an account, the operator's `--layout` for the others.
#[test]
fn the_format_that_the_users_file_names_is_in_force() {
    const MBOX: &str = "From a@b Thu Jan  1 00:00:00 1970\nSubject: a\n\nbody\n";
    let place = TempDir::new().unwrap();
    let mail = MailRoot::new();
    mail.maildrop("flat").put("1", MESSAGE);
    mail.maildrop("maildir").put("new/1000000000.a", MESSAGE);
    fs::write(mail.path().join("mbox"), MBOX).unwrap();
    let root = mail.path().display();
    let account = |name: &str, location: &str| format!("{name}:{{PLAIN}}pass::::{root}/gone::userdb_mail={location}\n");
    let mut lines = vec![account("homeless", "maildir:~/Maildir")];
    for (name, path) in
        [("flat", "flat"), ("maildir", "maildir"), ("file", "mbox"), ("gone", "gone/a/b"), ("none", "none")]
    {
        lines.push(account(&format!("maildir-{name}"), &format!("maildir:{root}/{path}")));
        lines.push(account(&format!("mbox-{name}"), &format!("mbox:{root}/{path}")));
    }
    let users = place.path().join("users");
    fs::write(&users, lines.concat() + "flat:{PLAIN}pass\nmaildir:{PLAIN}pass\n").unwrap();
    for layout in ["auto", "flat", "maildir"] {
        let server = Server::builder().users_file(&users).mail(&mail).flags(["--layout", layout]).start();
        // The Maildir has an index from the second login on.
        for _ in 0..2 {
            assert_eq!(stat(&server, "maildir-maildir"), "1 20", "{layout}");
        }
        assert_eq!(stat(&server, "mbox-file"), "1 20", "{layout}");
        let empty = ["maildir-flat", "maildir-gone", "mbox-gone", "maildir-none", "mbox-none", "homeless"];
        for name in empty.into_iter().chain(empty) {
            assert_eq!(stat(&server, name), "0 0", "{name} {layout}");
        }
        for (name, why) in [
            ("maildir-file", "the users file says that it is a Maildir, but it is a file"),
            ("mbox-flat", "the users file says that it is an mbox, but it is a directory"),
            ("mbox-maildir", "the users file says that it is an mbox, but it is a directory"),
        ] {
            assert!(refusal(&server, name).starts_with("[SYS/PERM]"), "{name} {layout}");
            server.expect_log("ERROR", why);
        }
        server.expect_log("WARN", "\"maildir-flat\" has an empty maildrop because \"flat\" is no Maildir");
        server.expect_log("WARN", "\"maildir-none\" has an empty maildrop because \"none\" does not exist");
        for name in empty {
            let warning = format!("\"{name}\" has an empty maildrop because");
            assert_eq!(server.stderr().matches(&warning).count(), 1, "{name} {layout}");
        }
        assert_eq!(stat(&server, "flat"), if layout == "maildir" { "0 0" } else { "1 20" });
        assert_eq!(stat(&server, "maildir"), if layout == "flat" { "0 0" } else { "1 20" });
    }
    assert!(!mail.path().join("gone").exists() && !mail.path().join(".none.pop3d-index").exists());
}

/// A location of Dovecot's that has another format would otherwise count for nothing, and the user would see other mail.
#[test]
fn a_location_of_another_format_is_told_and_refused() {
    let place = TempDir::new().unwrap();
    let mail = MailRoot::new();
    mail.maildrop("ana").put("1", MESSAGE);
    let users = place.path().join("users");
    fs::write(&users, "bob:{PLAIN}pass\nana:{PLAIN}pass::::/home/ana::userdb_mail=sdbox:~/dbox\n").unwrap();
    let server = Server::builder().mail(&mail).users_file(&users).start();
    server.expect_log("ERROR", "line 2: the location \"sdbox:~/dbox\" is not supported");
    assert!(refusal(&server, "ana").starts_with("[SYS/TEMP]"));
    server.expect_log(
        "ERROR",
        "reason=\"the maildrop cannot be opened: the location \\\"sdbox:~/dbox\\\" is not supported",
    );
    assert_eq!(stat(&server, "bob"), "0 0");
    let [mail, users] = [mail.path(), &users].map(|path| path.to_str().unwrap());
    for (program, arguments) in [("check", &["-p", "0", "-P", "0"][..]), ("doctor", &["ana"])] {
        let mut command = Command::new(PROGRAM);
        let output = bounded_output(command.args([program, "-m", mail, "--users", users]).args(arguments));
        let report = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{report}");
        assert!(report.contains("the location \"sdbox:~/dbox\" is not supported"), "{report}");
    }
}

/// As for Dovecot, the format is found out then.
#[test]
fn a_location_need_not_name_a_format() {
    let place = TempDir::new().unwrap();
    let mail = MailRoot::new();
    mail.maildrop("maildir").put("new/1000000000.a", MESSAGE);
    mail.maildrop("home").put("cur/1000000000.a:2,S", MESSAGE);
    fs::write(mail.path().join("mbox"), format!("From a@b Thu Jan  1 00:00:00 1970\n{}", MESSAGE.repeat(2))).unwrap();
    let root = mail.path().display();
    let accounts = [
        ("maildir", format!("{root}/maildir")),
        ("mbox", format!("{root}/mbox")),
        ("home", "~".to_owned()),
        ("named", "maildir:~".to_owned()),
    ];
    let line = |(name, at)| format!("{name}:{{PLAIN}}pass::::{root}/home::userdb_mail={at}\n");
    let users = place.path().join("users");
    fs::write(&users, accounts.map(line).concat()).unwrap();
    let server = Server::builder().users_file(&users).start();
    for (name, size) in [("maildir", "1 20"), ("mbox", "1 40"), ("home", "1 20"), ("named", "1 20")] {
        assert_eq!(stat(&server, name), size, "{name}");
    }
}

#[test]
fn a_symbolic_link_of_the_operator_is_followed() {
    let elsewhere = MailRoot::new();
    elsewhere.maildrop("ana/Maildir").put("new/1000000000.a", MESSAGE);
    let users = ["ana", "relative", "owned", "below", "twice", "dangling"];
    let server = users.iter().fold(Server::builder(), |server, user| server.user(user, "pass")).start();
    let link = |target: &str, name: &str| symlink(target, server.mail().path().join(name)).unwrap();
    let maildir = elsewhere.path().join("ana/Maildir");
    link(maildir.to_str().unwrap(), "ana");
    link("store/ana", "relative");
    server.mail().maildrop("store/ana").put("1", MESSAGE.repeat(2));
    link(maildir.to_str().unwrap(), "owned");
    fs::create_dir(server.mail().path().join("below")).unwrap();
    link(maildir.join("new").to_str().unwrap(), "below/new");
    // Users may have made links on the way to the target.
    symlink(&maildir, elsewhere.path().join("link")).unwrap();
    link(elsewhere.path().join("link").to_str().unwrap(), "twice");
    // The directory of the target is missing, as before the first delivery.
    link(elsewhere.path().join("absent/new/Maildir").to_str().unwrap(), "dangling");
    assert_eq!(stat(&server, "dangling"), "0 0");
    server.expect_log("WARN", "\"dangling\" has an empty maildrop because \"absent/new/Maildir\" does not exist");
    let mut client = server.pop3();
    client.login("ana", "pass");
    assert_eq!(client.call("STAT"), "1 20");
    client.call("DELE 1");
    client.quit();
    assert!(elsewhere.maildrop("ana/Maildir").messages().is_empty());
    assert_eq!(stat(&server, "relative"), "1 40");
    // PEEP finds the maildrop as a login does.
    let mut admin = server.admin();
    assert_eq!(admin.value("at relative pass"), "ok");
    assert!(admin.values("i? relative").contains(&"messages 1".to_owned()));
    for name in ["below", "twice"] {
        assert!(refusal(&server, name).starts_with("[SYS/"), "{name}");
    }
    if geteuid().is_root() {
        lchown(server.mail().path().join("owned"), Some(NOBODY), Some(NOBODY)).unwrap();
        assert!(refusal(&server, "owned").starts_with("[SYS/"), "a link of another user");
    }
}

#[test]
fn a_maildrop_of_two_names_is_locked_for_both() {
    let server = Server::builder().user("ana", "pass").user("bob", "pass").start();
    server.mail().maildrop("ana").put("new/1000000000.a", MESSAGE);
    symlink("ana", server.mail().path().join("bob")).unwrap();
    let mut ana = server.pop3();
    ana.login("ana", "pass");
    assert!(refusal(&server, "bob").starts_with("[IN-USE]"));
    ana.quit();
    assert_eq!(stat(&server, "bob"), "1 20");
}

#[test]
fn names_are_completed_before_the_account_is_looked_up() {
    let mail = MailRoot::new();
    mail.maildrop("ana@example.com").put("1", MESSAGE);
    let builder = Server::builder().mail(&mail).user("ana@example.com", "pass");
    let server = builder.flags(["--lower-case-names", "--default-domain", "example.com"]).start();
    for name in ["ana", "ANA", "Ana@Example.Com"] {
        assert_eq!(stat(&server, name), "1 20");
    }
    // PEEP means the same users.
    let mut admin = server.admin();
    admin.send("u+ Bob pass");
    admin.expect("+");
    assert_eq!(admin.values("u?"), ["ana@example.com", "bob@example.com"]);
    assert_eq!(stat(&server, "bob"), "0 0");
    assert!(admin.values("i? Ana").contains(&"user ana@example.com".to_owned()));
    admin.send("u- BOB");
    admin.expect("+");
    assert_eq!(admin.values("u?"), ["ana@example.com"]);
}
