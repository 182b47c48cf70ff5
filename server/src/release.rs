//! Whether a model may go to the fleet, and sending it there.
//!
//! ```text
//! model ─▶ held-out rows of its data set, without what the model in force learned from
//!       ─▶ both evaluated on them ─▶ gate (pure) ─▶ Judgement ─▶ push, or hold with reasons
//! ```
//!
//! * **The same rows for both**, which neither learned from: held-out rows that are in the training part of the model in
//!   force, or belong to an attack or piece of work that is, are left out and counted.
//! * **Refitted models** have learned from their held-out rows: in their place stands the model of the same parameters that had
//!   not, whose scores were kept ([`HeldOutScores`](crate::registry::HeldOutScores)).
//! * A model in force that judges by **other features** cannot score these rows: then the model is judged by itself.
//! * **Coming back** to a model that was in force before needs no judgement: a roll-back must not wait for evidence.
//! * What the gate said, and whether somebody passed over it, is kept with the model's change of stage.

use std::collections::BTreeSet;
use std::sync::Arc;

use picket_common::id::{Digest, EventId};
use picket_common::model::{Model, ModelError};
use picket_learn::evaluate::{self, EvaluateError, Report, ScoredRow};
use picket_learn::gate::{self, Policy, Verdict};
use tokio::sync::Semaphore;

use crate::dataset::manifest::{ManifestError, Part};
use crate::dataset::{DatasetError, Datasets, Rows};
use crate::fleet::DesiredState;
use crate::metastore::DatasetRecord;
use crate::registry::{JudgedFigure, Judgement, ModelRecord, Registry, RegistryError, Stage};

/// Models that are judged at the same time: each takes the memory of two data sets.
const JUDGEMENTS_AT_ONCE: usize = 1;

/// Why a model was not judged or released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The gate says no.
    #[error("the gate holds this model: {}", .0.reasons.join("; "))]
    Held(Box<Judgement>),
    /// The data set could not be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The model could not be read or pushed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A model file of the registry cannot be used.
    #[error("cannot read the model {0}: {1}")]
    Model(Digest, ModelError),
    /// The rows cannot be evaluated.
    #[error("cannot evaluate the model: {0}")]
    Evaluate(#[from] EvaluateError),
    /// The judging thread ended without a result.
    #[error("the judging ended without a result")]
    Panicked,
}

impl From<ManifestError> for ReleaseError {
    fn from(error: ManifestError) -> Self {
        Self::Dataset(error.into())
    }
}

/// Judges models and releases them.
#[derive(Debug)]
pub struct Releases {
    datasets: Datasets,
    registry: Arc<Registry>,
    policy: Policy,
    judging: Arc<Semaphore>,
}

impl Releases {
    /// Of these models by this policy.
    pub fn new(datasets: Datasets, registry: Arc<Registry>, policy: Policy) -> Self {
        Self { datasets, registry, policy, judging: Arc::new(Semaphore::new(JUDGEMENTS_AT_ONCE)) }
    }

    /// What the gate says of a model beside the one that is in force now.
    ///
    /// # Errors
    /// [`ReleaseError`], but never [`ReleaseError::Held`].
    pub async fn judge(&self, digest: Digest) -> Result<Judgement, ReleaseError> {
        let candidate = self.registry.model(digest).await?;
        let in_force = self.registry.in_force(candidate.model.subject);
        self.judge_beside(candidate, in_force).await
    }

    /// Judges a model and makes it the one that every agent should use, unless the gate says no and nobody says `force`.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub async fn release(
        &self,
        digest: Digest,
        force: bool,
        author: &str,
    ) -> Result<(DesiredState, Judgement), ReleaseError> {
        let candidate = self.registry.model(digest).await?;
        let in_force = self.registry.in_force(candidate.model.subject);
        let mut judgement = match self.judge_beside(candidate, in_force).await {
            // Whoever says force knows better, also where there is nothing to judge by.
            Err(error) if force => Judgement { reasons: vec![error.to_string()], ..Judgement::default() },
            judged => judged?,
        };
        judgement.forced = force && judgement.verdict == Verdict::Hold;
        if !judgement.lets_pass() {
            return Err(ReleaseError::Held(Box::new(judgement)));
        }
        if judgement.forced {
            let reasons = judgement.reasons.join("; ");
            tracing::warn!(model = %digest, operator = author, reasons, "a model was released that the gate holds");
        }
        let state = self.registry.push(digest, author, (&judgement, in_force)).await?;
        Ok((state, judgement))
    }

    async fn judge_beside(&self, candidate: ModelRecord, in_force: Option<Digest>) -> Result<Judgement, ReleaseError> {
        let history = self.registry.history(candidate.model.digest).await?;
        if history.iter().any(|change| change.stage == Stage::Production) {
            return Ok(Judgement { verdict: Verdict::Promote, is_return: true, ..Judgement::default() });
        }
        let case = self.case(candidate, in_force).await?;
        let turn = Arc::clone(&self.judging).acquire_owned().await.map_err(|_| ReleaseError::Panicked)?;
        let (datasets, policy) = (self.datasets.clone(), self.policy);
        let judge = move || {
            // Held by the thread: whoever asked may be gone before it has noticed.
            let _held = turn;
            case.judge(&datasets, &policy)
        };
        tokio::task::spawn_blocking(judge).await.map_err(|_| ReleaseError::Panicked)?
    }

    /// Everything that is needed to judge, but the rows.
    async fn case(&self, candidate: ModelRecord, in_force: Option<Digest>) -> Result<Case, ReleaseError> {
        let dataset = self.datasets.get(&candidate.model.dataset_id).await?;
        let scorer = if candidate.model.run.refit {
            let kept = self.registry.held_out(candidate.model.digest).await?;
            Scorer::Kept { threshold: kept.threshold, scores: kept.scores }
        } else {
            self.scorer(candidate.model.digest).await?
        };
        let mut beside = None;
        if let Some(digest) = in_force {
            let record = self.registry.model(digest).await?;
            let other = self.datasets.get(&record.model.dataset_id).await?;
            // Whoever judges by other features cannot score these rows.
            if other.manifest.feature_spec.sha256 == dataset.manifest.feature_spec.sha256 {
                beside = Some((record, other, self.scorer(digest).await?));
            }
        }
        Ok(Case { dataset, scorer, beside })
    }

    async fn scorer(&self, digest: Digest) -> Result<Scorer, ReleaseError> {
        let file = self.registry.file(digest).await?;
        let parsed = Model::parse(&file).map_err(|error| ReleaseError::Model(digest, error))?;
        Ok(Scorer::Model(Box::new(parsed)))
    }
}

