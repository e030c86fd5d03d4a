//! Sessions that act with their users' ids (`--as-owner`).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::harness::{Builder, MailRoot, NOBODY, PASSWORD, PROGRAM, Server, USER, bounded_output, eventually};

const UID: u32 = 2001;
const GID: u32 = 3001;

/// Ways to start the server that leave different rights: as root, as an ordinary user, and confined.
const WAYS: [&[&str]; 3] = [&[], &["--run-as", "nobody"], &["--confine"]];

/// A mail directory, and accounts of a users file.
struct Setup {
    mail: MailRoot,
    users: TempDir,
}

impl Setup {
    /// The user's Maildir belongs to the uid, and `fields` are those behind the password. Returns `None` if the tests do not
    /// run as root.
    fn new(fields: &str) -> Option<Self> {
        geteuid().is_root().then(|| {
            let this = Self { mail: MailRoot::new(), users: TempDir::new().unwrap() };
            set_mode(this.mail.path(), 0o755);
            set_mode(this.users.path(), 0o755);
            this.write_users(fields);
            this
        })
    }

    fn write_users(&self, fields: &str) {
        let path = self.users.path().join("users");
        fs::write(&path, format!("{USER}:{{PLAIN}}{PASSWORD}:{fields}\n")).unwrap();
        set_mode(&path, 0o644);
    }

    /// Puts messages into the user's Maildir, which only the user may enter.
    fn with_maildir(self, names: &[&str]) -> Self {
        let top = self.mail.path().join(USER);
        for folder in ["", "new", "cur", "tmp"] {
            fs::create_dir_all(top.join(folder)).unwrap();
            give_to_user(&top.join(folder));
            set_mode(&top.join(folder), 0o700);
        }
        for name in names {
            let path = top.join("new").join(name);
            fs::write(&path, format!("Subject: {name}\n\n{name}\n")).unwrap();
            give_to_user(&path);
            set_mode(&path, 0o600);
        }
        self
    }

    fn builder(&self, flags: &[&str]) -> Builder {
        let users = self.users.path().join("users");
        Server::builder().mail(&self.mail).users_file(&users).flags(["--as-owner"]).flags(flags.iter().copied())
    }

