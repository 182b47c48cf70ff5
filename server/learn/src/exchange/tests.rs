//! Models that LightGBM, XGBoost and skl2onnx made (`tests/peers/exchange/make.py`), with the scores they gave.

use std::fs;
use std::path::PathBuf;

use ed25519_dalek::SigningKey;
use picket_common::table::{Record, RowScorer, TableReader};

use super::*;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", name].iter().collect()
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

fn imported(bytes: &[u8]) -> Result<Imported, ImportError> {
    let options = ImportOptions { threshold: 0.5, name: "import".to_owned() };
    import(bytes, &options, &SigningKey::from_bytes(&[1; 32]))
}

/// Scores a table of rows with a model; the greatest difference to its column, and how many rows.
fn difference(model: &Imported, rows: &str, column: &str) -> (f64, usize) {
    let text = fixture(rows);
    let mut reader = TableReader::csv(text.as_slice()).unwrap();
    let place = reader.columns().iter().position(|name| name == column).unwrap();
    let mut scorer = RowScorer::new(&model.model, reader.columns()).unwrap();
    let (mut record, mut greatest, mut rows) = (Record::default(), 0.0f64, 0);
    while reader.next(&mut record).unwrap() {
        let expected: f64 = record.field(place).parse().unwrap();
        greatest = greatest.max((scorer.score(&record) - expected).abs());
        rows += 1;
    }
    (greatest, rows)
}

