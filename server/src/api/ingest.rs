//! `IngestService`.

use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use picket_proto::v1;
use picket_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::api::convert::deliver_response;
use crate::api::peer::admit;
use crate::api::{ResponseStream, status};
use crate::fleet::Fleet;
use crate::ingest::{HostStream, IN_FLIGHT_MAX, Ingest};

/// Largest message of an agent.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Largest acknowledgement.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

pub(super) fn server(ingest: Arc<Ingest>, fleet: Arc<Fleet>) -> IngestServiceServer<IngestApi> {
    IngestServiceServer::new(IngestApi { ingest, fleet })
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX)
}

pub(super) struct IngestApi {
    ingest: Arc<Ingest>,
    fleet: Arc<Fleet>,
}

#[tonic::async_trait]
impl IngestService for IngestApi {
    type DeliverStream = ResponseStream<v1::DeliverResponse>;

    async fn deliver(
        &self,
        request: Request<Streaming<v1::DeliverRequest>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let (connection, host) = admit(&self.fleet, &request).await?;
        let host_stream = self.ingest.open_stream(host)?;
        let acknowledgements = acknowledge(request.into_inner(), host_stream, connection.draining);
        Ok(Response::new(Box::pin(acknowledgements)))
    }
}

/// Runs inside the response: an agent that does not read its acknowledgements is not read from either, and all work
/// for a stream ends with it.
fn acknowledge(
    deliveries: impl Stream<Item = Result<v1::DeliverRequest, Status>> + Send + 'static,
    host_stream: HostStream,
    draining: CancellationToken,
) -> impl Stream<Item = Result<v1::DeliverResponse, Status>> + Send {
    let host_stream = Arc::new(host_stream);
    let pacing = Arc::clone(&host_stream);
    let paced = deliveries.take_until(draining.clone().cancelled_owned()).then(move |delivery| {
        let pacing = Arc::clone(&pacing);
        async move {
            let delivery = delivery?;
            pacing.pace(delivery.batch.len()).await?;
            Ok::<_, Status>(delivery)
        }
    });
    let acknowledged = paced.map(move |delivery| {
        let host_stream = Arc::clone(&host_stream);
        async move {
            let v1::DeliverRequest { batch, delivery_id } = delivery?;
            let verdict = host_stream.deliver(batch).await?;
            Ok(deliver_response(delivery_id, verdict))
        }
    });
    // What is in flight when the server stops is still acknowledged.
    let end = stream::once(async move { draining.is_cancelled().then(status::draining) })
        .filter_map(async |status| status.map(Err));
    acknowledged.buffer_unordered(IN_FLIGHT_MAX).chain(end)
}
