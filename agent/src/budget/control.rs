//! What the governor decides and the other parts follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::budget::BudgetConfig;
use crate::budget::rung::{BudgetRung, BudgetStep};
use crate::pipeline::changes::Changes;

/// Shared between governor, pipeline, uplink and status.
#[derive(Debug)]
pub struct BudgetControl {
    config: Mutex<BudgetConfig>,
    /// Place of the rung in [`BudgetRung::ALL`].
    rung: AtomicU8,
    changes: Arc<Changes>,
    left_out: AtomicU64,
}

impl BudgetControl {
    /// On the top rung. Steps become events by way of `changes`.
    pub fn new(config: BudgetConfig, changes: Arc<Changes>) -> Self {
        Self { config: Mutex::new(config), rung: AtomicU8::new(0), changes, left_out: AtomicU64::new(0) }
    }

    /// The ceilings in force.
    pub fn config(&self) -> BudgetConfig {
        *self.config.lock()
    }

    /// Other ceilings from now on.
    pub fn set_config(&self, config: BudgetConfig) {
        *self.config.lock() = config;
    }

    /// The rung in force.
    pub fn rung(&self) -> BudgetRung {
        BudgetRung::ALL.get(usize::from(self.rung.load(Ordering::Acquire))).copied().unwrap_or(BudgetRung::Normal)
    }

    /// Observations left out so far, in this epoch.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    pub(crate) fn note_left_out(&self, count: u64) {
        self.left_out.fetch_add(count, Ordering::Relaxed);
    }

    /// Puts a step into force.
    pub(crate) fn step(&self, step: BudgetStep) {
        self.changes.push(step.to_change());
        self.rung.store(u8::try_from(step.to.place()).unwrap_or_default(), Ordering::Release);
    }
}
