//! Permits: how many logins may do something costly at the same time.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The error of a login that got no permit in time, because other logins had them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// The permits of one costly action.
#[derive(Debug)]
pub(super) struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
    patience: Duration,
}

impl Permits {
    /// Makes `free` permits. A login waits for one no longer than `patience`.
    pub(super) fn new(free: usize, patience: Duration) -> Self {
        Self { free: Mutex::new(free), returned: Condvar::new(), patience }
    }

    /// Waits for a permit and runs a costly action.
    ///
    /// # Errors
    /// If no permit is returned in time.
    pub(super) fn run<T>(&self, action: impl FnOnce() -> T) -> Result<T, Busy> {
        let deadline = Instant::now() + self.patience;
        let mut free = self.free.lock();
        while *free == 0 {
            if self.returned.wait_until(&mut free, deadline).timed_out() {
                return Err(Busy);
            }
        }
        *free -= 1;
        drop(free);
        let _permit = Permit(self);
        Ok(action())
    }
}

/// A permit. It is given back when it is dropped, so also when a verification panics.
struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn at_most_as_many_verifications_run_as_there_are_permits() {
        let permits = Permits::new(3, LONG);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    permits.run(|| {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                    })
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(permits.free.into_inner(), 3);
    }

    #[test]
    fn a_verification_that_panics_returns_its_permit() {
        let permits = Permits::new(1, LONG);
        let verify = AssertUnwindSafe(|| permits.run(|| resume_unwind(Box::new("a fault"))));
        assert!(catch_unwind(verify).is_err());
        assert_eq!(permits.run(|| 7), Ok(7));
    }

    #[test]
    fn a_verification_waits_for_a_limited_time() {
        let permits = Permits::new(0, Duration::from_millis(1));
        assert_eq!(permits.run(|| 7), Err(Busy));
    }
}
