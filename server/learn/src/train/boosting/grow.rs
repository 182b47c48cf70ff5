//! One tree, best split first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use picket_common::model::{NodeDraft, TreeDraft};

use crate::train::boosting::ground::{Done, Ground, Leaf, NodeRows, SearchTask, Searched, Task, Workers};
use crate::train::boosting::histogram::{Histogram, Slope};
use crate::train::boosting::split::Split;
use crate::train::gain::Gain;
use crate::train::tree::cover;

/// When to stop splitting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) leaves_max: usize,
    pub(super) depth_max: u16,
    /// What the best value of a leaf is multiplied with.
    pub(super) learning_rate: f64,
}

/// A grown tree.
pub(super) struct Grown {
    pub(super) tree: TreeDraft,
    pub(super) leaves: Vec<Leaf>,
}

/// A node of a tree that grows.
struct Node {
    depth: u16,
    rows: Arc<NodeRows>,
    watched: Arc<NodeRows>,
    row_count: usize,
    total: Slope,
    /// Block by block, until the children have made theirs of it.
    histograms: Vec<Option<Histogram>>,
    split: Option<Split>,
    children: Option<[usize; 2]>,
}

/// Grows one tree.
pub(super) struct Grower<'a> {
    pub(super) ground: &'a Ground<'a>,
    pub(super) workers: &'a Workers<'a>,
    pub(super) limits: Limits,
    /// For each feature whether it is looked at.
    pub(super) features: Arc<Vec<bool>>,
}

