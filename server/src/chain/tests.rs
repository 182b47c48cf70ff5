#![allow(clippy::unwrap_used)]

use picket_common::chain::{beginning, link};
use picket_common::id::{BatchSequence, Digest};

use super::report::report;
use super::*;

/// Batches of one epoch as an agent writes them.
struct Writer {
    head: ChainHead,
    previous_epoch: u64,
    lost: Vec<LostSpan>,
}

impl Writer {
    fn new(epoch: u64, before: Option<&Writer>) -> Self {
        let before = before.map(|writer| writer.head);
        let head = ChainHead { epoch: Epoch(epoch), batches: 0, link: beginning(Epoch(epoch), before.as_ref()) };
        Self { head, previous_epoch: before.map_or(0, |head| head.epoch.0), lost: Vec::new() }
    }

    fn write(&mut self) -> (ChainPlace, Vec<u8>) {
        let frame = format!("{}/{}", self.head.epoch.0, self.head.batches).into_bytes();
        let batches_lost = self.lost.iter().map(|span| span.batches).sum();
        let sequence = BatchSequence(self.head.batches);
        let place = ChainPlace { sequence, previous: self.head.link, batches_lost };
        self.head.link = link(self.head.epoch, &place, &frame);
        self.head.batches += 1;
        (place, frame)
    }

    fn stated(&self) -> StatedEpoch {
        StatedEpoch { head: self.head, previous_epoch: self.previous_epoch, lost: self.lost.clone() }
    }
}

/// The server's side.
#[derive(Default)]
struct Seen {
    known: HostChain,
    stored: BTreeSet<(u64, u64)>,
}

impl Seen {
    fn store(&mut self, epoch: u64, (place, frame): &(ChainPlace, Vec<u8>)) {
        self.stored.insert((epoch, place.sequence.0));
        self.known.epochs.entry(epoch).or_default().insert(Epoch(epoch), place, frame);
    }

    fn state(&mut self, writers: &[&Writer], oldest: (u64, u64)) {
        let heads = writers.iter().map(|writer| writer.stated()).collect();
        self.known.state(&Statement { heads, oldest }, UnixSeconds(5));
    }

    fn report(&self, epoch: u64) -> EpochReport {
        let seen = &self.known.epochs[&epoch];
        let stored: Vec<_> =
            self.stored.iter().filter(|(other, _)| *other == epoch).map(|(_, batch)| (*batch, *batch)).collect();
        let before = seen.head.as_ref().and_then(|head| self.known.epochs.get(&head.previous_epoch));
        report(epoch, seen, &stored, 0, before, self.known.epochs.range(..epoch).next().is_none())
    }
}

/// A host whose first statement came when nothing had been written.
fn seen(writer: &Writer) -> Seen {
    let mut seen = Seen::default();
    seen.state(&[writer], (writer.head.epoch.0, 0));
    seen
}

#[test]
fn batches_in_any_order_make_one_chain() {
    let mut writer = Writer::new(7, None);
    let mut seen = seen(&writer);
    let batches: Vec<_> = (0..20).map(|_| writer.write()).collect();
    for at in [3, 1, 0, 2, 19, 17, 18, 4, 10, 12, 11, 5, 6, 9, 8, 7, 16, 13, 15, 14] {
        seen.store(7, &batches[at]);
    }
    seen.state(&[&writer], (7, 20));
    let report = seen.report(7);
    assert_eq!((report.batches, report.stored, report.verified, report.waiting), (20, 20, 20, 0));
    assert!(report.missing.is_empty() && report.altered.is_empty() && !report.begins_anew, "{report:?}");
}

#[test]
fn a_removed_batch_is_named_once_nothing_older_waits() {
    let mut writer = Writer::new(7, None);
    let mut seen = seen(&writer);
    let batches: Vec<_> = (0..10).map(|_| writer.write()).collect();
    for (at, batch) in batches.iter().enumerate() {
        if !(4..=6).contains(&at) {
            seen.store(7, batch);
        }
    }
    seen.state(&[&writer], (7, 3));
    assert!(seen.report(7).missing.is_empty(), "they may still wait");
    seen.state(&[&writer], (7, 10));
    let report = seen.report(7);
    assert_eq!(report.missing, [Missing { first: 4, last: 6, batches: 3 }]);
    assert_eq!((report.stored, report.verified, report.waiting), (7, 7, 0));
}

#[test]
fn the_end_of_an_epoch_cannot_be_cut_off_unseen() {
    let mut first = Writer::new(7, None);
    let mut seen = seen(&first);
    let batches: Vec<_> = (0..5).map(|_| first.write()).collect();
    let mut second = Writer::new(8, Some(&first));
    let next = second.write();
    batches[..3].iter().for_each(|batch| seen.store(7, batch));
    seen.store(8, &next);
    seen.state(&[&first, &second], (8, 0));
    assert_eq!(seen.report(7).missing, [Missing { first: 3, last: 4, batches: 2 }]);
    let report = seen.report(8);
    assert!(report.missing.is_empty() && !report.begins_anew, "{report:?}");
}

