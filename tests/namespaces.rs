//! Servers in a network namespace of their own: link-local addresses, and a client that is on another machine as far as the
//! kernel can tell.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use tempfile::TempDir;

use crate::harness::{PATIENCE, PROGRAM, eventually};

/// False, which is said, where there can be no network namespace with an interface of this kind.
fn can_have(interface: &str) -> bool {
    let script = format!("ip link set lo up && ip link add {interface}");
    let tried = Command::new("timeout").args(["10", "unshare", "-n", "bash", "-c", &script]).output().unwrap();
    if !tried.status.success() {
        eprintln!("SKIPPED, there can be no network namespace here: {}", String::from_utf8_lossy(&tried.stderr));
    }
    tried.status.success()
}

/// A server in a network namespace.
struct Server {
    child: Child,
    printed: mpsc::Receiver<String>,
    _mail: TempDir,
}

impl Server {
    /// Starts it with these flags after lines of shell that set up its namespace.
    fn start(setup: &str, flags: &[&str]) -> Self {
        let mail = TempDir::new().unwrap();
        let script = format!("{setup}; exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["-n", "bash", "-ec", &script, PROGRAM, "-q", "-p", "0", "-P", "0", "-m"]).arg(mail.path());
        command.args(["-u", "ana:x", "-a", "boss:x", "--allow-cleartext"]).args(flags);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, printed) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, printed, _mail: mail }
    }

    /// The next address that it prints, which has to be of this protocol; and the port alone.
    #[track_caller]
    fn address(&self, protocol: &str) -> (String, String) {
        let line = self.printed.recv_timeout(PATIENCE).expect("the server says where it listens");
        let address = line.strip_prefix(&format!("{protocol} listening on ")).unwrap_or_else(|| panic!("{line}"));
        (address.to_owned(), address.rsplit(':').next().unwrap().to_owned())
    }

    /// What a line of shell prints that runs in the network namespace of `process`.
    fn run_beside(process: u32, script: &str) -> String {
        let process = process.to_string();
        let mut command = Command::new("timeout");
        let output = command.args(["10", "nsenter", "--net", "--target", &process, "bash", "-c", script]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_link_local_address() {
    if !can_have("here type veth peer name there") {
        return;
    }
    let setup = "ip link set lo up; ip link add here type veth peer name there; ip link set here up; ip link set there up; \
                 ip addr add fe80::77/64 dev here nodad";
    let flags = ["--address", "fe80::77%here", "--peep-address", "fe80::77%here"];
    let server = Server::start(setup, &flags);
    for (protocol, command, answer) in [("POP3", "QUIT", "+OK"), ("PEEP", "cap?", "+")] {
        let (address, port) = server.address(protocol);
        assert_eq!(address, format!("[fe80::77%here]:{port}"));
        let script = format!("exec 3<>/dev/tcp/fe80::77%here/{port}; echo '{command}' >&3; head -n 1 <&3");
        let said = Server::run_beside(server.child.id(), &script);
        assert!(said.starts_with(answer), "{said:?}");
    }
}

/// Another machine: a process in a network namespace that does nothing.
struct Other(Child);

impl Other {
    fn start() -> Self {
        let mut command = Command::new("unshare");
        let child = command.args(["-n", "sleep", "60"]).stdin(Stdio::null()).spawn().unwrap();
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
        let process = child.id().to_string();
        let other = Self(child);
        eventually("it has a namespace of its own", || namespace(&process) != namespace("self"));
        other
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A connection from another machine has the system's congestion control, and one from this machine has its own, on the
/// server's external address too.
#[test]
fn congestion_control_depends_on_where_the_client_is() {
    if !can_have("here type veth peer name there") {
        return;
    }
    let other_machine = Other::start();
    let other = other_machine.0.id();
    let setup = format!(
        "ip link set lo up; ip link add here type veth peer name there netns {other}; \
         ip addr add 192.0.2.1/24 dev here; ip link set here up; \
         nsenter --net --target {other} bash -c 'ip addr add 192.0.2.2/24 dev there; ip link set there up'"
    );
    let server = Server::start(&setup, &["--address", "0.0.0.0"]);
    let process = server.child.id();
    let (_, port) = server.address("POP3");
    let systems = Server::run_beside(process, "cat /proc/sys/net/ipv4/tcp_congestion_control");
    for (client, address, expected) in
        [(other, "192.0.2.1", systems.trim()), (process, "192.0.2.1", "reno"), (process, "127.0.0.1", "reno")]
    {
        let script = format!(
            "exec 3<>/dev/tcp/{address}/{port}; head -n 1 <&3; \
             nsenter --net --target {process} ss -tniH state established sport = :{port}"
        );
        let said = Server::run_beside(client, &script);
        assert!(said.starts_with("+OK"), "{said}");
        assert!(said.split_whitespace().any(|word| word == expected), "{expected} from {client}: {said}");
    }
}
