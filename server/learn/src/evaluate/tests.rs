//! Figures against hand-computed values and against scikit-learn 1.9.

use std::collections::BTreeSet;

use super::curve::Curve;
use super::*;
use crate::random::SplitMix64;

fn options(threshold: f64, known: &BTreeSet<String>) -> Options<'_> {
    Options { threshold, known_techniques: known, resamples: 0, seed: 1 }
}

fn row(score: f64, malicious: bool) -> ScoredRow<'static> {
    ScoredRow { score, malicious, technique: "", group: "g" }
}

fn near(left: Option<f64>, right: f64) {
    let left = left.expect("defined");
    assert!((left - right).abs() < 1e-12, "{left} is not {right}");
}

/// 2,000 rows, scores in steps of 0.05 so that there are many ties, a tenth malicious.
fn tied_rows() -> Vec<ScoredRow<'static>> {
    let mut random = SplitMix64::new(7);
    (0..2000)
        .map(|_| {
            let malicious = random.below(10) == 0;
            let mut step = random.below(21);
            if malicious {
                step = step.max(random.below(21));
            } else {
                step = step.min(random.below(21)).min(random.below(21));
            }
            row(step as f64 / 20.0, malicious)
        })
        .collect()
}

#[test]
fn small_example_by_hand() {
    let known = BTreeSet::new();
    let rows = [row(0.1, false), row(0.4, false), row(0.35, true), row(0.8, true)];
    let report = evaluate(&rows, &options(0.35, &known)).unwrap();
    near(report.roc_auc, 0.75);
    near(report.pr_auc, 0.5 * 1.0 + 0.5 * (2.0 / 3.0));
    near(report.recall_at_1pct_fpr, 0.5);
    near(report.brier, 0.158_125);
    assert_eq!(report.confusion, Confusion { tp: 2, fp: 1, tn: 1, fn_: 0 });
    near(report.precision, 2.0 / 3.0);
    near(report.recall, 1.0);
    near(report.f1, 0.8);
    near(report.accuracy, 0.75);
    near(report.false_positive_rate, 0.5);
    assert!(report.undefined.is_empty());
}

#[test]
fn ties_agree_with_scikit_learn() {
    let known = BTreeSet::new();
    let report = evaluate(&tied_rows(), &options(0.75, &known)).unwrap();
    near(report.roc_auc, 0.881_532_646_743_915_6);
    near(report.pr_auc, 0.584_238_740_076_668_5);
    near(report.recall_at_1pct_fpr, 58.0 / 179.0);
    near(report.brier, 0.107_018_75);
    assert_eq!(report.confusion, Confusion { tp: 85, fp: 41, tn: 1780, fn_: 94 });
    near(report.precision, 0.674_603_174_603_174_6);
    near(report.f1, 0.557_377_049_180_327_8);
}

#[test]
fn rows_of_one_score_rank_nothing() {
    let curve = Curve::new([(0.5, false), (0.5, true), (0.5, false), (0.5, true)]);
    near(curve.roc_auc(), 0.5);
    near(curve.average_precision(), 0.5);
    near(curve.recall_at_false_positive_rate(0.01), 0.0);
    near(curve.recall_at_false_positive_rate(1.0), 1.0);
}

#[test]
fn order_of_rows_does_not_matter() {
    let known = BTreeSet::new();
    let mut rows = tied_rows();
    let first = evaluate(&rows, &options(0.5, &known)).unwrap();
    SplitMix64::new(3).shuffle(&mut rows);
    let second = evaluate(&rows, &options(0.5, &known)).unwrap();
    assert_eq!(first.roc_auc, second.roc_auc);
    assert_eq!(first.pr_auc, second.pr_auc);
    assert_eq!(first.confusion, second.confusion);
}

#[test]
fn one_class_gives_reasons_and_no_nan() {
    let known = BTreeSet::new();
    let benign = evaluate(&[row(0.1, false), row(0.9, false)], &options(0.5, &known)).unwrap();
    assert_eq!(benign.roc_auc, None);
    assert_eq!(benign.undefined["roc_auc"], "no malicious rows");
    assert_eq!(benign.recall, None);
    near(benign.precision, 0.0);
    near(benign.accuracy, 0.5);

    let malicious = evaluate(&[row(0.1, true), row(0.2, true)], &options(0.5, &known)).unwrap();
    assert_eq!(malicious.undefined["roc_auc"], "no benign rows");
    assert_eq!(malicious.undefined["precision"], "nothing was alerted");
    near(malicious.recall, 0.0);
    near(malicious.pr_auc, 1.0);

    let text = serde_json::to_string(&malicious).unwrap();
    assert!(text.contains("\"roc_auc\":null"), "{text}");
    assert!(text.contains("\"fn\":2"), "{text}");
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), malicious);
}

