use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use parquet::arrow::ArrowWriter;
use picket_common::model::Algorithm;
use picket_common::table::Record;
use picket_learn::gate::{Policy, Verdict};
use picket_learn::select;
use picket_learn::table::{Role, SplitRule, ValidationRule};
use picket_learn::train::tune::SearchBudget;
use picket_learn::train::{CalibrationMethod, Unobserved};

use super::*;
use crate::table::compare::compare;
use crate::table::rebuild::rebuild;
use crate::table::train::{MANIFEST_FILE, MODEL_FILE, Outcomes, TableTraining};

const ROWS: usize = 600;

/// Flows, of which those of ssh with many bytes are attacks.
fn fields(row: usize) -> (String, &'static str, usize, &'static str) {
    let service = ["http", "dns", "smtp", "ssh"][row * 7919 % 4];
    let bytes = row * 104_729 % 1009;
    let label = if service == "ssh" && bytes > 500 { "attack" } else { "benign" };
    (format!("2026-01-01T{:02}:{:02}:{:02}Z", row / 3600, row / 60 % 60, row % 60), service, bytes, label)
}

fn csv_text() -> String {
    let row = |row| {
        let (time, service, bytes, label) = fields(row);
        format!("{time},{service},{bytes},{label}\n")
    };
    "start, service ,bytes,label\n".to_owned() + &(0..ROWS).map(row).collect::<String>()
}

fn json_text() -> String {
    let row = |row| {
        let (time, service, bytes, label) = fields(row);
        format!("{{\"start\":\"{time}\",\"service\":\"{service}\",\"bytes\":{bytes},\"label\":\"{label}\"}}\n")
    };
    (0..ROWS).map(row).collect()
}

fn write_parquet(path: &std::path::Path) {
    let rows: Vec<_> = (0..ROWS).map(fields).collect();
    let millis = |row: usize| 1_767_225_600_000 + row as i64 * 1000;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("start", Arc::new(TimestampMillisecondArray::from_iter_values((0..ROWS).map(millis)))),
        ("service", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)))),
        ("bytes", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2 as i64)))),
        ("label", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.3)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn training(&self, input: &std::path::Path, to: &str) -> TableTraining {
        TableTraining {
            input: input.to_owned(),
            test: None,
            loader: Loader { is_for_training: true, memory_bytes: 1 << 30, ..Loader::default() },
            algorithms: vec![Algorithm::DecisionTree],
            search: None,
            split: None,
            test_fraction: 0.3,
            embargo: Duration::ZERO,
            validation: ValidationRule::default(),
            selection: select::Wanted::default(),
            seed: 1,
            false_positive_budget: 0.01,
            calibration: CalibrationMethod::None,
            confidence: None,
            to: self.path(to),
            force: false,
        }
    }

    fn train(&self, input: &std::path::Path, to: &str) -> Result<Outcomes, TableFileError> {
        self.training(input, to).run(&Unobserved)
    }
}

fn rows(input: &mut Input) -> Vec<Vec<String>> {
    let (mut record, mut rows) = (Record::default(), Vec::new());
    while input.next(&mut record).unwrap() {
        rows.push((0..record.len()).map(|place| record.field(place).to_owned()).collect());
    }
    rows
}

