//! Child processes that do not outlive their test.

use std::process::{Child, ExitStatus};

use super::eventually;

/// A child process that is killed and reaped when this is dropped.
pub(crate) struct ChildGuard(pub(crate) Child);

impl ChildGuard {
    /// Waits until the process has ended by itself, and returns its exit status.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
