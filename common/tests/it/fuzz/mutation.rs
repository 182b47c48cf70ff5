//! Files in parts, changed and put together again.

use ed25519_dalek::{Signer as _, SigningKey};
use picket_common::id::Digest;

/// Checksum, key id and signature.
pub(super) const TRAILER_BYTES: usize = 32 + 32 + 64;
/// Fixed fields at the start of a model.
const HEADER_BYTES: usize = 161;
/// Where a model's header has the feature count, and the hash of the specification.
const FEATURES_AT: usize = 12;
const SPEC_HASH_AT: usize = 16;
const SELF_TEST_TAG: u32 = 4;
/// Magic and version of a table model, before the length of the preparation.
const TABLE_HEAD_BYTES: usize = 10;
const TABLE_MAGIC: &[u8] = b"PKTTABLE";

/// SplitMix64 (Steele, Lea, Flood, 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below a bound above zero.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn choice<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// A file in parts, each without its length.
#[derive(Clone)]
pub(super) struct Input {
    /// What comes before the model in a table model, without the length of the preparation.
    table: Option<[Vec<u8>; 2]>,
    header: Vec<u8>,
    sections: Vec<(u32, Vec<u8>)>,
    /// What does not form a section.
    rest: Vec<u8>,
}

impl Input {
    /// Takes a file apart, as far as it has parts.
    pub(super) fn new(file: &[u8]) -> Self {
        let mut table = None;
        let mut model = file;
        if let Some((head, rest)) = file.split_at_checked(TABLE_HEAD_BYTES).filter(|_| file.starts_with(TABLE_MAGIC)) {
            let (length, rest) = take_u32(rest);
            let (preparation, rest) = rest.split_at(rest.len().min(length as usize));
            table = Some([head.to_vec(), preparation.to_vec()]);
            model = rest;
        }
        let content = &model[..model.len().saturating_sub(TRAILER_BYTES)];
        let (header, mut rest) = content.split_at(content.len().min(HEADER_BYTES));
        let mut sections = Vec::new();
        while rest.len() >= 8 {
            let (tag, after) = take_u32(rest);
            let (length, after) = take_u32(after);
            let Some((section, after)) = after.split_at_checked(length as usize) else { break };
            sections.push((tag, section.to_vec()));
            rest = after;
        }
        Self { table, header: header.to_vec(), sections, rest: rest.to_vec() }
    }

    /// A changed copy; pieces of `other` may come into it.
    pub(super) fn mutated(&self, other: &Self, random: &mut Random) -> Self {
        let mut mutated = self.clone();
        for _ in 0..1 + random.next().trailing_zeros().min(4) {
            mutated.mutate(other, random);
        }
        mutated
    }

    fn mutate(&mut self, other: &Self, random: &mut Random) {
        let sections = self.sections.len();
        match random.below(16) {
            0 => mutate_part(&mut self.header, &other.header, random),
            1 => mutate_part(&mut self.rest, &other.rest, random),
            2 if sections > 1 => self.sections.swap(random.below(sections), random.below(sections)),
            3 if sections > 0 => drop(self.sections.remove(random.below(sections))),
            4 if !other.sections.is_empty() => {
                let place = random.below(sections + 1);
                self.sections.insert(place, random.choice(&other.sections).clone());
            }
            5 if sections > 0 => self.sections[random.below(sections)].0 = random.below(12) as u32,
            6 | 7 if self.table.is_some() => {
                let Some([head, preparation]) = &mut self.table else { return };
                let from = other.table.as_ref().map_or(&[][..], |[_, preparation]| preparation);
                mutate_part(if random.below(8) == 0 { head } else { preparation }, from, random);
            }
            _ if sections > 0 => {
                let (tag, section) = &mut self.sections[random.below(sections)];
                let from = other.sections.iter().find(|(other, _)| other == tag);
                mutate_part(section, from.map_or(&[], |(_, section)| section), random);
            }
            _ => {}
        }
    }

