//! Takes fields from a model file, checked one by one.

use crate::feature::MISSING;
use crate::model::error::{ModelError, Section};
use crate::model::limits;

/// The sections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Imputation,
    Trees,
    Linear,
    SelfTest,
    Boosting,
    Steps,
    Network,
    Kernel,
    Calibration,
    Isolation,
}

impl Tag {
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Imputation => 1,
            Self::Trees => 2,
            Self::Linear => 3,
            Self::SelfTest => 4,
            Self::Boosting => 5,
            Self::Steps => 16,
            Self::Network => 17,
            Self::Kernel => 18,
            Self::Calibration => 19,
            Self::Isolation => 20,
        }
    }

    pub(super) fn section(self) -> Section {
        match self {
            Self::Imputation => Section::Imputation,
            Self::Trees => Section::Trees,
            Self::Linear => Section::Linear,
            Self::SelfTest => Section::SelfTest,
            Self::Boosting | Self::Isolation => Section::Trees,
            Self::Steps => Section::Steps,
            Self::Network => Section::Network,
            Self::Kernel => Section::Kernel,
            Self::Calibration => Section::Calibration,
        }
    }
}

/// Takes fields from the front of one part of the file.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    /// Where `rest` begins in the file.
    offset: usize,
    section: Section,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(content: &'a [u8]) -> Self {
        Self { rest: content, offset: 0, section: Section::Header }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(ModelError::Truncated { section: self.section, offset: self.offset + self.rest.len() })?;
        self.rest = tail;
        self.offset += N;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ModelError> {
        Ok(self.array::<1>()?[0])
    }

    /// Where the next field is, in bytes from the start of the file.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// All that is left.
    pub(super) fn take_rest(&mut self) -> &'a [u8] {
        self.offset += self.rest.len();
        std::mem::take(&mut self.rest)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ModelError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ModelError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn f32(&mut self) -> Result<f32, ModelError> {
        self.array().map(f32::from_le_bytes)
    }

    pub(super) fn f64(&mut self) -> Result<f64, ModelError> {
        self.array().map(f64::from_le_bytes)
    }

    /// A feature value: finite, or missing in its one bit pattern.
    pub(super) fn value(&mut self) -> Result<f32, ModelError> {
        let value = self.f32()?;
        if value.is_finite() || value.to_bits() == MISSING.to_bits() {
            Ok(value)
        } else {
            Err(self.malformed("a value is neither finite nor the canonical NaN"))
        }
    }

    pub(super) fn coefficient(&mut self) -> Result<f64, ModelError> {
        let value = self.f64()?;
        if value.abs() <= limits::COEFFICIENT_MAX {
            Ok(value)
        } else {
            Err(self.malformed("a coefficient is not a number or too large"))
        }
    }

    pub(super) fn count(&mut self, what: &'static str, min: usize, max: usize) -> Result<usize, ModelError> {
        let count = self.u32()? as usize;
        if count < min {
            return Err(self.malformed("a count is zero"));
        }
        if count > max {
            return Err(limit(what, count, max, self.section));
        }
        Ok(count)
    }

    pub(super) fn peek_tag(&self) -> Option<u32> {
        self.rest.first_chunk::<4>().map(|tag| u32::from_le_bytes(*tag))
    }

    /// The next section, which must be this one.
    pub(super) fn section(&mut self, tag: Tag) -> Result<Self, ModelError> {
        self.section = tag.section();
        if self.u32()? != tag.code() {
            return Err(self.malformed("another section was expected here"));
        }
        let length = self.u32()? as usize;
        self.need(length)?;
        let (content, tail) = self.rest.split_at(length);
        let section = Self { rest: content, offset: self.offset, section: self.section };
        self.rest = tail;
        self.offset += length;
        Ok(section)
    }

    pub(super) fn need(&self, bytes: usize) -> Result<(), ModelError> {
        if self.rest.len() >= bytes {
            Ok(())
        } else {
            Err(ModelError::Truncated { section: self.section, offset: self.offset + self.rest.len() })
        }
    }

    pub(super) fn expect_remaining(&self, bytes: usize) -> Result<(), ModelError> {
        self.need(bytes)?;
        if self.rest.len() == bytes { Ok(()) } else { Err(self.malformed("the section is longer than its content")) }
    }

    pub(super) fn finish(&self, section: Section) -> Result<(), ModelError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(ModelError::Malformed { section, offset: self.offset, what: "bytes are left over" })
        }
    }

    pub(super) fn malformed(&self, what: &'static str) -> ModelError {
        ModelError::Malformed { section: self.section, offset: self.offset, what }
    }
}

pub(super) fn limit(what: &'static str, count: usize, limit: usize, section: Section) -> ModelError {
    ModelError::Limit { what, count: count as u64, limit: limit as u64, section }
}
