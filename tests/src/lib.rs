//! What end-to-end tests and `picket-demo` stand on: real servers and agents as processes in temporary folders, and
//! an attack range that gives them something to see.
//!
//! * [`sandbox`]: servers and agents in a folder
//! * [`admin`]: a client of the admin API
//! * [`role`]: one binary that can be every part
//! * [`process`]: processes that never outlive their owner
//! * [`wait`]: wait for a fact, with a deadline
//! * [`learning`]: models through the real path
//! * [`range`]: benign work and harmless imitations of attacks, with their ground truth
//!
//! No product code lives here and nothing but tests and the demo depends on it.

pub mod accounting;
pub mod admin;
pub mod agent_report;
pub mod demo;
pub mod learning;
pub mod observed;
pub mod process;
pub mod range;
pub mod recording;
pub mod role;
pub mod sandbox;
pub mod vectors;
pub mod wait;
