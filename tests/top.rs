//! `peepclient top` on a real terminal: tmux draws what it prints, and types keys.

use std::fs;
use std::process::Command;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{PATIENCE, Server, USER, eventually};
use crate::peepclient_1_1::Answering;

/// A tmux server of its own with one terminal. It ends with the value.
struct Terminal {
    directory: TempDir,
}

impl Terminal {
    /// Runs `top` for the server at this port in a terminal of 80 × 24.
    fn with_top(port: u16) -> Self {
        Self::with_top_of("root", "root", port)
    }

    /// The same as a user other than the default admin.
    fn with_top_of(user: &str, password: &str, port: u16) -> Self {
        let terminal = Self { directory: tempfile::tempdir().unwrap() };
        let top = format!(
            "env PEEP_PASSWORD={password} XDG_CONFIG_HOME=/nowhere '{}' -address 127.0.0.1 -port {port} -user {user} \
             -interval 100ms top",
            env!("CARGO_BIN_EXE_peepclient")
        );
        // The shell stays for a while to show what the terminal is like afterwards.
        let shell = format!(
            "{top}; echo \"exit code $?\"; stty -a | tr ' ;' '\\n\\n' | grep -x -e '-*icanon' -e '-*echo'; sleep 120"
        );
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            // In the foreground, because a program in the background may not use the terminal.
            &format!("timeout --foreground -s KILL 100 sh -c '{}'", shell.replace('\'', "'\\''")),
        ]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "30", "tmux", "-u", "-L", "test"]).args(arguments);
        command
            .env("TMUX_TMPDIR", self.directory.path())
            .env("LC_ALL", "C.UTF-8")
            .env("SHELL", "/bin/sh")
            .env_remove("TMUX");
        let output = command.output().expect("tmux, which scripts/install-test-tools installs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// What the terminal shows.
    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-J"])
    }

    /// Waits until the terminal shows all of these texts.
    #[track_caller]
    fn shows(&self, texts: &[&str]) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if texts.iter().all(|text| screen.contains(text)) {
                return screen;
            }
            assert!(began.elapsed() < PATIENCE, "not all of {texts:?}:\n{screen}");
        }
    }

    /// Asserts that the program has ended with this code and that the terminal is as it was before.
    #[track_caller]
    fn is_restored(&self, code: i32) -> String {
        let screen = self.shows(&[&format!("exit code {code}\n"), "\nicanon\n", "\necho\n"]);
        assert_eq!(self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]), "0 1\n");
        screen
    }

    /// The process id of `peepclient`.
    fn program(&self) -> Pid {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let mut process = shell.trim().to_owned();
        loop {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap();
            if name.trim() == "peepclient" {
                return Pid::from_raw(process.parse().unwrap()).unwrap();
            }
            let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
            children.split_ascii_whitespace().next().expect("a child").clone_into(&mut process);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "30", "tmux", "-L", "test", "kill-server"]);
        let _ = command.env("TMUX_TMPDIR", self.directory.path()).env_remove("TMUX").output();
    }
}

const SESSIONS: &str = "+3\n17 pop3s 192.0.2.4 transaction ana 312 4 3 10240 1 TLSv1.3\n\
                        18 pop3 2001:db8:1:2:3:4:5:6 authorization - 2 2 0 100 0 -\n2 peep - admin - 0 0 0 0 0 -";

/// A server with three sessions.
fn server() -> Answering {
    Answering::new(&[
        ("k= 0", "-10"),
        ("w?", SESSIONS),
        ("s?", "+2\nversion 0.1.0\nuptime 90061"),
        ("c?", "+998"),
        ("cc?", "+2"),
        ("hc?", "+9"),
        ("hu?", "+9"),
        ("re?", "+9"),
        ("xe?", "+9"),
        ("rb?", "+9"),
        ("f", "+\n2026-11-28T02:00:00Z an event"),
        ("i? ana", "+1\nmessages 7"),
        ("k= 17", "+1"),
        ("b+ 192.0.2.4 60", "+"),
    ])
}

