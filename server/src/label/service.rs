//! Adding and reading labels.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use picket_common::event::Timestamp;
use picket_common::id::EventId;

use crate::label::{LABELS_PER_CALL_MAX, Label, LabelPage};
use crate::lake::{Lake, LakeError};
use crate::metastore::{LabelStore as _, Metastore, MetastoreError};

/// Most unknown events that an error names.
const UNKNOWN_NAMED_MAX: usize = 20;

/// Why labels were not added or read.
#[derive(Debug, thiserror::Error)]
pub enum LabelsError {
    /// Too many at a time.
    #[error("{0} labels in one call, at most {LABELS_PER_CALL_MAX} are taken")]
    TooMany(usize),
    /// Events that are not stored.
    #[error("not stored, so that nothing was labelled: {}", unknown_text(.0))]
    UnknownEvents(Vec<EventId>),
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The metastore failed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
}

fn unknown_text(unknown: &[EventId]) -> String {
    let named: Vec<String> = unknown.iter().take(UNKNOWN_NAMED_MAX).map(EventId::to_string).collect();
    match unknown.len().saturating_sub(UNKNOWN_NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The labels.
#[derive(Clone)]
pub struct Labels {
    metastore: Metastore,
    lake: Arc<Lake>,
}

impl std::fmt::Debug for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Labels").finish_non_exhaustive()
    }
}

impl Labels {
    /// Over this metastore, for events of this lake.
    pub fn new(metastore: Metastore, lake: Arc<Lake>) -> Self {
        Self { metastore, lake }
    }

    /// Adds labels: all, or none when an event is not stored. Events that were acknowledged count as stored.
    ///
    /// # Errors
    /// [`LabelsError::TooMany`], [`LabelsError::UnknownEvents`], which names them.
    pub async fn add(&self, labels: &[Label], author: &str) -> Result<u64, LabelsError> {
        if labels.len() > LABELS_PER_CALL_MAX {
            return Err(LabelsError::TooMany(labels.len()));
        }
        let events: Vec<EventId> = labels.iter().map(Label::event).collect();
        let stored = self.lake.exists(&events).await?;
        let mut unknown: Vec<EventId> =
            events.into_iter().zip(stored).filter(|(_, stored)| !stored).map(|(event, _)| event).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if !unknown.is_empty() {
            return Err(LabelsError::UnknownEvents(unknown));
        }
        self.metastore.add_labels(labels, author, now()).await?;
        Ok(labels.len() as u64)
    }

    /// At most `limit` labels with an id above `after`, in the order they were added.
    ///
    /// # Errors
    /// [`LabelsError::Metastore`].
    pub async fn list(&self, after: u64, limit: u32) -> Result<LabelPage, LabelsError> {
        Ok(self.metastore.labels_after(after, limit).await?)
    }
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}
