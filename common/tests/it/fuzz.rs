//! Mutated model files: whatever the bytes are, the loader neither panics nor takes more than the file is worth, and what it
//! accepts scores and explains.
//!
//! Mutations know the format ([`mutation`]): lengths, checksum, signature and the scores of the self-test are made good again,
//! so that they reach what lies behind. Inputs that come to a new end are kept for the next round; those that the long run
//! finds are committed (`PICKET_UPDATE_CORPUS=1`).
//!
//! `PICKET_FUZZ_EXECUTIONS=10000000 cargo test --workspace --test it fuzz -- --ignored --nocapture` is the long run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use picket_common::feature::MISSING;
use picket_common::model::{Algorithm, Model, ModelBody, ModelDraft, ModelError};
use picket_common::table::{TableModel, TableModelError};

use crate::fuzz::mutation::{Input, Random, TRAILER_BYTES};

mod drafts;
mod mutation;

/// Inputs of the quick run.
const EXECUTIONS: u64 = 30_000;
/// Inputs of the long run, by default.
const LONG_EXECUTIONS: u64 = 10_000_000;
/// One in so many inputs is signed and goes the way of an agent.
const SIGNED_SHARE: u64 = 128;
/// Most inputs that are kept.
const KEPT_MAX: usize = 4_000;
/// The largest input: mutations insert.
const INPUT_BYTES_MAX: usize = 16 << 10;
/// What a model may take in memory for each byte of its file, and what in any case.
const MEMORY_FACTOR: usize = 64;
const MEMORY_BASE: usize = 4096;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "corpus"].iter().collect()
}

/// All files of the corpus, by name.
fn corpus() -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// Where an input ends: accepted as what, or refused for what.
fn outcome(bytes: &[u8]) -> String {
    let refused = |error: &dyn std::fmt::Display| {
        let text = error.to_string();
        // Numbers tell too many apart.
        let text: String = text.chars().filter(|letter| !letter.is_ascii_digit() && *letter != '-').collect();
        text.split(": expected score bits").next().unwrap_or_default().to_owned()
    };
    if TableModel::is_table_model(bytes) {
        return match TableModel::parse(bytes) {
            Ok(table) => format!("table, {}", used(table.model(), bytes)),
            Err(error) => refused(&error),
        };
    }
    match Model::parse(bytes) {
        Ok(model) => used(&model, bytes),
        Err(error) => refused(&error),
    }
}

/// Uses an accepted model in every way, and says what it is.
fn used(model: &Model, bytes: &[u8]) -> String {
    let metadata = model.metadata();
    assert!(model.memory_bytes() <= MEMORY_FACTOR * bytes.len() + MEMORY_BASE, "{} bytes", model.memory_bytes());
    let mut random = Random::new(bytes.len() as u64);
    let mut into = Vec::new();
    for round in 0..3 {
        let values: Vec<f32> = (0..metadata.feature_count).map(|_| value(&mut random, round)).collect();
        let score = model.score(&values);
        assert!((0.0..=1.0).contains(&score), "{score}");
        model.explain(&values, &mut into);
        let moved: f64 = into.iter().map(|entry| entry.contribution.abs()).sum();
        let total = model.baseline() + into.iter().map(|entry| entry.contribution).sum::<f64>();
        assert!(total.is_finite(), "{total}");
        let explained = match metadata.algorithm {
            // Reasons are those of the score before its calibration.
            _ if model.calibration().is_some() => continue,
            // Layers and distances add up in `f32`: how exact they are has nothing to do with what comes out.
            Algorithm::LinearSvm | Algorithm::RbfSvm | Algorithm::NeuralNetwork => continue,
            Algorithm::DecisionTree | Algorithm::RandomForest | Algorithm::ExtraTrees | Algorithm::VotingForest => {
                total
            }
            Algorithm::IsolationForest => match model.body() {
                Some(ModelBody::IsolationForest { normaliser, .. }) => (total / normaliser).exp2(),
                _ => continue,
            },
            Algorithm::GradientBoosting | Algorithm::LogisticRegression | Algorithm::NaiveBayes => {
                1.0 / (1.0 + (-total).exp())
            }
        };
        // Sums of large terms are as exact as their largest.
        let tolerance = 1e-9 * (1.0 + moved + model.baseline().abs());
        assert!((explained - score).abs() <= tolerance, "{explained} is not {score} within {tolerance}");
    }
    check_encoding(model, bytes);
    format!("{} {}", metadata.algorithm, bytes.len().ilog2())
}

