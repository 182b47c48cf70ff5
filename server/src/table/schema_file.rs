//! A table's schema as a file for people: TOML, a line for each column.
//!
//! ```toml
//! version = 1
//! positive = ["attack"]            # label values that are malicious, or: benign = ["normal"]
//!
//! [columns]
//! "dur" = "numeric"                # 4800 values: 0.000011, …
//! "proto" = "categorical"
//! "label" = "label"
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use picket_learn::table::{Role, Schema};
use serde::Deserialize;

/// Width at which remarks begin, in characters.
const REMARK_COLUMN: usize = 48;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaFile {
    version: u32,
    #[serde(default)]
    positive: Vec<String>,
    #[serde(default)]
    benign: Vec<String>,
    columns: BTreeMap<String, String>,
}

/// Why a schema file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaFileError {
    /// Not TOML of this form.
    #[error("{0}")]
    Toml(String),
    /// Of another version.
    #[error("version {0} is not supported, this program reads version 1")]
    Version(u32),
    /// A role that does not exist.
    #[error("column {column:?}: there is no role {role:?}; roles are {}", role_names())]
    Role {
        /// Which column.
        column: String,
        /// What is said.
        role: String,
    },
    /// A column that the table has not.
    #[error("the table has no column {column:?}, which the schema names: the schema is of another table")]
    NoColumn {
        /// Which.
        column: String,
    },
    /// A column that the schema leaves open.
    #[error("the schema does not say what column {column:?} is: add it, perhaps as \"ignore\"")]
    Unsaid {
        /// Which.
        column: String,
    },
}

/// The schema as a file; what the sample showed stands beside it.
pub fn write(schema: &Schema, of: &str, rows: usize) -> String {
    let mut text = format!(
        "# The columns of {of}, guessed from its first {rows} rows. Edit what is wrong, then give it with --schema.\n\
         # Roles: {}.\n\
         #   group: rows of one value stay on one side of a split; host: --split host divides by it; family: evaluated by.\n\
         #   None of the three is a feature.\n\
         version = 1\n",
        role_names()
    );
    let list = |values: &[String]| values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ");
    // Writing to a String cannot fail.
    for (key, values) in [("positive", &schema.label_values.malicious), ("benign", &schema.label_values.benign)] {
        if !values.is_empty() {
            writeln!(text, "{key} = [{}]", list(values)).ok();
        }
    }
    text.push_str("\n[columns]\n");
    for column in &schema.columns {
        let line = format!("{} = {}", quoted(&column.name), quoted(column.role.name()));
        let remark: String = column.remark.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(text, "{}", format!("{line:<REMARK_COLUMN$}  # {remark}").trim_end()).ok();
    }
    text
}

/// Gives the columns of `schema` the roles of the file. Every column must be named, and only columns there are.
///
/// # Errors
/// [`SchemaFileError`].
pub fn apply(text: &str, schema: &mut Schema) -> Result<(), SchemaFileError> {
    let file: SchemaFile = toml::from_str(text).map_err(|error| SchemaFileError::Toml(error.to_string()))?;
    if file.version != 1 {
        return Err(SchemaFileError::Version(file.version));
    }
    for name in file.columns.keys() {
        if !schema.columns.iter().any(|column| column.name == *name) {
            return Err(SchemaFileError::NoColumn { column: name.clone() });
        }
    }
    for column in &mut schema.columns {
        let role = file.columns.get(&column.name);
        let role = role.ok_or_else(|| SchemaFileError::Unsaid { column: column.name.clone() })?;
        let unknown = || SchemaFileError::Role { column: column.name.clone(), role: role.clone() };
        column.role = Role::from_name(role).ok_or_else(unknown)?;
        if let Role::Feature(kind) = column.role {
            column.kind = kind;
        }
    }
    schema.label_values.malicious = file.positive;
    schema.label_values.benign = file.benign;
    Ok(())
}

fn role_names() -> String {
    Role::ALL.map(Role::name).join(", ")
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
