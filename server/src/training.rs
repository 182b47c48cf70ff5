//! Trainings, one at a time: read the data set, train, sign, evaluate, record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use picket_common::event::Timestamp;
use picket_common::id::Digest;
use picket_common::model::{Algorithm, Model, UnknownAlgorithm};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::dataset::manifest::{ManifestError, Part};
use crate::dataset::{DatasetError, Datasets, Rows};
use crate::metastore::DatasetRecord;
use crate::registry::{
    HeldOutScores, ModelRecord, NewModel, Registry, RegistryError, RunRecord, SearchRecord, SignedModel, TriedParams,
};
use picket_learn::evaluate::{self, EvaluateError, Report, ScoredRow};
use picket_learn::table::recipe;
use picket_learn::train::tune::{self, Contestant, Found, SearchBudget};
use picket_learn::train::{
    Candidate, Control, DraftContext, FOLDINGS, Observer, Options, TrainError, Trained, TrainingSet, Validation, train,
    train_with,
};

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
    /// Search among them, and train only what was found.
    pub search: Option<SearchBudget>,
    /// The same data set, algorithm and options give the same model.
    pub options: Options,
    /// Once evaluated, fit the model anew on all rows, the held-out ones too, with the parameters that were found.
    pub refit: bool,
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
    /// A model's record does not say how to make it again.
    #[error("the record of model {model} does not say how to make it again: {reason}")]
    NotRecorded {
        /// The model.
        model: Digest,
        /// What is missing.
        reason: String,
    },
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
            for plan in Plan::all(&request) {
                let Made { signed, model, held_out } = job.run(&registry, &plan, &observer)?;
                if let Some(held_out) = held_out {
                    handle.block_on(registry.keep_held_out(signed.digest, &held_out))?;
                }
                finished(handle.block_on(registry.add(&signed, &model, &author))?);
            }
            Ok(())
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| TrainingError::Panicked)?
    }

    /// Makes a model again from its data set and its record, keeps nothing, and tells the digest of what was made: that of
    /// the model itself, unless it was made by other code.
    ///
    /// # Errors
    /// [`TrainingError`]; [`TrainingError::NotRecorded`] when the record is not enough.
    pub async fn rebuild(
        &self,
        model: Digest,
        observer: impl Observer + Send + 'static,
    ) -> Result<Digest, TrainingError> {
        let place = self.waiting.clone().try_acquire_owned().map_err(|_| TrainingError::Busy)?;
        let record = self.registry.model(model).await?;
        let plan = Plan::again(&record)?;
        let dataset = self.datasets.get(&record.model.dataset_id).await?;
        observer.progress("wait for other trainings", 0, 0);
        let turn = self.running.clone().acquire_owned().await.map_err(|_| TrainingError::Panicked)?;
        let (datasets, registry) = (self.datasets.clone(), self.registry.clone());
        let work = move || {
            let _held = (place, turn);
            Ok(Job::read(&datasets, dataset)?.run(&registry, &plan, &observer)?.signed.digest)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| TrainingError::Panicked)?
    }
}

/// One model to make.
struct Plan {
    /// The algorithm, or those to search.
    algorithms: Vec<Algorithm>,
    search: Option<SearchBudget>,
    options: Options,
    refit: bool,
}

impl Plan {
    /// Of a search one, else one for each algorithm.
    fn all(request: &TrainRequest) -> Vec<Self> {
        let plan = |algorithms: &[Algorithm]| Self {
            algorithms: algorithms.to_vec(),
            search: request.search,
            options: request.options,
            refit: request.refit,
        };
        match request.search {
            Some(_) => vec![plan(&request.algorithms)],
            None => request.algorithms.chunks(1).map(plan).collect(),
        }
    }

