//! The model registry: signed files that never change, what is known of them, and which of them agents should use.
//!
//! * A model file is `<state>/models/<SHA-256>.model`, written once, on the disk before the model is on record.
//! * Versions count up within a subject. Stages go candidate → production → retired and may come back to production (a
//!   roll-back is the push of an older model); every change is a row that stays.
//! * Whether a model may be pushed, the gate says (`release`); what it said is kept with the change of stage.
//! * A push is one transaction: the new generation, the new production model, the retirement of the one before it. Then
//!   the desired state is published; what was published is what was committed, in the same order, also over a restart.
//! * The signing key is Ed25519, made at the first start, in `<state>/model-signing.key` for the server's user alone.
//!   Agents get the verifying key at enrolment.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use picket_common::feature::Subject;
use picket_common::id::Digest;
use picket_common::model::limits::MODEL_BYTES_MAX;
use picket_common::model::{Algorithm, Model, ModelDraft, ModelError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::clock::UnixSeconds;
use crate::fleet::{DesiredState, ModelSource, ModelSourceError};
use crate::metastore::{Metastore, MetastoreError, ModelStore as _};
use crate::secret::{self, SecretError};
use picket_learn::evaluate::Report;
use picket_learn::train::{CalibrationMethod, Confidence, Params, ThresholdChoice};

pub use crate::registry::held_out::HeldOutScores;
pub use crate::registry::judgement::{JudgedFigure, Judgement};

mod held_out;
mod judgement;
#[cfg(test)]
mod tests;

/// Folder of the model files, in the state folder.
const MODELS_FOLDER: &str = "models";
/// File of the signing key, in the state folder: 32 bytes.
const SIGNING_KEY_FILE: &str = "model-signing.key";

/// How far a model has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Trained and evaluated.
    Candidate,
    /// Agents should use it.
    Production,
    /// Another one took its place.
    Retired,
}

impl Stage {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Production => "production",
            Self::Retired => "retired",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown stage: expected candidate, production or retired")]
pub struct UnknownStage;

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        [Self::Candidate, Self::Production, Self::Retired]
            .into_iter()
            .find(|stage| stage.name() == text)
            .ok_or(UnknownStage)
    }
}

/// A change of stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageChange {
    /// The stage from then on.
    pub stage: Stage,
    /// When.
    pub changed: UnixSeconds,
    /// Whose token did it.
    pub author: String,
    /// What the gate said as the model went into production.
    pub judgement: Option<Judgement>,
}

/// How a model came to be: with this and its data set it can be made again, byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its name, also in the model file.
    pub training_run: String,
    /// Seed.
    pub seed: u64,
    /// Whether the model was fitted anew on all rows after its evaluation: then the evaluation is that of a model with
    /// the same parameters that did not see the test part.
    pub refit: bool,
    /// Parameters the model was fitted with.
    pub params: Params,
    /// Whether it learned from those rows of each attack that show it, not from all.
    pub witnesses: bool,
    /// Version of the server that trained it.
    pub code_version: String,
    /// Digest of the data set, hexadecimal.
    pub dataset_digest: String,
    /// Folds of the validation.
    pub folds: usize,
    /// How many times the rows were dealt into folds for the threshold.
    #[serde(default = "once")]
    pub foldings: usize,
    /// Whether groups were whole in them.
    pub folds_grouped: bool,
    /// Parameters that were tried, with their validation scores.
    pub tried: Vec<TriedParams>,
    /// Threshold and how it did on out-of-fold scores.
    pub threshold: ThresholdChoice,
    /// How scores became probabilities.
    #[serde(default)]
    pub calibration: CalibrationMethod,
    /// How surely the budget was to be kept; on average without it.
    #[serde(default)]
    pub confidence: Option<Confidence>,
    /// The search that found the parameters, if there was one.
    #[serde(default)]
    pub search: Option<SearchRecord>,
}

/// A search: with this the same is found again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchRecord {
    /// Names of the algorithms that were searched, in this order.
    pub algorithms: Vec<String>,
    /// Elementary steps it was given.
    pub work: u64,
}

/// What records say that are older than [`RunRecord::foldings`].
fn once() -> usize {
    1
}

/// Parameters that were tried, and how they did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriedParams {
    /// The parameters.
    pub params: Params,
    /// See [`RunRecord::witnesses`].
    pub witnesses: bool,
    /// The tuning score on out-of-fold rows.
    pub score: f64,
}

/// A model to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct NewModel {
    /// SHA-256 of the signed file.
    pub digest: Digest,
    /// What it judges.
    pub subject: Subject,
    /// How.
    pub algorithm: Algorithm,
    /// The data set it learned from.
    pub dataset_id: String,
    /// Length of the file, bytes.
    pub model_bytes: u64,
    /// A score at or above it is an alert.
    pub threshold: f64,
    /// How long the training took.
    pub training_seconds: f64,
    /// How it came to be.
    pub run: RunRecord,
    /// How it does on the test part of its data set.
    pub evaluation: Report,
}

