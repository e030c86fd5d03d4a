//! Confinement of transforms: a transform cannot harm the server, the mail or other programs of the machine.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::harness::{MailRoot, NOBODY, Server, USER};

/// The flags of a quick local set-up, and those of a service.
const SET_UPS: [&[&str]; 2] = [&[], &["--confine"]];

/// Starts a server with one message and the transform `program`.
fn through(program: &str, flags: &[&str]) -> Server {
    let server = Server::builder().flags(["-t", program]).flags(flags.iter().copied()).start();
    server.maildrop().put("1", "some mail\n");
    server
}

/// The output of the transform `program` as RETR sends it.
#[track_caller]
fn output(program: &str, flags: &[&str]) -> String {
    String::from_utf8(through(program, flags).session().fetch("RETR 1")).unwrap()
}

/// The output of a transform that is a Python script. The script is written to a file, so that it needs no quotes.
#[track_caller]
fn python(script: &str, flags: &[&str]) -> String {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("script.py");
    fs::write(&file, script).unwrap();
    output(&format!("{} {}", python3(), file.display()), flags)
}

/// The Python that a confined transform can run. The first `python3` in `PATH` may be a wrapper that needs other files.
fn python3() -> &'static str {
    if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

/// Returns true if the kernel lacks a feature that confines transforms. The server logs that at its start.
fn kernel_lacks(what: &str) -> bool {
    let server = through("cat", &[]);
    let lacks = server.stderr().lines().any(|line| line.contains("kernel") && line.contains(what));
    if lacks {
        eprintln!("SKIPPED: the kernel lacks a feature: {}", server.stderr());
    }
    lacks
}

fn can_forbid_signals() -> bool {
    !kernel_lacks("forbid signals") && !kernel_lacks("no Landlock")
}

fn can_filter_system_calls() -> bool {
    !kernel_lacks("seccomp")
}

#[test]
fn a_transform_cannot_send_signals_to_the_server() {
    if !can_forbid_signals() {
        return;
    }
    for flags in SET_UPS {
        for signal in ["KILL", "TERM", "STOP", "HUP"] {
            let server = through(&format!("sh -c 'kill -{signal} $PPID 2>/dev/null && echo sent; cat'"), flags);
            for _ in 0..2 {
                assert_eq!(server.session().fetch("RETR 1"), b"some mail\r\n", "{signal}");
            }
        }
    }
}

#[test]
fn a_transform_cannot_read_the_servers_memory_or_descriptors() {
    if !can_forbid_signals() {
        return;
    }
    // The script tries the server's memory, its open files and its program.
    let program =
        "sh -c 'exec 2>/dev/null; (exec 3</proc/$PPID/mem) || readlink /proc/$PPID/fd/0 /proc/$PPID/exe || echo no'";
    for flags in SET_UPS {
        assert_eq!(output(program, flags), "no\r\n");
    }
}

#[test]
fn a_transform_cannot_change_the_servers_limits() {
    if !can_filter_system_calls() {
        return;
    }
    let script = "import os, resource\n\
        try:\n\
        \x20   resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))\n\
        \x20   print('yes')\n\
        except PermissionError:\n\
        \x20   resource.prlimit(0, resource.RLIMIT_CORE, (0, 0))\n\
        \x20   print('itself only')\n";
    for flags in SET_UPS {
        assert_eq!(python(script, flags), "itself only\r\n");
    }
}

/// A script that tries each kind of socket and prints those that it could use.
const SOCKETS: &str = "import socket, sys\n\
    def attempt(name, use):\n\
    \x20   try:\n\
    \x20       use()\n\
    \x20       print(name, end=' ')\n\
    \x20   except OSError:\n\
    \x20       pass\n\
    unix, stream, datagram = socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_DGRAM\n\
    attempt('stream', lambda: socket.socket(unix, stream).connect('STREAM'))\n\
    attempt('datagram', lambda: socket.socket(unix, datagram).sendto(b'x', 'DATAGRAM'))\n\
    attempt('pair', lambda: socket.socketpair(unix, datagram)[0].sendto(b'x', 'DATAGRAM'))\n\
    attempt('raw-pair', lambda: socket.socketpair(unix, socket.SOCK_RAW)[0].sendto(b'x', 'DATAGRAM'))\n\
    attempt('udp', lambda: socket.socket(socket.AF_INET, datagram).sendto(b'x', ('127.0.0.1', PORT)))\n\
    attempt('udp6', lambda: socket.socket(socket.AF_INET6, datagram))\n\
    attempt('netlink', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))\n\
    attempt('own-pair', lambda: [one.send(b'x') for one, other in [socket.socketpair(unix, stream)]])\n";

