//! What agents should be.

use std::future::Future;

use bytes::Bytes;
use picket_common::feature::Subject;
use picket_common::id::Digest;

/// What every agent should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// Grows with each change; an agent never goes back to a lower one.
    pub generation: u64,
    /// At most one for each subject. An agent keeps the model it has for a subject that is not named.
    pub models: Vec<DesiredModel>,
}

/// A model that every agent should predict with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredModel {
    /// What it judges.
    pub subject: Subject,
    /// SHA-256 of its file.
    pub digest: Digest,
    /// Length of its file, bytes.
    pub bytes: u64,
    /// The registry's version.
    pub version: u64,
}

/// Where model files come from.
pub trait ModelSource: Send + Sync + 'static {
    /// The file with this digest; `None` when there is none.
    fn model_file(&self, digest: Digest) -> impl Future<Output = Result<Option<Bytes>, ModelSourceError>> + Send;
}

/// A model file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the model {digest}: {reason}")]
pub struct ModelSourceError {
    /// Which.
    pub digest: Digest,
    /// Why.
    pub reason: String,
}
