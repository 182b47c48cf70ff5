use ed25519_dalek::SigningKey;

use super::*;
use crate::event::Timestamp;
use crate::feature::Subject;
use crate::model::{Algorithm, ModelBody, ModelDraft, ModelMetadata, NodeDraft, TreeDraft};

fn rows(text: &str) -> Result<(Vec<String>, Vec<Vec<String>>), TableReadError> {
    collect(TableReader::csv(text.as_bytes())?)
}

type Rows = (Vec<String>, Vec<Vec<String>>);

fn collect(mut reader: TableReader<&[u8]>) -> Result<Rows, TableReadError> {
    let (mut record, mut rows) = (Record::default(), Vec::new());
    while reader.next(&mut record)? {
        rows.push((0..record.len()).map(|place| record.field(place).to_owned()).collect());
    }
    Ok((reader.columns().to_vec(), rows))
}

#[test]
fn csv_is_read_as_it_is_written() {
    let (columns, rows) = rows("\u{feff} a ,\"b\"\"c\",a,\r\n1,\"x, \"\"y\"\"\nz\",,4\r\n\n\"\",é,\"q\"r,0").unwrap();
    assert_eq!(columns, ["a", "b\"c", "a.1", "column 4"]);
    assert_eq!(rows, [["1", "x, \"y\"\nz", "", "4"], ["", "é", "qr", "0"]]);
    let (_, rows) = self::rows("a,b\n5\" disk,echo \"x\"\n1,2\n").unwrap();
    assert_eq!(rows, [["5\" disk", "echo \"x\""], ["1", "2"]], "a mark inside a field is a character");
    for (text, columns) in [("a;b\n1;2", 2), ("a\tb\tc\n1\t2\t3", 3), ("a|b\n1|2\n", 2), ("a\n1\n\n2", 1)] {
        let (names, rows) = self::rows(text).unwrap();
        assert_eq!(names.len(), columns, "{text:?}");
        assert!(rows.iter().all(|row| row.len() == columns));
    }
    assert_eq!(self::rows("a\n1\n\n2").unwrap().1.len(), 3, "a blank line is a missing value of the only column");
}

#[test]
fn tables_that_cannot_be_read_say_where() {
    let wide = (0..10_000).map(|column| format!("c{column}")).collect::<Vec<_>>().join(",");
    let long = format!("a,b\n1,{}\n", "x".repeat(limits::ROW_BYTES_MAX));
    for (text, expected) in [
        ("", "the table is empty: not even a line with the names of its columns"),
        ("a,b\n1,2\n3\n", "line 3: 1 fields, but the table has 2 columns"),
        ("a,b\n1,\"2\n3,4\n", "line 2: a quotation mark is not closed"),
        (&wide, "the table has 10000 columns, at most 4096 are supported: leave out those that are not needed"),
        (&long, "line 2: the row is longer than 1048576 bytes; perhaps a quotation mark is not closed"),
    ] {
        assert_eq!(rows(text).unwrap_err().to_string(), expected);
    }
    let error = collect(TableReader::json_lines(&b"{\"a\":1}\n[1]\n"[..], vec!["a".to_owned()])).unwrap_err();
    assert_eq!(error.to_string(), "line 2: not a JSON object: something else");
}

#[test]
fn json_lines_are_flattened() {
    let columns = ["a", "b.c", "list", "absent"].map(str::to_owned).to_vec();
    let text = "{\"a\": 1.50, \"b\": {\"c\": \"x\"}, \"list\": [6, 6, 63]}\n\n{\"b\": {\"c\": null}, \"a\": true}\n";
    let mut reader = TableReader::json_lines(text.as_bytes(), columns);
    let mut record = Record::default();
    assert!(reader.next(&mut record).unwrap());
    assert_eq!([0, 1, 2, 3].map(|place| record.field(place)), ["1.5", "x", "6 6 63", ""]);
    assert!(reader.next(&mut record).unwrap());
    assert_eq!([0, 1, 2, 3].map(|place| record.field(place)), ["true", "", "", ""]);
    assert!(!reader.next(&mut record).unwrap());
    assert_eq!(reader.unseen().collect::<Vec<_>>(), ["absent"]);
}

#[test]
fn fields_are_typed_and_infinity_and_nan_are_missing() {
    use ColumnKind::{Categorical, Numeric, Time};
    let read = |kind, field| cell::read(kind, field);
    assert_eq!(read(Numeric, " 1e3 ").value, Value::Number(1000.0));
    assert_eq!(read(Numeric, "0x1f").value, Value::Number(31.0));
    for (field, problem) in [
        ("", None),
        ("NaN", None),
        ("null", None),
        ("Infinity", Some(Problem::Infinite)),
        ("-inf", Some(Problem::Infinite)),
        ("1e300", Some(Problem::Infinite)),
        ("tcp", Some(Problem::NotANumber)),
    ] {
        assert_eq!(read(Numeric, field), Cell { value: Value::Missing, problem }, "{field}");
    }
    assert_eq!(read(Categorical, " - ").value, Value::Text("-"));
    assert_eq!(read(Time, "yesterday").problem, Some(Problem::NotATime));
}

