//! How long a client may take nothing of what it is sent.
//!
//! A blocking write cannot be told of a new limit: the kernel looks at a socket's timeout when the write begins. So the
//! kernel's timeout is one short step, and after each step the limit of that moment decides.

use std::io;
use std::time::{Duration, Instant};

/// The write timeout of every connection: the longest that a changed limit is not noticed.
pub(super) const WRITE_STEP: Duration = Duration::from_secs(1);

/// Does a write. If the client takes nothing within a step, does it again, until that has taken as long as `limit` allows
/// then. A write that sends a part has succeeded.
pub(super) fn patiently<T>(limit: impl Fn() -> Duration, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match write() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < limit() => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const LONG: Duration = Duration::from_secs(1000);

    fn blocked() -> io::Result<u64> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    #[test]
    fn the_limit_of_each_step_counts() {
        let steps = Cell::new(0);
        let result = patiently(
            || if steps.get() < 3 { LONG } else { Duration::ZERO },
            || {
                steps.set(steps.get() + 1);
                blocked()
            },
        );
        assert_eq!((result.unwrap_err().kind(), steps.get()), (io::ErrorKind::WouldBlock, 3));
    }

    #[test]
    fn a_client_that_takes_something_again_is_kept() {
        let mut steps = 0;
        let result = patiently(
            || LONG,
            || {
                steps += 1;
                if steps < 3 { blocked() } else { Ok(395) }
            },
        );
        assert_eq!((result.unwrap(), steps), (395, 3));
    }

    #[test]
    fn other_errors_are_final() {
        let result = patiently(|| LONG, || io::Result::<u64>::Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
