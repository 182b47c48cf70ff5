//! Tests of what the agent and the server share, through its public interface.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batch;
mod feature;
mod fuzz;
mod golden;
mod json;
mod scenes;
mod support;
