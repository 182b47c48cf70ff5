//! Picket's side of the comparison: reads a table, fits, scores, prints one line of JSON.
//!
//! `learn-comparison TRAIN TEST PARAMETERS THREADS REPEATS`: both tables as `peers.py` writes them (rows and features,
//! each `u32`, then a label byte for each row, then the values, `f32`, row by row; little-endian), the parameters as JSON.

#![forbid(unsafe_code)]

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use ed25519_dalek::SigningKey;
use picket_common::event::Timestamp;
use picket_common::feature::{MISSING, Subject};
use picket_common::id::Digest;
use picket_common::model::{Model, ModelDraft, ModelMetadata};
use picket_learn::evaluate::curve::Curve;
use picket_learn::train::{Control, FittedModel, Params, TrainingSet, Unobserved, ValidParams, trainer};

mod score;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, model, table] = arguments.as_slice()
        && mode == "score"
    {
        return score::run(model, table);
    }
    let [train, test, params, threads, repeats, model_file @ ..] = arguments.as_slice() else {
        return Err(
            "usage: learn-comparison TRAIN TEST PARAMETERS THREADS REPEATS [MODEL], or: score MODEL TABLE".into()
        );
    };
    let (train, test) = (read(train)?, read(test)?);
    let params: Params = serde_json::from_str(params)?;
    let valid = ValidParams::new(params)?;
    let control = Control { threads: threads.parse()?, observer: &Unobserved };
    let mut best: Option<(f64, f64, FittedModel)> = None;
    for _ in 0..repeats.parse::<usize>()?.max(1) {
        let (begin, cpu) = (Instant::now(), cpu_seconds());
        let fitted = trainer(params.algorithm()).fit(&train, &valid, 7, &control)?;
        let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        if best.as_ref().is_none_or(|best| seconds < best.0) {
            best = Some((seconds, cpu, fitted));
        }
    }
    let (seconds, cpu, fitted) = best.ok_or("no repeat")?;
    let file = draft(fitted, &params, train.feature_count()).encode(&SigningKey::from_bytes(&[7; 32]))?;
    if let [path] = model_file {
        std::fs::write(path, &file)?;
    }
    let model = Model::parse(&file)?;
    let curve = Curve::new(test.rows().map(|row| model.score(row)).zip(test.malicious().iter().copied()));
    let mut score_seconds = f64::INFINITY;
    for _ in 0..3 {
        let begin = Instant::now();
        black_box(test.rows().map(|row| model.score(row)).sum::<f64>());
        score_seconds = score_seconds.min(begin.elapsed().as_secs_f64());
    }
    let line = serde_json::json!({
        "seconds": seconds,
        "cpu_seconds": cpu,
        "roc_auc": curve.roc_auc(),
        "pr_auc": curve.average_precision(),
        "score_us": 1e6 * score_seconds / test.len() as f64,
        "model_bytes": file.len(),
    });
    println!("{line}");
    Ok(())
}

fn read(path: &str) -> Result<TrainingSet, Box<dyn Error>> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let number = |at: usize| -> Option<usize> {
        let number: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(number)).ok()
    };
    let (rows, features) = number(0).zip(number(4)).ok_or("the table has no head")?;
    let labels = bytes.get(8..8 + rows).ok_or("labels are missing")?;
    let (values, _) = bytes.get(8 + rows..).ok_or("values are missing")?.as_chunks::<4>();
    let values = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
    let groups = (0..u32::try_from(rows)?).collect();
    Ok(TrainingSet::new(features, values, labels.iter().map(|label| *label == 1).collect(), groups)?)
}

fn draft(fitted: FittedModel, params: &Params, feature_count: usize) -> ModelDraft {
    ModelDraft {
        metadata: ModelMetadata {
            subject: Subject::Connection,
            algorithm: params.algorithm(),
            feature_spec_hash: Digest::of(b"comparison"),
            feature_count,
            threshold: 0.5,
            dataset_digest: Digest::of(b"comparison"),
            training_run: "comparison".to_owned(),
            created: Timestamp(0),
        },
        imputation: Vec::new(),
        body: fitted.body,
        calibration: None,
        self_test: vec![vec![MISSING; feature_count]],
    }
}

/// Processor time of this process so far, of all its threads.
fn cpu_seconds() -> f64 {
    /// Clock ticks a second in /proc, on every Linux.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything: user time is the 12th field, system time the 13th.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}
