//! Isolation forests on tables: without labels, and how little labels do where there are some.

use std::time::Duration;

use super::*;
use crate::train::Params;
use crate::train::tune::SearchBudget;

/// Rows of a cloud, and one in fifty far off in its numbers and its text, half of them of a protocol that no other has;
/// `label` says so in the last column.
fn rows(count: usize, label: bool) -> String {
    let mut random = SplitMix64::new(13);
    let mut text = format!("proto,bytes,seconds,command{}\n", if label { ",label" } else { "" });
    for row in 0..count {
        let odd = row % 50 == 7;
        let proto = if odd && row % 4 == 3 { "gre" } else { ["tcp", "udp", "icmp"][random.below(3)] };
        let bytes = if odd { 60_000 + random.below(9_000) } else { 500 + random.below(600) };
        let seconds = if odd { 1000 } else { 0 } + random.below(100);
        let command = if odd { "ECHO QkFTSDY0 | SH".repeat(3) } else { format!("cat /var/log/{}", random.below(5000)) };
        text.push_str(&format!("{proto},{bytes},{seconds},{command} x{}", random.below(9000)));
        text.push_str(if !label {
            "\n"
        } else if odd {
            ",1\n"
        } else {
            ",0\n"
        });
    }
    text
}

fn prepared(text: &str) -> Table {
    let (_, table) = read(text, |schema| {
        schema.assign("proto", Role::Feature(ColumnKind::Categorical)).unwrap();
        schema.assign("command", Role::Feature(ColumnKind::Text)).unwrap();
    })
    .unwrap();
    table
}

fn division(rule: SplitRule) -> Division {
    Division { rule, test_fraction: 0.3, seed: 1, embargo: Duration::ZERO }
}

fn learned(table: &Table, options: &TableOptions) -> Result<TrainedTable, TableTrainError> {
    let parts = divide_unsupervised(table, None, &division(SplitRule::Random))?;
    train(&parts, options, &SigningKey::from_bytes(&[1; 32]), &|| 0.0, &Control::unobserved())
}

fn isolation(budget: f64) -> TableOptions {
    let mut options = options(Algorithm::IsolationForest, 1000);
    options.options.false_positive_budget = budget;
    options
}

#[test]
fn a_table_without_labels_is_learned_from() {
    let table = prepared(&rows(3000, false));
    let trained = learned(&table, &isolation(0.02)).unwrap();
    let Evaluation::Unlabelled(survey) = &trained.evaluation else { panic!("no labels, no report") };
    assert!(survey.rows > 850 && (0.005..0.04).contains(&survey.share_alerted), "{survey:?}");
    assert_eq!(survey.training_share_alerted, trained.trained.threshold.share_alerted);
    assert!(survey.drift.iter().all(|shift| shift.auc < 0.6), "drawn by lot: {:?}", survey.drift);
    assert!(survey.importances.iter().any(|entry| entry.feature == "bytes"));
    let Encoder::Categorical(categories) = &trained.model.preparation().columns[0].encoder else { panic!() };
    assert!(categories.other == 0.0 && categories.known.iter().all(|known| known.log_odds == 0.0));
    assert!(categories.known.iter().any(|known| known.frequency > 6.0));
    let Encoder::Text(ngrams) = &trained.model.preparation().columns[3].encoder else { panic!() };
    assert!((1..=8).contains(&ngrams.len()), "{}", ngrams.len());
    // What is odd is alerted more often than the rest.
    let all: Vec<usize> = (0..table.rows).collect();
    let is_alerted: Vec<bool> =
        scores(&trained.model, &table, &all).iter().map(|score| *score >= trained.model.threshold()).collect();
    let of = |odd: bool| all.iter().filter(|row| is_alerted[**row] && (*row % 50 == 7) == odd).count();
    assert!(of(true) > 20 && of(false) < 40, "{} odd ones of 60, {} others", of(true), of(false));
}

