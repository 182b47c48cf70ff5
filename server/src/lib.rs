//! The Picket server: takes events in, keeps them, learns from their labels and gives agents models.
//!
//! ```text
//! api ─▶ ingest ─▶ wal (fsync, acknowledgement) ─▶ lake (Delta tables of Parquet)
//!                                                    │
//!            label ──▶ dataset ◀─────────────────────┘
//!                         │
//!                      training (picket-learn) ─▶ registry (signed) ─▶ release (gate) ─▶ fleet (desired state)
//! ```
//!
//! [`table`] learns from files of users alone, with no server running.

pub mod api;
pub mod app;
pub mod auth;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod dataset;
pub mod fleet;
pub mod ingest;
pub mod label;
pub mod lake;
pub mod listener;
pub mod losses;
pub mod metastore;
pub mod pki;
pub mod rate;
pub mod registry;
pub mod release;
pub mod secret;
pub mod table;
pub mod training;
pub mod wal;
