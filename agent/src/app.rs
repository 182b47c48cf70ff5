//! The composition root: builds the parts, starts them in order, watches them, stops them in stages.
//!
//! Start: state folder and lock → identity, models, spool (which books what the last life lost) → detector → sensors →
//! pipeline (whose first event is `AgentStart`, with what the sensors turned out to be) → uplink → status.
//!
//! Stop: sensors → pipeline, until its queue is empty → buffer flushed → uplink, for a bounded time → detector → last
//! status. Whatever ends on its own before that is a failure and stops the rest the same way.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use picket_common::event::{AgentStart, ByteString, SensorMode};
use picket_common::id::HostId;
use tokio_util::sync::CancellationToken;

use crate::app::reload::{ConfigReport, ReloadSource, Reloader};
use crate::app::reporter::Reporter;
use crate::app::service_manager::ServiceManager;
use crate::app::signals::Signals;
pub use crate::app::start::Invocation;
use crate::app::start::Start;
use crate::app::supervisor::{Failure, Supervisor};
use crate::budget::control::BudgetControl;
use crate::budget::governor::Governor;
use crate::budget::shaper::Shaper;
use crate::buffer::BufferConfig;
use crate::config::Config;
use crate::config::live::Live;
use crate::detector::{self, Detector, DetectorConfig, DetectorCounters};
use crate::hardening::HardeningError;
use crate::identity::{IdentityStore, IdentityStoreError};
use crate::model_store::{ActiveModels, ModelStore};
use crate::pipeline::changes::Changes;
use crate::pipeline::intake::{self, Intake, SensorSender};
use crate::pipeline::queue::{QueueGauge, QueueReceiver};
use crate::pipeline::spool::{OpenedSpool, Spool, SpoolError, SpoolPaths};
use crate::pipeline::{AlertMark, Pipeline, PipelineCounters, PipelineError, now};
use crate::sensor::{Observation, SensorError, SharedRedactor, replay};
use crate::state_file;
use crate::status::{AgentLock, OwnCost, Sensors, Sources, StatusFile};
use crate::uplink::channel::pace::Pace;
use crate::uplink::{Uplink, UplinkState};

pub mod reload;
mod reporter;
mod service_manager;
mod signals;
mod start;
mod supervisor;
#[cfg(test)]
mod tests;

/// How long sensors may take to end.
const SENSOR_STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the uplink may take to end after it was told to end now.
const UPLINK_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked whether a thread still runs.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether everything replayed has arrived.
const REPLAY_WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// Threads of the asynchronous runtime: one connection needs no more …
const WORKER_THREADS: usize = 1;
/// … and what waits for the disk beside it.
const BLOCKING_THREADS_MAX: usize = 3;

/// Exit code after a second signal.
const EXIT_AT_ONCE: i32 = 1;

