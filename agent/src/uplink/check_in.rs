//! The agent's status out, the desired state in.

use std::sync::Arc;
use std::time::Duration;

use picket_proto::v1;
use picket_proto::v1::fleet_service_client::FleetServiceClient;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::model_store::{DesiredModel, DesiredState};
use crate::status::{EpochReport, Snapshot};
use crate::uplink::trust::TrustKeeper;
use crate::uplink::{UplinkError, inventory, within};

/// Largest message, either way.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// How long the server may take to answer the call itself.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A report that cannot be handed over in this time means that the connection is stuck.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The server takes one report a second: how often a change of the models is looked for.
const CHANGE_INTERVAL: Duration = Duration::from_secs(2);
/// Epochs that are always told of.
const EPOCHS_LATEST: usize = 16;
/// Most epochs that are told of.
const EPOCHS_MAX: usize = 64;
/// Most models of a desired state that are looked at.
const MODELS_MAX: usize = 16;

const CALL: &str = "check in";

/// What a check-in works with.
pub(crate) struct CheckIn {
    /// Which connection of this epoch it is, from 1.
    pub(crate) connection: u64,
    pub(crate) interval: Duration,
    pub(crate) status: watch::Receiver<Arc<Snapshot>>,
    pub(crate) desired: watch::Sender<Option<DesiredState>>,
    /// Whom the agent trusts.
    pub(crate) trust: TrustKeeper,
}

impl CheckIn {
    /// Reports until the connection fails; says why.
    pub(crate) async fn run(self, channel: Channel) -> UplinkError {
        match self.exchange(channel).await {
            Err(error) => error,
            Ok(()) => UplinkError::Ended { call: CALL },
        }
    }

    async fn exchange(self, channel: Channel) -> Result<(), UplinkError> {
        let (reports, outgoing) = mpsc::channel(1);
        let mut client = FleetServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let inventory = crate::uplink::blocking(inventory::collect).await?;
        let mut last = Arc::clone(&self.status.borrow());
        let first = v1::CheckInRequest {
            status: Some(report(&last)),
            inventory: Some(inventory),
            connection: self.connection,
            trust_anchors_sha256: self.trust.anchors(),
        };
        let send = |request| within(SEND_TIMEOUT, "room for a report", reports.send(request));
        send(first).await?.map_err(|_| UplinkError::Ended { call: CALL })?;
        let mut answers = within(OPEN_TIMEOUT, "answer to check-in", client.check_in(ReceiverStream::new(outgoing)))
            .await?
            .map_err(|status| UplinkError::status(CALL, &status))?
            .into_inner();

        let mut due = tokio::time::interval(self.interval);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        due.tick().await;
        let mut changes = tokio::time::interval(CHANGE_INTERVAL);
        changes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        changes.tick().await;
        let mut is_trust_new = false;
        loop {
            let is_due = tokio::select! {
                answer = answers.message() => {
                    let answer = answer.map_err(|status| UplinkError::status(CALL, &status))?;
                    let answer = answer.ok_or(UplinkError::Ended { call: CALL })?;
                    if let Some(trust) = answer.trust {
                        is_trust_new = self.trust.take(trust).await?;
                    }
                    if let Some(state) = answer.desired_state {
                        self.desired.send_replace(Some(desired_state(state)?));
                    }
                    false
                }
                _ = due.tick() => true,
                _ = changes.tick() => {
                    let now = self.status.borrow();
                    std::mem::take(&mut is_trust_new) || now.models_differ(&last) || now.rung_differs(&last)
                }
            };
            if is_due {
                last = Arc::clone(&self.status.borrow());
                let request = v1::CheckInRequest {
                    status: Some(report(&last)),
                    inventory: None,
                    connection: 0,
                    trust_anchors_sha256: self.trust.anchors(),
                };
                send(request).await?.map_err(|_| UplinkError::Ended { call: CALL })?;
            }
        }
    }
}

fn report(snapshot: &Snapshot) -> v1::AgentStatus {
    v1::AgentStatus {
        epoch: snapshot.epoch,
        events_accepted: snapshot.events_accepted,
        buffer_bytes: snapshot.buffer_bytes,
        buffer_bytes_max: snapshot.buffer_bytes_max,
        events_lost: snapshot.events_lost.clone(),
        active_models: snapshot
            .active_models
            .iter()
            .map(|model| v1::ActiveModel {
                subject: model.subject.clone(),
                model_digest: model.model_digest.clone(),
                last_error: model.last_error.clone(),
            })
            .collect(),
        alerts_total: snapshot.alerts_total,
        cpu_seconds: snapshot.cpu_seconds,
        resident_bytes: snapshot.resident_bytes,
        resident_bytes_peak: snapshot.resident_bytes_peak,
        budget_rung: snapshot.budget.rung.clone(),
        budget_cause: snapshot.budget.cause.clone(),
        sensors: snapshot
            .sensors
            .iter()
            .map(|sensor| v1::SensorStatus {
                name: sensor.name.clone(),
                mode: sensor.mode.clone(),
                reason: sensor.reason.clone(),
                events_total: sensor.events_total,
            })
            .collect(),
        epochs: epochs(&snapshot.epochs),
    }
}

/// The latest epochs, and of those before them the ones that are not settled: what the server may not know yet.
fn epochs(reports: &[EpochReport]) -> Vec<v1::EpochAccount> {
    let is_open = |report: &EpochReport| {
        report.waiting > 0 || report.in_flight > 0 || report.lost.values().sum::<u64>() > report.lost_announced
    };
    let newest_first = reports.iter().rev().enumerate();
    let told = newest_first.filter(|(age, report)| *age < EPOCHS_LATEST || is_open(report)).take(EPOCHS_MAX);
    let mut accounts: Vec<v1::EpochAccount> = told
        .map(|(_, report)| v1::EpochAccount {
            epoch: report.epoch,
            accepted: report.accepted,
            sensor_lost: report.sensor_lost,
            delivered: report.delivered,
            waiting: report.waiting,
            in_flight: report.in_flight,
            lost: report.lost.clone().into_iter().collect(),
        })
        .collect();
    accounts.reverse();
    accounts
}

/// A subject this agent does not know is a newer server's: passed over. A digest that is none is an error.
fn desired_state(state: v1::DesiredState) -> Result<DesiredState, UplinkError> {
    let mut models = Vec::new();
    for model in state.models.into_iter().take(MODELS_MAX) {
        let Ok(subject) = model.subject.parse() else {
            tracing::debug!("the server names a subject this agent does not know");
            continue;
        };
        let digest = model.model_digest.parse().map_err(|_| UplinkError::Protocol {
            call: CALL,
            what: "a model's digest is not 64 hexadecimal digits".to_owned(),
        })?;
        models.push(DesiredModel { subject, digest, bytes: model.model_bytes, version: model.version });
    }
    Ok(DesiredState { generation: state.generation, models })
}
