//! Of programs that start often, one start in so many.
//!
//! The first starts of a program below the same parent stay in each window, so that a rare program is not lost among
//! many starts of a common one. No randomness: the same observations at the same times leave the same ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use picket_common::event::{ByteString, EventBody, ProcessId, ProcessStart};

/// After so long the first starts of each program count as first again.
const WINDOW: Duration = Duration::from_secs(10);
/// Starts of a program in a window that all stay.
const FIRST_STARTS: u32 = 5;
/// Most programs counted apart in a window; further ones are counted together.
const PROGRAMS_MAX: usize = 1_024;
/// Most running processes whose start stayed; the oldest are forgotten, and their end is left out.
const PROCESSES_MAX: usize = 4_096;
/// Ends of processes that ran at least this long stay: there are few, and their start was before the storm.
const LONG_NS: u64 = 10_000_000_000;

/// A program and the one that started it.
type Program = (ByteString, ByteString);

#[derive(Debug, Default)]
pub(super) struct ExecSampler {
    window_begin: Option<Instant>,
    starts: BTreeMap<Program, u32>,
    kept: BTreeSet<ProcessId>,
    kept_in_order: VecDeque<ProcessId>,
}

impl ExecSampler {
    /// Whether a process start or end stays.
    pub(super) fn keeps(&mut self, body: &EventBody, one_in: u32, now: Instant) -> bool {
        match body {
            EventBody::ProcessStart(start) => self.keeps_start(start, one_in, now),
            EventBody::ProcessExit(exit) => {
                self.kept.remove(&exit.process) || exit.duration_ns.is_some_and(|duration| duration >= LONG_NS)
            }
            _ => true,
        }
    }

    fn keeps_start(&mut self, start: &ProcessStart, one_in: u32, now: Instant) -> bool {
        if self.window_begin.is_none_or(|begin| now.duration_since(begin) >= WINDOW) {
            self.window_begin = Some(now);
            self.starts.clear();
        }
        let parent = start.ancestors.first().cloned().unwrap_or_default();
        let mut program = (start.executable.clone(), parent);
        if self.starts.len() >= PROGRAMS_MAX && !self.starts.contains_key(&program) {
            program = Program::default();
        }
        let count = self.starts.entry(program).or_default();
        *count = count.saturating_add(1);
        let is_kept = *count <= FIRST_STARTS || (*count - FIRST_STARTS).is_multiple_of(one_in.max(1));
        if is_kept {
            self.remember(start.process);
        }
        is_kept
    }

    fn remember(&mut self, process: ProcessId) {
        if !self.kept.insert(process) {
            return;
        }
        self.kept_in_order.push_back(process);
        if self.kept_in_order.len() > PROCESSES_MAX
            && let Some(oldest) = self.kept_in_order.pop_front()
        {
            self.kept.remove(&oldest);
        }
    }
}
