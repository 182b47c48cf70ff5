//! Errors of the learning services as gRPC status codes.
//!
//! INVALID_ARGUMENT: the request is wrong whatever the state. NOT_FOUND: what it names is not there.
//! FAILED_PRECONDITION: something must be done first (label more, build again). RESOURCE_EXHAUSTED: later.

use tonic::Status;

use crate::api::status::internal;
use crate::dataset::DatasetError;
use crate::label::LabelsError;
use crate::lake::LakeError;
use crate::registry::RegistryError;
use crate::release::ReleaseError;
use crate::training::TrainingError;
use picket_learn::train::TrainError;

impl From<LakeError> for Status {
    fn from(error: LakeError) -> Self {
        match error {
            LakeError::QueryTimeout(_) => Self::deadline_exceeded(error.to_string()),
            LakeError::QueryMemory { .. } => Self::resource_exhausted(error.to_string()),
            LakeError::NotAQuery { .. } | LakeError::SqlTooLong { .. } | LakeError::Sql(_) => {
                Self::invalid_argument(format!("sql: {error}"))
            }
            error => internal(&error),
        }
    }
}

impl From<LabelsError> for Status {
    fn from(error: LabelsError) -> Self {
        match error {
            LabelsError::TooMany(_) => Self::invalid_argument(format!("labels: {error}")),
            LabelsError::UnknownEvents(_) => Self::not_found(error.to_string()),
            LabelsError::Lake(error) => error.into(),
            LabelsError::Metastore(error) => error.into(),
        }
    }
}

impl From<DatasetError> for Status {
    fn from(error: DatasetError) -> Self {
        match error {
            DatasetError::TestFraction(_) => Self::invalid_argument(error.to_string()),
            DatasetError::NoLabels | DatasetError::TooManyLabels | DatasetError::Split { .. } => {
                Self::failed_precondition(error.to_string())
            }
            DatasetError::NotFound(_) => Self::not_found(error.to_string()),
            DatasetError::Cancelled => Self::cancelled(error.to_string()),
            DatasetError::Lake(error) => error.into(),
            DatasetError::Rows(_)
            | DatasetError::Io { .. }
            | DatasetError::Manifest(_)
            | DatasetError::Metastore(_) => internal(&error),
        }
    }
}

impl From<TrainingError> for Status {
    fn from(error: TrainingError) -> Self {
        match error {
            TrainingError::Busy => Self::resource_exhausted(error.to_string()),
            TrainingError::OtherFeatures { .. }
            | TrainingError::NotRecorded { .. }
            | TrainingError::Train(TrainError::TooFewRows { .. } | TrainError::TooManyRows { .. }) => {
                Self::failed_precondition(error.to_string())
            }
            TrainingError::Train(TrainError::Cancelled) => Self::cancelled(error.to_string()),
            TrainingError::Dataset(error) => error.into(),
            TrainingError::Registry(error) => error.into(),
            TrainingError::Train(_) | TrainingError::Evaluate(_) | TrainingError::Panicked => internal(&error),
        }
    }
}

impl From<RegistryError> for Status {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NotFound(_) => Self::not_found(error.to_string()),
            RegistryError::HeldOut { .. } => Self::data_loss(error.to_string()),
            RegistryError::Overtaken => Self::aborted(error.to_string()),
            error => internal(&error),
        }
    }
}

impl From<ReleaseError> for Status {
    fn from(error: ReleaseError) -> Self {
        match error {
            ReleaseError::Held(_) => Self::failed_precondition(error.to_string()),
            ReleaseError::Dataset(error) => error.into(),
            ReleaseError::Registry(error) => error.into(),
            ReleaseError::Model(..) | ReleaseError::Evaluate(_) | ReleaseError::Panicked => internal(&error),
        }
    }
}
