//! Errors of the services as gRPC status codes, in one place.
//!
//! A peer learns what it did wrong and what it can do. What went wrong inside the server is logged, and the peer only
//! learns that something did.

use tonic::Status;

use crate::auth::AuthError;
use crate::fleet::{AdmissionError, CheckInError, ModelSourceError, RetireError};
use crate::ingest::IngestError;
use crate::metastore::MetastoreError;
use crate::pki::{EnrollmentError, RotationError};

/// Logs an error of the server itself.
pub(super) fn internal(error: &dyn std::error::Error) -> Status {
    tracing::error!(%error, "a call failed");
    Status::internal("the server could not do this; its log says why")
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing | AuthError::Invalid => Self::unauthenticated(error.to_string()),
            AuthError::Forbidden { .. } => Self::permission_denied(error.to_string()),
            AuthError::Name => Self::invalid_argument(error.to_string()),
            AuthError::Metastore(_) | AuthError::Secret(_) => internal(&error),
        }
    }
}

impl From<AdmissionError> for Status {
    fn from(error: AdmissionError) -> Self {
        match error {
            AdmissionError::Anonymous | AdmissionError::Unknown | AdmissionError::Superseded => {
                Self::unauthenticated(error.to_string())
            }
            AdmissionError::Revoked | AdmissionError::Quarantined => Self::permission_denied(error.to_string()),
            AdmissionError::Metastore(_) => internal(&error),
        }
    }
}

impl From<EnrollmentError> for Status {
    fn from(error: EnrollmentError) -> Self {
        match error {
            EnrollmentError::TokenRefused => Self::unauthenticated(error.to_string()),
            EnrollmentError::Request(_) | EnrollmentError::TokenLimits => Self::invalid_argument(error.to_string()),
            EnrollmentError::Rate => Self::resource_exhausted(error.to_string()),
            EnrollmentError::Metastore(_) | EnrollmentError::Pki(_) | EnrollmentError::Secret(_) => internal(&error),
        }
    }
}

impl From<IngestError> for Status {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::SecondStream | IngestError::Rate(_) | IngestError::Overloaded => {
                Self::resource_exhausted(error.to_string())
            }
            IngestError::Unavailable(cause) => {
                tracing::error!(error = %cause, "cannot store batches");
                Self::unavailable("the server cannot store batches now; keep them and try again")
            }
            IngestError::Internal => internal(&error),
        }
    }
}

impl From<CheckInError> for Status {
    fn from(error: CheckInError) -> Self {
        match error {
            CheckInError::SecondStream | CheckInError::Rate => Self::resource_exhausted(error.to_string()),
            CheckInError::Stale => Self::aborted(error.to_string()),
            CheckInError::Admission(error) => error.into(),
            CheckInError::Metastore(error) => error.into(),
        }
    }
}

impl From<RetireError> for Status {
    fn from(error: RetireError) -> Self {
        match error {
            RetireError::NotReady { .. }
            | RetireError::Rotation(RotationError::UnderWay(_) | RotationError::NotUnderWay) => {
                Self::failed_precondition(error.to_string())
            }
            RetireError::Rotation(RotationError::Pki(_)) | RetireError::Metastore(_) | RetireError::Internal => {
                internal(&error)
            }
        }
    }
}

impl From<ModelSourceError> for Status {
    fn from(error: ModelSourceError) -> Self {
        internal(&error)
    }
}

impl From<MetastoreError> for Status {
    fn from(error: MetastoreError) -> Self {
        internal(&error)
    }
}

/// What a stream ends with when the server stops or its connection has become old.
pub(super) fn draining() -> Status {
    Status::unavailable("the server ends this connection; connect again")
}
