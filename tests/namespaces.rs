//! Servers in network namespaces: link-local addresses, and clients that the kernel takes for other machines.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use tempfile::TempDir;

use crate::harness::{ChildGuard, PATIENCE, PROGRAM, can_unshare, eventually, lines_of, unshare};

/// Returns true if this machine allows network namespaces that are connected by a pair of virtual interfaces.
fn can_connect_namespaces() -> bool {
    can_unshare(&["--net"], "ip link set lo up && ip link add here type veth peer name there")
}

/// A server in a network namespace of its own.
struct Server {
    process: ChildGuard,
    printed: mpsc::Receiver<String>,
    _mail: TempDir,
}

impl Server {
    /// Runs `setup`, a script that configures the namespace, and then the server with these flags.
    fn start(setup: &str, flags: &[&str]) -> Self {
        let mail = TempDir::new().unwrap();
        let script = format!("{setup}; exec \"$0\" \"$@\"");
        let mut command = unshare(&["--net"]);
        command.args(["bash", "-ec", &script, PROGRAM, "-q", "-p", "0", "-P", "0", "-m"]).arg(mail.path());
        command.args(["-u", "ana:x", "-a", "boss:x", "--allow-cleartext"]).args(flags);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let printed = lines_of(child.stdout.take().unwrap());
        Self { process: ChildGuard(child), printed, _mail: mail }
    }

    /// Reads the next address that the server prints, which has to be of this protocol. Returns the address with its
    /// port, and the port alone.
    #[track_caller]
    fn address(&self, protocol: &str) -> (String, String) {
        let line = self.printed.recv_timeout(PATIENCE).expect("the server prints its addresses");
        let address = line.strip_prefix(&format!("{protocol} listening on ")).unwrap_or_else(|| panic!("{line}"));
        (address.to_owned(), address.rsplit(':').next().unwrap().to_owned())
    }

    /// Runs a line of shell in the network namespace of `process`, and returns what it prints.
    fn run_in_namespace_of(process: u32, script: &str) -> String {
        let process = process.to_string();
        let mut command = Command::new("timeout");
        let output = command.args(["10", "nsenter", "--net", "--target", &process, "bash", "-c", script]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

#[test]
fn the_server_listens_on_link_local_addresses_with_an_interface() {
    if !can_connect_namespaces() {
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
        let printed = Server::run_in_namespace_of(server.process.0.id(), &script);
        assert!(printed.starts_with(answer), "{printed:?}");
    }
}

/// An idle process in a network namespace of its own, which is another machine to the server's kernel.
struct OtherMachine(ChildGuard);

impl OtherMachine {
    fn start() -> Self {
        let child = unshare(&["--net"]).args(["sleep", "60"]).spawn().unwrap();
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
        let process = child.id().to_string();
        let machine = Self(ChildGuard(child));
        eventually("the process has its own network namespace", || namespace(&process) != namespace("self"));
        machine
    }
}

/// Connections from other machines use the system's congestion control. Connections from the same machine use `reno`,
/// also when they go to the server's external address.
#[test]
fn congestion_control_depends_on_where_the_client_is() {
    if !can_connect_namespaces() {
        return;
    }
    let other_machine = OtherMachine::start();
    let other = other_machine.0.0.id();
    let setup = format!(
        "ip link set lo up; ip link add here type veth peer name there netns {other}; \
         ip addr add 192.0.2.1/24 dev here; ip link set here up; \
         nsenter --net --target {other} bash -c 'ip addr add 192.0.2.2/24 dev there; ip link set there up'"
    );
    let server = Server::start(&setup, &["--address", "0.0.0.0"]);
    let process = server.process.0.id();
    let (_, port) = server.address("POP3");
    let default = Server::run_in_namespace_of(process, "cat /proc/sys/net/ipv4/tcp_congestion_control");
    for (client, address, expected) in
        [(other, "192.0.2.1", default.trim()), (process, "192.0.2.1", "reno"), (process, "127.0.0.1", "reno")]
    {
        let script = format!(
            "exec 3<>/dev/tcp/{address}/{port}; head -n 1 <&3; \
             nsenter --net --target {process} ss -tniH state established sport = :{port}"
        );
        let printed = Server::run_in_namespace_of(client, &script);
        assert!(printed.starts_with("+OK"), "{printed}");
        assert!(printed.split_whitespace().any(|word| word == expected), "{expected} from {client}: {printed}");
    }
}
