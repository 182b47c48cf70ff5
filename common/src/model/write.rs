//! From a draft to signed bytes.

use ed25519_dalek::{Signer as _, SigningKey};

use crate::feature::{MISSING, Subject};
use crate::id::Digest;
use crate::model::body;
use crate::model::cursor::Tag;
use crate::model::read::{self, FORMAT_VERSION, LOG_ODDS, MAGIC, PATH_LENGTH, PROBABILITY};
use crate::model::trees::write_trees;
use crate::model::{Algorithm, Model, ModelBody, ModelDraft, ModelError, Section, limits};

impl ModelDraft {
    /// Encodes and signs the model. What comes out is read back before it is returned, so that nothing leaves here
    /// that an agent would refuse.
    ///
    /// # Errors
    /// [`ModelError`] when the draft contradicts itself or breaks a limit or rule of the format.
    pub fn encode(&self, key: &SigningKey) -> Result<Vec<u8>, ModelError> {
        self.check_shape()?;
        let mut bytes = Vec::new();
        self.write_header(&mut bytes)?;
        if !self.imputation.is_empty() {
            write_section(&mut bytes, Tag::Imputation, |out| {
                self.imputation.iter().for_each(|value| write_value(out, *value));
                Ok(())
            })?;
        }
        match &self.body {
            ModelBody::Forest(trees) => write_section(&mut bytes, Tag::Trees, |out| {
                write_trees(out, trees, self.metadata.feature_count, &PROBABILITY)
            })?,
            ModelBody::Boosting { base_score, trees } => write_section(&mut bytes, Tag::Boosting, |out| {
                out.extend(base_score.to_le_bytes());
                write_trees(out, trees, self.metadata.feature_count, &LOG_ODDS)
            })?,
            ModelBody::IsolationForest { normaliser, trees } => write_section(&mut bytes, Tag::Isolation, |out| {
                out.extend(normaliser.to_le_bytes());
                write_trees(out, trees, self.metadata.feature_count, &PATH_LENGTH)
            })?,
            ModelBody::Linear { weights, bias, mean, inverse_scale } => {
                write_section(&mut bytes, Tag::Linear, |out| {
                    out.extend(bias.to_le_bytes());
                    for ((weight, mean), inverse_scale) in weights.iter().zip(mean).zip(inverse_scale) {
                        out.extend([*weight, *mean, *inverse_scale].iter().flat_map(|number| number.to_le_bytes()));
                    }
                    Ok(())
                })?;
            }
            ModelBody::Additive { bias, features } => {
                write_section(&mut bytes, Tag::Steps, |out| body::write_steps(out, *bias, features))?;
            }
            ModelBody::Network { scaling, layers } => {
                write_section(&mut bytes, Tag::Network, |out| body::write_network(out, scaling, layers))?;
            }
            ModelBody::Kernel { scaling, gamma, bias, coefficients, centres } => {
                write_section(&mut bytes, Tag::Kernel, |out| {
                    body::write_kernel(out, scaling, [*gamma, *bias], coefficients, centres)
                })?;
            }
        }
        if let Some(calibration) = &self.calibration {
            write_section(&mut bytes, Tag::Calibration, |out| body::write_calibration(out, calibration))?;
        }
        let untested = read::parse_untested(&bytes)?;
        write_section(&mut bytes, Tag::SelfTest, |out| self.write_self_test(out, &untested))?;
        let signed = seal(bytes, key);
        Model::verify(&signed, &[key.verifying_key()])?;
        Ok(signed)
    }

    /// Lengths that must agree before anything is written.
    fn check_shape(&self) -> Result<(), ModelError> {
        let features = self.metadata.feature_count;
        if !self.imputation.is_empty() && self.imputation.len() != features {
            return Err(draft("imputation needs one value per feature, or none at all"));
        }
        if self.self_test.iter().any(|row| row.len() != features) {
            return Err(draft("a self-test row needs one value per feature"));
        }
        match (&self.body, self.metadata.algorithm) {
            (ModelBody::Forest(trees), Algorithm::DecisionTree) if trees.len() != 1 => {
                Err(draft("a decision tree is exactly one tree"))
            }
            (
                ModelBody::Forest(_),
                Algorithm::DecisionTree | Algorithm::RandomForest | Algorithm::ExtraTrees | Algorithm::VotingForest,
            ) => Ok(()),
            (ModelBody::Boosting { .. }, Algorithm::GradientBoosting)
            | (ModelBody::IsolationForest { .. }, Algorithm::IsolationForest) => Ok(()),
            (ModelBody::Linear { weights, mean, inverse_scale, .. }, Algorithm::LogisticRegression) => {
                if [weights, mean, inverse_scale].iter().any(|list| list.len() != features) {
                    return Err(draft("a linear model needs one weight, mean and inverse scale per feature"));
                }
                Ok(())
            }
            (ModelBody::Additive { features: steps, .. }, Algorithm::NaiveBayes) => {
                if steps.len() == features {
                    Ok(())
                } else {
                    Err(draft("naive Bayes needs steps for each feature"))
                }
            }
            (ModelBody::Network { scaling, .. }, Algorithm::LinearSvm | Algorithm::NeuralNetwork)
            | (ModelBody::Kernel { scaling, .. }, Algorithm::RbfSvm) => {
                if scaling.len() == features {
                    Ok(())
                } else {
                    Err(draft("a scaling is needed for each feature"))
                }
            }
            _ => Err(draft("the body does not belong to the algorithm")),
        }
    }

