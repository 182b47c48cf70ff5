//! A client of the admin API, as far as tests and the demo need it. Blocking: whoever tests waits anyway.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use picket_proto::v1;
use picket_proto::v1::admin_service_client::AdminServiceClient;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// The name in every server certificate.
const SERVER_NAME: &str = "picket-server";

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest message taken; query results come in smaller pieces.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Labels sent in one call; the API takes 10,000.
const LABELS_PER_CALL: usize = 5_000;

/// Rows asked for at most.
const ROW_LIMIT: u32 = 1_000_000;

/// Why a call did not work.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The CA file or the token cannot be used.
    #[error("cannot prepare the connection: {0}")]
    Setup(String),
    /// No connection.
    #[error("cannot connect to the admin API at {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// The server said no.
    #[error("{call}: {:?}: {}", status.code(), status.message())]
    Call {
        /// Which call.
        call: &'static str,
        /// What it said.
        status: Box<Status>,
    },
    /// The server said something that cannot be.
    #[error("{call}: {problem}")]
    Answer {
        /// Which call.
        call: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl AdminError {
    /// Whether the gate said no to a model.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == tonic::Code::FailedPrecondition)
    }

    /// The gRPC code, when it was the server that refused.
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Call { status, .. } => Some(status.code()),
            _ => None,
        }
    }
}

type Client = AdminServiceClient<InterceptedService<Channel, BearerToken>>;

/// A connection to the admin API.
pub struct AdminClient {
    runtime: Runtime,
    client: Client,
}

