//! What the columns of a table are: guessed from a sample, decided by people.

use std::collections::BTreeMap;

use picket_common::table::{ColumnKind, Record, cell, time};

/// Rows that a schema is guessed from.
pub const SAMPLE_ROWS_MAX: usize = 10_000;
/// Different values of a column that the sample tells apart.
const DISTINCT_MAX: usize = 2_000;
/// Values up to so many bytes are kept by the sample.
const KEPT_BYTES_MAX: usize = 128;
/// Share of values that must be numbers (or times) for the column to be of them: the odd field is taken as missing.
const SHARE_OF_KIND: f64 = 0.99;
/// Texts rather than categories: so many different values in a hundred, …
const TEXT_DISTINCT_SHARE: f64 = 0.3;
/// … or so many bytes on average.
const TEXT_BYTES: f64 = 40.0;
/// A column that grows over so many rows without exception numbers them.
const ORDER_ROWS_MIN: usize = 20;
/// Fewer different values than these are categories, however long.
const TEXT_DISTINCT_MIN: usize = 50;

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A feature of this kind.
    Feature(ColumnKind),
    /// Rows with the same value belong together: one attack, one piece of work.
    Group,
    /// The host that a row is from: never a feature, but rows can be divided by it.
    Host,
    /// Family or technique of malicious rows: never a feature, but evaluated by.
    Family,
    /// Malicious or not.
    Label,
    /// Not looked at.
    Ignore,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 9] = [
        Self::Feature(ColumnKind::Numeric),
        Self::Feature(ColumnKind::Categorical),
        Self::Feature(ColumnKind::Text),
        Self::Feature(ColumnKind::Time),
        Self::Group,
        Self::Host,
        Self::Family,
        Self::Label,
        Self::Ignore,
    ];

    /// Its name in schemas.
    pub fn name(self) -> &'static str {
        match self {
            Self::Feature(kind) => kind.name(),
            Self::Group => "group",
            Self::Host => "host",
            Self::Family => "family",
            Self::Label => "label",
            Self::Ignore => "ignore",
        }
    }

    /// The role of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaColumn {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// What it holds, also when it is ignored.
    pub kind: ColumnKind,
    /// What the sample showed, for people.
    pub remark: String,
}

/// Which values of the label mean what. When both lists are empty, well-known words decide ([`LabelValues::is_malicious`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelValues {
    /// Malicious ones; all others are benign, unless `benign` is given, too.
    pub malicious: Vec<String>,
    /// Benign ones; all others are malicious, unless `malicious` is given, too.
    pub benign: Vec<String>,
}

impl LabelValues {
    const BENIGN_WORDS: [&str; 9] =
        ["0", "0.0", "false", "no", "benign", "normal", "legitimate", "background", "clean"];
    const MALICIOUS_WORDS: [&str; 11] = [
        "1",
        "1.0",
        "true",
        "yes",
        "malicious",
        "attack",
        "anomaly",
        "anomalous",
        "intrusion",
        "malware",
        "suspicious",
    ];

    /// Whether a value means malicious; nothing when that is not known.
    pub fn is_malicious(&self, value: &str) -> Option<bool> {
        let is_in = |list: &[String]| list.iter().any(|entry| entry == value);
        match (self.malicious.is_empty(), self.benign.is_empty()) {
            (true, true) => {
                let word = value.to_ascii_lowercase();
                let malicious = Self::MALICIOUS_WORDS.contains(&word.as_str());
                (malicious || Self::BENIGN_WORDS.contains(&word.as_str())).then_some(malicious)
            }
            (false, true) => Some(is_in(&self.malicious)),
            (true, false) => Some(!is_in(&self.benign)),
            (false, false) if is_in(&self.malicious) => Some(true),
            (false, false) => is_in(&self.benign).then_some(false),
        }
    }
}

/// The columns of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// In the table's order.
    pub columns: Vec<SchemaColumn>,
    /// What the label's values mean.
    pub label_values: LabelValues,
}

