use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

fn subject() -> Subject<'static> {
    Subject { user: "ana", unique_id: "1.2.h", number: MessageNumber::new(3).unwrap() }
}

/// A client that stays connected.
struct Patient;

impl Client for Patient {
    fn watch(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn left(&mut self) -> bool {
        false
    }
}

fn message(text: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

fn run(command_line: &str, patience: Option<Duration>) -> Result<String, Failure> {
    let mut running = Transform::new(command_line, patience).unwrap().start(message("some mail\n"), subject())?;
    let mut text = Vec::new();
    let mut buffer = [0; 4];
    loop {
        match running.read(&mut buffer, &mut Patient)? {
            0 => break,
            read => text.extend_from_slice(&buffer[..read]),
        }
    }
    running.finish(&mut Patient)?;
    Ok(String::from_utf8(text).unwrap())
}

#[test]
fn words_are_split_as_a_shell_does() {
    assert_eq!(run(r#"sh -c 'cat; echo "$0|$1"' 'a b' c\ d"#, None).unwrap(), "some mail\na b|c d\n");
    for bad in ["", "  ", "tr 'a", "''"] {
        assert!(Transform::new(bad, None).is_none(), "{bad:?}");
    }
}

#[test]
fn the_environment_contains_only_known_variables() {
    let names = run("sh -c 'env | cut -d= -f1 | sort'", None).unwrap();
    for name in names.lines() {
        // Shells set the last four themselves.
        let known = ["PATH", "LANG", "POP3_USER", "POP3_UIDL", "POP3_MESSAGE", "PWD", "OLDPWD", "SHLVL", "_"];
        assert!(known.contains(&name), "{name}");
    }
    assert_eq!(run("sh -c 'echo $POP3_USER $POP3_UIDL $POP3_MESSAGE'", None).unwrap(), "ana 1.2.h 3\n");
}

#[test]
fn background_processes_are_killed_when_the_program_ends() {
    assert_eq!(run("sh -c 'cat; sleep 1000 &'", None).unwrap(), "some mail\n");
}

/// The child leaves the process group before the program ends, so it outlives the program. The test kills it.
#[test]
fn a_process_that_has_left_the_group_does_not_delay_the_message() {
    let script = "import os, sys, time\n\
        left, leave = os.pipe()\n\
        child = os.fork()\n\
        if child == 0:\n\
        \x20   os.setsid()\n\
        \x20   os.write(leave, b'x')\n\
        \x20   time.sleep(60)\n\
        else:\n\
        \x20   os.read(left, 1)\n\
        \x20   print(sys.stdin.read(), child)\n";
    let text = run(&format!("python3 -c \"{script}\""), Some(Duration::from_secs(20))).unwrap();
    let (mail, child) = text.trim_end().rsplit_once(' ').unwrap();
    let _ = kill_process(Pid::from_raw(child.parse().unwrap()).unwrap(), Signal::KILL);
    assert_eq!(mail, "some mail\n");
}

#[test]
fn a_process_left_behind_may_write_the_rest_of_the_message() {
    assert_eq!(run("bash -c 'cat > >(tr a-z A-Z)'", None).unwrap(), "SOME MAIL\n");
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(run("sh -c 'seq 100000 &'", None).unwrap(), numbers);
}

#[test]
fn each_failure_is_reported_as_what_it_is() {
    assert!(matches!(run("/dev/null/program", None), Err(Failure::Io(_))));
    assert!(matches!(run("false", None), Err(Failure::Status(_))));
    let patience = Some(Duration::from_millis(50));
    assert!(matches!(run("sleep 1000", patience), Err(Failure::Silent)));
    assert!(matches!(run("sh -c 'exec >&-; sleep 1000'", patience), Err(Failure::Silent)));
}

#[test]
fn a_program_need_not_read_its_stdin() {
    assert_eq!(run("echo hello", None).unwrap(), "hello\n");
}

#[test]
fn the_whole_group_ends_with_the_program() {
    // The grandchild would hold the test's pipe open if it went on.
    let started = run("sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'", None).unwrap();
    let grandchild = Pid::from_raw(started.trim().parse().unwrap()).unwrap();
    // The kill is immediate, but init reaps the process later.
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_running(grandchild) {
        assert!(Instant::now() < deadline, "{grandchild:?} still runs");
        std::thread::yield_now();
    }
}

fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
}
