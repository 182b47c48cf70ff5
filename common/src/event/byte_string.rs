//! Bytes that came from a host.

use std::fmt;

use crate::event::limits::STRING_BYTES_MAX;

/// Opaque bytes from a host (a path, an argument, a name), at most [`STRING_BYTES_MAX`] long.
///
/// Shown escaped, so that control bytes, terminal sequences and invalid UTF-8 never reach a terminal or a page; the
/// escape is reversible: a backslash becomes `\\`, each byte of an invalid, control, reordering or invisible character
/// becomes `\xNN`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteString(Box<[u8]>);

impl ByteString {
    /// Takes at most [`STRING_BYTES_MAX`] bytes; what follows is cut.
    pub fn truncated(bytes: &[u8]) -> Self {
        Self(bytes[..bytes.len().min(STRING_BYTES_MAX)].into())
    }

    /// Takes all bytes, or none when there are more than [`STRING_BYTES_MAX`].
    pub fn exact(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= STRING_BYTES_MAX).then(|| Self(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there are none, which means "unknown".
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reads what [`fmt::Display`] wrote. `None` for a malformed escape or a string that is too long.
    pub fn unescape(text: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            if first != b'\\' {
                bytes.push(first);
                rest = tail;
                continue;
            }
            match tail {
                [b'\\', tail @ ..] => {
                    bytes.push(b'\\');
                    rest = tail;
                }
                [b'x', high, low, tail @ ..] => {
                    let digit = |byte: &u8| char::from(*byte).to_digit(16);
                    bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                    rest = tail;
                }
                _ => return None,
            }
        }
        Self::exact(&bytes)
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        Self::truncated(text.as_bytes())
    }
}

impl From<&[u8]> for ByteString {
    fn from(bytes: &[u8]) -> Self {
        Self::truncated(bytes)
    }
}

/// Controls (C0, DEL, C1), line separators, marks that reorder text on a screen, and characters that show nothing.
fn is_escaped(character: char) -> bool {
    character == '\\'
        || character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
                | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
}

impl fmt::Display for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            let mut rest = chunk.valid();
            while let Some((index, character)) = rest.char_indices().find(|&(_, character)| is_escaped(character)) {
                f.write_str(&rest[..index])?;
                rest = &rest[index + character.len_utf8()..];
                if character == '\\' {
                    f.write_str("\\\\")?;
                } else {
                    write_hex(f, character.encode_utf8(&mut [0; 4]).as_bytes())?;
                }
            }
            f.write_str(rest)?;
            write_hex(f, chunk.invalid())?;
        }
        Ok(())
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
