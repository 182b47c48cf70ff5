//! Tests of what the agent and the server share, through its public interface.

mod batch;
mod json;
mod support;
