//! A server's agent side in this process: real listener, certificates, metastore and log, on a free port.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use picket_common::id::{Digest, HostId};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::agent::{Agent, Credentials, Target};
use crate::api::{AGENT_STREAMS_MAX, AgentServices};
use crate::chain::Chains;
use crate::clock::UnixSeconds;
use crate::fleet::{DesiredState, Fleet, ModelSource, ModelSourceError};
use crate::ingest::{AgentRate, Ingest};
use crate::listener::{HostConnections, Listener, ListenerConfig, Timeouts, agent_tls};
use crate::metastore::Metastore;
use crate::pki::{
    Authorities, CertificateAuthority, Enrollment, EnrollmentConfig, HostKey, IssuedIdentity, ServerCertificate,
};
use crate::wal::{Wal, WalConfig};

const DAY: Duration = Duration::from_secs(86_400);

pub(super) struct TestServer {
    pub(super) target: Target,
    pub(super) authority: Arc<CertificateAuthority>,
    pub(super) enrollment: Arc<Enrollment>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) ingest: Arc<Ingest>,
    pub(super) wal: Arc<Wal>,
    pub(super) hosts: Arc<HostConnections>,
    pub(super) desired: watch::Sender<DesiredState>,
    metastore: Metastore,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    _folder: TempDir,
}

pub(super) struct TestServerBuilder {
    rate: AgentRate,
    models: Models,
    connections_max: usize,
    connection_age: Option<Duration>,
    timeouts: Timeouts,
}

/// Model files by digest.
#[derive(Default)]
struct Models(HashMap<Digest, Bytes>);

impl ModelSource for Models {
    async fn model_file(&self, digest: Digest) -> Result<Option<Bytes>, ModelSourceError> {
        Ok(self.0.get(&digest).cloned())
    }
}

impl TestServerBuilder {
    pub(super) fn agent_rate(mut self, bytes_per_second: u64, burst_bytes: u64) -> Self {
        let non_zero = |value| NonZeroU64::new(value).unwrap();
        self.rate = AgentRate { bytes_per_second: non_zero(bytes_per_second), burst_bytes: non_zero(burst_bytes) };
        self
    }

    pub(super) fn model(mut self, file: Bytes) -> Self {
        self.models.0.insert(Digest::of(&file), file);
        self
    }

    pub(super) fn connections_max(self, connections_max: usize) -> Self {
        Self { connections_max, ..self }
    }

    pub(super) fn connection_age(self, age: Duration) -> Self {
        Self { connection_age: Some(age), ..self }
    }

    pub(super) fn timeouts(self, timeouts: Timeouts) -> Self {
        Self { timeouts, ..self }
    }

    pub(super) async fn start(self) -> TestServer {
        let folder = TempDir::new().unwrap();
        let now = UnixSeconds::now();
        let authorities = Arc::new(Authorities::open(folder.path(), now).unwrap());
        let authority = authorities.pair().current;
        let certificate = Arc::new(ServerCertificate::new(Arc::clone(&authorities), Vec::new(), DAY, now).unwrap());
        let metastore = Metastore::open(&folder.path().join("metadata.sqlite")).await.unwrap();
        let config = EnrollmentConfig { host_certificate_life: DAY, model_verifying_keys: vec![[3; 32]] };
        let enrollment = Arc::new(Enrollment::new(Arc::clone(&authorities), metastore.clone(), config));
        let hosts = Arc::new(HostConnections::default());
        let (desired, receiver) = watch::channel(DesiredState::default());
        let fleet = Arc::new(Fleet::new(metastore.clone(), Arc::clone(&hosts), receiver, Arc::clone(&authorities)));
        let wal = Arc::new(Wal::open(&folder.path().join("wal"), WalConfig::default()).unwrap());
        let ingest = Arc::new(Ingest::new(Arc::clone(&wal), self.rate));
        let services = AgentServices {
            enrollment: Arc::clone(&enrollment),
            fleet: Arc::clone(&fleet),
            ingest: Arc::clone(&ingest),
            chains: Arc::new(Chains::new(metastore.clone(), Arc::clone(&wal))),
            models: Arc::new(self.models),
        };
        let config = ListenerConfig {
            name: "agents",
            connections_max: self.connections_max,
            streams_max: AGENT_STREAMS_MAX,
            connection_age: self.connection_age,
            timeouts: self.timeouts,
            hosts: Some(Arc::clone(&hosts)),
        };
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
        let target = Target { address: listener.address(), authority: authority.certificate().clone() };
        let tls = agent_tls(authorities, certificate).unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(listener.serve(tls, services.routes(), stop.clone()));
        TestServer {
            target,
            authority,
            enrollment,
            fleet,
            ingest,
            wal,
            hosts,
            desired,
            metastore,
            stop,
            serving,
            _folder: folder,
        }
    }
}

impl TestServer {
    pub(super) fn builder() -> TestServerBuilder {
        let rate = AgentRate {
            bytes_per_second: NonZeroU64::new(1 << 30).unwrap(),
            burst_bytes: NonZeroU64::new(1 << 30).unwrap(),
        };
        TestServerBuilder {
            rate,
            models: Models::default(),
            connections_max: 64,
            connection_age: None,
            timeouts: Timeouts::default(),
        }
    }

    pub(super) async fn start() -> Self {
        Self::builder().start().await
    }

    /// A join token without its pin, for this many hosts.
    pub(super) async fn join_token(&self, uses: u32) -> String {
        self.join_token_of(uses, UnixSeconds::now()).await
    }

    /// A join token that was valid the day before yesterday.
    pub(super) async fn expired_join_token(&self) -> String {
        self.join_token_of(1, UnixSeconds::now().before(2 * DAY)).await
    }

    async fn join_token_of(&self, uses: u32, created: UnixSeconds) -> String {
        let token = self.enrollment.create_token("test", DAY, uses, created).await.unwrap();
        token.text.rsplit_once('.').unwrap().0.to_owned()
    }

    /// A new host, enrolled and connected.
    pub(super) async fn enroll(&self) -> Agent {
        Agent::enrolled(&self.target, &self.join_token(1).await).await.unwrap()
    }

    /// A host with a certificate of this server's authority that the metastore does not know.
    pub(super) async fn agent_off_the_record(&self) -> Agent {
        let key = Credentials::new_key();
        let host = HostId::from_random([77; 16]);
        let host_key = HostKey::from_request(&Credentials::request(&key)).unwrap();
        let issued = self.authority.issue_host(host, &host_key, UnixSeconds::now(), DAY).unwrap();
        let identity = IssuedIdentity {
            host,
            certificate: issued.der,
            trust_bundle: vec![self.authority.certificate().clone()],
            model_verifying_keys: Vec::new(),
        };
        Agent::connect(&self.target, Credentials::new(&identity.into(), &key)).await.unwrap()
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
        self.fleet.save_reports().await.unwrap();
        self.metastore.close().await;
    }
}
