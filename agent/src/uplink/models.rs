//! Fetching the models of the desired state.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use picket_common::id::Digest;
use picket_proto::v1;
use picket_proto::v1::model_service_client::ModelServiceClient;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::model_store::{DesiredModel, DesiredState, ModelStore, ModelStoreError};
use crate::uplink::backoff::Backoff;
use crate::uplink::{UplinkError, blocking, within};

/// Largest message in: a chunk of 64 KiB and a few bytes.
const MESSAGE_BYTES_MAX: usize = 66 * 1024;
/// How long the next chunk may take.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after a model could not be fetched or installed; grows to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);

const CALL: &str = "fetch a model";

/// A download that was interrupted, kept across connections. At most one, of at most the size a model may have.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    partial: Option<(Digest, Vec<u8>)>,
}

/// Why a model is not there yet.
enum FetchError {
    /// The connection; the next one goes on where this one ended.
    Connection(UplinkError),
    /// The model; try again later.
    Model(String),
}

/// Fetches and installs what `desired` names, whenever it changes. Returns when the connection fails.
pub(crate) async fn keep_up(
    store: Option<&Arc<Mutex<ModelStore>>>,
    fetches: &mut Fetches,
    channel: Channel,
    mut desired: watch::Receiver<Option<DesiredState>>,
) -> UplinkError {
    let Some(store) = store else { return std::future::pending().await };
    let mut client = ModelServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    loop {
        let mut backoff = Backoff::with_first(RETRY, RETRY_MAX);
        let state = desired.borrow_and_update().clone();
        // Again and again until it is done, or something else is wanted.
        while let Some(state) = &state {
            match reach(store, fetches, &mut client, state).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => return error,
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_pause(rand::random())) => {}
                changed = desired.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    desired.mark_changed();
                    break;
                }
            }
        }
        if desired.changed().await.is_err() {
            // The check-in has ended, and says why.
            return std::future::pending().await;
        }
    }
}

/// Tries to put every model of `state` in force. `Ok(false)`: not all of them are, try again later.
async fn reach(
    store: &Arc<Mutex<ModelStore>>,
    fetches: &mut Fetches,
    client: &mut ModelServiceClient<Channel>,
    state: &DesiredState,
) -> Result<bool, UplinkError> {
    let (owned, wanted) = (Arc::clone(store), state.clone());
    let missing = match blocking(move || owned.lock().accept(&wanted)).await? {
        Ok(missing) => missing,
        Err(error @ ModelStoreError::GenerationRollback { .. }) => {
            tracing::error!(%error, "the server wants something older than it did before");
            return Ok(true);
        }
        Err(error) => {
            tracing::warn!(%error, "the desired state could not be kept");
            return Ok(false);
        }
    };
    let mut is_done = true;
    for model in missing {
        let result = match fetch(client, fetches, &model).await {
            Ok(bytes) => {
                let (owned, model) = (Arc::clone(store), model.clone());
                blocking(move || owned.lock().install(&model, &bytes)).await?.map_err(|error| error.to_string())
            }
            Err(FetchError::Connection(error)) => return Err(error),
            Err(FetchError::Model(reason)) => {
                store.lock().active().set_error(model.subject, reason.clone());
                Err(reason)
            }
        };
        match result {
            Ok(()) => tracing::info!(subject = %model.subject, digest = %model.digest, "a new model is in force"),
            Err(error) => {
                tracing::warn!(subject = %model.subject, digest = %model.digest, error, "a model is not in force");
                is_done = false;
            }
        }
    }
    Ok(is_done)
}

/// The bytes of a model, resumed where an earlier attempt ended. Their number is the announced one; whether they are
/// the model is for the store to say.
async fn fetch(
    client: &mut ModelServiceClient<Channel>,
    fetches: &mut Fetches,
    model: &DesiredModel,
) -> Result<Vec<u8>, FetchError> {
    let length = usize::try_from(model.bytes)
        .ok()
        .filter(|bytes| *bytes <= picket_common::model::limits::MODEL_BYTES_MAX)
        .ok_or_else(|| FetchError::Model(ModelStoreError::TooLarge { bytes: model.bytes }.to_string()))?;
    let kept = fetches.partial.take().filter(|(digest, bytes)| *digest == model.digest && bytes.len() <= length);
    let mut bytes = kept.map_or_else(Vec::new, |(_, bytes)| bytes);
    if bytes.len() == length && length > 0 {
        return Ok(bytes);
    }
    let result = fetch_rest(client, model.digest, length, &mut bytes).await;
    if matches!(result, Err(FetchError::Connection(_))) {
        fetches.partial = Some((model.digest, bytes));
        return result.map(|()| Vec::new());
    }
    result.map(|()| bytes)
}

async fn fetch_rest(
    client: &mut ModelServiceClient<Channel>,
    digest: Digest,
    length: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), FetchError> {
    let request = v1::FetchModelRequest { model_digest: digest.to_string(), offset: bytes.len() as u64 };
    let mut chunks = within(CHUNK_TIMEOUT, "answer to a fetch", client.fetch(request))
        .await
        .map_err(FetchError::Connection)?
        .map_err(|status| failed(&status))?
        .into_inner();
    while let Some(message) = within(CHUNK_TIMEOUT, "part of a model", chunks.message())
        .await
        .map_err(FetchError::Connection)?
        .map_err(|status| failed(&status))?
    {
        if bytes.len() + message.chunk.len() > length {
            return Err(FetchError::Model(format!("the server sent more than the {length} bytes it announced")));
        }
        bytes.extend_from_slice(&message.chunk);
    }
    if bytes.len() < length {
        return Err(FetchError::Model(format!("the server sent {} of the {length} bytes it announced", bytes.len())));
    }
    Ok(())
}

/// The server has no such model, or it does not like the request: try again later. Anything else ends the connection.
fn failed(status: &tonic::Status) -> FetchError {
    match status.code() {
        tonic::Code::NotFound | tonic::Code::InvalidArgument | tonic::Code::OutOfRange => {
            FetchError::Model(format!("the server has no such model: {}", status.message()))
        }
        _ => FetchError::Connection(UplinkError::status(CALL, status)),
    }
}
