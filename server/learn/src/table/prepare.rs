//! What preparation learns, from the training part alone.
//!
//! * **Categories** become the log-odds of malicious among their rows, drawn towards the mean of all (so that a value of
//!   few rows says little), and how frequent they are. A training row gets log-odds from the *other* folds (cross-fitting,
//!   as in Micci-Barreca 2001 and scikit-learn's `TargetEncoder`): its own label must not be in its vector. Values of few
//!   rows, and values that are new when rows are scored, share one place.
//! * **Texts** become their shape and those n-grams that tell the classes apart best (by the likelihood ratio G², Dunning
//!   1993). Each different text counts once, however often it occurs.
//! * **Numbers** stay; missing ones stay missing.
//!
//! Without labels, and for algorithms that must not see them, categories become how frequent they are and nothing else
//! (their log-odds are 0), and texts their shape and those n-grams that the most texts have and the most lack. Times that
//! span less than a week are left out: every hour that comes later would be new.

use std::collections::BTreeMap;

use picket_common::table::limits::{CATEGORIES_MAX, CATEGORY_BYTES_MAX, NGRAM_NUMBERS};
use picket_common::table::{Categories, Category, ColumnKind, Encoder, Preparation, PreparedColumn, Value, text};

use crate::table::frame::{Column, Table, Values, Words};

/// Most n-grams of a text column.
pub(super) const NGRAMS: usize = 256;
/// … without labels: where every feature is as likely to be looked at as any other, a text must not outnumber the rest.
const NGRAMS_UNLABELLED: usize = 8;
/// Fewest different texts that an n-gram must be in.
const NGRAM_TEXTS_MIN: u32 = 3;
/// N-grams with equal counts in both classes, of which most say the same.
const NGRAMS_ALIKE_MAX: usize = 3;
/// Fewest rows of a category that is told apart.
const CATEGORY_ROWS_MIN: u64 = 5;
/// How many rows of the mean a category's log-odds are mixed with.
const PRIOR_ROWS: f64 = 10.0;
/// The longest cycle that a time is taken by, nanoseconds.
const WEEK_NS: i64 = 7 * 86_400 * 1_000_000_000;
/// Folds for cross-fitting.
const FOLDS: usize = 5;

/// What is learned, and which columns are left out for what reason.
pub(super) struct Prepared {
    pub(super) preparation: Preparation,
    /// For each prepared column its place in the table.
    pub(super) places: Vec<usize>,
    pub(super) left_out: BTreeMap<String, &'static str>,
}

impl Prepared {
    /// Only the columns at these places (ascending) of the preparation; the others are left out with their reasons.
    pub(super) fn keep(self, kept: &[usize], reasons: impl IntoIterator<Item = (String, &'static str)>) -> Self {
        let is_kept = |place: &usize| kept.binary_search(place).is_ok();
        let columns = self.preparation.columns.into_iter().enumerate().filter(|(place, _)| is_kept(place));
        let places = self.places.into_iter().enumerate().filter(|(place, _)| is_kept(place));
        let mut left_out = self.left_out;
        left_out.extend(reasons);
        Self {
            preparation: Preparation { columns: columns.map(|(_, column)| column).collect() },
            places: places.map(|(_, place)| place).collect(),
            left_out,
        }
    }
}

/// The rows to learn from.
#[derive(Clone, Copy)]
pub(super) struct TrainingRows<'a> {
    pub(super) table: &'a Table,
    pub(super) rows: &'a [usize],
    /// Of every row of the table; nothing when labels are not to be looked at.
    pub(super) malicious: Option<&'a [bool]>,
    /// For each of `rows` a number that those which belong together share.
    pub(super) groups: &'a [u32],
}

