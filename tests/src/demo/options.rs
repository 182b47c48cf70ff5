//! The demo's command line.

use std::path::PathBuf;

use clap::Parser;

/// The whole loop of Picket on this machine
///
/// Starts a real server and a real agent on loopback, plays benign work and harmless imitations of attacks, labels and
/// learns from the first round, pushes the best models, stops the server, lets the agent judge a second round by
/// itself, and checks that nothing was lost.
#[derive(Clone, Debug, Parser)]
#[command(name = "picket-demo", version)]
pub struct Options {
    /// Write a machine-readable summary to this file (JSON)
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,

    /// Write a page about each pushed model into this folder (HTML): its evaluation, with plots
    #[arg(long, value_name = "DIR")]
    pub reports: Option<PathBuf>,

    /// What the attack range plays by: the same seed, the same plan
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Keep everything in this folder; by default a temporary folder that is removed at the end
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}
