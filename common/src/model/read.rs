//! From bytes to a proven model.

use std::ops::RangeInclusive;

use ed25519_dalek::{Signature, VerifyingKey};

use crate::event::Timestamp;
use crate::feature::Subject;
use crate::id::Digest;
use crate::model::body;
use crate::model::boosting::Boosting;
use crate::model::cursor::{Cursor, Tag, limit};
use crate::model::forest::Forest;
use crate::model::isolation::Isolation;
use crate::model::linear::{Linear, Term};
use crate::model::trees::read_trees;
use crate::model::write::{algorithm_code, subject_code};
use crate::model::{Algorithm, Body, Model, ModelError, ModelMetadata, Section, limits};

pub(super) const MAGIC: [u8; 8] = *b"PKTMODEL";
pub(super) const FORMAT_VERSION: u16 = 2;
const SIGNATURE_BYTES: usize = 64;
const DIGEST_BYTES: usize = 32;
/// What a leaf's value may be in a forest …
pub(super) const PROBABILITY: RangeInclusive<f64> = 0.0..=1.0;
/// … in boosting, in log-odds …
pub(super) const LOG_ODDS: RangeInclusive<f64> = -limits::LOG_ODDS_MAX..=limits::LOG_ODDS_MAX;
/// … and in an isolation forest, in edges.
pub(super) const PATH_LENGTH: RangeInclusive<f64> = 0.0..=limits::PATH_LENGTH_MAX;
/// The shortest mean path: that of two rows.
const NORMALISER_MIN: f64 = 1.0;

/// The file cut into what is signed, its key id and its signature.
struct Envelope<'a> {
    content: &'a [u8],
    checksum: Digest,
    key_id: Digest,
    signed: &'a [u8],
    signature: Signature,
}

fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, ModelError> {
    if bytes.len() > limits::MODEL_BYTES_MAX {
        return Err(limit("bytes", bytes.len(), limits::MODEL_BYTES_MAX, Section::Header));
    }
    if bytes.len() >= MAGIC.len() && !bytes.starts_with(&MAGIC) {
        return Err(ModelError::NotAModel);
    }
    let truncated = ModelError::Truncated { section: Section::Trailer, offset: bytes.len() };
    let (signed, signature) = bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or_else(|| truncated.clone())?;
    let (rest, key_id) = signed.split_last_chunk::<DIGEST_BYTES>().ok_or_else(|| truncated.clone())?;
    let (content, checksum) = rest.split_last_chunk::<DIGEST_BYTES>().ok_or(truncated)?;
    Ok(Envelope {
        content,
        checksum: Digest::from_bytes(*checksum),
        key_id: Digest::from_bytes(*key_id),
        signed,
        signature: Signature::from_bytes(signature),
    })
}

/// Checks that a trusted key signed these bytes.
pub(super) fn check_signature(bytes: &[u8], trusted: &[VerifyingKey]) -> Result<(), ModelError> {
    let envelope = envelope(bytes)?;
    let key = trusted
        .iter()
        .find(|key| Digest::of(key.as_bytes()) == envelope.key_id)
        .ok_or(ModelError::UntrustedKey(envelope.key_id))?;
    key.verify_strict(envelope.signed, &envelope.signature).map_err(|_| ModelError::Signature(envelope.key_id))
}

/// Checksum, structure, self-test.
pub(super) fn parse(bytes: &[u8]) -> Result<Model, ModelError> {
    let envelope = envelope(bytes)?;
    // Said before the checksum is judged: another version may seal its files otherwise.
    if let Some(version) = envelope.content.get(MAGIC.len()..MAGIC.len() + 2) {
        check_version(u16::from_le_bytes([version[0], version[1]]))?;
    }
    if Digest::of(envelope.content) != envelope.checksum {
        return Err(ModelError::Checksum);
    }
    let mut model = parse_content(envelope.content)?;
    model.id = Digest::of(bytes);
    model.key_id = envelope.key_id;
    Ok(model)
}

