//! `follow`: events as they happen.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Failure;
use super::connection::Connection;
use super::listing::Listing;
use super::print;

/// How often the client looks for a reason to end while no event comes.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Prints events until `is_enough` returns true, and then tells the server so. Also ends if no program reads the output any
/// more.
pub(super) fn follow(
    server: &mut Connection,
    listing: &mut Listing,
    out: &mut impl Write,
    mut is_enough: impl FnMut() -> bool,
) -> Result<(), Failure> {
    while !is_enough() {
        check_output()?;
        if let Some(line) = server.event(LOOK)? {
            let text = listing.line(&line).map_err(|_| server.nonsense(line))?;
            print(out, &text)?;
        }
    }
    server.end_events()
}

/// Fails if standard output is a pipe that no program reads any more, as behind `| head -1`. A write would tell so too, but
/// the next event may be long in coming.
pub(super) fn check_output() -> Result<(), Failure> {
    let stdout = io::stdout();
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    let _ = poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    match watched[0].revents().contains(PollFlags::ERR) {
        true => Err(Failure::Output(ErrorKind::BrokenPipe.into())),
        false => Ok(()),
    }
}
