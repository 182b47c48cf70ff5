//! Fields of a JSON object, by their names.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value};

use crate::event::ByteString;
use crate::import::LineError;

/// The object of a line.
pub(super) fn object(line: &str) -> Result<Map<String, Value>, LineError> {
    match serde_json::from_str(line).map_err(super::not_json)? {
        Value::Object(object) => Ok(object),
        _ => Err(LineError::NotAnObject),
    }
}

/// An object within an object, or `None`.
pub(super) fn inner<'a>(
    object: &'a Map<String, Value>,
    field: &'static str,
) -> Result<Option<&'a Map<String, Value>>, LineError> {
    optional(object, field, "an object", Value::as_object)
}

/// A text, which must be there.
pub(super) fn text<'a>(object: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, LineError> {
    optional_text(object, field)?.ok_or(LineError::Missing(field))
}

/// A text, or `None`.
pub(super) fn optional_text<'a>(
    object: &'a Map<String, Value>,
    field: &'static str,
) -> Result<Option<&'a str>, LineError> {
    optional(object, field, "a string", Value::as_str)
}

/// A text as bytes of a host; empty when there is none. More than an event may hold is cut.
pub(super) fn bytes(object: &Map<String, Value>, field: &'static str) -> Result<ByteString, LineError> {
    Ok(ByteString::truncated(optional_text(object, field)?.unwrap_or_default().as_bytes()))
}

/// A number, or `None`.
pub(super) fn number(object: &Map<String, Value>, field: &'static str) -> Result<Option<u64>, LineError> {
    optional(object, field, "a whole number", Value::as_u64)
}

/// An address and a port, which must be there.
pub(super) fn socket(
    object: &Map<String, Value>,
    address: &'static str,
    port: &'static str,
) -> Result<SocketAddr, LineError> {
    let ip: IpAddr = text(object, address)?.parse().map_err(|_| malformed(address, "an IP address"))?;
    let number = number(object, port)?.ok_or(LineError::Missing(port))?;
    Ok(SocketAddr::new(ip, u16::try_from(number).map_err(|_| malformed(port, "a port"))?))
}

pub(super) fn malformed(field: &'static str, expected: &'static str) -> LineError {
    LineError::Malformed { field, expected }
}

fn optional<'a, T>(
    object: &'a Map<String, Value>,
    field: &'static str,
    expected: &'static str,
    read: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<Option<T>, LineError> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or(malformed(field, expected)),
    }
}
