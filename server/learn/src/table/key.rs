//! Which rows are the same, and which nearly.

use picket_common::table::{ColumnKind, Value};

use crate::table::frame::{Table, Values};

/// A number for each row that equal (or nearly equal) rows share.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// Of rows whose features are equal.
    pub(super) exact: Vec<u64>,
    /// Of rows that follow one template: numbers equal in their two leading digits, texts equal but for their digits, times
    /// whatever they are.
    pub(super) template: Vec<u64>,
}

impl Keys {
    pub(super) fn of(table: &Table) -> Self {
        let (mut exact, mut template) = (vec![0_u64; table.rows], vec![0_u64; table.rows]);
        for column in table.features() {
            // Words are hashed once each.
            let hashes: Vec<[u64; 2]> = match &column.values {
                Values::Words(words) => {
                    let is_text = column.kind == ColumnKind::Text;
                    words.words.iter().map(|word| [text_hash(word, false), text_hash(word, is_text)]).collect()
                }
                _ => Vec::new(),
            };
            for row in 0..table.rows {
                let [same, alike] = match (&column.values, column.value(row)) {
                    (Values::Words(words), Value::Text(_)) => {
                        hashes.get(words.codes[row] as usize).copied().unwrap_or_default()
                    }
                    (_, Value::Number(number)) => [number_hash(number), number_hash(leading(number))],
                    (_, Value::Time(time)) => [mix(time.0 as u64), 0],
                    _ => [1, 1],
                };
                exact[row] = mix(exact[row].rotate_left(5) ^ same);
                template[row] = mix(template[row].rotate_left(5) ^ alike);
            }
        }
        Self { exact, template }
    }
}

/// Two leading digits.
fn leading(number: f64) -> f64 {
    if number == 0.0 {
        return 0.0;
    }
    let scale = libm::pow(10.0, libm::floor(libm::log10(number.abs())) - 1.0);
    if scale > 0.0 && scale.is_finite() { libm::round(number / scale) * scale } else { number }
}

/// Numbers are equal when their `f32` are: that is what models see.
fn number_hash(number: f64) -> u64 {
    mix(u64::from((number as f32 + 0.0).to_bits()) ^ 0x5bd1_e995)
}

fn text_hash(text: &str, without_digits: bool) -> u64 {
    let bytes = text.bytes().filter(|byte| !(without_digits && byte.is_ascii_digit()));
    mix(bytes
        .fold(0xcbf2_9ce4_8422_2325, |state: u64, byte| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)))
}

/// The finalizer of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