#[test]
fn sessions_are_shown_filtered_kicked_and_banned() {
    let server = server();
    let terminal = Terminal::with_top(server.on_a_port());
    terminal.shows(&["slots 3/998", "version 0.1.0", "192.0.2.4", "an event", "q quit"]);
    terminal.keys(&["Down", "Enter"]);
    terminal.shows(&["maildrop of ana", "messages           7", "any other key: back"]);
    terminal.keys(&["x", "k"]);
    terminal.shows(&["End connection 17 of \"ana\"? [y/N]"]);
    terminal.keys(&["y"]);
    terminal.shows(&["done: 1 ended"]);
    terminal.keys(&["b", "BSpace", "BSpace", "BSpace", "BSpace", "60", "Enter"]);
    terminal.shows(&["Ban 192.0.2.4 for 60 s? [y/N]"]);
    terminal.keys(&["y"]);
    eventually("the ban is sent", || server.heard().iter().any(|line| line == "b+ 192.0.2.4 60"));
    assert_eq!(server.heard().iter().filter(|line| *line == "k= 17").count(), 1);
    terminal.keys(&["/", "2001:", "Enter"]);
    let screen = terminal.shows(&["1 sessions with \"2001:\""]);
    assert!(!screen.contains("192.0.2.4"), "{screen}");
    terminal.keys(&["q"]);
    terminal.is_restored(0);
}

#[test]
fn the_terminal_may_change_its_size() {
    let terminal = Terminal::with_top(server().on_a_port());
    let screen = terminal.shows(&["q quit", "an event", "192.0.2.4"]);
    assert!(!screen.contains("authorization"), "{screen}");
    terminal.tmux(&["resize-window", "-x", "200", "-y", "50"]);
    terminal.shows(&["authorization", "2001:db8:1:2:3:4:5:6"]);
    terminal.tmux(&["resize-window", "-x", "20", "-y", "5"]);
    terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]);
    terminal.shows(&["slots 3/998", "q quit"]);
    terminal.keys(&["C-c"]);
    terminal.is_restored(0);
}

#[test]
fn a_viewer_may_only_look() {
    let server = server();
    server.answer("k= 0", "-12");
    let terminal = Terminal::with_top(server.on_a_port());
    terminal.shows(&["read-only", "192.0.2.4"]);
    terminal.keys(&["k"]);
    terminal.shows(&["a viewer may change nothing"]);
    terminal.keys(&["Escape"]);
    terminal.is_restored(0);
}

#[test]
fn a_real_servers_session_is_ended() {
    let server = Server::start();
    server.maildrop().put("1", "one\r\n");
    let mut client = server.session();
    client.call("DELE 1");
    let terminal = Terminal::with_top(server.peep_address().port());
    terminal.shows(&["slots 3/998", USER]);
    terminal.keys(&["/", USER, "Enter"]);
    terminal.shows(&[&format!("1 sessions with \"{USER}\"")]);
    terminal.keys(&["Enter"]);
    terminal.shows(&["messages ", "any other key: back"]);
    terminal.keys(&["x", "k"]);
    terminal.shows(&[&format!("End connection 1 of \"{USER}\"? [y/N]")]);
    terminal.keys(&["y"]);
    terminal.shows(&["done: 1 ended"]);
    let told = client.err();
    assert!(told.starts_with("[SYS/TEMP] "), "{told}");
    client.closed();
    terminal.shows(&[&format!(" end  user {USER} ")]);
    assert_eq!(server.maildrop().messages(), ["1"]);
    terminal.keys(&["q"]);
    terminal.is_restored(0);
}

