//! Recursive elimination (Guyon, Weston, Barnhill, Vapnik, Gene selection for cancer classification, 2002).
//!
//! Models are fitted to all columns, a share of the least important ones goes, and so on to the last column. Importance is
//! that of [`super::permutation`] in the models of the folds, measured anew with each set: it needs nothing of
//! an algorithm, and a column whose stand-in has gone is seen for what it is worth.

use crate::select::judge::{Judge, STAGE};
use crate::select::{Chosen, Step, Wanted, all, permutation, smallest_as_good};
use crate::train::TrainError;

/// Share of the columns that goes with a step, at least one.
const SHARE: f64 = 0.2;
/// Permutations of each column and step.
const REPEATS: usize = 1;
const REASON: &str = "validation is as good without it";

pub(super) fn eliminate(judge: &Judge<'_>, wanted: Wanted) -> Result<Chosen, TrainError> {
    let mut places = all(judge.columns());
    let count = places.len();
    let mut steps: Vec<Step> = Vec::new();
    let mut gone: Vec<(usize, &'static str, f64)> = Vec::new();
    let mut of_step: Vec<usize> = Vec::new();
    let mut left_after: Vec<usize> = Vec::new();
    loop {
        let (step, fitted) = judge.step_and_models(&places, &of_step)?;
        steps.push(step);
        left_after.push(gone.len());
        judge.control().observer.progress(STAGE, gone.len() as u64, count as u64);
        if places.len() <= 1 {
            break;
        }
        let importances = permutation::importances(judge, &fitted, &places, REPEATS)?;
        let mut order: Vec<usize> = (0..places.len()).collect();
        // Of equals the later column of the table goes.
        order.sort_by(|a, b| importances[*a].0.total_cmp(&importances[*b].0).then(b.cmp(a)));
        order.truncate(((places.len() as f64 * SHARE) as usize).max(1));
        of_step = order.iter().map(|place| places[*place]).collect();
        gone.extend(order.iter().map(|place| (places[*place], REASON, importances[*place].0)));
        places.retain(|place| !of_step.contains(place));
    }
    let chosen = smallest_as_good(&mut steps, wanted.columns_max);
    gone.truncate(left_after.get(chosen).copied().unwrap_or(0));
    let places = (0..count).filter(|place| gone.iter().all(|(gone, ..)| gone != place)).collect();
    Ok(Chosen { places, dropped: gone, steps })
}
