//! Shapley values of trees, exact: each feature's fair share of what a vector scores above the expected value.
//!
//! The game is that of TreeSHAP (Lundberg et al., 2018, path-dependent): a feature that is not known goes to both sides of
//! a split, by the training rows that went there. For one leaf with value *v*, and the features on its path, each of which
//! lets the vector through (*o* = 1) or not (*o* = 0) when known, and a share *z* of the rows when not, feature *i* gets
//! (Owen's multilinear extension, 1972)
//!
//! ```text
//! v · (oᵢ − zᵢ) · ∫₀¹ Π over j ≠ i of (t·oⱼ + (1 − t)·zⱼ) dt
//! ```
//!
//! The integrand is a polynomial of a degree below the depth: Gauss–Legendre quadrature with half as many points as there
//! are levels gives the integral exactly, but for rounding. All factors are positive, so nothing cancels. What leaves share
//! is computed once, on the way down (products) and up (sums): the time is leaves × depth / 2, not leaves × depth² × features.
//!
//! Nothing is allocated, and all sums have a fixed order: the same bits on every machine.

use std::array::from_fn;

use crate::model::forest::{Forest, Node, Root};
use crate::model::limits::DEPTH_MAX;
use crate::model::{Contribution, Vector};

/// Adds to each feature's entry what it did to the sum of all trees. `into` holds one entry per feature, in order.
pub(super) fn add_contributions(forest: &Forest, vector: Vector<'_>, into: &mut [Contribution]) {
    for root in &forest.roots {
        match root.depth {
            0 => {}
            1..=8 => Walk::<4>::of(&RULE_4, forest, vector, into).tree(root),
            9..=16 => Walk::<8>::of(&RULE_8, forest, vector, into).tree(root),
            17..=32 => Walk::<16>::of(&RULE_16, forest, vector, into).tree(root),
            _ => Walk::<32>::of(&RULE_32, forest, vector, into).tree(root),
        }
    }
}

/// An integral from 0 to 1 as a weighted sum of values at points, exact for polynomials of degree 2 × POINTS − 1.
struct Rule<const POINTS: usize> {
    points: [f64; POINTS],
    weights: [f64; POINTS],
}

// With n points up to depth 2n: a path of so many features gives a polynomial of degree 2n − 1.
static RULE_4: Rule<4> = Rule::gauss_legendre();
static RULE_8: Rule<8> = Rule::gauss_legendre();
static RULE_16: Rule<16> = Rule::gauss_legendre();
static RULE_32: Rule<32> = Rule::gauss_legendre();
const _: () = assert!(DEPTH_MAX <= 64);

impl<const POINTS: usize> Rule<POINTS> {
    /// Points are the zeros of the Legendre polynomial, found by Newton's method; computed by the compiler.
    const fn gauss_legendre() -> Self {
        let (mut points, mut weights) = ([0.0; POINTS], [0.0; POINTS]);
        let mut index = 0;
        while index < POINTS {
            // Tricomi's first guess.
            let mut zero = cosine(PI * (index as f64 + 0.75) / (POINTS as f64 + 0.5));
            let mut slope = 1.0;
            let mut round = 0;
            while round < 8 {
                let (value, derivative) = legendre(POINTS, zero);
                zero -= value / derivative;
                slope = legendre(POINTS, zero).1;
                round += 1;
            }
            points[index] = (1.0 + zero) / 2.0;
            weights[index] = 1.0 / ((1.0 - zero * zero) * slope * slope);
            index += 1;
        }
        Self { points, weights }
    }
}

const PI: f64 = std::f64::consts::PI;

/// Good enough for a first guess; `angle` is between 0 and π.
const fn cosine(angle: f64) -> f64 {
    // Taylor's series about π/2.
    let x = angle - PI / 2.0;
    let square = x * x;
    -x * (1.0 - square / 6.0 * (1.0 - square / 20.0 * (1.0 - square / 42.0 * (1.0 - square / 72.0))))
}