/// One model has one encoding: what an accepted file says is written again with the same bytes, but for the self-test and
/// what follows.
fn check_encoding(model: &Model, bytes: &[u8]) {
    let Some(body) = model.body() else { return };
    let draft = ModelDraft {
        metadata: model.metadata().clone(),
        imputation: model.imputation().to_vec(),
        body,
        calibration: None,
        self_test: vec![vec![0.0; model.metadata().feature_count]],
    };
    let again = draft.encode(&key()).unwrap();
    let same = again.len() - TRAILER_BYTES - (8 + 4 + 4 * model.metadata().feature_count + 8);
    let at = bytes.windows(8).position(|window| window == b"PKTMODEL").unwrap();
    assert_eq!(again[..same], bytes[at..at + same]);
}

fn value(random: &mut Random, round: u32) -> f32 {
    match (round, random.below(8)) {
        (0, _) => 0.0,
        (_, 0) => MISSING,
        (_, 1) => f32::INFINITY,
        (_, 2) => f32::from_bits(random.next() as u32),
        (_, other) => other as f32 - 5.5,
    }
}

/// Runs so many mutated inputs; the seed makes them.
fn run(executions: u64, seed: u64) -> Run {
    let mut run = Run { executions, ..Run::default() };
    let mut inputs: Vec<Input> = Vec::new();
    for (name, bytes) in corpus() {
        run.outcomes.insert(outcome(&bytes), name);
        inputs.push(Input::new(&bytes));
    }
    let corpus = inputs.len();
    let mut random = Random::new(seed);
    for execution in 0..executions {
        let begin = Instant::now();
        let (input, other) = (random.choice(&inputs), random.choice(&inputs));
        let mutated = input.mutated(other, &mut random);
        let mut bytes = mutated.bytes();
        if bytes.len() > INPUT_BYTES_MAX {
            continue;
        }
        // A self-test that no longer holds is no end: what follows is what the new trees do.
        for _ in 0..4 {
            let tested = if TableModel::is_table_model(&bytes) {
                TableModel::parse(&bytes).err()
            } else {
                Model::parse(&bytes).err().map(TableModelError::Model)
            };
            let Some(TableModelError::Model(ModelError::SelfTest { row, computed, .. })) = tested else { break };
            bytes = mutated.with_score(&bytes, row, computed);
        }
        if execution % SIGNED_SHARE == 0 {
            check_signed(&mutated.signed(&bytes, &key()), &mut random);
        }
        let end = outcome(&bytes);
        run.accepted += u64::from(end.split(' ').next().is_some_and(is_algorithm));
        run.slowest = run.slowest.max(begin.elapsed());
        if !run.outcomes.contains_key(&end) && inputs.len() < KEPT_MAX {
            run.found.push(bytes.clone());
            inputs.push(Input::new(&bytes));
            run.outcomes.insert(end, format!("execution {execution}"));
        }
    }
    println!(
        "{executions} executions (seed {seed}): {} accepted, {} ends, {corpus} inputs in the corpus, {} found, slowest {:?}",
        run.accepted,
        run.outcomes.len(),
        run.found.len(),
        run.slowest
    );
    run
}

fn is_algorithm(word: &str) -> bool {
    word == "table," || Algorithm::ALL.iter().any(|algorithm| algorithm.name() == word)
}