#[test]
fn bad_input_is_refused() {
    let known = BTreeSet::new();
    assert_eq!(evaluate(&[], &options(0.5, &known)), Err(EvaluateError::NoRows));
    let rows = [row(0.5, true), row(f64::NAN, false)];
    assert_eq!(evaluate(&rows, &options(0.5, &known)), Err(EvaluateError::ScoreNotFinite { row: 1 }));
    assert_eq!(evaluate(&rows[..1], &options(f64::NAN, &known)), Err(EvaluateError::ThresholdNotANumber));
}

#[test]
fn techniques_and_groups_are_told_apart() {
    let known = BTreeSet::from(["T1046".to_owned()]);
    let attack = |score, technique, group| ScoredRow { score, malicious: true, technique, group };
    let work = |score, group| ScoredRow { score, malicious: false, technique: "", group };
    let rows = [
        attack(0.9, "T1046", "scan-1"),
        attack(0.1, "T1046", "scan-1"),
        attack(0.2, "T1046", "scan-2"),
        attack(0.8, "T1059.004", "shell-1"),
        attack(0.8, "", "unknown-1"),
        work(0.9, "build-1"),
        work(0.1, "build-1"),
        work(0.1, "build-2"),
    ];
    let report = evaluate(&rows, &options(0.5, &known)).unwrap();
    let scan = report.per_technique["T1046"];
    assert_eq!((scan.rows, scan.found, scan.groups, scan.groups_found), (3, 1, 2, 1));
    near(scan.recall, 1.0 / 3.0);
    assert_eq!(report.known_techniques, scan);
    assert_eq!((report.unseen_techniques.rows, report.unseen_techniques.groups_found), (1, 1));
    assert_eq!(report.groups, GroupTotals { malicious: 4, malicious_found: 3, benign: 2, benign_alerted: 1 });
    assert_eq!(report.per_technique.len(), 2);
}

#[test]
fn majority_class_is_the_baseline() {
    let known = BTreeSet::new();
    let rows: Vec<_> = (0..10).map(|index| row(0.1, index == 0)).collect();
    let report = evaluate(&rows, &options(0.5, &known)).unwrap();
    let majority = report.baselines["majority_class"];
    assert_eq!(
        (majority.accuracy, majority.recall, majority.roc_auc, majority.pr_auc),
        (0.9, Some(0.0), Some(0.5), Some(0.1))
    );
}

#[test]
fn intervals_come_from_groups_and_repeat() {
    let known = BTreeSet::new();
    let names: Vec<String> = (0..40).map(|group| format!("group-{group}")).collect();
    let mut random = SplitMix64::new(11);
    let rows: Vec<ScoredRow<'_>> = (0..800)
        .map(|index| {
            let group = index % names.len();
            let malicious = group < 10;
            let score = 0.6 * random.unit() + if malicious { 0.4 } else { 0.0 };
            ScoredRow { score, malicious, technique: "", group: &names[group] }
        })
        .collect();
    let options = Options { threshold: 0.5, known_techniques: &known, resamples: 200, seed: 5 };
    let report = evaluate(&rows, &options).unwrap();
    let interval = report.intervals["roc_auc"];
    let auc = report.roc_auc.unwrap();
    assert!(interval.low < auc && auc < interval.high, "{interval:?} around {auc}");
    assert!(interval.high - interval.low < 0.2);
    assert_eq!(evaluate(&rows, &options).unwrap(), report);

    // One attack only: an interval would pretend to know how attacks differ.
    let few: Vec<_> = rows.iter().filter(|row| !row.malicious || row.group == "group-3").copied().collect();
    assert!(evaluate(&few, &options).unwrap().intervals.is_empty());
}

#[test]
fn roc_is_thinned_but_keeps_its_ends() {
    let curve = Curve::new((0..1000u32).map(|index| (f64::from(index) / 1000.0, index % 3 == 0)));
    let roc = curve.roc(ROC_POINTS_MAX);
    assert_eq!(roc.len(), ROC_POINTS_MAX);
    assert_eq!(roc.first(), Some(&RocPoint { fpr: 0.0, tpr: 0.0 }));
    assert_eq!(roc.last(), Some(&RocPoint { fpr: 1.0, tpr: 1.0 }));
}

#[test]
fn histogram_counts_every_row() {
    let known = BTreeSet::new();
    let rows = [row(0.0, false), row(1.0, true), row(0.999, true), row(0.05, false)];
    let histogram = evaluate(&rows, &options(0.5, &known)).unwrap().score_histogram;
    assert_eq!((histogram.benign[0], histogram.benign[1]), (1, 1));
    assert_eq!(histogram.malicious[HISTOGRAM_BINS - 1], 2);
}

#[test]
fn text_report_shows_figures_and_reasons() {
    let known = BTreeSet::new();
    let report = evaluate(&tied_rows(), &options(0.75, &known)).unwrap();
    let text = text::render(&report);
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    for part in ["ROC-AUC", "recall at 1 % FPR", "2000 rows", "majority class", "ROC curve", "0.75 m"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let one_class = evaluate(&[row(0.1, false)], &options(0.5, &known)).unwrap();
    assert!(text::render(&one_class).contains("roc_auc: not defined, no malicious rows"));
}
