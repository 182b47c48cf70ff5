//! `FleetService`.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use futures::{Stream, StreamExt as _, stream};
use picket_proto::v1;
use picket_proto::v1::fleet_service_server::{FleetService, FleetServiceServer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::api::peer::admit;
use crate::api::{ResponseStream, status};
use crate::clock::UnixSeconds;
use crate::fleet::{AgentStatus, CheckIn, DesiredState, Fleet};
use crate::pki::Pair;

/// Largest message, both ways.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most authorities an agent may name.
const TRUST_ANCHORS_MAX: usize = 16;

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
        let issuer = connection.peer.map(|peer| peer.issuer).unwrap_or_default();
        let conversation = Conversation::new(request.into_inner(), check_in, issuer, connection.draining);
        Ok(Response::new(Box::pin(conversation.answers())))
    }
}

/// One agent's check-in: takes reports, and answers with the desired state at once and whenever it changes.
struct Conversation<R> {
    reports: R,
    check_in: CheckIn,
    /// Who issued the certificate the agent shows.
    issuer: Vec<u8>,
    /// `None` once it cannot change any more.
    desired: Option<watch::Receiver<DesiredState>>,
    /// The same.
    authorities: Option<watch::Receiver<Pair>>,
    draining: CancellationToken,
}

impl<R> Conversation<R>
where
    R: Stream<Item = Result<v1::CheckInRequest, Status>> + Send + Unpin + 'static,
{
    fn new(reports: R, check_in: CheckIn, issuer: Vec<u8>, draining: CancellationToken) -> Self {
        let mut desired = check_in.desired();
        desired.mark_changed();
        let mut authorities = check_in.authorities();
        authorities.mark_changed();
        Self { reports, check_in, issuer, desired: Some(desired), authorities: Some(authorities), draining }
    }

    /// Answers until the agent has no more to report.
    fn answers(self) -> impl Stream<Item = Result<v1::CheckInResponse, Status>> + Send {
        stream::unfold(Some(self), async |conversation| {
            let mut conversation = conversation?;
            match conversation.next().await {
                Ok(Some(answer)) => Some((Ok(answer), Some(conversation))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<v1::CheckInResponse>, Status> {
        loop {
            tokio::select! {
                () = self.draining.cancelled() => return Err(status::draining()),
                report = self.reports.next() => match report {
                    Some(report) => self.take(report?).await?,
                    None => return Ok(None),
                },
                state = changed(&mut self.desired) => {
                    return Ok(Some(v1::CheckInResponse { desired_state: Some(state.into()), trust: None }));
                }
                pair = changed(&mut self.authorities) => {
                    return Ok(Some(v1::CheckInResponse { desired_state: None, trust: Some(self.trust(&pair)) }));
                }
            }
        }
    }

    fn trust(&self, pair: &Pair) -> v1::Trust {
        v1::Trust {
            trust_bundle_der: pair.trust_bundle().iter().map(|anchor| anchor.to_vec()).collect(),
            renew: pair.issuer_of(&self.issuer) != Some(pair.issuing().digest()),
        }
    }

    async fn take(&mut self, report: v1::CheckInRequest) -> Result<(), Status> {
        let anchors = report.trust_anchors_sha256.iter().take(TRUST_ANCHORS_MAX);
        let trust_anchors = anchors.map(|digest| HEXLOWER.encode(digest)).collect();
        let authority = self.authorities.as_ref().and_then(|pair| pair.borrow().issuer_of(&self.issuer));
        let status = report.status.map(|status| AgentStatus {
            trust_anchors,
            certificate_authority: authority.map(|digest| digest.to_string()).unwrap_or_default(),
            ..status.into()
        });
        let inventory = report.inventory.map(Into::into);
        Ok(self.check_in.report(status, inventory, report.connection, UnixSeconds::now()).await?)
    }
}

/// The next value; never ends once there is no next one.
async fn changed<T: Clone>(values: &mut Option<watch::Receiver<T>>) -> T {
    if let Some(receiver) = values {
        if receiver.changed().await.is_ok() {
            return receiver.borrow_and_update().clone();
        }
        *values = None;
    }
    std::future::pending().await
}
