//! One page of a ring buffer: a time, the number of bytes that follow (with marks for records that were overwritten),
//! and records, each with the time since the one before.

use crate::sensor::netlink::{u32_at, u64_at};
use crate::sensor::trace::TraceRecord;
use crate::sensor::trace::format;

/// In the word with the number of bytes: records before this page were overwritten.
const MISSED: u64 = 1 << 31;
/// As well: how many stands behind the records.
const MISSED_COUNT_STORED: u64 = 1 << 30;
const LENGTH_MASK: u64 = MISSED_COUNT_STORED - 1;

const KIND_PADDING: u32 = 29;
const KIND_TIME_EXTEND: u32 = 30;
const KIND_TIME_STAMP: u32 = 31;

/// Where the parts of a page are; differs between kernels of 32 and 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PageLayout {
    length_offset: usize,
    length_size: usize,
    data_offset: usize,
}

impl PageLayout {
    /// Reads the kernel's description (`events/header_page`).
    pub(super) fn parse(description: &str) -> Option<Self> {
        let find = |name: &str| format::fields(description).find(|(other, _)| other == name).map(|(_, field)| field);
        let (length, data) = (find("commit")?, find("data")?);
        let layout = Self { length_offset: length.offset(), length_size: length.size(), data_offset: data.offset() };
        (matches!(layout.length_size, 4 | 8) && layout.length_offset == 8).then_some(layout)
    }

    /// Gives the records of a page to `take`; gives back how many were overwritten before it.
    pub(super) fn records(&self, page: &[u8], mut take: impl FnMut(TraceRecord<'_>)) -> u64 {
        self.try_records(page, &mut take).unwrap_or(0)
    }

    fn try_records(&self, page: &[u8], take: &mut impl FnMut(TraceRecord<'_>)) -> Option<u64> {
        let mut time = u64_at(page, 0)?;
        let head = match self.length_size {
            4 => u64::from(u32_at(page, self.length_offset)?),
            _ => u64_at(page, self.length_offset)?,
        };
        let length = usize::try_from(head & LENGTH_MASK).ok()?;
        let data = page.get(self.data_offset..)?;
        let mut rest = data.get(..length)?;
        while let Some((word, tail)) = split_word(rest) {
            let delta = u64::from(word >> 5);
            match word & 0x1f {
                KIND_PADDING => {
                    let (skipped, _) = split_word(tail)?;
                    // A page that ends before its end is filled with padding without a length.
                    if delta == 0 {
                        break;
                    }
                    time = time.wrapping_add(delta);
                    rest = tail.get(skipped as usize..)?;
                }
                kind @ (KIND_TIME_EXTEND | KIND_TIME_STAMP) => {
                    let (high, tail) = split_word(tail)?;
                    let long = (u64::from(high) << 27) | delta;
                    // A stamp has 59 bits; those above are as before.
                    time = if kind == KIND_TIME_EXTEND { time.wrapping_add(long) } else { (time >> 59 << 59) | long };
                    rest = tail;
                }
                kind => {
                    time = time.wrapping_add(delta);
                    let (length, tail) = match kind {
                        0 => {
                            let (length, tail) = split_word(tail)?;
                            ((length as usize).checked_sub(4)?, tail)
                        }
                        words => (words as usize * 4, tail),
                    };
                    take(TraceRecord { monotonic_ns: time, data: tail.get(..length)? });
                    rest = tail.get(length.next_multiple_of(4)..)?;
                }
            }
        }
        if head & MISSED == 0 {
            return Some(0);
        }
        let stored = if head & MISSED_COUNT_STORED != 0 { self.stored_count(data, length) } else { None };
        // Where the count did not fit, at least one was.
        Some(stored.unwrap_or(1))
    }

    fn stored_count(&self, data: &[u8], length: usize) -> Option<u64> {
        match self.length_size {
            4 => u32_at(data, length).map(u64::from),
            _ => u64_at(data, length),
        }
    }
}

fn split_word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, tail) = bytes.split_first_chunk()?;
    Some((u32::from_ne_bytes(*word), tail))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DESCRIPTION: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
                               \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
                               \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
                               \tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n";

    fn layout() -> PageLayout {
        PageLayout::parse(DESCRIPTION).unwrap()
    }

    fn page(flags: u64, words: &[u32]) -> Vec<u8> {
        let mut page = 1000_u64.to_ne_bytes().to_vec();
        page.extend_from_slice(&((words.len() as u64 * 4) | flags).to_ne_bytes());
        page.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        page
    }

    fn read(page: &[u8]) -> (Vec<(u64, Vec<u8>)>, u64) {
        let mut records = Vec::new();
        let lost = layout().records(page, |record| records.push((record.monotonic_ns, record.data.to_vec())));
        (records, lost)
    }

    #[test]
    fn the_layout_is_that_of_the_kernel() {
        let expected = PageLayout { length_offset: 8, length_size: 8, data_offset: 16 };
        assert_eq!(layout(), expected);
        let narrow = DESCRIPTION.replace("commit;\toffset:8;\tsize:8", "commit;\toffset:8;\tsize:4");
        let narrow = narrow.replace("data;\toffset:16", "data;\toffset:12");
        assert_eq!(PageLayout::parse(&narrow).unwrap().data_offset, 12);
        assert_eq!(PageLayout::parse("field: u64 timestamp;\toffset:0;\tsize:8;"), None);
    }

    #[test]
    fn records_of_every_kind_are_read() {
        let words = [
            (5 << 5) | 2,
            0xaaaa_aaaa,
            0xbbbb_bbbb,
            (1 << 5) | KIND_TIME_EXTEND,
            1,
            (7 << 5) | KIND_PADDING,
            8,
            0xdead_beef,
            (2 << 5),
            8,
            0xcccc_cccc,
            (3 << 5) | KIND_TIME_STAMP,
            2,
            (4 << 5) | 1,
            0xdddd_dddd,
            KIND_PADDING,
            0,
        ];
        let (records, lost) = read(&page(0, &words));
        assert_eq!(lost, 0);
        let after_extend = 1005 + 1 + (1 << 27);
        let stamp = (2 << 27) | 3;
        let expected = [(1005, 2), (after_extend + 7 + 2, 1), (stamp + 4, 1)];
        let seen: Vec<_> = records.iter().map(|(time, data)| (*time, data.len() / 4)).collect();
        assert_eq!(seen, expected);
        assert_eq!(records[1].1, 0xcccc_cccc_u32.to_ne_bytes());
    }

    #[test]
    fn overwritten_records_are_counted() {
        let record = [(5 << 5) | 1, 7];
        let mut with_count = page(MISSED | MISSED_COUNT_STORED, &record);
        with_count.extend_from_slice(&8321_u64.to_ne_bytes());
        assert_eq!(read(&with_count).1, 8321);
        assert_eq!(read(&page(MISSED, &record)).1, 1);
        // As a kernel 6.18 writes it, with the sign extended.
        let mut extended = page(0xffff_ffff_c000_0000, &record);
        extended.extend_from_slice(&3_u64.to_ne_bytes());
        assert_eq!(read(&extended), (vec![(1005, 7_u32.to_ne_bytes().to_vec())], 3));
    }

    proptest! {
        #[test]
        fn no_bytes_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..300), length in 0_u64..300) {
            let _ = read(&bytes);
            let mut page = bytes;
            if let Some(head) = page.get_mut(8..16) {
                head.copy_from_slice(&length.to_ne_bytes());
            }
            let (records, _) = read(&page);
            prop_assert!(records.len() <= page.len() / 4);
        }
    }
}
