//! From events to vectors: what a model sees of a process start or a connection.
//!
//! A [`FeaturePipeline`] observes the events of one host and epoch in their order, keeps a bounded picture of what
//! happened there lately ([`ContextLimits`]), and gives one vector per *subject*. Agent and server run it over the same
//! events and get the same bits: it reads no clock, draws no random numbers, iterates over no hash map, and takes every
//! function that is not exactly rounded from `libm`.
//!
//! * **Missing is a value.** What a sensor could not learn is [`MISSING`], one NaN with one bit pattern; never zero.
//! * **Time** is event time. It does not run backwards: an event that is late (up to [`limits::LATENESS_MAX_NS`]) counts
//!   as having happened at the latest time seen. One that is later still means that the host's clock was set back: the
//!   sliding windows start anew.
//! * **Windows** are tenths: the running tenth of the window and the nine before it. A window includes the event itself.
//! * **No shortcuts:** no process id, port number, address or time of day is a feature, only classes and relations of
//!   them. Times of day are left out of version 1 because what labels say about them is mostly when somebody worked.

use std::fmt;

use crate::event::Timestamp;
use crate::id::{Digest, EventKey};

pub use crate::feature::context::ContextLimits;
pub use crate::feature::pipeline::FeaturePipeline;
pub use crate::feature::words::describe;

mod arguments;
mod bounded_map;
mod connection;
mod context;
mod definition;
mod path;
mod pipeline;
mod process_start;
mod program;
mod row;
mod series;
mod sketch;
#[cfg(test)]
mod tests;
mod text;
mod window;
mod words;

/// Limits that are part of the features' meaning.
pub mod limits {
    /// An event older than the latest one by more than this means that the clock was set back; nanoseconds.
    pub const LATENESS_MAX_NS: i64 = 300_000_000_000;
    /// Distinct things counted per process or session; more are reported as this many.
    pub const DISTINCT_MAX: usize = 64;
    /// Distinct things counted for the whole host; more are reported as this many.
    pub const HOST_DISTINCT_MAX: usize = 256;
    /// Earlier sightings of a program or destination that are told apart; more are reported as this many. Few: what
    /// counts is whether something is new. A count that goes on growing tells how long the agent has been running, and a
    /// model that learned from the first days would take every later day for another.
    pub const SEEN_MAX: u64 = 3;
    /// Ages of processes beyond this are reported as this; milliseconds. What an old process does, it does not do
    /// because of its age, and ages in full would date every event of a recording.
    pub const AGE_MAX_MS: u64 = 10_000;
    /// Ports this near to each other are neighbours.
    pub const NEIGHBOUR_DISTANCE: u64 = 64;
    /// Contacts with one destination whose intervals and sizes are compared.
    pub const CONTACTS_MAX: usize = 16;
}

/// A value that is not known: the canonical quiet NaN. The only NaN in any vector.
pub const MISSING: f32 = f32::from_bits(0x7fc0_0000);

/// What gets a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A program was started.
    ProcessStart,
    /// A connection ended or failed.
    Connection,
}

impl Subject {
    /// Every subject.
    pub const ALL: [Self; 2] = [Self::ProcessStart, Self::Connection];

    /// Its name in commands, files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProcessStart => "process_start",
            Self::Connection => "connection",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Subject {
    type Err = UnknownSubject;

    fn from_str(text: &str) -> Result<Self, UnknownSubject> {
        Self::ALL.into_iter().find(|subject| subject.name() == text).ok_or(UnknownSubject)
    }
}

/// A name that is no [`Subject`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown subject: expected process_start or connection")]
pub struct UnknownSubject;

/// How to read a feature's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeatureKind {
    /// 0 or 1.
    Flag,
    /// A whole number.
    Count,
    /// A part of a whole, 0 to 1.
    Fraction,
    /// A real number.
    Number,
    /// ln(1 + x) of a quantity x that spans orders of magnitude; the unit is x's.
    Logarithm,
    /// ln(1 + x), rounded to the nearest multiple of ln 4: only the order of magnitude of x. Exact sizes are
    /// fingerprints of single activities; a model that sees them learns those by heart instead of what they have in
    /// common.
    Magnitude,
    /// ln of a ratio of two quantities: 0 is as usual, 0.69 is twice as much.
    Ratio,
}

impl FeatureKind {
    /// Its name in reports; part of the specification's hash.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Count => "count",
            Self::Fraction => "fraction",
            Self::Number => "number",
            Self::Logarithm => "logarithm",
            Self::Magnitude => "magnitude",
            Self::Ratio => "ratio",
        }
    }
}

/// One feature: its place in the specification is its place in the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureDefinition {
    /// Its name, unique within the specification.
    pub name: &'static str,
    /// How to read its value.
    pub kind: FeatureKind,
    /// The value's unit; of the quantity before the logarithm where there is one. Empty for flags.
    pub unit: &'static str,
    /// What it says, and when it is missing.
    pub meaning: &'static str,
    /// How alerts say it.
    words: definition::Words,
}

/// An ordered list of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureSpec {
    /// What the vectors are about.
    pub subject: Subject,
    /// Grows when any feature's meaning changes, even if its name does not.
    pub version: u32,
    /// The features, in the order of the vector.
    pub features: &'static [FeatureDefinition],
}

impl FeatureSpec {
    /// Version 1 of a subject's features.
    pub fn v1(subject: Subject) -> &'static Self {
        static PROCESS_START: FeatureSpec =
            FeatureSpec { subject: Subject::ProcessStart, version: 1, features: process_start::DEFINITIONS };
        static CONNECTION: FeatureSpec =
            FeatureSpec { subject: Subject::Connection, version: 1, features: connection::DEFINITIONS };
        match subject {
            Subject::ProcessStart => &PROCESS_START,
            Subject::Connection => &CONNECTION,
        }
    }

    /// What a model must have been trained on to be used with these vectors: SHA-256 over subject, version, and the
    /// name, kind and unit of each feature in order.
    pub fn hash(&self) -> Digest {
        let mut text = format!("picket feature specification\n{}\n{}\n", self.subject, self.version);
        for feature in self.features {
            for part in [feature.name, "\t", feature.kind.name(), "\t", feature.unit, "\n"] {
                text.push_str(part);
            }
        }
        Digest::of(text.as_bytes())
    }

    /// Where the feature of that name stands.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.features.iter().position(|feature| feature.name == name)
    }
}

/// What a model scores.
#[derive(Clone, Copy, Debug)]
pub struct FeatureVector<'a> {
    /// What it is about.
    pub subject: Subject,
    /// The event that gave rise to it.
    pub event: EventKey,
    /// When that happened.
    pub time: Timestamp,
    /// One value per feature of the subject's specification: finite, or [`MISSING`].
    pub values: &'a [f32],
}
