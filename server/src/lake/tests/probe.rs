//! Steps of the work, to look at what a crash there would leave.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

type Action = Box<dyn Fn(&'static str) + Send>;

/// Called at each step; does nothing until it is told what.
#[derive(Clone, Default)]
pub(in crate::lake) struct Probe(Arc<Mutex<Option<Action>>>);

impl Probe {
    pub(in crate::lake) fn set(&self, action: impl Fn(&'static str) + Send + 'static) {
        *self.0.lock() = Some(Box::new(action));
    }

    pub(in crate::lake) fn reached(&self, step: &'static str) {
        if let Some(action) = &*self.0.lock() {
            action(step);
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}