/// A model on record.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRecord {
    /// Its version among the models of its subject, from 1.
    pub version: u64,
    /// Its present stage.
    pub stage: Stage,
    /// When it was recorded.
    pub created: UnixSeconds,
    /// What was recorded.
    pub model: NewModel,
}

/// Why the registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no such model.
    #[error("there is no model {0}")]
    NotFound(Digest),
    /// A file of the registry could not be written or read.
    #[error(transparent)]
    File(#[from] SecretError),
    /// The folder of the models could not be made.
    #[error("cannot make the folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The signing key's file is not a key.
    #[error("{path} has {found} bytes, a signing key has 32: restore it from a backup, agents trust no other")]
    SigningKey {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: usize,
    },
    /// A model file is damaged.
    #[error("the model file {path} is damaged: restore it from a backup, or train again")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The scores of the held-out rows are not there, or damaged.
    #[error(
        "{path} is missing or damaged: it has the scores of the held-out rows by a model that had not seen them. Restore it from \
         a backup, or train again"
    )]
    HeldOut {
        /// The file.
        path: PathBuf,
    },
    /// Another model came in force than the one that a model was judged beside.
    #[error("meanwhile another model came in force than the one that this model was compared with: try again")]
    Overtaken,
    /// A draft cannot be encoded.
    #[error("cannot write the model: {0}")]
    Model(#[from] ModelError),
    /// The metastore failed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
}

