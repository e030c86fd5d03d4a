//! Buffers that go from transfer to transfer, so that neither an idle session holds one nor each message pays for
//! clean memory.

use parking_lot::Mutex;

/// As many as can be at work at once without waiting for each other; more are freed.
const MOST: usize = 16;

/// Buffers that nobody uses just now.
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
        if spares.len() < MOST {
            spares.push(buffer);
        }
    }
}
