//! What ends a connection to the server.

use crate::buffer::BufferError;
use crate::identity::{EnrollError, IdentityError, IdentityStoreError};
use crate::uplink::channel::ConnectError;

/// Why a connection ended or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectError),
    /// The server ended the connection before it answered anything.
    #[error(
        "the server ended the connection in the TLS handshake: {what}; it may not take this host's certificate: if this \
         lasts, enrol the host again with a new join token (`picket-agent enroll --force`)"
    )]
    Handshake {
        /// Its alert, or that none came.
        what: String,
    },
    /// The server ended a call with an error.
    #[error("{call}: {code:?}: {message}")]
    Status {
        /// Which call.
        call: &'static str,
        /// gRPC's code.
        code: tonic::Code,
        /// What it said.
        message: String,
    },
    /// The server ended a stream that is meant to stay open.
    #[error("{call}: the server ended the stream")]
    Ended {
        /// Which call.
        call: &'static str,
    },
    /// The server answered what this agent cannot understand.
    #[error("{call}: {what}")]
    Protocol {
        /// Which call.
        call: &'static str,
        /// What was wrong.
        what: String,
    },
    /// Nothing came in time.
    #[error("no {what} within {seconds} s")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
    /// The certificate has expired.
    #[error(
        "this host's certificate has expired: enrol it again with a new join token (`picket-agent enroll --force`)"
    )]
    Expired,
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The identity cannot be read or kept.
    #[error(transparent)]
    IdentityStore(#[from] IdentityStoreError),
    /// The certificate could not be renewed.
    #[error(transparent)]
    Renewal(#[from] EnrollError),
    /// The buffer cannot be read.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// An error in this program.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl UplinkError {
    /// A gRPC status of a call.
    pub(crate) fn status(call: &'static str, status: &tonic::Status) -> Self {
        Self::Status { call, code: status.code(), message: status.message().to_owned() }
    }

    /// The error and its causes on one line.
    pub(crate) fn chain(&self) -> String {
        crate::error_text::chain(self)
    }
}
