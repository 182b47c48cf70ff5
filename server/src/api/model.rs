//! `ModelService`.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, stream};
use picket_common::id::Digest;
use picket_proto::v1;
use picket_proto::v1::model_service_server::{ModelService, ModelServiceServer};
use tonic::{Request, Response, Status};

use crate::api::ResponseStream;
use crate::api::peer::admit;
use crate::fleet::{Fleet, ModelSource};

/// Largest chunk of a model file.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Largest request, and what a response adds to its chunk.
const REQUEST_BYTES_MAX: usize = 1024;

pub(super) fn server<M: ModelSource>(models: Arc<M>, fleet: Arc<Fleet>) -> ModelServiceServer<ModelApi<M>> {
    ModelServiceServer::new(ModelApi { models, fleet })
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(CHUNK_BYTES_MAX + REQUEST_BYTES_MAX)
}

pub(super) struct ModelApi<M> {
    models: Arc<M>,
    fleet: Arc<Fleet>,
}

#[tonic::async_trait]
impl<M: ModelSource> ModelService for ModelApi<M> {
    type FetchStream = ResponseStream<v1::FetchModelResponse>;

    async fn fetch(&self, request: Request<v1::FetchModelRequest>) -> Result<Response<Self::FetchStream>, Status> {
        admit(&self.fleet, &request).await?;
        let v1::FetchModelRequest { model_digest, offset } = request.into_inner();
        let digest: Digest = model_digest.parse().map_err(|error: picket_common::id::ParseIdError| {
            Status::invalid_argument(format!("model_digest: {error}"))
        })?;
        let file =
            self.models.model_file(digest).await?.ok_or_else(|| Status::not_found(format!("no model {digest}")))?;
        let offset = usize::try_from(offset).ok().filter(|offset| *offset <= file.len()).ok_or_else(|| {
            Status::out_of_range(format!("offset {offset} is past the end of a file of {} bytes", file.len()))
        })?;
        Ok(Response::new(Box::pin(chunks(file.slice(offset..)))))
    }
}

fn chunks(file: Bytes) -> impl Stream<Item = Result<v1::FetchModelResponse, Status>> + Send {
    stream::unfold(file, async |mut rest| {
        if rest.is_empty() {
            return None;
        }
        let chunk = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
        Some((Ok(v1::FetchModelResponse { chunk }), rest))
    })
}
