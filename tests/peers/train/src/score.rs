//! Times Picket's scoring, as `tests/peers/score/peer.c` times that of others.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use picket_common::model::Model;

const ROWS_MAX: usize = 20_000;
const BATCHES: usize = 5;

/// Scores the rows of a table with a model, one by one and all together.
pub(crate) fn run(model: &str, table: &str) -> Result<(), Box<dyn Error>> {
    let model = Model::parse(&std::fs::read(model)?)?;
    let bytes = std::fs::read(table)?;
    let number = |at: usize| -> Option<usize> {
        let number: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(number)).ok()
    };
    let (rows, features) = number(0).zip(number(4)).ok_or("the table has no head")?;
    let (values, _) = bytes.get(8 + rows..).ok_or("values are missing")?.as_chunks::<4>();
    let values: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
    let rows: Vec<&[f32]> = values.chunks_exact(features).take(ROWS_MAX).collect();
    let mut times = Vec::new();
    for _ in 0..2 {
        times.clear();
        for row in &rows {
            let begin = Instant::now();
            black_box(model.score(black_box(row)));
            times.push(begin.elapsed().as_nanos());
        }
    }
    times.sort_unstable();
    let (mut batch, mut sum) = (f64::INFINITY, 0.0);
    for _ in 0..BATCHES {
        let begin = Instant::now();
        sum = rows.iter().map(|row| model.score(black_box(row))).sum();
        batch = batch.min(begin.elapsed().as_secs_f64());
    }
    let line = serde_json::json!({
        "p50_ns": times[times.len() / 2] as f64,
        "p99_ns": times[times.len() * 99 / 100] as f64,
        "batch_ns": 1e9 * batch / rows.len() as f64,
        "mean_score": sum / rows.len() as f64,
    });
    println!("{line}");
    Ok(())
}
