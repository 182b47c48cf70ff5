//! End-to-end tests: real servers and agents as processes, in temporary folders, on loopback.
//!
//! Every test waits for facts with deadlines and cleans up after itself. What needs root prints `skipped: …` without it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod budget;
mod clock;
mod clone;
mod connection;
mod containers;
mod corruption;
mod crash;
mod doctor;
mod ebpf;
mod enrollment;
mod errors;
mod exchange;
mod hardening;
mod hostile;
mod integrity;
mod losses;
mod model;
mod offline;
mod range;
mod relay;
mod reload;
mod replay;
mod rotation;
mod sensors;
mod stop;
mod store;
mod support;
mod systemd;
mod table;
mod trust;