    fn start(&self, flags: &[&str]) -> Server {
        self.builder(flags).start()
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn give_to_user(path: &Path) {
    chown(path, Some(UID), Some(GID)).unwrap();
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

/// The different values of a field of `/proc/PID/task/TID/status`, and how many threads have each.
pub(crate) fn threads_by(server: &Server, field: &str) -> Vec<(String, usize)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let mut values: Vec<(String, usize)> = Vec::new();
    for task in tasks {
        // A thread may have ended meanwhile.
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        let Some(line) = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')) else { continue };
        let value = line.split_whitespace().collect::<Vec<_>>().join(" ");
        match values.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => values.push((value, 1)),
        }
    }
    values.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    values
}

#[test]
fn a_session_has_its_users_ids_and_no_capabilities() {
    for way in WAYS {
        let Some(setup) = Setup::new(&format!("{UID}:{GID}::")) else { return };
        let setup = setup.with_maildir(&["1", "2"]);
        let server = setup.start(way);
        let own = if way.contains(&"nobody") { NOBODY } else { 0 };
        let ids = |own: u32, user: u32| format!("{own} {user} {own} {user}");
        let mut session = server.session();
        assert_eq!(session.fetch("RETR 2"), b"Subject: 2\r\n\r\n2\r\n");
        let threads = threads_by(&server, "Uid");
        assert_eq!(threads[1..], [(ids(own, UID), 1)], "{way:?}");
        assert_eq!(threads[0].0, ids(own, own));
        assert_eq!(threads_by(&server, "Gid")[1..], [(ids(own, GID), 1)]);
        // No capability is in effect in any thread, and those that may be are CAP_SETGID and CAP_SETUID.
        let all = |field: &str| threads_by(&server, field).into_iter().map(|(value, _)| value).collect::<Vec<_>>();
        assert_eq!(all("CapEff"), ["0000000000000000"], "{way:?}");
        assert_eq!(all("CapPrm"), ["00000000000000c0"], "{way:?}");
        assert_eq!(all("CapInh"), ["0000000000000000"], "{way:?}");
        session.call("DELE 1");
        session.quit();
        eventually("the thread has the server's ids back", || threads_by(&server, "Uid").len() == 1);
        assert_eq!(threads_by(&server, "Gid").len(), 1);
        assert_eq!(threads_by(&server, "Groups").len(), 1);
        let top = setup.mail.path().join(USER);
        assert_eq!(fs::read_dir(top.join("new")).unwrap().count(), 1);
        let own_files = ["", "cur"].iter().flat_map(|folder| fs::read_dir(top.join(folder)).unwrap());
        let own_files: Vec<_> = own_files.map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect();
        assert!(!own_files.is_empty());
        own_files.iter().for_each(|path| assert_eq!(owner(path), (UID, GID), "{} {way:?}", path.display()));
    }
}

/// A signal to one thread can end the whole server, and the kernel lets a user send it to threads with the user's real or saved
/// uid.
#[test]
fn a_user_cannot_send_signals_to_the_thread_that_acts_for_the_user() {
    let Some(setup) = Setup::new(&format!("{UID}:{GID}::")) else { return };
    let setup = setup.with_maildir(&["1"]);
    let server = setup.start(&["--run-as", "nobody"]);
    let _session = server.session();
    let acts = format!("Uid:\t{NOBODY}\t{UID}\t{NOBODY}\t{UID}\n");
    let mut tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().map(|task| task.unwrap());
    let thread = tasks.find(|task| fs::read_to_string(task.path().join("status")).unwrap().contains(&acts)).unwrap();
    let signal = |uid: u32| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid.to_string(), "--clear-groups", "--", "kill", "-0"]).arg(thread.file_name());
        command.stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(signal(NOBODY), "the thread is there");
    assert!(!signal(UID));
}

#[test]
fn a_users_permissions_bound_the_session() {
    let Some(setup) = Setup::new(&format!("{UID}:{GID}::")) else { return };
    let setup = setup.with_maildir(&["1", "2"]);
    let new = setup.mail.path().join(USER).join("new");
    // Message 2 is another user's, and the folder with both is no longer the user's own.
    chown(new.join("2"), Some(UID + 1), Some(GID + 1)).unwrap();
    chown(&new, Some(0), Some(0)).unwrap();
    set_mode(&new, 0o755);
    let server = setup.start(&["--run-as", "nobody"]);
    let mut session = server.session();
    assert_eq!(session.call("STAT"), "1 17");
    session.call("DELE 1");
    assert!(session.refused("QUIT").starts_with("[SYS/TEMP]"));
    assert!(new.join("1").exists());
    // A maildrop of another user cannot be opened at all.
    let top = setup.mail.path().join(USER);
    chown(&top, Some(UID + 1), Some(GID + 1)).unwrap();
    let mut client = server.pop3();
    client.call(&format!("USER {USER}"));
    let refusal = client.refused(&format!("PASS {PASSWORD}"));
    assert!(refusal.starts_with("[SYS/PERM]"), "{refusal}");
    eventually("the thread has the server's ids back", || threads_by(&server, "Uid").len() == 1);
}

