//! The default admin of a server that runs as root. Only programs of root may log in as it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use crate::harness::{Builder, MailRoot, NOBODY, Server, eventually};

/// The first answer to a program of this user that sends these lines to PEEP.
fn answer(server: SocketAddr, user: u32, lines: &str) -> String {
    let script =
        "exec 3<>/dev/tcp/$0/$1 && printf \"$2\" >&3 && read -r -t 10 line <&3; printf '%s\\n' \"${line%$'\\r'}\"";
    let mut command = Command::new("bash");
    command
        .args(["-c", script, &server.ip().to_string(), &server.port().to_string(), lines])
        .uid(user)
        .current_dir("/");
    let mut client = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    // The script waits for 10 s at most.
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    client.wait().unwrap();
    line.trim_end().to_owned()
}

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: only root can start programs of two users");
    }
    is_root
}

/// A server of the user that runs the tests, which is root.
fn of_root() -> Builder {
    Server::builder()
}

#[test]
fn only_programs_of_root_may_use_the_default_admin() {
    if !is_root() {
        return;
    }
    for address in ["127.0.0.1", "::1"] {
        if TcpListener::bind((address, 0)).is_err() {
            eprintln!("SKIPPED: this machine does not have the address {address}");
            continue;
        }
        let server = of_root().address(address).start();
        server.expect_log("WARN", "default admin, so only programs of root may log in as admin");
        assert_eq!(answer(server.peep_address(), 0, "a root root\\n"), "+", "{address}");
        assert_eq!(answer(server.peep_address(), NOBODY, "a root root\\n"), "-2", "{address}");
        server.expect_log("WARN", "admin login refused: name=\"root\"");
        server.expect_log("WARN", "the client belongs to user 65534");
        assert_eq!(answer(server.peep_address(), NOBODY, "a root wrong\\n"), "-2", "{address}");
    }
}

/// The kernel no longer knows the owner of a socket when the program has closed it.
#[test]
fn a_program_that_leaves_at_once_is_refused_as_default_admin() {
    if !is_root() {
        return;
    }
    let server = of_root().start();
    let leave = "exec 3<>/dev/tcp/$0/$1 && printf 'a root root\\nu+ eve evil\\n' >&3";
    for _ in 0..20 {
        let mut command = Command::new("bash");
        let (ip, port) = (server.peep_address().ip().to_string(), server.peep_address().port().to_string());
        command.args(["-c", leave, &ip, &port]).uid(NOBODY).current_dir("/").stdin(Stdio::null());
        assert!(command.status().unwrap().success());
    }
    eventually("all logins are refused", || server.stderr().matches("admin login refused").count() == 20);
    assert!(!server.admin().values("u?").contains(&"eve".to_owned()));
}

#[test]
fn an_admin_of_peep_admin_may_be_a_program_of_any_user() {
    if !is_root() {
        return;
    }
    let server = of_root().flags(["-a", "boss:secret"]).start();
    assert_eq!(answer(server.peep_address(), NOBODY, "a boss secret\\n"), "+");
    assert!(!server.stderr().contains("default admin"), "{}", server.stderr());

    // A server that does not run as root accepts the default admin from programs of any user.
    let mail = MailRoot::new();
    let server = Server::builder().mail(&mail).unprivileged().start();
    assert_eq!(answer(server.peep_address(), NOBODY, "a root root\\n"), "+");
}
