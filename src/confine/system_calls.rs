//! A filter that forbids some system calls to transforms and other processes that the server starts (seccomp). All others stay allowed, so that ordinary programs
//! work.
//!
//! It covers what Landlock does not: Landlock restricts no sockets but TCP, and for other processes it restricts only
//! signals and ptrace(2).

use std::env::consts::ARCH;
use std::fs;
use std::io;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// The ioctl that puts input into a terminal as if it had been typed. A transform shares the server's stderr, which may
/// be the terminal of the operator's shell.
const TIOCSTI: u64 = 0x5412;
/// The ioctl that does the same by pasting the selection of a virtual console.
const TIOCLINUX: u64 = 0x541C;

/// The bit in the numbers of system calls that selects their x32 variants, which do the same.
#[cfg(target_arch = "x86_64")]
const X32: Option<i64> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const X32: Option<i64> = None;

/// Returns true if the kernel can filter system calls and their numbers on this processor architecture are known.
pub(crate) fn can_be_filtered() -> bool {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    actions.split_whitespace().any(|action| action == "errno") && TargetArch::try_from(ARCH).is_ok()
}

/// Puts the filter in force for this process and every program that it executes or starts. A forbidden call fails with
/// `EACCES`. A program for another processor architecture is killed, because its calls have other numbers.
pub(crate) fn forbid(sockets: bool) -> io::Result<()> {
    let program = filter(sockets).map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}

fn filter(sockets: bool) -> Result<BpfProgram, BackendError> {
    let when = |argument, operator, value| {
        SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?])
    };
    // A call without rules is always forbidden. A call with rules is forbidden if any of them matches.
    let mut forbidden = vec![
        // io_uring can open sockets without a call of socket(2).
        (libc::SYS_io_uring_setup, vec![]),
        // These reach the memory and the descriptors of other processes, or set limits that would end them.
        (libc::SYS_ptrace, vec![]),
        (libc::SYS_process_vm_readv, vec![]),
        (libc::SYS_process_vm_writev, vec![]),
        (libc::SYS_pidfd_getfd, vec![]),
        (libc::SYS_prlimit64, vec![when(0, SeccompCmpOp::Ne, 0)?]),
        (libc::SYS_ioctl, vec![when(1, SeccompCmpOp::Eq, TIOCSTI)?, when(1, SeccompCmpOp::Eq, TIOCLINUX)?]),
    ];
    if !sockets {
        forbidden.push((libc::SYS_socket, vec![]));
        // A socket pair can only talk to itself, except for these kinds, which can send to any path.
        let kind = SeccompCmpOp::MaskedEq(0xF);
        let datagram = |socket: i32| when(1, kind.clone(), socket.unsigned_abs().into());
        forbidden.push((libc::SYS_socketpair, vec![datagram(libc::SOCK_DGRAM)?, datagram(libc::SOCK_RAW)?]));
    }
    let x32 = forbidden.iter().filter_map(|(call, rules)| Some((call | X32?, rules.clone())));
    let rules = forbidden.iter().cloned().chain(x32).collect();
    let architecture = TargetArch::try_from(ARCH)?;
    let denied = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, denied, architecture)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_filters_can_be_built() {
        if TargetArch::try_from(ARCH).is_ok() {
            assert!(filter(true).unwrap().len() < filter(false).unwrap().len());
        }
    }
}
