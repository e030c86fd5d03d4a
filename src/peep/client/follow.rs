//! `follow`: events as they happen.

use std::io::Write;
use std::time::Duration;

use super::Failure;
use super::connection::Connection;
use super::listing::Listing;
use super::print;

/// How often the client looks for a reason to end while no event comes.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Prints events until `is_enough`, and then tells the server so.
pub(super) fn follow(
    server: &mut Connection,
    listing: &mut Listing,
    out: &mut impl Write,
    mut is_enough: impl FnMut() -> bool,
) -> Result<(), Failure> {
    while !is_enough() {
        if let Some(line) = server.event(LOOK)? {
            let text = listing.line(&line).map_err(|_| server.nonsense(line))?;
            print(out, &text)?;
        }
    }
    server.end_events()
}