#[test]
fn low_ids_are_refused() {
    let Some(setup) = Setup::new("0:1000::").map(|setup| setup.with_maildir(&["1"])) else { return };
    let refused = [
        ("0:1000::", "the user's uid 0 is below 1000 (--first-uid)"),
        ("999:1000::", "the user's uid 999 is below 1000 (--first-uid)"),
        ("2001:0::", "the user's group is root's"),
        ("root:3001::", "the user's uid 0 is below 1000 (--first-uid)"),
        ("4294967295:3001::", "4294967295 is no id of a user or group"),
        ("", "the system has no account of this name, and the users file has no uid of the user"),
    ];
    let lines = (1..).zip(refused).map(|(number, (fields, _))| format!("u{number}:{{PLAIN}}x:{fields}\n"));
    fs::write(setup.users.path().join("users"), lines.collect::<String>()).unwrap();
    let server = setup.start(&[]);
    for (number, (_, why)) in (1..).zip(refused) {
        let mut client = server.pop3();
        client.call(&format!("USER u{number}"));
        let refusal = client.refused("PASS x");
        assert!(refusal.starts_with("[SYS/PERM]"), "{refusal}");
        server.expect_log("ERROR", why);
    }
    setup.write_users("999:1000::");
    let low = setup.start(&["--first-uid", "900"]);
    chown(setup.mail.path().join(USER), Some(999), None).unwrap();
    for folder in ["new", "cur", "tmp"] {
        chown(setup.mail.path().join(USER).join(folder), Some(999), None).unwrap();
    }
    chown(setup.mail.path().join(USER).join("new/1"), Some(999), None).unwrap();
    assert_eq!(low.session().call("STAT"), "1 17");
}

#[test]
fn ids_and_home_come_from_the_systems_account() {
    let Some(setup) = Setup::new("") else { return };
    let setup = setup.with_maildir(&["1"]);
    let (home, passwd) = (setup.mail.path().display(), setup.users.path().join("passwd"));
    fs::write(&passwd, format!("root:x:0:0::/root:/bin/sh\n{USER}:x:{UID}:{GID}::{home}:/bin/sh\n")).unwrap();
    set_mode(&passwd, 0o644);
    let template = format!("%h/{USER}");
    let builder =
        setup.builder(&["--allow-dir", setup.mail.path().to_str().unwrap()]).seen_from(Path::new("/"), &template);
    let Some(server) = builder.start_with_passwd(&passwd) else { return };
    let mut session = server.session();
    assert_eq!(session.call("STAT"), "1 17");
    assert_eq!(threads_by(&server, "Uid")[1..], [(format!("0 {UID} 0 {UID}"), 1)]);
    assert_eq!(threads_by(&server, "Groups")[1..], [(GID.to_string(), 1)]);
}

#[test]
fn a_transform_has_the_users_ids() {
    for way in WAYS {
        let Some(setup) = Setup::new(&format!("{UID}:{GID}::")) else { return };
        let setup = setup.with_maildir(&["1"]);
        let transform = "sh -c 'grep -E ^[UG]id: /proc/self/status | xargs; id -G; grep ^CapPrm /proc/self/status'";
        let server = setup.start(&[way, &["-t", transform, "--mail-group", "8"]].concat());
        let mut session = server.session();
        let output = String::from_utf8(session.fetch("RETR 1")).unwrap();
        let expected = format!(
            "Uid: {UID} {UID} {UID} {UID} Gid: {GID} {GID} {GID} {GID}\r\n{GID}\r\nCapPrm:\t0000000000000000\r\n"
        );
        assert_eq!(output, expected, "{way:?}");
        assert_eq!(threads_by(&server, "CapEff").len(), 1, "the thread has kept the rights to start it");
    }
}

#[test]
fn an_mbox_in_a_directory_of_the_mail_group_is_locked_and_changed() {
    let Some(setup) = Setup::new(&format!("{UID}:{GID}::")) else { return };
    // As Debian has /var/mail.
    chown(setup.mail.path(), Some(0), Some(8)).unwrap();
    set_mode(setup.mail.path(), 0o2775);
    let mbox = setup.mail.path().join(USER);
    let (one, two) = ("From a\nSubject: 1\n\none\n\n", "From b\nSubject: 2\n\ntwo\n\n");
    fs::write(&mbox, [one, two].concat()).unwrap();
    chown(&mbox, Some(UID), Some(8)).unwrap();
    set_mode(&mbox, 0o660);
    let remove_first = |server: &Server| {
        let mut session = server.session();
        session.send("DELE 1");
        session.line();
        session.send("QUIT");
        session.line()
    };
    // Without the group, no lock can be made, so nothing is removed.
    assert!(remove_first(&setup.start(&[])).starts_with('+'));
    assert_eq!(fs::read_to_string(&mbox).unwrap(), [one, two].concat());
    let server = setup.start(&["--mail-group", "8", "--run-as", "nobody"]);
    assert!(remove_first(&server).starts_with('+'));
    assert_eq!(fs::read_to_string(&mbox).unwrap(), two);
    assert_eq!(owner(&mbox), (UID, 8));
    let index = setup.mail.path().join(format!(".{USER}.pop3d-index"));
    assert_eq!(owner(&index), (UID, 8));
}

