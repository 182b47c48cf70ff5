use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use picket_common::event::{
    Connection, ConnectionClose, ConnectionOutcome, Direction, EventBody, FileAction, FileActivity, Origin,
    ProcessExit, ProcessId, ProcessStart, Protocol, StreamKind, Timestamp,
};
use proptest::prelude::*;

use super::connections::{HOLD, WINDOW};
use super::control::BudgetControl;
use super::governor::{Governor, Usage};
use super::ladder::{Ceilings, LadderState, Measured, RECOVERY_FACTOR_MAX, decide};
use super::meter::{Meter, Reading};
use super::rung::{BudgetCause, BudgetRung, BudgetStep};
use super::shaper::{Shaped, Shaper};
use super::*;
use crate::pipeline::changes::Changes;
use crate::sensor::Observation;

const CEILINGS: Ceilings = Ceilings {
    cpu_milliseconds_per_second: 100,
    resident_bytes: 1_000_000,
    disk_write_bytes_per_second: 5_000,
    window_ms: 2_000,
    recovery_ms: 10_000,
};

fn measured(cpu: u64) -> Measured {
    Measured { is_whole: true, cpu_milliseconds_per_second: cpu, resident_bytes: 1, disk_write_bytes_per_second: 1 }
}

/// Plays a load, one measurement a second; gives the rungs stepped on, with the second.
fn play(state: &mut LadderState, from_s: u64, cpu: impl IntoIterator<Item = u64>) -> Vec<(u64, BudgetRung)> {
    let mut steps = Vec::new();
    for (second, cpu) in (from_s..).zip(cpu) {
        let (next, step) = decide(&measured(cpu), state, &CEILINGS, second * 1_000);
        *state = next;
        if let Some(step) = step {
            assert_eq!(step.from.place().abs_diff(step.to.place()), 1, "one rung at a time");
            steps.push((second, step.to));
        }
    }
    steps
}

#[test]
fn too_much_goes_down_rung_by_rung_and_quiet_comes_back() {
    let mut state = LadderState::default();
    let down = play(&mut state, 0, [101; 10]);
    let rungs: Vec<_> = down.iter().map(|(_, rung)| *rung).collect();
    assert_eq!(rungs, &BudgetRung::ALL[1..]);
    let up = play(&mut state, 100, [70; 60]);
    let expected = [
        (110, BudgetRung::SampleExecs),
        (120, BudgetRung::AggregateConnections),
        (130, BudgetRung::DropFileEvents),
        (140, BudgetRung::Normal),
    ];
    assert_eq!(up, expected);
}

#[test]
fn between_calm_and_ceiling_nothing_changes() {
    let mut state = LadderState::default();
    assert_eq!(play(&mut state, 0, [100; 100]), []);
    assert_eq!(play(&mut state, 100, [101]).len(), 1);
    assert_eq!(play(&mut state, 200, [71; 1_000]), []);
    // A busy second in between begins the wait anew.
    assert_eq!(play(&mut state, 2_000, [70, 70, 70, 70, 70, 70, 70, 70, 90, 70, 70]), []);
}

#[test]
fn a_window_that_is_not_whole_takes_nobody_down_or_up() {
    let part = Measured { is_whole: false, ..measured(1_000) };
    let (state, step) = decide(&part, &LadderState::default(), &CEILINGS, 5_000);
    assert_eq!((state, step), (LadderState::default(), None));
}

#[test]
fn the_resource_furthest_above_its_ceiling_is_named() {
    let much = Measured {
        is_whole: true,
        cpu_milliseconds_per_second: 150,
        resident_bytes: 3_000_000,
        disk_write_bytes_per_second: 5_000,
    };
    let (_, step) = decide(&much, &LadderState::default(), &CEILINGS, 0);
    assert_eq!((step.unwrap().cause, step.unwrap().ceiling), (BudgetCause::Memory, 1_000_000));
    let none = Ceilings { cpu_milliseconds_per_second: 0, resident_bytes: 0, ..CEILINGS };
    assert_eq!(decide(&much, &LadderState::default(), &none, 0).1, None, "0 is no ceiling");
}

