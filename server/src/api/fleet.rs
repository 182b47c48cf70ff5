//! `FleetService`.

use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use picket_proto::v1;
use picket_proto::v1::fleet_service_server::{FleetService, FleetServiceServer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::api::peer::admit;
use crate::api::{ResponseStream, status};
use crate::clock::UnixSeconds;
use crate::fleet::{CheckIn, DesiredState, Fleet};

/// Largest message, both ways.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

pub(super) fn server(fleet: Arc<Fleet>) -> FleetServiceServer<FleetApi> {
    FleetServiceServer::new(FleetApi { fleet })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

pub(super) struct FleetApi {
    fleet: Arc<Fleet>,
}

#[tonic::async_trait]
impl FleetService for FleetApi {
    type CheckInStream = ResponseStream<v1::CheckInResponse>;

    async fn check_in(
        &self,
        request: Request<Streaming<v1::CheckInRequest>>,
    ) -> Result<Response<Self::CheckInStream>, Status> {
        let (connection, host) = admit(&self.fleet, &request).await?;
        let check_in = self.fleet.check_in(host, connection.cut);
        let conversation = Conversation::new(request.into_inner(), check_in, connection.draining);
        Ok(Response::new(Box::pin(conversation.answers())))
    }
}

/// One agent's check-in: takes reports, and answers with the desired state at once and whenever it changes.
struct Conversation<R> {
    reports: R,
    check_in: CheckIn,
    /// `None` once it cannot change any more.
    desired: Option<watch::Receiver<DesiredState>>,
    draining: CancellationToken,
}

impl<R> Conversation<R>
where
    R: Stream<Item = Result<v1::CheckInRequest, Status>> + Send + Unpin + 'static,
{
    fn new(reports: R, check_in: CheckIn, draining: CancellationToken) -> Self {
        let mut desired = check_in.desired();
        desired.mark_changed();
        Self { reports, check_in, desired: Some(desired), draining }
    }

    /// Answers until the agent has no more to report.
    fn answers(self) -> impl Stream<Item = Result<v1::CheckInResponse, Status>> + Send {
        stream::unfold(Some(self), async |conversation| {
            let mut conversation = conversation?;
            match conversation.next().await {
                Ok(Some(state)) => {
                    let answer = v1::CheckInResponse { desired_state: Some(state.into()) };
                    Some((Ok(answer), Some(conversation)))
                }
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<DesiredState>, Status> {
        loop {
            tokio::select! {
                () = self.draining.cancelled() => return Err(status::draining()),
                report = self.reports.next() => match report {
                    Some(report) => take(&mut self.check_in, report?).await?,
                    None => return Ok(None),
                },
                state = changed(&mut self.desired) => return Ok(Some(state)),
            }
        }
    }
}

/// The next desired state; never ends once there is no next one.
async fn changed(desired: &mut Option<watch::Receiver<DesiredState>>) -> DesiredState {
    if let Some(receiver) = desired {
        if receiver.changed().await.is_ok() {
            return receiver.borrow_and_update().clone();
        }
        *desired = None;
    }
    std::future::pending().await
}

async fn take(check_in: &mut CheckIn, report: v1::CheckInRequest) -> Result<(), Status> {
    let status = report.status.map(Into::into);
    let inventory = report.inventory.map(Into::into);
    Ok(check_in.report(status, inventory, report.connection, UnixSeconds::now()).await?)
}
