//! Tests of the batch's inner parts; those of its interface are in `tests/it`.

use super::columns::{Column, ColumnReader, ColumnWriter, DeltaReader, DeltaWriter};
use super::varint;
use super::version::Version;

#[test]
fn columns_have_the_names_and_numbers_of_the_proto() {
    let proto = include_str!("../../../proto/picket/v1/batch.proto");
    let fields: Vec<&str> = proto.lines().filter_map(|line| line.trim().strip_suffix(';')).skip(2).collect();
    let columns = (1..).zip(Column::ALL).map(|(number, column)| format!("{} = {number}", column.name()));
    let columns: Vec<String> = columns.collect();
    assert_eq!(fields.len(), columns.len());
    for (field, column) in fields.iter().zip(&columns) {
        assert!(field.ends_with(&format!(" {column}")), "{field} is not {column}");
    }
}

/// Writes values as differences from the one before; returns them as read back, and the column's length.
fn deltas(values: &[i64]) -> (Vec<i64>, usize) {
    let mut columns = ColumnWriter::new();
    let mut writer = DeltaWriter::new();
    let mut last = 0;
    for &value in values {
        writer.put(value, last);
        last = value;
    }
    // Writing again replaces what was written.
    writer.write_to(&mut columns, Column::EventTimes);
    writer.write_to(&mut columns, Column::EventTimes);
    assert!(columns.bytes() <= writer.bytes());
    let mut payload = Vec::new();
    columns.write_to(&mut payload);

    let mut columns_read = ColumnReader::new(&payload, Version::LATEST).unwrap();
    let mut reader = DeltaReader::default();
    let mut last = 0;
    let mut read = Vec::new();
    for _ in values {
        last = reader.take(&mut columns_read, Column::EventTimes, last).unwrap();
        read.push(last);
    }
    columns_read.finish().unwrap();
    (read, columns.column(Column::EventTimes).len())
}

#[test]
fn differences_take_few_bytes_in_their_common_unit() {
    let ticks: Vec<i64> = (0..100).map(|tick| 1_763_850_000_123_456_789 + tick * tick % 50 * 10_000_000).collect();
    let (read, bytes) = deltas(&ticks);
    assert_eq!(read, ticks);
    assert!(bytes < 2 * varint::VARINT_BYTES_MAX + 100, "{bytes}");
}

#[test]
fn differences_of_all_sizes_are_read_back() {
    for values in [
        vec![],
        vec![0],
        vec![7, 7, 7],
        vec![i64::MIN, i64::MAX, 0, i64::MIN, i64::MIN],
        vec![0, i64::MIN, 0, i64::MIN],
        vec![i64::MAX, -1, i64::MAX],
        vec![5, 8, 2, -1, 1_000_000_007],
    ] {
        assert_eq!(deltas(&values).0, values);
    }
}
