//! What the gate says of a model, as it is kept.

use picket_learn::gate::Verdict;
use serde::{Deserialize, Serialize};

/// Whether a model may take the place of the one in force, and by what that was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Whether it may be released.
    pub verdict: Verdict,
    /// What speaks against it; nothing when it may.
    pub reasons: Vec<String>,
    /// SHA-256 of the model in force that it was compared with, hexadecimal; absent when there was none of these features.
    pub in_force: Option<String>,
    /// Held-out rows of its data set that both were judged by.
    pub rows: u64,
    /// Malicious rows among them.
    pub malicious: u64,
    /// Held-out rows that were left out, because the model in force had learned from them or from others of the same
    /// attack or piece of work.
    pub rows_left_out: u64,
    /// It is in force, or was before: coming back to it needs no judgement.
    pub is_return: bool,
    /// Whether it was released though the verdict was to hold it.
    pub forced: bool,
    /// What both models do on these rows.
    pub figures: Vec<JudgedFigure>,
}

/// A figure of both models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedFigure {
    /// Its key in evaluations.
    pub name: String,
    /// Of the model that was judged.
    pub candidate: Option<f64>,
    /// Of the model in force.
    pub in_force: Option<f64>,
}

impl Default for Judgement {
    /// Nothing is known, and nothing released.
    fn default() -> Self {
        Self {
            verdict: Verdict::Hold,
            reasons: Vec::new(),
            in_force: None,
            rows: 0,
            malicious: 0,
            rows_left_out: 0,
            is_return: false,
            forced: false,
            figures: Vec::new(),
        }
    }
}

impl Judgement {
    /// Whether it may be released, or was in spite of all.
    pub fn lets_pass(&self) -> bool {
        self.verdict == Verdict::Promote || self.forced
    }
}
