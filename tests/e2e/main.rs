//! End-to-end tests: real servers and agents as processes, in temporary folders, on loopback.
//!
//! Every test waits for facts with deadlines and cleans up after itself. What needs root prints `skipped: …` without it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

mod range;

/// The binary that is every part (see `picket_tests::role`).
fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_picket-demo"))
}