#[test]
fn imported_models_score_as_their_tools_do() {
    let mut seen = 0;
    for entry in fs::read_dir(path("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("refused") || name.ends_with(".csv") || name.ends_with(".shap") {
            continue;
        }
        let model = imported(&fixture(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(model.rows_compared, 2_000);
        let rows = if name.ends_with(".onnx") { "rows-whole.csv" } else { "rows.csv" };
        let (difference, rows) = difference(&model, rows, &name);
        // The tools add up numbers of 32 bits.
        assert!(difference < 1e-6 && rows == 80, "{name}: {difference} in {rows} rows");
        assert_eq!(imported(&fixture(&name)).unwrap().file, model.file, "the same bytes each time");
        seen += 1;
    }
    assert_eq!(seen, 13);
}

#[test]
fn contributions_are_those_of_lightgbm() {
    // LightGBM explains the sum of a forest, not its mean, and what stands before the slope of the logistic function.
    for (name, slope) in [("lightgbm.txt", 1.0), ("lightgbm-sigmoid.txt", 0.5), ("lightgbm-forest.txt", 0.125)] {
        let model = imported(&fixture(name)).unwrap();
        let contributions = String::from_utf8(fixture(&format!("{name}.shap"))).unwrap();
        let rows = fixture("rows.csv");
        let mut reader = TableReader::csv(rows.as_slice()).unwrap();
        let mut record = Record::default();
        for line in contributions.lines() {
            assert!(reader.next(&mut record).unwrap());
            let values: Vec<f32> = (0..6).map(|column| record.field(column).parse().unwrap_or(f32::NAN)).collect();
            let mut into = Vec::new();
            model.model.model().explain(&values, &mut into);
            let mut found = [0.0; 7];
            into.iter().for_each(|entry| found[entry.feature] = entry.contribution);
            found[6] = model.model.model().baseline();
            for (found, expected) in found.iter().zip(line.split(' ')) {
                let expected: f64 = expected.parse::<f64>().unwrap() * slope;
                assert!((found - expected).abs() < 1e-6, "{name}: {found} {expected}");
            }
        }
    }
}

#[test]
fn what_cannot_be_the_same_is_refused_with_a_reason() {
    for (name, reason) in [
        ("refused-lightgbm-categorical.txt", "categorical splits"),
        ("refused-lightgbm-classes.txt", "several classes"),
        ("refused-lightgbm-linear.txt", "linear models in its leaves"),
        ("refused-lightgbm-regression.txt", "\"regression\""),
        ("refused-lightgbm-zero.txt", "zeros for missing"),
        ("refused-xgboost-classes.ubj", "several classes"),
        ("refused-xgboost-regression.json", "\"reg:squarederror\""),
        ("refused-classes.onnx", "two classes"),
        ("refused-svm.onnx", "\"SVMClassifier\""),
    ] {
        let error = imported(&fixture(name)).unwrap_err();
        assert!(matches!(error, ImportError::Unsupported { .. }), "{name}: {error}");
        assert!(error.to_string().contains(reason), "{name}: {error}");
    }
}

#[test]
fn pickles_and_other_files_are_refused() {
    let pickles: [&[u8]; 6] = [
        b"\x80\x04\x95\x10\0\0\0\0\0\0\0",
        b"PK\x03\x04archive/data.pkl",
        b"\x78\x9c\xab",
        b"\x1f\x8b\x08",
        b"cposix\nsystem\n(S'id'\ntR.",
        b"(lp0\nI1\na.",
    ];
    for bytes in pickles {
        let error = imported(bytes).unwrap_err();
        assert!(matches!(error, ImportError::Pickle { .. }), "{error}");
        assert!(error.to_string().contains("runs whatever program"), "{error}");
    }
    for bytes in [&b""[..], b"hello", b"binf\0\0\0\0", b"\xff\xff\xff"] {
        assert!(matches!(imported(bytes), Err(ImportError::Unknown)), "{bytes:?}");
    }
}

/// What is exported is taken back with the same scores.
#[test]
fn exported_trees_come_back() {
    for name in ["lightgbm.txt", "xgboost.ubj", "forest.onnx", "tree.onnx"] {
        let model = imported(&fixture(name)).unwrap();
        let onnx = export(model.model.model(), &["a".to_owned()]).unwrap();
        let again = imported(&onnx).unwrap();
        let (model, again) = (model.model.model(), again.model.model());
        let mut random = crate::random::SplitMix64::new(2);
        for _ in 0..500 {
            let mut value =
                || if random.next_u64().is_multiple_of(9) { f32::NAN } else { (4.0 * random.unit() - 2.0) as f32 };
            let values: [f32; 6] = std::array::from_fn(|_| value());
            assert!((model.score(&values) - again.score(&values)).abs() < 1e-7, "{name}");
        }
    }
}

/// Cut anywhere, or changed anywhere, a file is refused or gives a model that agrees with what it says.
#[test]
fn damaged_files_never_panic() {
    let mut random = crate::random::SplitMix64::new(4);
    for name in ["lightgbm.txt", "xgboost.json", "xgboost.ubj", "forest.onnx", "logistic.onnx"] {
        let bytes = fixture(name);
        for _ in 0..60 {
            let mut changed = bytes.clone();
            let mut place = || (random.next_u64() % bytes.len() as u64) as usize;
            let (at, cut, byte) = (place(), place(), place() as u8);
            changed[at] = byte;
            for file in [&changed[..], &bytes[..cut]] {
                if let Ok(model) = imported(file) {
                    assert!(model.difference_max <= PARITY_TOLERANCE, "{name}");
                }
            }
        }
    }
}

/// Numbers of nodes and features that are none, or far beyond, are an error and no panic.
#[test]
fn places_that_are_none_are_refused() {
    let text = String::from_utf8(fixture("lightgbm.txt")).unwrap();
    let with = |list: &str, number: &str| {
        let start = text.find(&format!("\n{list}=")).unwrap() + list.len() + 2;
        let end = start + text[start..].find(' ').unwrap();
        format!("{}{number}{}", &text[..start], &text[end..])
    };
    for list in ["left_child", "right_child", "split_feature"] {
        for number in ["-1e300", "1e300", "0.5", "-1.5", "NaN"] {
            let refused = imported(with(list, number).as_bytes());
            assert!(matches!(refused, Err(ImportError::Malformed { .. })), "{list} {number}: {refused:?}");
        }
    }
}
