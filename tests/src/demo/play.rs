//! Playing a round while something else is looked at.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::console::Console;
use crate::range::Round;
use crate::range::plan::{Plan, Size};
use crate::range::player::Range;
use crate::range::services::Services;
use crate::range::truth::GroundTruth;

/// How often the caller gets to look.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Plays `round` and calls `look` again and again while it is played.
///
/// # Errors
/// The range cannot be played, or `look` failed: then the round is stopped.
pub fn play(
    range: &Range,
    services: &Services,
    round: Round,
    seed: u64,
    console: &Console,
    mut look: impl FnMut() -> io::Result<()>,
) -> io::Result<GroundTruth> {
    let plan = Plan::generate(seed, round, Size::of(round));
    let total = plan.instances.len();
    let (stop, ended) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let player = scope.spawn(|| {
            range.play(&plan, services, &stop, &|count| {
                ended.fetch_max(count, Ordering::Relaxed);
            })
        });
        let mut looked = Ok(());
        while !player.is_finished() {
            std::thread::sleep(LOOK_INTERVAL);
            let done = ended.load(Ordering::Relaxed);
            console.now(&format!("round {}: {done} of {total} activities done", round.number()));
            if looked.is_ok() {
                looked = look();
            }
            if looked.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
        }
        let truth = player.join().map_err(|_| io::Error::other("the player died"))??;
        looked?;
        look()?;
        Ok(truth)
    })
}
