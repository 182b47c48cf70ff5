//! An agent as the server sees it: tonic's clients over rustls.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use picket_common::id::HostId;
use picket_proto::v1;
use picket_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use picket_proto::v1::fleet_service_client::FleetServiceClient;
use picket_proto::v1::ingest_service_client::IngestServiceClient;
use picket_proto::v1::model_service_client::ModelServiceClient;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tower::Service as _;

use crate::pki::SERVER_NAME;

/// What a host shows.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    host: HostId,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Credentials {
    pub(crate) fn new_key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
    }

    pub(crate) fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
    }

    pub(crate) fn new(identity: &v1::Identity, key: &KeyPair) -> Self {
        Self {
            host: identity.host_id.parse().unwrap(),
            certificate: identity.certificate_der.clone().into(),
            key: key.serialize_der(),
        }
    }

    pub(crate) fn host(&self) -> HostId {
        self.host
    }
}

/// A server to connect to: where it is and who vouches for it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) authority: CertificateDer<'static>,
}

/// A connection, with or without a certificate.
#[derive(Debug)]
pub(crate) struct Agent {
    channel: Channel,
    credentials: Option<Credentials>,
}

impl Agent {
    pub(crate) async fn anonymous(target: &Target) -> Result<Self, Status> {
        Self::dial(target, None).await
    }

    pub(crate) async fn connect(target: &Target, credentials: Credentials) -> Result<Self, Status> {
        Self::dial(target, Some(credentials)).await
    }

    /// Enrols a new host with this token (`<id>.<secret>`) and connects it.
    pub(crate) async fn enrolled(target: &Target, token: &str) -> Result<Self, Status> {
        let key = Credentials::new_key();
        let identity = Self::anonymous(target).await?.enroll(token, &Credentials::request(&key)).await?;
        Self::connect(target, Credentials::new(&identity, &key)).await
    }

    /// Another connection of the same host.
    pub(crate) async fn reconnect(&self, target: &Target) -> Result<Self, Status> {
        Self::dial(target, self.credentials.clone()).await
    }

    /// This host's certificate shown to another server, whose own certificate the agent would accept.
    pub(crate) async fn connect_to(&self, target: &Target) -> Result<Self, Status> {
        Self::dial(target, self.credentials.clone()).await
    }

    async fn dial(target: &Target, credentials: Option<Credentials>) -> Result<Self, Status> {
        let tls = client_tls(target, credentials.as_ref());
        let address = target.address;
        let connector = tower::service_fn(move |_| dial(address, tls.clone()));
        let channel = Endpoint::from_static("http://picket-server")
            .connect_with_connector(connector)
            .await
            .map_err(|error| Status::unavailable(causes(&error)))?;
        Ok(Self { channel, credentials })
    }

    /// No more than a TLS connection.
    pub(crate) async fn tls_only(target: &Target) -> tokio_rustls::client::TlsStream<TcpStream> {
        dial(target.address, client_tls(target, None)).await.unwrap().into_inner()
    }

    pub(crate) fn host(&self) -> HostId {
        self.credentials.as_ref().unwrap().host
    }

    /// Gives up the connection and keeps the identity.
    pub(crate) fn into_credentials(self) -> Credentials {
        self.credentials.unwrap()
    }

    pub(crate) async fn enroll(&self, token: &str, request: &[u8]) -> Result<v1::Identity, Status> {
        let request = v1::EnrollRequest {
            join_token: token.to_owned(),
            certificate_signing_request_der: request.to_vec(),
            inventory: Some(super::v1_inventory("test-host")),
        };
        let response = EnrollmentServiceClient::new(self.channel.clone()).enroll(request).await?;
        Ok(response.into_inner().identity.unwrap())
    }

    /// Renews, and returns what to connect with from now on.
    pub(crate) async fn renew(&self) -> Result<Credentials, Status> {
        let key = Credentials::new_key();
        let request = v1::RenewRequest { certificate_signing_request_der: Credentials::request(&key) };
        let response = EnrollmentServiceClient::new(self.channel.clone()).renew(request).await?;
        Ok(Credentials::new(&response.into_inner().identity.unwrap(), &key))
    }

    pub(crate) async fn deliver(&self) -> Result<Delivery, Status> {
        let (sender, receiver) = mpsc::channel(8);
        let answers =
            IngestServiceClient::new(self.channel.clone()).deliver(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Delivery { sender, answers, next_id: 1_000_000 })
    }