/// A model that finds what has a `proto` of high log-odds or more than 100 bytes.
fn table_model() -> Vec<u8> {
    let known = [("tcp", -1.0), ("udp", 2.0)].map(|(value, log_odds)| Category {
        value: value.to_owned(),
        log_odds,
        frequency: 3.0,
    });
    let encoders = [
        ("proto", Encoder::Categorical(Categories { other: 0.5, known: known.to_vec() })),
        ("bytes", Encoder::Numeric),
        ("command", Encoder::Text(vec![7, 9])),
        ("time", Encoder::Time),
    ];
    let column = |(name, encoder): (&str, Encoder)| PreparedColumn { name: name.to_owned(), encoder };
    let preparation = Preparation { columns: encoders.map(column).to_vec() };
    let feature_count = preparation.feature_count();
    let split = |feature, threshold, left| NodeDraft::inner(feature, threshold, true, [left, left + 1]);
    let nodes = vec![
        split(0, 1.0, 1),
        split(2, 100.0, 3),
        NodeDraft::leaf(0.9, 1),
        NodeDraft::leaf(0.1, 3),
        NodeDraft::leaf(0.8, 1),
    ];
    let draft = ModelDraft {
        metadata: ModelMetadata {
            subject: Subject::Connection,
            algorithm: Algorithm::DecisionTree,
            feature_spec_hash: preparation.hash(),
            feature_count,
            threshold: 0.5,
            dataset_digest: Digest::of(b"rows"),
            training_run: "test".to_owned(),
            created: Timestamp(0),
        },
        imputation: Vec::new(),
        body: ModelBody::Forest(vec![TreeDraft { nodes }]),
        self_test: vec![vec![0.5; feature_count]],
    };
    TableModel::encode(&preparation, &draft.encode(&SigningKey::from_bytes(&[7; 32])).unwrap()).unwrap()
}

#[test]
fn rows_get_a_score_and_reasons_whatever_the_order_of_columns() {
    let model = TableModel::parse(&table_model()).unwrap();
    let text = "id,time,bytes,command,proto\n1,2021-06-06,5,ls,tcp\n2,x,500,,tcp\n3,,NaN,sh,udp\n4,,inf,sh,sctp\n";
    let mut reader = TableReader::csv(text.as_bytes()).unwrap();
    let mut scorer = RowScorer::new(&model, reader.columns()).unwrap();
    let (mut record, mut scores) = (Record::default(), Vec::new());
    while reader.next(&mut record).unwrap() {
        scores.push(scorer.score(&record) as f32);
        if scores.len() == 2 {
            let reasons = scorer.reasons(&record, 5);
            let said: Vec<_> = reasons.iter().map(|reason| (reason.column.as_str(), reason.field.as_str())).collect();
            assert_eq!(said, [("bytes", "500"), ("proto", "tcp")]);
            assert!((reasons[0].contribution - 0.4725).abs() < 1e-6 && (reasons[1].contribution + 0.0725).abs() < 1e-6);
            assert_eq!(scorer.reasons(&record, 1).len(), 1);
        }
    }
    assert_eq!(scores, [0.1, 0.8, 0.9, 0.1]);
    scorer.check_fields().unwrap();
    assert_eq!(scorer.unreadable(), 1);
}

#[test]
fn a_changed_schema_is_told() {
    let model = TableModel::parse(&table_model()).unwrap();
    let columns = ["proto", "time", "Bytes"].map(str::to_owned);
    let error = RowScorer::new(&model, &columns).unwrap_err();
    assert_eq!(error.to_string(), "the table's schema changed: it lacks 2 of the model's columns: bytes, command");
    let columns = ["proto", "time", "bytes", "command"].map(str::to_owned);
    let mut scorer = RowScorer::new(&model, &columns).unwrap();
    let mut record = Record::default();
    ["tcp", "", "many", "ls"].iter().for_each(|field| record.push(field));
    scorer.score(&record);
    let error = scorer.check_fields().unwrap_err().to_string();
    assert!(error.contains("none of the 1 values in column \"bytes\" is a number"), "{error}");
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let good = table_model();
    assert_eq!(TableModel::parse(&good).unwrap().id(), Digest::of(&good));
    assert!(TableModel::is_table_model(&good));
    let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
    TableModel::verify(&good, &[key]).unwrap();
    TableModel::verify(&good, &[]).unwrap_err();
    for bit in 0..8 * good.len() {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // Who signed it is outside the checksum: that is the signature's matter.
        assert!(TableModel::verify(&bad, &[key]).is_err(), "bit {bit}");
        assert!(bit >= 8 * (good.len() - 96) || TableModel::parse(&bad).is_err(), "bit {bit}");
    }
    for length in 0..good.len() {
        assert!(TableModel::parse(&good[..length]).is_err(), "{length} bytes");
    }
    assert!(TableModel::parse(&[good.as_slice(), b"x"].concat()).is_err());
    assert!(matches!(TableModel::parse(b"PKTMODEL"), Err(TableModelError::NotATableModel)));
}

#[test]
fn a_preparation_that_breaks_the_rules_is_not_encoded() {
    let twice = Category { value: "a".to_owned(), log_odds: 0.0, frequency: 0.0 };
    for encoder in [
        Encoder::Text(vec![9, 7]),
        Encoder::Text(vec![limits::NGRAM_NUMBERS]),
        Encoder::Categorical(Categories { other: f32::NAN, known: Vec::new() }),
        Encoder::Categorical(Categories { other: 0.0, known: vec![twice.clone(), twice] }),
    ] {
        let column = PreparedColumn { name: "c".to_owned(), encoder };
        let preparation = Preparation { columns: vec![column] };
        let feature_count = preparation.feature_count();
        let draft = ModelDraft {
            metadata: ModelMetadata {
                feature_spec_hash: preparation.hash(),
                feature_count,
                ..TableModel::parse(&table_model()).unwrap().model().metadata().clone()
            },
            imputation: Vec::new(),
            body: ModelBody::Forest(vec![TreeDraft { nodes: vec![NodeDraft::leaf(0.5, 1)] }]),
            self_test: vec![vec![0.0; feature_count]],
        };
        let model = draft.encode(&SigningKey::from_bytes(&[7; 32])).unwrap();
        assert!(matches!(TableModel::encode(&preparation, &model), Err(TableModelError::Malformed { .. })));
    }
}
