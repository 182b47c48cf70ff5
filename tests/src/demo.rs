//! The whole loop of Picket on this machine.

use std::process::ExitCode;

/// Runs the demo.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
