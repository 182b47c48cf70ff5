//! Exit codes: 0 ok, 2 bad input, 3 configuration, 4 identity, 70 and more internal.

use std::process::ExitCode;

use super::ServeError;
use crate::app::StartError;
use crate::metastore::MetastoreError;
use crate::pki::PkiError;

const BAD_INPUT: u8 = 2;
const CONFIGURATION: u8 = 3;
const IDENTITY: u8 = 4;
pub(super) const INTERNAL: u8 = 70;

/// Of a command line that is wrong, or asked for help.
pub(super) fn usage(usage: &clap::Error) -> ExitCode {
    if usage.use_stderr() { ExitCode::from(BAD_INPUT) } else { ExitCode::SUCCESS }
}

/// Of a server that ended.
pub(super) fn code(error: &ServeError) -> ExitCode {
    ExitCode::from(number(error))
}

pub(super) fn number(error: &ServeError) -> u8 {
    match error {
        ServeError::Config(_) | ServeError::LogFilter(_) => CONFIGURATION,
        ServeError::Start(error) => match error {
            StartError::StateDir(_) | StartError::Bind(_) | StartError::Pki(PkiError::ServerName { .. }) => {
                CONFIGURATION
            }
            StartError::Metastore(MetastoreError::NewerSchema { .. }) => CONFIGURATION,
            StartError::Pki(PkiError::Lost { .. } | PkiError::Damaged { .. } | PkiError::File(_)) => IDENTITY,
            _ => INTERNAL,
        },
        ServeError::Runtime(_) | ServeError::Signals(_) | ServeError::Failure(_) => INTERNAL,
    }
}
