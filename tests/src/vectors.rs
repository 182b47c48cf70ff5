//! Whether the server computes, from what it stored, bit for bit the vectors that the agent scored.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use picket_common::feature::{ContextLimits, FeaturePipeline};
use picket_common::id::{Epoch, EventKey, Sequence};
use picket_server::lake::{EventFilter, Lake, LakeConfig, LakeError};
use picket_server::wal::{Wal, WalConfig, WalError};
use serde_json::Value;

/// Why vectors could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum VectorsError {
    /// The agent's trace cannot be read.
    #[error("the agent's trace: {0}")]
    Trace(io::Error),
    /// The server's log cannot be opened.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The lake cannot be read.
    #[error(transparent)]
    Lake(#[from] LakeError),
}

/// The comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Vectors in the agent's trace.
    pub agent: u64,
    /// Of these, computed from stored events too.
    pub compared: u64,
    /// Of these, different in any bit.
    pub different: u64,
}

/// Compares the agent's trace (`detector.trace_vectors`) with the vectors of the events stored in `server_state` about
/// `epoch`. The server must have been stopped.
///
/// # Errors
/// [`VectorsError`].
pub fn compare(trace: &Path, server_state: &Path, epoch: u64) -> Result<Comparison, VectorsError> {
    let traced = read_trace(trace, epoch).map_err(VectorsError::Trace)?;
    let mut comparison = Comparison { agent: traced.len() as u64, ..Comparison::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(VectorsError::Trace)?;
    let wal = Arc::new(Wal::open(&server_state.join("wal"), WalConfig::default())?);
    runtime.block_on(async {
        let lake = Lake::open(&server_state.join("lake"), wal, LakeConfig::default()).await?;
        let filter = EventFilter { epoch: Some(Epoch(epoch)), ..EventFilter::default() };
        let mut events = lake.read_events(&lake.table_versions(), filter);
        let mut features = FeaturePipeline::new(ContextLimits::default());
        while let Some(event) = events.next().await {
            let (_, event) = event?;
            let Some(vector) = features.observe(&event) else { continue };
            let Some(bits) = traced.get(&vector.event) else { continue };
            comparison.compared += 1;
            let same = vector.values.iter().map(|value| value.to_bits()).eq(bits.iter().copied());
            comparison.different += u64::from(!same);
        }
        Ok(comparison)
    })
}

fn read_trace(path: &Path, epoch: u64) -> io::Result<HashMap<EventKey, Vec<u32>>> {
    let mut vectors = HashMap::new();
    for line in crate::sandbox::read_json_lines(path)? {
        let entry = traced_vector(&line).ok_or_else(|| io::Error::other(format!("not a vector: {line}")))?;
        if entry.0.epoch.0 == epoch {
            vectors.insert(entry.0, entry.1);
        }
    }
    Ok(vectors)
}

fn traced_vector(line: &Value) -> Option<(EventKey, Vec<u32>)> {
    let key =
        EventKey { epoch: Epoch(line.get("epoch")?.as_u64()?), sequence: Sequence(line.get("sequence")?.as_u64()?) };
    let bits = line.get("values")?.as_array()?.iter().map(|bits| u32::try_from(bits.as_u64()?).ok());
    Some((key, bits.collect::<Option<_>>()?))
}
