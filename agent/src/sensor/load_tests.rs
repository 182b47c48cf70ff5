//! Figures under load; run with
//! `cargo test -p picket-agent --lib sensor::load_tests -- --ignored --nocapture --test-threads=1`.

#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use picket_common::event::{ConnectionClose, ConnectionOutcome, EventBody};

use crate::sensor::config::{ModeChoice, SensorConfig};
use crate::sensor::test_sink::TestSink;
use crate::sensor::{Observation, SensorSet};

const SECONDS: u64 = 10;
const PROCESSES_PER_SECOND: u64 = 500;
const CONNECTIONS_PER_SECOND: u64 = 1000;
const PAYLOAD_BYTES: u64 = 3000;
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Processor time of this process's threads by name, microseconds.
fn thread_times() -> HashMap<String, u64> {
    let mut times = HashMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let nanoseconds: u64 = read("schedstat").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        *times.entry(read("comm").trim().to_owned()).or_default() += nanoseconds / 1000;
    }
    times
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Calls `action` at a rate for [`SECONDS`]; gives how long that took.
fn at_rate(per_second: u64, mut action: impl FnMut(u64)) -> Duration {
    let begin = Instant::now();
    for number in 0..per_second * SECONDS {
        let due = begin + Duration::from_nanos(number * 1_000_000_000 / per_second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        action(number);
    }
    begin.elapsed()
}

/// What was seen of the load.
#[derive(Debug, Default)]
struct Seen {
    starts: u64,
    starts_without_executable: u64,
    exits: u64,
    opens: u64,
    closes_of_clients: u64,
    closes_of_servers: u64,
    closes_without_owner: u64,
    wrong_bytes: u64,
}

impl Seen {
    fn of(observations: &[Observation], pids: &HashSet<u32>, server: SocketAddr) -> Self {
        let mut seen = Self::default();
        for observation in observations {
            match &observation.body {
                EventBody::ProcessStart(start) if !start.seeded && pids.contains(&start.process.pid) => {
                    seen.starts += 1;
                    seen.starts_without_executable += u64::from(start.executable.is_empty());
                }
                EventBody::ProcessExit(exit) if pids.contains(&exit.process.pid) => seen.exits += 1,
                EventBody::ConnectionOpen(open) if open.local == server || open.remote == server => seen.opens += 1,
                EventBody::ConnectionClose(close) => seen.see_close(close, server),
                _ => {}
            }
        }
        seen
    }

    fn see_close(&mut self, close: &ConnectionClose, server: SocketAddr) {
        let is_client = close.connection.remote == server;
        if !is_client && close.connection.local != server {
            return;
        }
        assert_eq!(close.outcome, ConnectionOutcome::Closed);
        *(if is_client { &mut self.closes_of_clients } else { &mut self.closes_of_servers }) += 1;
        self.closes_without_owner += u64::from(close.connection.process.is_none());
        let (sent, received) = if is_client { (PAYLOAD_BYTES, 0) } else { (0, PAYLOAD_BYTES) };
        self.wrong_bytes += u64::from((close.bytes_sent, close.bytes_received) != (Some(sent), Some(received)));
    }
}

/// Opens connections to a listener of its own at the full rate.
fn connect_at_full_rate(listener: TcpListener) -> Duration {
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..CONNECTIONS_PER_SECOND * SECONDS {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        }
    });
    let payload = vec![7; usize::try_from(PAYLOAD_BYTES).unwrap()];
    let took = at_rate(CONNECTIONS_PER_SECOND, |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&payload).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    server.join().unwrap();
    took
}

fn full_rate(mode: ModeChoice, trace: bool) {
    let sink = TestSink::default();
    let mut config = SensorConfig { trace, ..SensorConfig::default() };
    (config.process.mode, config.connection.mode) = (mode, mode);
    let resident_without = resident_kib();
    let begin = Instant::now();
    let set = sink.start_seeing_itself(&config);
    eprintln!("started in {:?}", begin.elapsed());
    for mode in &set.modes {
        eprintln!("{}: {:?} {}", mode.name, mode.origin, mode.reason);
    }
    // The start of the sensors is no part of the figures.
    std::thread::sleep(Duration::from_secs(1));
    let (times_before, resident_before) = (thread_times(), resident_kib());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = std::thread::spawn(move || connect_at_full_rate(listener));
    let mut pids = HashSet::new();
    let took = at_rate(PROCESSES_PER_SECOND, |_| {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        assert!(pids.insert(child.id()), "the test cannot tell processes with one pid apart");
        child.wait().unwrap();
    });
    let connections_took = connections.join().unwrap();
    let times_after = thread_times();
    let (processes, sockets) = (PROCESSES_PER_SECOND * SECONDS, CONNECTIONS_PER_SECOND * SECONDS * 2);
    eprintln!("{processes} processes in {took:?}, {sockets} sockets in {connections_took:?}");
    let seen = sink.wait_for("end of the load", |observations| {
        let seen = Seen::of(observations, &pids, address);
        (seen.exits + sink_lost(&set) >= processes && seen.closes_of_clients + seen.closes_of_servers >= sockets)
            .then_some(seen)
    });
    eprintln!("{seen:#?}, lost: {}", sink.lost());
    for (name, after) in times_after.iter().filter(|(name, _)| name.starts_with("sensor-")) {
        let spent = after - times_before.get(name).copied().unwrap_or(0);
        eprintln!("{name}: {spent} us, {:.1} % of a processor", spent as f64 / took.as_micros() as f64 * 100.0);
    }
    eprintln!(
        "resident: {resident_without} KiB without sensors, {resident_before} KiB before, {} KiB after (with all observations kept)",
        resident_kib()
    );
    assert_eq!((seen.starts, seen.exits, sink.lost()), (processes, processes, 0));
    assert_eq!((seen.closes_of_clients, seen.closes_of_servers), (sockets / 2, sockets / 2));
    if trace || mode == ModeChoice::Ebpf {
        assert_eq!((seen.starts_without_executable, seen.closes_without_owner), (0, 0));
    }
    set.stop_and_join(STOP_TIMEOUT);
}