/// Why the agent could not start, or ended otherwise than asked to.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The state folder.
    #[error("cannot use the state folder {}: {source}", path.display())]
    StateDir {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another agent runs on this state folder.
    #[error("another agent runs with the state folder {}", path.display())]
    Locked {
        /// Where.
        path: PathBuf,
    },
    /// Buffer, ledger or history.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The identity's file.
    #[error(transparent)]
    Identity(#[from] IdentityStoreError),
    /// Sensors.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// What the agent must give up and cannot.
    #[error(transparent)]
    Hardening(#[from] HardeningError),
    /// Threads or the asynchronous runtime.
    #[error("cannot start the threads of the agent: {0}")]
    Threads(io::Error),
    /// The pipeline could not go on.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A part ended on its own.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// When the agent ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Never.
    Asked,
    /// When nothing more is replayed and every event is where it belongs: with the server when this host has an identity,
    /// else in the buffer.
    Replayed,
}

/// Runs the agent until SIGTERM or SIGINT, or until `end`, or until a part of it fails. SIGHUP reads the configuration
/// again, from `source`.
///
/// # Errors
/// [`AppError`]; the agent has been stopped in stages in any case.
pub fn run(config: Config, source: ReloadSource, invocation: Invocation, end: End) -> Result<(), AppError> {
    // Before anything starts a thread.
    let start = Start::restricted(&config, invocation)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("uplink")
        .enable_all()
        .build()
        .map_err(AppError::Threads)?;
    let result = runtime.block_on(async {
        // First of all, so that a signal during the start is not lost.
        let mut signals = Signals::listen().map_err(AppError::Threads)?;
        let manager = ServiceManager::from_environment();
        let mut app = App::start(config, start, manager.clone())?;
        manager.ready();
        let mut reloader = app.reloader(source);
        let replayed = app.replayed();
        let ended = async {
            tokio::select! {
                () = signals.until_stop(|| reloader.reload()) => {}
                () = replayed, if end == End::Replayed => {}
            }
        };
        let result = app.watch(ended).await;
        tokio::select! {
            stopped = app.stop() => stopped?,
            () = signals.until_stop(|| {}) => {
                // Whoever sent it does not want to wait. What is not durable now is counted by the next life.
                tracing::warn!("stopping at once: a second signal came");
                std::process::exit(EXIT_AT_ONCE);
            }
        }
        Ok(result?)
    });
    // A task that is stuck must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// A running agent.
struct App {
    config: Config,
    spool: Arc<Spool>,
    intake: Intake,
    /// Keeps the way to the pipeline open: an agent whose sensors are all off, or have nothing more to play, still
    /// delivers, fetches models and reports.
    sender: SensorSender,
    sensors: Arc<Mutex<Sensors>>,
    pipeline: JoinHandle<Result<(), PipelineError>>,
    detector: JoinHandle<()>,
    stop_pipeline: CancellationToken,
    finish_uplink: CancellationToken,
    stop_uplink: CancellationToken,
    supervisor: Supervisor,
    reporter: Reporter,
    manager: ServiceManager,
    live: LiveParts,
    /// This host has an identity: what waits goes to a server.
    delivers: bool,
    _lock: AgentLock,
}

/// What follows a new configuration.
#[derive(Clone)]
struct LiveParts {
    budget: Arc<BudgetControl>,
    detector: Arc<Live<DetectorConfig>>,
    redactor: SharedRedactor,
    changes: Arc<Changes>,
    report: Arc<Mutex<ConfigReport>>,
}

impl LiveParts {
    fn new(config: &Config) -> Self {
        let changes = Arc::new(Changes::default());
        let report = ConfigReport { loaded_unix_ns: now().0, ..ConfigReport::default() };
        Self {
            budget: Arc::new(BudgetControl::new(config.budget, Arc::clone(&changes))),
            detector: Arc::new(Live::new(config.detector.clone())),
            redactor: Arc::default(),
            changes,
            report: Arc::new(Mutex::new(report)),
        }
    }
}

/// The parts up to the sensors.
struct Foundation {
    lock: AgentLock,
    identities: IdentityStore,
    own_remotes: Vec<SocketAddr>,
    host: Arc<OnceLock<HostId>>,
    model_store: Option<Arc<Mutex<ModelStore>>>,
    models: Arc<ActiveModels>,
    opened: OpenedSpool,
}

impl App {
    fn start(config: Config, start: Start, manager: ServiceManager) -> Result<Self, AppError> {
        let Foundation { lock, identities, own_remotes, host, model_store, models, opened } = lay_foundation(&config)?;
        let delivers = host.get().is_some();
        let OpenedSpool { spool, ledger, epoch, .. } = opened;
        let spool = Arc::new(spool);
        let state_dir = &config.agent.state_dir;
        let live = LiveParts::new(&config);
        let budget = Arc::clone(&live.budget);
        let alerts = AlertMark::default();
        let detector_counters = Arc::new(DetectorCounters::default());
        let (to_detector, detector) = detector::spawn(Detector {
            config: Arc::clone(&live.detector),
            host: Arc::clone(&host),
            alert_path: state_dir.join("alerts.jsonl"),
            models: Arc::clone(&models),
            mark: alerts.clone(),
            counters: Arc::clone(&detector_counters),
        })
        .map_err(AppError::Threads)?;
        let detector_queue = to_detector.gauge();

        let (sender, queue) = intake::intake(ledger);
        let intake = sender.intake();
        let hardening = start.hardening();
        let sensors = start.sensors(&config, sender.clone(), own_remotes)?;
        let modes = sensors.modes.clone();
        let live = LiveParts { redactor: sensors.redactor(), ..live };
        let sensors = Arc::new(Mutex::new(Sensors::Running(sensors)));
        let stop_pipeline = CancellationToken::new();
        let pipeline_counters = Arc::new(PipelineCounters::default());
        let parts = Pipeline {
            config: config.pipeline,
            epoch,
            spool: Arc::clone(&spool),
            intake: intake.clone(),
            detector: move |events| to_detector.offer(events),
            alerts,
            counters: Arc::clone(&pipeline_counters),
            shaper: Shaper::new(Arc::clone(&budget)),
            changes: Arc::clone(&live.changes),
            stop: stop_pipeline.clone(),
        };
        let pipeline = spawn_pipeline(parts, queue, &modes)?;

        let uplink_state = Arc::new(UplinkState::default());
        let sources = Sources {
            epoch: epoch.0,
            intake: intake.clone(),
            spool: Arc::clone(&spool),
            pipeline: pipeline_counters,
            sensors: Arc::clone(&sensors),
            modes,
            models,
            model_store: model_store.clone(),
            detector: detector_counters,
            detector_queue: QueueGauge::clone(&detector_queue),
            uplink: Arc::clone(&uplink_state),
            cost: OwnCost::new(),
            governor: Governor::new(Arc::clone(&budget)),
            config: Arc::clone(&live.report),
            hardening,
        };
        let status_file =
            StatusFile::create(state_dir).map_err(|source| AppError::StateDir { path: state_dir.clone(), source })?;
        let (reporter, status) =
            Reporter::start(sources, status_file, manager.watchdog()).map_err(AppError::Threads)?;

        let (finish_uplink, stop_uplink) = (CancellationToken::new(), CancellationToken::new());
        let mut supervisor = Supervisor::default();
        let uplink = Uplink {
            config: config.uplink.clone(),
            identities,
            spool: Arc::clone(&spool),
            models: model_store,
            status,
            state: uplink_state,
            pace: Pace::new(budget),
            host,
            finish: finish_uplink.clone(),
            stop: stop_uplink.clone(),
        };
        supervisor.spawn("uplink", uplink.run());
        tracing::info!(epoch = epoch.0, state_dir = %state_dir.display(), "the agent runs");
        Ok(Self {
            config,
            spool,
            intake,
            sender,
            sensors,
            pipeline,
            detector,
            stop_pipeline,
            finish_uplink,
            stop_uplink,
            supervisor,
            reporter,
            manager,
            live,
            delivers,
            _lock: lock,
        })
    }

    /// What reads the configuration again.
    fn reloader(&self, source: ReloadSource) -> Reloader {
        let LiveParts { budget, detector, redactor, changes, report } = self.live.clone();
        Reloader { source, running: self.config.clone(), budget, detector, redactor, changes, report }
    }

    /// Waits for [`End::Replayed`].
    fn replayed(&self) -> impl Future<Output = ()> + use<> {
        let (sensors, spool, intake) = (Arc::clone(&self.sensors), Arc::clone(&self.spool), self.intake.clone());
        let delivers = self.delivers;
        async move {
            loop {
                tokio::time::sleep(REPLAY_WATCH_INTERVAL).await;
                if sensors.lock().is_running(replay::NAME) {
                    continue;
                }
                let (spool, intake) = (Arc::clone(&spool), intake.clone());
                let is_settled = in_background(move || {
                    let counters = intake.counters();
                    spool.in_flight(&counters) == 0 && (!delivers || spool.status(&counters).buffer.records == 0)
                });
                if is_settled.await == Some(true) {
                    return;
                }
            }
        }
    }

    /// Waits until `stop` completes, or until a part ends on its own.
    async fn watch<T>(&mut self, stop: impl Future<Output = T>) -> Result<(), Failure> {
        let threads: [(_, &(dyn Fn() -> bool + Sync)); 2] =
            [("pipeline", &|| self.pipeline.is_finished()), ("detector", &|| self.detector.is_finished())];
        let result = tokio::select! {
            _ = stop => Ok(()),
            failure = watch_threads(threads, &self.manager) => Err(failure),
            failure = self.supervisor.failure() => Err(failure),
        };
        if let Err(failure) = &result {
            tracing::error!(%failure, "the agent stops because a part of it ended");
        }
        result
    }

    /// See the module documentation.
    ///
    /// # Errors
    /// What the pipeline ended with; all the rest is stopped in any case.
    async fn stop(self) -> Result<(), PipelineError> {
        let Self {
            config, spool, intake, sender, sensors, pipeline, detector, mut supervisor, reporter, manager, ..
        } = self;
        let begun = Instant::now();
        manager.stopping();
        let set = sensors.lock().take();
        in_background(move || {
            let late = set.map(|set| set.stop_and_join(SENSOR_STOP_TIMEOUT)).unwrap_or_default();
            if !late.is_empty() {
                tracing::warn!(?late, "sensors did not end in time");
            }
        })
        .await;
        drop(sender);
        self.stop_pipeline.cancel();
        let piped = in_background(move || join("pipeline", pipeline)).await.flatten();

        // Everything is in the buffer now.
        self.finish_uplink.cancel();
        let drain = Duration::from_millis(config.agent.stop_drain_ms);
        if !supervisor.wait_all(drain).await {
            self.stop_uplink.cancel();
            supervisor.wait_all(UPLINK_STOP_TIMEOUT).await;
        }
        in_background(move || join("detector", detector)).await;
        in_background(move || {
            if let Err(error) = spool.flush(&intake.counters()) {
                tracing::warn!(%error, "the last acknowledgements could not be written down: they will be repeated");
            }
            reporter.stop();
        })
        .await;
        tracing::info!(milliseconds = begun.elapsed().as_millis(), "the agent has stopped");
        piped.unwrap_or(Ok(()))
    }
}

fn lay_foundation(config: &Config) -> Result<Foundation, AppError> {
    let state_dir = &config.agent.state_dir;
    let error = |source| AppError::StateDir { path: state_dir.clone(), source };
    state_file::make_private_folder(state_dir).map_err(error)?;
    let lock =
        AgentLock::take(state_dir).map_err(error)?.ok_or_else(|| AppError::Locked { path: state_dir.clone() })?;
    let identities = IdentityStore::in_state_dir(state_dir);
    let identity = identities.load()?;
    let host = Arc::new(OnceLock::new());
    let trusted = identity.as_ref().map(|identity| identity.model_verifying_keys.clone()).unwrap_or_default();
    if let Some(identity) = &identity {
        host.get_or_init(|| identity.host_id);
    }
    let server = match (&identity, config.uplink.server.as_str()) {
        (Some(identity), "") => identity.server.clone(),
        (_, server) => server.to_owned(),
    };
    let (model_store, models) = open_models(&state_dir.join("models"), trusted);
    let buffer = BufferConfig { bytes_max: config.buffer.bytes_max, store: config.buffer.store };
    let now = now().0.unsigned_abs();
    let opened = Spool::open(&SpoolPaths::in_state_dir(state_dir), buffer, now)?;
    if let Some(damage) = &opened.damage {
        let path = damage.set_aside.display();
        tracing::error!(%path, detail = damage.detail, "a damaged buffer was set aside, what it held is counted as lost");
    }
    // A name is not looked up here: that could take long, and it only helps to recognise the agent's own attempts.
    let own_remotes = server.parse().into_iter().collect();
    Ok(Foundation { lock, identities, own_remotes, host, model_store, models, opened })
}

/// An agent whose models' folder cannot be used collects and delivers all the same, and says what is wrong.
fn open_models(
    folder: &Path,
    trusted: Vec<ed25519_dalek::VerifyingKey>,
) -> (Option<Arc<Mutex<ModelStore>>>, Arc<ActiveModels>) {
    match ModelStore::open(folder, trusted) {
        Ok(store) => {
            let active = store.active();
            (Some(Arc::new(Mutex::new(store))), active)
        }
        Err(error) => {
            tracing::error!(%error, "the models cannot be used: remove the folder to begin anew");
            let active = Arc::new(ActiveModels::default());
            for subject in picket_common::feature::Subject::ALL {
                active.set_error(subject, error.to_string());
            }
            (None, active)
        }
    }
}

fn spawn_pipeline<D: FnMut(Vec<picket_common::event::Event>) + Send + 'static>(
    parts: Pipeline<D>,
    queue: QueueReceiver<Observation>,
    modes: &[SensorMode],
) -> Result<JoinHandle<Result<(), PipelineError>>, AppError> {
    let boot_id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let start = AgentStart {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: ByteString::truncated(boot_id.trim_ascii()),
        sensors: modes.to_vec(),
    };
    crate::pipeline::spawn(parts, queue, start).map_err(AppError::Threads)
}

/// Waits until one of the threads has ended (it is asked), which none should.
async fn watch_threads<const N: usize>(
    threads: [(&'static str, &(dyn Fn() -> bool + Sync)); N],
    manager: &ServiceManager,
) -> Failure {
    loop {
        if let Some((part, _)) = threads.iter().find(|(_, has_ended)| has_ended()) {
            return Failure { part };
        }
        manager.beat();
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// What the thread ended with; `None` when it panicked.
fn join<T>(part: &'static str, thread: JoinHandle<T>) -> Option<T> {
    let ended = thread.join().ok();
    if ended.is_none() {
        tracing::error!(part, "a thread panicked");
    }
    ended
}

/// `None`: it panicked.
async fn in_background<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let ended = tokio::task::spawn_blocking(run).await.ok();
    if ended.is_none() {
        tracing::error!("a stage of stopping failed");
    }
    ended
}