/// The Legendre polynomial of this degree, and its derivative.
const fn legendre(degree: usize, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (1.0, x);
    let mut n = 1.0;
    while n < degree as f64 {
        let next = ((2.0 * n + 1.0) * x * value - n * before) / (n + 1.0);
        before = value;
        value = next;
        n += 1.0;
    }
    (value, degree as f64 * (x * value - before) / (x * x - 1.0))
}

/// What a feature does along a path, over all splits at it so far.
#[derive(Clone, Copy)]
struct Step<const POINTS: usize> {
    feature: u16,
    /// 1 if the vector comes through, else 0.
    through: f64,
    /// The share of the rows that come through.
    share: f64,
    /// For each point 1 / (t·o + (1 − t)·z).
    inverse: [f64; POINTS],
}

impl<const POINTS: usize> Step<POINTS> {
    /// A feature that no split has looked at.
    const NONE: Self = Self { feature: 0, through: 1.0, share: 1.0, inverse: [1.0; POINTS] };
}

struct Walk<'a, const POINTS: usize> {
    rule: &'a Rule<POINTS>,
    forest: &'a Forest,
    vector: Vector<'a>,
    into: &'a mut [Contribution],
    path: [Step<POINTS>; DEPTH_MAX],
}

impl<'a, const POINTS: usize> Walk<'a, POINTS> {
    fn of(rule: &'a Rule<POINTS>, forest: &'a Forest, vector: Vector<'a>, into: &'a mut [Contribution]) -> Self {
        Self { rule, forest, vector, into, path: [Step::NONE; DEPTH_MAX] }
    }

    fn tree(&mut self, root: &Root) {
        if let Some(node) = self.forest.nodes.get(root.index as usize) {
            self.node(node, 0, &[1.0; POINTS]);
        }
    }

    /// For each point the sum, over the leaves below a node, of their values times the factors of all features on their
    /// paths. `product` has those above the node. No deeper than [`DEPTH_MAX`], as the reader has proven.
    fn node(&mut self, node: &Node, depth: usize, product: &[f64; POINTS]) -> [f64; POINTS] {
        let left = node.left as usize;
        let Some([left, right]) = self.forest.nodes.get(left..left + 2).filter(|_| left != 0) else {
            let value = f64::from(node.number);
            return product.map(|factor| value * factor);
        };
        let goes_left = node.sends_left(self.vector);
        let of_left = self.side(node, left, goes_left, depth, product);
        let of_right = self.side(node, right, !goes_left, depth, product);
        from_fn(|point| of_left[point] + of_right[point])
    }

    /// The same for one side of a split, which the vector comes `through` or not; adds to the split's feature what these
    /// leaves give it.
    fn side(
        &mut self,
        node: &Node,
        child: &Node,
        through: bool,
        depth: usize,
        product: &[f64; POINTS],
    ) -> [f64; POINTS] {
        let Some((step, above)) = self.path.get_mut(..=depth).and_then(<[_]>::split_last_mut) else {
            return [0.0; POINTS];
        };
        let before = above.iter().rev().find(|step| step.feature == node.feature).copied().unwrap_or(Step::NONE);
        step.feature = node.feature;
        step.through = if through { before.through } else { 0.0 };
        // A node's cover is that of its children together, each at least 1.
        step.share = before.share * (f64::from(child.cover) / f64::from(node.cover));
        let points = &self.rule.points;
        let factors: [f64; POINTS] = from_fn(|point| points[point] * step.through + (1.0 - points[point]) * step.share);
        let inverse = factors.map(|factor| 1.0 / factor);
        step.inverse = inverse;
        // What these leaves are said to give the feature by the splits above is taken back.
        let (gain, gain_before) = (step.through - step.share, before.through - before.share);
        let product = from_fn(|point| product[point] * before.inverse[point] * factors[point]);
        let sums = self.node(child, depth + 1, &product);
        let weights = &self.rule.weights;
        let mut contribution = 0.0;
        for (((weight, sum), inverse), inverse_before) in weights.iter().zip(&sums).zip(&inverse).zip(&before.inverse) {
            contribution += weight * sum * (gain * inverse - gain_before * inverse_before);
        }
        if let Some(entry) = self.into.get_mut(usize::from(node.feature)) {
            entry.contribution += contribution;
        }
        sums
    }
}

#[cfg(test)]
mod tests;
