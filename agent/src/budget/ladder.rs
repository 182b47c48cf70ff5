//! The degradation ladder: a pure function of what was measured, where the agent stands, its ceilings and the time.
//!
//! Down: one rung when a resource is above its ceiling, at most once per window (the window starts anew with each
//! step, so that a step is judged by what came after it). Up: one rung after everything was at or below
//! [`CALM_PERCENT`] of its ceiling for [`Ceilings::recovery_ms`]. Between the two nothing changes. A rung that had to be
//! left again soon after it was climbed to doubles the wait, up to [`RECOVERY_FACTOR_MAX`] times; a while of quiet on
//! the top rung takes that back.

use crate::budget::rung::{BudgetCause, BudgetRung};

/// At or below so much of every ceiling the agent may do more again.
pub const CALM_PERCENT: u64 = 70;
/// How often the wait before a step up can double.
pub const RECOVERY_FACTOR_MAX: u32 = 16;
/// Going down so many waits after going up means that going up was too early.
const RELAPSE_WAITS: u64 = 2;
/// So many waits on the top rung, and it is forgotten that going up was too early once.
const FORGET_WAITS: u64 = 10;

/// What the agent used over the last window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Whether a whole window has been seen since the last step.
    pub is_whole: bool,
    /// Processor time, milliseconds per second: 10 are one percent of a core.
    pub cpu_milliseconds_per_second: u64,
    /// Memory at the end of the window, bytes.
    pub resident_bytes: u64,
    /// Bytes written to disk per second.
    pub disk_write_bytes_per_second: u64,
}

/// What the host's administrator allows. 0: no ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Milliseconds of processor time per second.
    pub cpu_milliseconds_per_second: u64,
    /// Bytes.
    pub resident_bytes: u64,
    /// Bytes per second.
    pub disk_write_bytes_per_second: u64,
    /// The window, milliseconds.
    pub window_ms: u64,
    /// Shortest wait before a step up, milliseconds.
    pub recovery_ms: u64,
}

/// Where the agent stands. Times are milliseconds on a clock that never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LadderState {
    /// The rung.
    pub rung: BudgetRung,
    /// Since when everything has been well below its ceiling.
    calm_since_ms: Option<u64>,
    /// When the last step up was made.
    climbed_ms: Option<u64>,
    /// The wait before a step up is so many times the shortest.
    recovery_factor: u32,
}

impl Default for LadderState {
    fn default() -> Self {
        Self { rung: BudgetRung::Normal, calm_since_ms: None, climbed_ms: None, recovery_factor: 1 }
    }
}

/// A step on the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// From this rung.
    pub from: BudgetRung,
    /// To this one.
    pub to: BudgetRung,
    /// What passed its ceiling, or that nothing does any more.
    pub cause: BudgetCause,
    /// That ceiling; 0 when nothing passed one.
    pub ceiling: u64,
}

/// The next state, and the step taken to it, if any.
pub fn decide(
    measured: &Measured,
    state: &LadderState,
    ceilings: &Ceilings,
    now_ms: u64,
) -> (LadderState, Option<Step>) {
    let mut next = *state;
    if let Some((cause, ceiling)) = passed(measured, ceilings) {
        next.calm_since_ms = None;
        let Some(to) = below(state.rung).filter(|_| measured.is_whole) else { return (next, None) };
        let wait_ms = ceilings.recovery_ms.saturating_mul(state.recovery_factor.into());
        let relapsed = |climbed_ms: u64| now_ms.saturating_sub(climbed_ms) < wait_ms.saturating_mul(RELAPSE_WAITS);
        if state.climbed_ms.is_some_and(relapsed) {
            next.recovery_factor = (state.recovery_factor * 2).min(RECOVERY_FACTOR_MAX);
        }
        next.climbed_ms = None;
        next.rung = to;
        return (next, Some(Step { from: state.rung, to, cause, ceiling }));
    }
    if !is_calm(measured, ceilings) {
        next.calm_since_ms = None;
        return (next, None);
    }
    let since_ms = *next.calm_since_ms.get_or_insert(now_ms);
    let calm_ms = now_ms.saturating_sub(since_ms);
    let wait_ms = ceilings.recovery_ms.saturating_mul(state.recovery_factor.into());
    let Some(to) = above(state.rung) else {
        if calm_ms >= wait_ms.saturating_mul(FORGET_WAITS) {
            next.recovery_factor = 1;
        }
        return (next, None);
    };
    if calm_ms < wait_ms || !measured.is_whole {
        return (next, None);
    }
    next.rung = to;
    next.calm_since_ms = Some(now_ms);
    next.climbed_ms = Some(now_ms);
    (next, Some(Step { from: state.rung, to, cause: BudgetCause::Recovered, ceiling: 0 }))
}

/// The resource that is furthest above its ceiling, and that ceiling.
fn passed(measured: &Measured, ceilings: &Ceilings) -> Option<(BudgetCause, u64)> {
    let over = resources(measured, ceilings).into_iter().filter(|(_, used, ceiling)| *ceiling > 0 && used > ceiling);
    // used / ceiling, compared without division.
    let most = over.max_by(|(_, used, ceiling), (_, other_used, other_ceiling)| {
        let (left, right) =
            (u128::from(*used) * u128::from(*other_ceiling), u128::from(*other_used) * u128::from(*ceiling));
        left.cmp(&right)
    });
    most.map(|(cause, _, ceiling)| (cause, ceiling))
}

fn is_calm(measured: &Measured, ceilings: &Ceilings) -> bool {
    let is_low = |(_, used, ceiling): (BudgetCause, u64, u64)| {
        ceiling == 0 || u128::from(used) * 100 <= u128::from(ceiling) * u128::from(CALM_PERCENT)
    };
    resources(measured, ceilings).into_iter().all(is_low)
}

fn resources(measured: &Measured, ceilings: &Ceilings) -> [(BudgetCause, u64, u64); 3] {
    [
        (BudgetCause::Cpu, measured.cpu_milliseconds_per_second, ceilings.cpu_milliseconds_per_second),
        (BudgetCause::Memory, measured.resident_bytes, ceilings.resident_bytes),
        (BudgetCause::Disk, measured.disk_write_bytes_per_second, ceilings.disk_write_bytes_per_second),
    ]
}

fn below(rung: BudgetRung) -> Option<BudgetRung> {
    BudgetRung::ALL.get(rung.place() + 1).copied()
}

fn above(rung: BudgetRung) -> Option<BudgetRung> {
    BudgetRung::ALL.get(rung.place().checked_sub(1)?).copied()
}
