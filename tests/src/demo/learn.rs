//! From ground truth to models in force: label, build, train, compare, choose.

use std::fmt::Write as _;

use picket_proto::v1;
use serde_json::Value;

use super::console::Console;
use super::summary::ModelSummary;
use crate::admin::{AdminClient, AdminError};
use crate::range::label::{Attribution, Belonging};
use crate::range::truth::GroundTruth;

/// The subjects that get a model.
pub const SUBJECTS: [&str; 2] = ["process_start", "connection"];

/// The algorithms compared, those that vary least from one sample of attacks to another last.
pub const ALGORITHMS: [&str; 4] = ["decision_tree", "logistic_regression", "random_forest", "voting_forest"];

/// Share of benign rows that may be alerted: the bar of round two is 2 %, and another day is never quite like the one
/// learned from. A budget of 1.25 % came to 0.1 to 2.3 % there.
const FALSE_POSITIVE_BUDGET: f64 = 0.01;

/// Who says so, in the labels.
const LABEL_SOURCE: &str = "script";

/// The labels that follow from the truth about a round. The far end of an attack is the attacker's own machine, which
/// nobody watches; that it is this host here is for want of a second one, and it stays without a label.
pub fn labels(truth: &GroundTruth, attribution: &Attribution, host_id: &str) -> Vec<v1::Label> {
    let all = attribution.processes.iter().chain(&attribution.connections);
    let label = |event: &picket_common::id::EventKey, belonging: &Belonging| {
        let instance = truth.instances.get(belonging.instance()?)?;
        if instance.is_malicious() && matches!(belonging, Belonging::FarEnd { .. }) {
            return None;
        }
        let verdict = if instance.is_malicious() { v1::Verdict::Malicious } else { v1::Verdict::Benign };
        Some(v1::Label {
            event: Some(v1::EventReference {
                host_id: host_id.to_owned(),
                epoch: event.epoch.0,
                sequence: event.sequence.0,
            }),
            verdict: verdict.into(),
            technique: instance.technique.map_or_else(String::new, |technique| technique.id().to_owned()),
            source: LABEL_SOURCE.to_owned(),
            group: instance.id.clone(),
            ..v1::Label::default()
        })
    };
    all.filter_map(|(event, belonging)| label(event, belonging)).collect()
}

/// A trained model and what its evaluation says.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its digest, hex.
    pub digest: String,
    /// The figures.
    pub summary: ModelSummary,
}

/// Builds the data set of one subject and trains every algorithm on it.
///
/// # Errors
/// The server refused.
pub fn train(
    admin: &mut AdminClient,
    console: &Console,
    subject: &str,
    seed: u64,
) -> Result<Vec<Candidate>, AdminError> {
    let mut show = |step: &v1::Progress| {
        let of = if step.total > 0 { format!(" of {}", step.total) } else { String::new() };
        console.now(&format!("{subject}: {} {}{of}", step.stage, step.done));
    };
    let dataset = admin.build_dataset(subject, 0.0, &mut show)?;
    console.line(&format!(
        "{subject}: {} rows to learn from ({} malicious), {} held out ({} malicious); manifest {}",
        dataset.rows_train,
        dataset.malicious_train,
        dataset.rows_test,
        dataset.malicious_test,
        dataset.manifest_digest.get(..12).unwrap_or_default()
    ));
    let request = v1::TrainRequest {
        dataset_id: dataset.dataset_id,
        algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
        seed,
        false_positive_budget: FALSE_POSITIVE_BUDGET,
        // Round two is judged by what was learned from all of round one.
        refit: true,
        ..v1::TrainRequest::default()
    };
    let models = admin.train(request, &mut show)?;
    Ok(models.into_iter().map(candidate).collect())
}

fn candidate(model: v1::Model) -> Candidate {
    // An evaluation that cannot be read has no figures and is never the best.
    let report: Value = serde_json::from_str(&model.evaluation_json).unwrap_or_default();
    let figure = |key: &str| report.get(key).and_then(Value::as_f64);
    let group = |key: &str| report.pointer(&format!("/groups/{key}")).and_then(Value::as_u64).unwrap_or_default();
    Candidate {
        digest: model.model_digest,
        summary: ModelSummary {
            subject: model.subject,
            algorithm: model.algorithm,
            roc_auc: figure("roc_auc"),
            pr_auc: figure("pr_auc"),
            recall_at_1pct_fpr: figure("recall_at_1pct_fpr"),
            recall_at_1pct_fpr_low: report.pointer("/intervals/recall_at_1pct_fpr/low").and_then(Value::as_f64),
            recall: figure("recall"),
            false_positive_rate: figure("false_positive_rate"),
            held_out_attacks: group("malicious"),
            held_out_attacks_found: group("malicious_found"),
            threshold: model.threshold,
            bytes: model.model_bytes,
            training_seconds: model.training_seconds,
            pushed: false,
        },
    }
}