/// What a run came to.
#[derive(Default)]
struct Run {
    executions: u64,
    accepted: u64,
    slowest: Duration,
    /// For each end the first input that came to it.
    outcomes: BTreeMap<String, String>,
    found: Vec<Vec<u8>>,
}

/// The way of an agent: as good as without the signature, and with any bit changed refused.
fn check_signed(bytes: &[u8], random: &mut Random) {
    let trusted = [key().verifying_key()];
    let verify = |bytes: &[u8]| {
        if TableModel::is_table_model(bytes) {
            TableModel::verify(bytes, &trusted).map(|_| ())
        } else {
            Model::verify(bytes, &trusted).map(|_| ()).map_err(TableModelError::Model)
        }
    };
    let parsed = if TableModel::is_table_model(bytes) {
        TableModel::parse(bytes).map(|_| ())
    } else {
        Model::parse(bytes).map(|_| ()).map_err(TableModelError::Model)
    };
    if bytes.len() >= TRAILER_BYTES + 16 {
        assert_eq!(verify(bytes).is_ok(), parsed.is_ok());
    }
    let mut flipped = bytes.to_vec();
    let bit = random.below(8 * bytes.len());
    flipped[bit / 8] ^= 1 << (bit % 8);
    assert!(verify(&flipped).is_err(), "bit {bit}");
}

#[test]
fn mutated_models_are_refused_or_work() {
    let run = run(EXECUTIONS, 1);
    assert!(run.accepted > run.executions / 100, "mutations reach accepted models: {}", run.accepted);
    assert!(run.outcomes.len() > 30, "{:?}", run.outcomes.keys());
}

#[test]
#[ignore = "ten million executions: a quarter of an hour"]
fn ten_million_mutated_models_are_refused_or_work() {
    let wanted = std::env::var("PICKET_FUZZ_EXECUTIONS").ok().and_then(|count| count.parse().ok());
    let seed = std::env::var("PICKET_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(2);
    let run = run(wanted.unwrap_or(LONG_EXECUTIONS), seed);
    assert!(run.slowest < Duration::from_secs(10), "{:?}", run.slowest);
    if std::env::var_os("PICKET_UPDATE_CORPUS").is_some() {
        for bytes in &run.found {
            let digest = picket_common::id::Digest::of(bytes).to_string();
            fs::write(folder().join(format!("found-{}.bin", &digest[..12])), bytes).unwrap();
        }
    }
}

/// The seeds are what the drafts encode to, so that a new format is fuzzed, too.
#[test]
fn the_corpus_has_every_algorithm_in_this_format() {
    let drafts = drafts::files(&key());
    if std::env::var_os("PICKET_UPDATE_CORPUS").is_some() {
        for (name, bytes) in &drafts {
            fs::write(folder().join(name), bytes).unwrap();
        }
    }
    let corpus = corpus();
    for (name, bytes) in drafts {
        assert_eq!(corpus.get(&name), Some(&bytes), "{name}: write it anew with PICKET_UPDATE_CORPUS=1");
        assert!(is_algorithm(outcome(&bytes).split(' ').next().unwrap()), "{name}");
    }
}

#[test]
fn any_flipped_bit_or_missing_end_of_a_seed_is_refused() {
    let trusted = [key().verifying_key()];
    for (name, bytes) in drafts::files(&key()) {
        let refused = |bytes: &[u8]| {
            if TableModel::is_table_model(bytes) {
                TableModel::verify(bytes, &trusted).is_err()
            } else {
                Model::verify(bytes, &trusted).is_err()
            }
        };
        assert!(!refused(&bytes), "{name}");
        for length in 0..bytes.len() {
            assert!(refused(&bytes[..length]), "{name}: {length} bytes");
        }
        // Signatures of all are costly: the checks before them are in the model's own tests.
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&flipped), "{name}: bit {bit}");
        }
    }
}
