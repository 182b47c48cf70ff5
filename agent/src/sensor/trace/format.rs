//! The kernel's description of trace records (`events/GROUP/NAME/format`).

/// Where the fields of a record are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordFormat {
    /// The number that records of this event begin with.
    id: u16,
    fields: Vec<(String, Field)>,
}

/// One field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    offset: usize,
    size: usize,
}

impl RecordFormat {
    /// Reads a description. `None` when there is no number or no field in it.
    pub(crate) fn parse(description: &str) -> Option<Self> {
        let id = description.lines().find_map(|line| line.strip_prefix("ID:"))?.trim().parse().ok()?;
        let fields: Vec<_> = fields(description).collect();
        (!fields.is_empty()).then_some(Self { id, fields })
    }

    /// Whether a record is of this event.
    pub(crate) fn is_of(&self, record: &[u8]) -> bool {
        record.first_chunk().is_some_and(|id| u16::from_ne_bytes(*id) == self.id)
    }

    /// The field with a name, if it has the given size.
    pub(crate) fn field(&self, name: &str, size: usize) -> Option<Field> {
        self.fields.iter().find(|(other, field)| other == name && field.size == size).map(|(_, field)| *field)
    }
}

impl Field {
    /// The field's bytes in a record.
    pub(crate) fn bytes<const SIZE: usize>(self, record: &[u8]) -> Option<[u8; SIZE]> {
        record.get(self.offset..)?.first_chunk().copied()
    }

    /// The field as a number of two bytes.
    pub(crate) fn u16(self, record: &[u8]) -> Option<u16> {
        self.bytes(record).map(u16::from_ne_bytes)
    }

    /// The field as a number of four bytes.
    pub(crate) fn u32(self, record: &[u8]) -> Option<u32> {
        self.bytes(record).map(u32::from_ne_bytes)
    }

    /// The field as a number of eight bytes.
    pub(crate) fn u64(self, record: &[u8]) -> Option<u64> {
        self.bytes(record).map(u64::from_ne_bytes)
    }

    /// The text that a field of four bytes points to: offset and, in the upper half, length with a final NUL.
    pub(crate) fn text(self, record: &[u8]) -> Option<&[u8]> {
        let location = self.u32(record)?;
        let (offset, length) = ((location & 0xffff) as usize, (location >> 16) as usize);
        let text = record.get(offset..offset + length)?;
        text.split(|&byte| byte == 0).next()
    }
}

/// The fields in a description: `field:TYPE NAME; offset:N; size:N; signed:N;`.
pub(super) fn fields(description: &str) -> impl Iterator<Item = (String, Field)> {
    description.lines().filter_map(|line| {
        let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
        let declaration = parts.next()?;
        let mut number = |key: &str| parts.next()?.strip_prefix(key)?.parse().ok();
        let (offset, size) = (number("offset:")?, number("size:")?);
        let name = declaration.rsplit(' ').next()?;
        let name = name.split_once('[').map_or(name, |(name, _)| name);
        Some((name.to_owned(), Field { offset, size }))
    })
}

impl Field {
    pub(super) fn offset(self) -> usize {
        self.offset
    }

    pub(super) fn size(self) -> usize {
        self.size
    }
}
