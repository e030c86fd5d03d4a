//! The configuration file of a real server.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::harness::{Certificate, PROGRAM, Server, bounded_output, copy_of_program};

/// Runs `pop3d` with arguments that make it end by itself. Returns its exit code, stdout and stderr.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = bounded_output(Command::new(PROGRAM).args(arguments).stdin(Stdio::null()));
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_server_has_the_settings_of_its_file_and_of_its_command_line() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pop3d.toml");
    fs::write(&path, "user = ['ana:from the file']\ntimeout = 77\nmax-connections = 5\n").unwrap();
    let server = Server::builder().user("bob", "x").flags(["--config", path.to_str().unwrap(), "-T", "88"]).start();
    let mut admin = server.admin();
    assert_eq!(admin.value("t?"), "88");
    assert_eq!(admin.value("c?"), "5");
    // Users on the command line replace those of the file.
    assert_eq!(admin.values("u?"), ["bob"]);
}

#[test]
fn every_error_of_a_configuration_file_is_reported_and_the_server_does_not_start() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pop3d.toml");
    let path = path.to_str().unwrap();
    let (code, _, error) = run(&["--config", path]);
    assert_eq!(code, Some(2));
    let expected =
        format!("pop3d: cannot read the configuration file {path}: No such file or directory (os error 2)\n");
    assert_eq!(error, expected);
    fs::write(path, "max-connection = 5\nuser = 'ana:'\n\n[tls]\nkey = 3\n").unwrap();
    let (code, output, error) = run(&["--config", path, "-p", "0", "-P", "0"]);
    assert_eq!((code, output.as_str()), (Some(2), ""));
    let expected = [
        ":1:1: there is no setting \"max-connection\"; there is \"max-connections\"",
        ":2:8: user: the password is empty",
        ":5:7: tls-key: it has to be a string, not a number",
    ];
    assert_eq!(error.lines().collect::<Vec<_>>(), expected.map(|what| format!("pop3d: {path}{what}")));
}

