//! The whole loop of Picket on this machine.

use std::process::ExitCode;

pub mod alerts;
pub mod console;
pub mod detection;
pub mod interrupt;
pub mod learn;
pub mod options;
pub mod summary;

/// Runs the demo.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
