//! Whether a model may take the place of another: a pure function of two evaluations on the same rows and a policy.
//!
//! A model is promoted when it meets what the policy demands of any model, and is no worse than the one in force by more
//! than the policy forgives. Every demand that is not met is a reason to hold it, in words with its figures. A figure that is
//! absent meets nothing: what nobody could measure is no evidence.

use serde::{Deserialize, Serialize};

use crate::evaluate::Report;

/// What is demanded of a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Fewest malicious held-out rows that an evaluation must rest on.
    pub positives_min: u64,
    /// Least recall at 1 % false positives.
    pub recall_at_1pct_fpr_min: f64,
    /// Greatest share of benign rows that its own threshold alerts.
    pub false_positive_rate_max: f64,
    /// How much lower than that of the model in force its recall at 1 % false positives may be.
    pub recall_loss_max: f64,
    /// How much lower its PR-AUC may be.
    pub pr_auc_loss_max: f64,
    /// How much greater the share of alerted benign rows may be.
    pub false_positive_rate_gain_max: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            positives_min: 10,
            recall_at_1pct_fpr_min: 0.5,
            false_positive_rate_max: 0.02,
            recall_loss_max: 0.005,
            pr_auc_loss_max: 0.005,
            false_positive_rate_gain_max: 0.005,
        }
    }
}

/// What the gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may be released.
    Promote,
    /// It may not.
    Hold,
}

/// The verdict and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether it may be released.
    pub verdict: Verdict,
    /// What speaks against it; nothing when it may.
    pub reasons: Vec<String>,
}

/// Judges `candidate` beside `in_force`, which was evaluated on the same rows; without one, by itself.
pub fn decide(candidate: &Report, in_force: Option<&Report>, policy: &Policy) -> Decision {
    let mut reasons = Vec::new();
    if candidate.positives < policy.positives_min {
        let (found, needed) = (candidate.positives, policy.positives_min);
        reasons.push(format!("{found} malicious held-out rows, at least {needed} are needed to tell"));
    }
    at_least(&mut reasons, RECALL, candidate.recall_at_1pct_fpr, policy.recall_at_1pct_fpr_min, "");
    at_most(&mut reasons, candidate.false_positive_rate, policy.false_positive_rate_max, "");
    if let Some(in_force) = in_force {
        if (in_force.rows, in_force.positives) == (candidate.rows, candidate.positives) {
            beside(&mut reasons, candidate, in_force, policy);
        } else {
            let (rows, others) = (candidate.rows, in_force.rows);
            reasons.push(format!(
                "it was evaluated on {rows} rows and the model in force on {others} others: compare both on the same rows"
            ));
        }
    }
    let verdict = if reasons.is_empty() { Verdict::Promote } else { Verdict::Hold };
    Decision { verdict, reasons }
}

const RECALL: &str = "recall at 1 % FPR";

fn beside(reasons: &mut Vec<String>, candidate: &Report, in_force: &Report, policy: &Policy) {
    for (name, ours, theirs, loss_max) in [
        (RECALL, candidate.recall_at_1pct_fpr, in_force.recall_at_1pct_fpr, policy.recall_loss_max),
        ("PR-AUC", candidate.pr_auc, in_force.pr_auc, policy.pr_auc_loss_max),
    ] {
        // A figure that the model in force lacks asks nothing.
        if let Some(theirs) = theirs {
            at_least(reasons, name, ours, theirs - loss_max, &format!(" (the model in force has {theirs:.4})"));
        }
    }
    if let Some(theirs) = in_force.false_positive_rate {
        let most = theirs + policy.false_positive_rate_gain_max;
        at_most(reasons, candidate.false_positive_rate, most, &format!(" (the model in force has {theirs:.4})"));
    }
}

fn at_least(reasons: &mut Vec<String>, name: &str, found: Option<f64>, least: f64, beside: &str) {
    match found {
        Some(found) if found >= least => {}
        Some(found) => reasons.push(format!("{name} is {found:.4}, at least {least:.4} is demanded{beside}")),
        None => reasons.push(format!("{name} is not known, at least {least:.4} is demanded{beside}")),
    }
}

fn at_most(reasons: &mut Vec<String>, found: Option<f64>, most: f64, beside: &str) {
    let name = "the share of benign rows alerted";
    match found {
        Some(found) if found <= most => {}
        Some(found) => reasons.push(format!("{name} is {found:.4}, at most {most:.4} is allowed{beside}")),
        None => reasons.push(format!("{name} is not known, at most {most:.4} is allowed{beside}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::evaluate::{Options, ScoredRow, evaluate};

    /// An evaluation of 1,000 benign rows, of which some are alerted, and 100 malicious ones, of which some are found.
    fn report(found: usize, alerted: usize) -> Report {
        let row = |malicious: bool, score: f64| ScoredRow { score, malicious, technique: "", group: "g" };
        let mut rows: Vec<_> = (0..1000).map(|place| row(false, if place < alerted { 0.9 } else { 0.1 })).collect();
        rows.extend((0..100).map(|place| row(true, if place < found { 0.95 } else { 0.05 })));
        let known = BTreeSet::new();
        evaluate(&rows, &Options { threshold: 0.5, known_techniques: &known, resamples: 0, seed: 1 }).unwrap()
    }

    fn verdict(candidate: &Report, in_force: Option<&Report>) -> (Verdict, Vec<String>) {
        let decision = decide(candidate, in_force, &Policy::default());
        (decision.verdict, decision.reasons)
    }

    #[test]
    fn a_good_model_is_promoted() {
        assert_eq!(verdict(&report(90, 5), None), (Verdict::Promote, vec![]));
        assert_eq!(verdict(&report(90, 5), Some(&report(90, 5))), (Verdict::Promote, vec![]));
        assert_eq!(verdict(&report(95, 5), Some(&report(90, 5))), (Verdict::Promote, vec![]));
    }

    #[test]
    fn what_is_worse_than_the_one_in_force_is_held_with_figures() {
        let (verdict, reasons) = verdict(&report(80, 15), Some(&report(90, 5)));
        assert_eq!(verdict, Verdict::Hold);
        assert_eq!(
            reasons[0],
            "recall at 1 % FPR is 0.8000, at least 0.8950 is demanded (the model in force has 0.9000)"
        );
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert!(reasons[2].starts_with("the share of benign rows alerted is 0.0150, at most 0.0100"), "{reasons:?}");
    }

    #[test]
    fn no_model_is_promoted_without_evidence() {
        assert_eq!(verdict(&report(30, 30), None).1.len(), 2);
        let mut unknown = report(90, 5);
        (unknown.recall_at_1pct_fpr, unknown.positives) = (None, 3);
        let reasons = verdict(&unknown, None).1;
        assert_eq!(reasons[0], "3 malicious held-out rows, at least 10 are needed to tell");
        assert_eq!(reasons[1], "recall at 1 % FPR is not known, at least 0.5000 is demanded");
        let mut other = report(90, 5);
        other.rows += 1;
        assert!(verdict(&report(90, 5), Some(&other)).1[0].contains("compare both on the same rows"));
    }
}
