//! A round: as many records of the write-ahead log as one commit takes, as rows of each table.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use picket_common::batch;
use picket_common::event::{Event, EventBody, EventClass, Timestamp};
use picket_common::id::HostId;

use super::rows::{RowBuilder, host_text};
use crate::wal::{StoredRecord, WalCursor, WalPosition};

/// Most rows of a round.
pub const ROUND_ROWS_MAX: usize = 200_000;
/// Memory of a round's events from which on no more are added, in bytes; one batch may exceed it.
pub const ROUND_BYTES_MAX: usize = 96 * 1024 * 1024;

/// What one round puts into the tables.
pub(super) struct Round {
    pub(super) tables: BTreeMap<EventClass, ClassRows>,
    /// After the last record of the round.
    pub(super) after: WalCursor,
    /// Records whose batch could not be decoded. It could when it was accepted, so this is a defect.
    pub(super) undecodable: u64,
}

/// The rows for one table.
pub(super) struct ClassRows {
    pub(super) rows: RecordBatch,
    /// How many of them are of each host.
    pub(super) hosts: BTreeMap<HostId, u64>,
}

/// A decoded record.
struct Decoded {
    position: WalPosition,
    received: Timestamp,
    host: HostId,
    events: Vec<Event>,
}

/// Decodes records, oldest first, until the round is full. `applied` tells which records each table has already.
pub(super) fn prepare(
    records: &[StoredRecord],
    start: WalCursor,
    applied: &BTreeMap<EventClass, WalPosition>,
) -> Result<Round, ArrowError> {
    let mut decoded = Vec::new();
    let mut round = Round { tables: BTreeMap::new(), after: start, undecodable: 0 };
    let mut rows = 0;
    let mut bytes = 0;
    for record in records {
        if rows >= ROUND_ROWS_MAX || bytes >= ROUND_BYTES_MAX {
            break;
        }
        round.after = record.after;
        match batch::decode(&record.frame) {
            Ok((_, events)) => {
                rows += events.len();
                bytes += events.iter().map(memory_bytes).sum::<usize>();
                let StoredRecord { position, received, host, .. } = *record;
                decoded.push(Decoded { position, received, host, events });
            }
            Err(error) => {
                round.undecodable += 1;
                tracing::error!(position = record.position.0, host = %record.host, %error, "skipping a batch that cannot be decoded");
            }
        }
    }
    round.tables = build_tables(decoded, applied)?;
    Ok(round)
}

/// Files sorted by host, epoch and sequence let readers skip most of them, and compress better.
fn build_tables(
    mut decoded: Vec<Decoded>,
    applied: &BTreeMap<EventClass, WalPosition>,
) -> Result<BTreeMap<EventClass, ClassRows>, ArrowError> {
    decoded.sort_by_cached_key(|record| (record.host, record.events.first().map(|event| event.key)));
    let mut builders: BTreeMap<EventClass, (RowBuilder, BTreeMap<HostId, u64>)> = BTreeMap::new();
    for Decoded { position, received, host, events } in decoded {
        let text = host_text(host);
        for event in events {
            let class = event.body.class();
            if applied.get(&class).is_some_and(|applied| position < *applied) {
                continue;
            }
            let (builder, hosts) = builders.entry(class).or_insert_with(|| (RowBuilder::new(class), BTreeMap::new()));
            builder.push(&text, received, &event);
            *hosts.entry(host).or_default() += 1;
        }
    }
    builders
        .into_iter()
        .map(|(class, (mut builder, hosts))| Ok((class, ClassRows { rows: builder.finish()?, hosts })))
        .collect()
}

/// About how much memory an event takes.
fn memory_bytes(event: &Event) -> usize {
    // What a box and the values in it take at most; strings are measured.
    let body = match &event.body {
        EventBody::ProcessStart(_) | EventBody::ConnectionOpen(_) | EventBody::ConnectionClose(_) => 320,
        _ => 128,
    };
    let strings = event.size().map_or(0, |size| size.string_bytes + size.strings * 32);
    size_of::<Event>() + body + strings
}
