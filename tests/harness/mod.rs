//! What the tests share: a real server on free ports, clients that speak to it line by line, and mail for it to serve.
//!
//! Every wait is bounded by [`PATIENCE`], so a server that hangs fails its test instead of blocking it. No test sleeps
//! to give the server time: [`eventually`] polls for a result, and [`throughout`] checks that something holds for a
//! period.

mod builder;
mod certificate;
mod child;
mod client;
mod mail;
mod namespaces;
mod pipe;
pub(crate) mod processes;
mod scram;
mod server;

use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use builder::{Builder, NOBODY, PROGRAM, copy_of_program};
pub(crate) use certificate::{Certificate, trusting};
pub(crate) use child::{ChildGuard, bounded_output};
pub(crate) use client::{Client, reset};
pub(crate) use mail::{MailRoot, Maildrop};
pub(crate) use namespaces::{can_unshare, unshare};
pub(crate) use pipe::lines_of;
pub(crate) use scram::{bound_scram, scram};
pub(crate) use server::Server;

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two looks at what a test waits for.
const POLL: Duration = Duration::from_millis(5);

/// The user of a server for which the test names no user, taken from the examples of RFC 1939.
pub(crate) const USER: &str = "mrose";
/// The password of [`USER`].
pub(crate) const PASSWORD: &str = "tanstaaf";

/// Polls until `condition` holds. The test fails if it does not hold within [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Checks repeatedly that something holds, until `period` has passed. `check` panics if it does not hold.
pub(crate) fn throughout(period: Duration, mut check: impl FnMut()) {
    let end = Instant::now() + period;
    while Instant::now() < end {
        check();
        thread::sleep(POLL);
    }
    check();
}

/// Polls until `value` has returned the same value 50 times in a row, and returns it.
#[track_caller]
pub(crate) fn settled<T: PartialEq>(what: &str, mut value: impl FnMut() -> T) -> T {
    let (mut last, mut repeated) = (value(), 0);
    eventually(what, || {
        let now = value();
        repeated = if now == last { repeated + 1 } else { 0 };
        last = now;
        repeated >= 50
    });
    last
}

/// Accepts one connection for a scripted server. Fails if no client connects within [`PATIENCE`].
#[track_caller]
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    eventually("a client connects", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (socket, _) = accepted.unwrap();
    socket.set_nonblocking(false).unwrap();
    socket
}
