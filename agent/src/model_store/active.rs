//! The models in force, shared between the store and the detector.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use picket_common::feature::Subject;
use picket_common::id::Digest;
use picket_common::model::Model;

/// One model per subject, or none; and why the last one that was offered is not in force.
///
/// A reader keeps the models it took and looks at [`ActiveModels::revision`] (one atomic load) to see whether there
/// are newer ones, so a change never makes it wait and never leaves it without a model.
#[derive(Debug, Default)]
pub struct ActiveModels {
    revision: AtomicU64,
    slots: RwLock<[Slot; Subject::ALL.len()]>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    model: Option<Arc<Model>>,
    last_error: Option<String>,
}

/// What is in force for one subject.
#[derive(Clone, Debug)]
pub struct ActiveModel {
    /// The subject.
    pub subject: Subject,
    /// Its model, if it has one.
    pub model: Option<Arc<Model>>,
    /// Why the last model that was offered is not in force. `None` when it is.
    pub last_error: Option<String>,
}

impl ActiveModels {
    /// Grows with each change of a model.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The models in force.
    pub fn all(&self) -> Vec<ActiveModel> {
        let slots = self.slots.read();
        let active = |subject: Subject| {
            let slot = &slots[index(subject)];
            ActiveModel { subject, model: slot.model.clone(), last_error: slot.last_error.clone() }
        };
        Subject::ALL.into_iter().map(active).collect()
    }

    /// The model in force for a subject.
    pub fn model(&self, subject: Subject) -> Option<Arc<Model>> {
        self.slots.read()[index(subject)].model.clone()
    }

    /// Its digest.
    pub fn digest(&self, subject: Subject) -> Option<Digest> {
        self.slots.read()[index(subject)].model.as_ref().map(|model| model.id())
    }

    /// Puts a model in force.
    pub(crate) fn set(&self, subject: Subject, model: Arc<Model>) {
        self.slots.write()[index(subject)] = Slot { model: Some(model), last_error: None };
        self.revision.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn set_error(&self, subject: Subject, error: String) {
        self.slots.write()[index(subject)].last_error = Some(error);
    }

    pub(crate) fn clear_error(&self, subject: Subject) {
        self.slots.write()[index(subject)].last_error = None;
    }
}

fn index(subject: Subject) -> usize {
    match subject {
        Subject::ProcessStart => 0,
        Subject::Connection => 1,
    }
}
