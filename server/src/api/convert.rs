//! Wire types to the services' types and back.

use picket_proto::v1;

use crate::fleet::{
    ActiveModel, AgentStatus, DesiredModel, DesiredState, EPOCHS_REPORTED_MAX, EpochAccount, HostInventory,
    SensorStatus,
};
use crate::ingest::{Rejection, RejectionKind, Verdict};
use crate::pki::IssuedIdentity;

impl From<v1::HostInventory> for HostInventory {
    fn from(wire: v1::HostInventory) -> Self {
        Self {
            hostname: wire.hostname,
            operating_system: wire.operating_system,
            kernel_release: wire.kernel_release,
            architecture: wire.architecture,
            logical_cpus: wire.logical_cpus,
            memory_bytes: wire.memory_bytes,
            agent_version: wire.agent_version,
            boot_time_unix_s: wire.boot_time_unix_s,
        }
    }
}

impl From<HostInventory> for v1::HostInventory {
    fn from(inventory: HostInventory) -> Self {
        Self {
            hostname: inventory.hostname,
            operating_system: inventory.operating_system,
            kernel_release: inventory.kernel_release,
            architecture: inventory.architecture,
            logical_cpus: inventory.logical_cpus,
            memory_bytes: inventory.memory_bytes,
            agent_version: inventory.agent_version,
            boot_time_unix_s: inventory.boot_time_unix_s,
        }
    }
}

impl From<v1::AgentStatus> for AgentStatus {
    fn from(wire: v1::AgentStatus) -> Self {
        Self {
            epoch: wire.epoch,
            events_accepted: wire.events_accepted,
            buffer_bytes: wire.buffer_bytes,
            buffer_bytes_max: wire.buffer_bytes_max,
            events_lost: wire.events_lost,
            active_models: wire.active_models.into_iter().map(ActiveModel::from).collect(),
            alerts_total: wire.alerts_total,
            cpu_seconds: if wire.cpu_seconds.is_finite() { wire.cpu_seconds } else { 0.0 },
            resident_bytes: wire.resident_bytes,
            resident_bytes_peak: wire.resident_bytes_peak,
            budget_rung: wire.budget_rung,
            budget_cause: wire.budget_cause,
            sensors: wire.sensors.into_iter().map(SensorStatus::from).collect(),
            trust_anchors: Vec::new(),
            certificate_authority: String::new(),
            epochs: wire.epochs.into_iter().take(EPOCHS_REPORTED_MAX).map(EpochAccount::from).collect(),
        }
    }
}

impl From<v1::EpochAccount> for EpochAccount {
    fn from(wire: v1::EpochAccount) -> Self {
        Self {
            epoch: wire.epoch,
            accepted: wire.accepted,
            sensor_lost: wire.sensor_lost,
            delivered: wire.delivered,
            waiting: wire.waiting,
            in_flight: wire.in_flight,
            lost: wire.lost.into_iter().collect(),
        }
    }
}

impl From<AgentStatus> for v1::AgentStatus {
    fn from(status: AgentStatus) -> Self {
        Self {
            epoch: status.epoch,
            events_accepted: status.events_accepted,
            buffer_bytes: status.buffer_bytes,
            buffer_bytes_max: status.buffer_bytes_max,
            events_lost: status.events_lost,
            active_models: status.active_models.into_iter().map(v1::ActiveModel::from).collect(),
            alerts_total: status.alerts_total,
            cpu_seconds: status.cpu_seconds,
            resident_bytes: status.resident_bytes,
            resident_bytes_peak: status.resident_bytes_peak,
            budget_rung: status.budget_rung,
            budget_cause: status.budget_cause,
            sensors: status.sensors.into_iter().map(v1::SensorStatus::from).collect(),
            // Asked for with ListLosses.
            epochs: Vec::new(),
        }
    }
}

impl From<v1::ActiveModel> for ActiveModel {
    fn from(wire: v1::ActiveModel) -> Self {
        Self { subject: wire.subject, model_digest: wire.model_digest, last_error: wire.last_error }
    }
}

impl From<ActiveModel> for v1::ActiveModel {
    fn from(model: ActiveModel) -> Self {
        Self { subject: model.subject, model_digest: model.model_digest, last_error: model.last_error }
    }
}

impl From<v1::SensorStatus> for SensorStatus {
    fn from(wire: v1::SensorStatus) -> Self {
        Self { name: wire.name, mode: wire.mode, reason: wire.reason, events_total: wire.events_total }
    }
}

impl From<SensorStatus> for v1::SensorStatus {
    fn from(sensor: SensorStatus) -> Self {
        Self { name: sensor.name, mode: sensor.mode, reason: sensor.reason, events_total: sensor.events_total }
    }
}

impl From<DesiredState> for v1::DesiredState {
    fn from(state: DesiredState) -> Self {
        Self { generation: state.generation, models: state.models.into_iter().map(v1::DesiredModel::from).collect() }
    }
}

impl From<DesiredModel> for v1::DesiredModel {
    fn from(model: DesiredModel) -> Self {
        Self {
            subject: model.subject.name().to_owned(),
            model_digest: model.digest.to_string(),
            model_bytes: model.bytes,
            version: model.version,
        }
    }
}

impl From<IssuedIdentity> for v1::Identity {
    fn from(identity: IssuedIdentity) -> Self {
        Self {
            host_id: identity.host.to_string(),
            certificate_der: identity.certificate.to_vec(),
            trust_bundle_der: identity.trust_bundle.iter().map(|anchor| anchor.to_vec()).collect(),
            model_verifying_keys: identity.model_verifying_keys.iter().map(|key| key.to_vec()).collect(),
        }
    }
}

/// The answer to one delivery.
pub(super) fn deliver_response(delivery_id: u64, verdict: Verdict) -> v1::DeliverResponse {
    let (verdict, reject_reason, reason) = match verdict {
        Verdict::Accepted => (v1::BatchVerdict::Accepted, v1::RejectReason::Unspecified, String::new()),
        Verdict::Duplicate => (v1::BatchVerdict::Duplicate, v1::RejectReason::Unspecified, String::new()),
        Verdict::Rejected(Rejection { kind, reason }) => (v1::BatchVerdict::Rejected, kind.into(), reason),
    };
    v1::DeliverResponse { delivery_id, verdict: verdict.into(), reason, reject_reason: reject_reason.into() }
}

impl From<RejectionKind> for v1::RejectReason {
    fn from(kind: RejectionKind) -> Self {
        match kind {
            RejectionKind::Checksum => Self::Checksum,
            RejectionKind::TooLarge => Self::TooLarge,
            RejectionKind::Malformed => Self::Malformed,
            RejectionKind::UnsupportedVersion => Self::UnsupportedVersion,
            RejectionKind::TooOld => Self::TooOld,
        }
    }
}