impl TrainingRows<'_> {
    /// Learns what is done with each feature column.
    pub(super) fn learn(&self) -> Prepared {
        let mut columns = Vec::new();
        let mut places = Vec::new();
        let mut left_out = BTreeMap::new();
        for (place, column) in self.table.columns.iter().enumerate().filter(|(_, column)| column.is_feature) {
            if let Some(reason) = self.says_nothing(column) {
                left_out.insert(column.name.clone(), reason);
                continue;
            }
            let encoder = match (&column.values, column.kind) {
                (Values::Words(words), ColumnKind::Text) => Encoder::Text(self.ngrams(words)),
                (Values::Words(words), _) => Encoder::Categorical(self.categories(words)),
                (Values::Times(_), _) => Encoder::Time,
                (Values::Numbers(_), _) => Encoder::Numeric,
            };
            columns.push(PreparedColumn { name: column.name.clone(), encoder });
            places.push(place);
        }
        Prepared { preparation: Preparation { columns }, places, left_out }
    }

    fn categories(&self, words: &Words) -> Categories {
        let mut categories = self.tally(words).categories(words, None);
        if self.malicious.is_none() {
            categories.other = 0.0;
            categories.known.iter_mut().for_each(|category| category.log_odds = 0.0);
        }
        categories
    }

    /// Whether a row is malicious, as far as that may be looked at.
    fn is_malicious(&self, row: usize) -> bool {
        self.malicious.is_some_and(|malicious| malicious[row])
    }

    fn says_nothing(&self, column: &Column) -> Option<&'static str> {
        let first = column.value(*self.rows.first()?);
        let is_constant = self.rows.iter().all(|row| column.value(*row) == first);
        match (is_constant, first) {
            (false, _) if self.malicious.is_none() && self.is_less_than_a_cycle(column) => {
                Some("less than a week: without labels whatever is later would be new")
            }
            (false, _) => None,
            (true, Value::Missing) => Some("no value in the training part"),
            (true, _) => Some("constant in the training part"),
        }
    }

    /// Whether a column of times has not come round once, by hour and weekday.
    fn is_less_than_a_cycle(&self, column: &Column) -> bool {
        let Values::Times(_) = &column.values else { return false };
        let times = self.rows.iter().filter_map(|row| match column.value(*row) {
            Value::Time(time) => Some(time.0),
            _ => None,
        });
        let (first, last) = times.fold((i64::MAX, i64::MIN), |(first, last), time| (first.min(time), last.max(time)));
        last.saturating_sub(first) < WEEK_NS
    }

    /// The training rows' vectors: as any row's, but with log-odds of other folds.
    pub(super) fn vectors(&self, prepared: &Prepared) -> Vec<f32> {
        let crossed: BTreeMap<usize, Vec<Encoder>> = prepared
            .places
            .iter()
            .filter(|_| self.malicious.is_some())
            .filter_map(|place| match &self.table.columns[*place] {
                Column { kind: ColumnKind::Categorical, values: Values::Words(words), .. } => {
                    let tally = self.tally(words);
                    let of_fold = |fold| Encoder::Categorical(tally.categories(words, Some(fold)));
                    Some((*place, (0..FOLDS).map(of_fold).collect()))
                }
                _ => None,
            })
            .collect();
        let mut values = Vec::with_capacity(self.rows.len() * prepared.preparation.feature_count());
        for (row, group) in self.rows.iter().zip(self.groups) {
            for (place, column) in prepared.places.iter().zip(&prepared.preparation.columns) {
                let encoder = crossed.get(place).map_or(&column.encoder, |folds| &folds[fold_of(*group)]);
                encoder.encode(self.table.columns[*place].value(*row), &mut values);
            }
        }
        values
    }

    fn tally(&self, words: &Words) -> Tally {
        let mut rows = vec![[[0; 2]; FOLDS]; words.words.len()];
        let mut all = [[0; 2]; FOLDS];
        for (row, group) in self.rows.iter().zip(self.groups) {
            let (fold, class) = (fold_of(*group), usize::from(self.is_malicious(*row)));
            all[fold][class] += 1;
            if let Some(counts) = rows.get_mut(words.codes[*row] as usize) {
                counts[fold][class] += 1;
            }
        }
        Tally { rows, all }
    }

    fn ngrams_max(&self) -> usize {
        if self.malicious.is_some() { NGRAMS } else { NGRAMS_UNLABELLED }
    }

    /// The n-grams that tell the classes apart best (without labels: the texts), ascending.
    fn ngrams(&self, words: &Words) -> Vec<u32> {
        let mut texts = [0_u32; 2];
        let mut counts = vec![[0_u32; 2]; NGRAM_NUMBERS as usize];
        let mut seen = vec![[false; 2]; words.words.len()];
        let mut found = Vec::new();
        for row in self.rows {
            let (code, class) = (words.codes[*row] as usize, usize::from(self.is_malicious(*row)));
            let Some(seen) = seen.get_mut(code).filter(|seen| !seen[class]) else { continue };
            seen[class] = true;
            texts[class] += 1;
            text::ngrams(&words.words[code], &mut found);
            found.iter().for_each(|(number, _)| counts[*number as usize][class] += 1);
        }
        let mut ranked: Vec<(f64, usize)> = counts
            .iter()
            .enumerate()
            .filter(|(_, counts)| counts[0] + counts[1] >= NGRAM_TEXTS_MIN)
            .map(|(number, counts)| match self.malicious {
                Some(_) => (likelihood_ratio(*counts, texts), number),
                // All of one class.
                None => (f64::from(counts[0].min(texts[0].saturating_sub(counts[0]))), number),
            })
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let mut alike: BTreeMap<[u32; 2], usize> = BTreeMap::new();
        ranked.retain(|(_, number)| {
            let times = alike.entry(counts[*number]).or_default();
            *times += 1;
            *times <= NGRAMS_ALIKE_MAX
        });
        let mut chosen: Vec<u32> =
            ranked.into_iter().take(self.ngrams_max()).filter_map(|(_, number)| u32::try_from(number).ok()).collect();
        chosen.sort_unstable();
        chosen
    }
}