    /// What a model was made by.
    fn again(record: &ModelRecord) -> Result<Self, TrainingError> {
        let ModelRecord { model: NewModel { digest, algorithm, run, .. }, .. } = record;
        let names = run.search.iter().flat_map(|search| &search.algorithms);
        let searched: Result<Vec<Algorithm>, _> = names.map(|name| name.parse()).collect();
        let searched = searched.map_err(|error: UnknownAlgorithm| TrainingError::NotRecorded {
            model: *digest,
            reason: error.to_string(),
        })?;
        let options = Options {
            seed: run.seed,
            false_positive_budget: run.threshold.false_positive_budget,
            confidence: run.confidence,
            foldings: FOLDINGS,
            calibration: run.calibration,
        };
        Ok(Self {
            algorithms: if searched.is_empty() { vec![*algorithm] } else { searched },
            search: run.search.as_ref().map(|search| SearchBudget::Work(search.work)),
            options,
            refit: run.refit,
        })
    }

    /// Trains with what a search finds, or with the usual choice of parameters; the second is what was searched.
    fn train(
        &self,
        set: &TrainingSet,
        options: Options,
        context: &DraftContext,
        control: &Control<'_>,
    ) -> Result<(Trained, Option<Found>), TrainError> {
        let algorithm = self.algorithms.first().copied().unwrap_or(Algorithm::GradientBoosting);
        let Some(budget) = self.search else { return Ok((train(set, algorithm, options, context, control)?, None)) };
        let unfit = || TrainError::Engine { algorithm, reason: "it has no usual parameters".to_owned() };
        let usual = recipe(algorithm, set.len(), set.feature_count()).ok_or_else(unfit)?;
        let begin = Instant::now();
        let work = budget.work(set, &|| begin.elapsed().as_secs_f64(), control)?;
        let found = tune::search(set, usual, &self.algorithms, work, options, context, control)?;
        Ok((train_with(found.recipe, set, options, context, control)?, Some(found)))
    }

    /// The same data set, plan and code have the same name.
    fn run_name(&self, dataset: Digest) -> String {
        let Options { seed, false_positive_budget, confidence, calibration, .. } = self.options;
        let calibration = calibration.name();
        let confidence = confidence.map_or_else(String::new, |confidence| format!("/{}", f64::from(confidence)));
        let names: Vec<&str> = self.algorithms.iter().map(|algorithm| algorithm.name()).collect();
        let kind = if self.search.is_some() { "search" } else { names.first().copied().unwrap_or_default() };
        let names = names.join("+");
        let refit = self.refit;
        let what = format!(
            "{dataset}/{names}/{seed}/{false_positive_budget}{confidence}/{refit}/{calibration}/{CODE_VERSION}"
        );
        let digest = Digest::of(what.as_bytes()).to_string();
        format!("{kind}-{}", &digest[..RUN_DIGITS])
    }
}

/// A model that was made.
struct Made {
    signed: SignedModel,
    model: NewModel,
    /// Of a model that was fitted anew: what the one before scored.
    held_out: Option<HeldOutScores>,
}

