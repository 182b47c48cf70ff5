//! What a data set is made of, for ever.

use std::collections::BTreeMap;

use picket_common::feature::{FeatureSpec, Subject};
use picket_common::id::Digest;
use serde::{Deserialize, Serialize};

use crate::dataset::split::SplitRule;

/// Version of the manifest's form.
pub const MANIFEST_FORMAT: u32 = 1;
/// Hexadecimal digits of the digest in a data set's id.
const ID_DIGITS: usize = 12;

/// `manifest.json`. Keys are stable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// What the rows are: `process_start` or `connection`.
    pub subject: String,
    /// The features, in the order of the columns.
    pub feature_spec: ManifestSpec,
    /// The version of each of the lake's tables that was read.
    pub lake_versions: BTreeMap<String, u64>,
    /// Labels with an id up to this one were in force.
    pub label_snapshot: u64,
    /// What became of the labels.
    pub labels: LabelCounts,
    /// How rows were divided.
    pub split: ManifestSplit,
    /// The files.
    pub files: Vec<ManifestFile>,
}

/// The features of the rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestSpec {
    /// Version of the specification.
    pub version: u32,
    /// Its hash.
    pub sha256: String,
    /// Names, in order.
    pub features: Vec<String>,
}

/// What became of the labels in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelCounts {
    /// Labels in force at the snapshot.
    pub in_force: u64,
    /// Those that became rows.
    pub rows: u64,
    /// Those whose event is no subject of this data set (another class of event, or one that only gives context).
    pub not_a_subject: u64,
    /// Those whose event these versions of the lake do not have.
    pub event_missing: u64,
}

/// How rows were divided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestSplit {
    /// The rule that was used.
    pub rule: SplitRule,
    /// The share that was wanted for the test part.
    pub test_fraction: f64,
    /// The first row of the test part's earliest group, nanoseconds since 1970.
    pub boundary_unix_ns: i64,
    /// Rows removed from the test part because the training part has them too.
    pub duplicates_removed: u64,
    /// Rows of the test part whose values a training row has with the other label.
    pub contradictions: u64,
}

/// A file of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// `train` or `test`.
    pub part: Part,
    /// Its name in the data set's folder.
    pub name: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
    /// Malicious ones.
    pub malicious: u64,
    /// Groups in it.
    pub groups: u64,
    /// Malicious rows by technique; those without are not counted.
    pub techniques: BTreeMap<String, u64>,
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// To learn from.
    Train,
    /// To evaluate on.
    Test,
}

impl Part {
    /// Both parts.
    pub const ALL: [Self; 2] = [Self::Train, Self::Test];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }

    /// The name of its file.
    pub fn file_name(self) -> String {
        format!("{}.parquet", self.name())
    }
}

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of this form.
    #[error("the manifest is not readable: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer server.
    #[error("the manifest has format {0}, this server knows {MANIFEST_FORMAT}")]
    Format(u32),
    /// A part has no file.
    #[error("the manifest names no file for the part {0}")]
    NoFile(&'static str),
    /// Not a subject of this server.
    #[error("the manifest's subject {0:?} is unknown")]
    Subject(String),
}

impl ManifestSpec {
    /// The features of a specification.
    pub fn of(spec: &FeatureSpec) -> Self {
        Self {
            version: spec.version,
            sha256: spec.hash().to_string(),
            features: spec.features.iter().map(|feature| feature.name.to_owned()).collect(),
        }
    }
}

impl Manifest {
    /// The bytes of `manifest.json`: the same manifest always gives the same bytes.
    ///
    /// # Errors
    /// [`ManifestError::Json`] when a number is not finite.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.format != MANIFEST_FORMAT {
            return Err(ManifestError::Format(manifest.format));
        }
        Ok(manifest)
    }

    /// The file of a part.
    ///
    /// # Errors
    /// [`ManifestError::NoFile`].
    pub fn file(&self, part: Part) -> Result<&ManifestFile, ManifestError> {
        self.files.iter().find(|file| file.part == part).ok_or(ManifestError::NoFile(part.name()))
    }

    /// What the rows are.
    ///
    /// # Errors
    /// [`ManifestError::Subject`].
    pub fn subject(&self) -> Result<Subject, ManifestError> {
        self.subject.parse().map_err(|_| ManifestError::Subject(self.subject.clone()))
    }
}

/// The id of the data set with this digest.
pub fn dataset_id(subject: Subject, digest: Digest) -> String {
    let digest = digest.to_string();
    format!("{subject}-{}", &digest[..ID_DIGITS])
}
