//! The Picket server.

use std::process::ExitCode;

fn main() -> ExitCode {
    picket_server::cli::main(std::env::args_os())
}