/// What gives rows their scores.
enum Scorer {
    Model(Box<Model>),
    /// Scores of the whole test part, in its order.
    Kept {
        threshold: f64,
        scores: Vec<f64>,
    },
}

impl Scorer {
    fn threshold(&self) -> f64 {
        match self {
            Self::Model(model) => model.metadata().threshold,
            Self::Kept { threshold, .. } => *threshold,
        }
    }

    fn score(&self, rows: &Rows, row: usize) -> Option<f64> {
        match self {
            Self::Model(model) => Some(model.score(rows.values(row))),
            Self::Kept { scores, .. } => scores.get(row).copied(),
        }
    }
}

/// A model and the one in force.
struct Case {
    dataset: DatasetRecord,
    scorer: Scorer,
    beside: Option<(ModelRecord, DatasetRecord, Scorer)>,
}

impl Case {
    fn judge(&self, datasets: &Datasets, policy: &Policy) -> Result<Judgement, ReleaseError> {
        let [_, test] = datasets.read_rows(&self.dataset)?;
        let learned = match &self.beside {
            Some((record, dataset, _)) => Learned::of(record, datasets.read_rows(dataset)?),
            None => Learned::default(),
        };
        let rows: Vec<usize> = (0..test.len()).filter(|row| !learned.has(&test, *row)).collect();
        let rows_left_out = (test.len() - rows.len()) as u64;
        let beside = self.beside.as_ref().map(|(record, ..)| record.model.digest.to_string());
        if rows.is_empty() {
            let reason = format!(
                "the model in force has learned from all its {rows_left_out} held-out rows: build a data set with later labels"
            );
            let reasons = vec![reason];
            return Ok(Judgement { reasons, in_force: beside, rows_left_out, ..Judgement::default() });
        }
        let candidate = self.evaluate(&self.scorer, &test, &rows)?;
        let in_force = match &self.beside {
            Some((.., scorer)) => Some(self.evaluate(scorer, &test, &rows)?),
            None => None,
        };
        let decision = gate::decide(&candidate, in_force.as_ref(), policy);
        Ok(Judgement {
            verdict: decision.verdict,
            reasons: decision.reasons,
            in_force: beside,
            rows: candidate.rows,
            malicious: candidate.positives,
            rows_left_out,
            figures: figures(&candidate, in_force.as_ref()),
            ..Judgement::default()
        })
    }

    fn evaluate(&self, scorer: &Scorer, test: &Rows, rows: &[usize]) -> Result<Report, ReleaseError> {
        let scored: Vec<ScoredRow<'_>> = rows
            .iter()
            .filter_map(|row| {
                let info = &test.info[*row];
                let score = scorer.score(test, *row)?;
                Some(ScoredRow { score, malicious: info.malicious, technique: &info.technique, group: &info.group })
            })
            .collect();
        let known = self.dataset.manifest.file(Part::Train)?.techniques.keys().cloned().collect();
        let options =
            evaluate::Options { threshold: scorer.threshold(), known_techniques: &known, resamples: 0, seed: 0 };
        Ok(evaluate::evaluate(&scored, &options)?)
    }
}

/// What the model in force learned from.
#[derive(Default)]
struct Learned {
    events: BTreeSet<EventId>,
    groups: BTreeSet<String>,
}

impl Learned {
    fn of(record: &ModelRecord, [train, test]: [Rows; 2]) -> Self {
        let test = if record.model.run.refit { test.info } else { Vec::new() };
        let mut learned = Self::default();
        for info in train.info.into_iter().chain(test) {
            learned.events.insert(info.event);
            learned.groups.insert(info.group);
        }
        learned
    }

    fn has(&self, rows: &Rows, row: usize) -> bool {
        let info = &rows.info[row];
        self.events.contains(&info.event) || self.groups.contains(&info.group)
    }
}

fn figures(candidate: &Report, in_force: Option<&Report>) -> Vec<JudgedFigure> {
    type Figure = fn(&Report) -> Option<f64>;
    let all: [(&str, Figure); 5] = [
        ("recall_at_1pct_fpr", |report| report.recall_at_1pct_fpr),
        ("pr_auc", |report| report.pr_auc),
        ("roc_auc", |report| report.roc_auc),
        ("recall", |report| report.recall),
        ("false_positive_rate", |report| report.false_positive_rate),
    ];
    all.map(|(name, of)| JudgedFigure {
        name: name.to_owned(),
        candidate: of(candidate),
        in_force: in_force.and_then(of),
    })
    .into()
}
