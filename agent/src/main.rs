//! The Picket agent; see `picket_agent::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    picket_agent::cli::main(std::env::args_os())
}
