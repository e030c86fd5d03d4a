//! The log and the list of ports, written to pipes, files and descriptors that do not take them. The server serves and ends
//! all the same.

use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{Client, PASSWORD, PROGRAM, Server, USER, eventually};

/// What fills the log at `-vv`: some 160 octets for each of these commands. A pipe holds 64 KiB, the server's buffer 1 MiB.
const SESSIONS: usize = 300;
const COMMANDS: usize = 20_000;

/// Fills the log, with commands that are numbered.
fn talk(server: &Server) {
    for _ in 0..SESSIONS {
        server.session().quit();
    }
    let mut client = server.session();
    for first in (1..=COMMANDS).step_by(100) {
        let commands: Vec<_> = (first..first + 100).map(|number| format!("LIST {number}")).collect();
        client.send_all(commands.iter().map(String::as_str));
        (0..100).for_each(|_| drop(client.err()));
    }
    client.quit();
}

/// Expects that the server serves both protocols, and ends as it should.
#[track_caller]
fn serves_and_ends(server: &mut Server) {
    server.session().quit();
    assert_eq!(server.admin().value("cc?"), "0");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

/// Expects that all lines are there, but for those that the log itself says are missing, in the order of the commands.
#[track_caller]
fn nothing_is_missing_but_what_is_told(log: &str) {
    let mut next = 1;
    let mut lost = 0;
    for line in log.lines() {
        if let Some((_, number)) = line.split_once(" LIST ") {
            let number: usize = number.parse().unwrap();
            assert!(number == next || (number > next && lost > 0), "LIST {next} is missing: {line}");
            next = number + 1;
        } else if let Some(number) = line.strip_suffix(" lines of the log were lost") {
            lost += number.rsplit(' ').next().unwrap().parse::<usize>().unwrap();
        }
    }
    assert!(lost > COMMANDS, "{lost} lines were lost");
    assert!(next > 1, "no command was logged");
}

#[test]
fn a_log_that_is_not_read_stops_nothing() {
    let mut server = Server::builder().unread_stderr().flags(["-vv"]).start();
    talk(&server);
    serves_and_ends(&mut server);
}

#[test]
fn lines_that_were_lost_are_counted_when_the_log_is_read_again() {
    let mut server = Server::builder().unread_stderr().flags(["-vv"]).start();
    talk(&server);
    server.read_stderr();
    server.expect_log("WARN", " lines of the log were lost");
    server.session().quit();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    eventually("the last line", || server.stderr().ends_with(" shutting down: SIGTERM\n"));
    nothing_is_missing_but_what_is_told(&server.stderr());
}

fn fifo(directory: &TempDir) -> String {
    let path = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path.to_str().unwrap().to_owned()
}

/// A FIFO's other end, which is there without being waited for.
fn reader(fifo: &str) -> File {
    File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(fifo).unwrap()
}

/// Some of what is in the FIFO now.
fn read_some(mut reader: &File) -> String {
    let mut piece = vec![0; 1 << 20];
    let length = reader.read(&mut piece).unwrap_or(0);
    String::from_utf8_lossy(&piece[..length]).into_owned()
}

#[test]
fn a_fifo_as_log_file() {
    let directory = TempDir::new().unwrap();
    let fifo = fifo(&directory);
    let builder = || Server::builder().flags(["-vv", "--log-file", &fifo]);
    let output = builder().refused();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said, format!("pop3d: cannot open the log file {fifo}: it is a FIFO that no program reads\n"));

    let reader_of_the_log = reader(&fifo);
    let mut server = builder().start();
    talk(&server);
    // A reader that goes and another that comes.
    drop(reader_of_the_log);
    server.session().quit();
    let reader_of_the_log = reader(&fifo);
    let mut log = String::new();
    eventually("the log tells of lost lines", || {
        server.session().quit();
        log.push_str(&read_some(&reader_of_the_log));
        log.contains(" lines of the log were lost\n")
    });
    server.signal(Signal::HUP);
    eventually("the FIFO is opened again", || {
        log.push_str(&read_some(&reader_of_the_log));
        log.contains("the log file has been opened again")
    });
    serves_and_ends(&mut server);
}

// ---------------------------------------------------------------------------------------------------------------------
// Standard streams

/// A server started by a line of shell with `$0` as the program and its flags.
struct Started {
    child: Child,
    mail: TempDir,
}

impl Started {
    fn by(script: &str) -> Self {
        let mail = TempDir::new().unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", script, PROGRAM, "-p", "0", "-P", "0", "--address", "127.0.0.1", "-u"]);
        command.arg(format!("{USER}:{PASSWORD}")).args(["--peep-address", "127.0.0.1", "-m"]).arg(mail.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), mail }
    }

    fn file(&self, descriptor: u32) -> String {
        let link = fs::read_link(format!("/proc/{}/fd/{descriptor}", self.child.id()));
        link.map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Where the process listens, as the kernel knows it.
    fn listening(&self) -> Vec<SocketAddr> {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let files: Vec<_> = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok()).collect();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let listening = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|fields| {
            fields.get(3) == Some(&"0A")
                && files.iter().any(|file| file == Path::new(&format!("socket:[{}]", fields[9])))
        });
        let port = |address: &str| u16::from_str_radix(address.split_once(':').unwrap().1, 16).unwrap();
        listening.map(|fields| SocketAddr::from(([127, 0, 0, 1], port(fields[1])))).collect()
    }

    /// Expects that it serves and ends as it should.
    #[track_caller]
    fn serves_and_ends(mut self) {
        fs::create_dir(self.mail.path().join(USER)).unwrap();
        eventually("the server listens", || self.listening().len() == 2);
        // PEEP has no greeting, and answers this with an error.
        let is_pop3 = |address: &SocketAddr| {
            let mut client = Client::connect(*address);
            client.send("NOOP");
            client.line().starts_with("+OK")
        };
        let pop3 = self.listening().into_iter().find(is_pop3).expect("POP3 is served");
        let mut client = Client::connect(pop3);
        client.ok();
        client.login(USER, PASSWORD);
        client.quit();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0));
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The scripts leave the program as the process that the test knows.
#[test]
fn a_server_whose_ports_cannot_be_printed() {
    for script in [
        "exec \"$0\" \"$@\" > >(exit)",
        "exec \"$0\" \"$@\" > /dev/full",
        "exec \"$0\" \"$@\" >&-",
        "exec \"$0\" \"$@\" > /dev/full 2>&-",
    ] {
        Started::by(script).serves_and_ends();
    }
}

/// A pipe that is full already.
#[test]
fn a_server_whose_stdout_takes_nothing() {
    let directory = TempDir::new().unwrap();
    let fifo = fifo(&directory);
    let _reader = reader(&fifo);
    let fill = format!("timeout 10 dd if=/dev/zero of={fifo} bs=4k count=1000 oflag=nonblock 2>/dev/null; ");
    Started::by(&format!("{fill} exec \"$0\" \"$@\" >{fifo} 2>&1")).serves_and_ends();
}

#[test]
fn no_socket_becomes_a_standard_stream() {
    let server = Started::by("exec \"$0\" \"$@\" <&- >&- 2>&-");
    eventually("the server listens", || server.listening().len() == 2);
    assert_eq!([0, 1, 2].map(|descriptor| server.file(descriptor)), ["/dev/null"; 3]);
    server.serves_and_ends();
}
