//! From stored events and labels to rows.

use std::collections::BTreeMap;

use picket_common::event::Event;
use picket_common::feature::{ContextLimits, FeaturePipeline, FeatureSpec, Subject};
use picket_common::id::{Epoch, EventId, HostId};

use crate::dataset::manifest::LabelCounts;
use crate::dataset::{RowInfo, Rows};
use crate::label::{GENERATED_GROUP_PREFIX, Label, LabelRecord, Verdict};

const NANOSECONDS_PER_MINUTE: i64 = 60_000_000_000;

/// Runs stored events through the feature pipeline and keeps the vectors of labelled ones.
pub struct Replay {
    subject: Subject,
    waiting: BTreeMap<EventId, Label>,
    counts: LabelCounts,
    /// The (host, epoch) whose events are coming, and its pipeline.
    current: Option<((HostId, Epoch), FeaturePipeline)>,
    rows: Rows,
}

impl Replay {
    /// Waits for the events of these labels, which are in force.
    pub fn new(subject: Subject, labels: Vec<LabelRecord>) -> Self {
        let waiting: BTreeMap<_, _> = labels.into_iter().map(|record| (record.label.event(), record.label)).collect();
        Self {
            subject,
            counts: LabelCounts { in_force: waiting.len() as u64, ..LabelCounts::default() },
            waiting,
            current: None,
            rows: Rows::new(FeatureSpec::v1(subject).features.len()),
        }
    }

    /// The hosts and epochs whose events are needed, each with the last labelled event's sequence.
    pub fn needed(&self) -> BTreeMap<(HostId, Epoch), u64> {
        let mut needed = BTreeMap::new();
        for event in self.waiting.keys() {
            // In rising order, so the last one stays.
            needed.insert((event.host, event.key.epoch), event.key.sequence.0);
        }
        needed
    }

    /// Labels whose events have not come yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes the next event. Events come ordered by host, epoch and sequence.
    pub fn observe(&mut self, host: HostId, event: &Event) {
        let life = (host, event.key.epoch);
        let pipeline = match &mut self.current {
            Some((current, pipeline)) if *current == life => pipeline,
            current => &mut current.insert((life, FeaturePipeline::new(ContextLimits::default()))).1,
        };
        let vector = pipeline.observe(event);
        let id = EventId { host, key: event.key };
        let Some(label) = self.waiting.remove(&id) else { return };
        let Some(vector) = vector.filter(|vector| vector.subject == self.subject) else {
            self.counts.not_a_subject += 1;
            return;
        };
        let malicious = label.verdict() == Verdict::Malicious;
        let minute = vector.time.0.div_euclid(NANOSECONDS_PER_MINUTE);
        let info = RowInfo {
            event: id,
            time: vector.time,
            malicious,
            technique: label.technique().to_owned(),
            group: label.group().map_or_else(|| generated_group(host, minute, label.verdict()), str::to_owned),
        };
        self.counts.rows += 1;
        self.rows.push(info, vector.values);
    }

    /// The rows in order of time (then event), and what became of the labels.
    pub fn finish(mut self) -> (Rows, LabelCounts) {
        self.counts.event_missing = self.waiting.len() as u64;
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let info = &self.rows.info;
        order.sort_by_key(|row| (info[*row].time, info[*row].event));
        (self.rows.select(&order), self.counts)
    }
}

/// Where nobody said what a row is part of, what happened on one host within one minute under one verdict is taken for
/// one thing: neighbours in time are near-copies of each other, and must not sit on both sides of a split.
fn generated_group(host: HostId, minute: i64, verdict: Verdict) -> String {
    format!("{GENERATED_GROUP_PREFIX}{host}/{minute}/{verdict}")
}

#[cfg(test)]
mod tests {
    use picket_common::event::{ByteString, EventBody, Origin, ProcessExit, ProcessId, Timestamp};
    use picket_common::id::{EventKey, Sequence};

    use super::*;
    use crate::dataset::split::{SplitError, split};
    use crate::label::LabelParts;

    fn host(number: u8) -> HostId {
        HostId::from_random([number; 16])
    }

    fn id(host: HostId, sequence: u64) -> EventId {
        EventId { host, key: EventKey { epoch: Epoch(7), sequence: Sequence(sequence) } }
    }

    fn label(event: EventId, verdict: Verdict, group: &str) -> LabelRecord {
        let parts = LabelParts { event, verdict, technique: "", group, source: "" };
        LabelRecord { label_id: 1, label: Label::new(parts).unwrap(), author: String::new(), created: Timestamp(0) }
    }

    fn exit(sequence: u64) -> Event {
        let process = ProcessId { pid: 1, start_time: Timestamp(0) };
        let executable = ByteString::from("/bin/true");
        let body =
            ProcessExit { process, executable, exit_code: Some(0), signal: None, duration_ns: None, cpu_time_ns: None };
        let key = id(host(1), sequence).key;
        Event { key, time: Timestamp(1), origin: Origin::Replay, body: EventBody::ProcessExit(body) }
    }

    #[test]
    fn every_label_is_accounted_for() {
        let labels = vec![
            label(id(host(1), 3), Verdict::Benign, "work"),
            label(id(host(1), 9), Verdict::Benign, "work"),
            label(id(host(2), 0), Verdict::Malicious, "attack"),
        ];
        let mut replay = Replay::new(Subject::ProcessStart, labels);
        assert_eq!(replay.needed(), [((host(1), Epoch(7)), 9), ((host(2), Epoch(7)), 0)].into());
        for sequence in 0..6 {
            replay.observe(host(1), &exit(sequence));
        }
        assert_eq!(replay.waiting(), 2);
        let (rows, counts) = replay.finish();
        // An exit is no subject; the other two events never came.
        assert_eq!(counts, LabelCounts { in_force: 3, rows: 0, not_a_subject: 1, event_missing: 2 });
        assert_eq!(split(&rows, 0.3), Err(SplitError::NoRows));
    }

    #[test]
    fn rows_of_nobodys_group_are_taken_together_by_the_minute() {
        let benign = generated_group(host(1), 5, Verdict::Benign);
        assert_ne!(benign, generated_group(host(1), 6, Verdict::Benign));
        assert_ne!(benign, generated_group(host(2), 5, Verdict::Benign));
        assert_ne!(benign, generated_group(host(1), 5, Verdict::Malicious));
        // Nobody can give such a name.
        let parts =
            LabelParts { group: &benign, event: id(host(1), 0), verdict: Verdict::Benign, technique: "", source: "" };
        assert!(Label::new(parts).is_err());
    }
}