fn sink_lost(set: &SensorSet) -> u64 {
    set.status().iter().map(|sensor| sensor.lost_total).sum()
}

#[test]
#[ignore = "ten seconds of load"]
fn with_ebpf() {
    full_rate(ModeChoice::Ebpf, false);
}

#[test]
#[ignore = "ten seconds of load"]
fn with_trace_events() {
    full_rate(ModeChoice::Netlink, true);
}

#[test]
#[ignore = "ten seconds of load"]
fn without_trace_events() {
    full_rate(ModeChoice::Netlink, false);
}

#[test]
#[ignore = "five seconds of waiting"]
fn the_cost_of_polling() {
    let mut config = SensorConfig::default();
    config.process.mode = ModeChoice::Polling;
    config.connection.mode = ModeChoice::Polling;
    let set = TestSink::default().start(&config);
    std::thread::sleep(Duration::from_secs(1));
    let before = thread_times();
    std::thread::sleep(Duration::from_secs(5));
    for (name, after) in thread_times().iter().filter(|(name, _)| name.starts_with("sensor-")) {
        eprintln!("{name}: {} us in five seconds", after - before[name]);
    }
    assert!(set.status().iter().all(|sensor| sensor.running && sensor.events_total > 0));
    set.stop_and_join(STOP_TIMEOUT);
}

#[test]
#[ignore = "a burst of 2,000 processes"]
fn a_burst_of_processes() {
    const COUNT: usize = 2000;
    const AT_ONCE: usize = 200;
    let sink = TestSink::default();
    let mut config = SensorConfig::default();
    config.connection.mode = ModeChoice::Off;
    let set = sink.start(&config);
    std::thread::sleep(Duration::from_secs(1));
    let begin = Instant::now();
    let mut pids = HashSet::new();
    for _ in 0..COUNT / AT_ONCE {
        let children: Vec<_> = (0..AT_ONCE).map(|_| Command::new("/bin/true").spawn().unwrap()).collect();
        for mut child in children {
            pids.insert(child.id());
            child.wait().unwrap();
        }
    }
    let took = begin.elapsed();
    let nowhere: SocketAddr = "0.0.0.0:1".parse().unwrap();
    let seen = sink.wait_for("end of the burst", |observations| {
        let seen = Seen::of(observations, &pids, nowhere);
        (seen.exits >= COUNT as u64).then_some(seen)
    });
    eprintln!(
        "{COUNT} processes in {took:?}: {} without executable, lost {}",
        seen.starts_without_executable,
        sink.lost()
    );
    assert_eq!((seen.starts, sink.lost()), (COUNT as u64, 0));
    set.stop_and_join(STOP_TIMEOUT);
}

/// Starts tiny programs as fast as `per_second` says, from two threads.
#[test]
#[ignore = "ten seconds of load"]
fn five_thousand_processes_a_second() {
    for mode in [ModeChoice::Ebpf, ModeChoice::Netlink] {
        let sink = TestSink::default();
        let mut config = SensorConfig { trace: true, ..SensorConfig::default() };
        (config.process.mode, config.connection.mode) = (mode, ModeChoice::Off);
        let set = sink.start(&config);
        std::thread::sleep(Duration::from_secs(1));
        let before = thread_times();
        // A shell's own forks are cheaper than a test's: `vfork` and a program without a library.
        let program = static_program();
        let spawn = || {
            std::thread::spawn({
                let program = program.path().join("nothing");
                move || {
                    let mut pids = Vec::new();
                    at_rate(2500, |_| {
                        let mut child = Command::new(&program).spawn().unwrap();
                        pids.push(child.id());
                        child.wait().unwrap();
                    });
                    pids
                }
            })
        };
        let begin = Instant::now();
        let threads = [spawn(), spawn()];
        let started: usize = threads.map(|thread| thread.join().unwrap().len()).iter().sum();
        let took = begin.elapsed();
        std::thread::sleep(Duration::from_secs(2));
        let spent = thread_times()["sensor-process"] - before["sensor-process"];
        let path = program.path().join("nothing");
        let is_ours = |path_seen: &[u8]| path_seen == path.as_os_str().as_encoded_bytes();
        let observations = sink.observations();
        let starts = observations.iter().filter(|observation| match &observation.body {
            EventBody::ProcessStart(start) => !start.seeded && is_ours(start.executable.as_bytes()),
            _ => false,
        });
        let exits = observations.iter().filter(|observation| match &observation.body {
            EventBody::ProcessExit(exit) => is_ours(exit.executable.as_bytes()),
            _ => false,
        });
        eprintln!(
            "{mode:?}: {started} processes in {took:?}; {} starts described, {} exits, lost {}; {:.1} us each, {:.1} %",
            starts.count(),
            exits.count(),
            sink.lost(),
            spent as f64 / started as f64,
            spent as f64 / took.as_micros() as f64 * 100.0,
        );
        set.stop_and_join(STOP_TIMEOUT);
    }
}

/// A program that does nothing, without a library where there is a compiler.
fn static_program() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("nothing.c"), folder.path().join("nothing"));
    std::fs::write(&source, "int main(void) { return 0; }").unwrap();
    let compiled = Command::new("cc").args(["-static", "-O2", "-o"]).args([&program, &source]).status();
    if !compiled.is_ok_and(|status| status.success()) {
        std::fs::copy("/bin/true", &program).unwrap();
    }
    folder
}
