//! Commands in namespaces of their own, which `unshare` makes.
//!
//! Making namespaces takes rights and kernel features that some machines lack. A test asks [`can_unshare`] first and
//! returns if the answer is no.

use std::process::{Command, Stdio};

/// A command that makes new namespaces by these flags of `unshare` and runs the arguments that the caller adds in them.
pub(crate) fn unshare(flags: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(flags).stdin(Stdio::null());
    command
}

/// Returns true if this line of shell succeeds in new namespaces. If it does not, the reason is printed.
pub(crate) fn can_unshare(flags: &[&str], script: &str) -> bool {
    let mut command = Command::new("timeout");
    command.args(["10", "unshare"]).args(flags).args(["bash", "-c", script]).stdin(Stdio::null());
    let output = command.output().unwrap();
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        eprintln!("SKIPPED: `{script}` fails in new namespaces (unshare {}): {reason}", flags.join(" "));
    }
    output.status.success()
}
