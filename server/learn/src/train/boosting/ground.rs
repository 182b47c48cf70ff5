//! What trees grow on, and the tasks that a crew does on it.

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::random::SplitMix64;
use crate::train::boosting::gradient::{SEGMENT_ROWS_MAX, Scale, Segment};
use crate::train::boosting::histogram::{Histogram, RowBlocks, Slope};
use crate::train::boosting::split::{Rules, Search, Split};
use crate::train::crew::Crew;
use crate::train::tree::BinnedMatrix;

/// A crew that works on a [`Ground`].
pub(super) type Workers<'a> = Crew<'a, Task, Done>;

/// Rows of a node, segment by segment: places within the segment, ascending.
pub(super) type NodeRows = Vec<Vec<u16>>;

/// Binned values, slopes, and the rules of splitting.
pub(super) struct Ground<'a> {
    pub(super) matrix: &'a BinnedMatrix,
    pub(super) blocks: &'a RowBlocks,
    pub(super) segments: Vec<RwLock<Segment>>,
    pub(super) scale: Scale,
    pub(super) rules: Rules,
}

/// A node whose splits are looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Searched {
    pub(super) total: Slope,
    pub(super) rows: usize,
}

/// A leaf of a finished tree.
pub(super) struct Leaf {
    pub(super) rows: Arc<NodeRows>,
    /// Rows that the tree did not learn from.
    pub(super) watched: Arc<NodeRows>,
    pub(super) value: f32,
}

/// Which rows a tree learns from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampling {
    /// Rows whose gradient is at least this are all taken.
    pub(super) gradient_min: i32,
    /// Chance of each of the others.
    pub(super) chance: f64,
    pub(super) seed: u64,
}

/// Something to do that needs nothing but the ground.
pub(super) enum Task {
    /// Split the rows of a node in one segment.
    Part { rows: Arc<NodeRows>, segment: usize, split: Split },
    /// Histograms of one block for the children of a node, or for a root, and the best splits in them.
    Search(Box<SearchTask>),
    /// Add the leaves of a tree to the scores of a segment and compute its slopes anew.
    Advance { segment: usize, leaves: Arc<Vec<Leaf>>, shift: u32, judged: Arc<NodeRows> },
    /// How many rows of a segment have gradients of each magnitude.
    Magnitudes { segment: usize, rows: Arc<NodeRows> },
    /// Choose the rows of a segment that the next tree learns from.
    Sample { segment: usize, rows: Arc<NodeRows>, sampling: Sampling },
    /// Sum up the slopes of a segment's rows.
    Total { segment: usize, rows: Arc<NodeRows> },
}

/// See [`Task::Search`].
pub(super) struct SearchTask {
    pub(super) block: usize,
    /// The rows of the smaller child, or of the root.
    pub(super) rows: Arc<NodeRows>,
    /// The parent's histogram.
    pub(super) parent: Option<Histogram>,
    /// The children that may be split, the smaller one first.
    pub(super) children: [Option<Searched>; 2],
    /// For each feature whether it is looked at.
    pub(super) features: Arc<Vec<bool>>,
}

/// What came of a task.
pub(super) enum Done {
    /// Rows that go left, rows that go right.
    Parted(Vec<u16>, Vec<u16>),
    /// For each child that may be split its histogram and the best split.
    Searched([Option<(Histogram, Option<Split>)>; 2]),
    /// Log-loss of the rows that are judged.
    Advanced(f64),
    /// Rows by magnitude of their gradients, in steps of [`MAGNITUDE_STEP`].
    Magnitudes(Vec<u32>),
    /// Sum of the slopes.
    Total(Slope),
}

/// Gradients of so many units count as alike when rows are sampled by them.
pub(super) const MAGNITUDE_STEP: i32 = 16;
const MAGNITUDES: usize = 32_768 / MAGNITUDE_STEP as usize;