#[test]
fn a_table_is_the_same_in_every_format() {
    let lab = Lab::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(csv_text().as_bytes()).unwrap();
    let zstandard = zstd::encode_all(json_text().as_bytes(), 1).unwrap();
    write_parquet(&lab.path("t.parquet"));
    let paths = [
        lab.file("t.csv", csv_text()),
        lab.file("t.csv.gz", gzip.finish().unwrap()),
        lab.file("t.jsonl.zst", zstandard),
        lab.path("t.parquet"),
    ];
    let digests = paths.map(|path| {
        let mut input = Input::open(&path, None).unwrap();
        let mut names = input.columns().to_vec();
        names.sort();
        assert_eq!(names, ["bytes", "label", "service", "start"], "{path:?}");
        assert_eq!(rows(&mut input).len(), ROWS);
        assert_eq!(input.rows_estimate(), ROWS as u64);
        let outcomes = lab.train(&path, path.file_name().unwrap().to_str().unwrap().replace('.', "-").as_str());
        let outcomes = outcomes.unwrap();
        assert_eq!(outcomes.manifest["split"]["rule"], "time");
        let report = outcomes.outcomes[0].trained.evaluation.report().unwrap();
        assert!(report.roc_auc.unwrap() > 0.98, "{:?}", report.roc_auc);
        (report.roc_auc, report.threshold)
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn a_file_that_is_no_table_is_told() {
    let lab = Lab::new();
    let open = |path: &std::path::Path| Input::open(path, None).map(|_| ()).unwrap_err().to_string();
    assert!(open(&lab.path("none.csv")).contains("No such file"));
    assert!(open(&lab.file("table.xlsx", "x")).contains("the name says no format"));
    assert!(open(&lab.file("t.parquet", "PAR1")).contains("t.parquet: "));
    assert!(open(&lab.file("empty.csv", "")).contains("the table is empty"));
    assert!(open(&lab.file("empty.jsonl", "\n")).contains("the table is empty"));
    let truncated = &zstd::encode_all(csv_text().as_bytes(), 1).unwrap()[..200];
    let mut input = Input::open(&lab.file("cut.csv.zst", truncated), None);
    let mut record = Record::default();
    let failed = match &mut input {
        Ok(input) => loop {
            match input.next(&mut record) {
                Ok(true) => {}
                Ok(false) => break false,
                Err(_) => break true,
            }
        },
        Err(_) => true,
    };
    assert!(failed, "a cut file is not taken for a whole one");
}

#[test]
fn ten_thousand_columns_are_refused() {
    let lab = Lab::new();
    let header = (0..10_000).map(|column| format!("c{column}")).collect::<Vec<_>>().join(",");
    let error = lab.train(&lab.file("wide.csv", header), "to").unwrap_err().to_string();
    assert!(error.contains("the table has 10000 columns, at most 4096 are supported"), "{error}");
    let object: String = (0..10_000).map(|column| format!("\"c{column}\":1,")).collect();
    let error = lab.train(&lab.file("wide.jsonl", format!("{{{object}\"label\":1}}")), "to").unwrap_err().to_string();
    assert!(error.contains("columns, at most 4096 are supported"), "{error}");
}

#[test]
fn too_many_rows_for_the_memory_are_refused_before_they_are_read() {
    let lab = Lab::new();
    let input = lab.file("t.csv", csv_text());
    let mut training = lab.training(&input, "to");
    training.loader.memory_bytes = 100_000;
    let error = training.run(&Unobserved).unwrap_err();
    let TableFileError::Memory { rows, need_mib, .. } = &error else { panic!("{error}") };
    assert_eq!((*rows, *need_mib), (ROWS as u64, 1));
    assert!(error.to_string().contains("600 rows need 1 MiB of memory, 0 MiB may be taken"), "{error}");
    assert!(!lab.path("to").exists());
    // Beyond the sample the number of rows is an estimate, by what they took of the file.
    let many = csv_text() + &csv_text().split_once('\n').unwrap().1.repeat(49);
    let path = lab.file("many.csv.zst", zstd::encode_all(many.as_bytes(), 1).unwrap());
    let (_, need, looked_at) = training.loader.schema_of(&path).unwrap();
    assert_eq!(looked_at, 10_000);
    assert!((10_000..300_000).contains(&need.rows), "{}", need.rows);
}

/// A table without a label gives a model, an evaluation without a figure that takes labels, and the same model again.
#[test]
fn a_table_without_labels_is_learned_from_scored_and_rebuilt() {
    let lab = Lab::new();
    let text: String = csv_text().lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned() + "\n").collect();
    let input = lab.file("t.csv", text);
    let error = lab.train(&input, "to").unwrap_err().to_string();
    assert!(error.contains("no column is the label"), "{error}");
    let mut training = lab.training(&input, "to");
    (training.algorithms, training.false_positive_budget) = (vec![Algorithm::IsolationForest], 0.05);
    let manifest = training.run(&Unobserved).unwrap().manifest;
    let threshold = &manifest["trainings"][0]["threshold"];
    let share = threshold["share_alerted"].as_f64().unwrap();
    assert!(threshold["recall"].is_null() && (0.02..=0.05).contains(&share), "{threshold}");
    assert!(manifest["split"]["counts"]["train_malicious"].is_null());
    let read = |name: &str| std::fs::read_to_string(lab.path("to").join(name)).unwrap();
    for name in ["evaluation.json", "evaluation.txt", "report.html", "card.md"] {
        let text = read(name);
        // The style of every page names both classes.
        let text = text.split_once("</style>").map_or(text.as_str(), |(_, page)| page);
        assert!(!["recall", "malicious", "confusion", "ROC"].iter().any(|word| text.contains(word)), "{name}: {text}");
    }
    assert!(read("card.md").contains("share alerted") && read("report.html").contains("Drift"));
    let model = score::read_model(&lab.path("to").join(MODEL_FILE)).unwrap();
    let scored = score::score(&model, &input, &lab.path("scores.csv"), (3, false), |_, _| ()).unwrap();
    assert!(scored.rows == ROWS as u64 && (1..90).contains(&scored.findings), "{scored:?}");
    let again = rebuild(&lab.path("to"), (&input, None), 1 << 30, &Unobserved).unwrap();
    assert!(again.is_same(), "{again:?}");
    // With others beside it a label is needed.
    training.algorithms.push(Algorithm::DecisionTree);
    training.to = lab.path("both");
    assert!(training.run(&Unobserved).unwrap_err().to_string().contains("no column is the label"));
}

#[test]
fn nan_and_infinity_are_missing_and_counted() {
    let lab = Lab::new();
    let spoiled = |(line, text): (usize, &str)| {
        let mut fields: Vec<&str> = text.split(',').collect();
        fields[2] = match line % 50 {
            1 => "NaN",
            2 => "Infinity",
            3 => "-inf",
            _ => fields[2],
        };
        fields.join(",") + "\n"
    };
    let (header, rows) = csv_text().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let text = format!("{header}\n{}", rows.lines().enumerate().map(spoiled).collect::<String>());
    let infinite = 2 * ROWS / 50;
    let outcomes = lab.train(&lab.file("t.csv", text), "to").unwrap();
    assert_eq!(outcomes.manifest["inputs"][0]["counts"]["unreadable_fields"], infinite);
}

#[test]
fn a_schema_is_written_edited_and_given_back() {
    let lab = Lab::new();
    let input = lab.file("t.csv", csv_text());
    let mut loader = lab.training(&input, "to").loader;
    let (schema, _, rows) = loader.schema_of(&input).unwrap();
    let text = schema_file::write(&schema, "t.csv", rows);
    assert!(text.contains("\"service\" = \"categorical\"") && text.contains("\"start\" = \"time\""), "{text}");
    let edited = text.replace("\"start\" = \"time\"", "\"start\" = \"ignore\"");
    loader.schema = Some((lab.path("schema.toml"), edited.clone()));
    let (schema, ..) = loader.schema_of(&input).unwrap();
    assert_eq!(schema.columns[0].role, Role::Ignore);
    for (wrong, expected) in [
        (
            edited.replace("\"ignore\"", "\"ignored\""),
            "column \"start\": there is no role \"ignored\"; roles are numeric",
        ),
        (edited.replace("\"bytes\"", "\"octets\""), "the table has no column \"octets\""),
        (edited.replace("\"bytes\" = \"numeric\"", ""), "the schema does not say what column \"bytes\" is"),
        (edited.replace("version = 1", "version = 2"), "version 2 is not supported"),
        (edited.replace("version = 1", "version = 1\nseed = 3"), "unknown field `seed`"),
    ] {
        loader.schema = Some((lab.path("schema.toml"), wrong));
        let error = loader.schema_of(&input).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_same_file_gives_the_same_model_and_a_folder_is_replaced_only_when_asked() {
    let lab = Lab::new();
    let input = lab.file("t.csv", csv_text());
    lab.train(&input, "a").unwrap();
    lab.train(&input, "b").unwrap();
    let read = |to: &str, name: &str| std::fs::read(lab.path(to).join(name)).unwrap();
    for name in
        [MODEL_FILE, MANIFEST_FILE, "evaluation.json", "evaluation.txt", "report.html", "card.md", "schema.toml"]
    {
        assert_eq!(read("a", name), read("b", name), "{name}");
    }
    assert!(lab.train(&input, "a").unwrap_err().to_string().contains("is there already"));
    let other = TableTraining { seed: 2, split: Some(SplitRule::Random), force: true, ..lab.training(&input, "a") };
    std::fs::write(lab.path("a").join("notes.txt"), "mine").unwrap();
    other.run(&Unobserved).unwrap();
    assert_ne!(read("a", MANIFEST_FILE), read("b", MANIFEST_FILE));
    assert_eq!(read("a", "notes.txt"), b"mine");
    // Nothing is left of what was written beside it.
    let left = std::fs::read_dir(lab.dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("partial"));
    assert_eq!(left.count(), 0);
}

#[test]
fn the_best_algorithm_by_validation_is_written() {
    let lab = Lab::new();
    // Either of two things, but not both: no weighted sum tells.
    let row = |row| {
        let (time, service, bytes, _) = fields(row);
        format!("{time},{service},{bytes},{}\n", u8::from((service == "ssh") != (bytes > 500)))
    };
    let input = lab.file("t.csv", "start,service,bytes,label\n".to_owned() + &(0..ROWS).map(row).collect::<String>());
    let algorithms = vec![Algorithm::LogisticRegression, Algorithm::GradientBoosting];
    let outcomes = TableTraining { algorithms, ..lab.training(&input, "to") }.run(&Unobserved).unwrap();
    assert_eq!(outcomes.outcomes[0].algorithm, Algorithm::GradientBoosting);
    let model = score::read_model(&lab.path("to").join(MODEL_FILE)).unwrap();
    assert_eq!(model.model().metadata().algorithm, Algorithm::GradientBoosting);
    assert_eq!(outcomes.manifest["trainings"].as_array().unwrap().len(), 2);
}

#[test]
fn a_search_finds_the_same_again_with_the_work_it_recorded() {
    let lab = Lab::new();
    let input = lab.file("t.csv", csv_text());
    let algorithms = vec![Algorithm::LogisticRegression, Algorithm::DecisionTree];
    let search = |search, to: &str| {
        let training =
            TableTraining { algorithms: algorithms.clone(), search: Some(search), ..lab.training(&input, to) };
        training.run(&Unobserved).unwrap().manifest
    };
    let manifest = search(SearchBudget::Seconds(1), "a");
    let found = &manifest["trainings"][0]["search"];
    let work = found["work"].as_u64().unwrap();
    assert!(work > 1_000_000 && found["leaderboard"].as_array().unwrap().len() > 1, "{found}");
    let again = search(SearchBudget::Work(work), "b");
    assert_eq!(manifest, again);
    let rebuilt = rebuild(&lab.path("a"), (&input, None), 1 << 30, &Unobserved).unwrap();
    assert!(rebuilt.is_same() && rebuilt.other_version.is_none());
    assert_eq!(
        std::fs::read(lab.path("a").join(MODEL_FILE)).unwrap(),
        std::fs::read(lab.path("b").join(MODEL_FILE)).unwrap()
    );
}

#[test]
fn a_rebuild_gives_the_same_bytes_and_tells_when_it_does_not() {
    let lab = Lab::new();
    let input = lab.file("t.csv", csv_text());
    let test = lab.file("test.csv", csv_text().replace("2026-01-01", "2026-02-01"));
    let algorithms = vec![Algorithm::DecisionTree, Algorithm::GradientBoosting];
    let confidence = Some(0.9.try_into().unwrap());
    let training =
        TableTraining { test: Some(test.clone()), algorithms, confidence, seed: 9, ..lab.training(&input, "a") };
    training.run(&Unobserved).unwrap();
    let again = |input, test| rebuild(&lab.path("a"), (input, test), 1 << 30, &Unobserved);
    let rebuilt = again(&input, Some(&test)).unwrap();
    assert!(rebuilt.is_same(), "{rebuilt:?}");
    assert_eq!(rebuilt.file, std::fs::read(lab.path("a").join(MODEL_FILE)).unwrap());
    let error = again(&test, Some(&input)).unwrap_err().to_string();
    assert!(error.contains("is not the t.csv that the model was made of"), "{error}");
    assert!(again(&input, None).unwrap_err().to_string().contains("t.csv and test.csv"));
    // Another seed than recorded is another model.
    let manifest = std::fs::read_to_string(lab.path("a").join(MANIFEST_FILE)).unwrap();
    lab.file("a/manifest.json", manifest.replace("\"seed\": 9", "\"seed\": 10"));
    assert!(!again(&input, Some(&test)).unwrap().is_same());
}

#[test]
fn a_selection_and_its_validation_are_recorded_and_rebuilt() {
    let lab = Lab::new();
    let row = |row: usize| {
        let (time, service, bytes, label) = fields(row);
        format!("{time},{service},{bytes},{},7,web-{},{label}\n", row * 7_368_787 % 997, row % 9)
    };
    let text = "start,service,bytes,noise,same,host,label\n".to_owned() + &(0..ROWS).map(row).collect::<String>();
    let input = lab.file("t.csv", text);
    let hosts = vec![("host".to_owned(), Role::Host)];
    let loader = Loader { roles: hosts, ..lab.training(&input, "a").loader };
    let embargo = Duration::from_secs(10);
    let training = TableTraining {
        loader,
        selection: select::Wanted { method: select::Method::Auto, columns_max: Some(2) },
        split: Some(SplitRule::Time),
        embargo,
        validation: ValidationRule::RollingOrigin { folds: 3, embargo },
        ..lab.training(&input, "a")
    };
    let manifest = training.run(&Unobserved).unwrap().manifest;
    let of_training = &manifest["trainings"][0];
    assert_eq!(of_training["selection"]["kept"], serde_json::json!(["service", "bytes"]));
    assert!(of_training["selection"]["steps"].as_array().unwrap().len() >= 3, "{}", of_training["selection"]);
    assert!(of_training["columns_left_out"]["noise"].is_string());
    assert_eq!(of_training["validation"]["method"], "rolling-origin");
    assert_eq!(
        (&manifest["split"]["embargo_seconds"], &manifest["split"]["counts"]["embargoed"]),
        (&10.into(), &9.into())
    );
    let read = |name: &str| std::fs::read_to_string(lab.path("a").join(name)).unwrap();
    assert!(read("evaluation.json").contains("\"selection\"") && read("report.html").contains("Columns selected"));
    assert!(rebuild(&lab.path("a"), (&input, None), 1 << 30, &Unobserved).unwrap().is_same());
    // Without the choice, or by hosts, it is another model.
    for other in [
        TableTraining { selection: select::Wanted::default(), ..training.clone() },
        TableTraining { validation: ValidationRule::default(), ..training.clone() },
        TableTraining { split: Some(SplitRule::Host), embargo: Duration::ZERO, ..training.clone() },
    ] {
        let outcomes = TableTraining { force: true, ..other }.run(&Unobserved).unwrap();
        assert_ne!(outcomes.manifest["trainings"][0]["model_sha256"], of_training["model_sha256"]);
        assert!(rebuild(&lab.path("a"), (&input, None), 1 << 30, &Unobserved).unwrap().is_same());
    }
    // The kept columns are all that scoring needs.
    training.run(&Unobserved).unwrap_err();
    TableTraining { force: true, ..training }.run(&Unobserved).unwrap();
    let model = score::read_model(&lab.path("a").join(MODEL_FILE)).unwrap();
    let few = lab.file("few.csv", "bytes,service\n900,ssh\n10,dns\n");
    let scored = score::score(&model, &few, &lab.path("scores.csv"), (0, false), |_, _| {}).unwrap();
    assert_eq!(scored.rows, 2);
}

#[test]
fn two_models_are_compared_on_new_rows_and_the_worse_is_held() {
    let lab = Lab::new();
    let input = lab.file("t.csv", csv_text());
    lab.train(&input, "good").unwrap();
    // Learned from labels that mean nothing.
    let row = |row| {
        let (time, service, bytes, _) = fields(row);
        format!("{time},{service},{bytes},{}\n", u8::from(row % 7 == 0))
    };
    let other = lab.file("o.csv", "start,service,bytes,label\n".to_owned() + &(0..ROWS).map(row).collect::<String>());
    lab.train(&other, "bad").unwrap();
    let [good, bad] = ["good", "bad"].map(|folder| lab.path(folder).join(MODEL_FILE));
    let loader = Loader { is_for_training: true, memory_bytes: 1 << 30, ..Loader::default() };
    let compared =
        |first, second| compare([first, second], &input, &loader, (&Policy::default(), 1), &Unobserved).unwrap();
    assert_eq!(compared(&bad, &good).decision.verdict, Verdict::Promote);
    let held = compared(&good, &bad);
    assert_eq!(held.decision.verdict, Verdict::Hold);
    assert!(held.decision.reasons.iter().any(|reason| reason.contains("the model in force has")), "{held:?}");
    let auc = held.comparison.figures["roc_auc"];
    assert!(auc.difference < -0.2 && auc.interval.unwrap().high < 0.0, "{auc:?}");
}

#[test]
fn a_test_file_of_its_own_must_have_the_columns() {
    let lab = Lab::new();
    let input = lab.file("t.csv", csv_text());
    let test = lab.file("test.csv", csv_text().replace("2026-01-01", "2026-02-01"));
    let training = TableTraining { test: Some(test), ..lab.training(&input, "to") };
    let outcomes = training.run(&Unobserved).unwrap();
    assert_eq!(outcomes.manifest["split"]["rule"], "official");
    assert_eq!(outcomes.manifest["split"]["counts"]["train_rows"], ROWS);
    let other = lab.file("other.csv", csv_text().replace("bytes", "octets"));
    let error = TableTraining { test: Some(other), ..lab.training(&input, "x") }.run(&Unobserved).unwrap_err();
    assert!(error.to_string().contains("other.csv: the table has no column \"bytes\""), "{error}");
}

#[test]
fn rows_are_scored_with_reasons_and_a_changed_schema_is_refused() {
    let lab = Lab::new();
    let input = lab.file("t.csv", csv_text());
    lab.train(&input, "to").unwrap();
    let model = score::read_model(&lab.path("to").join(MODEL_FILE)).unwrap();
    // Other order, no label, JSON: the same scores.
    let to = lab.path("scores.csv");
    let scored = score::score(&model, &input, &to, (3, false), |_, _| {}).unwrap();
    let from_json = lab.path("scores-json.csv");
    let json = lab.file("t.jsonl", json_text());
    assert_eq!(score::score(&model, &json, &from_json, (3, false), |_, _| {}).unwrap(), scored);
    let text = std::fs::read_to_string(&to).unwrap();
    assert_eq!(text, std::fs::read_to_string(from_json).unwrap());
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("row,score,verdict,reasons"));
    let attacks = (0..ROWS).filter(|row| fields(*row).3 == "attack").count() as u64;
    assert!((scored.rows, scored.findings) == (ROWS as u64, attacks), "{scored:?}");
    let finding = lines.find(|line| line.contains(",finding,")).unwrap();
    assert!(finding.contains("service=ssh (+") && finding.contains("bytes="), "{finding}");

    assert!(
        score::score(&model, &input, &to, (3, false), |_, _| {}).unwrap_err().to_string().contains("is there already")
    );
    for (name, text, expected) in [
        ("less.csv", csv_text().replace(" service ", "srv"), "it lacks 1 of the model's columns: service"),
        (
            "other.csv",
            csv_text().replace(",bytes,", ",b,").replace("start,", "bytes,"),
            "in column \"bytes\" is a number",
        ),
        ("less.jsonl", json_text().replace("\"bytes\"", "\"b\""), "no row has a key \"bytes\""),
    ] {
        let to = lab.path("none.csv");
        // What the second one lost is there under another name.
        let text = text.replace(",b,label", ",start,label");
        let error = score::score(&model, &lab.file(name, text), &to, (3, false), |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("the table's schema changed") && error.contains(expected), "{error}");
        assert!(!to.exists());
    }
}

#[test]
fn parquet_of_any_type_becomes_texts() {
    let lab = Lab::new();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("f", Arc::new(Float64Array::from(vec![Some(1.5), None, Some(f64::NAN), Some(f64::INFINITY)]))),
        ("s", Arc::new(StringArray::from(vec![Some("a,b"), None, Some(""), Some("é")]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = lab.path("p.parquet");
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let rows = rows(&mut Input::open(&path, None).unwrap());
    assert_eq!(rows, [["1.5", "a,b"], ["", ""], ["NaN", ""], ["inf", "é"]]);
}
