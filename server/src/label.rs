//! Labels: what people and scripts say about events.
//!
//! A label is a row that is only ever added: which event, benign or malicious, which ATT&CK technique, which attack or
//! piece of work it was part of, who says so and where that comes from. A later label of the same event supersedes the
//! earlier ones without removing them, so that *snapshot n*, the labels with an id of at most n, means the same for ever.
//!
//! Only events of the lake can be labelled. A call is all or nothing.

use std::fmt;
use std::str::FromStr;

use picket_common::event::Timestamp;
use picket_common::id::EventId;

use crate::metastore::MetastoreError;

pub use crate::label::service::{Labels, LabelsError};

mod service;

#[cfg(test)]
mod tests;

/// Most labels of one call.
pub const LABELS_PER_CALL_MAX: usize = 10_000;
/// Longest group name, in bytes.
pub const GROUP_BYTES_MAX: usize = 200;
/// Longest source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 64;
/// What a generated group name begins with; no given one may.
pub const GENERATED_GROUP_PREFIX: char = '~';
/// The source of a label that came without one.
const SOURCE_UNSPECIFIED: &str = "unspecified";

/// What an event was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Nothing to worry about.
    Benign,
    /// Part of an attack.
    Malicious,
}

impl Verdict {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Benign => "benign",
            Self::Malicious => "malicious",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Verdict {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        match text {
            "benign" => Ok(Self::Benign),
            "malicious" => Ok(Self::Malicious),
            _ => Err(LabelError::Verdict(text.to_owned())),
        }
    }
}

/// The id of a MITRE ATT&CK technique, `T1046`, or sub-technique, `T1059.004`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Technique(String);

impl Technique {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Technique {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let digits = |part: &str, count| part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
        let well_formed = text.strip_prefix('T').is_some_and(|id| match id.split_once('.') {
            Some((technique, sub_technique)) => digits(technique, 4) && digits(sub_technique, 3),
            None => digits(id, 4),
        });
        if well_formed { Ok(Self(text.to_owned())) } else { Err(LabelError::Technique(text.to_owned())) }
    }
}

/// A label to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    event: EventId,
    verdict: Verdict,
    technique: Option<Technique>,
    group: Option<String>,
    source: String,
}

/// A label's parts as they come from outside.
#[derive(Clone, Copy, Debug)]
pub struct LabelParts<'a> {
    /// Which event.
    pub event: EventId,
    /// What it was.
    pub verdict: Verdict,
    /// ATT&CK id; empty when unknown.
    pub technique: &'a str,
    /// Attack or piece of work; empty when nobody said.
    pub group: &'a str,
    /// `analyst`, `import`, `script` …; empty for "unspecified".
    pub source: &'a str,
}

/// What makes a label unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Not a verdict.
    #[error("no verdict {0:?}: expected benign or malicious")]
    Verdict(String),
    /// Not the id of a technique.
    #[error("no ATT&CK technique id: {0:?}; expected one like T1046 or T1059.004")]
    Technique(String),
    /// Benign events are part of no attack technique.
    #[error("a benign label has no technique, this one has {0}")]
    BenignTechnique(String),
    /// The group's name cannot be used.
    #[error(
        "a group's name has at most {GROUP_BYTES_MAX} bytes, no control characters and no leading \
         `{GENERATED_GROUP_PREFIX}`: {0:?}"
    )]
    Group(String),
    /// The source cannot be used.
    #[error("a source has at most {SOURCE_BYTES_MAX} bytes and no control characters: {0:?}")]
    Source(String),
}

impl Label {
    /// Checks a label's parts.
    ///
    /// # Errors
    /// [`LabelError`] names the part.
    pub fn new(parts: LabelParts<'_>) -> Result<Self, LabelError> {
        let technique = match parts.technique {
            "" => None,
            id if parts.verdict == Verdict::Benign => return Err(LabelError::BenignTechnique(shown(id))),
            id => Some(id.parse().map_err(|_| LabelError::Technique(shown(id)))?),
        };
        let plain = |text: &str, bytes_max| text.len() <= bytes_max && !text.chars().any(char::is_control);
        if !plain(parts.group, GROUP_BYTES_MAX) || parts.group.starts_with(GENERATED_GROUP_PREFIX) {
            return Err(LabelError::Group(shown(parts.group)));
        }
        if !plain(parts.source, SOURCE_BYTES_MAX) {
            return Err(LabelError::Source(shown(parts.source)));
        }
        let source = if parts.source.is_empty() { SOURCE_UNSPECIFIED } else { parts.source };
        Ok(Self {
            event: parts.event,
            verdict: parts.verdict,
            technique,
            group: (!parts.group.is_empty()).then(|| parts.group.to_owned()),
            source: source.to_owned(),
        })
    }

    /// Which event.
    pub fn event(&self) -> EventId {
        self.event
    }

    /// What it was.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// ATT&CK id; empty when unknown or benign.
    pub fn technique(&self) -> &str {
        self.technique.as_ref().map_or("", Technique::as_str)
    }

    /// Attack or piece of work, when somebody said.
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Where the label comes from.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// Enough of a refused text to recognise it.
fn shown(text: &str) -> String {
    const SHOWN_CHARACTERS_MAX: usize = 80;
    text.chars().take(SHOWN_CHARACTERS_MAX).collect()
}

/// A label as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRecord {
    /// Its number; grows with time.
    pub label_id: u64,
    /// What it says.
    pub label: Label,
    /// Whose token added it.
    pub author: String,
    /// When.
    pub created: Timestamp,
}

/// A page of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPage {
    /// In the order they were added.
    pub labels: Vec<LabelRecord>,
    /// Whether there are more after them.
    pub more: bool,
    /// How many there are in all.
    pub total: u64,
}

impl From<LabelError> for MetastoreError {
    fn from(error: LabelError) -> Self {
        Self::damaged("a label")(error)
    }
}
