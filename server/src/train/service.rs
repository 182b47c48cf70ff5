//! Trainings, one at a time: read the data set, train, sign, evaluate, record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use picket_common::event::Timestamp;
use picket_common::id::Digest;
use picket_common::model::{Algorithm, Model};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::dataset::manifest::{ManifestError, Part};
use crate::dataset::{DatasetError, Datasets, Rows};
use crate::evaluate::{self, EvaluateError, Report, ScoredRow};
use crate::metastore::DatasetRecord;
use crate::registry::{ModelRecord, NewModel, Registry, RegistryError, RunRecord, SignedModel};
use crate::train::{Control, DraftContext, Observer, TrainError, Trained, TrainingSet, train};

/// Trainings that may wait for the one that runs.
pub const TRAININGS_WAITING_MAX: usize = 8;
/// Resamples for the intervals of an evaluation.
const BOOTSTRAP_RESAMPLES: u32 = 200;
/// Hexadecimal digits of the digest in a training run's name.
const RUN_DIGITS: usize = 16;
/// Version of the code that trains: part of what a model's bytes depend on.
const CODE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What to train.
#[derive(Clone, Debug)]
pub struct TrainRequest {
    /// On which data set.
    pub dataset_id: String,
    /// Which algorithms, in this order.
    pub algorithms: Vec<Algorithm>,
    /// The same data set, algorithm and seed give the same model.
    pub seed: u64,
}

/// Why a training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// Too many are waiting.
    #[error("{TRAININGS_WAITING_MAX} trainings are waiting already: try again later")]
    Busy,
    /// The data set was made with other features than this server's.
    #[error(
        "the data set {dataset_id} has version {found} of the features, this server computes others: build it again"
    )]
    OtherFeatures {
        /// The data set.
        dataset_id: String,
        /// Its version.
        found: u32,
    },
    /// The data set could not be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Learning failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The model could not be evaluated.
    #[error("cannot evaluate the model: {0}")]
    Evaluate(#[from] EvaluateError),
    /// The model could not be signed or recorded.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The training's thread ended without a result.
    #[error("the training ended without a result")]
    Panicked,
}

impl From<ManifestError> for TrainingError {
    fn from(error: ManifestError) -> Self {
        Self::Dataset(error.into())
    }
}

/// Trains models of data sets and records them.
#[derive(Debug)]
pub struct Trainings {
    datasets: Datasets,
    registry: Arc<Registry>,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Trainings {
    /// Over these data sets, into this registry.
    pub fn new(datasets: Datasets, registry: Arc<Registry>) -> Self {
        let [running, waiting] = [1, 1 + TRAININGS_WAITING_MAX].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { datasets, registry, running, waiting }
    }

    /// Trains one model per algorithm; each is recorded and handed to `finished` as soon as it is done. Runs on a thread
    /// of its own, which goes on until `observer` says that it is cancelled; the next training waits for it.
    ///
    /// # Errors
    /// [`TrainingError`]. Models that were handed over stay.
    pub async fn run(
        &self,
        request: TrainRequest,
        author: String,
        observer: impl Observer + Send + 'static,
        mut finished: impl FnMut(ModelRecord) + Send + 'static,
    ) -> Result<(), TrainingError> {
        let place = self.waiting.clone().try_acquire_owned().map_err(|_| TrainingError::Busy)?;
        let dataset = self.datasets.get(&request.dataset_id).await?;
        observer.progress("wait for other trainings", 0, 0);
        let turn = self.running.clone().acquire_owned().await.map_err(|_| TrainingError::Panicked)?;
        let (datasets, registry, handle) = (self.datasets.clone(), self.registry.clone(), Handle::current());
        let work = move || {
            // Held by the thread: whoever asked may be gone before it has noticed.
            let _held = (place, turn);
            let job = Job::read(&datasets, dataset)?;
            for algorithm in request.algorithms {
                let (signed, model) = job.run(&registry, algorithm, request.seed, &observer)?;
                finished(handle.block_on(registry.add(&signed, &model, &author))?);
            }
            Ok(())
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| TrainingError::Panicked)?
    }
}

/// A data set in memory.
struct Job {
    dataset: DatasetRecord,
    set: TrainingSet,
    test: Rows,
    /// The newest training row.
    newest: Timestamp,
}

impl Job {
    fn read(datasets: &Datasets, dataset: DatasetRecord) -> Result<Self, TrainingError> {
        let subject = dataset.manifest.subject()?;
        let spec = picket_common::feature::FeatureSpec::v1(subject);
        if dataset.manifest.feature_spec.sha256 != spec.hash().to_string() {
            let found = dataset.manifest.feature_spec.version;
            return Err(TrainingError::OtherFeatures { dataset_id: dataset.dataset_id, found });
        }
        let [train, test] = datasets.read_rows(&dataset)?;
        let newest = train.info.iter().map(|info| info.time).max().unwrap_or(Timestamp(0));
        Ok(Self { dataset, set: training_set(train)?, test, newest })
    }