/// What is wrong with a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A column that is not there.
    #[error("the table has no column {name:?}; it has {columns}")]
    NoColumn {
        /// The name that was given.
        name: String,
        /// The first columns there are.
        columns: String,
    },
    /// Two columns for a role that only one can have.
    #[error("two columns are the {role}: {first:?} and {second:?}; only one can be")]
    Twice {
        /// The role.
        role: &'static str,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// Nothing to learn from.
    #[error("no column is a feature (numeric, categorical, text or time)")]
    NoFeatures,
    /// No label.
    #[error(
        "no column is the label: name it with --label, or give it the role \"label\" in the schema; the columns are {columns}"
    )]
    NoLabel {
        /// The first columns there are.
        columns: String,
    },
}

impl Schema {
    /// Gives a column another role.
    ///
    /// # Errors
    /// [`SchemaError::NoColumn`].
    pub fn assign(&mut self, name: &str, role: Role) -> Result<(), SchemaError> {
        if matches!(role, Role::Label | Role::Group | Role::Host | Role::Family) {
            // What was guessed gives way to what is said.
            for column in self.columns.iter_mut().filter(|column| column.role == role) {
                column.role = Role::Ignore;
            }
        }
        let columns = self.names();
        let column = self.columns.iter_mut().find(|column| column.name == name);
        let column = column.ok_or_else(|| SchemaError::NoColumn { name: name.to_owned(), columns })?;
        column.role = role;
        if let Role::Feature(kind) = role {
            column.kind = kind;
        }
        Ok(())
    }

    /// Checks that roles do not contradict each other.
    ///
    /// # Errors
    /// [`SchemaError::Twice`], [`SchemaError::NoFeatures`], and [`SchemaError::NoLabel`] when one is needed.
    pub fn check(&self, label_needed: bool) -> Result<(), SchemaError> {
        for role in [Role::Label, Role::Group, Role::Host, Role::Family] {
            let mut columns = self.columns.iter().filter(|column| column.role == role);
            if let (Some(first), Some(second)) = (columns.next(), columns.next()) {
                let (first, second) = (first.name.clone(), second.name.clone());
                return Err(SchemaError::Twice { role: role.name(), first, second });
            }
        }
        if label_needed && !self.columns.iter().any(|column| column.role == Role::Label) {
            return Err(SchemaError::NoLabel { columns: self.names() });
        }
        if !self.columns.iter().any(|column| matches!(column.role, Role::Feature(_))) {
            return Err(SchemaError::NoFeatures);
        }
        Ok(())
    }

    /// The first names, for messages.
    fn names(&self) -> String {
        const NAMED_MAX: usize = 20;
        let mut names: Vec<&str> = self.columns.iter().take(NAMED_MAX).map(|column| column.name.as_str()).collect();
        if self.columns.len() > NAMED_MAX {
            names.push("…");
        }
        names.join(", ")
    }
}

/// The first rows of a table, column by column.
#[derive(Clone, Debug)]
pub struct Sample {
    columns: Vec<ColumnSample>,
    rows: usize,
}

#[derive(Clone, Debug, Default)]
struct ColumnSample {
    name: String,
    missing: usize,
    numbers: usize,
    times: usize,
    plausible_times: usize,
    bytes: usize,
    /// Values with their rows, up to [`DISTINCT_MAX`].
    values: BTreeMap<String, usize>,
    /// Whether each number so far was above the one before.
    grows: bool,
    last: Option<f64>,
    uuids: usize,
}

impl Sample {
    /// Of a table with these columns.
    pub fn new(columns: &[String]) -> Self {
        let column = |name: &String| ColumnSample { name: name.clone(), grows: true, ..ColumnSample::default() };
        Self { columns: columns.iter().map(column).collect(), rows: 0 }
    }

    /// Takes a row; `false` when there are enough.
    pub fn push(&mut self, record: &Record) -> bool {
        if self.rows >= SAMPLE_ROWS_MAX {
            return false;
        }
        self.rows += 1;
        for (place, column) in self.columns.iter_mut().enumerate() {
            column.push(record.field(place));
        }
        true
    }

    /// Rows taken.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that the texts of a row take on average, by column.
    pub(super) fn text_bytes(&self) -> Vec<f64> {
        self.columns.iter().map(|column| column.bytes as f64 / self.rows.max(1) as f64).collect()
    }