/// Plays a load until a step is taken; gives the second of it.
fn until_step(state: &mut LadderState, from_s: u64, cpu: u64) -> u64 {
    for second in from_s..from_s + 10_000 {
        let (next, step) = decide(&measured(cpu), state, &CEILINGS, second * 1_000);
        *state = next;
        if step.is_some() {
            return second;
        }
    }
    panic!("no step")
}

#[test]
fn load_that_comes_back_makes_the_wait_longer_and_long_quiet_forgets_it() {
    let mut state = LadderState::default();
    let (mut now, mut waits) = (0, Vec::new());
    for _ in 0..7 {
        let calm_from = until_step(&mut state, now, 200) + 1;
        let up = until_step(&mut state, calm_from, 10);
        waits.push(up - calm_from);
        now = up + 1;
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 160, 160]);
    assert_eq!(play(&mut state, now, vec![10; 2_000]), []);
    let calm_from = until_step(&mut state, now + 2_000, 200) + 1;
    assert_eq!(until_step(&mut state, calm_from, 10) - calm_from, 10);
}

proptest! {
    #[test]
    fn whatever_is_measured_steps_are_single_and_a_calm_agent_ends_on_the_top_rung(
        loads in prop::collection::vec((0_u64..400, 0_u64..2_000_000, any::<bool>()), 0..200),
    ) {
        let mut state = LadderState::default();
        let mut now = 0;
        for (cpu, memory, is_whole) in loads {
            now += 1_000;
            let load = Measured { is_whole, cpu_milliseconds_per_second: cpu, resident_bytes: memory, disk_write_bytes_per_second: 0 };
            let (next, step) = decide(&load, &state, &CEILINGS, now);
            prop_assert_eq!((next, step), decide(&load, &state, &CEILINGS, now), "a pure function");
            match step {
                Some(step) => {
                    prop_assert_eq!(step.from.place().abs_diff(step.to.place()), 1);
                    prop_assert_eq!((step.from, step.to), (state.rung, next.rung));
                    prop_assert_eq!(step.cause == BudgetCause::Recovered, step.to < step.from);
                }
                None => prop_assert_eq!(state.rung, next.rung),
            }
            state = next;
        }
        let rest = u64::from(RECOVERY_FACTOR_MAX) * 4 * 10 + 10;
        play(&mut state, now / 1_000 + 1, vec![0; rest as usize]);
        prop_assert_eq!(state.rung, BudgetRung::Normal);
    }
}

#[test]
fn a_meter_measures_over_its_window() {
    let mut meter = Meter::default();
    let reading = |at_ms, cpu_ms, disk| Reading { at_ms, cpu_ms, resident_bytes: 7, disk_written_bytes: disk };
    let first = meter.measure(reading(0, 500, 1_000), 2_000);
    assert_eq!(first, Measured { resident_bytes: 7, ..Measured::default() });
    assert!(!meter.measure(reading(1_000, 600, 3_000), 2_000).is_whole);
    let whole = meter.measure(reading(2_000, 700, 5_000), 2_000);
    assert_eq!(
        (whole.is_whole, whole.cpu_milliseconds_per_second, whole.disk_write_bytes_per_second),
        (true, 100, 2_000)
    );
    // What is older than the window does not count any more.
    assert_eq!(meter.measure(reading(3_000, 700, 5_000), 2_000).cpu_milliseconds_per_second, 50);
    meter.restart();
    let anew = meter.measure(reading(4_000, 1_700, 5_000), 2_000);
    assert_eq!((anew.is_whole, anew.cpu_milliseconds_per_second), (false, 1_000));
}

