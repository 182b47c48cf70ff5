use std::time::{Duration, SystemTime, UNIX_EPOCH};

use picket_common::event::{LossReason, LossStage};
use picket_common::id::Epoch;

use super::*;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::spool::{OpenedSpool, Spool, SpoolPaths};
use crate::status::collect::degraded;
use crate::uplink::UplinkPhase;

fn healthy() -> Snapshot {
    Snapshot {
        uplink: UplinkStatus { phase: UplinkPhase::Connected, ..UplinkStatus::default() },
        sensors: vec![SensorReport {
            name: "process".to_owned(),
            mode: "netlink".to_owned(),
            running: true,
            ..SensorReport::default()
        }],
        ..Snapshot::default()
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn every_reason_to_worry_is_named() {
    assert_eq!(degraded(&healthy(), at(100)), Vec::<String>::new());
    let reasons = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = healthy();
        change(&mut snapshot);
        degraded(&snapshot, at(100)).join("; ")
    };
    let offline = |since, error: &str| {
        let error = error.to_owned();
        reasons(&move |snapshot| {
            snapshot.uplink.phase = UplinkPhase::BackingOff;
            snapshot.uplink.since_unix_s = since;
            snapshot.uplink.last_error.clone_from(&error);
        })
    };
    assert!(offline(0, "refused").contains("not connected to the server: refused"));
    assert!(offline(99, "refused").contains("refused"));
    assert_eq!(offline(99, ""), "", "a moment without a connection is nothing to worry about");
    assert!(reasons(&|snapshot| snapshot.uplink.phase = UplinkPhase::NotEnrolled).contains("not enrolled"));
    assert!(reasons(&|snapshot| snapshot.events_lost = [("a/b".to_owned(), 7)].into()).contains("7 events"));
    assert!(reasons(&|snapshot| snapshot.buffer.stores_set_aside = 1).contains("damaged"));
    assert!(reasons(&|snapshot| snapshot.pipeline.batches_given_up = 1).contains("does not take"));
    assert!(reasons(&|snapshot| snapshot.sensors[0].running = false).contains("process sensor has ended"));
    let model = ModelReport { subject: "connection".into(), last_error: "bad".into(), ..ModelReport::default() };
    assert!(reasons(&|snapshot| snapshot.active_models.push(model.clone())).contains("connection: bad"));
}

#[test]
fn a_killed_agents_numbers_come_from_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let paths = SpoolPaths::in_state_dir(dir.path());
    let config = crate::buffer::BufferConfig::in_sled(1 << 20);
    let OpenedSpool { spool, mut ledger, epoch, .. } = Spool::open(&paths, config, 5).unwrap();
    let lock = AgentLock::take(dir.path()).unwrap().unwrap();
    assert!(AgentLock::take(dir.path()).unwrap().is_none(), "one agent on a state folder");
    assert!(matches!(read(dir.path()), Err(ReadError::NoAgent { .. })));
    let snapshot = Snapshot { epoch: epoch.0, pid: 1, ..healthy() };
    StatusFile::create(dir.path()).unwrap().write(&snapshot).unwrap();
    assert!(read(dir.path()).unwrap().is_running);

    for _ in 0..9 {
        ledger.accept(1);
    }
    ledger.report(LossStage::Sensor, LossReason::QueueFull, 4);
    drop((lock, spool, ledger));
    let reading = read(dir.path()).unwrap();
    assert!(!reading.is_running);
    assert_eq!(Ledger::read(&paths.ledger).unwrap().unwrap().epoch, Epoch(5));
    let report = &reading.snapshot.epochs[0];
    assert_eq!((report.accepted, report.sensor_lost, report.generated, report.in_flight), (9, 4, 13, 9));
    assert_eq!(reading.snapshot.events_accepted, 9);
    assert_eq!(reading.snapshot.events_lost.get("sensor/queue_full"), Some(&4));
    let text = print::table(&reading);
    assert!(text.contains("not running") && text.contains("sensor/queue_full: 4"), "{text}");
}

#[test]
fn a_status_for_people_does_not_let_others_control_the_terminal() {
    let mut snapshot = healthy();
    snapshot.sensors[0].reason = "\u{1b}[2Jgone".to_owned();
    snapshot.degraded = vec!["\u{7}bell".to_owned()];
    let text = print::table(&file::Reading { snapshot, is_running: true });
    assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text}");
}

#[test]
fn a_status_reads_back_what_it_wrote_and_older_ones_too() {
    let snapshot = healthy();
    let text = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    assert_eq!(serde_json::from_str::<Snapshot>("{}").unwrap(), Snapshot::default());
}

#[test]
fn the_agents_own_cost_is_measured() {
    let mut cost = OwnCost::new();
    let first = cost.read();
    assert!(first.resident_bytes > 1_000_000 && first.resident_bytes_peak >= first.resident_bytes, "{first:?}");
    let ballast = vec![1_u8; 32 << 20];
    let second = cost.read();
    assert!(second.resident_bytes_peak >= first.resident_bytes_peak.max(ballast.len() as u64));
}

#[test]
fn what_the_agent_costs_is_no_news() {
    let before = healthy();
    let later = Snapshot {
        time_unix_ns: before.time_unix_ns + 1,
        cpu_seconds: before.cpu_seconds + 1.0,
        resident_bytes_peak: before.resident_bytes_peak + 1,
        ..before.clone()
    };
    assert!(later.says_the_same(&before));
    assert!(!Snapshot { alerts_total: before.alerts_total + 1, ..later }.says_the_same(&before));
}
