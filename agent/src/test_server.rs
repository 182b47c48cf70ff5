//! A small server for the tests of identity and uplink: the real protocol over real TLS, answers as the test wants.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use picket_common::batch;
use picket_common::event::EventBody;
use picket_proto::v1;
use picket_proto::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use picket_proto::v1::fleet_service_server::{FleetService, FleetServiceServer};
use picket_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use picket_proto::v1::model_service_server::{ModelService, ModelServiceServer};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use crate::test_server::authority::TestAuthority;

mod authority;
mod listener;

/// How long a fact may take to show.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the server does with batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ingest {
    #[default]
    Accept,
    /// Stores, but does not answer.
    Silent,
    Reject,
    /// Stores, answers some, and ends the stream after this many.
    EndAfter(usize),
}

/// What the test sets, and what it looks at.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) ingest: Ingest,
    pub(crate) credential: String,
    pub(crate) host_id: String,
    pub(crate) certificate_life_s: i64,
    pub(crate) model_keys: Vec<Vec<u8>>,
    pub(crate) models: BTreeMap<String, Vec<u8>>,
    /// A fetch ends with UNAVAILABLE after this many bytes, once.
    pub(crate) cut_fetch_after: Option<usize>,

    pub(crate) sessions: usize,
    pub(crate) batches: HashSet<(u64, u64)>,
    pub(crate) duplicates: u64,
    pub(crate) rows: u64,
    pub(crate) losses: u64,
    /// Received in the running session and not answered.
    pub(crate) unanswered: usize,
    pub(crate) reports: Vec<v1::CheckInRequest>,
    pub(crate) fetch_offsets: Vec<u64>,
    pub(crate) renewals: usize,
}

#[derive(Clone)]
pub(crate) struct TestServer {
    pub(crate) authority: Arc<TestAuthority>,
    pub(crate) script: Arc<Mutex<Script>>,
    pub(crate) desired: Arc<watch::Sender<Option<v1::DesiredState>>>,
    trust: Arc<watch::Sender<Option<v1::Trust>>>,
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
}

impl TestServer {
    /// Starts on a free port, with a new authority.
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), Arc::new(TestAuthority::new()), Arc::default()).await
    }

    /// Starts with an authority and a script that exist already.
    pub(crate) async fn start_at(
        address: SocketAddr,
        authority: Arc<TestAuthority>,
        script: Arc<Mutex<Script>>,
    ) -> Self {
        let stop = CancellationToken::new();
        let (address, incoming) = listener::listen(address, authority.server_config(), stop.clone()).await;
        let desired = Arc::new(watch::channel(None).0);
        let server =
            Self { authority, script, desired, trust: Arc::new(watch::channel(None).0), address, stop: stop.clone() };
        let routes = Server::builder()
            .add_service(EnrollmentServiceServer::new(server.clone()))
            .add_service(IngestServiceServer::new(server.clone()))
            .add_service(FleetServiceServer::new(server.clone()))
            .add_service(ModelServiceServer::new(server.clone()));
        tokio::spawn(async move {
            tokio::select! {
                result = routes.serve_with_incoming(incoming) => result.unwrap(),
                () = stop.cancelled() => {}
            }
        });
        server
    }

    /// Says whom to trust, now and to whoever checks in later.
    pub(crate) fn say_trust(&self, trust: v1::Trust) {
        self.trust.send_replace(Some(trust));
    }

    /// Cuts everything and lets go of the port.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// A join token this server takes.
    pub(crate) fn join_token(&self) -> String {
        self.script.lock().credential = "id.secret".to_owned();
        format!("id.secret.{}", self.authority.digest())
    }

    /// Waits until the script is as wanted.
    pub(crate) async fn wait_for(&self, what: &str, wanted: impl Fn(&Script) -> bool) {
        wait_for(what, || wanted(&self.script.lock())).await;
    }

    fn issue(&self, request: &[u8]) -> v1::Identity {
        let script = self.script.lock();
        v1::Identity {
            host_id: script.host_id.clone(),
            certificate_der: self.authority.issue_host(request, &script.host_id, script.certificate_life_s),
            trust_bundle_der: vec![self.authority.certificate()],
            model_verifying_keys: script.model_keys.clone(),
        }
    }

    /// Takes one batch; `None`: no answer.
    fn take(&self, request: &v1::DeliverRequest) -> Option<v1::DeliverResponse> {
        let mut script = self.script.lock();
        let mut answer = v1::DeliverResponse { delivery_id: request.delivery_id, ..Default::default() };
        if script.ingest == Ingest::Reject {
            answer.set_verdict(v1::BatchVerdict::Rejected);
            answer.set_reject_reason(v1::RejectReason::Malformed);
            answer.reason = "the test says \u{1b}[31mso".to_owned();
            return Some(answer);
        }
        let (header, events) = batch::decode(&request.batch).unwrap();
        if script.batches.insert((header.epoch.0, header.batch_sequence.0)) {
            for event in events {
                match event.body {
                    EventBody::AgentStart(_) => {}
                    EventBody::SensorLoss(loss) => script.losses += loss.count,
                    _ => script.rows += 1,
                }
            }
            answer.set_verdict(v1::BatchVerdict::Accepted);
        } else {
            script.duplicates += 1;
            answer.set_verdict(v1::BatchVerdict::Duplicate);
        }
        if script.ingest == Ingest::Silent {
            script.unanswered += 1;
            return None;
        }
        Some(answer)
    }
}

