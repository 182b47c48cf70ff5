//! What the agent and the server share, so that both run the same code on the same bytes.
//!
//! Pure and deterministic: no clock, no sockets, no files, no threads, no randomness, no hash-map order.
//!
//! * [`id`]: hosts, events, digests
//! * [`event`]: the event model
//! * [`batch`]: the unit on the agent's disk, on the wire and in the server's write-ahead log
//! * [`chain`]: the hash chain over batches
//! * [`feature`]: from events to vectors
//! * [`model`]: the compact model format, its reader, writer and scorer
//! * `import` (feature of the same name): logs of other programs as events
//! * [`table`]: rows of any columns, how they become vectors, and the file of a model that judges them
//! * `settings` (feature of the same name): configuration in layers, texts in, one typed value out

pub mod batch;
pub mod chain;
mod civil;
pub mod event;
pub mod feature;
pub mod id;
#[cfg(feature = "import")]
pub mod import;
pub mod model;
#[cfg(feature = "settings")]
pub mod settings;
pub mod table;
