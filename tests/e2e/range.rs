//! The attack range by itself: it plays what it planned and knows what it did.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use picket_tests::range::Round;
use picket_tests::range::plan::{Plan, Size};
use picket_tests::range::player::Range;
use picket_tests::range::truth::GroundTruth;

fn play(round: Round, size: Size) -> GroundTruth {
    let folder = tempfile::tempdir().unwrap();
    let range = Range::build(crate::support::executable(), folder.path()).unwrap();
    let services = range.start_services().unwrap();
    let plan = Plan::generate(5, round, size);
    range.play(&plan, &services, &AtomicBool::new(false), &|_| ()).unwrap()
}

fn check(round: Round) {
    let size = Size { duration: Duration::from_secs(6), attacks_per_kind: 3, benign_per_kind: 1 };
    let truth = play(round, size);
    let failed = truth.instances.iter().filter_map(|instance| Some((&instance.id, instance.failure.as_ref()?)));
    let failed: Vec<_> = failed.collect();
    assert!(failed.is_empty(), "{failed:?}");
    for instance in &truth.instances {
        assert!(!instance.roots.is_empty(), "{}", instance.id);
        assert!(instance.started_unix_ns < instance.ended_unix_ns, "{}", instance.id);
    }
    let scan = truth.instances.iter().find(|instance| instance.style == "random").unwrap();
    assert!(scan.connections.iter().any(|record| record.established), "a scan finds the services");
    assert!(scan.connections.iter().any(|record| !record.established), "a scan meets closed ports");
    assert!(scan.connections.iter().all(|record| record.local.port() > 0));
}

#[test]
fn round_one_plays_as_planned() {
    check(Round::One);
}

#[test]
fn round_two_plays_as_planned() {
    check(Round::Two);
}

#[test]
fn a_stopped_range_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let range = Range::build(crate::support::executable(), folder.path()).unwrap();
    let services = range.start_services().unwrap();
    let plan = Plan::generate(5, Round::One, Size::of(Round::One));
    let stop = AtomicBool::new(true);
    let truth = range.play(&plan, &services, &stop, &|_| ()).unwrap();
    assert!(truth.instances.is_empty());
}
