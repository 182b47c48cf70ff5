//! `picketctl host …`

use picket_proto::v1;
use serde_json::{Value, json};

use crate::ctl::arguments::HostVerb;
use crate::ctl::client::Client;
use crate::ctl::command::{object, time_text};
use crate::ctl::error::CtlError;
use crate::ctl::output::{Output, Row, columns};

mod delivery;

/// How long the token of a re-enrolment can be used, seconds.
const REENROLMENT_TOKEN_S: u32 = 86_400;

pub(super) async fn run(client: &mut Client, verb: &HostVerb, output: &mut Output<'_>) -> Result<(), CtlError> {
    match verb {
        HostVerb::List => list(client, output).await,
        HostVerb::Losses { host } => delivery::losses(client, host.as_deref(), output).await,
        HostVerb::Chain { host } => delivery::chain(client, host.as_deref(), output).await,
        HostVerb::Release { host } => release(client, host, output).await,
        HostVerb::Reenroll { host, machines } => reenroll(client, host, *machines, output).await,
        HostVerb::Revoke { host } => revoke(client, host, output).await,
    }
}

async fn revoke(client: &mut Client, host: &str, output: &mut Output<'_>) -> Result<(), CtlError> {
    let request = v1::RevokeHostRequest { host_id: host.to_owned() };
    let since = time_text(client.revoke_host(request).await?.into_inner().revoked_unix_s);
    output.one(
        &format!("{host} is refused from now on; its connections were cut"),
        object([("host_id", host.into()), ("revoked", since)]),
    )
}

async fn release(client: &mut Client, host: &str, output: &mut Output<'_>) -> Result<(), CtlError> {
    let request = v1::ReleaseHostRequest { host_id: host.to_owned() };
    let released = client.release_host(request).await?.into_inner().released;
    let text = if released { "is welcome again" } else { "was not in quarantine" };
    output.one(&format!("{host} {text}"), object([("host_id", host.into()), ("released", released.into())]))
}

async fn reenroll(client: &mut Client, host: &str, machines: u32, output: &mut Output<'_>) -> Result<(), CtlError> {
    // The token first: without it nobody could come back.
    let request = v1::CreateTokenRequest { valid_for_s: REENROLMENT_TOKEN_S, max_uses: machines };
    let token = client.create_token(request).await?.into_inner();
    client.revoke_host(v1::RevokeHostRequest { host_id: host.to_owned() }).await?;
    let text = format!(
        "{host} is refused from now on; what it delivered stays. Within a day, on each machine that had its identity:\n  \
         picket-agent enroll --force --server <address of the server> --token {}",
        token.join_token
    );
    let expires = time_text(token.expires_unix_s);
    output.one(&text, object([("host_id", host.into()), ("join_token", token.join_token.into()), ("expires", expires)]))
}

async fn list(client: &mut Client, output: &mut Output<'_>) -> Result<(), CtlError> {
    let hosts = client.list_hosts(v1::ListHostsRequest {}).await?.into_inner().hosts;
    let shown = columns([
        ("host", "host_id"),
        ("name", "hostname"),
        ("connected", "connected"),
        ("revoked", "revoked"),
        ("quarantine", "quarantined"),
        ("last seen", "last_seen"),
        ("events", "events_stored"),
        ("lost", "events_lost_total"),
        ("alerts", "alerts_total"),
        ("budget", "budget_rung"),
        ("models", "models"),
        ("system", "operating_system"),
        ("agent", "agent_version"),
    ]);
    output.rows(&shown, hosts.into_iter().map(row).collect())
}

fn row(host: v1::Host) -> Row {
    let inventory = host.inventory.unwrap_or_default();
    let status = host.status.unwrap_or_default();
    let lost: std::collections::BTreeMap<_, _> = status.events_lost.iter().collect();
    let models: Vec<String> = status
        .active_models
        .iter()
        .filter(|model| !model.model_digest.is_empty())
        .map(|model| model.subject.clone())
        .collect();
    object([
        ("host_id", host.host_id.into()),
        ("hostname", inventory.hostname.into()),
        ("connected", host.connected.into()),
        ("revoked", time_text(host.revoked_unix_s)),
        ("quarantined", time_text(host.quarantined_unix_s)),
        ("quarantine_reason", host.quarantine_reason.into()),
        ("enrolled", time_text(host.enrolled_unix_s)),
        ("last_seen", time_text(host.last_seen_unix_s)),
        ("events_stored", host.events_stored.into()),
        ("operating_system", inventory.operating_system.into()),
        ("kernel_release", inventory.kernel_release.into()),
        ("architecture", inventory.architecture.into()),
        ("logical_cpus", inventory.logical_cpus.into()),
        ("memory_bytes", inventory.memory_bytes.into()),
        ("agent_version", inventory.agent_version.into()),
        ("boot_time", time_text(i64::try_from(inventory.boot_time_unix_s).unwrap_or(0))),
        ("epoch", status.epoch.into()),
        ("events_accepted", status.events_accepted.into()),
        ("events_lost", json!(lost)),
        ("events_lost_total", lost.values().map(|lost| **lost).fold(0, u64::saturating_add).into()),
        ("buffer_bytes", status.buffer_bytes.into()),
        ("buffer_bytes_max", status.buffer_bytes_max.into()),
        ("alerts_total", status.alerts_total.into()),
        ("cpu_seconds", status.cpu_seconds.into()),
        ("resident_bytes", status.resident_bytes.into()),
        ("resident_bytes_peak", status.resident_bytes_peak.into()),
        ("budget_rung", status.budget_rung.into()),
        ("budget_cause", status.budget_cause.into()),
        ("models", models.join(", ").into()),
        ("active_models", status.active_models.into_iter().map(model).collect::<Vec<Value>>().into()),
        ("sensors", status.sensors.into_iter().map(sensor).collect::<Vec<Value>>().into()),
    ])
}

fn model(model: v1::ActiveModel) -> Value {
    json!({"subject": model.subject, "model_digest": model.model_digest, "last_error": model.last_error})
}

fn sensor(sensor: v1::SensorStatus) -> Value {
    json!({
        "name": sensor.name, "mode": sensor.mode, "reason": sensor.reason, "events_total": sensor.events_total,
    })
}
