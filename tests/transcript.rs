//! A session of an admin, whose transcript is in the report that describes the project, played with the real programs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc;

use crate::harness::{ChildGuard, Client, MailRoot, PATIENCE, Server, lines_of};
use crate::peepclient::peepclient;

/// A running `peepclient` that reads commands from a pipe, one at a time.
struct Dialogue {
    client: ChildGuard,
    input: ChildStdin,
    output: mpsc::Receiver<String>,
}

impl Dialogue {
    fn start(port: u16) -> Self {
        let mut command = peepclient(port);
        command.args(["-user", "root", "-pass", "root"]);
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (client.stdin.take().unwrap(), lines_of(client.stdout.take().unwrap()));
        Self { client: ChildGuard(client), input, output }
    }

    /// Expects that `peepclient` prints these lines next.
    fn expect(&mut self, lines: &[&str]) {
        for expected in lines {
            assert_eq!(self.output.recv_timeout(PATIENCE).as_deref(), Ok(*expected));
        }
    }

    /// Enters a command and expects these lines as the answer.
    fn say(&mut self, command: &str, answer: &[&str]) {
        writeln!(self.input, "{command}").unwrap();
        self.expect(answer);
    }
}

#[test]
fn an_admins_session_prints_what_the_report_shows() {
    // The server is started in a directory from which the mail directory's path is ../directories/.
    let top = MailRoot::new();
    let mail = MailRoot::new();
    fs::create_dir(top.path().join("server")).unwrap();
    symlink(mail.path(), top.path().join("directories")).unwrap();
    let server = Server::builder()
        .mail(&mail)
        .seen_from(&top.path().join("server"), "../directories/")
        .user("user", "pass")
        .flags(["-T", "0"])
        .start();

    // Before the report's session, the server had sent 395 octets, including the greeting and the answer to QUIT.
    let mut earlier = Client::connect(server.pop3_address());
    let greeting = earlier.octets_of_line().len() + 2;
    mail.maildrop("user").put("1", format!("{}\r\n", "x".repeat(331 - greeting)));
    earlier.send_all(["USER user", "PASS pass", "RETR 1", "QUIT"]);
    assert_eq!(greeting + earlier.rest().len(), 395);

    let mut admin = Dialogue::start(server.peep_address().port());
    admin.expect(&["Connected successfully to server through PEEP!", "See available commands with 'help'"]);
    admin.say("help", &["capa | quit | maildir | timeout | users | help | retrieved bytes | retrieved emails | max connections | \
        set maildir <path> | set timeout <value> | delete user <username> | current connections amount | current logged users | \
        removed emails amount | add user <username> <password> | set max connections <value> | all time connection amount | \
        all time logged amount"]);
    admin.say("retrieved bytes", &["OK! 395"]);
    admin.say("timeout", &["OK! 0"]);
    admin.say("set timeout 10", &["OK!"]);
    admin.say("timeout", &["OK! 10"]);
    admin.say("maildir", &["OK! ../directories/"]);
    admin.say("current connections amount", &["OK! 0"]);
    admin.say("current logged users", &["OK!"]);
    admin.say("add user one one", &["OK!"]);
    admin.say("set timeout 0", &["OK!"]);
    let mut one = server.pop3();
    one.login("one", "one");
    admin.say("current connections amount", &["OK! 1"]);
    admin.say("current logged users", &["OK! lines: 1", "one"]);
    admin.say("set max connections 15", &["OK!"]);
    admin.say("delete user two", &["ERROR! Invalid username, does not exist"]);
    admin.say("add user hola chau", &["OK!"]);
    admin.say("delete user hola", &["OK!"]);
    admin.say("set maildir ~", &["ERROR! Invalid path format"]);
    admin.say("set maildir ../", &["OK!"]);
    admin.say("set maildir ../directories", &["OK!"]);
    admin.say("quit", &["OK!"]);
    // Some commands of the transcript are refused, so peepclient ends with status 1.
    assert_eq!(admin.client.wait().code(), Some(1));
    one.quit();
}
