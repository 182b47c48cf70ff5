//! `IngestService`.

use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use picket_common::batch;
use picket_proto::v1;
use picket_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::api::convert::deliver_response;
use crate::api::peer::admit;
use crate::api::{ResponseStream, chain, status};
use crate::chain::{ChainFollower, Chains};
use crate::clock::UnixSeconds;
use crate::fleet::Fleet;
use crate::ingest::{HostStream, IN_FLIGHT_MAX, Ingest, Verdict};
use crate::pki::PeerIdentity;

/// Largest message of an agent.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Largest acknowledgement.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

pub(super) fn server(ingest: Arc<Ingest>, chains: Arc<Chains>, fleet: Arc<Fleet>) -> IngestServiceServer<IngestApi> {
    IngestServiceServer::new(IngestApi { ingest, chains, fleet })
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX)
}

pub(super) struct IngestApi {
    ingest: Arc<Ingest>,
    chains: Arc<Chains>,
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
        let host_stream = self.ingest.take_stream(host).await?;
        let chain = self.chains.follow(host).await?;
        let peer = connection.peer.ok_or_else(|| Status::internal("a host without a certificate was let in"))?;
        let delivery = Delivery { host_stream, chain, peer };
        let acknowledgements = acknowledge(request.into_inner(), delivery, connection.draining);
        Ok(Response::new(Box::pin(acknowledgements)))
    }
}

/// What one stream of batches works with.
struct Delivery {
    host_stream: HostStream,
    chain: ChainFollower,
    peer: PeerIdentity,
}

impl Delivery {
    async fn take(&self, request: v1::DeliverRequest) -> Result<v1::DeliverResponse, Status> {
        let v1::DeliverRequest { batch, delivery_id, chain_place, chain_statement } = request;
        if let Some(signed) = chain_statement {
            match chain::statement(&self.peer, &signed) {
                Ok(statement) => self.chain.stated(&statement, UnixSeconds::now()),
                Err(error) => self.chain.refused(&error),
            }
        }
        let verdict = self.host_stream.deliver(batch.clone()).await?;
        if matches!(verdict, Verdict::Accepted | Verdict::Duplicate)
            && let Ok(header) = batch::peek_header(&batch)
            && let Some(place) = chain::place(header.batch_sequence, chain_place)
        {
            self.chain.stored(header.epoch, &place, &batch);
        }
        Ok(deliver_response(delivery_id, verdict))
    }
}

/// Runs inside the response: an agent that does not read its acknowledgements is not read from either, and all work
/// for a stream ends with it.
fn acknowledge(
    deliveries: impl Stream<Item = Result<v1::DeliverRequest, Status>> + Send + 'static,
    delivery: Delivery,
    draining: CancellationToken,
) -> impl Stream<Item = Result<v1::DeliverResponse, Status>> + Send {
    let delivery = Arc::new(delivery);
    let pacing = Arc::clone(&delivery);
    let paced = deliveries.take_until(draining.clone().cancelled_owned()).then(move |request| {
        let pacing = Arc::clone(&pacing);
        async move {
            let request = request?;
            pacing.host_stream.pace(request.batch.len()).await?;
            Ok::<_, Status>(request)
        }
    });
    let acknowledged = paced.map(move |request| {
        let delivery = Arc::clone(&delivery);
        async move { delivery.take(request?).await }
    });
    // What is in flight when the server stops is still acknowledged.
    let end = stream::once(async move { draining.is_cancelled().then(status::draining) })
        .filter_map(async |status| status.map(Err));
    acknowledged.buffer_unordered(IN_FLIGHT_MAX).chain(end)
}
