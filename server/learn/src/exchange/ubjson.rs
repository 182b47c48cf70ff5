//! Universal Binary JSON, as far as XGBoost writes it.

use serde_json::{Map, Number, Value};

/// Deepest nesting.
const DEPTH_MAX: usize = 32;

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UbjsonError {
    #[error("it ends too early")]
    Truncated,
    #[error("byte {offset}: a value of an unknown type")]
    Type { offset: usize },
    #[error("byte {offset}: a length is negative or beyond the end")]
    Length { offset: usize },
    #[error("byte {offset}: a string is not UTF-8")]
    Text { offset: usize },
    #[error("it is nested too deeply")]
    Depth,
}

/// Reads one value; what follows it does not matter. Takes no more memory than some ten times the bytes.
pub(super) fn read(bytes: &[u8]) -> Result<Value, UbjsonError> {
    let mut reader = Reader { bytes, offset: 0 };
    let kind = reader.byte()?;
    reader.value(kind, 0)
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], UbjsonError> {
        let end = self.offset.checked_add(count).ok_or(UbjsonError::Truncated)?;
        let taken = self.bytes.get(self.offset..end).ok_or(UbjsonError::Truncated)?;
        self.offset = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], UbjsonError> {
        self.take(N)?.try_into().map_err(|_| UbjsonError::Truncated)
    }

    fn byte(&mut self) -> Result<u8, UbjsonError> {
        Ok(self.array::<1>()?[0])
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.offset).copied()
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Value, UbjsonError> {
        if depth > DEPTH_MAX {
            return Err(UbjsonError::Depth);
        }
        Ok(match kind {
            b'Z' | b'N' => Value::Null,
            b'T' => Value::Bool(true),
            b'F' => Value::Bool(false),
            b'd' => real(f32::from_be_bytes(self.array()?).into()),
            b'D' => real(f64::from_be_bytes(self.array()?)),
            b'C' => Value::String(char::from(self.byte()?).to_string()),
            b'S' => Value::String(self.text()?),
            b'[' => self.list(depth)?,
            b'{' => self.object(depth)?,
            _ => self.integer(kind)?.into(),
        })
    }

    fn integer(&mut self, kind: u8) -> Result<i64, UbjsonError> {
        Ok(match kind {
            b'i' => i8::from_be_bytes(self.array()?).into(),
            b'U' => self.byte()?.into(),
            b'I' => i16::from_be_bytes(self.array()?).into(),
            b'l' => i32::from_be_bytes(self.array()?).into(),
            b'L' => i64::from_be_bytes(self.array()?),
            _ => return Err(UbjsonError::Type { offset: self.offset.saturating_sub(1) }),
        })
    }

    /// A length, no greater than what is left.
    fn length(&mut self) -> Result<usize, UbjsonError> {
        let offset = self.offset;
        let kind = self.byte()?;
        let length = usize::try_from(self.integer(kind)?).ok();
        length.filter(|length| *length <= self.bytes.len() - self.offset).ok_or(UbjsonError::Length { offset })
    }

    fn text(&mut self) -> Result<String, UbjsonError> {
        let offset = self.offset;
        let length = self.length()?;
        let text = str::from_utf8(self.take(length)?).map_err(|_| UbjsonError::Text { offset })?;
        Ok(text.to_owned())
    }

    /// The type and the number of a list's or an object's values, where they are given.
    fn head(&mut self) -> Result<(Option<u8>, Option<usize>), UbjsonError> {
        let kind = if self.peek() == Some(b'$') { Some(self.take(2)?[1]) } else { None };
        let mut count = None;
        if self.peek() == Some(b'#') {
            self.byte()?;
            count = Some(self.length()?);
        } else if kind.is_some() {
            return Err(UbjsonError::Type { offset: self.offset });
        }
        // Values without bytes could be any number.
        if matches!(kind, Some(b'Z' | b'N' | b'T' | b'F')) {
            return Err(UbjsonError::Type { offset: self.offset });
        }
        Ok((kind, count))
    }

    fn list(&mut self, depth: usize) -> Result<Value, UbjsonError> {
        let (kind, count) = self.head()?;
        let mut values = Vec::new();
        while count.map_or_else(|| self.peek() != Some(b']'), |count| values.len() < count) {
            let kind = kind.map_or_else(|| self.byte(), Ok)?;
            values.push(self.value(kind, depth + 1)?);
        }
        if count.is_none() {
            self.byte()?;
        }
        Ok(Value::Array(values))
    }

    fn object(&mut self, depth: usize) -> Result<Value, UbjsonError> {
        let (kind, count) = self.head()?;
        let (mut fields, mut read) = (Map::new(), 0);
        while count.map_or_else(|| self.peek() != Some(b'}'), |count| read < count) {
            let name = self.text()?;
            let kind = kind.map_or_else(|| self.byte(), Ok)?;
            fields.insert(name, self.value(kind, depth + 1)?);
            read += 1;
        }
        if count.is_none() {
            self.byte()?;
        }
        Ok(Value::Object(fields))
    }
}

fn real(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_all_types_are_read() {
        let bytes = b"{i\x01a[$d#i\x02\x3f\x80\0\0\x40\0\0\0i\x01b[TFZ]U\x01cSL\0\0\0\0\0\0\0\x02hiI\0\x01d{}l\0\0\0\x01eL\xff\xff\xff\xff\xff\xff\xff\xffi\x01fD\x3f\xe0\0\0\0\0\0\0i\x01g[$U#i\x02\x01\xff}";
        let value =
            json!({"a": [1.0, 2.0], "b": [true, false, null], "c": "hi", "d": {}, "e": -1, "f": 0.5, "g": [1, 255]});
        assert_eq!(read(bytes), Ok(value));
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn rubbish_is_refused() {
        assert_eq!(read(&[b'['; 100]), Err(UbjsonError::Depth));
        assert_eq!(read(b"[$T#l\x7f\xff\xff\xff"), Err(UbjsonError::Length { offset: 4 }));
        assert_eq!(read(b"[$T#i\x00"), Err(UbjsonError::Type { offset: 6 }));
        assert_eq!(read(b"Si\xff"), Err(UbjsonError::Length { offset: 1 }));
        assert_eq!(read(b"Si\x01\xff"), Err(UbjsonError::Text { offset: 1 }));
        assert_eq!(read(b"x"), Err(UbjsonError::Type { offset: 0 }));
    }
}