/// What the checksum covers; proven from the first to the last byte.
pub(super) fn parse_content(content: &[u8]) -> Result<Model, ModelError> {
    let mut reader = Cursor::new(content);
    let model = read_model(&mut reader)?;
    read_self_test(&mut reader, &model)?;
    reader.finish(Section::SelfTest)?;
    Ok(model)
}

/// A model before its self-test section is written. Its id and key are not known yet.
pub(super) fn parse_untested(content: &[u8]) -> Result<Model, ModelError> {
    let mut reader = Cursor::new(content);
    let model = read_model(&mut reader)?;
    reader.finish(Section::SelfTest)?;
    Ok(model)
}

fn check_version(version: u16) -> Result<(), ModelError> {
    match version {
        FORMAT_VERSION => Ok(()),
        1..FORMAT_VERSION => Err(ModelError::OutdatedVersion(version)),
        _ => Err(ModelError::UnsupportedVersion(version)),
    }
}

fn read_model(reader: &mut Cursor<'_>) -> Result<Model, ModelError> {
    let metadata = read_header(reader)?;
    let features = metadata.feature_count;
    let imputation = if reader.peek_tag() == Some(Tag::Imputation.code()) {
        read_imputation(&mut reader.section(Tag::Imputation)?, features)?
    } else {
        Vec::new()
    };
    let body = match metadata.algorithm {
        Algorithm::DecisionTree | Algorithm::RandomForest | Algorithm::ExtraTrees | Algorithm::VotingForest => {
            Body::Forest(read_forest(&mut reader.section(Tag::Trees)?, &metadata)?)
        }
        Algorithm::GradientBoosting => Body::Boosting(read_boosting(&mut reader.section(Tag::Boosting)?, &metadata)?),
        Algorithm::IsolationForest => Body::Isolation(read_isolation(&mut reader.section(Tag::Isolation)?, &metadata)?),
        Algorithm::LogisticRegression => Body::Linear(read_linear(&mut reader.section(Tag::Linear)?, features)?),
        Algorithm::NaiveBayes => Body::Additive(body::read_steps(&mut reader.section(Tag::Steps)?, features)?),
        Algorithm::LinearSvm | Algorithm::NeuralNetwork => {
            let hidden_layers_max =
                if metadata.algorithm == Algorithm::NeuralNetwork { limits::LAYERS_MAX - 1 } else { 0 };
            Body::Network(body::read_network(&mut reader.section(Tag::Network)?, features, hidden_layers_max)?)
        }
        Algorithm::RbfSvm => Body::Kernel(body::read_kernel(&mut reader.section(Tag::Kernel)?, features)?),
    };
    let calibration = if reader.peek_tag() == Some(Tag::Calibration.code()) {
        Some(body::read_calibration(&mut reader.section(Tag::Calibration)?)?)
    } else {
        None
    };
    let unknown = Digest::from_bytes([0; DIGEST_BYTES]);
    Ok(Model { metadata, id: unknown, key_id: unknown, imputation, body, calibration })
}

fn read_header(reader: &mut Cursor<'_>) -> Result<ModelMetadata, ModelError> {
    if reader.array::<8>()? != MAGIC {
        return Err(ModelError::NotAModel);
    }
    check_version(reader.u16()?)?;
    let code = reader.u8()?;
    let algorithm = Algorithm::ALL
        .into_iter()
        .find(|algorithm| algorithm_code(*algorithm) == code)
        .ok_or_else(|| reader.malformed("unknown algorithm"))?;
    let code = reader.u8()?;
    let subject = Subject::ALL
        .into_iter()
        .find(|subject| subject_code(*subject) == code)
        .ok_or_else(|| reader.malformed("unknown subject"))?;
    let feature_count = reader.count("features", 1, limits::FEATURES_MAX)?;
    let feature_spec_hash = Digest::from_bytes(reader.array()?);
    let threshold = reader.f64()?;
    if !(0.0..=1.0).contains(&threshold) {
        return Err(reader.malformed("threshold is not between 0 and 1"));
    }
    let dataset_digest = Digest::from_bytes(reader.array()?);
    let created = Timestamp(i64::from_le_bytes(reader.array()?));
    let length = usize::from(reader.u8()?);
    let name: [u8; limits::TRAINING_RUN_BYTES_MAX] = reader.array()?;
    let (name, rest) =
        name.split_at_checked(length).ok_or_else(|| reader.malformed("the training run's name is too long"))?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(reader.malformed("bytes after the training run's name are not zero"));
    }
    let training_run =
        str::from_utf8(name).map_err(|_| reader.malformed("the training run's name is not UTF-8"))?.to_owned();
    Ok(ModelMetadata {
        subject,
        algorithm,
        feature_spec_hash,
        feature_count,
        threshold,
        dataset_digest,
        training_run,
        created,
    })
}

