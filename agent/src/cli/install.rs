//! `picket-agent install` and `uninstall`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::{complain, exit};
use crate::install::{self, InstallError, Report};

#[derive(Debug, clap::Args)]
pub(super) struct InstallArguments {
    /// Install below this folder instead, for an image or a test.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct UninstallArguments {
    /// Where it was installed.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Remove the configuration, the identity and everything collected, too.
    #[arg(long)]
    purge: bool,
}

pub(super) fn install(arguments: &InstallArguments) -> ExitCode {
    let installed = tell(install::install(&arguments.root));
    if installed == ExitCode::SUCCESS {
        println!("next: picket-agent enroll --server HOST:8443 --token-file FILE, then systemctl start picket-agent");
    }
    installed
}

pub(super) fn uninstall(arguments: &UninstallArguments) -> ExitCode {
    tell(install::uninstall(&arguments.root, arguments.purge))
}

fn tell(result: Result<Report, InstallError>) -> ExitCode {
    match result {
        Ok(Report { done, unchanged, left }) => {
            for (mark, lines) in [("done", done), ("unchanged", unchanged), ("left", left)] {
                for line in lines {
                    println!("{mark:<10} {line}");
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(exit::CONFIGURATION)
        }
    }
}
