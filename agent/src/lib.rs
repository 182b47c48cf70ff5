//! The Picket agent: sees what happens on one host, keeps it, delivers it, and scores it on the spot.
//!
//! ```text
//! sensor ─▶ enrich ─▶ pipeline ─┬─▶ buffer (sled) ─▶ uplink ─▶ server
//!                               └─▶ detector (features, model) ─▶ alerts.jsonl
//!                                        ▲
//!                                   model_store ◀── uplink
//! ```
//!
//! Sensors know only their sender; the buffer knows only bytes; the detector never delays the buffer; only an
//! acknowledgement of the server deletes from the buffer.

pub mod app;
pub mod budget;
pub mod buffer;
pub mod cli;
pub mod config;
pub mod detector;
pub mod doctor;
pub mod enrich;
mod error_text;
pub mod hardening;
pub mod identity;
#[cfg(target_os = "linux")]
pub mod install;
mod log_reader;
pub mod model_store;
pub mod own_program;
pub mod pipeline;
pub mod sensor;
mod state_file;
pub mod status;
#[cfg(test)]
mod test_server;
pub mod uplink;