    fn write_header(&self, out: &mut Vec<u8>) -> Result<(), ModelError> {
        let metadata = &self.metadata;
        let name = metadata.training_run.as_bytes();
        let limit = limits::TRAINING_RUN_BYTES_MAX;
        if name.len() > limit {
            return Err(ModelError::Limit {
                what: "bytes in the training run's name",
                count: name.len() as u64,
                limit: limit as u64,
                section: Section::Header,
            });
        }
        out.extend(MAGIC);
        out.extend(FORMAT_VERSION.to_le_bytes());
        out.push(algorithm_code(metadata.algorithm));
        out.push(subject_code(metadata.subject));
        out.extend(length(metadata.feature_count, "features", Section::Header)?);
        out.extend(metadata.feature_spec_hash.as_bytes());
        out.extend(metadata.threshold.to_le_bytes());
        out.extend(metadata.dataset_digest.as_bytes());
        out.extend(metadata.created.0.to_le_bytes());
        out.push(u8::try_from(name.len()).map_err(|_| draft("the training run's name is too long"))?);
        out.extend(name);
        out.extend(std::iter::repeat_n(0, limit - name.len()));
        Ok(())
    }

    fn write_self_test(&self, out: &mut Vec<u8>, model: &Model) -> Result<(), ModelError> {
        out.extend(length(self.self_test.len(), "self-test rows", Section::SelfTest)?);
        for row in &self.self_test {
            row.iter().for_each(|value| write_value(out, *value));
            out.extend(model.score(row).to_le_bytes());
        }
        Ok(())
    }
}

/// Appends checksum, key id and signature.
pub(super) fn seal(mut content: Vec<u8>, key: &SigningKey) -> Vec<u8> {
    let checksum = Digest::of(&content);
    content.extend(checksum.as_bytes());
    content.extend(Digest::of(key.verifying_key().as_bytes()).as_bytes());
    let signature = key.sign(&content);
    content.extend(signature.to_bytes());
    content
}

pub(super) fn algorithm_code(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::DecisionTree => 1,
        Algorithm::RandomForest => 2,
        Algorithm::LogisticRegression => 3,
        Algorithm::ExtraTrees => 4,
        Algorithm::VotingForest => 5,
        Algorithm::GradientBoosting => 6,
        Algorithm::NaiveBayes => 7,
        Algorithm::LinearSvm => 8,
        Algorithm::RbfSvm => 9,
        Algorithm::NeuralNetwork => 10,
        Algorithm::IsolationForest => 11,
    }
}

pub(super) fn subject_code(subject: Subject) -> u8 {
    match subject {
        Subject::ProcessStart => 1,
        Subject::Connection => 2,
    }
}

fn write_section(
    bytes: &mut Vec<u8>,
    tag: Tag,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    bytes.extend(tag.code().to_le_bytes());
    let length_at = bytes.len();
    bytes.extend([0; 4]);
    content(bytes)?;
    let written = length(bytes.len() - length_at - 4, "bytes in a section", tag.section())?;
    bytes[length_at..length_at + 4].copy_from_slice(&written);
    Ok(())
}

/// Missing has one bit pattern in files too.
fn write_value(out: &mut Vec<u8>, value: f32) {
    let value = if value.is_nan() { MISSING } else { value };
    out.extend(value.to_le_bytes());
}

pub(super) fn length(count: usize, what: &'static str, section: Section) -> Result<[u8; 4], ModelError> {
    u32::try_from(count).map(u32::to_le_bytes).map_err(|_| ModelError::Limit {
        what,
        count: count as u64,
        limit: u64::from(u32::MAX),
        section,
    })
}

pub(super) fn draft(what: &'static str) -> ModelError {
    ModelError::Draft { what }
}
