//! What each noun and verb does: one call or a few, then rows for [`Output`].

use serde_json::Value;

use crate::ctl::arguments::{Arguments, DatasetVerb, LakeVerb, ModelVerb, Noun};
use crate::ctl::client::{Client, connect};
use crate::ctl::error::CtlError;
use crate::ctl::output::{Output, Row};

mod ca;
mod dataset;
mod event;
mod exchange;
mod host;
mod label;
mod model;
mod release;
mod table;
mod table_compare;
mod table_report;
mod token;

/// Runs one command.
pub(super) async fn run(arguments: &Arguments, output: &mut Output<'_>) -> Result<(), CtlError> {
    let takes_file = matches!(arguments.noun, Noun::Model(ModelVerb::Score { .. }));
    if let Some(path) = arguments.output.file().filter(|_| !takes_file) {
        let text = format!("--output {}: expected table, json or ndjson", path.display());
        return Err(CtlError::Argument(text));
    }
    if let Some(done) = without_server(arguments, output) {
        return done;
    }
    // A file of labels is checked before the server is needed.
    let prepared = match &arguments.noun {
        Noun::Label(verb) => label::prepare(verb)?,
        _ => label::Prepared::default(),
    };
    if prepared.is_dry_run() {
        return prepared.report(output);
    }
    let mut client = connect(arguments).await?;
    match &arguments.noun {
        Noun::Token(verb) => token::run(&mut client, verb, output).await,
        Noun::Host(verb) => host::run(&mut client, verb, output).await,
        Noun::Ca(verb) => ca::run(&mut client, verb, output).await,
        Noun::Event(verb) => event::run(&mut client, verb, output).await,
        Noun::Label(verb) => label::run(&mut client, verb, prepared, output).await,
        Noun::Dataset(verb) => dataset::run(&mut client, verb, output).await,
        Noun::Train(arguments) => model::train(&mut client, arguments, output).await,
        Noun::Model(verb) => model::run(&mut client, verb, output).await,
        Noun::Lake(LakeVerb::Commit) => commit_lake(&mut client, output).await,
    }
}

/// Runs a command on files alone; nothing when it is none.
fn without_server(arguments: &Arguments, output: &mut Output<'_>) -> Option<Result<(), CtlError>> {
    match &arguments.noun {
        Noun::Train(train) => train.file.input.as_ref().map(|input| table::train(train, input, output)),
        Noun::Dataset(DatasetVerb::Schema(arguments)) => Some(table::schema(arguments, output)),
        Noun::Dataset(DatasetVerb::Profile(arguments)) => Some(table_report::profile(arguments, output)),
        Noun::Dataset(DatasetVerb::Diff { first, second, columns }) => {
            Some(table_report::diff([first, second], columns, output))
        }
        Noun::Model(ModelVerb::Import(arguments)) => Some(exchange::import_model(arguments, output)),
        Noun::Model(ModelVerb::Convert { model, to, force }) => Some(exchange::convert(model, to, *force, output)),
        Noun::Model(verb @ ModelVerb::Score { .. }) => Some(table::score(verb, arguments.output.file(), output)),
        Noun::Model(ModelVerb::Compare(arguments)) => Some(table_compare::compare(arguments, output)),
        Noun::Model(ModelVerb::Rebuild(arguments)) => {
            arguments.input.as_ref().map(|input| table_compare::rebuild(arguments, input, output))
        }
        _ => None,
    }
}

async fn commit_lake(client: &mut Client, output: &mut Output<'_>) -> Result<(), CtlError> {
    let answer = client.commit_lake(picket_proto::v1::CommitLakeRequest {}).await?.into_inner();
    let committed = answer.events_committed;
    output.one(&format!("{committed} events moved into the lake"), object([("events_committed", committed.into())]))
}

/// A row of these keys and values.
fn object<const N: usize>(pairs: [(&str, Value); N]) -> Row {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A time as RFC 3339 in UTC; nothing for 0, which means never.
fn time_text(unix_s: i64) -> Value {
    if unix_s == 0 {
        return Value::Null;
    }
    let time = time::OffsetDateTime::from_unix_timestamp(unix_s).ok();
    let text = time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    text.map_or(Value::Null, Value::String)
}

/// A number of bytes for people.
fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_for_people() {
        assert_eq!(time_text(0), Value::Null);
        assert_eq!(time_text(1_800_000_000), Value::String("2027-01-15T08:00:00Z".to_owned()));
        assert_eq!(time_text(i64::MAX), Value::Null);
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(1536), "1.5 KiB");
        assert_eq!(bytes_text(u64::MAX), "17179869184.0 GiB");
    }
}
