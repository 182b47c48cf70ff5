//! What can be wrong with a model.

use std::fmt;

use crate::id::Digest;

/// A part of a model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The fixed fields at the start.
    Header,
    /// Stand-ins for missing values.
    Imputation,
    /// Trees and their nodes.
    Trees,
    /// Coefficients.
    Linear,
    /// What each value says by itself.
    Steps,
    /// Layers of weighted sums.
    Network,
    /// Centres and their coefficients.
    Kernel,
    /// From scores to probabilities.
    Calibration,
    /// Rows with expected scores.
    SelfTest,
    /// Checksum, key id and signature at the end.
    Trailer,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Imputation => "imputation section",
            Self::Trees => "tree section",
            Self::Linear => "linear section",
            Self::Steps => "step section",
            Self::Network => "network section",
            Self::Kernel => "kernel section",
            Self::Calibration => "calibration section",
            Self::SelfTest => "self-test section",
            Self::Trailer => "trailer",
        })
    }
}

/// Why a model file or draft is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// The file ends too early.
    #[error("model file is cut short: the {section} at byte {offset} is incomplete")]
    Truncated {
        /// In which part.
        section: Section,
        /// Where that part stops, in bytes from the start.
        offset: usize,
    },
    /// The first bytes are not a model's.
    #[error("not a model file: it does not begin with PKTMODEL")]
    NotAModel,
    /// Written by a newer Picket.
    #[error("model format version {0} is not supported, this program reads version 2; update it")]
    UnsupportedVersion(u16),
    /// Written by an older Picket.
    #[error("model format version {0} is of an older Picket, this program reads version 2; train the model again")]
    OutdatedVersion(u16),
    /// The bytes changed since they were written.
    #[error("model file is damaged: its checksum does not match")]
    Checksum,
    /// Signed by nobody this host trusts.
    #[error("model was signed with key {0}, which is not trusted here")]
    UntrustedKey(Digest),
    /// The signature is not that key's over these bytes.
    #[error("model signature of key {0} is not valid for this file")]
    Signature(Digest),
    /// Something exceeds a limit.
    #[error("model exceeds a limit: {count} {what}, at most {limit} allowed ({section})")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        count: u64,
        /// How much is allowed.
        limit: u64,
        /// Where.
        section: Section,
    },
    /// A field holds what it must not.
    #[error("malformed model: {what} ({section}, byte {offset})")]
    Malformed {
        /// In which part.
        section: Section,
        /// Where the field is, in bytes from the start.
        offset: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A node breaks the tree.
    #[error("malformed model: tree {tree}, node {node}: {problem}")]
    Node {
        /// Which tree.
        tree: usize,
        /// Which node of it.
        node: usize,
        /// What is wrong with it.
        problem: NodeProblem,
    },
    /// A self-test row scored other bits than the file promises.
    #[error("model self-test row {row}: expected score bits {expected:016x}, computed {computed:016x}")]
    SelfTest {
        /// Which row.
        row: usize,
        /// Bits in the file.
        expected: u64,
        /// Bits computed here.
        computed: u64,
    },
    /// The model was trained on other features.
    #[error("model was trained on feature specification {found}, this program computes {expected}")]
    SpecMismatch {
        /// What this program computes.
        expected: Digest,
        /// What the model wants.
        found: Digest,
    },
    /// A draft contradicts itself.
    #[error("model draft cannot be encoded: {what}")]
    Draft {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// What is wrong with one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeProblem {
    /// A child comes before its parent, or is its own.
    #[error("a child's index is not above its own")]
    Cycle,
    /// A child lies outside the tree.
    #[error("a child is outside the tree")]
    OutOfRange,
    /// Two parents claim one child.
    #[error("a child has two parents")]
    Shared,
    /// No path from the root leads to it.
    #[error("it cannot be reached from the root")]
    Unreachable,
    /// It tests a feature the vector does not have.
    #[error("it tests a feature beyond the vector")]
    Feature,
    /// Its threshold is infinite or not a number.
    #[error("its threshold is not finite")]
    Threshold,
    /// Its value is no probability, or no log-odds in boosting, or no path length in an isolation forest.
    #[error("its value is not between 0 and 1, too large a share of the log-odds, or no path length")]
    Value,
    /// No training row reached it, or more than can be counted.
    #[error("its cover is zero, or above {}", u32::MAX)]
    Cover,
    /// It lies deeper than the limit.
    #[error("it lies deeper than {} levels", crate::model::limits::DEPTH_MAX)]
    Depth,
}
