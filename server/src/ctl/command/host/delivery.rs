//! `picketctl host losses` and `picketctl host chain`.

use picket_proto::v1;
use serde_json::{Value, json};

use crate::ctl::client::Client;
use crate::ctl::command::{object, time_text};
use crate::ctl::error::CtlError;
use crate::ctl::output::{Output, Row, columns};

pub(super) async fn losses(client: &mut Client, host: Option<&str>, output: &mut Output<'_>) -> Result<(), CtlError> {
    let request = v1::ListLossesRequest { host_id: host.unwrap_or_default().to_owned() };
    let epochs = client.list_losses(request).await?.into_inner().epochs;
    let shown = columns([
        ("host", "host_id"),
        ("started", "started"),
        ("generated", "generated"),
        ("stored", "stored"),
        ("lost", "lost_total"),
        ("by stage/reason", "lost_text"),
        ("waiting", "waiting"),
        ("in flight", "in_flight"),
        ("unaccounted", "unaccounted"),
        ("reported", "reported"),
    ]);
    output.rows(&shown, epochs.into_iter().map(losses_row).collect())
}

fn losses_row(epoch: v1::EpochLosses) -> Row {
    let text: Vec<String> =
        epoch.lost.iter().map(|loss| format!("{}/{} {}", loss.stage, loss.reason, loss.events)).collect();
    let total = epoch.lost.iter().map(|loss| loss.events).fold(0, u64::saturating_add);
    let lost = epoch.lost.into_iter().map(|loss| {
        json!({
            "stage": loss.stage, "reason": loss.reason, "events": loss.events, "announced": loss.announced,
        })
    });
    object([
        ("host_id", epoch.host_id.into()),
        ("epoch", epoch.epoch.into()),
        ("started", epoch_text(epoch.epoch)),
        ("generated", epoch.generated.into()),
        ("stored", epoch.stored.into()),
        ("lost", lost.collect::<Vec<Value>>().into()),
        ("lost_total", total.into()),
        ("lost_text", text.join(", ").into()),
        ("waiting", epoch.waiting.into()),
        ("in_flight", epoch.in_flight.into()),
        ("unaccounted", epoch.unaccounted.into()),
        ("reported", time_text(epoch.reported_unix_s)),
    ])
}

pub(super) async fn chain(client: &mut Client, host: Option<&str>, output: &mut Output<'_>) -> Result<(), CtlError> {
    let request = v1::ListChainsRequest { host_id: host.unwrap_or_default().to_owned() };
    let epochs = client.list_chains(request).await?.into_inner().epochs;
    let shown = columns([
        ("host", "host_id"),
        ("started", "started"),
        ("batches", "batches"),
        ("stored", "stored"),
        ("verified", "verified"),
        ("declared lost", "declared_lost"),
        ("waiting", "waiting"),
        ("missing", "missing_text"),
        ("altered", "altered_text"),
        ("verdict", "verdict"),
        ("stated", "stated"),
    ]);
    let is_broken = epochs.iter().any(|epoch| verdict(epoch) == BROKEN);
    output.rows(&shown, epochs.into_iter().map(chain_row).collect())?;
    output.flush()?;
    if is_broken { Err(CtlError::Findings("batches are missing or were altered")) } else { Ok(()) }
}

const BROKEN: &str = "broken";

/// `broken`: something is missing or was changed; `unknown`: the agent never stated anything; else `intact`.
fn verdict(epoch: &v1::EpochChain) -> &'static str {
    if !epoch.missing.is_empty() || !epoch.altered.is_empty() || epoch.begins_anew {
        BROKEN
    } else if epoch.stated_unix_s == 0 {
        "unknown"
    } else {
        "intact"
    }
}

fn chain_row(epoch: v1::EpochChain) -> Row {
    let missing = epoch.missing.iter();
    let verdict = verdict(&epoch);
    let text: Vec<String> = missing.clone().map(missing_text).collect();
    let altered: Vec<String> = epoch.altered.iter().map(u64::to_string).collect();
    let missing = missing.map(|range| json!({"first": range.first, "last": range.last, "batches": range.batches}));
    object([
        ("missing", missing.collect::<Vec<Value>>().into()),
        ("missing_text", text.join(", ").into()),
        ("altered_text", altered.join(", ").into()),
        ("verdict", verdict.into()),
        ("host_id", epoch.host_id.into()),
        ("epoch", epoch.epoch.into()),
        ("started", epoch_text(epoch.epoch)),
        ("batches", epoch.batches.into()),
        ("stored", epoch.stored.into()),
        ("verified", epoch.verified.into()),
        ("declared_lost", epoch.declared_lost.into()),
        ("waiting", epoch.waiting.into()),
        ("altered", epoch.altered.into()),
        ("begins_anew", epoch.begins_anew.into()),
        ("stated", time_text(epoch.stated_unix_s)),
    ])
}

/// `7`, `3-5`, or `2 of 3-9` when it is not known which.
fn missing_text(range: &v1::MissingBatches) -> String {
    let span =
        if range.first == range.last { range.first.to_string() } else { format!("{}-{}", range.first, range.last) };
    if range.batches > range.last - range.first { span } else { format!("{} of {span}", range.batches) }
}

/// An epoch is when the agent started.
fn epoch_text(epoch: u64) -> Value {
    const NANOSECONDS: u64 = 1_000_000_000;
    time_text(i64::try_from(epoch / NANOSECONDS).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_batches_are_said_in_few_words() {
        let text = |first, last, batches| missing_text(&v1::MissingBatches { first, last, batches });
        assert_eq!(text(7, 7, 1), "7");
        assert_eq!(text(3, 5, 3), "3-5");
        assert_eq!(text(3, 9, 2), "2 of 3-9");
    }
}