impl Grower<'_> {
    /// A tree that learns from `rows`; `watched` are told their leaves only.
    pub(super) fn grow(&self, rows: Arc<NodeRows>, watched: Arc<NodeRows>) -> Grown {
        let mut nodes = vec![self.root(rows, watched)];
        loop {
            let (chosen, open) = self.chosen(&nodes);
            if open.is_empty() {
                return self.finish(&nodes, &chosen);
            }
            self.split_all(&mut nodes, &open);
        }
    }

    fn root(&self, rows: Arc<NodeRows>, watched: Arc<NodeRows>) -> Node {
        let totals = (0..rows.len()).map(|segment| Task::Total { segment, rows: Arc::clone(&rows) }).collect();
        let total = self
            .workers
            .run(totals)
            .into_iter()
            .map(|done| if let Done::Total(sum) = done { sum } else { Slope::default() });
        let total: Slope = total.sum();
        let row_count = rows.iter().map(Vec::len).sum();
        let mut root = Node {
            depth: 0,
            rows,
            watched,
            row_count,
            total,
            histograms: self.no_histograms(),
            split: None,
            children: None,
        };
        if let Some(searched) = self.searched(&root) {
            let task = |block| self.search_task(block, &root.rows, None, [Some(searched), None]);
            let done = self.workers.run((0..self.ground.blocks.count()).map(task).collect());
            for (block, done) in done.into_iter().enumerate() {
                if let Done::Searched([found, _]) = done {
                    root.take(block, found);
                }
            }
        }
        root
    }

    fn no_histograms(&self) -> Vec<Option<Histogram>> {
        (0..self.ground.blocks.count()).map(|_| None).collect()
    }

    fn search_task(
        &self,
        block: usize,
        rows: &Arc<NodeRows>,
        parent: Option<Histogram>,
        children: [Option<Searched>; 2],
    ) -> Task {
        let (rows, features) = (Arc::clone(rows), Arc::clone(&self.features));
        Task::Search(Box::new(SearchTask { block, rows, parent, children, features }))
    }

    /// What splits of a node are looked for with; nothing when it is a leaf in any case.
    fn searched(&self, node: &Node) -> Option<Searched> {
        let rules = &self.ground.rules;
        let may_be_split = node.depth < self.limits.depth_max
            && node.row_count >= 2 * rules.leaf_rows_min.max(1) as usize
            && f64::from(node.total.curvature()) >= 2.0 * rules.curvature_min;
        may_be_split.then_some(Searched { total: node.total, rows: node.row_count })
    }

    /// Takes the best splits first as far as they are known: the nodes that are split, and those among them whose
    /// children are not known yet.
    ///
    /// Whatever comes to light of the latter, no other node will be split before them, so they are split together. When
    /// they use up the leaves, only the better half of them is: children of those may turn out better than the rest.
    fn chosen(&self, nodes: &[Node]) -> (Vec<usize>, Vec<usize>) {
        let mut heap = BinaryHeap::new();
        let offer = |heap: &mut BinaryHeap<_>, index: usize| {
            if let Some(split) = nodes[index].split {
                heap.push((Gain(split.gain), Reverse(index)));
            }
        };
        offer(&mut heap, 0);
        let (mut chosen, mut open) = (Vec::new(), Vec::new());
        let splits_max = self.limits.leaves_max - 1;
        while chosen.len() < splits_max {
            let Some((_, Reverse(index))) = heap.pop() else { break };
            chosen.push(index);
            match nodes[index].children {
                Some(children) => children.into_iter().for_each(|child| offer(&mut heap, child)),
                None => open.push(index),
            }
        }
        if chosen.len() == splits_max {
            open.truncate(open.len().div_ceil(2));
        }
        (chosen, open)
    }

    fn split_all(&self, nodes: &mut Vec<Node>, open: &[usize]) {
        let parts = self.part_all(nodes, open);
        let mut tasks = Vec::new();
        let mut places = Vec::new();
        for (index, parts) in open.iter().zip(parts) {
            let Some(split) = nodes[*index].split else { continue };
            let depth = nodes[*index].depth + 1;
            let totals = [split.left, nodes[*index].total - split.left];
            let first = nodes.len();
            for ([rows, watched], total) in parts.into_iter().zip(totals) {
                let row_count = rows.iter().map(Vec::len).sum();
                let (rows, watched) = (Arc::new(rows), Arc::new(watched));
                nodes.push(Node {
                    depth,
                    rows,
                    watched,
                    row_count,
                    total,
                    histograms: self.no_histograms(),
                    split: None,
                    children: None,
                });
            }
            nodes[*index].children = Some([first, first + 1]);
            let histograms = std::mem::take(&mut nodes[*index].histograms);
            let (smaller, larger) = if nodes[first].row_count <= nodes[first + 1].row_count {
                (first, first + 1)
            } else {
                (first + 1, first)
            };
            let children = [smaller, larger].map(|child| self.searched(&nodes[child]));
            if children.iter().all(Option::is_none) {
                continue;
            }
            for (block, parent) in histograms.into_iter().enumerate() {
                tasks.push((nodes[smaller].row_count, self.search_task(block, &nodes[smaller].rows, parent, children)));
                places.push((tasks.len() - 1, block, [smaller, larger]));
            }
        }
        // Large ones first, so that no thread is left with one at the end.
        places.sort_by_key(|(task, _, _)| Reverse(tasks[*task].0));
        tasks.sort_by_key(|(rows, _)| Reverse(*rows));
        let done = self.workers.run(tasks.into_iter().map(|(_, task)| task).collect());
        for ((_, block, children), done) in places.into_iter().zip(done) {
            let Done::Searched(found) = done else { continue };
            for (child, found) in children.into_iter().zip(found) {
                nodes[child].take(block, found);
            }
        }
    }

    /// For each node the rows of its children, those it learns from and those it watches.
    fn part_all(&self, nodes: &[Node], open: &[usize]) -> Vec<[[NodeRows; 2]; 2]> {
        let segments = self.ground.segments.len();
        let mut tasks = Vec::new();
        for (node, split) in open.iter().filter_map(|index| nodes[*index].split.map(|split| (&nodes[*index], split))) {
            for rows in [&node.rows, &node.watched] {
                if rows.iter().any(|rows| !rows.is_empty()) {
                    tasks.extend((0..segments).map(|segment| Task::Part { rows: Arc::clone(rows), segment, split }));
                }
            }
        }
        let mut done = self.workers.run(tasks).into_iter();
        let mut sides = |rows: &NodeRows| -> [NodeRows; 2] {
            if rows.iter().all(Vec::is_empty) {
                return [vec![Vec::new(); segments], vec![Vec::new(); segments]];
            }
            let parts = done.by_ref().take(segments).map(|done| match done {
                Done::Parted(left, right) => (left, right),
                _ => (Vec::new(), Vec::new()),
            });
            let (left, right) = parts.unzip();
            [left, right]
        };
        let mut part = |node: &Node| {
            let [left, right] = sides(&node.rows);
            let [watched_left, watched_right] = sides(&node.watched);
            [[left, watched_left], [right, watched_right]]
        };
        open.iter().map(|index| part(&nodes[*index])).collect()
    }

    fn finish(&self, nodes: &[Node], chosen: &[usize]) -> Grown {
        let mut is_split = vec![false; nodes.len()];
        chosen.iter().for_each(|index| is_split[*index] = true);
        let mut leaves = Vec::with_capacity(chosen.len() + 1);
        let mut drafts: Vec<NodeDraft> = Vec::with_capacity(2 * chosen.len() + 1);
        let mut open = vec![(0, None)];
        while let Some((index, parent)) = open.pop() {
            let place = drafts.len();
            if let Some((parent, is_left)) = parent {
                let node: &mut NodeDraft = &mut drafts[parent];
                *(if is_left { &mut node.left } else { &mut node.right }) = u32::try_from(place).unwrap_or(u32::MAX);
            }
            let node: &Node = &nodes[index];
            let value = self.value(node.total);
            drafts.push(NodeDraft::leaf(value, cover(node.row_count)));
            match (node.split, node.children) {
                (Some(split), Some([left, right])) if is_split[index] => {
                    let draft = &mut drafts[place];
                    draft.feature = u16::try_from(split.feature).unwrap_or(u16::MAX);
                    draft.threshold = self.ground.matrix.threshold(split.feature, split.bin, 0.5);
                    draft.missing_left = split.missing_left;
                    open.push((right, Some((place, false))));
                    open.push((left, Some((place, true))));
                }
                _ => leaves.push(Leaf { rows: Arc::clone(&node.rows), watched: Arc::clone(&node.watched), value }),
            }
        }
        Grown { tree: TreeDraft { nodes: drafts }, leaves }
    }

    fn value(&self, total: Slope) -> f32 {
        let (scale, l2) = (self.ground.scale, self.ground.rules.l2);
        let gradient = f64::from(total.gradient()) / scale.gradient;
        let curvature = (f64::from(total.curvature()) + l2) / scale.curvature;
        let step = if curvature > 0.0 { -gradient / curvature } else { 0.0 };
        (self.limits.learning_rate * step.clamp(-STEP_MAX, STEP_MAX)) as f32
    }
}

/// Largest step of a leaf, in log-odds, before the learning rate.
const STEP_MAX: f64 = 20.0;

impl Node {
    /// Takes what was found in a block.
    fn take(&mut self, block: usize, found: Option<(Histogram, Option<Split>)>) {
        let Some((histogram, split)) = found else { return };
        self.histograms[block] = Some(histogram);
        // Blocks come in any order: of equally good splits the first feature's stays.
        let better =
            |new: &Split, old: &Split| new.gain > old.gain || (new.gain == old.gain && new.feature < old.feature);
        self.split = match (split, self.split) {
            (Some(new), Some(old)) if better(&new, &old) => Some(new),
            (new, None) => new,
            (_, old) => old,
        };
    }
}
