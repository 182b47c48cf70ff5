//! Figures under load; run with `cargo test -p picket-agent --lib sensor::load_tests -- --ignored --nocapture`.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use picket_common::event::{ConnectionOutcome, EventBody, Origin};

use crate::sensor::SensorConfig;
use crate::sensor::test_sink::TestSink;

const SECONDS: u64 = 10;
const PROCESSES_PER_SECOND: u64 = 500;
const CONNECTIONS_PER_SECOND: u64 = 1000;
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

/// Calls `action` so many times, evenly spread; gives how often it was late by more than a second.
fn at_rate(per_second: u64, mut action: impl FnMut(u64)) -> Duration {
    let begin = Instant::now();
    for number in 0..per_second * SECONDS {
        let due = begin + Duration::from_nanos(number * 1_000_000_000 / per_second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        action(number);
    }
    begin.elapsed()
}

#[test]
#[ignore = "ten seconds of load"]
fn processes_and_connections_at_full_rate() {
    let sink = TestSink::default();
    let set = sink.start_seeing_itself(&SensorConfig::default());
    for mode in &set.modes {
        eprintln!("{}: {:?} {}", mode.name, mode.origin, mode.reason);
    }
    std::thread::sleep(Duration::from_secs(1));
    let (times_before, resident_before) = (thread_times(), resident_kib());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..CONNECTIONS_PER_SECOND * SECONDS {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        }
    });
    let clients = std::thread::spawn(move || {
        at_rate(CONNECTIONS_PER_SECOND, |number| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&vec![7; usize::try_from(number % 5000).unwrap()]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        })
    });
    let mut pids = Vec::new();
    let took = at_rate(PROCESSES_PER_SECOND, |_| {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        pids.push(child.id());
        child.wait().unwrap();
    });
    let connections_took = clients.join().unwrap();
    server.join().unwrap();
    eprintln!(
        "{} processes in {took:?}, {} connections in {connections_took:?}",
        pids.len(),
        CONNECTIONS_PER_SECOND * SECONDS
    );
    let times_after = thread_times();
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut counts = HashMap::<&str, u64>::new();
    let mut count = |name| *counts.entry(name).or_default() += 1;
    for observation in sink.observations() {
        match &observation.body {
            EventBody::ProcessStart(start) if start.parent.is_some_and(|parent| parent.pid == std::process::id()) => {
                count("starts");
                if start.executable.is_empty() {
                    count("starts without executable");
                }
            }
            EventBody::ProcessExit(exit) if pids.contains(&exit.process.pid) => count("exits"),
            EventBody::ConnectionOpen(connection) if connection.local == address => count("opens of the server"),
            EventBody::ConnectionOpen(connection) if connection.remote == address => count("opens of the client"),
            EventBody::ConnectionClose(close) if close.connection.remote == address => {
                assert_eq!(close.outcome, ConnectionOutcome::Closed);
                count("closes of the client");
                if close.connection.process.is_none() {
                    count("closes of the client without owner");
                    eprintln!("{close:?}");
                }
            }
            EventBody::ConnectionClose(close) if close.connection.local == address => {
                count("closes of the server");
                if close.connection.process.is_none() {
                    count("closes of the server without owner");
                }
            }
            _ => {}
        }
    }
    eprintln!("{counts:#?}\nlost: {}", sink.lost());
    for (name, after) in times_after.iter().filter(|(name, _)| name.starts_with("sensor-")) {
        let spent = after - times_before.get(name).copied().unwrap_or(0);
        eprintln!("{name}: {spent} us, {:.1} % of a processor", spent as f64 / took.as_micros() as f64 * 100.0);
    }
    eprintln!("resident: {resident_before} KiB before, {} KiB after (with all observations kept)", resident_kib());
    assert_eq!(set.modes[0].origin, Origin::AgentNetlink);
    assert_eq!(counts["starts"] + sink.lost(), PROCESSES_PER_SECOND * SECONDS);
    assert_eq!(counts["closes of the client"], CONNECTIONS_PER_SECOND * SECONDS);
    assert_eq!(counts["closes of the server"], CONNECTIONS_PER_SECOND * SECONDS);
    set.stop_and_join(STOP_TIMEOUT);
}
