//! The composition root: what the server is made of, in which order it starts and in which it stops.
//!
//! * Start: state folder (locked) → sockets bound → metastore, log, lake, registry, authority → services → tasks →
//!   `run/endpoints.json`. Whatever fails on the way leaves nothing running.
//! * Stop: `run/endpoints.json` goes → listeners take nothing new in, streams end → what was acknowledged and reported
//!   is put where it belongs → metastore closed.
//!
//! Everything is passed from here; nothing is global.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::endpoints::Endpoints;
pub use self::state_dir::{StateDir, StateDirError};
pub use self::supervisor::TaskFailure;

use self::endpoints::EndpointsFile;
use self::supervisor::{Stage, Supervisor};
use crate::api::{ADMIN_STREAMS_MAX, AGENT_STREAMS_MAX, AdminServices, AgentServices};
use crate::auth::{Auth, AuthError};
use crate::chain::Chains;
use crate::clock::UnixSeconds;
use crate::config::Config;
use crate::dataset::{DatasetError, Datasets};
use crate::fleet::Fleet;
use crate::ingest::{AgentRate, Ingest};
use crate::label::Labels;
use crate::lake::{Committer, Lake, LakeError};
use crate::listener::{BindError, HostConnections, Listener, ListenerConfig, Timeouts, TlsError, admin_tls, agent_tls};
use crate::losses::Losses;
use crate::metastore::{Metastore, MetastoreError};
use crate::pki::{Authorities, Enrollment, EnrollmentConfig, PkiError, ServerCertificate};
use crate::registry::{Registry, RegistryError};
use crate::release::Releases;
use crate::secret::SecretError;
use crate::training::Trainings;
use crate::wal::{Wal, WalConfig, WalError};

mod endpoints;
mod state_dir;
mod supervisor;
#[cfg(test)]
mod tests;

/// How much longer than its streams a stage of tasks may take to end.
const STOP_MARGIN: Duration = Duration::from_secs(20);