/// A data set in memory.
struct Job {
    dataset: DatasetRecord,
    set: TrainingSet,
    test: Rows,
    /// Training and test rows together, for a refit.
    all: TrainingSet,
    /// The newest training row, and the newest of all.
    newest: [Timestamp; 2],
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
        let newest = |rows: &Rows| rows.info.iter().map(|info| info.time).max().unwrap_or(Timestamp(0));
        let newest = [newest(&train), newest(&train).max(newest(&test))];
        let all = training_set([&train, &test])?;
        Ok(Self { dataset, set: training_set([&train])?, test, all, newest })
    }

    fn run(&self, registry: &Registry, plan: &Plan, observer: &dyn Observer) -> Result<Made, TrainingError> {
        let started = Instant::now();
        let Plan { options, refit, .. } = *plan;
        let manifest = &self.dataset.manifest;
        let context = DraftContext {
            subject: manifest.subject()?,
            feature_spec_hash: picket_common::feature::FeatureSpec::v1(manifest.subject()?).hash(),
            dataset_digest: self.dataset.digest,
            training_run: plan.run_name(self.dataset.digest),
            // A clock would give other bytes each time; this is when the model's knowledge ends.
            created: self.newest[usize::from(refit)],
        };
        let control = Control::observed(observer);
        // What a refit replaces is only evaluated.
        let of_first = if refit { Options { foldings: 1, ..options } } else { options };
        let (mut trained, found) = plan.train(&self.set, of_first, &context, &control)?;
        let mut signed = registry.sign(&trained.draft)?;
        let algorithm = trained.recipe.params.get().algorithm();
        observer.progress(&format!("{algorithm}: evaluate"), 0, 1);
        // Without a refit what is evaluated is the file that agents get.
        let (evaluation, scores) = self.evaluate(&signed.model, options.seed)?;
        let mut held_out = None;
        if refit {
            held_out = Some(HeldOutScores { threshold: signed.model.metadata().threshold, scores });
            let again = train_with(trained.recipe, &self.all, options, &context, &control)?;
            // How the parameters were found stays on record.
            let validation = Validation { foldings: again.validation.foldings, ..trained.validation };
            trained = Trained { validation, ..again };
            signed = registry.sign(&trained.draft)?;
        }
        let training_seconds = started.elapsed().as_secs_f64();
        let model = NewModel {
            digest: signed.digest,
            subject: context.subject,
            algorithm,
            dataset_id: self.dataset.dataset_id.clone(),
            model_bytes: signed.bytes.len() as u64,
            threshold: signed.model.metadata().threshold,
            training_seconds,
            run: run_record(&trained, found.as_ref(), &context, plan),
            evaluation,
        };
        observer.progress(&format!("{algorithm}: evaluate"), 1, 1);
        Ok(Made { signed, model, held_out })
    }

    /// The evaluation on the test part, and the score of each of its rows.
    fn evaluate(&self, model: &Model, seed: u64) -> Result<(Report, Vec<f64>), TrainingError> {
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
        let mut report = evaluate::evaluate(&rows, &options)?;
        let values = (0..rows.len()).map(|row| self.test.values(row));
        let spec = picket_common::feature::FeatureSpec::v1(model.metadata().subject);
        let names: Vec<&str> = spec.features.iter().map(|feature| feature.name).collect();
        report.importances = evaluate::importance::mean_contributions(model, &names, values);
        Ok((report, rows.iter().map(|row| row.score).collect()))
    }
}

fn training_set<const PARTS: usize>(parts: [&Rows; PARTS]) -> Result<TrainingSet, TrainError> {
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut values, mut malicious, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for rows in parts {
        values.extend_from_slice(&rows.values);
        for info in &rows.info {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            groups.push(*numbers.entry(&info.group).or_insert(next));
            malicious.push(info.malicious);
        }
    }
    TrainingSet::new(parts.first().map_or(0, |rows| rows.feature_count), values, malicious, groups)
}

fn run_record(trained: &Trained, found: Option<&Found>, context: &DraftContext, plan: &Plan) -> RunRecord {
    let (validation, Plan { options, refit, .. }) = (&trained.validation, plan);
    let (options, refit) = (*options, *refit);
    let tried = |candidate: &Candidate| {
        Some(TriedParams {
            params: *candidate.recipe.params.get(),
            witnesses: candidate.recipe.witnesses,
            score: candidate.score?,
        })
    };
    let contestant = |contestant: &Contestant| {
        let recipe = &contestant.recipe;
        let score = contestant.score?;
        Some(TriedParams { params: *recipe.params.get(), witnesses: recipe.witnesses, score })
    };
    RunRecord {
        training_run: context.training_run.clone(),
        seed: options.seed,
        refit,
        params: *trained.recipe.params.get(),
        witnesses: trained.recipe.witnesses,
        code_version: CODE_VERSION.to_owned(),
        dataset_digest: context.dataset_digest.to_string(),
        folds: validation.folds,
        foldings: validation.foldings,
        folds_grouped: validation.grouped,
        tried: match found {
            Some(found) => found.leaderboard.iter().filter_map(contestant).collect(),
            None => validation.candidates.iter().filter_map(tried).collect(),
        },
        threshold: trained.threshold,
        calibration: options.calibration,
        confidence: options.confidence,
        search: found.map(|found| SearchRecord {
            algorithms: plan.algorithms.iter().map(|algorithm| algorithm.name().to_owned()).collect(),
            work: found.work,
        }),
    }
}