#[test]
fn the_governor_puts_steps_into_force_and_says_so() {
    let changes = Arc::new(Changes::default());
    let config = BudgetConfig { resident_bytes_max: 100, window_ms: 0, recovery_ms: 0, ..BudgetConfig::default() };
    let control = Arc::new(BudgetControl::new(config, Arc::clone(&changes)));
    let mut governor = Governor::new(Arc::clone(&control));
    let usage = Usage { cpu_seconds: 0.0, resident_bytes: 101, disk_written_bytes: 0 };
    let report = governor.tick(&usage, 42);
    assert_eq!((control.rung(), report.rung.as_str()), (BudgetRung::DropFileEvents, "drop_file_events"));
    assert_eq!((report.cause.as_str(), report.since_unix_ns, report.steps_total), ("memory", 42, 1));
    assert!(report.is_degraded());
    let change = changes.take().pop().unwrap();
    assert_eq!((change.subject.to_string(), change.before.to_string()), ("budget".to_owned(), "normal".to_owned()));
    assert_eq!(change.after.to_string(), "drop_file_events");
    assert!(change.reason.to_string().starts_with("memory above its ceiling of 100 bytes"), "{}", change.reason);
    let report = governor.tick(&Usage::default(), 43);
    assert_eq!((control.rung(), report.is_degraded()), (BudgetRung::Normal, false));
    // Other ceilings count from the next look on.
    control.set_config(BudgetConfig { resident_bytes_max: 0, ..config });
    assert!(!governor.tick(&usage, 44).is_degraded());
}

struct Stream {
    control: Arc<BudgetControl>,
    shaper: Shaper,
    begin: Instant,
    now: Instant,
    sent: u64,
    out: Shaped,
}

impl Stream {
    fn new(rung: BudgetRung) -> Self {
        let control = Arc::new(BudgetControl::new(BudgetConfig::default(), Arc::default()));
        let begin = Instant::now();
        let shaper = Shaper::new(Arc::clone(&control));
        let stream = Self { control, shaper, begin, now: begin, sent: 0, out: Shaped::default() };
        stream.stand_on(rung);
        stream
    }

    fn stand_on(&self, to: BudgetRung) {
        self.control.step(BudgetStep {
            from: BudgetRung::Normal,
            to,
            cause: BudgetCause::Cpu,
            cpu_milliseconds_per_second: 0,
            resident_bytes: 0,
            disk_write_bytes_per_second: 0,
            ceiling: 0,
        });
    }

    fn send(&mut self, body: EventBody) {
        self.sent += 1;
        let time = Timestamp(i64::try_from((self.now - self.begin).as_nanos()).unwrap());
        let observation = Observation { time, origin: Origin::AgentEbpf, body };
        self.shaper.take(observation, self.now, &mut self.out);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.shaper.tick(self.now, &mut self.out);
    }

    /// Everything that came out; what is not there was counted.
    fn end(mut self) -> Vec<EventBody> {
        self.shaper.finish(&mut self.out);
        assert_eq!(self.sent, self.out.kept.len() as u64 + self.out.left_out, "nothing silently gone");
        assert_eq!(self.control.left_out(), self.out.left_out);
        self.out.kept.into_iter().map(|observation| observation.body).collect()
    }
}

fn connection(cookie: u64, remote: &str) -> Connection {
    Connection {
        cookie,
        protocol: Protocol::Tcp,
        direction: Direction::Outbound,
        local: SocketAddr::from(([10, 0, 0, 1], 40_000 + (cookie % 20_000) as u16)),
        remote: remote.parse().unwrap(),
        process: Some(ProcessId { pid: 7, start_time: Timestamp(1) }),
        executable: "/usr/bin/curl".into(),
        user_id: Some(0),
        cgroup_id: None,
    }
}

fn open(cookie: u64, remote: &str) -> EventBody {
    EventBody::ConnectionOpen(Box::new(connection(cookie, remote)))
}

