//! Compares the store of the agent's buffer (sled 0.34, set up as the agent does) with redb.
//!
//! * **kills**: a writer process appends and removes records, each step durable before it is acknowledged on its standard
//!   output, and is killed at a random moment; then the store is opened and every acknowledged step is looked for. The
//!   same store goes on through all kills.
//! * **damage**: of a closed store, every file is cut or gets random bytes, many times; what opening and reading says.
//! * **cost**: latency of a durable append, peak memory and files, by size of the values.
//!
//! Everything that touches a store runs in a process of its own, because damaged stores may panic, abort or hang.

use std::process::ExitCode;

mod compare;
mod cost;
mod damage;
mod kills;
mod process;
mod record;
mod report;
mod store;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match &words[..] {
        ["compare", options @ ..] => compare::run(options),
        ["write", engine, folder, first, value_bytes] => kills::write(engine, folder, first, value_bytes),
        ["fill", engine, folder, records, value_bytes] => damage::fill(engine, folder, records, value_bytes),
        ["check", engine, folder] => store::check(engine, folder),
        ["cost", engine, folder, records, value_bytes] => cost::measure(engine, folder, records, value_bytes),
        _ => Err("usage: buffer-comparison compare --folder DIR [--json] [--kills N] [--damages N] [--seed N] [--values BYTES,…]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whatever went wrong, as text.
type Failure = Box<dyn std::error::Error + Send + Sync>;