/// Puts the API token on every call.
#[derive(Clone)]
struct BearerToken(MetadataValue<Ascii>);

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl AdminClient {
    /// Connects to `address`, trusting the authority in `ca_file` (PEM) and no other.
    ///
    /// # Errors
    /// [`AdminError::Setup`] and [`AdminError::Connect`].
    pub fn connect(address: SocketAddr, ca_file: &Path, token: &str) -> Result<Self, AdminError> {
        let setup = |error: &dyn std::fmt::Display| AdminError::Setup(error.to_string());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| setup(&error))?;
        let bearer = BearerToken(format!("Bearer {}", token.trim()).parse().map_err(|error| setup(&error))?);
        let tls = tls_connector(ca_file)?;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| setup(&error))?
            .connect_timeout(CONNECT_TIMEOUT);
        let connector = tower::service_fn(move |_: http::Uri| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
                tls.connect(name, stream).await.map(TokioIo::new)
            }
        });
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connector))
            .map_err(|source| AdminError::Connect { address, source })?;
        let client = AdminServiceClient::with_interceptor(channel, bearer).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { runtime, client })
    }

    /// A join token for `max_uses` hosts.
    ///
    /// # Errors
    /// [`AdminError::Call`].
    pub fn create_token(&mut self, valid_for_s: u32, max_uses: u32) -> Result<String, AdminError> {
        let request = v1::CreateTokenRequest { valid_for_s, max_uses };
        let answer = self.runtime.block_on(self.client.create_token(request));
        Ok(answer.map_err(failed("create token"))?.into_inner().join_token)
    }

    /// The hosts.
    ///
    /// # Errors
    /// [`AdminError::Call`].
    pub fn hosts(&mut self) -> Result<Vec<v1::Host>, AdminError> {
        let answer = self.runtime.block_on(self.client.list_hosts(v1::ListHostsRequest {}));
        Ok(answer.map_err(failed("list hosts"))?.into_inner().hosts)
    }

    /// The rows of one SELECT, each a JSON object.
    ///
    /// # Errors
    /// [`AdminError::Call`]; [`AdminError::Answer`] when the result was cut or is not JSON.
    pub fn query(&mut self, sql: &str) -> Result<Vec<serde_json::Map<String, serde_json::Value>>, AdminError> {
        const CALL: &str = "query events";
        let request = v1::QueryEventsRequest { sql: sql.to_owned(), row_limit: ROW_LIMIT };
        let (client, runtime) = (&mut self.client, &self.runtime);
        runtime.block_on(async {
            let mut answers = client.query_events(request).await.map_err(failed(CALL))?.into_inner();
            let mut rows = Vec::new();
            while let Some(answer) = answers.message().await.map_err(failed(CALL))? {
                if answer.truncated {
                    return Err(AdminError::Answer { call: CALL, problem: format!("more than {ROW_LIMIT} rows") });
                }
                for line in answer.rows_ndjson.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let row = serde_json::from_slice(line)
                        .map_err(|error| AdminError::Answer { call: CALL, problem: error.to_string() })?;
                    rows.push(row);
                }
            }
            Ok(rows)
        })
    }

    /// The one number a SELECT gives. NULL is 0, as of a sum over nothing.
    ///
    /// # Errors
    /// As [`Self::query`]; [`AdminError::Answer`] when it is not one number.
    pub fn query_number(&mut self, sql: &str) -> Result<i64, AdminError> {
        let rows = self.query(sql)?;
        // A NULL may be left out of its row.
        let value = match rows.as_slice() {
            [row] => Ok(row.values().next().cloned().unwrap_or_default()),
            _ => Err(rows.len()),
        };
        match value {
            Ok(serde_json::Value::Null) => Ok(0),
            Ok(value) if value.is_i64() => Ok(value.as_i64().unwrap_or_default()),
            other => Err(AdminError::Answer { call: "query events", problem: format!("not one number: {other:?}") }),
        }
    }

    /// Moves everything acknowledged into the lake.
    ///
    /// # Errors
    /// [`AdminError::Call`].
    pub fn commit_lake(&mut self) -> Result<u64, AdminError> {
        let answer = self.runtime.block_on(self.client.commit_lake(v1::CommitLakeRequest {}));
        Ok(answer.map_err(failed("commit lake"))?.into_inner().events_committed)
    }

    /// Adds labels. Returns how many.
    ///
    /// # Errors
    /// [`AdminError::Call`]; labels of earlier calls of the same batch stay.
    pub fn add_labels(&mut self, labels: &[v1::Label]) -> Result<u64, AdminError> {
        let mut added = 0;
        for labels in labels.chunks(LABELS_PER_CALL) {
            let request = v1::AddLabelsRequest { labels: labels.to_vec() };
            let answer = self.runtime.block_on(self.client.add_labels(request));
            added += answer.map_err(failed("add labels"))?.into_inner().added;
        }
        Ok(added)
    }

    /// How many labels there are.
    ///
    /// # Errors
    /// [`AdminError::Call`].
    pub fn label_count(&mut self) -> Result<u64, AdminError> {
        let request = v1::ListLabelsRequest { page_size: 1, page_token: String::new() };
        let answer = self.runtime.block_on(self.client.list_labels(request));
        Ok(answer.map_err(failed("list labels"))?.into_inner().total)
    }

    /// Builds a data set. `test_fraction` 0: the server's default.
    ///
    /// # Errors
    /// [`AdminError::Call`]; [`AdminError::Answer`] when no data set comes.
    pub fn build_dataset(
        &mut self,
        subject: &str,
        test_fraction: f64,
        progress: &mut dyn FnMut(&v1::Progress),
    ) -> Result<v1::Dataset, AdminError> {
        const CALL: &str = "build dataset";
        let request = v1::BuildDatasetRequest { subject: subject.to_owned(), test_fraction };
        let (client, runtime) = (&mut self.client, &self.runtime);
        runtime.block_on(async {
            let answers = client.build_dataset(request).await.map_err(failed(CALL))?.into_inner();
            let mut dataset = None;
            for_each(CALL, answers, |answer| {
                if let Some(step) = &answer.progress {
                    progress(step);
                }
                dataset = answer.dataset.or(dataset.take());
            })
            .await?;
            dataset.ok_or_else(|| AdminError::Answer { call: CALL, problem: "no data set came".to_owned() })
        })
    }

    /// Trains on a data set.
    ///
    /// # Errors
    /// [`AdminError::Call`].
    pub fn train(
        &mut self,
        request: v1::TrainRequest,
        progress: &mut dyn FnMut(&v1::Progress),
    ) -> Result<Vec<v1::Model>, AdminError> {
        const CALL: &str = "train";
        let (client, runtime) = (&mut self.client, &self.runtime);
        runtime.block_on(async {
            let answers = client.train(request).await.map_err(failed(CALL))?.into_inner();
            let mut models = Vec::new();
            for_each(CALL, answers, |answer| {
                if let Some(step) = &answer.progress {
                    progress(step);
                }
                models.extend(answer.model);
            })
            .await?;
            Ok(models)
        })
    }

    /// A model and its signed file.
    ///
    /// # Errors
    /// [`AdminError::Call`].
    pub fn model(&mut self, model_digest: &str) -> Result<v1::GetModelResponse, AdminError> {
        self.get_model(v1::GetModelRequest {
            model_digest: model_digest.to_owned(),
            with_bytes: true,
            ..v1::GetModelRequest::default()
        })
    }

    /// The page about a model.
    ///
    /// # Errors
    /// [`AdminError::Call`].
    pub fn report_page(&mut self, model_digest: &str) -> Result<String, AdminError> {
        let request = v1::GetModelRequest {
            model_digest: model_digest.to_owned(),
            with_report_page: true,
            ..v1::GetModelRequest::default()
        };
        Ok(self.get_model(request)?.report_page)
    }

    fn get_model(&mut self, request: v1::GetModelRequest) -> Result<v1::GetModelResponse, AdminError> {
        let answer = self.runtime.block_on(self.client.get_model(request));
        Ok(answer.map_err(failed("get model"))?.into_inner())
    }

    /// Makes a model the desired one, with `force` whatever the gate says. Returns the desired state's generation.
    ///
    /// # Errors
    /// [`AdminError::Call`]; [`AdminError::is_held`] tells whether the gate said no.
    pub fn push_model(&mut self, model_digest: &str, force: bool) -> Result<u64, AdminError> {
        let request = v1::PushModelRequest { model_digest: model_digest.to_owned(), force };
        let answer = self.runtime.block_on(self.client.push_model(request));
        Ok(answer.map_err(failed("push model"))?.into_inner().generation)
    }
}

fn failed(call: &'static str) -> impl Fn(Status) -> AdminError {
    move |status| AdminError::Call { call, status: Box::new(status) }
}

async fn for_each<T>(call: &'static str, mut answers: Streaming<T>, mut take: impl FnMut(T)) -> Result<(), AdminError> {
    while let Some(answer) = answers.message().await.map_err(failed(call))? {
        take(answer);
    }
    Ok(())
}

fn tls_connector(ca_file: &Path) -> Result<tokio_rustls::TlsConnector, AdminError> {
    let setup = |error: &dyn std::fmt::Display| AdminError::Setup(format!("{}: {error}", ca_file.display()));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|error| setup(&error))? {
        roots.add(certificate.map_err(|error| setup(&error))?).map_err(|error| setup(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| setup(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}