#[test]
fn peep_looks_into_maildrops_with_their_owners_ids() {
    let Some(setup) = Setup::new(&format!("{UID}:{GID}::")) else { return };
    let setup = setup.with_maildir(&["1"]);
    let server = setup.start(&["--run-as", "nobody"]);
    let mut admin = server.admin();
    let lines = admin.values(&format!("i? {USER}"));
    assert!(["messages 1", "octets 17"].iter().all(|line| lines.contains(&(*line).to_owned())), "{lines:?}");
    assert_eq!(admin.value(&format!("at {USER} {PASSWORD}")), "ok");
    eventually("the thread has the server's ids back", || threads_by(&server, "Uid").len() == 1);
}

/// What a session could not read, they do not read with root's rights either.
#[test]
fn doctor_and_import_ids_have_the_users_rights() {
    let Some(setup) = Setup::new(&format!("{UID}:{GID}::")) else { return };
    let setup = setup.with_maildir(&["1", "2"]);
    let top = setup.mail.path().join(USER);
    fs::write(top.join("dovecot-uidlist"), "3 V10 N3 Gx\n1 Pone :1\n2 Ptwo :2\n").unwrap();
    chown(top.join("new/2"), Some(0), Some(0)).unwrap();
    for path in ["dovecot-uidlist", "new/2"] {
        set_mode(&top.join(path), 0o600);
    }
    let run = |task: &str, flags: &[&str]| {
        let (mail, users) = (setup.mail.path(), setup.users.path().join("users"));
        let mut command = Command::new(PROGRAM);
        let output = bounded_output(command.arg(task).arg("-m").arg(mail).arg("--users").arg(users).args(flags));
        String::from_utf8(output.stdout).unwrap()
    };
    let import = |flags: &[&str]| run("import-ids", flags).lines().next().unwrap().to_owned();
    assert_eq!(import(&[]), format!("{USER}: 2 messages, 2 with another server's unique-id"));
    assert_eq!(import(&["--as-owner"]), format!("{USER}: 1 messages, 0 with another server's unique-id"));
    give_to_user(&top.join("dovecot-uidlist"));
    assert_eq!(import(&["--as-owner", "--write"]), format!("{USER}: 1 messages, 1 with another server's unique-id"));
    assert_eq!(owner(&top.join(".pop3d-ids")), (UID, GID));
    let unreadable = "fix: messages that cannot be read: 1: new/2 (Permission denied (os error 13))";
    assert!(!run("doctor", &[]).contains("cannot be read"));
    let report = run("doctor", &["--as-owner"]);
    assert!(report.contains(unreadable), "{report}");
    // Sessions of such a user are refused.
    let report = run("doctor", &["--as-owner", "--first-uid", "5000"]);
    assert!(report.contains(&format!("the user's uid {UID} is below 5000 (--first-uid)")), "{report}");
}

#[test]
fn a_server_that_may_not_change_ids_does_not_start() {
    let builder = Server::builder().flags(["--as-owner"]);
    let drop = "--bounding-set=-setuid,-setgid";
    let builder = if geteuid().is_root() { builder.launched_by(["setpriv", drop]) } else { builder };
    let output = builder.refused();
    let text = String::from_utf8(output.stderr).unwrap();
    let why = "the server needs the capabilities CAP_SETUID and CAP_SETGID, which root has";
    assert!(output.status.code() == Some(1) && text.contains("(--as-owner)") && text.contains(why), "{text}");
}