    pub(crate) async fn check_in(&self) -> Result<CheckIn, Status> {
        let (sender, receiver) = mpsc::channel(8);
        let answers =
            FleetServiceClient::new(self.channel.clone()).check_in(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(CheckIn { sender, answers })
    }

    pub(crate) async fn fetch(&self, digest: &str, offset: u64) -> Result<Vec<Bytes>, Status> {
        let request = v1::FetchModelRequest { model_digest: digest.to_owned(), offset };
        let mut stream = ModelServiceClient::new(self.channel.clone()).fetch(request).await?.into_inner();
        let mut chunks = Vec::new();
        while let Some(message) = stream.message().await? {
            chunks.push(message.chunk);
        }
        Ok(chunks)
    }

    /// Sends bytes that no client of ours would, and returns the status of the answer.
    pub(crate) async fn post(&self, path: &str, body: &[u8]) -> Code {
        self.post_with_header(path, body, "x-nothing", "").await.unwrap()
    }

    /// The same with one more header. An error is one of the transport.
    pub(crate) async fn post_with_header(
        &self,
        path: &str,
        body: &[u8],
        name: &'static str,
        value: &str,
    ) -> Result<Code, tonic::transport::Error> {
        let request = http::Request::post(format!("http://picket-server{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header(name, value)
            .body(tonic::body::Body::new(Full::new(Bytes::copy_from_slice(body))))
            .unwrap();
        let mut channel = self.channel.clone();
        std::future::poll_fn(|context| channel.poll_ready(context)).await?;
        let response = channel.call(request).await?;
        let (parts, body) = response.into_parts();
        if let Some(status) = Status::from_header_map(&parts.headers) {
            return Ok(status.code());
        }
        // A stream that broke off without trailers was reset.
        let trailers = body.collect().await.ok().and_then(|body| body.trailers().cloned());
        let status = trailers.and_then(|trailers| Status::from_header_map(&trailers));
        Ok(status.map_or(Code::Internal, |status| status.code()))
    }
}

/// An open stream of batches.
#[derive(Debug)]
pub(crate) struct Delivery {
    sender: mpsc::Sender<v1::DeliverRequest>,
    answers: Streaming<v1::DeliverResponse>,
    next_id: u64,
}

/// The sending half of such a stream.
pub(crate) struct DeliverySender(mpsc::Sender<v1::DeliverRequest>);

impl DeliverySender {
    pub(crate) async fn push(&mut self, delivery_id: u64, batch: Bytes) {
        // The stream may have ended; the answers say why.
        self.0.send(v1::DeliverRequest { batch, delivery_id, ..v1::DeliverRequest::default() }).await.ok();
    }
}

impl Delivery {
    pub(crate) fn sender(&self) -> DeliverySender {
        DeliverySender(self.sender.clone())
    }

    pub(crate) async fn push(&mut self, delivery_id: u64, batch: Bytes) {
        self.sender().push(delivery_id, batch).await;
    }

    /// The next answer; a stream that ends without one ends with OK.
    pub(crate) async fn answer(&mut self) -> Result<v1::DeliverResponse, Status> {
        self.answers.message().await?.ok_or_else(|| Status::ok("the stream has ended"))
    }

    /// Sends one batch and waits for its answer.
    pub(crate) async fn send(&mut self, batch: Bytes) -> Result<v1::DeliverResponse, Status> {
        self.next_id += 1;
        self.push(self.next_id, batch).await;
        let answer = self.answer().await?;
        assert_eq!(answer.delivery_id, self.next_id);
        Ok(answer)
    }

    /// Ends the stream and waits until the server has ended it, too.
    pub(crate) async fn finish(self) -> Result<(), Status> {
        let Self { sender, mut answers, .. } = self;
        drop(sender);
        while answers.message().await?.is_some() {}
        Ok(())
    }
}

/// An open check-in.
#[derive(Debug)]
pub(crate) struct CheckIn {
    sender: mpsc::Sender<v1::CheckInRequest>,
    answers: Streaming<v1::CheckInResponse>,
}

impl CheckIn {
    pub(crate) async fn report(&self, report: v1::CheckInRequest) {
        self.sender.send(report).await.ok();
    }

    pub(crate) async fn desired(&mut self) -> Result<v1::DesiredState, Status> {
        loop {
            let answer = self.answers.message().await?.ok_or_else(|| Status::ok("the stream has ended"))?;
            // What is said of trust comes in between.
            if let Some(state) = answer.desired_state {
                return Ok(state);
            }
        }
    }

    /// Says that there are no more reports.
    pub(crate) async fn finish(self) -> Result<(), Status> {
        let Self { sender, mut answers } = self;
        drop(sender);
        while answers.message().await?.is_some() {}
        Ok(())
    }
}

/// Everything an error says about why.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn client_tls(target: &Target, credentials: Option<&Credentials>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(target.authority.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(Credentials { certificate, key, .. }) => {
            let key = PrivateKeyDer::try_from(key.clone()).unwrap();
            builder.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn dial(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    Ok(TokioIo::new(TlsConnector::from(tls).connect(name, socket).await?))
}