/// The registry.
pub struct Registry {
    metastore: Metastore,
    folder: PathBuf,
    key: SigningKey,
    desired: watch::Sender<DesiredState>,
    /// Held from before a push's transaction until its state is published.
    push: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Registry {
    /// Opens the registry in the server's state folder, making its folder and its key when there are none.
    ///
    /// # Errors
    /// [`RegistryError`] when a file or the metastore cannot be used.
    pub async fn open(state: &Path, metastore: Metastore) -> Result<Self, RegistryError> {
        let folder = state.join(MODELS_FOLDER);
        std::fs::create_dir_all(&folder).map_err(|source| RegistryError::Folder { path: folder.clone(), source })?;
        let key = open_key(&state.join(SIGNING_KEY_FILE))?;
        let desired = watch::Sender::new(metastore.desired_state().await?);
        Ok(Self { metastore, folder, key, desired, push: tokio::sync::Mutex::default() })
    }

    /// The key that agents verify models with.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// What agents should be, now and later.
    pub fn subscribe(&self) -> watch::Receiver<DesiredState> {
        self.desired.subscribe()
    }

    /// What agents should be.
    pub fn desired_state(&self) -> DesiredState {
        self.desired.borrow().clone()
    }

    /// Encodes and signs a draft, and reads it back as an agent would. Takes processor time, not I/O.
    ///
    /// # Errors
    /// [`RegistryError::Model`].
    pub fn sign(&self, draft: &ModelDraft) -> Result<SignedModel, RegistryError> {
        let bytes = draft.encode(&self.key)?;
        let model = Model::verify(&bytes, &[self.key.verifying_key()])?;
        Ok(SignedModel { digest: model.id(), model, bytes: bytes.into() })
    }

    /// Keeps a signed model as the next version of its subject, stage candidate. One that is kept already stays as it is.
    ///
    /// # Errors
    /// [`RegistryError::File`], [`RegistryError::Metastore`].
    pub async fn add(
        &self,
        signed: &SignedModel,
        model: &NewModel,
        author: &str,
    ) -> Result<ModelRecord, RegistryError> {
        let (path, bytes) = (self.path(signed.digest), signed.bytes.clone());
        // The file first: a crash between the two leaves a file that nobody asks for.
        blocking(move || {
            if std::fs::read(&path).is_ok_and(|there| there == bytes) {
                return Ok(());
            }
            secret::write_public(&path, &bytes).map_err(RegistryError::from)
        })
        .await?;
        Ok(self.metastore.add_model(model, author, UnixSeconds::now()).await?)
    }

    /// Keeps what a model scored on held-out rows before it was fitted anew on all.
    ///
    /// # Errors
    /// [`RegistryError::File`].
    pub async fn keep_held_out(&self, digest: Digest, scores: &HeldOutScores) -> Result<(), RegistryError> {
        let (path, bytes) = (self.held_out_path(digest), scores.to_bytes());
        blocking(move || Ok(secret::write_public(&path, &bytes)?)).await
    }

    /// What [`Registry::keep_held_out`] kept.
    ///
    /// # Errors
    /// [`RegistryError::HeldOut`].
    pub async fn held_out(&self, digest: Digest) -> Result<HeldOutScores, RegistryError> {
        let path = self.held_out_path(digest);
        blocking(move || {
            let scores = std::fs::read(&path).ok().and_then(|bytes| HeldOutScores::from_bytes(&bytes));
            scores.ok_or(RegistryError::HeldOut { path })
        })
        .await
    }

    /// The model that agents should use for a subject.
    pub fn in_force(&self, subject: Subject) -> Option<Digest> {
        let state = self.desired.borrow();
        state.models.iter().find(|model| model.subject == subject).map(|model| model.digest)
    }

    /// Makes a model the one that every agent should use for its subject, and tells them. `judgement` is what the gate said of
    /// it beside `judged_beside`; it is kept.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Overtaken`] when `judged_beside` is not in force any more;
    /// [`RegistryError::Damaged`] or [`RegistryError::File`] when its file cannot be sent.
    pub async fn push(
        &self,
        digest: Digest,
        author: &str,
        (judgement, judged_beside): (&Judgement, Option<Digest>),
    ) -> Result<DesiredState, RegistryError> {
        let _order = self.push.lock().await;
        let record = self.model(digest).await?;
        if self.in_force(record.model.subject) != judged_beside {
            return Err(RegistryError::Overtaken);
        }
        self.file(digest).await?;
        let state = self
            .metastore
            .desire_model(digest, author, judgement, UnixSeconds::now())
            .await?
            .ok_or(RegistryError::NotFound(digest))?;
        self.desired.send_replace(state.clone());
        Ok(state)
    }

    /// One model.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Metastore`].
    pub async fn model(&self, digest: Digest) -> Result<ModelRecord, RegistryError> {
        self.metastore.model(digest).await?.ok_or(RegistryError::NotFound(digest))
    }

    /// All models or those of a subject, the newest first.
    ///
    /// # Errors
    /// [`RegistryError::Metastore`].
    pub async fn models(&self, subject: Option<Subject>) -> Result<Vec<ModelRecord>, RegistryError> {
        Ok(self.metastore.models(subject).await?)
    }

    /// Every stage a model has been in.
    ///
    /// # Errors
    /// [`RegistryError::Metastore`].
    pub async fn history(&self, digest: Digest) -> Result<Vec<StageChange>, RegistryError> {
        Ok(self.metastore.stage_history(digest).await?)
    }

    /// A model's file, checked against its digest.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`], [`RegistryError::File`].
    pub async fn file(&self, digest: Digest) -> Result<Bytes, RegistryError> {
        let path = self.path(digest);
        blocking(move || {
            let error = |source| SecretError::Read { path: path.clone(), source };
            let length = std::fs::metadata(&path).map_err(error)?.len();
            if length > MODEL_BYTES_MAX as u64 {
                return Err(RegistryError::Damaged { path });
            }
            let bytes = std::fs::read(&path).map_err(error)?;
            if Digest::of(&bytes) == digest { Ok(bytes.into()) } else { Err(RegistryError::Damaged { path }) }
        })
        .await
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}.model"))
    }

    fn held_out_path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}.held-out"))
    }
}

impl ModelSource for Registry {
    async fn model_file(&self, digest: Digest) -> Result<Option<Bytes>, ModelSourceError> {
        let failed = |error: &dyn fmt::Display| ModelSourceError { digest, reason: error.to_string() };
        if self.metastore.model(digest).await.map_err(|error| failed(&error))?.is_none() {
            return Ok(None);
        }
        self.file(digest).await.map(Some).map_err(|error| failed(&error))
    }
}

/// A signed model.
#[derive(Clone, Debug)]
pub struct SignedModel {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// What the file holds.
    pub model: Model,
    /// The file.
    pub bytes: Bytes,
}

fn open_key(path: &Path) -> Result<SigningKey, RegistryError> {
    if path.exists() {
        let bytes = Zeroizing::new(secret::read_private(path)?);
        let key: Zeroizing<[u8; 32]> = Zeroizing::new(
            bytes
                .as_slice()
                .try_into()
                .map_err(|_| RegistryError::SigningKey { path: path.to_owned(), found: bytes.len() })?,
        );
        return Ok(SigningKey::from_bytes(&key));
    }
    let key = Zeroizing::new(secret::random::<32>()?);
    secret::write_private(path, key.as_slice())?;
    Ok(SigningKey::from_bytes(&key))
}

/// Files are read and written on threads that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down.
            Err(_) => Err(RegistryError::File(SecretError::Read {
                path: PathBuf::new(),
                source: std::io::ErrorKind::Interrupted.into(),
            })),
        },
    }
}
