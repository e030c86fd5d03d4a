//! A configuration that is read again while the server runs.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::harness::{Builder, Certificate, Client, MailRoot, NOBODY, Server, eventually};

/// A configuration file and the mail that it serves.
struct Setup {
    directory: TempDir,
    mail: MailRoot,
}

impl Setup {
    /// Writes a file with these lines and with defaults for tests: the mail directory, and free ports on 127.0.0.1.
    fn new(lines: &str) -> Self {
        let setup = Self { directory: TempDir::new().unwrap(), mail: MailRoot::new() };
        setup.write(lines);
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replaces the file by one with these lines. A line replaces the default for its key.
    fn write(&self, lines: &str) {
        let mail = format!("{:?}", self.mail.path());
        let own = [
            ("mailbox", mail.as_str()),
            ("pop3-port", "0"),
            ("peep-port", "0"),
            ("address", "['127.0.0.1']"),
            ("peep-address", "['127.0.0.1']"),
            ("peep-admin", "'boss:secret'"),
        ];
        let is_set = |key: &str| lines.lines().any(|line| line.starts_with(&format!("{key} =")));
        let own = own.iter().filter(|(key, _)| !is_set(key)).map(|(key, value)| format!("{key} = {value}\n"));
        // The server never reads a part of the file, because it is replaced as a whole.
        fs::write(self.path("new"), own.collect::<String>() + lines + "\n").unwrap();
        fs::rename(self.path("new"), self.path("pop3d.toml")).unwrap();
    }

    fn builder(&self) -> Builder {
        Server::builder().mail(&self.mail).configured_by(&self.path("pop3d.toml"))
    }

    fn start(&self) -> Server {
        self.builder().start()
    }
}

fn admin(server: &Server) -> Client {
    let mut admin = server.peep();
    admin.send("a boss secret");
    admin.expect("+");
    admin
}

/// Makes the server read its configuration again, by PEEP. Returns the settings that need a restart.
#[track_caller]
fn reload(admin: &mut Client) -> Vec<String> {
    admin.send("r");
    let answer = admin.line();
    let count = answer.strip_prefix('+').unwrap_or_else(|| panic!("{answer}"));
    let count = if count.is_empty() { 0 } else { count.parse().unwrap() };
    (0..count).map(|_| admin.line()).collect()
}

/// Waits for the log line `number` (from 0) about a listening socket of `service`, and returns its address.
#[track_caller]
fn listening(server: &Server, service: &str, number: usize) -> SocketAddr {
    let mut found = None;
    let line = format!("] {service} listening on ");
    eventually("the log has the address", || {
        let log = server.stderr();
        found =
            log.lines().filter_map(|it| it.split_once(&line)).nth(number).map(|(_, address)| address.parse().unwrap());
        found.is_some()
    });
    found.unwrap()
}

/// Logs in and closes the connection.
fn login(server: &Server, name: &str, password: &str) -> Result<(), String> {
    server.log_in(name, password).map(drop)
}

#[test]
fn sighup_reads_the_configuration_again() {
    let setup = Setup::new("user = ['ana:1', 'bob:1']\ntimeout = 77\nmax-connections = 50");
    let server = setup.start();
    let mut admin = admin(&server);
    setup.write("user = ['ana:2', 'eve:1']\ntimeout = 78\nmax-connections = 51");
    server.signal(Signal::HUP);
    server.expect_log("INFO", "the configuration has been read again");
    assert_eq!([admin.value("t?"), admin.value("c?")], ["78", "51"]);
    assert_eq!(admin.values("u?"), ["ana", "eve"]);
    assert!(login(&server, "ana", "2").is_ok() && login(&server, "ana", "1").is_err());
}

#[test]
fn a_value_set_by_peep_stays_until_the_configuration_changes_it() {
    let setup = Setup::new("user = ['ana:1', 'bob:1']\ntimeout = 77\nmax-connections = 50");
    let server = setup.start();
    let mut admin = admin(&server);
    let elsewhere = MailRoot::new();
    let moved = elsewhere.path().to_str().unwrap();
    for change in ["t= 5", "c= 9", "u+ eve 1", "u- bob", &format!("m= {moved}")] {
        admin.send(change);
        admin.expect("+");
    }
    setup.write("user = ['ana:2', 'bob:1']\ntimeout = 77\nmax-connections = 50");
    assert!(reload(&mut admin).is_empty());
    assert_eq!([admin.value("t?"), admin.value("c?"), admin.value("m?")], ["5", "9", moved]);
    assert_eq!(admin.values("u?"), ["ana", "eve"]);
    setup.write("user = ['bob:2']\ntimeout = 78\nmax-connections = 51\nmailbox = '/'");
    admin.send("r");
    admin.expect("-11");
    setup.write("user = ['bob:2']\ntimeout = 78\nmax-connections = 51");
    assert!(reload(&mut admin).is_empty());
    assert_eq!([admin.value("t?"), admin.value("c?"), admin.value("m?")], ["78", "51", moved]);
    assert_eq!(admin.values("u?"), ["bob", "eve"]);
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing() {
    let setup = Setup::new("user = ['ana:1']\ntimeout = 77");
    let server = setup.start();
    let mut admin = admin(&server);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    fs::write(setup.path("users"), "no account\n").unwrap();
    let users = setup.path("users");
    for (bad, why) in [
        ("timeout = 'x'".to_owned(), ":1:11: timeout: it has to be a number, not a string".to_owned()),
        ("timeouts = 1".to_owned(), "there is no setting \"timeouts\"; there is \"timeout\"".to_owned()),
        ("timeout = 78\nmailbox = '/nowhere'".to_owned(), "cannot use /nowhere as mail directory".to_owned()),
        ("timeout = 78\ntls-cert = 'no'\ntls-key = 'no'".to_owned(), "cannot read no".to_owned()),
        (format!("timeout = 78\npop3-port = {port}"), format!("cannot listen on 127.0.0.1:{port}")),
        (format!("timeout = 78\nusers = {users:?}"), "no line is an account".to_owned()),
        ("timeout = 78\nquiet = 3".to_owned(), "--quiet can be given twice at the most".to_owned()),
    ] {
        setup.write(&bad);
        admin.send("r");
        admin.expect("-11");
        let why = why.replace(":1:11:", ":"); // The number of the line depends on the other keys.
        let is_reason = |line: &str| {
            line.contains("[ERROR] the configuration cannot be used, the old one stays: ")
                && line.contains(why.trim_start_matches(": "))
        };
        eventually(&format!("the log has the reason: {why}"), || server.stderr().lines().any(is_reason));
        assert_eq!(admin.value("t?"), "77", "{bad}");
        assert_eq!(admin.values("u?"), ["ana"], "{bad}");
        assert!(login(&server, "ana", "1").is_ok(), "{bad}");
    }
    fs::remove_file(setup.path("pop3d.toml")).unwrap();
    admin.send("r");
    admin.expect("-11");
    setup.write("user = ['ana:1']\ntimeout = 78");
    assert!(reload(&mut admin).is_empty());
    assert_eq!(admin.value("t?"), "78");
}

#[test]
fn settings_that_need_a_restart_are_named() {
    let setup = Setup::new("user = ['ana:1']");
    let server = setup.start();
    let mut admin = admin(&server);
    let state = setup.path("state");
    setup.write(&format!("user = ['ana:1']\nstate = {state:?}\ntimeout = 5\nconfine = true"));
    for _ in 0..2 {
        assert_eq!(reload(&mut admin), ["confine", "state"]);
    }
    server.expect_log("WARN", "the configuration has been read again; these settings need a restart: confine, state");
    assert_eq!(admin.value("t?"), "5");
    assert!(!state.exists());
    setup.write("user = ['ana:1']");
    assert!(reload(&mut admin).is_empty());
}

#[test]
fn ports_are_added_and_removed_while_sessions_go_on() {
    let certificate = Certificate::new();
    let tls = format!("tls-cert = {:?}\ntls-key = {:?}\n", certificate.chain(), certificate.key());
    let setup = Setup::new("user = ['ana:1']");
    let server = setup.start();
    let mut admin = admin(&server);
    let port = server.pop3_address().port();

    let mut without_tls = server.pop3();
    setup.write(&format!("user = ['ana:1']\n{tls}pop3s-port = 0\naddress = ['127.0.0.1', '127.0.0.2']"));
    assert!(reload(&mut admin).is_empty());
    let other = SocketAddr::from(([127, 0, 0, 2], port));
    assert_eq!(listening(&server, "POP3", 0), other);
    let mut session = Client::connect(other);
    session.ok();
    session.login("ana", "1");
    let mut by_tls = Client::connect(listening(&server, "POP3S", 0)).tls(&certificate);
    by_tls.ok();
    let mut by_stls = server.pop3();
    by_stls.call("STLS");
    by_stls.tls(&certificate).call("CAPA");

    setup.write("user = ['ana:1']\naddress = ['127.0.0.1']");
    assert!(reload(&mut admin).is_empty());
    for closed in [other, listening(&server, "POP3S", 0)] {
        server.expect_log("INFO", &format!("no longer listening on {closed}"));
        assert!(Client::try_connect(closed).is_err(), "{closed}");
    }
    session.call("STAT");
    session.quit();
    by_tls.call("CAPA");
    without_tls.login("ana", "1");
    without_tls.quit();
    let mut client = server.pop3();
    assert!(client.refused("STLS").contains("no TLS"));
    // The port can be added again.
    setup.write("user = ['ana:1']\naddress = ['127.0.0.2', '127.0.0.1']");
    assert!(reload(&mut admin).is_empty());
    Client::connect(other).ok();
}

/// All addresses exclude each of them on the same port, unless one socket replaces the other.
#[test]
fn an_address_replaces_one_that_covers_it() {
    let certificate = Certificate::new();
    let tls = format!("tls-cert = {:?}\ntls-key = {:?}\n", certificate.chain(), certificate.key());
    let setup = Setup::new("user = ['ana:1']");
    let server = setup.start();
    let mut admin = admin(&server);
    let address = server.pop3_address();
    let port = format!("pop3-port = {}", address.port());
    let mut session = server.pop3();
    session.login("ana", "1");
    for addresses in ["['0.0.0.0']", "['127.0.0.1']", "['0.0.0.0']", "['127.0.0.1', '127.0.0.2']"] {
        setup.write(&format!("user = ['ana:1']\n{port}\naddress = {addresses}"));
        assert!(reload(&mut admin).is_empty(), "{addresses}");
        Client::connect(address).ok();
    }
    // The same port for another service, and back.
    setup.write(&format!("user = ['ana:1']\n{tls}pop3s-port = {}", address.port()));
    assert!(reload(&mut admin).is_empty());
    Client::connect(address).tls(&certificate).ok();
    setup.write(&format!("user = ['ana:1']\n{port}"));
    assert!(reload(&mut admin).is_empty());
    Client::connect(address).ok();
    session.call("STAT");
    session.quit();
}

#[test]
fn peep_uses_tls_after_a_reload() {
    let certificate = Certificate::new();
    let setup = Setup::new("user = ['ana:1']");
    let server = setup.start();
    let mut in_clear = admin(&server);
    let (chain, key) = (certificate.chain(), certificate.key());
    setup.write(&format!("user = ['ana:1']\ntls-cert = {chain:?}\ntls-key = {key:?}\npeep-tls = true"));
    assert!(reload(&mut in_clear).is_empty());
    let mut by_tls = Client::connect(server.peep_address()).tls(&certificate);
    by_tls.send("a boss secret");
    by_tls.expect("+");
    assert_eq!(in_clear.values("u?"), by_tls.values("u?"));
}

#[test]
fn open_sessions_use_the_reloaded_settings() {
    let setup = Setup::new("user = ['ana:1']");
    setup.mail.maildrop("ana").put("1", "abc\n");
    let elsewhere = MailRoot::new();
    elsewhere.maildrop("ana").put("1", "one\n");
    elsewhere.maildrop("ana").put("2", "two\n");
    let server = setup.start();
    let mut admin = admin(&server);
    let session = || {
        let mut session = server.pop3();
        session.login("ana", "1");
        session
    };
    let mut old = session();
    assert_eq!(old.fetch("RETR 1"), b"abc\r\n");
    old.call("STAT");
    setup.write("user = ['ana:1']\ntransform = 'tr a-z A-Z'\npeep-admin = 'chief:other'\nverbose = 1");
    assert!(reload(&mut admin).is_empty());
    assert_eq!(old.fetch("RETR 1"), b"ABC\r\n");
    server.expect_log("DEBUG", "RETR 1");
    let mut chief = server.peep();
    chief.send("a boss secret");
    chief.expect("-2");
    chief.send("a chief other");
    chief.expect("+");

    let path = elsewhere.path();
    setup.write(&format!("user = ['ana:1']\nmailbox = {path:?}\nper-address = 1\nlimit-loopback = true"));
    assert!(reload(&mut chief).is_empty());
    assert!(old.call("STAT").starts_with("1 "));
    old.quit();
    let mut new = session();
    assert!(new.call("STAT").starts_with("2 "));
    assert_eq!(new.fetch("RETR 2"), b"two\r\n");
    assert!(Client::connect(server.pop3_address()).err().contains("too many connections"));
    new.quit();
    setup.write(
        "user = ['ana:1']\nlayout = 'maildir'\ntrusted = ['127.0.0.0/8']\nlimit-loopback = true\nper-address = 1",
    );
    assert!(reload(&mut chief).is_empty());
    let _first = server.pop3();
    let mut maildir = session();
    assert!(maildir.call("STAT").starts_with("0 "));
}

#[test]
fn rules_for_maildirs_follow_the_configuration() {
    let setup = Setup::new("user = ['ana:1']");
    let maildrop = setup.mail.maildrop("ana");
    ["cur/1.a.h:2,S", "cur/2.a.h:2,T"].iter().for_each(|name| drop(maildrop.put(name, "abc\n")));
    fs::write(maildrop.path("dovecot-uidlist"), "3 V10 N5 Gx\n1 :1.a.h\n").unwrap();
    let server = setup.start();
    let mut admin = admin(&server);
    let ids = || {
        let mut session = server.pop3();
        session.login("ana", "1");
        session.listing("UIDL")
    };
    assert_eq!(ids(), ["1 1.a.h", "2 2.a.h"]);
    for (lines, expected) in [
        ("hide-trashed = true", &["1 1.a.h"][..]),
        ("unique-ids = 'dovecot'", &["1 000000010000000a", "2 2.a.h"]),
        ("unique-ids = 'dovecot'\ndovecot-uidl-format = '%v.%u'", &["1 10.1", "2 2.a.h"]),
    ] {
        setup.write(&format!("user = ['ana:1']\n{lines}"));
        assert!(reload(&mut admin).is_empty());
        assert_eq!(ids(), expected, "{lines}");
    }
}

#[test]
fn a_reload_can_change_the_users_file() {
    let setup = Setup::new("");
    fs::write(setup.path("first"), "ana:{PLAIN}1\n").unwrap();
    fs::write(setup.path("second"), "bob:{PLAIN}1\n").unwrap();
    setup.write(&format!("users = {:?}", setup.path("first")));
    let server = setup.start();
    let mut admin = admin(&server);
    let mut session = server.pop3();
    session.login("ana", "1");
    setup.write(&format!("users = {:?}", setup.path("second")));
    assert!(reload(&mut admin).is_empty());
    assert_eq!(admin.values("u?"), ["bob"]);
    assert!(login(&server, "ana", "1").is_err() && login(&server, "bob", "1").is_ok());
    session.call("STAT");
    session.quit();
}

#[test]
fn rules_for_names_follow_the_configuration() {
    let setup = Setup::new("user = ['ana@example.org:1']");
    let server = setup.start();
    let mut admin = admin(&server);
    assert!(login(&server, "Ana", "1").is_err());
    setup.write("user = ['ana@example.org:1']\nlower-case-names = true\ndefault-domain = 'example.org'");
    assert!(reload(&mut admin).is_empty());
    assert!(login(&server, "Ana", "1").is_ok());
}

#[test]
fn a_reload_can_start_and_end_the_statistics_log() {
    let setup = Setup::new("user = ['ana:1']");
    let server = setup.start();
    let mut admin = admin(&server);
    let path = setup.path("stats.csv");
    setup.write(&format!("user = ['ana:1']\nstats-log = {:?}", format!("{}:1", path.display())));
    assert!(reload(&mut admin).is_empty());
    let lines = || fs::read_to_string(&path).unwrap_or_default().lines().count();
    eventually("there are two lines of counters", || lines() > 2);
    setup.write("user = ['ana:1']");
    assert!(reload(&mut admin).is_empty());
    server.expect_log("INFO", "set: configuration read again");
}

/// logrotate needs a new log file even if the configuration has an error.
#[test]
fn the_log_file_is_opened_again_if_the_configuration_has_an_error() {
    let setup = Setup::new("user = ['ana:1']");
    let log = setup.path("log");
    let server = setup.builder().flags(["--log-file", log.to_str().unwrap()]).start();
    fs::rename(&log, setup.path("log.1")).unwrap();
    setup.write("user = 5");
    server.signal(Signal::HUP);
    let text = || fs::read_to_string(&log).unwrap_or_default();
    eventually("the log goes on in a new file", || text().contains("the configuration cannot be used"));
}

/// A server that has given up root keeps the old values of settings that it may not apply, and names them. It applies
/// the others.
#[test]
fn settings_that_a_confined_server_may_not_apply_need_a_restart() {
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: only root can start a server that becomes another user");
    }
    let certificate = Certificate::new();
    let setup = Setup::new("");
    let (chain, key) = (certificate.chain(), certificate.key());
    let base =
        format!("user = ['ana:1']\nrun-as = '{NOBODY}'\npop3s-port = 0\ntls-cert = {chain:?}\ntls-key = {key:?}\n");
    setup.write(&base);
    for path in [setup.directory.path(), setup.mail.path(), chain.parent().unwrap()] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let server = setup.start();
    server.expect_log("WARN", &format!("will not be able to read {} again when it changes", key.display()));
    let mut admin = admin(&server);
    // The mail directory is not below the old one, and only root may read the key.
    let elsewhere = MailRoot::new();
    setup.write(&format!("{base}timeout = 5\nmailbox = {:?}\npeep-port = 1", elsewhere.path()));
    for _ in 0..2 {
        assert_eq!(reload(&mut admin), ["mailbox", "peep-port", "tls-cert", "tls-key"]);
    }
    assert_eq!([admin.value("t?").as_str(), &admin.value("m?")], ["5", setup.mail.path().to_str().unwrap()]);
    Client::connect(server.pop3s_address()).tls(&certificate).ok();
    // The server may not read its configuration, either.
    fs::set_permissions(setup.path("pop3d.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(reload(&mut admin).contains(&"config".to_owned()));
    assert_eq!(admin.value("t?"), "5");
}

/// Sessions go on without an error while the configuration changes again and again.
#[test]
fn two_hundred_reloads_under_load_harm_no_session() {
    const CLIENTS: usize = 20;
    const RELOADS: usize = 200;
    let certificate = Certificate::new();
    let tls = format!("tls-cert = {:?}\ntls-key = {:?}\n", certificate.chain(), certificate.key());
    let users: Vec<String> = (0..CLIENTS).map(|number| format!("'user{number}:secret'")).collect();
    let users = users.join(", ");
    let lines = |odd: bool| match odd {
        false => format!("user = [{users}]\n{tls}timeout = 300\nmax-connections = 100\naddress = ['127.0.0.1']"),
        true => format!(
            "user = [{users}, 'other:x']\n{tls}timeout = 200\nmax-connections = 200\npop3s-port = 0\n\
             address = ['127.0.0.1', '127.0.0.2']\ntransform = 'cat'\nper-address = 100\nquiet = 1"
        ),
    };
    let setup = Setup::new(&lines(false));
    for number in 0..CLIENTS {
        setup.mail.maildrop(&format!("user{number}")).put("1", "text\n".repeat(1000));
    }
    let server = setup.start();
    let (done, sessions) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, done, sessions, certificate) = (&server, &done, &sessions, &certificate);
            scope.spawn(move || {
                // Half of the clients keep one session open all the time.
                let mut client = server.pop3();
                if number % 3 == 0 {
                    client.call("STLS");
                    client = client.tls(certificate);
                }
                client.login(&format!("user{number}"), "secret");
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.fetch("RETR 1").len(), 6000);
                    if number % 2 == 0 {
                        client.quit();
                        sessions.fetch_add(1, Ordering::Relaxed);
                        client = server.pop3();
                        client.login(&format!("user{number}"), "secret");
                    }
                }
                client.quit();
            });
        }
        // This ends the clients also if an assertion fails.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _done = Done(&done);
        let mut admin = admin(&server);
        for number in 1..=RELOADS {
            let odd = number % 2 == 1;
            setup.write(&lines(odd));
            assert!(reload(&mut admin).is_empty(), "reload {number}");
            assert_eq!(admin.value("t?"), if odd { "200" } else { "300" });
            assert_eq!(admin.values("u?").len(), CLIENTS + usize::from(odd));
        }
    });
    let ended = sessions.load(Ordering::Relaxed);
    assert!(ended > CLIENTS, "only {ended} sessions in {RELOADS} reloads");
    let log = server.stderr();
    assert!(!log.contains("[ERROR]"), "{log}");
}