impl Ground<'_> {
    /// How many rows a segment has in a set of so many: what many threads can share, and no more than 16 bits count.
    pub(super) fn segment_rows(rows: usize) -> usize {
        const SEGMENTS: usize = 8;
        const ROWS_MIN: usize = 4096;
        rows.div_ceil(SEGMENTS).clamp(ROWS_MIN, SEGMENT_ROWS_MAX)
    }

    /// Does a task.
    pub(super) fn work(&self, task: Task) -> Done {
        match task {
            Task::Part { rows, segment, split } => self.part(&rows[segment], segment, &split),
            Task::Search(task) => self.search(*task),
            Task::Advance { segment, leaves, shift, judged } => self.advance(segment, &leaves, shift, &judged),
            Task::Magnitudes { segment, rows } => {
                let values = self.segments[segment].read();
                let mut counts = vec![0; MAGNITUDES];
                for row in &rows[segment] {
                    let step = values.gradient(*row).unsigned_abs() as usize / MAGNITUDE_STEP as usize;
                    counts[step.min(MAGNITUDES - 1)] += 1;
                }
                Done::Magnitudes(counts)
            }
            Task::Sample { segment, rows, sampling } => self.sample(&rows[segment], segment, sampling),
            Task::Total { segment, rows } => {
                let values = self.segments[segment].read();
                Done::Total(rows[segment].iter().map(|row| values.slopes[usize::from(*row)].sum()).sum())
            }
        }
    }

    fn part(&self, rows: &[u16], segment: usize, split: &Split) -> Done {
        thread_local! {
            static SIDES: RefCell<[Vec<u16>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
        }
        let (base, len) = {
            let values = self.segments[segment].read();
            (values.base, values.scores.len())
        };
        let column = &self.matrix.column(split.feature)[base..base + len];
        let mut goes_left = [false; 256];
        for (bin, goes_left) in (0..=u8::MAX).zip(&mut goes_left) {
            *goes_left = split.goes_left(bin);
        }
        SIDES.with_borrow_mut(|[left, right]| {
            left.resize(left.len().max(rows.len()), 0);
            right.resize(right.len().max(rows.len()), 0);
            let (mut lefts, mut rights) = (0, 0);
            // Each row is written to both sides, and one of them moves on: no branch to guess.
            for row in rows {
                let is_left = goes_left[usize::from(column[usize::from(*row)])];
                left[lefts] = *row;
                right[rights] = *row;
                lefts += usize::from(is_left);
                rights += usize::from(!is_left);
            }
            Done::Parted(left[..lefts].to_vec(), right[..rights].to_vec())
        })
    }

    fn search(&self, task: SearchTask) -> Done {
        let SearchTask { block, rows, parent, children: [smaller, larger], features } = task;
        let mut built = self.blocks.histogram(block);
        for (segment, rows) in rows.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let values = self.segments[segment].read();
            self.blocks.add(block, values.base, rows, &values.slopes, &mut built);
        }
        let larger = larger.zip(parent).map(|(larger, mut histogram)| {
            for (whole, part) in histogram.as_flattened_mut().iter_mut().zip(built.as_flattened()) {
                *whole = *whole - *part;
            }
            self.best(block, larger, histogram, &features)
        });
        Done::Searched([smaller.map(|smaller| self.best(block, smaller, built, &features)), larger])
    }

    fn best(
        &self,
        block: usize,
        node: Searched,
        histogram: Histogram,
        features: &[bool],
    ) -> (Histogram, Option<Split>) {
        let mut search = Search::new(self.rules, node.total, node.rows);
        for (feature, bins) in self.blocks.features(block).zip(&histogram) {
            if features[feature] {
                search.feature(feature, bins, self.matrix.value_bins(feature));
            }
        }
        let best = search.best();
        (histogram, best)
    }

    fn advance(&self, segment: usize, leaves: &[Leaf], shift: u32, judged: &NodeRows) -> Done {
        let mut values = self.segments[segment].write();
        for leaf in leaves {
            for row in leaf.rows[segment].iter().chain(&leaf.watched[segment]) {
                values.scores[usize::from(*row)] += leaf.value;
            }
        }
        values.update_slopes(self.scale, shift);
        Done::Advanced(values.log_loss(&judged[segment]))
    }

    fn sample(&self, rows: &[u16], segment: usize, sampling: Sampling) -> Done {
        let Sampling { gradient_min, chance, seed } = sampling;
        let mut values = self.segments[segment].write();
        let mut random = SplitMix64::for_job(seed, segment as u64);
        let (mut taken, mut left_out) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            if values.gradient(*row).abs() >= gradient_min {
                taken.push(*row);
            } else if random.unit() < chance {
                // Each stands for those that were not drawn.
                values.amplify(*row, 1.0 / chance);
                taken.push(*row);
            } else {
                left_out.push(*row);
            }
        }
        Done::Parted(taken, left_out)
    }
}
