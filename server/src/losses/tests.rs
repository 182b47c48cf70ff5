#![allow(clippy::unwrap_used)]

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

fn account() -> EpochAccount {
    EpochAccount {
        epoch: 7,
        accepted: 90,
        sensor_lost: 10,
        delivered: 50,
        waiting: 20,
        in_flight: 5,
        lost: [("sensor/queue_full".to_owned(), 10), ("buffer/buffer_full".to_owned(), 15)].into(),
    }
}

fn seen(stored: u64, announced: &[(&str, &str, u64)]) -> Seen {
    let announced =
        announced.iter().map(|(stage, reason, count)| (((*stage).to_owned(), (*reason).to_owned()), *count)).collect();
    Seen { stored, announced }
}

fn balanced(seen: &Seen) -> EpochLosses {
    balance(HostId::from_random([1; 16]), &account(), NOW, seen)
}

#[test]
fn everything_is_found_when_the_report_and_the_rows_are_of_one_moment() {
    let losses = balanced(&seen(50, &[("sensor", "queue_full", 10)]));
    assert_eq!((losses.generated, losses.stored, losses.waiting, losses.in_flight), (100, 50, 20, 5));
    assert_eq!(losses.unaccounted, 0);
    let queue = losses.lost.iter().find(|loss| loss.stage == "sensor").unwrap();
    assert_eq!((queue.events, queue.announced), (10, 10));
    let full = losses.lost.iter().find(|loss| loss.stage == "buffer").unwrap();
    assert_eq!((full.events, full.announced), (15, 0));
}

#[test]
fn what_arrived_since_the_report_is_not_waiting_any_more() {
    let losses = balanced(&seen(62, &[]));
    assert_eq!((losses.waiting, losses.unaccounted), (8, 0));
    // More than there was when it was reported: the report is old, nothing is missing.
    let losses = balanced(&seen(500, &[]));
    assert_eq!((losses.waiting, losses.unaccounted), (0, 0));
}

#[test]
fn what_was_acknowledged_and_is_not_there_is_unaccounted() {
    assert_eq!(balanced(&seen(47, &[])).unaccounted, 3);
}

#[test]
fn an_epoch_without_a_report_shows_what_is_known() {
    let losses = without_account(HostId::from_random([1; 16]), 7, &seen(30, &[("pipeline", "agent_killed", 4)]));
    assert_eq!((losses.generated, losses.stored, losses.unaccounted, losses.reported), (34, 30, 0, None));
}
