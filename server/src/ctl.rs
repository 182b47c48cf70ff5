//! picketctl: the operators' command line, noun–verb, over the admin API.
//!
//! * Results go to stdout as a table, JSON or JSON lines; progress and notes go to stderr, progress only to a terminal.
//! * Nothing that came from a host reaches the terminal unescaped.
//! * The API token comes from a file, never from the command line, where every user of the machine could read it.
//! * The server is trusted by the CA file alone, under the name `picket-server`, with TLS 1.3.
//! * Exit codes: 0 done, 1 findings, 2 bad input, 3 configuration, 4 identity or rights, 5 not reachable, 70 and above internal
//!   ([`error::CtlError::exit_code`]).

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser as _;

use crate::ctl::arguments::Arguments;
use crate::ctl::error::CtlError;
use crate::ctl::output::Output;

pub mod arguments;
pub mod error;
pub mod label_file;
pub mod output;

pub(crate) mod client;
mod command;
mod progress;
#[cfg(test)]
mod tests;

/// Runs picketctl with these arguments, the first of which is its own name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors to clap's exit code. Nobody is left to tell if this cannot be printed.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(arguments, Box::new(io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(CtlError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "picketctl: {}", output::safe(&error.to_string())).ok();
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs one command; its result goes to `out`.
///
/// # Errors
/// [`CtlError`].
pub fn run(arguments: Arguments, out: Box<dyn Write + '_>) -> Result<(), CtlError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CtlError::Runtime)?;
    let mut output = Output::new(arguments.output.format(), out);
    runtime.block_on(async {
        command::run(&arguments, &mut output).await?;
        output.flush()
    })
}
