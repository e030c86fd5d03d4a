//! Logins by POP3 that PAM decides.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use super::processes::Processes;
use super::{System, UNIX, workers_of};
use crate::harness::processes::{children_of, is_running, kill};
use crate::harness::{Client, MailRoot, NOBODY, Server, eventually};
use crate::owners::threads_by;

/// No refusal is faster, whichever module has decided.
const LEAST_REFUSAL: Duration = Duration::from_secs(2);

/// Starts a server in this system with PAM as an account source that has these keys and remembers no password.
fn serve(system: &System, keys: &str) -> Server {
    serve_remembering(system, &format!(", cache = \"off\"{keys}"))
}

/// Starts a server in this system with PAM as an account source that has these keys. It becomes an ordinary user.
fn serve_remembering(system: &System, keys: &str) -> Server {
    let mail = MailRoot::new();
    fs::set_permissions(mail.path(), Permissions::from_mode(0o755)).unwrap();
    let launcher = system.launcher();
    let builder = Server::builder().mail(&mail).user("own", "o").launched_by(launcher.iter().map(String::as_str));
    let source = format!("kind = \"pam\"{keys}");
    builder.flags(["--run-as", "nobody", "--accounts", &source]).start()
}

#[track_caller]
fn monitor_of(server: &Server) -> u32 {
    let children = children_of(server.pid());
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

#[test]
fn users_of_the_system_log_in_to_a_server_that_cannot_read_their_hashes() {
    let Some(system) = System::new(UNIX) else { return };
    let server = serve(&system, "");
    for (user, password) in [("ana", "secret"), (r#"o'b"r%n"#, "secret"), ("own", "o")] {
        server.log_in(user, password).unwrap().quit();
    }
    assert_eq!(threads_by(&server, "Uid")[0].0, [NOBODY; 4].map(|id| id.to_string()).join(" "));
    let long = "x".repeat(120);
    let refused = [
        ("ana", "wrong", "wrong password"),
        ("locked", "secret", "wrong password"),
        ("expired", "secret", "the account may not be used at present"),
        ("aged", "secret", "the account may not be used at present"),
        ("own", "secret", "wrong password"),
        ("nobody-knows", "secret", "unknown user"),
        ("%s%n", "secret", "unknown user"),
        (&long, &long, "unknown user"),
    ];
    thread::scope(|scope| {
        for (user, password, why) in refused {
            let server = &server;
            scope.spawn(move || {
                let begun = Instant::now();
                let reply = server.log_in(user, password).map(drop).unwrap_err();
                assert!(reply.starts_with("-ERR [AUTH] "), "{user}: {reply}");
                assert!(begun.elapsed() >= LEAST_REFUSAL, "{user}: {:?}", begun.elapsed());
                server.expect_log("WARN", &format!("login failed: user={user:?} reason={why:?}"));
            });
        }
    });
    server.expect_log("INFO", "PAM tells user \"expired\": \"Your account has expired");
}

/// APOP and SCRAM need a secret, which PAM does not show.
#[test]
fn only_mechanisms_with_a_password_are_announced() {
    let Some(system) = System::new(UNIX) else { return };
    let server = serve(&system, "");
    let mut client = Client::connect(server.pop3_address());
    assert!(!client.ok().contains('<'));
    let sasl: Vec<_> = client.listing("CAPA").into_iter().filter(|line| line.starts_with("SASL")).collect();
    assert_eq!(sasl, ["SASL PLAIN LOGIN"]);
}

#[test]
fn a_login_whose_worker_is_killed_may_be_tried_again() {
    let Some(system) = System::new("") else { return };
    let slow = system
        .program("slow", "touch DIR/asked; for i in $(seq 3000); do [ ! -e DIR/go ] || break; sleep 0.02; done\n");
    system.write_service(&format!("auth required pam_exec.so quiet {slow}\naccount required pam_permit.so\n"));
    let server = serve(&system, ", at-once = 1");
    thread::scope(|scope| {
        let refused = scope.spawn(|| server.log_in("ana", "x").map(drop).unwrap_err());
        eventually("PAM is asked", || system.path("asked").exists());
        let workers = workers_of(monitor_of(&server));
        kill(workers[0]);
        assert!(refused.join().unwrap().starts_with("-ERR [SYS/TEMP] "));
    });
    server.expect_log("WARN", "has ended (signal 9); another is started");
    server.expect_log("ERROR", "PAM service pop3d: passwords cannot be verified: the process that was asked has ended");
    fs::write(system.path("go"), "").unwrap();
    server.log_in("ana", "x").unwrap();
    server.expect_log("INFO", "PAM service pop3d: passwords are verified again");
}

#[test]
fn when_nobody_has_the_rights_any_more_logins_fail_for_the_time_being_and_the_log_says_what_to_do() {
    let Some(system) = System::new(UNIX) else { return };
    let server = serve(&system, "");
    server.log_in("ana", "secret").unwrap();
    let monitor = monitor_of(&server);
    let workers = workers_of(monitor);
    kill(monitor);
    server.expect_log("ERROR", "logins by PAM fail until the server is restarted");
    eventually("the workers have ended", || !workers.iter().any(|&worker| is_running(worker)));
    for password in ["secret", "wrong"] {
        let reply = server.log_in("ana", password).map(drop).unwrap_err();
        assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
    }
    server.log_in("own", "o").unwrap();
}

/// A system whose service accepts the password `secret`, and writes the user's name into the file `asked` each time.
fn counting() -> Option<System> {
    let system = System::new("")?;
    let script = "echo \"$PAM_USER\" >>DIR/asked; IFS= read -r -d '' password; [ \"$password\" = secret ]\n";
    let count = system.program("count", script);
    // A program of pam_exec that refuses is an error of the system, unless the service says otherwise.
    system.write_service(&format!(
        "auth [success=1 default=ignore] pam_exec.so quiet expose_authtok {count}\nauth requisite pam_deny.so\n\
         auth required pam_permit.so\naccount required pam_permit.so\n"
    ));
    Some(system)
}

/// The names for which PAM was asked since the last call.
fn asked(system: &System) -> Vec<String> {
    let text = fs::read_to_string(system.path("asked")).unwrap_or_default();
    let _ = fs::remove_file(system.path("asked"));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_remembered_password_needs_no_pam() {
    let Some(system) = counting() else { return };
    let server = serve_remembering(&system, ", cache = \"1h\"");
    for _ in 0..3 {
        server.log_in("ana", "secret").unwrap().quit();
    }
    assert_eq!(asked(&system), ["ana"]);
    assert!(server.log_in("ana", "wrong").map(drop).unwrap_err().starts_with("-ERR [AUTH] "));
    server.log_in("locked", "secret").unwrap().quit();
    assert_eq!(asked(&system), ["ana", "locked"]);
}

#[test]
fn with_grace_a_remembered_password_counts_when_nobody_has_the_rights_any_more() {
    let Some(system) = counting() else { return };
    let server = serve_remembering(&system, ", cache = \"off\", grace = \"1h\"");
    for _ in 0..2 {
        server.log_in("ana", "secret").unwrap().quit();
    }
    assert_eq!(asked(&system), ["ana", "ana"]);
    let monitor = monitor_of(&server);
    let workers = workers_of(monitor);
    kill(monitor);
    eventually("the workers have ended", || !workers.iter().any(|&worker| is_running(worker)));
    for _ in 0..2 {
        server.log_in("ana", "secret").unwrap().quit();
        for (user, password) in [("ana", "wrong"), ("locked", "secret")] {
            let reply = server.log_in(user, password).map(drop).unwrap_err();
            assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{user}: {reply}");
        }
    }
    assert!(asked(&system).is_empty());
}

#[test]
fn the_processes_of_pam_end_with_the_server() {
    let Some(system) = System::new(UNIX) else { return };
    let server = serve(&system, "");
    server.log_in("ana", "secret").unwrap();
    let monitor = monitor_of(&server);
    let all = [&[monitor][..], &workers_of(monitor)].concat();
    assert_eq!(all.len(), 17);
    kill(server.pid());
    eventually("they have ended", || !all.iter().any(|&process| is_running(process)));
}

/// As with the units of the Debian package: root's rights are in another service, which can be started again alone.
#[test]
fn workers_of_another_service_may_come_and_go() {
    let Some(system) = System::new(UNIX) else { return };
    let processes = Processes::start(&system, &["--processes", "2"]);
    let socket = system.path("socket");
    let server = serve(&system, &format!(", socket = {:?}", socket.to_str().unwrap()));
    assert_eq!(children_of(server.pid()), [] as [u32; 0]);
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    server.log_in("ana", "secret").unwrap();
    drop(processes);
    fs::remove_file(&socket).unwrap();
    assert!(server.log_in("ana", "secret").map(drop).unwrap_err().starts_with("-ERR [SYS/TEMP] "));
    let processes = Processes::start(&system, &["--processes", "2"]);
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    server.log_in("ana", "secret").unwrap();
    drop(processes);
}