#[test]
fn a_viewer_of_a_real_server_may_only_look() {
    let server = Server::builder().flags(["--peep-viewer", "eva:looks"]).start();
    let mut client = server.session();
    let terminal = Terminal::with_top_of("eva", "looks", server.peep_address().port());
    terminal.shows(&["read-only", USER, "slots 3/998"]);
    terminal.keys(&["k"]);
    terminal.shows(&["a viewer may change nothing"]);
    client.call("NOOP");
    terminal.keys(&["q"]);
    terminal.is_restored(0);
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let terminal = Terminal::with_top(server().on_a_port());
    terminal.shows(&["slots 3/998"]);
    kill_process(terminal.program(), Signal::TERM).unwrap();
    terminal.is_restored(143);
}

#[test]
fn a_server_that_is_restarted_is_shown_again() {
    let server = server();
    let terminal = Terminal::with_top(server.on_a_port());
    terminal.shows(&["slots 3/998"]);
    server.hang_up_at("w?");
    terminal.shows(&["trying to connect again: 127.0.0.1:", "the server closed the connection"]);
    terminal.keys(&["k"]);
    terminal.shows(&["the server is not there"]);
    server.answer("w?", "+1\n19 pop3 192.0.2.4 transaction bob 1 1 1 1 1 -");
    terminal.shows(&["slots 1/998", "pop3d at 127.0.0.1:", "bob"]);
    server.answer("a root root", "-2");
    server.hang_up_at("w?");
    let screen = terminal.is_restored(4);
    assert!(screen.contains("refused the login"), "{screen}");
}

#[test]
fn a_hostile_server_cannot_steer_the_terminal() {
    let server = server();
    server.answer("w?", "+1\n17 \x1b[31mpop3 ::1 \x1b]0;stolen\x07x a%1B[31m 1 1 1 1 1 -");
    server.answer("f", "+\n\x1b[2J\x1b]0;stolen\x07an event\u{202e}");
    server.answer("s?", "+1\nversion \x1b[H\u{9b}2J");
    let terminal = Terminal::with_top(server.on_a_port());
    let screen = terminal.shows(&["\\u{1b}[2J\\u{1b}]0;stolen\\u{7}an event\\u{202e}", "version \\u{1b}[H"]);
    assert!(screen.starts_with("pop3d at "), "{screen}");
    assert!(!terminal.tmux(&["display-message", "-p", "#{pane_title}"]).contains("stolen"));
    terminal.keys(&["q"]);
    terminal.is_restored(0);
}

#[test]
fn an_answer_with_too_many_lines_is_given_up() {
    let server = server();
    server.answer("w?", "+99999");
    let screen = Terminal::with_top(server.on_a_port()).is_restored(3);
    assert!(screen.contains("the server's answer announces 99999 lines, which is more than 10000"), "{screen}");
}

#[test]
fn a_server_of_version_1_0_has_rates_alone() {
    let server = Answering::new(&[
        ("c?", "+998"),
        ("cc?", "+2"),
        ("hc?", "+9"),
        ("hu?", "+9"),
        ("re?", "+9"),
        ("xe?", "+9"),
        ("rb?", "+9"),
    ]);
    let terminal = Terminal::with_top(server.on_a_port());
    terminal.shows(&["slots 2/998", "no sessions: Unknown server command", "no events: Unknown server command"]);
    terminal.keys(&["q"]);
    terminal.is_restored(0);
}

#[test]
fn top_needs_a_terminal() {
    let ended = crate::peepclient::run(crate::peepclient::peepclient(1).arg("top"), "");
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(2), "peepclient: top needs a terminal\n"));
}

#[test]
fn the_program_ends_when_its_terminal_is_closed() {
    let terminal = Terminal::with_top(server().on_a_port());
    terminal.shows(&["slots 3/998"]);
    let program = format!("/proc/{}/exe", terminal.program().as_raw_nonzero());
    drop(terminal);
    // A zombie has no program any more.
    eventually("the program has ended", || fs::read_link(&program).is_err());
}
