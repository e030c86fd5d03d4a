//! Writes that give up when the client reads nothing for too long.
//!
//! The limit may change during a blocking write, but the kernel reads a socket's timeout only when the write begins. So
//! the kernel's timeout is one second, and after each second the present limit decides whether to go on.

use std::io;
use std::time::Duration;

/// The write timeout of every connection. A changed limit takes effect after this time at the latest.
pub(super) const WRITE_STEP: Duration = Duration::from_secs(1);

/// Calls `write` until it succeeds, fails, or has timed out for as long as `limit` says at that moment. A write that sends
/// a part of the data has succeeded.
pub(super) fn patiently<T>(limit: impl Fn() -> Duration, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut waited = Duration::ZERO;
    loop {
        let result = write();
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return result;
        }
        waited += WRITE_STEP;
        if waited >= limit() {
            return result;
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
    fn the_limit_is_read_again_after_each_step() {
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
    fn a_client_that_reads_again_is_not_given_up() {
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
    fn other_errors_are_not_retried() {
        let result = patiently(|| LONG, || io::Result::<u64>::Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