    /// The file, with lengths, hashes and checksum that fit; its signature does not.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut head = Vec::new();
        let mut content = self.header.clone();
        if let Some([start, preparation]) = &self.table {
            head.extend(start);
            head.extend((preparation.len() as u32).to_le_bytes());
            head.extend(preparation);
            if let Some(hash) = content.get_mut(SPEC_HASH_AT..SPEC_HASH_AT + 32) {
                hash.copy_from_slice(Digest::of(&head).as_bytes());
            }
        }
        for (tag, section) in &self.sections {
            content.extend(tag.to_le_bytes());
            content.extend((section.len() as u32).to_le_bytes());
            content.extend(section);
        }
        content.extend(&self.rest);
        let checksum = Digest::of(&content);
        head.extend(content);
        head.extend(checksum.as_bytes());
        head.extend([0; TRAILER_BYTES - 32]);
        head
    }

    /// The same with this score for a row of the self-test.
    pub(super) fn with_score(&self, bytes: &[u8], row: usize, score_bits: u64) -> Vec<u8> {
        let mut changed = Self::new(bytes);
        let features = changed.header.get(FEATURES_AT..).map_or(0, |rest| take_u32(rest).0 as usize);
        let at = 4 + row * (4 * features + 8) + 4 * features;
        let section = changed.sections.iter_mut().rfind(|(tag, _)| *tag == SELF_TEST_TAG);
        if let Some(score) = section.and_then(|(_, section)| section.get_mut(at..at + 8)) {
            score.copy_from_slice(&score_bits.to_le_bytes());
        }
        changed.bytes()
    }

    /// The same with a valid signature.
    pub(super) fn signed(&self, bytes: &[u8], key: &SigningKey) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let model_at = match &self.table {
            Some([head, preparation]) => head.len() + 4 + preparation.len(),
            None => 0,
        };
        let signed = bytes.len() - 96;
        bytes.truncate(signed);
        bytes.extend(Digest::of(key.verifying_key().as_bytes()).as_bytes());
        let signature = key.sign(&bytes[model_at..]);
        bytes.extend(signature.to_bytes());
        bytes
    }
}

fn take_u32(bytes: &[u8]) -> (u32, &[u8]) {
    bytes.split_first_chunk().map_or((0, &[]), |(number, rest)| (u32::from_le_bytes(*number), rest))
}

const NUMBERS: [u32; 12] = [0, 1, 2, 3, 7, 64, 255, 256, 4096, 1_000_000, i32::MAX as u32, u32::MAX];
const FLOATS: [f64; 10] = [0.0, -0.0, 1.0, 0.5, -1.0, 1e6, 1e39, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE];

fn mutate_part(part: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    if part.is_empty() {
        part.extend(other);
        return;
    }
    let at = random.below(part.len());
    let length = 1 + random.below(part.len() - at).min(random.below(64));
    match random.below(10) {
        0 | 1 => part[at] ^= 1 << random.below(8),
        2 => part[at] = random.next() as u8,
        3 => put(part, at, &random.choice(&NUMBERS).to_le_bytes()),
        // Counts stand at the front.
        4 => {
            let at = 4 * random.below(4);
            let number = part.get(at..).map_or(0, |rest| take_u32(rest).0);
            put(part, at, &number.wrapping_add(random.below(5) as u32).wrapping_sub(2).to_le_bytes());
        }
        5 => {
            let number = *random.choice(&FLOATS);
            if random.below(2) == 0 {
                put(part, at, &number.to_le_bytes());
            } else {
                put(part, at, &(number as f32).to_le_bytes());
            }
        }
        6 => drop(part.drain(at..at + length)),
        7 => {
            let copy = part[at..at + length].to_vec();
            part.splice(at..at, copy);
        }
        8 if !other.is_empty() => {
            let from = random.below(other.len());
            let length = 1 + random.below(other.len() - from).min(random.below(64));
            let end = (at + length).min(part.len());
            part.splice(at..end, other[from..from + length].iter().copied());
        }
        _ => shift_bits(part, at, random.below(8), random.below(2) == 0),
    }
}

fn put(part: &mut [u8], at: usize, number: &[u8]) {
    if let Some(place) = part.get_mut(at..at + number.len()) {
        place.copy_from_slice(number);
    }
}

/// Puts a bit in, or takes one out, before a place; the bits behind it move.
fn shift_bits(part: &mut [u8], at: usize, bit: usize, insert: bool) {
    let get = |part: &[u8], bit: usize| part.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1);
    let set = |part: &mut [u8], bit: usize, one: bool| {
        part[bit / 8] = part[bit / 8] & !(1 << (bit % 8)) | u8::from(one) << (bit % 8);
    };
    let (first, end) = (8 * at + bit, 8 * part.len());
    if insert {
        for bit in (first + 1..end).rev() {
            let one = get(part, bit - 1);
            set(part, bit, one);
        }
    } else {
        for bit in first..end {
            let one = get(part, bit + 1);
            set(part, bit, one);
        }
    }
}
