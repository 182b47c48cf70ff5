//! Configuration in layers: defaults, then documents (TOML), then the environment, then flags; the later layer wins,
//! key by key. Pure: the caller reads files and variables and passes their text.
//!
//! The keys that exist are those of `T::default()` as it serialises, so a key that should be settable must have a
//! default that serialises (no `None`; let an empty string or zero mean "not set"). An unknown key is an error that
//! names the nearest one, a value of the wrong type or form is an error that names its key and where it stands.

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

#[cfg(test)]
mod tests;

/// What every variable that is a setting begins with: `PICKET_SECTION__KEY`.
pub const ENVIRONMENT_PREFIX: &str = "PICKET_";
/// What separates the parts of a key in a variable's name.
pub const ENVIRONMENT_SEPARATOR: &str = "__";

/// A configuration file's text.
#[derive(Clone, Debug)]
pub struct Document {
    /// What to call it in errors: its path.
    pub name: String,
    /// TOML.
    pub text: String,
}

/// Why the configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not TOML.
    #[error("{place} is not valid TOML: {reason}")]
    Syntax {
        /// Which document.
        place: String,
        /// Line, column and what is wrong there.
        reason: String,
    },
    /// No such key.
    #[error("{place}: unknown key `{key}`, the nearest is `{nearest}`")]
    UnknownKey {
        /// Which document, variable or flag.
        place: String,
        /// The key, with its section.
        key: String,
        /// The key that exists and looks most like it.
        nearest: String,
    },
    /// The key exists, the value cannot be used.
    #[error("{place}: `{key}`: {reason}")]
    InvalidValue {
        /// Which document, variable or flag.
        place: String,
        /// The key, with its section.
        key: String,
        /// What was expected.
        reason: String,
    },
    /// `T` does not serialise to a table or does not read back what it wrote: an error in the program.
    #[error("the default configuration cannot be represented: {0}")]
    Defaults(String),
}

/// Settings while layers are put over each other.
///
/// ```
/// # use picket_common::settings::{Document, Layers};
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Config { listener: Listener }
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Listener { address: String, backlog: u32 }
///
/// let mut layers = Layers::<Config>::new()?;
/// layers.document(&Document { name: "server.toml".into(), text: "[listener]\nbacklog = 5".into() })?;
/// layers.environment([("PICKET_LISTENER__ADDRESS".into(), "127.0.0.1:1".into())])?;
/// let config = layers.finish();
/// assert_eq!((config.listener.address.as_str(), config.listener.backlog), ("127.0.0.1:1", 5));
/// # Ok::<(), picket_common::settings::SettingsError>(())
/// ```
pub struct Layers<T> {
    defaults: Table,
    table: Table,
    value: T,
}

impl<T: Default + Serialize + DeserializeOwned> Layers<T> {
    /// The defaults.
    pub fn new() -> Result<Self, SettingsError> {
        let value = T::default();
        let defaults = Table::try_from(&value).map_err(|error| SettingsError::Defaults(error.to_string()))?;
        let value =
            defaults.clone().try_into().map_err(|error: toml::de::Error| SettingsError::Defaults(error.to_string()))?;
        Ok(Self { table: defaults.clone(), defaults, value })
    }

    /// Puts a document over what there is.
    pub fn document(&mut self, document: &Document) -> Result<(), SettingsError> {
        let table: Table = document.text.parse().map_err(|error: toml::de::Error| SettingsError::Syntax {
            place: document.name.clone(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        self.layer(&document.name, &mut Vec::new(), table)
    }

    /// Puts the variables `PICKET_SECTION__KEY` over what there is; other variables are passed over.
    ///
    /// The value of a text key is taken as it is, of every other key it is TOML (`5`, `true`, `["a", "b"]`).
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) -> Result<(), SettingsError> {
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            if !rest.contains(ENVIRONMENT_SEPARATOR) {
                continue;
            }
            let key = rest.to_ascii_lowercase();
            self.text(&format!("environment variable {name}"), &key.replace(ENVIRONMENT_SEPARATOR, "."), &text)?;
        }
        Ok(())
    }

    /// Sets one key (`section.key`) from a flag. `place` is the flag's name, for errors; the text as in
    /// [`Layers::environment`].
    pub fn text(&mut self, place: &str, key: &str, text: &str) -> Result<(), SettingsError> {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let value = match lookup(&self.defaults, &path) {
            None => return Err(self.unknown(place, &path)),
            Some(Value::String(_)) => Value::String(text.to_owned()),
            Some(_) => format!("value = {text}")
                .parse::<Table>()
                .ok()
                .and_then(|mut table| table.remove("value"))
                .unwrap_or_else(|| Value::String(text.to_owned())),
        };
        self.set(place, &path, value)
    }

    /// The outcome.
    pub fn finish(self) -> T {
        self.value
    }

    fn layer(&mut self, place: &str, path: &mut Vec<String>, table: Table) -> Result<(), SettingsError> {
        for (key, value) in table {
            path.push(key);
            match (lookup(&self.defaults, path), value) {
                (None, _) => return Err(self.unknown(place, path)),
                (Some(Value::Table(_)), Value::Table(inner)) => self.layer(place, path, inner)?,
                (Some(_), value) => self.set(place, path, value)?,
            }
            path.pop();
        }
        Ok(())
    }

    fn set(&mut self, place: &str, path: &[String], value: Value) -> Result<(), SettingsError> {
        let invalid =
            |reason: String| SettingsError::InvalidValue { place: place.to_owned(), key: path.join("."), reason };
        let value = match (lookup(&self.defaults, path), value) {
            (Some(Value::Float(_)), Value::Integer(whole)) => Value::Float(whole as f64),
            (_, value) => value,
        };
        match lookup(&self.defaults, path) {
            Some(known) if known.same_type(&value) => {}
            Some(Value::Table(_)) => return Err(invalid("is a section, not a key".to_owned())),
            Some(known) => {
                return Err(invalid(format!("expected {}, found {}", known.type_str(), value.type_str())));
            }
            None => return Err(self.unknown(place, path)),
        }
        let mut table = self.table.clone();
        replace(&mut table, path, value);
        // One key at a time, so that whatever the type itself refuses can be blamed on this key.
        self.value = table.clone().try_into().map_err(|error: toml::de::Error| invalid(error.message().to_owned()))?;
        self.table = table;
        Ok(())
    }

    fn unknown(&self, place: &str, path: &[String]) -> SettingsError {
        let key = path.join(".");
        let mut known = Vec::new();
        collect(&self.defaults, "", &mut known);
        let nearest = known
            .into_iter()
            .min_by_key(|candidate| distance(candidate, &key))
            .unwrap_or_else(|| "(there are none)".to_owned());
        SettingsError::UnknownKey { place: place.to_owned(), key, nearest }
    }
}

fn lookup<'a>(table: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

fn replace(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            if let Some(Value::Table(inner)) = table.get_mut(key) {
                replace(inner, rest, value);
            }
        }
    }
}

/// How unlike two keys are: as a whole, or in their last part when the section is wrong or was left out.
fn distance(left: &str, right: &str) -> usize {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = strsim::damerau_levenshtein(left, right);
    whole.min(strsim::damerau_levenshtein(&last(left), &last(right)) + 1)
}

/// Every key and section, dotted.
fn collect(table: &Table, prefix: &str, into: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let Value::Table(inner) = value {
            collect(inner, &path, into);
        }
        into.push(path);
    }
}
