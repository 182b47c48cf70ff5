//! Values of the configuration that can change while the agent runs.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// A value that one part sets and others look at.
#[derive(Debug, Default)]
pub struct Live<T> {
    revision: AtomicU64,
    value: Mutex<T>,
}

impl<T: Clone> Live<T> {
    /// With a first value.
    pub fn new(value: T) -> Self {
        Self { revision: AtomicU64::new(0), value: Mutex::new(value) }
    }

    /// The value now.
    pub fn get(&self) -> T {
        self.value.lock().clone()
    }

    /// Another value from now on.
    pub fn set(&self, value: T) {
        *self.value.lock() = value;
        self.revision.fetch_add(1, Ordering::Release);
    }

    /// The value if it was set since `seen`, which becomes the revision of it.
    pub fn newer_than(&self, seen: &mut u64) -> Option<T> {
        let revision = self.revision.load(Ordering::Acquire);
        if revision == *seen {
            return None;
        }
        *seen = revision;
        Some(self.get())
    }
}
