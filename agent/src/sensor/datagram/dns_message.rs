//! DNS messages (RFC 1035), read from bytes that anybody may have sent.
//!
//! Strict and bounded: one question, names of at most [`NAME_BYTES_MAX`], pointers that lead backwards only, no more
//! records than fit into the message. What follows a record that cannot be read is not looked at. Nothing here panics
//! or loops, whatever the bytes are.

use std::net::{Ipv4Addr, Ipv6Addr};

use picket_common::event::ByteString;
use picket_common::event::limits::DNS_ANSWERS_MAX;

/// Longest name as it travels, the last zero included.
const NAME_BYTES_MAX: usize = 255;
/// Longest label.
const LABEL_BYTES_MAX: usize = 63;
/// Where the question begins.
const HEADER_BYTES: usize = 12;
/// Type, class, time to live and length of a record.
const RECORD_HEAD_BYTES: usize = 10;
/// Most bytes of an answer of a type that has no text here: they are shown in hexadecimal.
const OPAQUE_BYTES_MAX: usize = 256;

const IS_RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const IS_TRUNCATED: u16 = 0x0200;
const RESPONSE_CODE: u16 = 0x000f;

/// Types of records.
const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const DNAME: u16 = 39;
const OPT: u16 = 41;

/// A query, or a response to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DnsMessage {
    pub(super) transaction_id: u16,
    pub(super) is_response: bool,
    /// Extended bits included.
    pub(super) response_code: u16,
    /// With dots, without the last one.
    pub(super) name: ByteString,
    pub(super) query_type: u16,
    /// As text, at most [`DNS_ANSWERS_MAX`].
    pub(super) answers: Vec<ByteString>,
    /// There are more answers, or some could not be read.
    pub(super) answers_truncated: bool,
}

impl DnsMessage {
    /// Reads a message, or the beginning of one. `None` for what is no query and no response to one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |number: usize| u16_at(bytes, 2 * number);
        let flags = word(1)?;
        let (questions, answers) = (word(2)?, word(3)?);
        let others = u32::from(word(4)?) + u32::from(word(5)?);
        if flags & OPCODE != 0 || questions != 1 {
            return None;
        }
        let (name, after_name) = read_name(bytes, HEADER_BYTES)?;
        let query_type = u16_at(bytes, after_name)?;
        // The class.
        u16_at(bytes, after_name + 2)?;
        let mut message = Self {
            transaction_id: word(0)?,
            is_response: flags & IS_RESPONSE != 0,
            response_code: flags & RESPONSE_CODE,
            name: ByteString::truncated(&name),
            query_type,
            answers: Vec::new(),
            answers_truncated: flags & IS_TRUNCATED != 0,
        };
        if message.is_response {
            message.read_records(bytes, after_name + 4, answers, others);
        }
        Some(message)
    }

    fn read_records(&mut self, bytes: &[u8], mut at: usize, answers: u16, others: u32) {
        for number in 0..u32::from(answers) + others {
            let is_answer = number < u32::from(answers);
            let Some(record) = Record::read(bytes, at) else {
                self.answers_truncated |= is_answer;
                return;
            };
            at = record.end;
            if !is_answer {
                if record.kind == OPT {
                    self.response_code |= u16::from(record.time_to_live[0]) << 4;
                }
            } else if self.answers.len() < DNS_ANSWERS_MAX {
                self.answers.push(record.text(bytes));
            } else {
                self.answers_truncated = true;
            }
        }
    }
}

/// A resource record, as far as it is needed.
struct Record {
    kind: u16,
    time_to_live: [u8; 4],
    data: usize,
    end: usize,
}

impl Record {
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let (_, head) = read_name(bytes, at)?;
        let data = head + RECORD_HEAD_BYTES;
        let end = data + usize::from(u16_at(bytes, head + 8)?);
        if end > bytes.len() {
            return None;
        }
        let time_to_live = *bytes.get(head + 4..)?.first_chunk()?;
        Some(Self { kind: u16_at(bytes, head)?, time_to_live, data, end })
    }

    fn text(&self, bytes: &[u8]) -> ByteString {
        let data = bytes.get(self.data..self.end).unwrap_or_default();
        let name_at = |offset: usize| {
            let (name, end) = read_name(bytes, self.data + offset)?;
            (end <= self.end).then_some(name)
        };
        let numbers = |count: usize| {
            let number = |index: usize| u16_at(data, 2 * index).map(|number| number.to_string());
            Some((0..count).map(number).collect::<Option<Vec<_>>>()?.join(" "))
        };
        let with_numbers = |count: usize| {
            let mut text = numbers(count)?.into_bytes();
            text.push(b' ');
            text.extend(name_at(2 * count)?);
            Some(text)
        };
        let text = match self.kind {
            A => <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).to_string().into_bytes()),
            AAAA => <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).to_string().into_bytes()),
            NS | CNAME | PTR | DNAME => name_at(0),
            MX => with_numbers(1),
            SRV => with_numbers(3),
            TXT => strings(data),
            _ => None,
        };
        ByteString::truncated(&text.unwrap_or_else(|| opaque(data)))
    }
}

/// The strings of a TXT record, one after the other.
fn strings(mut data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(data.len());
    while let Some((&length, rest)) = data.split_first() {
        text.extend_from_slice(rest.get(..usize::from(length))?);
        data = rest.get(usize::from(length)..)?;
    }
    Some(text)
}

/// Data of any type, as RFC 3597 writes it.
fn opaque(data: &[u8]) -> Vec<u8> {
    let shown = &data[..data.len().min(OPAQUE_BYTES_MAX)];
    format!("\\# {} {}", data.len(), data_encoding::HEXLOWER.encode(shown)).into_bytes()
}

/// Reads the name at `at`: with dots, without the last one, and where what follows it begins.
fn read_name(bytes: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut name, mut travelled) = (Vec::new(), 1);
    let (mut next, mut end) = (at, None);
    // A pointer must lead before whatever was read so far: so there is an end to it.
    let mut before = at;
    loop {
        let length = usize::from(*bytes.get(next)?);
        match length {
            0 => return Some((name, end.unwrap_or(next + 1))),
            1..=LABEL_BYTES_MAX => {
                let label = bytes.get(next + 1..next + 1 + length)?;
                travelled += 1 + length;
                if travelled > NAME_BYTES_MAX {
                    return None;
                }
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend_from_slice(label);
                next += 1 + length;
            }
            0xc0.. => {
                let target = usize::from(u16_at(bytes, next)? & 0x3fff);
                if target >= before {
                    return None;
                }
                end = end.or(Some(next + 2));
                (before, next) = (target, target);
            }
            // Reserved.
            _ => return None,
        }
    }
}

/// The number at an offset, in network order.
fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
