//! What the agent has to say of itself between two batches: it waits here until the pipeline makes events of it.

use std::collections::VecDeque;

use parking_lot::Mutex;
use picket_common::event::limits::AGENT_TEXT_BYTES_MAX;
use picket_common::event::{AgentChange, ByteString};

/// Most changes that wait; the oldest go first. The pipeline takes them about once a second.
const CHANGES_MAX: usize = 64;

/// A text within the limits of the agent's own events.
pub(crate) fn text(text: &str) -> ByteString {
    ByteString::truncated(&text.as_bytes()[..text.len().min(AGENT_TEXT_BYTES_MAX)])
}

/// A queue that never waits.
#[derive(Debug, Default)]
pub struct Changes(Mutex<VecDeque<AgentChange>>);

impl Changes {
    /// Adds a change.
    pub fn push(&self, change: AgentChange) {
        let mut changes = self.0.lock();
        if changes.len() == CHANGES_MAX {
            changes.pop_front();
        }
        changes.push_back(change);
    }

    /// All that wait, oldest first.
    pub(crate) fn take(&self) -> Vec<AgentChange> {
        self.0.lock().drain(..).collect()
    }
}
