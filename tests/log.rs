//! The log and the list of addresses when the pipe or file for them is full, closed or not read. The server serves
//! clients and ends all the same.

use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{ChildGuard, Client, PASSWORD, PROGRAM, Server, USER, eventually};

/// Enough commands to fill the log at `-vv`, with some 160 octets for each. A pipe holds 64 KiB and the server's buffer
/// 1 MiB.
const SESSIONS: usize = 300;
const COMMANDS: usize = 20_000;

/// Sends numbered commands until the log is full.
fn fill_log(server: &Server) {
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

/// Checks that the server serves both protocols and ends with status 0.
#[track_caller]
fn expect_service_and_end(server: &mut Server) {
    server.session().quit();
    assert_eq!(server.admin().value("cc?"), "0");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

/// Checks that the log has the lines of all commands in their order, except for lines that the log says were lost.
#[track_caller]
fn expect_only_reported_losses(log: &str) {
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
fn a_log_that_is_not_read_does_not_stop_the_server() {
    let mut server = Server::builder().unread_stderr().flags(["-vv"]).start();
    fill_log(&server);
    expect_service_and_end(&mut server);
}

#[test]
fn the_log_says_how_many_lines_were_lost_when_it_is_read_again() {
    let mut server = Server::builder().unread_stderr().flags(["-vv"]).start();
    fill_log(&server);
    server.read_stderr();
    server.expect_log("WARN", " lines of the log were lost");
    server.session().quit();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    eventually("the log has its last line", || server.stderr().ends_with(" shutting down: SIGTERM\n"));
    expect_only_reported_losses(&server.stderr());
}

/// Makes a FIFO and returns its path.
fn fifo(directory: &TempDir) -> String {
    let path = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path.to_str().unwrap().to_owned()
}

/// Opens a FIFO for reading without waiting for a writer.
fn reader(fifo: &str) -> File {
    File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(fifo).unwrap()
}

/// Reads up to 1 MiB of what is in the FIFO now.
fn read_some(mut reader: &File) -> String {
    let mut piece = vec![0; 1 << 20];
    let length = reader.read(&mut piece).unwrap_or(0);
    String::from_utf8_lossy(&piece[..length]).into_owned()
}

#[test]
fn a_fifo_can_be_the_log_file() {
    let directory = TempDir::new().unwrap();
    let fifo = fifo(&directory);
    let builder = || Server::builder().flags(["-vv", "--log-file", &fifo]);
    let output = builder().refused();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr, format!("pop3d: cannot open the log file {fifo}: it is a FIFO that no program reads\n"));

    let reader_of_the_log = reader(&fifo);
    let mut server = builder().start();
    fill_log(&server);
    // The reader leaves and another one comes.
    drop(reader_of_the_log);
    server.session().quit();
    let reader_of_the_log = reader(&fifo);
    let mut log = String::new();
    eventually("the log says that lines were lost", || {
        server.session().quit();
        log.push_str(&read_some(&reader_of_the_log));
        log.contains(" lines of the log were lost\n")
    });
    server.signal(Signal::HUP);
    eventually("the FIFO is opened again", || {
        log.push_str(&read_some(&reader_of_the_log));
        log.contains("the log file has been opened again")
    });
    expect_service_and_end(&mut server);
}

// ---------------------------------------------------------------------------------------------------------------------
// Standard streams

/// A server that a line of shell starts. The program is `$0` and its arguments are `$@`.
struct Started {
    child: ChildGuard,
    mail: TempDir,
}

impl Started {
    fn by(script: &str) -> Self {
        let mail = TempDir::new().unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", script, PROGRAM, "-p", "0", "-P", "0", "--address", "127.0.0.1", "-u"]);
        command.arg(format!("{USER}:{PASSWORD}")).args(["--peep-address", "127.0.0.1", "-m"]).arg(mail.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: ChildGuard(command.spawn().unwrap()), mail }
    }

    /// The file that is open as this descriptor.
    fn file(&self, descriptor: u32) -> String {
        let link = fs::read_link(format!("/proc/{}/fd/{descriptor}", self.child.0.id()));
        link.map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The addresses on which the process listens, from the kernel's table of sockets.
    fn listening(&self) -> Vec<SocketAddr> {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.0.id())).unwrap();
        let files: Vec<_> = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok()).collect();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let listening = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|fields| {
            fields.get(3) == Some(&"0A")
                && files.iter().any(|file| file == Path::new(&format!("socket:[{}]", fields[9])))
        });
        let port = |address: &str| u16::from_str_radix(address.split_once(':').unwrap().1, 16).unwrap();
        listening.map(|fields| SocketAddr::from(([127, 0, 0, 1], port(fields[1])))).collect()
    }

    /// Checks that the server serves POP3 and ends with status 0.
    #[track_caller]
    fn expect_service_and_end(mut self) {
        fs::create_dir(self.mail.path().join(USER)).unwrap();
        eventually("the server listens", || self.listening().len() == 2);
        // PEEP has no greeting and answers NOOP with an error.
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
        kill_process(Pid::from_child(&self.child.0), Signal::TERM).unwrap();
        assert_eq!(self.child.wait().code(), Some(0));
    }
}

/// The scripts use `exec`, so that the process that the test has started becomes the server.
#[test]
fn a_server_that_cannot_print_its_addresses_serves_clients() {
    for script in [
        "exec \"$0\" \"$@\" > >(exit)",
        "exec \"$0\" \"$@\" > /dev/full",
        "exec \"$0\" \"$@\" >&-",
        "exec \"$0\" \"$@\" > /dev/full 2>&-",
    ] {
        Started::by(script).expect_service_and_end();
    }
}

/// The server's stdout and stderr are a pipe that is full.
#[test]
fn a_server_whose_stdout_is_full_serves_clients() {
    let directory = TempDir::new().unwrap();
    let fifo = fifo(&directory);
    let _reader = reader(&fifo);
    let fill = format!("timeout 10 dd if=/dev/zero of={fifo} bs=4k count=1000 oflag=nonblock 2>/dev/null; ");
    Started::by(&format!("{fill} exec \"$0\" \"$@\" >{fifo} 2>&1")).expect_service_and_end();
}

#[test]
fn closed_standard_streams_are_opened_as_dev_null() {
    let server = Started::by("exec \"$0\" \"$@\" <&- >&- 2>&-");
    eventually("the server listens", || server.listening().len() == 2);
    assert_eq!([0, 1, 2].map(|descriptor| server.file(descriptor)), ["/dev/null"; 3]);
    server.expect_service_and_end();
}
