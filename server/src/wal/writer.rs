//! The one thread that writes: many records, one fdatasync, many answers.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use picket_common::id::{BatchSequence, Epoch, HostId};
use tokio::sync::{mpsc, oneshot};

use super::dedupe::Seen;
use super::folder::SegmentFile;
use super::segment::{RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::{Appended, Shared, WalError, WalPosition};
use crate::clock::unix_nanoseconds;

/// Most frame bytes that go into one write.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) type Answer = oneshot::Sender<Result<Appended, WalError>>;

pub(super) enum Request {
    Append(Incoming, Answer),
    SkipTo(WalPosition, oneshot::Sender<Result<(), WalError>>),
}

/// A record whose position is not decided yet: its header says 0.
pub(super) struct Incoming {
    pub(super) header: RecordHeader,
    pub(super) frame: Bytes,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    active: ActiveSegment,
    group: Group,
    buffer: Vec<u8>,
    /// Why nothing is written any more.
    poisoned: Option<Arc<str>>,
}

/// The segment that grows.
pub(super) struct ActiveSegment {
    pub(super) file: SegmentFile,
    pub(super) path: PathBuf,
    pub(super) first_position: u64,
    /// Bytes that are durable. What lies behind is not part of the log.
    pub(super) length: u64,
}

/// Records that share one fdatasync.
#[derive(Default)]
struct Group {
    records: Vec<(Incoming, Answer)>,
    /// Those that repeat a record of this group: they are answered when it is durable.
    repeated: Vec<Answer>,
    keys: HashSet<(HostId, Epoch, BatchSequence)>,
    bytes: usize,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, requests: mpsc::Receiver<Request>, active: ActiveSegment) -> Self {
        Self { shared, requests, active, group: Group::default(), buffer: Vec::new(), poisoned: None }
    }

    /// Runs until every sender is gone, and everything they sent is answered.
    pub(super) fn run(mut self) {
        while let Some(first) = self.requests.blocking_recv() {
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Append(incoming, answer) => self.admit(incoming, answer),
                    Request::SkipTo(position, answer) => {
                        self.flush();
                        // The caller may be gone.
                        drop(answer.send(self.skip_to(position)));
                    }
                }
                next = if self.group.bytes < GROUP_BYTES_MAX { self.requests.try_recv().ok() } else { None };
            }
            self.flush();
        }
    }

    /// Puts a record into the group, unless it is stored already.
    fn admit(&mut self, incoming: Incoming, answer: Answer) {
        let RecordHeader { host, epoch, batch_sequence, .. } = incoming.header;
        let seen = self.shared.index.read().lookup(host, epoch, batch_sequence);
        match seen {
            Seen::Stored => {
                self.shared.counters.duplicates.fetch_add(1, Ordering::Relaxed);
                drop(answer.send(Ok(Appended::Duplicate)));
            }
            Seen::Unknown => drop(answer.send(Err(WalError::TooOld { host, epoch, batch_sequence }))),
            Seen::Never if self.group.keys.insert((host, epoch, batch_sequence)) => {
                self.group.bytes += RECORD_HEADER_BYTES + incoming.frame.len();
                self.group.records.push((incoming, answer));
            }
            Seen::Never => self.group.repeated.push(answer),
        }
    }

    /// Makes the group durable and answers everybody in it.
    fn flush(&mut self) {
        if self.group.records.is_empty() {
            return;
        }
        let mut group = std::mem::take(&mut self.group);
        match self.store(&mut group) {
            Ok(()) => {
                self.publish(&group);
                let duplicates = group.repeated.len() as u64;
                self.shared.counters.duplicates.fetch_add(duplicates, Ordering::Relaxed);
                for (incoming, answer) in group.records {
                    drop(answer.send(Ok(Appended::Stored(WalPosition(incoming.header.position)))));
                }
                for answer in group.repeated {
                    drop(answer.send(Ok(Appended::Duplicate)));
                }
            }
            Err(error) => {
                self.shared.counters.refused.fetch_add(group.records.len() as u64, Ordering::Relaxed);
                for answer in group.records.into_iter().map(|(_, answer)| answer).chain(group.repeated) {
                    drop(answer.send(Err(error.clone())));
                }
            }
        }
    }

    /// Writes and syncs. On an error nothing of the group is in the log.
    fn store(&mut self, group: &mut Group) -> Result<(), WalError> {
        self.check()?;
        let room = self.shared.config.segment_bytes.saturating_sub(self.active.length);
        if group.bytes as u64 > room && self.active.length > SEGMENT_HEADER_BYTES as u64 {
            self.begin_segment(self.shared.end().position.0)?;
        }
        self.buffer.clear();
        for (position, (incoming, _)) in (self.shared.end().position.0..).zip(&mut group.records) {
            incoming.header.position = position;
            self.buffer.extend_from_slice(&incoming.header.encode(&self.shared.log_id));
            self.buffer.extend_from_slice(&incoming.frame);
        }
        let length = self.active.length;
        if let Err(error) = self.active.file.write_at(&self.buffer, length) {
            if let Err(cut) = self.active.file.truncate(length) {
                self.poison(&format!("cannot take back a failed write: {cut}"));
            }
            return Err(WalError::io("append to", &self.active.path, error));
        }
        if let Err(error) = self.active.file.sync() {
            self.poison(&format!("cannot sync {}: {error}", self.active.path.display()));
            // The kernel may have dropped the pages and call them clean: take the records out of sight, so that they
            // are not believed when the log is opened again. Best effort, the disk is failing.
            drop(self.active.file.truncate(length));
        }
        self.check()?;
        self.active.length += self.buffer.len() as u64;
        // One giant group must not keep its memory for ever.
        self.buffer.shrink_to(GROUP_BYTES_MAX);
        Ok(())
    }

    /// Makes the group known: to deduplication first, so that a snapshot never lists less than the end it states.
    fn publish(&self, group: &Group) {
        let mut index = self.shared.index.write();
        for (incoming, _) in &group.records {
            let RecordHeader { host, epoch, batch_sequence, .. } = incoming.header;
            index.insert(host, epoch, batch_sequence);
        }
        drop(index);
        self.shared.segments.lock().insert(self.active.first_position, self.active.length);
        let records = group.records.len() as u64;
        let frame_bytes: u64 = group.records.iter().map(|(incoming, _)| incoming.frame.len() as u64).sum();
        let counters = &self.shared.counters;
        counters.records.fetch_add(records, Ordering::Relaxed);
        counters.frame_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.shared.end.send_modify(|end| {
            end.position.0 += records;
            end.bytes += frame_bytes;
        });
    }

    fn skip_to(&mut self, position: WalPosition) -> Result<(), WalError> {
        self.check()?;
        if position <= self.shared.end().position {
            return Ok(());
        }
        self.begin_segment(position.0)?;
        self.shared.end.send_modify(|end| end.position = position);
        Ok(())
    }

    fn begin_segment(&mut self, first_position: u64) -> Result<(), WalError> {
        let header = SegmentHeader {
            log_id: self.shared.log_id,
            first_position,
            previous_end: self.shared.end().position.0,
            created_unix_ns: unix_nanoseconds(),
        };
        self.active = ActiveSegment::create(&self.shared, &header)?;
        Ok(())
    }

    fn check(&self) -> Result<(), WalError> {
        match &self.poisoned {
            None => Ok(()),
            Some(cause) => Err(WalError::Poisoned { cause: cause.clone() }),
        }
    }

    fn poison(&mut self, cause: &str) {
        tracing::error!(cause, "the write-ahead log takes no more records: its disk failed");
        self.shared.counters.poisoned.store(true, Ordering::Relaxed);
        self.poisoned = Some(cause.into());
    }
}

impl ActiveSegment {
    /// Begins a segment and makes it known to readers.
    pub(super) fn create(shared: &Shared, header: &SegmentHeader) -> Result<Self, WalError> {
        let file = shared.folder.create_segment(header)?;
        shared.segments.lock().insert(header.first_position, SEGMENT_HEADER_BYTES as u64);
        Ok(Self {
            file,
            path: shared.folder.segment_path(header.first_position),
            first_position: header.first_position,
            length: SEGMENT_HEADER_BYTES as u64,
        })
    }
}
