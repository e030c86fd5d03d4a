//! The monitor and its workers, asked directly.

use std::fs;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use pop3d::pam::{Answer, Question, Verdict};
use pop3d::separate::{Door, Unanswered, Workers};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};

use super::{PAM_PROGRAM, System, UNIX, workers_of};
use crate::harness::processes::{is_running, kill};
use crate::harness::{ChildGuard, eventually, lines_of};

/// Workers that were started as systemd would start them, with a UNIX socket.
pub(super) struct Processes {
    monitor: ChildGuard,
    workers: Workers,
    /// What the monitor and the modules say.
    lines: Receiver<String>,
}

impl Processes {
    pub(super) fn start(system: &System, arguments: &[&str]) -> Self {
        let path = system.path("socket");
        let launcher = system.launcher();
        let mut command = Command::new(&launcher[0]);
        command.args(&launcher[1..]).arg(PAM_PROGRAM).args(arguments);
        command.stdin(Stdio::from(listener(&path))).stderr(Stdio::piped());
        let mut monitor = ChildGuard(command.spawn().unwrap());
        let lines = lines_of(monitor.0.stderr.take().unwrap());
        Self { monitor, workers: Workers::new(Door::Path(path), Duration::from_secs(20)), lines }
    }

    pub(super) fn monitor(&self) -> u32 {
        self.monitor.0.id()
    }

    /// The processes of the workers, of which there are `count`.
    pub(super) fn expect(&self, count: usize) -> Vec<u32> {
        let mut workers = Vec::new();
        eventually("the workers run", || {
            workers = workers_of(self.monitor());
            workers.len() == count
        });
        workers
    }

    pub(super) fn ask(&self, user: &str, password: &[u8]) -> Result<Answer, Unanswered> {
        ask(&self.workers, user, password)
    }

    #[track_caller]
    fn verdict(&self, user: &str, password: &[u8]) -> Verdict {
        self.ask(user, password).unwrap().verdict
    }
}

fn ask(workers: &Workers, user: &str, password: &[u8]) -> Result<Answer, Unanswered> {
    let (user, password, address) = (user.to_owned(), password.to_vec(), "192.0.2.7".to_owned());
    workers.ask(Question { user, password, address }.encode(), Answer::decode)
}

fn listener(path: &std::path::Path) -> OwnedFd {
    let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&listener, 64).unwrap();
    listener
}

#[test]
fn an_account_is_open_closed_or_unknown_as_etc_shadow_says() {
    let Some(system) = System::new(UNIX) else { return };
    let processes = Processes::start(&system, &["--processes", "1"]);
    let verdict = |user: &str, password: &str| processes.verdict(user, password.as_bytes());
    assert_eq!(verdict("ana", "secret"), Verdict::Accepted);
    assert_eq!(verdict("ana", "Secret"), Verdict::Refused);
    assert_eq!(verdict("expired", "secret"), Verdict::Closed);
    assert_eq!(verdict("expired", "wrong"), Verdict::Refused);
    assert_eq!(verdict("locked", "secret"), Verdict::Refused);
    assert_eq!(verdict("aged", "secret"), Verdict::Closed);
    assert_eq!(verdict("nobody-knows", "secret"), Verdict::Unknown);
    let answer = processes.ask("expired", b"secret").unwrap();
    assert!(answer.messages.iter().any(|message| message.contains("expired")), "{answer:?}");
}

/// The stack of Debian's common-auth, in which pam_deny hides that a name is unknown.
#[test]
fn a_name_is_unknown_if_the_system_has_no_such_account() {
    let stack = "auth [success=1 default=ignore] pam_unix.so nodelay\nauth requisite pam_deny.so\n\
                 auth required pam_permit.so\naccount required pam_unix.so\n";
    let Some(system) = System::new(stack) else { return };
    let processes = Processes::start(&system, &["--processes", "1"]);
    assert_eq!(processes.verdict("ana", b"secret"), Verdict::Accepted);
    assert_eq!(processes.verdict("ana", b"wrong"), Verdict::Refused);
    assert_eq!(processes.verdict("nobody-knows", b"secret"), Verdict::Unknown);
}