/// Waits until `wanted`, or fails the test.
pub(crate) async fn wait_for(what: &str, wanted: impl Fn() -> bool) {
    let begun = Instant::now();
    while !wanted() {
        assert!(begun.elapsed() < DEADLINE, "no {what} in {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl EnrollmentService for TestServer {
    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::EnrollResponse>, Status> {
        let request = request.into_inner();
        assert!(request.inventory.is_some_and(|inventory| inventory.logical_cpus > 0));
        if request.join_token != self.script.lock().credential {
            return Err(Status::unauthenticated("the join token is not valid"));
        }
        let identity = self.issue(&request.certificate_signing_request_der);
        Ok(Response::new(v1::EnrollResponse { identity: Some(identity) }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        {
            let mut script = self.script.lock();
            script.renewals += 1;
            // The renewed one is good for long.
            script.certificate_life_s = 86_400;
        }
        let identity = self.issue(&request.into_inner().certificate_signing_request_der);
        Ok(Response::new(v1::RenewResponse { identity: Some(identity) }))
    }
}

#[tonic::async_trait]
impl IngestService for TestServer {
    type DeliverStream = Answers<v1::DeliverResponse>;

    async fn deliver(
        &self,
        request: Request<Streaming<v1::DeliverRequest>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let mut requests = request.into_inner();
        let (answers, outgoing) = mpsc::channel(1024);
        let server = self.clone();
        {
            let mut script = server.script.lock();
            script.sessions += 1;
            script.unanswered = 0;
        }
        tokio::spawn(async move {
            let mut taken = 0;
            while let Ok(Some(request)) = requests.message().await {
                if let Some(answer) = server.take(&request) {
                    drop(answers.send(Ok(answer)).await);
                }
                taken += 1;
                let ingest = server.script.lock().ingest;
                if matches!(ingest, Ingest::EndAfter(count) if taken >= count) {
                    drop(answers.send(Err(Status::unavailable("stopping"))).await);
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

#[tonic::async_trait]
impl FleetService for TestServer {
    type CheckInStream = Answers<v1::CheckInResponse>;

    async fn check_in(
        &self,
        request: Request<Streaming<v1::CheckInRequest>>,
    ) -> Result<Response<Self::CheckInStream>, Status> {
        let mut requests = request.into_inner();
        let script = Arc::clone(&self.script);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                script.lock().reports.push(request);
            }
        });
        let states = WatchStream::new(self.desired.subscribe())
            .map(|state| Ok(v1::CheckInResponse { desired_state: state, trust: None }));
        let trust = WatchStream::new(self.trust.subscribe())
            .map(|trust| Ok(v1::CheckInResponse { desired_state: None, trust }));
        let states = futures::stream::select(states, trust);
        Ok(Response::new(Box::pin(states)))
    }
}

#[tonic::async_trait]
impl ModelService for TestServer {
    type FetchStream = Answers<v1::FetchModelResponse>;

    async fn fetch(&self, request: Request<v1::FetchModelRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        let mut script = self.script.lock();
        script.fetch_offsets.push(request.offset);
        let cut = script.cut_fetch_after.take();
        let bytes = script.models.get(&request.model_digest).ok_or_else(|| Status::not_found("no such model"))?;
        let rest = &bytes[usize::try_from(request.offset).unwrap()..];
        let sent = &rest[..cut.unwrap_or(rest.len()).min(rest.len())];
        let mut answers: Vec<Result<v1::FetchModelResponse, Status>> =
            sent.chunks(1_000).map(|chunk| Ok(v1::FetchModelResponse { chunk: chunk.to_vec().into() })).collect();
        if cut.is_some() {
            answers.push(Err(Status::unavailable("stopping")));
        }
        Ok(Response::new(Box::pin(futures::stream::iter(answers))))
    }
}