#[test]
fn declared_losses_are_not_missing_and_more_than_declared_is() {
    let mut writer = Writer::new(7, None);
    let mut seen = seen(&writer);
    let batches: Vec<_> = (0..10).map(|_| writer.write()).collect();
    for at in [0, 5, 9] {
        seen.store(7, &batches[at]);
    }
    writer.lost = vec![LostSpan { first: 1, last: 4, batches: 4 }, LostSpan { first: 6, last: 8, batches: 3 }];
    seen.state(&[&writer], (7, 10));
    let report = seen.report(7);
    assert_eq!((report.declared_lost, report.missing.len(), report.waiting), (7, 0, 0));
    // The same with spans that had to be joined: 7 of 1 to 8 were lost, which is what is not there.
    let joined = |batches| LostSpan { first: 1, last: 8, batches };
    let epoch = |lost| {
        let mut chain = EpochChain::default();
        chain.state((&StatedEpoch { head: writer.head, previous_epoch: 0, lost }).into(), 5);
        chain.settled = 10;
        chain
    };
    let of = |lost| report::report(7, &epoch(lost), &[(0, 0), (5, 5), (9, 9)], 0, None, true).missing;
    assert_eq!(of(vec![joined(7)]), []);
    assert_eq!(of(vec![joined(5)]), [Missing { first: 1, last: 8, batches: 2 }]);
    // A later statement with a shorter list does not take anything back.
    writer.lost.truncate(1);
    seen.state(&[&writer], (7, 10));
    assert_eq!(seen.report(7).declared_lost, 7);
}

#[test]
fn a_changed_batch_breaks_the_chain_at_its_place() {
    let mut writer = Writer::new(7, None);
    let mut seen = seen(&writer);
    let mut batches: Vec<_> = (0..5).map(|_| writer.write()).collect();
    batches[2].1 = b"something else".to_vec();
    batches.iter().for_each(|batch| seen.store(7, batch));
    seen.state(&[&writer], (7, 5));
    assert_eq!(seen.report(7).altered, [3], "it does not continue what came as batch 2");
    // The last one has no successor; the statement tells.
    let mut writer = Writer::new(8, None);
    let mut batch = writer.write();
    batch.1 = b"something else".to_vec();
    let mut seen = self::seen(&Writer::new(8, None));
    seen.store(8, &batch);
    seen.state(&[&writer], (8, 1));
    assert_eq!(seen.report(8).altered, [0]);
}

#[test]
fn an_epoch_that_does_not_continue_the_one_before_is_told() {
    let mut first = Writer::new(7, None);
    let mut seen = seen(&first);
    seen.store(7, &first.write());
    // The state folder was made anew: the agent knows of nothing before.
    let mut anew = Writer::new(8, None);
    seen.store(8, &anew.write());
    seen.state(&[&first, &anew], (8, 1));
    assert!(seen.report(8).begins_anew);
    // It continues another end of epoch 7 than the one that was stated.
    let mut other = Writer::new(7, None);
    other.write();
    other.write();
    let mut forked = Writer::new(9, Some(&other));
    seen.store(9, &forked.write());
    seen.state(&[&first, &forked], (9, 1));
    assert!(seen.report(9).begins_anew);
}

#[test]
fn what_was_written_before_the_host_was_enrolled_is_not_judged() {
    let mut writer = Writer::new(7, None);
    let batches: Vec<_> = (0..10).map(|_| writer.write()).collect();
    let mut seen = Seen::default();
    // The first six were delivered when the machine was another host.
    seen.state(&[&writer], (7, 6));
    batches[6..9].iter().for_each(|batch| seen.store(7, batch));
    seen.state(&[&writer], (7, 10));
    assert_eq!(seen.report(7).missing, [Missing { first: 9, last: 9, batches: 1 }]);
}

#[test]
fn numbers_that_were_never_written_leave_the_chain_whole() {
    let mut writer = Writer::new(7, None);
    let mut seen = seen(&writer);
    seen.store(7, &writer.write());
    // The disk did not take batches 1 and 2.
    writer.lost.push(LostSpan { first: 1, last: 2, batches: 2 });
    writer.head.batches = 3;
    seen.store(7, &writer.write());
    seen.state(&[&writer], (7, 4));
    let report = seen.report(7);
    assert_eq!((report.batches, report.stored, report.declared_lost, report.verified), (4, 2, 2, 2));
    assert!(report.missing.is_empty() && report.altered.is_empty(), "{report:?}");
}

#[test]
fn what_is_kept_is_bounded_and_survives_its_text() {
    let mut chain = EpochChain::default();
    for sequence in (0..1_000).step_by(2) {
        let place = ChainPlace { sequence: BatchSequence(sequence), previous: Digest::of(b"x"), batches_lost: 0 };
        chain.insert(Epoch(7), &place, b"frame");
    }
    assert_eq!(chain.verified(), RUNS_MAX as u64);
    chain.state((&Writer::new(7, None).stated()).into(), 9);
    let text = serde_json::to_string(&chain).unwrap();
    assert_eq!(serde_json::from_str::<EpochChain>(&text).unwrap(), chain);
}
