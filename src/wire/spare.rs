//! Buffers that are passed on from transfer to transfer. So an idle session holds none, and a transfer need not clear
//! new memory.

use parking_lot::Mutex;

/// The most buffers that are kept; more are freed. So many transfers can run at once without allocating.
const LIMIT: usize = 16;

/// Buffers that are not in use.
pub(crate) struct Spares<T>(Mutex<Vec<T>>);

impl<T> Spares<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().pop()
    }

    pub(crate) fn give(&self, buffer: T) {
        let mut spares = self.0.lock();
        if spares.len() < LIMIT {
            spares.push(buffer);
        }
    }
}
