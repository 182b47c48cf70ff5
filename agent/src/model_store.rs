//! Models on disk: what was verified, what is in force, what was in force before.
//!
//! A model gets in force only after: its digest is the announced one, a trusted key signed it, its feature
//! specification is the one compiled in, its structure is proven and its self-test reproduced (`common::model`), and it
//! is durable on disk. Activation is the replacement of one small file; the model before stays beside it. At start a
//! current model that is damaged gives way to the previous one.
//!
//! Never back: the highest generation of the desired state ever seen is kept, durably and *before* anything of it is
//! activated; a lower one is refused, and so is a lower version of a model without a higher generation.
//!
//! Layout of the folder: `<digest>.model` files and `active.json`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use picket_common::feature::{FeatureSpec, Subject};
use picket_common::id::Digest;
use picket_common::model::limits::MODEL_BYTES_MAX;
use picket_common::model::{Model, ModelError};

pub use crate::model_store::active::{ActiveModel, ActiveModels};
use crate::model_store::record::{Record, StoredModel};
use crate::state_file;

mod active;
mod record;
#[cfg(test)]
pub(crate) mod tests;

/// What the server wants to be in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredState {
    /// Grows with each change.
    pub generation: u64,
    /// At most one for each subject.
    pub models: Vec<DesiredModel>,
}

/// One model of a [`DesiredState`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredModel {
    /// What it judges.
    pub subject: Subject,
    /// SHA-256 of its file.
    pub digest: Digest,
    /// Length of its file.
    pub bytes: u64,
    /// The registry's version.
    pub version: u64,
}

