//! What became of batches and events, as messages.

use picket_common::id::HostId;
use picket_proto::v1;
use tonic::Status;

use crate::api::status::internal;
use crate::chain::{EpochReport, Missing};
use crate::losses::{EpochLosses, EventLoss, LossesError};

pub(super) fn chain(host: HostId, report: EpochReport) -> v1::EpochChain {
    let missing =
        |missing: &Missing| v1::MissingBatches { first: missing.first, last: missing.last, batches: missing.batches };
    v1::EpochChain {
        host_id: host.to_string(),
        epoch: report.epoch,
        batches: report.batches,
        stored: report.stored,
        declared_lost: report.declared_lost,
        waiting: report.waiting,
        missing: report.missing.iter().map(missing).collect(),
        altered: report.altered,
        verified: report.verified,
        begins_anew: report.begins_anew,
        stated_unix_s: report.stated_unix_s,
    }
}

pub(super) fn losses(losses: EpochLosses) -> v1::EpochLosses {
    let loss = |loss: EventLoss| v1::EventLoss {
        stage: loss.stage,
        reason: loss.reason,
        events: loss.events,
        announced: loss.announced,
    };
    v1::EpochLosses {
        host_id: losses.host.to_string(),
        epoch: losses.epoch,
        generated: losses.generated,
        stored: losses.stored,
        lost: losses.lost.into_iter().map(loss).collect(),
        waiting: losses.waiting,
        in_flight: losses.in_flight,
        unaccounted: losses.unaccounted,
        reported_unix_s: losses.reported.map_or(0, |time| time.0),
    }
}

impl From<LossesError> for Status {
    fn from(error: LossesError) -> Self {
        match error {
            LossesError::NoHost(_) => Self::not_found(error.to_string()),
            LossesError::Lake(error) => error.into(),
            LossesError::Metastore(_) | LossesError::Answer(_) | LossesError::Host(_) => internal(&error),
        }
    }
}
