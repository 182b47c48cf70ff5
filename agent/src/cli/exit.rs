//! Exit codes: 0 ok, 1 findings or degraded, 2 bad input, 3 configuration, 4 identity, 5 unreachable, 70+ internal.

use std::process::ExitCode;

use crate::app::AppError;
use crate::config::ConfigError;
use crate::identity::EnrollError;

pub(super) const FINDINGS: u8 = 1;
pub(super) const BAD_INPUT: u8 = 2;
pub(super) const CONFIGURATION: u8 = 3;
pub(super) const IDENTITY: u8 = 4;
pub(super) const UNREACHABLE: u8 = 5;
pub(super) const INTERNAL: u8 = 70;

/// Of a command line that is wrong, or asked for help.
pub(super) fn usage(usage: &clap::Error) -> ExitCode {
    if usage.use_stderr() { ExitCode::from(BAD_INPUT) } else { ExitCode::SUCCESS }
}

/// Of a configuration that cannot be used.
pub(super) fn config(_: &ConfigError) -> ExitCode {
    ExitCode::from(CONFIGURATION)
}

/// Of an agent that ended.
pub(super) fn app(error: &AppError) -> ExitCode {
    ExitCode::from(match error {
        AppError::StateDir { .. } | AppError::Locked { .. } | AppError::Sensor(_) | AppError::Hardening(_) => {
            CONFIGURATION
        }
        AppError::Identity(_) => IDENTITY,
        AppError::Spool(_) | AppError::Threads(_) | AppError::Pipeline(_) | AppError::Failure(_) => INTERNAL,
    })
}

/// Of an enrolment that failed.
pub(super) fn enroll(error: &EnrollError) -> u8 {
    match error {
        EnrollError::OtherServer { .. }
        | EnrollError::TokenRefused
        | EnrollError::RenewalRefused { .. }
        | EnrollError::Identity(_) => IDENTITY,
        EnrollError::Unreachable { .. } | EnrollError::Server { .. } => UNREACHABLE,
    }
}