#[test]
fn a_transform_has_sockets_only_with_transform_network() {
    if !can_filter_system_calls() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (stream, datagram) = (directory.path().join("stream"), directory.path().join("datagram"));
    let _listening = (UnixListener::bind(&stream).unwrap(), UnixDatagram::bind(&datagram).unwrap());
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let script = SOCKETS
        .replace("STREAM'", &format!("{}'", stream.display()))
        .replace("DATAGRAM'", &format!("{}'", datagram.display()))
        .replace("PORT", &udp.local_addr().unwrap().port().to_string());
    for flags in SET_UPS {
        assert_eq!(python(&script, flags).trim_end(), "own-pair");
        let all = python(&script, &[flags, &["--transform-network"]].concat());
        for name in ["stream", "datagram", "pair", "raw-pair", "udp", "netlink", "own-pair"] {
            assert!(all.split_whitespace().any(|it| it == name), "{name}: {all}");
        }
    }
    assert_eq!(python(&script, &["--no-landlock"]).trim_end(), "own-pair");
}

#[test]
fn io_uring_pidfd_getfd_and_tiocsti_are_forbidden() {
    if !can_filter_system_calls() {
        return;
    }
    // The numbers of io_uring_setup(2), pidfd_getfd(2) and TIOCSTI are the same on every machine.
    let script = "import ctypes, fcntl\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        for number in (425, 438):\n\
        \x20   libc.syscall(number, -1, 0, 0)\n\
        \x20   print(ctypes.get_errno())\n\
        try:\n\
        \x20   fcntl.ioctl(0, 0x5412, b'x')\n\
        except OSError as error:\n\
        \x20   print(error.errno)\n";
    for flags in SET_UPS {
        assert_eq!(python(script, flags), "13\r\n13\r\n13\r\n");
    }
}

/// System calls of another architecture have other numbers, which the filter does not know.
#[test]
fn a_transform_that_makes_calls_of_another_architecture_is_ended() {
    if !can_filter_system_calls() || !cfg!(target_arch = "x86_64") {
        return;
    }
    // The machine code makes the system call getpid(2) of 32-bit programs: mov $20, %eax; int $0x80; ret.
    let script = "import ctypes, mmap\n\
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n\
        page.write(bytes.fromhex('b814000000cd80c3'))\n\
        function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n\
        print(function())\n";
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("script.py");
    fs::write(&file, script).unwrap();
    let server = through(&format!("{} {}", python3(), file.display()), &[]);
    assert!(server.session().refused("RETR 1").starts_with("[SYS/TEMP]"));
    server.expect_log("ERROR", "signal: 31");
}

#[test]
fn a_transform_of_a_confined_server_can_read_mail_and_change_nothing() {
    let (state, accounts) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let users = accounts.path().join("users");
    fs::write(&users, "bob:{PLAIN}secret\n").unwrap();
    let mail = MailRoot::new();
    let message = mail.maildrop(USER).put("1", "some mail\n");
    let other = mail.maildrop("bob").put("1", "mail of bob\n");
    let attempt = |command: String| {
        let program = format!("sh -c 'exec 2>/dev/null; {command} && echo yes || echo no'");
        let builder = Server::builder().mail(&mail).flags(["-t", &program, "--confine", "--state"]);
        let flags = [state.path().to_str().unwrap(), "--users", users.to_str().unwrap()];
        let server = builder.flags(flags).user(USER, "tanstaaf").start();
        String::from_utf8(server.session().fetch("RETR 1")).unwrap()
    };
    let shown = |path: &Path| path.display().to_string();
    assert_eq!(attempt(format!("cat {}", shown(&other))), "mail of bob\r\nyes\r\n");
    for command in [
        format!("echo x >>{}", shown(&message)),
        format!("rm -f {}", shown(&other)),
        format!("touch {}", shown(&other.with_file_name("2"))),
        format!("mv {} {}", shown(&other), shown(&other.with_file_name("2"))),
        format!("cat {}", shown(&users)),
        format!("echo eve:x >>{}", shown(&users)),
        format!("ls {}", shown(state.path())),
        "echo x >>/proc/self/fd/0".to_owned(),
    ] {
        assert_eq!(attempt(command.clone()), "no\r\n", "{command}");
    }
    assert_eq!(fs::read(&message).unwrap(), b"some mail\n");
    assert!(other.exists());
}

#[test]
fn common_programs_work_as_confined_transforms() {
    for flags in SET_UPS {
        for program in [
            "tr a-z A-Z",
            "sed 's/some mail/SOME MAIL/'",
            "awk '{ print toupper($0) }'",
            "perl -pe '$_ = uc'",
            &format!("{} -c 'import sys; print(sys.stdin.read().upper(), end=str())'", python3()),
            "bash -c 'set -o pipefail; cat | tee /dev/null | tr a-z A-Z'",
        ] {
            assert_eq!(output(program, flags), "SOME MAIL\r\n", "{program}");
        }
    }
}

/// The server starts transforms through its own program, which also works after `--run-as`.
#[test]
fn a_confined_transform_works_with_run_as() {
    if !geteuid().is_root() {
        return;
    }
    let mail = MailRoot::new();
    let message = mail.maildrop(USER).put("1", "some mail\n");
    for path in [mail.path(), message.parent().unwrap(), &message] {
        chown(path, Some(NOBODY), None).unwrap();
    }
    let server = Server::builder().mail(&mail).flags(["-t", "tr a-z A-Z", "--run-as", &NOBODY.to_string()]).start();
    assert_eq!(server.session().fetch("RETR 1"), b"SOME MAIL\r\n");
}