fn close(cookie: u64, remote: &str, duration: Duration) -> EventBody {
    EventBody::ConnectionClose(Box::new(ConnectionClose {
        connection: connection(cookie, remote),
        bytes_sent: Some(100),
        bytes_received: Some(10),
        segments_sent: Some(3),
        segments_received: None,
        duration_ns: Some(u64::try_from(duration.as_nanos()).unwrap()),
        outcome: ConnectionOutcome::Closed,
    }))
}

fn start(number: u32, executable: &str) -> ProcessStart {
    ProcessStart {
        process: ProcessId { pid: number, start_time: Timestamp(number.into()) },
        parent: None,
        executable: executable.into(),
        arguments: Vec::new(),
        arguments_truncated: false,
        working_directory: Default::default(),
        user_id: None,
        group_id: None,
        user_name: Default::default(),
        session_id: None,
        has_terminal: None,
        standard_streams: [StreamKind::Unknown; 3],
        ancestors: vec!["/bin/sh".into()],
        executable_deleted: None,
        seeded: false,
        cgroup_id: None,
        cgroup: Default::default(),
        executable_file: None,
        script: Default::default(),
    }
}

fn exit(number: u32) -> EventBody {
    EventBody::ProcessExit(ProcessExit {
        process: ProcessId { pid: number, start_time: Timestamp(number.into()) },
        executable: Default::default(),
        exit_code: Some(0),
        signal: None,
        duration_ns: Some(1_000),
        cpu_time_ns: None,
    })
}

fn file() -> EventBody {
    EventBody::FileActivity(Box::new(FileActivity {
        action: FileAction::Create,
        path: "/etc/cron.d/x".into(),
        new_path: Default::default(),
        is_directory: None,
        mode: None,
        owner_id: None,
        process: None,
        executable: Default::default(),
        user_id: None,
    }))
}

const WEB: &str = "192.0.2.1:443";
const SHORT: Duration = Duration::from_millis(5);

#[test]
fn normal_leaves_nothing_out_and_each_rung_a_bit_more() {
    let mut kept = Vec::new();
    for rung in BudgetRung::ALL {
        let mut stream = Stream::new(rung);
        for number in 0..20 {
            stream.send(file());
            stream.send(EventBody::ProcessStart(Box::new(start(number, "/bin/true"))));
            stream.send(exit(number));
            stream.send(open(number.into(), WEB));
            stream.send(close(number.into(), WEB, SHORT));
        }
        kept.push(stream.end().len());
    }
    // 20 of each of 5 kinds. Connections: one pair and a summary; starts: 5 and one of 10, with their ends.
    assert_eq!(kept, [100, 80, 40 + 3, 2 * 6 + 3, 0]);
}

#[test]
fn short_connections_alike_become_one_summary_with_their_sums() {
    let mut stream = Stream::new(BudgetRung::AggregateConnections);
    for cookie in 0..50 {
        stream.send(open(cookie, WEB));
        stream.send(close(cookie, WEB, SHORT));
    }
    // Another destination is another kind, and stays.
    stream.send(open(100, "192.0.2.2:443"));
    stream.send(close(100, "192.0.2.2:443", SHORT));
    let bodies = stream.end();
    let [EventBody::ConnectionOpen(first), EventBody::ConnectionClose(_), .., EventBody::ConnectionSummary(summary)] =
        &bodies[..]
    else {
        panic!("{bodies:?}")
    };
    assert_eq!((first.cookie, bodies.len()), (0, 5));
    assert_eq!(summary.count, 49);
    assert_eq!((summary.close.bytes_sent, summary.close.bytes_received), (Some(4_900), Some(490)));
    assert_eq!((summary.close.segments_sent, summary.close.segments_received), (Some(147), None));
    assert_eq!(summary.close.duration_ns, Some(49 * 5_000_000));
    assert_eq!(summary.close.connection.cookie, 49);
}

