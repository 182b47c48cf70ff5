//! picketctl: the operators' command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    picket_server::ctl::main(std::env::args_os())
}