/// Rows of each word by fold and class.
struct Tally {
    rows: Vec<[[u64; 2]; FOLDS]>,
    all: [[u64; 2]; FOLDS],
}

impl Tally {
    /// What is known of the values, without the rows of a fold.
    fn categories(&self, words: &Words, without: Option<usize>) -> Categories {
        let of = |folds: &[[u64; 2]; FOLDS]| -> [u64; 2] {
            let folds = folds.iter().enumerate().filter(|(fold, _)| Some(*fold) != without);
            folds.fold([0, 0], |sum, (_, counts)| [sum[0] + counts[0], sum[1] + counts[1]])
        };
        // Which values are rare, and how frequent the others are, no label says: that is the same in every fold.
        let total = |folds: &[[u64; 2]; FOLDS]| folds.iter().flatten().sum::<u64>();
        let all = of(&self.all);
        let mut order: Vec<usize> = (0..self.rows.len())
            .filter(|code| {
                total(&self.rows[*code]) >= CATEGORY_ROWS_MIN && words.words[*code].len() <= CATEGORY_BYTES_MAX
            })
            .collect();
        order.sort_by(|a, b| {
            total(&self.rows[*b]).cmp(&total(&self.rows[*a])).then_with(|| words.words[*a].cmp(&words.words[*b]))
        });
        order.truncate(CATEGORIES_MAX);
        order.sort_by(|a, b| words.words[*a].cmp(&words.words[*b]));
        let mut other = all;
        let mut known = Vec::with_capacity(order.len());
        for code in order {
            let counts = of(&self.rows[code]);
            other = [other[0].saturating_sub(counts[0]), other[1].saturating_sub(counts[1])];
            known.push(Category {
                value: words.words[code].to_string(),
                log_odds: log_odds(counts, all),
                frequency: libm::log1p(total(&self.rows[code]) as f64) as f32,
            });
        }
        Categories { other: log_odds(other, all), known }
    }
}

fn fold_of(group: u32) -> usize {
    crate::random::SplitMix64::new(u64::from(group)).below(FOLDS)
}

fn log_odds(counts: [u64; 2], all: [u64; 2]) -> f32 {
    let rows = (all[0] + all[1]) as f64;
    let mean = ((all[1] as f64 + 0.5) / (rows + 1.0)).clamp(1e-9, 1.0 - 1e-9);
    let (benign, malicious) = (counts[0] as f64, counts[1] as f64);
    libm::log((malicious + PRIOR_ROWS * mean) / (benign + PRIOR_ROWS * (1.0 - mean))) as f32
}

/// Dunning's G² of an n-gram that is in `counts` of `texts` texts of each class.
fn likelihood_ratio(counts: [u32; 2], texts: [u32; 2]) -> f64 {
    let [a, b] = counts.map(f64::from);
    let [with_out_a, with_out_b] =
        [texts[0].saturating_sub(counts[0]), texts[1].saturating_sub(counts[1])].map(f64::from);
    let rows = f64::from(texts[0]) + f64::from(texts[1]);
    let cell = |found: f64, row: f64, column: f64| {
        if found > 0.0 { found * libm::log(found * rows / (row * column)) } else { 0.0 }
    };
    let (with, without) = (a + b, with_out_a + with_out_b);
    2.0 * (cell(a, with, f64::from(texts[0]))
        + cell(b, with, f64::from(texts[1]))
        + cell(with_out_a, without, f64::from(texts[0]))
        + cell(with_out_b, without, f64::from(texts[1])))
}
