//! What a transform cannot do to the server, to the mail and to other programs of the machine.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::harness::{MailRoot, NOBODY, Server, USER};

/// A quick local set-up, and a service.
const SET_UPS: [&[&str]; 2] = [&[], &["--confine"]];

/// A server whose one message goes through `program`.
fn through(program: &str, flags: &[&str]) -> Server {
    let server = Server::builder().flags(["-t", program]).flags(flags.iter().copied()).start();
    server.maildrop().put("1", "some mail\n");
    server
}

/// What RETR gives through `program`.
#[track_caller]
fn output(program: &str, flags: &[&str]) -> String {
    String::from_utf8(through(program, flags).session().fetch("RETR 1")).unwrap()
}

/// The same through a Python script, which is a file of its own so that it needs no quotes.
#[track_caller]
fn python(script: &str, flags: &[&str]) -> String {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("script.py");
    fs::write(&file, script).unwrap();
    output(&format!("{} {}", python3(), file.display()), flags)
}

/// Python where a service's transform may run it; the first one in `PATH` may be a wrapper that needs other files.
fn python3() -> &'static str {
    if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

/// Whether the kernel has what is needed for a fence; if not, the server says so at its start.
fn kernel_lacks(what: &str) -> bool {
    let server = through("cat", &[]);
    let lacks = server.stderr().lines().any(|line| line.contains("kernel") && line.contains(what));
    if lacks {
        eprintln!("passed over: {}", server.stderr());
    }
    lacks
}

fn has_signal_fence() -> bool {
    !kernel_lacks("forbid signals") && !kernel_lacks("no Landlock")
}

fn has_filter() -> bool {
    !kernel_lacks("seccomp")
}

#[test]
fn a_transform_cannot_end_the_server() {
    if !has_signal_fence() {
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
fn a_transform_cannot_look_into_the_server() {
    if !has_signal_fence() {
        return;
    }
    // Its memory, its files, its program.
    let program =
        "sh -c 'exec 2>/dev/null; (exec 3</proc/$PPID/mem) || readlink /proc/$PPID/fd/0 /proc/$PPID/exe || echo no'";
    for flags in SET_UPS {
        assert_eq!(output(program, flags), "no\r\n");
    }
}

#[test]
fn a_transform_cannot_limit_the_server() {
    if !has_filter() {
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

/// Tries each kind of socket, and prints those that could be used.
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
fn a_transform_has_sockets_only_by_the_flag() {
    if !has_filter() {
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
fn other_ways_around_the_fences_are_closed() {
    if !has_filter() {
        return;
    }
    // io_uring_setup(2) and pidfd_getfd(2) have these numbers on every machine, TIOCSTI too.
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

/// Another architecture's calls have other numbers, which the filter does not know.
#[test]
fn a_program_of_another_architecture_is_ended() {
    if !has_filter() || !cfg!(target_arch = "x86_64") {
        return;
    }
    // mov $20, %eax; int $0x80; ret: getpid(2) of 32-bit programs.
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
fn a_transform_of_a_service_reads_mail_and_changes_nothing() {
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
fn usual_programs_work_behind_all_fences() {
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

/// The launcher is this server's own program, whoever the server has become.
#[test]
fn an_ordinary_users_transform_works_behind_all_fences() {
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