#[test]
fn the_output_of_show_is_a_configuration_file_of_the_same_settings() {
    let directory = TempDir::new().unwrap();
    let (first, second) = (directory.path().join("first.toml"), directory.path().join("second.toml"));
    let (code, shown, _) = run(&["show", "-T", "5", "--trusted", "192.0.2.0/24", "-u", "ana:hunter2"]);
    assert_eq!(code, Some(0));
    assert!(shown.contains("\ntimeout = 5\n") && shown.contains("\ntrusted = [\"192.0.2.0/24\"]\n"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    fs::write(&first, shown.replace("# user = [\"ana:(hidden)\"]", "user = [\"ana:hunter2\"]")).unwrap();
    let (code, again, error) = run(&["show", "--config", first.to_str().unwrap()]);
    assert_eq!((code, again.as_str()), (Some(0), shown.as_str()), "{error}");
    let (_, explained, _) = run(&["show", "--explain", "--config", first.to_str().unwrap()]);
    assert!(
        explained.contains(
            "# Disconnect a POP3 client that has sent no command for this long, in seconds (0: never)\ntimeout = 5\n"
        ),
        "{explained}"
    );
    assert!(explained.replace("\n# ", " ").contains("; a change needs a restart state = "), "{explained}");
    fs::write(&second, explained).unwrap();
    let (code, _, error) = run(&["show", "--config", second.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{error}");
}

/// Runs `pop3d check` with these arguments. Returns true if it has found no error, and what it prints.
fn check(arguments: &[&str]) -> (bool, String) {
    let (code, output, error) = run(&[&["check", "-p", "0", "-P", "0"], arguments].concat());
    assert!(matches!(code, Some(0 | 1)), "{error}");
    (code == Some(0), output)
}

#[track_caller]
fn assert_says(output: &str, lines: &[&str]) {
    for line in lines {
        assert!(output.lines().any(|it| it.starts_with(line)), "{line}: {output}");
    }
}

#[test]
fn check_reports_what_a_start_would_find() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (root, state) = (directory.path().to_str().unwrap(), directory.path().join("state"));
    let users = file("users", "ana:{PLAIN}x\nbob:{PLAIN}y\n");
    let certificate = Certificate::new();
    let (chain, key) = (certificate.chain(), certificate.key());
    let (chain, key) = (chain.to_str().unwrap(), key.to_str().unwrap());
    let flags =
        ["-m", root, "--users", &users, "-t", "cat", "--state", state.to_str().unwrap(), "--peep-admin", "boss:x"];
    let (good, output) = check(&[&flags[..], &["--tls-cert", chain, "--tls-key", key, "--pop3s-port", "0"]].concat());
    assert!(good, "{output}");
    assert_says(
        &output,
        &[
            "ok       configuration: the command line",
            &format!("ok       mail directory: {root}"),
            &format!("ok       accounts: 2 in users file {users}"),
            "ok       certificate: valid until ",
            "ok       transform: /",
            "ok       admin: boss",
            "ok       POP3: 0.0.0.0:",
            "ok       POP3S: 0.0.0.0:",
            "ok       PEEP: 127.0.0.1:",
            "ok       confinement: runs as the user who starts it",
        ],
    );
    assert!(!state.exists(), "check has made the state directory");
}

#[test]
fn check_reports_every_error() {
    let directory = TempDir::new().unwrap();
    let users = directory.path().join("users");
    fs::write(&users, "ana:{PLAIN}x\nno account\nbob:{NONE}y\n").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let flags = ["--users", users.to_str().unwrap(), "-m", "/nowhere", "--tls-cert", "no", "--tls-key", "no"];
    let flags = [&flags[..], &["-t", "no-such-program", "--address", "127.0.0.1", "--pop3s-port", &port]].concat();
    let (good, output) = check(&flags);
    assert!(!good, "{output}");
    assert_says(
        &output,
        &[
            "error    mail directory: /nowhere: No such file",
            &format!("error    accounts: {} line 2: ", users.display()),
            &format!("error    accounts: {} line 3: ", users.display()),
            &format!("ok       accounts: 1 in users file {}", users.display()),
            "error    certificate: cannot use the TLS certificate: cannot read no: No such file",
            "error    transform: the program \"no-such-program\" was not found",
            "warning  admin: the admin is root:root",
            "ok       POP3: 127.0.0.1:",
            &format!("error    POP3S: cannot listen on 127.0.0.1:{port}: "),
        ],
    );
}

#[test]
fn check_accepts_ports_that_a_running_pop3d_uses() {
    let server = Server::builder().start();
    let port = server.pop3_address().port().to_string();
    let (code, output, error) = run(&["check", "-p", &port, "-P", "0", "-u", "ana:x", "-a", "boss:x"]);
    assert_says(&output, &[&format!("ok       POP3: port {port} is in use by the running pop3d (process ")]);
    assert_eq!(code, Some(0), "{output}{error}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, output, _) = run(&["check", "-p", &port, "-P", "0", "-u", "ana:x", "-a", "boss:x"]);
    let us = format!("(process {})", std::process::id());
    assert!(output.lines().any(|line| line.starts_with("error    POP3: ") && line.ends_with(&us)), "{output}");
    assert_eq!(code, Some(1), "{output}");
}

#[test]
fn the_admin_file_may_have_a_password_or_a_hash() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("admin");
    let start = |line: &str| {
        fs::write(&path, line).unwrap();
        Server::builder().flags(["--peep-admin-file", path.to_str().unwrap()])
    };
    let hash = "boss:{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=";
    // A hash may be longer than any password that PEEP accepts, because nobody types it.
    let long = "boss:{SCRAM-SHA-256}4096,2PVtfbW6jHRlfXrnE/Zntw==,1h4YD5ofQCsCWw59ttPLce3meSvTgqVEDwycMO5IbAw=,\
                TeEOaeVDqtPwhRnJcOhvcCdDGKxx52VmmqDBY84X/GM=";
    for line in ["boss:secret\nignored\n", hash, long] {
        let server = start(line).start();
        let mut admin = server.peep();
        admin.send("a boss wrong");
        admin.expect("-2");
        admin.send("a boss secret");
        admin.expect("+");
    }
    for (line, why) in [
        ("", "it has to have the form NAME:PASSWORD"),
        ("boss:two words", "PEEP takes a password of 1 to 128 octets"),
        ("boss:{PLAIN}two words", "PEEP takes a password of 1 to 128 octets"),
        ("boss:{SHA256}no hash", "the password is not in the form of SHA256"),
        ("boss:{SHA256}nohash", "the password is not in the form of SHA256"),
    ] {
        let output = start(line).refused();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains(why), "{line}: {error}");
        assert!(!error.contains("hash\n"), "{error}");
    }
}

#[test]
fn an_admin_file_that_others_can_read_gets_one_warning() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("admin");
    fs::write(&path, "boss:secret").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let path = path.to_str().unwrap();
    let warning = format!("other users can read or write {path}: take their permissions away with chmod o=");
    let server = Server::builder().flags(["--peep-admin-file", path]).start();
    server.peep();
    server.expect_log("INFO", "connected to PEEP");
    assert_eq!(server.stderr().matches(&warning).count(), 1, "{}", server.stderr());
    let (_, output) = check(&["--peep-admin-file", path, "--peep-address", "0.0.0.0"]);
    assert_eq!(output.matches(&warning).count(), 1, "{output}");
}

#[test]
fn the_default_admin_in_a_file_is_refused_for_other_machines() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("admin");
    fs::write(&path, "root:root").unwrap();
    let flags = ["--peep-admin-file", path.to_str().unwrap(), "--peep-address", "0.0.0.0", "--allow-cleartext"];
    let output = Server::builder().flags(flags).refused();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("set an admin with --peep-admin first"), "{error}");
}