/// A server that answers.
#[derive(Debug)]
pub struct Server {
    endpoints: Endpoints,
    endpoints_file: EndpointsFile,
    supervisor: Supervisor,
    stop_timeout: Duration,
    metastore: Metastore,
    /// Last, so that nobody else takes the folder before everything in it is closed.
    _state: StateDir,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state folder cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// A file in the state folder cannot be written.
    #[error(transparent)]
    File(#[from] SecretError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The metadata database cannot be used.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// There is no administrator's token.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// There is no authority.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// There is no TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The write-ahead log cannot be opened.
    #[error("cannot open the write-ahead log: {0}")]
    Wal(#[from] WalError),
    /// The lake cannot be opened.
    #[error("cannot open the lake: {0}")]
    Lake(#[from] LakeError),
    /// The data sets cannot be opened.
    #[error("cannot open the data sets: {0}")]
    Datasets(#[from] DatasetError),
    /// The registry cannot be opened.
    #[error("cannot open the model registry: {0}")]
    Registry(#[from] RegistryError),
    /// A task of the start died.
    #[error("internal error: a task of the start died")]
    Internal,
}

/// The sockets, bound before anything is opened: a port in use is the mistake that is made most often.
struct Sockets {
    agent: Listener,
    admin: Listener,
    hosts: Arc<HostConnections>,
}

/// What is on the disk, opened.
struct Stores {
    metastore: Metastore,
    wal: Arc<Wal>,
    lake: Arc<Lake>,
    datasets: Datasets,
    registry: Arc<Registry>,
}

impl Server {
    /// Starts the server; returns when it answers.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let started = Instant::now();
        let state = StateDir::open(&config.server.state_dir)?;
        let endpoints_file = EndpointsFile::clear(state.endpoints())?;
        let sockets = Sockets::bind(&config).await?;
        let endpoints = Endpoints { agent: sockets.agent.address(), admin: sockets.admin.address() };
        let stores = Stores::open(&state, &config).await?;
        let metastore = stores.metastore.clone();

        let mut supervisor = Supervisor::new();
        assemble(&config, &state, sockets, stores, &mut supervisor).await?;
        endpoints_file.write(&endpoints)?;
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(agent = %endpoints.agent, admin = %endpoints.admin, milliseconds, "ready");
        let stop_timeout = config.server.stop_timeout();
        Ok(Self { endpoints, endpoints_file, supervisor, stop_timeout, metastore, _state: state })
    }

    /// Where it answers.
    pub fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    /// Runs until `stop` ends, or until a part of the server fails; then stops in stages.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), TaskFailure> {
        let failure = tokio::select! {
            () = stop => None,
            failure = self.supervisor.failure() => Some(failure),
        };
        let stopped = self.stop().await;
        failure.map_or(stopped, Err)
    }

    /// Stops in stages.
    pub async fn stop(self) -> Result<(), TaskFailure> {
        drop(self.endpoints_file);
        let outcome = self.supervisor.stop(self.stop_timeout + STOP_MARGIN).await;
        self.metastore.close().await;
        tracing::info!("stopped");
        outcome
    }
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Self, BindError> {
        let hosts = Arc::new(HostConnections::default());
        let timeouts = Timeouts { drain: config.server.stop_timeout(), ..Timeouts::default() };
        let agent = ListenerConfig {
            name: "agents",
            connections_max: config.agent_listener.connections_max.get() as usize,
            streams_max: AGENT_STREAMS_MAX,
            connection_age: Some(config.agent_listener.connection_age()),
            timeouts,
            hosts: Some(Arc::clone(&hosts)),
        };
        let admin = ListenerConfig {
            name: "admin",
            connections_max: config.admin_listener.connections_max.get() as usize,
            streams_max: ADMIN_STREAMS_MAX,
            connection_age: None,
            timeouts,
            hosts: None,
        };
        Ok(Self {
            agent: Listener::bind(config.agent_listener.address, agent).await?,
            admin: Listener::bind(config.admin_listener.address, admin).await?,
            hosts,
        })
    }
}

impl Stores {
    async fn open(state: &StateDir, config: &Config) -> Result<Self, StartError> {
        let metastore = Metastore::open(&state.metastore()).await?;
        let folder = state.wal();
        let wal = tokio::task::spawn_blocking(move || Wal::open(&folder, WalConfig::default()))
            .await
            .map_err(|_| StartError::Internal)??;
        let wal = Arc::new(wal);
        let lake = Arc::new(Lake::open(&state.lake(), Arc::clone(&wal), config.lake.lake_config()).await?);
        let datasets = Datasets::open(state.path(), metastore.clone(), Arc::clone(&lake))?;
        let registry = Arc::new(Registry::open(state.path(), metastore.clone()).await?);
        Ok(Self { metastore, wal, lake, datasets, registry })
    }
}

/// Makes the services, and starts what runs.
async fn assemble(
    config: &Config,
    state: &StateDir,
    sockets: Sockets,
    stores: Stores,
    supervisor: &mut Supervisor,
) -> Result<(), StartError> {
    let Stores { metastore, wal, lake, datasets, registry } = stores;
    let now = UnixSeconds::now();
    let auth = Auth::new(metastore.clone());
    auth.ensure_admin(&state.admin_token(), now).await?;

    let authorities = Arc::new(Authorities::open(state.path(), now)?);
    let names = config.pki.server_names.clone();
    let certificate =
        ServerCertificate::new(Arc::clone(&authorities), names, config.pki.server_certificate_life(), now)?;
    let certificate = Arc::new(certificate);
    let agent_tls = agent_tls(Arc::clone(&authorities), Arc::clone(&certificate))?;
    let admin_tls = admin_tls(Arc::clone(&certificate))?;

    let enrollment = EnrollmentConfig {
        host_certificate_life: config.pki.host_certificate_life(),
        model_verifying_keys: vec![registry.verifying_key().to_bytes()],
    };
    let enrollment = Arc::new(Enrollment::new(Arc::clone(&authorities), metastore.clone(), enrollment));
    let fleet = Arc::new(Fleet::new(metastore.clone(), sockets.hosts, registry.subscribe(), authorities));
    let rate = AgentRate {
        bytes_per_second: config.ingest.agent_bytes_per_second,
        burst_bytes: config.ingest.agent_burst_bytes,
    };
    let chains = Arc::new(Chains::new(metastore.clone(), Arc::clone(&wal)));
    let ingest = Arc::new(Ingest::new(wal, rate));
    let admin_routes = AdminServices {
        auth,
        enrollment: Arc::clone(&enrollment),
        fleet: Arc::clone(&fleet),
        chains: Arc::clone(&chains),
        losses: Losses::new(metastore.clone(), Arc::clone(&fleet), Arc::clone(&lake)),
        ingest: Arc::clone(&ingest),
        labels: Labels::new(metastore, Arc::clone(&lake)),
        trainings: Arc::new(Trainings::new(datasets.clone(), Arc::clone(&registry))),
        releases: Releases::new(datasets.clone(), Arc::clone(&registry), config.gate),
        datasets,
        lake: Arc::clone(&lake),
        registry: Arc::clone(&registry),
    }
    .routes();
    let agent_routes =
        AgentServices { enrollment, fleet: Arc::clone(&fleet), ingest, chains: Arc::clone(&chains), models: registry }
            .routes();

    supervisor.spawn(Stage::Storage, "lake committer", |stop| Committer::new(lake).run(stop));
    supervisor.spawn(Stage::Storage, "chains of hosts", |stop| chains.keep(stop));
    supervisor.spawn(Stage::Storage, "reports of agents", |stop| fleet.keep_reports(stop));
    supervisor.spawn(Stage::Storage, "server certificate", |stop| certificate.keep_fresh(stop));
    supervisor.spawn(Stage::Intake, "agent listener", |stop| sockets.agent.serve(agent_tls, agent_routes, stop));
    supervisor.spawn(Stage::Intake, "admin listener", |stop| sockets.admin.serve(admin_tls, admin_routes, stop));
    Ok(())
}
