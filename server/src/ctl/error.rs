//! What can go wrong with a command, and its exit code.

use std::io;
use std::path::PathBuf;

use tonic::Code;

use crate::ctl::label_file::LabelFileError;
use crate::table::TableFileError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// Something is not set.
    #[error("{what} is not known: give {flag} or set {variable}")]
    Unset {
        /// What.
        what: &'static str,
        /// The flag for it.
        flag: &'static str,
        /// The environment variable for it.
        variable: &'static str,
    },
    /// A file that says how to connect cannot be used.
    #[error("{path}: {reason}")]
    Configuration {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The server's address cannot be used.
    #[error("the server address {address:?} is not HOST:PORT: {reason}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What answers is not the server that the CA file names.
    #[error("{address} does not prove to be the server of this CA file: {reason}")]
    Identity {
        /// The address.
        address: String,
        /// Why not.
        reason: String,
    },
    /// Nobody answers.
    #[error("cannot reach the server at {address}: {reason}")]
    Unreachable {
        /// The address.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The server said no.
    #[error("{}", status_text(.0))]
    Refused(Box<tonic::Status>),
    /// The gate said no.
    #[error("{} (model judge shows the figures; --force passes over it)", status_text(.0))]
    Held(Box<tonic::Status>),
    /// The server answered something that cannot be.
    #[error("the server's answer cannot be used: {0}")]
    Answer(String),
    /// An argument cannot be used.
    #[error("{0}")]
    Argument(String),
    /// A file of labels cannot be used.
    #[error(transparent)]
    Labels(#[from] LabelFileError),
    /// Nothing came of a table.
    #[error(transparent)]
    Table(#[from] TableFileError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// What was looked for was found, and it is not good.
    #[error("{0}")]
    Findings(&'static str),
    /// The result cannot be written.
    #[error("cannot write the result: {0}")]
    Output(#[source] io::Error),
    /// The runtime cannot be started.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

impl From<tonic::Status> for CtlError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl CtlError {
    /// The exit code: 1 findings, 2 bad input, 3 configuration, 4 identity or rights, 5 not reachable, 70 internal, 74 input/output,
    /// 75 try again later.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Findings(_) | Self::Held(_) => 1,
            Self::Argument(_) | Self::Labels(_) | Self::Table(_) | Self::File { .. } => 2,
            Self::Unset { .. } | Self::Configuration { .. } | Self::Address { .. } => 3,
            Self::Identity { .. } => 4,
            Self::Unreachable { .. } => 5,
            Self::Refused(status) => code_exit(status.code()),
            Self::Answer(_) | Self::Runtime(_) => 70,
            Self::Output(_) => 74,
        }
    }
}

/// The one place where gRPC codes become exit codes.
fn code_exit(code: Code) -> u8 {
    match code {
        Code::Ok => 0,
        Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::FailedPrecondition | Code::AlreadyExists => 2,
        Code::Unauthenticated | Code::PermissionDenied => 4,
        Code::Unavailable | Code::DeadlineExceeded => 5,
        Code::ResourceExhausted | Code::Aborted => 75,
        Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => 70,
    }
}

fn status_text(status: &tonic::Status) -> String {
    match (status.code(), status.message()) {
        (code, "") => code.description().to_owned(),
        (Code::Internal | Code::Unknown, message) => format!("the server failed: {message}"),
        (_, message) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn exit_codes_tell_whose_turn_it_is() {
        for (status, exit) in [
            (Status::invalid_argument("sql: no"), 2),
            (Status::not_found("no model"), 2),
            (Status::unauthenticated("no token"), 4),
            (Status::permission_denied("role"), 4),
            (Status::unavailable("stopping"), 5),
            (Status::resource_exhausted("later"), 75),
            (Status::internal("bug"), 70),
        ] {
            assert_eq!(CtlError::from(status.clone()).exit_code(), exit, "{status:?}");
        }
        let unset = CtlError::Unset { what: "the server", flag: "--server", variable: "PICKET_SERVER" };
        assert_eq!(unset.exit_code(), 3);
        assert_eq!(unset.to_string(), "the server is not known: give --server or set PICKET_SERVER");
    }

    #[test]
    fn messages_are_the_servers_own() {
        assert_eq!(CtlError::from(Status::invalid_argument("sql: no table x")).to_string(), "sql: no table x");
        assert_eq!(CtlError::from(Status::internal("see log")).to_string(), "the server failed: see log");
        assert!(!CtlError::from(Status::unavailable("")).to_string().is_empty());
    }
}
