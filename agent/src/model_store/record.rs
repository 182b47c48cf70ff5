//! `active.json`: what is in force, as it lies on disk.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use picket_common::feature::Subject;
use picket_common::id::Digest;
use serde::{Deserialize, Serialize};

use crate::state_file;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// The highest generation of the desired state ever seen.
    pub(crate) generation: u64,
    subjects: BTreeMap<Subject, SubjectRecord>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SubjectRecord {
    pub(crate) current: Option<StoredModel>,
    pub(crate) previous: Option<StoredModel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredModel {
    pub(crate) digest: Digest,
    pub(crate) version: u64,
    /// Of the desired state that brought it.
    pub(crate) generation: u64,
}

#[derive(Serialize, Deserialize)]
struct RecordJson {
    generation: u64,
    #[serde(default)]
    subjects: BTreeMap<String, SubjectJson>,
}

#[derive(Serialize, Deserialize)]
struct SubjectJson {
    current: Option<StoredJson>,
    previous: Option<StoredJson>,
}

#[derive(Serialize, Deserialize)]
struct StoredJson {
    digest: String,
    version: u64,
    generation: u64,
}

impl Record {
    pub(crate) fn subject(&self, subject: Subject) -> SubjectRecord {
        self.subjects.get(&subject).copied().unwrap_or_default()
    }

    pub(crate) fn subject_mut(&mut self, subject: Subject) -> &mut SubjectRecord {
        self.subjects.entry(subject).or_default()
    }

    /// Reads the file; the empty record when there is none.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let Some(content) = state_file::read_limited(path, FILE_BYTES_MAX)? else { return Ok(Self::default()) };
        let json: RecordJson = serde_json::from_slice(&content)?;
        let mut record = Self { generation: json.generation, subjects: BTreeMap::new() };
        for (name, entry) in json.subjects {
            let subject: Subject = name.parse().map_err(io::Error::other)?;
            let current = entry.current.map(StoredModel::try_from).transpose()?;
            let previous = entry.previous.map(StoredModel::try_from).transpose()?;
            record.subjects.insert(subject, SubjectRecord { current, previous });
        }
        Ok(record)
    }

    /// Replaces the file, durably.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let subjects = self
            .subjects
            .iter()
            .map(|(subject, entry)| {
                let entry = SubjectJson {
                    current: entry.current.map(StoredJson::from),
                    previous: entry.previous.map(StoredJson::from),
                };
                (subject.name().to_owned(), entry)
            })
            .collect();
        let content = serde_json::to_vec_pretty(&RecordJson { generation: self.generation, subjects })?;
        state_file::replace(path, &content, true)
    }
}

impl TryFrom<StoredJson> for StoredModel {
    type Error = io::Error;

    fn try_from(json: StoredJson) -> io::Result<Self> {
        let digest = json.digest.parse().map_err(io::Error::other)?;
        Ok(Self { digest, version: json.version, generation: json.generation })
    }
}

impl From<StoredModel> for StoredJson {
    fn from(model: StoredModel) -> Self {
        Self { digest: model.digest.to_string(), version: model.version, generation: model.generation }
    }
}