fn read_imputation(reader: &mut Cursor<'_>, features: usize) -> Result<Vec<f32>, ModelError> {
    reader.expect_remaining(features * size_of::<f32>())?;
    let values = (0..features).map(|_| reader.value()).collect::<Result<_, _>>()?;
    reader.finish(Section::Imputation)?;
    Ok(values)
}

fn read_linear(reader: &mut Cursor<'_>, features: usize) -> Result<Linear, ModelError> {
    reader.expect_remaining((1 + 3 * features) * size_of::<f64>())?;
    let bias = reader.coefficient()?;
    let mut terms = Vec::with_capacity(features);
    for _ in 0..features {
        let term =
            Term { weight: reader.coefficient()?, mean: reader.coefficient()?, inverse_scale: reader.coefficient()? };
        if term.inverse_scale < 0.0 {
            return Err(reader.malformed("an inverse scale is negative"));
        }
        terms.push(term);
    }
    reader.finish(Section::Linear)?;
    Ok(Linear { bias, terms })
}

fn read_forest(reader: &mut Cursor<'_>, metadata: &ModelMetadata) -> Result<Forest, ModelError> {
    let forest = read_trees(reader, metadata.feature_count, &PROBABILITY)?;
    if metadata.algorithm == Algorithm::DecisionTree && forest.roots.len() != 1 {
        return Err(reader.malformed("a decision tree is exactly one tree"));
    }
    Ok(forest)
}

fn read_boosting(reader: &mut Cursor<'_>, metadata: &ModelMetadata) -> Result<Boosting, ModelError> {
    let base_score = reader.f64()?;
    if !LOG_ODDS.contains(&base_score) {
        return Err(reader.malformed("the base score is not a number or too large"));
    }
    Ok(Boosting { base_score, trees: read_trees(reader, metadata.feature_count, &LOG_ODDS)? })
}

fn read_isolation(reader: &mut Cursor<'_>, metadata: &ModelMetadata) -> Result<Isolation, ModelError> {
    let normaliser = reader.f64()?;
    if !(NORMALISER_MIN..=limits::PATH_LENGTH_MAX).contains(&normaliser) {
        return Err(reader.malformed("the normaliser is no mean path length"));
    }
    Ok(Isolation { normaliser, trees: read_trees(reader, metadata.feature_count, &PATH_LENGTH)? })
}

fn read_self_test(reader: &mut Cursor<'_>, model: &Model) -> Result<(), ModelError> {
    let mut reader = reader.section(Tag::SelfTest)?;
    let features = model.metadata.feature_count;
    let rows = reader.count("self-test rows", 1, limits::SELF_TEST_ROWS_MAX)?;
    reader.expect_remaining(rows * (features * size_of::<f32>() + size_of::<f64>()))?;
    let mut values = Vec::with_capacity(features);
    for row in 0..rows {
        values.clear();
        for _ in 0..features {
            values.push(reader.value()?);
        }
        let expected = u64::from_le_bytes(reader.array()?);
        let computed = model.score(&values).to_bits();
        if expected != computed {
            return Err(ModelError::SelfTest { row, expected, computed });
        }
    }
    reader.finish(Section::SelfTest)
}