#[test]
fn the_packages_configuration_file_can_be_used_with_and_without_its_comments() {
    let packaged = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/debian/pop3d.toml");
    let (code, shown, error) = run(&["show", "--config", packaged]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(shown.contains("\nconfine = true\n") && shown.contains("\n# timeout = 600\n"), "{shown}");

    let is_setting = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let uncommented = |line: &str| match line.strip_prefix("# ") {
        Some(setting) if is_setting(setting) => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    // The file may name a certificate or let the server make one, but not both.
    let text = fs::read_to_string(packaged).unwrap().replace("tls-self-signed = true", "");
    let all: String = text.lines().map(uncommented).collect();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("all.toml");
    fs::write(&path, all).unwrap();
    let (code, shown, error) = run(&["show", "--config", path.to_str().unwrap()]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(shown.contains("\npop3s-port = 995\n") && shown.contains("\ntimeout = 600\n"), "{shown}");
}

#[test]
fn health_asks_the_server_for_its_greeting() {
    let server = Server::builder().start();
    let health = |port: u16| run(&["health", "--address", "127.0.0.1", "-p", &port.to_string()]);
    let port = server.pop3_address().port();
    let (code, greeting, error) = health(port);
    assert!(code == Some(0) && greeting.starts_with(&format!("127.0.0.1:{port}: \"+OK pop3d ready ")), "{error}");

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    thread::spawn(move || other.accept().unwrap().0.write_all(b"-ERR busy\r\n").unwrap());
    let (code, _, error) = health(port);
    assert_eq!((code, error), (Some(1), format!("pop3d: 127.0.0.1:{port}: the greeting is \"-ERR busy\"\n")));

    // A port that is bound and does not listen.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let (code, _, error) = health(bound.local_addr().unwrap().as_socket().unwrap().port());
    assert!(code == Some(1) && error.contains("Connection refused"), "{error}");

    let (code, _, error) = health(0);
    assert!(code == Some(1) && error.contains("it is not known"), "{error}");
}

/// Without the feature `pam` there is no program that asks PAM.
#[test]
fn pam_without_its_program_is_an_error_of_the_check_and_of_the_start() {
    let (program, _directory) = copy_of_program();
    let source = ["--accounts", "kind = \"pam\""];
    for task in [&["check"][..], &[]] {
        let output =
            bounded_output(Command::new(&program).args(task).args(["-m", "/"]).args(source).stdin(Stdio::null()));
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_ne!(output.status.code(), Some(0));
        assert!(
            text.contains("the program pop3d-pam was found neither beside this one nor in /usr/libexec/pop3d"),
            "{text}"
        );
    }
}

#[test]
fn the_service_of_pam_is_the_name_of_a_file() {
    for (keys, why) in [
        ("service = \"../passwd\"", "it has to be the name of a file in /etc/pam.d"),
        ("service = \"\"", "it has to be the name of a file in /etc/pam.d"),
        ("socket = \"/run/s\", service = \"mail\"", "cannot be used with"),
        ("at-once = 0", "at-once"),
    ] {
        let (code, _, error) = run(&["--accounts", &format!("kind = \"pam\", {keys}")]);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(why), "{error}");
    }
}