#[test]
fn a_window_ends_and_the_first_of_each_kind_stays_again() {
    let mut stream = Stream::new(BudgetRung::AggregateConnections);
    for cookie in 0..10 {
        stream.send(open(cookie, WEB));
        stream.send(close(cookie, WEB, SHORT));
    }
    stream.pass(WINDOW);
    stream.send(open(10, WEB));
    stream.send(close(10, WEB, SHORT));
    let kinds: Vec<_> = stream.end().iter().map(|body| body.kind().name()).collect();
    let pair = ["connection_open", "connection_close"];
    assert_eq!(kinds, [&pair[..], &["connection_summary"], &pair].concat());
}

#[test]
fn long_connections_stay_as_they_are() {
    let mut stream = Stream::new(BudgetRung::AggregateConnections);
    for cookie in 0..3 {
        stream.send(open(cookie, WEB));
    }
    stream.pass(HOLD);
    assert_eq!(stream.out.kept.len(), 3, "opens come out when they have waited long enough");
    for cookie in 0..3 {
        stream.send(close(cookie, WEB, Duration::from_secs(60)));
    }
    assert_eq!(stream.end().len(), 6);
}

#[test]
fn what_is_held_back_comes_out_when_the_rung_is_left() {
    let mut stream = Stream::new(BudgetRung::AggregateConnections);
    for cookie in 0..5 {
        stream.send(open(cookie, WEB));
    }
    stream.stand_on(BudgetRung::Normal);
    stream.send(exit(1));
    let kinds: Vec<_> = stream.out.kept.iter().map(|observation| observation.body.kind().name()).collect();
    assert_eq!(kinds, [["connection_open"; 5].as_slice(), &["process_exit"]].concat());
    assert_eq!(stream.end().len(), 6);
}

#[test]
fn memory_of_what_is_held_back_is_bounded() {
    let mut stream = Stream::new(BudgetRung::AggregateConnections);
    for cookie in 0..10_000 {
        stream.send(open(cookie, WEB));
    }
    assert_eq!(stream.out.kept.len(), 10_000 - 4_096);
    for cookie in 0..10_000_u64 {
        let remote = format!("10.{}.{}.1:443", cookie / 250, cookie % 250);
        stream.send(close(20_000 + cookie, &remote, SHORT));
    }
    assert_eq!(stream.end().len(), 20_000, "kinds beyond the table stay as they are");
}

#[test]
fn a_rare_program_is_kept_among_many_starts_of_a_common_one() {
    let mut stream = Stream::new(BudgetRung::SampleExecs);
    for number in 0..1_000 {
        let program = if number == 777 { "/dev/shm/x" } else { "/bin/true" };
        stream.send(EventBody::ProcessStart(Box::new(start(number, program))));
        stream.send(exit(number));
    }
    let bodies = stream.end();
    let starts: Vec<u32> = bodies
        .iter()
        .filter_map(|body| if let EventBody::ProcessStart(start) = body { Some(start.process.pid) } else { None })
        .collect();
    let exits: Vec<u32> = bodies
        .iter()
        .filter_map(|body| if let EventBody::ProcessExit(exit) = body { Some(exit.process.pid) } else { None })
        .collect();
    assert!(starts.contains(&777) && starts.len() == 5 + 99 + 1, "{}", starts.len());
    assert_eq!(starts, exits, "the end of each process that stayed, and of no other");
}

proptest! {
    #[test]
    fn every_observation_is_kept_or_counted_whatever_the_rungs(
        steps in prop::collection::vec((0_usize..5, 0_u32..6, 0_u64..8, 0_u64..3_000), 0..300),
    ) {
        let mut stream = Stream::new(BudgetRung::Normal);
        for (place, what, number, pause_ms) in steps {
            stream.stand_on(BudgetRung::ALL[place]);
            stream.pass(Duration::from_millis(pause_ms));
            match what {
                0 => stream.send(file()),
                1 => stream.send(EventBody::ProcessStart(Box::new(start(number as u32, "/bin/true")))),
                2 => stream.send(exit(number as u32)),
                3 => stream.send(open(number, WEB)),
                _ => stream.send(close(number, WEB, SHORT * what)),
            }
        }
        stream.end();
    }
}
