//! Events as JSON, one object an event: what `picketctl event`, alert files and `picket-agent score` speak.
//!
//! ```json
//! {"epoch":1763850000000000000,"sequence":7,"time_unix_ns":1763850001250000000,"origin":"agent_netlink",
//!  "class":"process_activity","activity":"start","process":{"pid":411,"start_time_unix_ns":1763850001240000000},
//!  "executable":"/usr/bin/ls","arguments":["ls","-l"],"standard_streams":["null","pipe","terminal"], …}
//! ```
//!
//! Lossless both ways. Strings from hosts are written escaped ([`ByteString`](super::ByteString)); numbers are JSON
//! numbers up to 2^64 - 1 (readers that keep numbers as doubles lose digits above 2^53); `None` is an absent key, and
//! `null` is read as such. Keys that are not of the event are ignored: callers may add a `host_id` or a score.

use serde_json::Value;

use super::{Event, LimitError};

mod read;
mod write;

/// The event as a JSON object.
pub fn to_json(event: &Event) -> Value {
    write::event(event)
}

/// Reads what [`to_json`] wrote.
///
/// # Errors
/// [`JsonError`] names the first field that is missing, malformed or beyond its limit.
pub fn from_json(value: &Value) -> Result<Event, JsonError> {
    let event = read::event(value)?;
    event.size()?;
    Ok(event)
}

/// Why JSON is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// A required field is absent or null.
    #[error("event has no {field:?}")]
    Missing {
        /// Path of the field, such as `process.pid`.
        field: String,
    },
    /// A field is not what it has to be.
    #[error("event has a malformed {field:?}: expected {expected}")]
    Malformed {
        /// Path of the field, such as `arguments[3]`.
        field: String,
        /// What it has to be.
        expected: &'static str,
    },
    /// The event is not a JSON object.
    #[error("event is not a JSON object")]
    NotAnObject,
    /// The event exceeds a limit.
    #[error(transparent)]
    OverLimit(#[from] LimitError),
}