/// Ten minutes of rows once made a model that alerted every row after them, for its hour.
#[test]
fn times_are_learned_from_once_they_have_come_round() {
    for (seconds_between, is_left_out) in [(1, true), (30 * 60, false)] {
        let mut random = SplitMix64::new(5);
        let row = |row: usize| {
            let second = row * seconds_between;
            let (day, of_day) = (1 + second / 86_400, second % 86_400);
            let time = format!("2026-01-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60);
            format!("{time},{},{}\n", random.below(1000), random.below(1000))
        };
        let text = "start,bytes,packets\n".to_owned() + &(0..600).map(row).collect::<String>();
        let (_, table) = read(&text, |_| ()).unwrap();
        let parts = divide_unsupervised(&table, None, &division(SplitRule::Time)).unwrap();
        let key = SigningKey::from_bytes(&[1; 32]);
        let trained = train(&parts, &isolation(0.05), &key, &|| 0.0, &Control::unobserved()).unwrap();
        assert_eq!(trained.left_out.contains_key("start"), is_left_out, "{:?}", trained.left_out);
        let Evaluation::Unlabelled(survey) = &trained.evaluation else { panic!("no labels, no report") };
        assert!(survey.share_alerted < 0.2, "{} of later rows", survey.share_alerted);
    }
}

#[test]
fn labels_leave_malicious_rows_out_and_evaluate() {
    let table = prepared(&rows(3000, true));
    let trained = learned(&table, &isolation(0.02)).unwrap();
    assert!(report(&trained).roc_auc.unwrap() > 0.9, "{:?}", report(&trained).roc_auc);
    assert!(report(&trained).notes.iter().any(|note| note.contains("no probabilities")));
    let Encoder::Categorical(categories) = &trained.model.preparation().columns[0].encoder else { panic!() };
    let known: Vec<&str> = categories.known.iter().map(|known| known.value.as_str()).collect();
    assert_eq!(known, ["icmp", "tcp", "udp"], "what only malicious rows have is not ordinary");
    // Which rows are malicious says nothing to the preparation beyond that.
    assert!(categories.other == 0.0 && categories.known.iter().all(|known| known.log_odds == 0.0));
    // Benign rows alone are enough, and so few malicious ones that no class can be told.
    let mut benign: Vec<String> = rows(3000, true).lines().map(str::to_owned).collect();
    benign.retain(|line| !line.ends_with(",1"));
    let benign = benign.join("\n");
    let trained = learned(&prepared(&benign), &isolation(0.02)).unwrap();
    assert_eq!(report(&trained).positives, 0);
    assert!(report(&trained).recall.is_none() && trained.trained.threshold.share_alerted.is_some());
}

#[test]
fn what_takes_labels_is_refused_without_them() {
    let table = prepared(&rows(400, false));
    assert!(split(&table, None, SplitRule::Random, 0.3, 1).is_err());
    let error = divide_unsupervised(&table, None, &division(SplitRule::Stratified)).unwrap_err();
    assert_eq!(error, SplitError::NoClasses);
    let error = learned(&table, &options(Algorithm::DecisionTree, 300)).unwrap_err();
    assert!(error.to_string().starts_with("no column is the label"), "{error}");
    let mut calibrated = isolation(0.02);
    calibrated.options.calibration = CalibrationMethod::Platt;
    let mut searched = isolation(0.02);
    searched.search =
        Some(TableSearch { algorithms: vec![Algorithm::IsolationForest], budget: SearchBudget::Work(1_000_000) });
    for options in [calibrated, searched] {
        assert!(matches!(learned(&table, &options), Err(TableTrainError::NeedsLabels { .. })));
    }
    let few = prepared(&rows(10, false));
    assert!(learned(&few, &isolation(0.02)).unwrap_err().to_string().contains("at least 8 are needed"));
    assert!(matches!(isolation(0.02).recipe.params.get(), Params::IsolationForest(_)));
}
