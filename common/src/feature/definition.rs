//! How features are declared.

use crate::feature::{FeatureDefinition, FeatureKind};

/// How alerts say a feature's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// Of a flag: when it is 1, when it is 0.
    Flag(&'static str, &'static str),
    /// Of a number: `{}` stands for the value with its unit, if that is a duration or a size.
    Value(&'static str),
}

/// Declares the enumeration of a subject's features and their definitions, in one order.
macro_rules! features {
    ($($variant:ident = $definition:expr,)*) => {
        /// The places of the features in a vector.
        #[derive(Clone, Copy, Debug)]
        pub(in crate::feature) enum Feature {
            $($variant,)*
        }

        impl From<Feature> for usize {
            fn from(feature: Feature) -> usize {
                feature as usize
            }
        }

        /// The features, in the order of the vector.
        pub(in crate::feature) static DEFINITIONS: &[crate::feature::FeatureDefinition] = &[$($definition,)*];
    };
}
pub(super) use features;

pub(super) const fn flag(
    name: &'static str,
    meaning: &'static str,
    yes: &'static str,
    no: &'static str,
) -> FeatureDefinition {
    FeatureDefinition { name, kind: FeatureKind::Flag, unit: "", meaning, words: Words::Flag(yes, no) }
}

pub(super) const fn count(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    words: &'static str,
) -> FeatureDefinition {
    FeatureDefinition { name, kind: FeatureKind::Count, unit, meaning, words: Words::Value(words) }
}

pub(super) const fn fraction(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    words: &'static str,
) -> FeatureDefinition {
    FeatureDefinition { name, kind: FeatureKind::Fraction, unit, meaning, words: Words::Value(words) }
}

pub(super) const fn number(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    words: &'static str,
) -> FeatureDefinition {
    FeatureDefinition { name, kind: FeatureKind::Number, unit, meaning, words: Words::Value(words) }
}

pub(super) const fn magnitude(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    words: &'static str,
) -> FeatureDefinition {
    FeatureDefinition { name, kind: FeatureKind::Magnitude, unit, meaning, words: Words::Value(words) }
}

pub(super) const fn logarithm(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    words: &'static str,
) -> FeatureDefinition {
    FeatureDefinition { name, kind: FeatureKind::Logarithm, unit, meaning, words: Words::Value(words) }
}

pub(super) const fn ratio(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    words: &'static str,
) -> FeatureDefinition {
    FeatureDefinition { name, kind: FeatureKind::Ratio, unit, meaning, words: Words::Value(words) }
}