    fn run(
        &self,
        registry: &Registry,
        algorithm: Algorithm,
        seed: u64,
        observer: &dyn Observer,
    ) -> Result<(SignedModel, NewModel), TrainingError> {
        let started = Instant::now();
        let manifest = &self.dataset.manifest;
        let context = DraftContext {
            subject: manifest.subject()?,
            feature_spec_hash: picket_common::feature::FeatureSpec::v1(manifest.subject()?).hash(),
            dataset_digest: self.dataset.digest,
            training_run: run_name(self.dataset.digest, algorithm, seed),
            // A clock would give other bytes each time; this is when the model's knowledge ends.
            created: self.newest,
        };
        let trained = train(&self.set, algorithm, seed, &context, &Control::observed(observer))?;
        let training_seconds = started.elapsed().as_secs_f64();
        let signed = registry.sign(&trained.draft)?;
        observer.progress(&format!("{algorithm}: evaluate"), 0, 1);
        // What is evaluated is the file that agents get.
        let evaluation = self.evaluate(&signed.model, seed)?;
        let model = NewModel {
            digest: signed.digest,
            subject: context.subject,
            algorithm,
            dataset_id: self.dataset.dataset_id.clone(),
            model_bytes: signed.bytes.len() as u64,
            threshold: signed.model.metadata().threshold,
            training_seconds,
            run: run_record(&trained, &context, seed),
            evaluation,
        };
        observer.progress(&format!("{algorithm}: evaluate"), 1, 1);
        Ok((signed, model))
    }

    fn evaluate(&self, model: &Model, seed: u64) -> Result<Report, TrainingError> {
        let rows: Vec<ScoredRow<'_>> = self
            .test
            .info
            .iter()
            .enumerate()
            .map(|(row, info)| ScoredRow {
                score: model.score(self.test.values(row)),
                malicious: info.malicious,
                technique: &info.technique,
                group: &info.group,
            })
            .collect();
        let known = self.dataset.manifest.file(Part::Train)?.techniques.keys().cloned().collect();
        let options = evaluate::Options {
            threshold: model.metadata().threshold,
            known_techniques: &known,
            resamples: BOOTSTRAP_RESAMPLES,
            seed,
        };
        Ok(evaluate::evaluate(&rows, &options)?)
    }
}

fn training_set(rows: Rows) -> Result<TrainingSet, TrainError> {
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    let mut groups = Vec::with_capacity(rows.len());
    for info in &rows.info {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        groups.push(*numbers.entry(&info.group).or_insert(next));
    }
    let malicious = rows.info.iter().map(|info| info.malicious).collect();
    TrainingSet::new(rows.feature_count, rows.values, malicious, groups)
}

/// The same data set, algorithm, seed and code have the same name.
fn run_name(dataset: Digest, algorithm: Algorithm, seed: u64) -> String {
    let digest = Digest::of(format!("{dataset}/{algorithm}/{seed}/{CODE_VERSION}").as_bytes()).to_string();
    format!("{algorithm}-{}", &digest[..RUN_DIGITS])
}

fn run_record(trained: &Trained, context: &DraftContext, seed: u64) -> RunRecord {
    let validation = &trained.validation;
    RunRecord {
        training_run: context.training_run.clone(),
        seed,
        params: trained.params,
        code_version: CODE_VERSION.to_owned(),
        dataset_digest: context.dataset_digest.to_string(),
        folds: validation.folds,
        folds_grouped: validation.grouped,
        tried: validation.candidates.iter().map(|candidate| (*candidate.params.get(), candidate.score)).collect(),
        threshold: trained.threshold,
    }
}
