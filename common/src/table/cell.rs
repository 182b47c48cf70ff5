//! A field of a row as a typed value.
//!
//! Missing is a value: an empty field, and the texts that tools write for "nothing" ([`MISSING_TEXTS`]). What cannot be read
//! as the column's kind counts as missing, too, and is reported; so do infinite numbers, of which a division by zero gives
//! as many as of NaN.

use crate::event::Timestamp;
use crate::table::time;

/// Texts that mean "no value", compared without surrounding blanks.
pub const MISSING_TEXTS: [&str; 9] = ["", "null", "NULL", "NaN", "nan", "NAN", "NA", "N/A", "\\N"];

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ColumnKind {
    /// Numbers.
    Numeric,
    /// One of some values.
    Categorical,
    /// Texts such as command lines and paths, which are looked into.
    Text,
    /// Times.
    Time,
}

impl ColumnKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Numeric, Self::Categorical, Self::Text, Self::Time];

    /// Its name in schemas.
    pub fn name(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Categorical => "categorical",
            Self::Text => "text",
            Self::Time => "time",
        }
    }
}

/// A typed value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// None.
    Missing,
    /// A finite number.
    Number(f64),
    /// A category or a text.
    Text(&'a str),
    /// A time.
    Time(Timestamp),
}

/// Why a field is missing although something stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not a number.
    NotANumber,
    /// An infinite number, or one too large for a vector.
    Infinite,
    /// Not a time.
    NotATime,
}

/// A field that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell<'a> {
    /// Its value.
    pub value: Value<'a>,
    /// Why it is missing, unless nothing stands there.
    pub problem: Option<Problem>,
}

/// Whether a field says that there is no value.
pub fn is_missing(field: &str) -> bool {
    MISSING_TEXTS.contains(&field.trim())
}

/// Reads a field of a column of this kind.
pub fn read(kind: ColumnKind, field: &str) -> Cell<'_> {
    let good = |value| Cell { value, problem: None };
    let bad = |problem| Cell { value: Value::Missing, problem: Some(problem) };
    if is_missing(field) {
        return good(Value::Missing);
    }
    match kind {
        ColumnKind::Numeric => match number(field) {
            Some(value) if value.abs() <= f64::from(f32::MAX) => good(Value::Number(value)),
            Some(_) => bad(Problem::Infinite),
            None => bad(Problem::NotANumber),
        },
        ColumnKind::Categorical | ColumnKind::Text => good(Value::Text(field.trim())),
        ColumnKind::Time => match time::parse(field) {
            Some(time) => good(Value::Time(time)),
            None => bad(Problem::NotATime),
        },
    }
}

/// A decimal number, also infinite; hexadecimal ones with `0x`.
pub fn number(field: &str) -> Option<f64> {
    let field = field.trim();
    if let Some(digits) = field.strip_prefix("0x").or_else(|| field.strip_prefix("0X")) {
        return u64::from_str_radix(digits, 16).ok().map(|value| value as f64);
    }
    field.parse().ok().filter(|value: &f64| !value.is_nan())
}
