//! Events as they become durable.

use std::sync::Arc;

use picket_common::event::json::to_json;
use picket_common::id::HostId;
use picket_proto::v1;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use crate::api::admin::stream::Answers;
use crate::ingest::AcceptedBatch;

/// Sends events from now on, of one host or all, and how many were missed by being too slow (of all hosts, since
/// nobody looked into them).
pub(super) async fn send(
    mut batches: broadcast::Receiver<Arc<AcceptedBatch>>,
    host: Option<HostId>,
    answers: Answers<v1::TailEventsResponse>,
) -> Result<(), Status> {
    let mut expected: Option<u64> = None;
    loop {
        let batch = match batches.recv().await {
            Ok(batch) => batch,
            // How many events that were is told by the next batch.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return Ok(()),
        };
        let mut missed = batch.events_before.saturating_sub(expected.unwrap_or(batch.events_before));
        expected = Some(batch.events_before + batch.events.len() as u64);
        if host.is_some_and(|host| host != batch.host) {
            if missed > 0 && send_one(&answers, String::new(), missed).await.is_err() {
                return Ok(());
            }
            continue;
        }
        for event in &batch.events {
            let mut json = to_json(event);
            if let Some(object) = json.as_object_mut() {
                object.insert("host_id".to_owned(), batch.host.to_string().into());
            }
            if send_one(&answers, json.to_string(), std::mem::take(&mut missed)).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn send_one(answers: &Answers<v1::TailEventsResponse>, event_json: String, missed: u64) -> Result<(), ()> {
    answers.send(Ok(v1::TailEventsResponse { event_json, missed })).await.map_err(drop)
}