/// Why a model is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ModelStoreError {
    /// An older desired state.
    #[error("refused desired state {offered}: generation {seen} was seen already")]
    GenerationRollback {
        /// What was offered.
        offered: u64,
        /// The highest so far.
        seen: u64,
    },
    /// An older model without a newer desired state.
    #[error("refused version {offered} of the model: version {current} is in force, and the generation is the same")]
    VersionRollback {
        /// What was offered.
        offered: u64,
        /// What is in force.
        current: u64,
    },
    /// More than any model may have.
    #[error("the model has {bytes} bytes, more than {MODEL_BYTES_MAX}")]
    TooLarge {
        /// Its announced length.
        bytes: u64,
    },
    /// Not the announced length.
    #[error("the model has {found} bytes, {expected} were announced")]
    Length {
        /// Announced.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// Not the announced file.
    #[error("the model's SHA-256 is {found}, {expected} was announced")]
    Digest {
        /// Announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Not for this subject.
    #[error("the model judges {found}, {expected} was announced")]
    Subject {
        /// Announced.
        expected: Subject,
        /// What came.
        found: Subject,
    },
    /// The file itself.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The folder cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// See the module documentation. Its methods block on the disk.
#[derive(Debug)]
pub struct ModelStore {
    folder: PathBuf,
    trusted: Vec<VerifyingKey>,
    record: Record,
    active: Arc<ActiveModels>,
}

impl ModelStore {
    /// Opens the store in `folder` (made when there is none) and puts in force what was in force, as far as one of
    /// the `trusted` keys signed it.
    ///
    /// # Errors
    /// [`ModelStoreError::File`]. Damaged models are no error; see [`ActiveModels`].
    pub fn open(folder: &Path, trusted: Vec<VerifyingKey>) -> Result<Self, ModelStoreError> {
        let error = |source| ModelStoreError::File { path: folder.to_owned(), source };
        state_file::make_private_folder(folder).map_err(error)?;
        let record = Record::load(&folder.join("active.json")).map_err(error)?;
        let store = Self { folder: folder.to_owned(), trusted, record, active: Arc::default() };
        store.load_all();
        Ok(store)
    }

    /// What is in force; shared with the detector.
    pub fn active(&self) -> Arc<ActiveModels> {
        Arc::clone(&self.active)
    }

    /// The highest generation seen.
    pub fn generation(&self) -> u64 {
        self.record.generation
    }

    /// Replaces the trusted keys (after enrolment or renewal) and looks again at what could not be trusted before.
    pub fn set_trusted(&mut self, trusted: Vec<VerifyingKey>) {
        if self.trusted != trusted {
            self.trusted = trusted;
            self.load_all();
        }
    }

    /// Takes note of a desired state, durably, and says which of its models must be fetched.
    ///
    /// # Errors
    /// [`ModelStoreError::GenerationRollback`]; [`ModelStoreError::File`].
    pub fn accept(&mut self, desired: &DesiredState) -> Result<Vec<DesiredModel>, ModelStoreError> {
        let seen = self.record.generation;
        if desired.generation < seen {
            let error = ModelStoreError::GenerationRollback { offered: desired.generation, seen };
            for model in &desired.models {
                self.active.set_error(model.subject, error.to_string());
            }
            return Err(error);
        }
        if desired.generation > seen {
            let mut record = self.record.clone();
            record.generation = desired.generation;
            self.save(record)?;
        }
        let mut missing = Vec::new();
        for model in &desired.models {
            if self.active.digest(model.subject) == Some(model.digest) {
                self.active.clear_error(model.subject);
            } else if let Err(error) = self.check_offer(model) {
                self.active.set_error(model.subject, error.to_string());
            } else {
                missing.push(model.clone());
            }
        }
        Ok(missing)
    }

    /// Puts a fetched model in force, or says why not (and shows that in [`ActiveModels`]); the model before then
    /// stays.
    ///
    /// # Errors
    /// [`ModelStoreError`].
    pub fn install(&mut self, desired: &DesiredModel, bytes: &[u8]) -> Result<(), ModelStoreError> {
        let result = self.try_install(desired, bytes);
        if let Err(error) = &result {
            self.active.set_error(desired.subject, error.to_string());
        }
        result
    }

    fn try_install(&mut self, desired: &DesiredModel, bytes: &[u8]) -> Result<(), ModelStoreError> {
        self.check_offer(desired)?;
        if bytes.len() as u64 != desired.bytes {
            return Err(ModelStoreError::Length { expected: desired.bytes, found: bytes.len() as u64 });
        }
        let model = self.verify(desired.subject, desired.digest, bytes)?;
        let path = self.model_path(desired.digest);
        state_file::replace(&path, bytes, true)
            .map_err(|source| ModelStoreError::File { path: path.clone(), source })?;

        let mut record = self.record.clone();
        let generation = record.generation;
        let entry = record.subject_mut(desired.subject);
        let new = StoredModel { digest: desired.digest, version: desired.version, generation };
        // What was really in force, not a current one that turned out to be damaged.
        let in_force = self.active.digest(desired.subject);
        let before = [entry.current, entry.previous].into_iter().flatten().find(|model| Some(model.digest) == in_force);
        entry.previous = before.or(entry.previous).filter(|model| model.digest != new.digest);
        entry.current = Some(new);
        self.save(record)?;
        self.active.set(desired.subject, Arc::new(model));
        self.remove_unused();
        Ok(())
    }

    /// What can be said before the file is there.
    fn check_offer(&self, desired: &DesiredModel) -> Result<(), ModelStoreError> {
        if desired.bytes > MODEL_BYTES_MAX as u64 {
            return Err(ModelStoreError::TooLarge { bytes: desired.bytes });
        }
        match self.record.subject(desired.subject).current {
            Some(current) if current.generation == self.record.generation && desired.version < current.version => {
                Err(ModelStoreError::VersionRollback { offered: desired.version, current: current.version })
            }
            _ => Ok(()),
        }
    }

    fn verify(&self, subject: Subject, digest: Digest, bytes: &[u8]) -> Result<Model, ModelStoreError> {
        let found = Digest::of(bytes);
        if found != digest {
            return Err(ModelStoreError::Digest { expected: digest, found });
        }
        let model = Model::verify(bytes, &self.trusted)?;
        if model.metadata().subject != subject {
            return Err(ModelStoreError::Subject { expected: subject, found: model.metadata().subject });
        }
        model.check_spec(FeatureSpec::v1(subject))?;
        Ok(model)
    }

    fn load_all(&self) {
        for subject in Subject::ALL {
            let entry = self.record.subject(subject);
            let mut error = None;
            for stored in [entry.current, entry.previous].into_iter().flatten() {
                match self.load(subject, stored.digest) {
                    Ok(model) => {
                        self.active.set(subject, Arc::new(model));
                        break;
                    }
                    Err(problem) => {
                        tracing::warn!(%subject, digest = %stored.digest, error = %problem, "a model cannot be used");
                        error.get_or_insert_with(|| problem.to_string());
                    }
                }
            }
            if let Some(error) = error {
                self.active.set_error(subject, error);
            }
        }
    }

    fn load(&self, subject: Subject, digest: Digest) -> Result<Model, ModelStoreError> {
        let path = self.model_path(digest);
        let error = |source| ModelStoreError::File { path: path.clone(), source };
        let bytes = state_file::read_limited(&path, MODEL_BYTES_MAX as u64)
            .map_err(error)?
            .ok_or_else(|| error(io::ErrorKind::NotFound.into()))?;
        self.verify(subject, digest, &bytes)
    }

    fn save(&mut self, record: Record) -> Result<(), ModelStoreError> {
        let path = self.folder.join("active.json");
        record.save(&path).map_err(|source| ModelStoreError::File { path, source })?;
        self.record = record;
        Ok(())
    }

    fn model_path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}.model"))
    }

    /// Removes model files that are neither current nor previous. Best effort: they only take space.
    fn remove_unused(&self) {
        let used: BTreeSet<PathBuf> = Subject::ALL
            .into_iter()
            .map(|subject| self.record.subject(subject))
            .flat_map(|entry| [entry.current, entry.previous])
            .flatten()
            .map(|model| self.model_path(model.digest))
            .collect();
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_model = path.extension().is_some_and(|extension| extension == "model");
            if is_model && !used.contains(&path) {
                drop(fs::remove_file(&path));
            }
        }
    }
}
