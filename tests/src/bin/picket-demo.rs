//! The whole loop of Picket on this machine: see `picket_tests::demo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    picket_tests::role::dispatch().unwrap_or_else(picket_tests::demo::main)
}