#[test]
fn odd_names_and_passwords_are_no_others_and_harm_no_worker() {
    let Some(system) = System::new(UNIX) else { return };
    let processes = Processes::start(&system, &["--processes", "1"]);
    let workers = processes.expect(1);
    assert_eq!(processes.verdict(r#"o'b"r%n"#, b"secret"), Verdict::Accepted);
    for password in [&b"secret\0"[..], b"secret\0x", b"\0", &[b's'; 511], &[b's'; 512], &[0xff; 1000], b"%s%n"] {
        assert_eq!(processes.verdict("ana", password), Verdict::Refused, "{password:?}");
    }
    let long = "x".repeat(1000);
    for user in ["ana\0", "ana\0x", "\0", "", "%s%n", "'; reboot", "../ana", "-", "ana:x", &long] {
        assert_ne!(processes.verdict(user, b"secret"), Verdict::Accepted, "{user:?}");
    }
    assert!(matches!(processes.ask("ana", &[b'x'; 4096]), Err(Unanswered::TooLong)));
    assert_eq!(processes.verdict("ana", b"secret"), Verdict::Accepted);
    assert_eq!(processes.expect(1), workers);
}

#[test]
fn modules_get_the_clients_address_and_the_password_once() {
    let Some(system) = System::new("") else { return };
    let script = "echo \"$PAM_SERVICE $PAM_USER $PAM_RHOST $PAM_TTY $PAM_TYPE $(cat)\" >>DIR/told\n";
    let tell = system.program("tell", script);
    system.write_service(&format!(
        "auth required pam_exec.so quiet expose_authtok {tell}\naccount required pam_exec.so quiet {tell}\n"
    ));
    let processes = Processes::start(&system, &[]);
    assert_eq!(processes.verdict("ana", b"a secret"), Verdict::Accepted);
    let told = fs::read_to_string(system.path("told")).unwrap().replace('\0', "");
    assert_eq!(told, "pop3d ana 192.0.2.7 pop3d auth a secret\npop3d ana 192.0.2.7 pop3d account \n");
}

/// What a module prints is no answer of the worker, and cannot make the monitor believe anything.
#[test]
fn what_programs_of_modules_print_are_messages() {
    let Some(system) = System::new("") else { return };
    let loud = system.program("loud", "echo ++ >&2; echo --\n");
    system.write_service(&format!("auth required pam_exec.so quiet stdout {loud}\naccount required pam_permit.so\n"));
    let processes = Processes::start(&system, &["--processes", "1"]);
    for _ in 0..2 {
        let answer = processes.ask("ana", b"secret").unwrap();
        assert_eq!((answer.verdict, answer.messages), (Verdict::Accepted, vec!["++".to_owned(), "--".to_owned()]));
    }
}

#[test]
fn a_service_that_cannot_work_refuses_nobody() {
    let broken = "auth required no_such_module.so\naccount required pam_permit.so\n";
    let Some(system) = System::new(broken) else { return };
    let processes = Processes::start(&system, &["--processes", "1"]);
    assert_eq!(processes.verdict("ana", b"secret"), Verdict::Unavailable);
    system.write_service("auth required pam_permit.so\naccount required no_such_module.so\n");
    assert_eq!(processes.verdict("ana", b"secret"), Verdict::Unavailable);
    system.write_service(UNIX);
    assert_eq!(processes.verdict("ana", b"secret"), Verdict::Accepted);
}

#[test]
fn a_worker_whose_time_is_up_is_killed_with_what_its_module_has_started() {
    let Some(system) = System::new(UNIX) else { return };
    let slow = system.program("slow", "sleep 1000 & echo $! >DIR/started; wait\n");
    let processes = Processes::start(&system, &["--processes", "1", "--timeout", "1"]);
    assert_eq!(processes.verdict("ana", b"secret"), Verdict::Accepted);
    let [worker] = processes.expect(1)[..] else { unreachable!() };
    system.write_service(&format!("auth required pam_exec.so quiet {slow}\naccount required pam_permit.so\n"));
    assert!(matches!(processes.ask("ana", b"secret"), Err(Unanswered::Died)));
    let started = fs::read_to_string(system.path("started")).unwrap().trim().parse().unwrap();
    eventually("both have ended", || !is_running(worker) && !is_running(started));
    let line = processes.lines.recv().unwrap();
    assert_eq!(line, format!("process {worker} was killed, because it took longer than 1 s"));
    system.write_service(UNIX);
    assert_eq!(processes.verdict("ana", b"secret"), Verdict::Accepted);
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_others_go_on() {
    let Some(system) = System::new("") else { return };
    let slow = system.program(
        "slow",
        "mkdir DIR/$PAM_USER && for i in $(seq 3000); do [ ! -e DIR/go ] || break; sleep 0.02; done\n",
    );
    system.write_service(&format!("auth required pam_exec.so quiet {slow}\naccount required pam_permit.so\n"));
    let processes = Processes::start(&system, &["--processes", "3"]);
    let workers = processes.expect(3);
    let asked = &processes.workers;
    thread::scope(|scope| {
        let asked = ["one", "two", "three"].map(|user| scope.spawn(move || ask(asked, user, b"x").is_ok()));
        eventually("all are asked", || ["one", "two", "three"].iter().all(|user| system.path(user).exists()));
        kill(workers[0]);
        eventually("another one is there", || {
            let now = workers_of(processes.monitor());
            now.len() == 3 && !now.contains(&workers[0])
        });
        fs::write(system.path("go"), "").unwrap();
        let answered = asked.map(|asked| asked.join().unwrap());
        assert_eq!(answered.into_iter().filter(|answered| *answered).count(), 2);
    });
    assert_eq!(processes.verdict("four", b"x"), Verdict::Accepted);
    let line = processes.lines.recv().unwrap();
    assert_eq!(line, format!("process {} has ended (signal 9); another is started", workers[0]));
}

#[test]
fn workers_end_with_their_monitor() {
    let Some(system) = System::new(UNIX) else { return };
    let processes = Processes::start(&system, &["--processes", "3"]);
    let workers = processes.expect(3);
    kill(processes.monitor());
    eventually("all have ended", || !workers.iter().any(|&worker| is_running(worker)));
}
