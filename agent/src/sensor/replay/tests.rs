#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::PathBuf;

use picket_common::event::{
    Connection, ConnectionClose, ConnectionOutcome, Direction, LossReason, LossStage, ProcessExit, Protocol, SensorLoss,
};
use picket_common::id::{Epoch, EventKey, Sequence};

use super::*;
use crate::sensor::SensorConfig;
use crate::sensor::test_sink::TestSink;

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

fn event(sequence: u64, time: i64, body: EventBody) -> Event {
    let key = EventKey { epoch: Epoch(1), sequence: Sequence(sequence) };
    Event { key, time: Timestamp(time), origin: Origin::AgentNetlink, body }
}

fn exit(pid: u32) -> EventBody {
    EventBody::ProcessExit(ProcessExit {
        process: ProcessId { pid, start_time: Timestamp(5) },
        executable: "/bin/true".into(),
        exit_code: Some(0),
        signal: None,
        duration_ns: Some(7),
        cpu_time_ns: None,
    })
}

fn failed_connection() -> EventBody {
    EventBody::ConnectionClose(Box::new(ConnectionClose {
        connection: Connection {
            cookie: 9,
            protocol: Protocol::Tcp,
            direction: Direction::Outbound,
            local: "10.0.0.1:4000".parse().unwrap(),
            remote: "10.0.0.2:80".parse().unwrap(),
            process: None,
            executable: Default::default(),
            user_id: None,
            cgroup_id: None,
        },
        bytes_sent: None,
        bytes_received: None,
        segments_sent: None,
        segments_received: None,
        duration_ns: None,
        outcome: ConnectionOutcome::Failed,
    }))
}

fn recording() -> Vec<Event> {
    let loss = SensorLoss { stage: LossStage::Sensor, reason: LossReason::QueueFull, count: 3, epoch: Epoch(1) };
    vec![event(0, 1000, exit(70)), event(1, 1500, EventBody::SensorLoss(loss)), event(2, 4000, failed_connection())]
}

struct Played {
    sink: TestSink,
    set: crate::sensor::SensorSet,
    _folder: tempfile::TempDir,
}

fn config(path: PathBuf) -> ReplayConfig {
    ReplayConfig {
        path,
        events_per_second: 0,
        loops: 1,
        stop_after_events: 0,
        time: ReplayTime::Original,
        number_pids: false,
    }
}

fn try_to_play(lines: &[u8], set_up: impl FnOnce(&mut ReplayConfig)) -> Result<Played, SensorError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    File::create(&path).unwrap().write_all(lines).unwrap();
    let mut replay = config(path);
    set_up(&mut replay);
    let sensors = SensorConfig { replay: Some(replay), ..SensorConfig::all_off() };
    let sink = TestSink::default();
    let set = crate::sensor::start(&sensors, sink.context())?;
    Ok(Played { sink, set, _folder: folder })
}

fn lines(events: &[Event]) -> Vec<u8> {
    events.iter().flat_map(|event| format!("{}\n", json::to_json(event)).into_bytes()).collect()
}

fn play(set_up: impl FnOnce(&mut ReplayConfig)) -> Played {
    try_to_play(&lines(&recording()), set_up).unwrap()
}

impl Played {
    fn wait_for(&self, count: usize) -> Vec<crate::sensor::Observation> {
        self.sink
            .wait_for("replayed events", |observations| (observations.len() >= count).then(|| observations.to_vec()))
    }

    fn wait_for_the_end(&self) {
        self.sink.wait_for("end of the replay", |_| (!self.set.status()[0].running).then_some(()));
    }
}

#[test]
fn a_recording_is_played_as_it_is_without_what_an_agent_said_of_itself() {
    let played = play(|_| {});
    played.wait_for_the_end();
    let observations = played.sink.observations();
    let expected = [(Timestamp(1000), exit(70)), (Timestamp(4000), failed_connection())];
    assert_eq!(observations.len(), 2);
    for (observation, (time, body)) in observations.into_iter().zip(expected) {
        assert_eq!((observation.time, observation.origin, observation.body), (time, Origin::Replay, body));
    }
    assert_eq!((played.set.modes[0].origin, played.set.status()[0].events_total), (Origin::Replay, 2));
}

#[test]
fn times_can_be_moved_to_now() {
    let before = now();
    let played = play(|config| (config.time, config.loops) = (ReplayTime::Shifted, 2));
    let times: Vec<i64> = played.wait_for(4).iter().map(|observation| observation.time.0).collect();
    assert!(times[0] >= before.0 && times[2] >= times[0]);
    assert_eq!((times[1] - times[0], times[3] - times[2]), (3000, 3000));
}

#[test]
fn events_can_be_numbered_and_their_count_limited() {
    let played = play(|config| (config.number_pids, config.loops, config.stop_after_events) = (true, 0, 7));
    played.wait_for_the_end();
    let pids: Vec<u32> = (played.sink.observations().iter())
        .map(|observation| match &observation.body {
            EventBody::ProcessExit(exit) => exit.process.pid,
            EventBody::ConnectionClose(close) => close.connection.process.unwrap().pid,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pids, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn the_rate_is_kept_and_an_endless_replay_can_be_stopped() {
    let begin = Instant::now();
    let played = play(|config| (config.events_per_second, config.loops) = (200, 0));
    played.wait_for(41);
    let seconds = begin.elapsed().as_secs_f64();
    assert!(seconds >= 0.2, "41 events at 200 a second took {seconds} s");
    assert_eq!(played.set.stop_and_join(STOP_TIMEOUT), Vec::<&str>::new());
}

#[test]
fn a_damaged_recording_is_refused_with_its_line() {
    let good = lines(&recording());
    for (damage, expected) in [(&b"{}\n"[..], "line 4: "), (b"nonsense", "line 4: "), (b"\n\n{", "line 6: ")] {
        let error = try_to_play(&[&good[..], damage].concat(), |_| {}).err().unwrap();
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert!(text.starts_with(expected), "{text}");
    }
    let long = vec![b' '; usize::try_from(LINE_BYTES_MAX).unwrap() + 1];
    assert!(try_to_play(&long, |_| {}).is_err());
    assert!(try_to_play(b"\n", |_| {}).is_err());
    assert!(try_to_play(&good, |config| config.path.push("missing")).is_err());
}