/// Which of some candidates to push, by recall at 1 % false positives on held-out rows: the last one whose distance from
/// the best is within the standard error of such a distance. With a dozen held-out attacks the highest figure is mostly
/// chance, and who follows it pays on the next day (after the rule of one standard error: Breiman et al., 1984, 3.4.3).
/// The standard error of a figure is half of what its bootstrap interval reaches down; those of the two figures add up by
/// their squares.
pub fn best(candidates: &mut [Candidate]) -> Option<&mut Candidate> {
    let recall = |candidate: &Candidate| candidate.summary.recall_at_1pct_fpr.unwrap_or(f64::NEG_INFINITY);
    let variance = |candidate: &Candidate| {
        let low = candidate.summary.recall_at_1pct_fpr_low;
        low.map_or(0.0, |low| ((recall(candidate) - low) / 2.0).powi(2))
    };
    let highest = candidates.iter().max_by(|a, b| recall(a).total_cmp(&recall(b)))?;
    let (most, of_most) = (recall(highest), variance(highest));
    let is_enough = |candidate: &Candidate| recall(candidate) + (of_most + variance(candidate)).sqrt() >= most;
    candidates.iter_mut().rev().find(|candidate| is_enough(candidate))
}

/// The evaluations side by side.
pub fn table(candidates: &[Candidate]) -> String {
    let mut text = String::new();
    let mut write = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        writeln!(text, "{line}").ok();
    };
    write(format_args!(
        "{:<14} {:<20} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>7}",
        "subject",
        "algorithm",
        "rec@1%",
        "at least",
        "PR-AUC",
        "ROC-AUC",
        "recall",
        "FPR",
        "attacks",
        "bytes",
        "seconds"
    ));
    for candidate in candidates {
        let summary = &candidate.summary;
        let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        write(format_args!(
            "{:<14} {:<20} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>7.1}{}",
            summary.subject,
            summary.algorithm,
            figure(summary.recall_at_1pct_fpr),
            figure(summary.recall_at_1pct_fpr_low),
            figure(summary.pr_auc),
            figure(summary.roc_auc),
            figure(summary.recall),
            figure(summary.false_positive_rate),
            format!("{}/{}", summary.held_out_attacks_found, summary.held_out_attacks),
            summary.bytes,
            summary.training_seconds,
            if summary.pushed { "  ◀ pushed" } else { "" }
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(recall: Option<f64>, low: f64) -> Candidate {
        let summary = ModelSummary {
            recall_at_1pct_fpr: recall,
            recall_at_1pct_fpr_low: recall.map(|_| low),
            ..ModelSummary::default()
        };
        Candidate { digest: format!("{recall:?}/{low}"), summary }
    }

    #[test]
    fn only_a_clear_difference_speaks_against_the_last() {
        let cases = [
            // The best is 0.8, its standard error 0.1.
            (vec![candidate(Some(0.8), 0.6), candidate(Some(0.72), 0.3)], 1),
            (vec![candidate(Some(0.8), 0.6), candidate(Some(0.62), 0.5)], 0),
            // The same distance, but this one's own standard error is 0.16.
            (vec![candidate(Some(0.8), 0.6), candidate(Some(0.62), 0.3)], 1),
            (vec![candidate(Some(0.8), 0.6), candidate(Some(0.75), 0.5), candidate(Some(0.6), 0.5)], 1),
            (vec![candidate(Some(0.1), 0.0), candidate(None, 0.0)], 0),
            (vec![candidate(None, 0.0), candidate(None, 0.0)], 1),
        ];
        for (mut candidates, expected) in cases {
            let expected = candidates[expected].digest.clone();
            assert_eq!(best(&mut candidates).map(|best| best.digest.clone()), Some(expected));
        }
        assert!(best(&mut []).is_none());
    }
}