    /// What the columns look like.
    pub fn schema(&self) -> Schema {
        let mut columns: Vec<SchemaColumn> = self.columns.iter().map(|column| column.guess(self.rows)).collect();
        let label = columns.iter().position(|column| column.name.eq_ignore_ascii_case("label"));
        if let Some(label) = label {
            columns[label].role = Role::Label;
        }
        Schema { columns, label_values: LabelValues::default() }
    }
}

impl ColumnSample {
    fn push(&mut self, field: &str) {
        if cell::is_missing(field) {
            self.missing += 1;
            return;
        }
        let field = field.trim();
        self.bytes += field.len();
        if let Some(number) = cell::number(field) {
            self.numbers += 1;
            self.plausible_times += usize::from(time::is_plausible(number));
            self.follow(number);
        } else {
            self.grows = false;
            self.times += usize::from(time::parse(field).is_some());
            self.uuids += usize::from(is_uuid(field));
        }
        if self.values.len() < DISTINCT_MAX {
            let kept: String = field.chars().take(KEPT_BYTES_MAX).collect();
            *self.values.entry(kept).or_default() += 1;
        }
    }

    fn follow(&mut self, number: f64) {
        if let Some(last) = self.last {
            self.grows &= number > last;
        }
        self.last = Some(number);
    }

    fn guess(&self, rows: usize) -> SchemaColumn {
        let present = rows - self.missing;
        let mostly = |count: usize| present > 0 && count as f64 >= SHARE_OF_KIND * present as f64;
        let says_time = says_time(&self.name.to_ascii_lowercase());
        let distinct = self.values.len();
        let (kind, ignore) = if present == 0 {
            (ColumnKind::Numeric, Some("no value in the sample"))
        } else if mostly(self.times) || (says_time && mostly(self.plausible_times)) {
            (ColumnKind::Time, None)
        } else if mostly(self.numbers) {
            let is_order = self.grows && present >= ORDER_ROWS_MIN && self.missing == 0;
            (ColumnKind::Numeric, is_order.then_some("grows from row to row: says where a row stands"))
        } else if mostly(self.uuids) {
            (ColumnKind::Categorical, Some("identifiers"))
        } else if self.is_text(present) {
            (ColumnKind::Text, None)
        } else {
            (ColumnKind::Categorical, None)
        };
        let mut remark = format!(
            "{}{distinct} values",
            if distinct >= DISTINCT_MAX || present > self.values.values().sum() { "at least " } else { "" }
        );
        if self.missing > 0 {
            remark.push_str(&format!(", {} of {rows} missing", self.missing));
        }
        if distinct == 1 {
            remark.push_str(", constant");
        }
        if let Some(reason) = ignore {
            remark = format!("{remark}, {reason}");
        }
        let mut values: Vec<(&String, &usize)> = self.values.iter().collect();
        values.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        let examples: Vec<String> =
            values.iter().take(3).map(|(value, _)| value.chars().take(24).collect::<String>()).collect();
        if !examples.is_empty() {
            remark.push_str(&format!(": {}", examples.join(", ")));
        }
        let role = if ignore.is_some() { Role::Ignore } else { Role::Feature(kind) };
        SchemaColumn { name: self.name.clone(), role, kind, remark }
    }

    fn is_text(&self, present: usize) -> bool {
        let distinct = self.values.len();
        let long = self.bytes as f64 >= TEXT_BYTES * present as f64;
        let varied = distinct as f64 >= TEXT_DISTINCT_SHARE * present.min(DISTINCT_MAX) as f64;
        distinct >= TEXT_DISTINCT_MIN && (long || varied)
    }
}

/// Whether the name of a column of numbers speaks of time.
fn says_time(name: &str) -> bool {
    ["time", "date", "stamp"].iter().any(|word| name.contains(word))
        || name == "ts"
        || name == "when"
        || name.ends_with("_ts")
}

fn is_uuid(text: &str) -> bool {
    let groups = [8, 4, 4, 4, 12];
    let mut parts = text.split('-');
    groups.iter().all(|length| {
        parts.next().is_some_and(|part| part.len() == *length && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }) && parts.next().is_none()
}
