//! What end-to-end tests and `picket-demo` stand on: real servers and agents as processes in temporary folders, and
//! an attack range that gives them something to see.
//!
//! * [`role`]: one binary that can be every part
//! * [`process`]: processes that never outlive their owner
//! * [`wait`]: wait for a fact, with a deadline
//! * [`range`]: benign work and harmless imitations of attacks, with their ground truth
//!
//! No product code lives here and nothing but tests and the demo depends on it.

pub mod demo;
pub mod process;
pub mod range;
pub mod role;
pub mod wait;
