//! What the sensors see and cost at the rate they are made for. As root; run it with
//! `cargo bench --profile dist -p picket-agent`, or with `--profile dev` for what the tests use.
//!
//! It plays the load itself, as a child process: the sensors do not report what their own process does.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use picket_agent::hardening::Hardening;
use picket_agent::sensor::config::{EbpfChoice, FileModeChoice, ModeChoice, SensorConfig, SensorSwitch};
use picket_agent::sensor::{Observation, ObservationSink, SensorContext, SensorSet, start};
use picket_common::event::{EventBody, LossReason, LossStage};

const SECONDS: u32 = 10;
const FAST_PROCESSES_PER_SECOND: u32 = 5_000;
const FAST_THREADS: u32 = 2;
const PROCESSES_PER_SECOND: u32 = 500;
const CONNECTIONS_PER_SECOND: u32 = 1_000;
const PAYLOAD_BYTES: usize = 3_000;
const BURST_PROCESSES: usize = 2_000;
const BURST_AT_ONCE: usize = 200;
const POLLING_SECONDS: u64 = 5;

/// The start of the sensors is no part of the figures.
const SETTLE: Duration = Duration::from_secs(1);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// First argument of the child that plays the load.
const PLAY: &str = "--play-load";

fn main() {
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new(PLAY)) {
        play_load();
        return;
    }
    for (what, mode, trace) in [
        ("eBPF", ModeChoice::Ebpf, false),
        ("netlink with trace events", ModeChoice::Netlink, true),
        ("netlink without trace events", ModeChoice::Netlink, false),
    ] {
        let mut config = SensorConfig { trace, ..SensorConfig::default() };
        config.authentication.mode = SensorSwitch::Off;
        (config.file.mode, config.kernel.mode) = (FileModeChoice::Off, EbpfChoice::Off);
        (config.process.mode, config.connection.mode) = (mode, mode);
        measure(&format!("full rate, {what}"), &config, || {
            let this = std::env::current_exe().unwrap();
            assert!(Command::new(this).arg(PLAY).status().unwrap().success());
        });
        config.connection.mode = ModeChoice::Off;
        measure(&format!("{FAST_PROCESSES_PER_SECOND} processes a second at most, {what}"), &config, many_processes);
    }
    let mut processes_only = SensorConfig::default();
    processes_only.connection.mode = ModeChoice::Off;
    measure("burst of processes", &processes_only, burst);
    let mut polling = SensorConfig::default();
    polling.process.mode = ModeChoice::Polling;
    polling.connection.mode = ModeChoice::Polling;
    measure("polling, nothing to see", &polling, || std::thread::sleep(Duration::from_secs(POLLING_SECONDS)));
}

/// Counts what sensors send, by kind.
#[derive(Clone, Default)]
struct Counts(Arc<[AtomicU64; 5]>);

const KINDS: [&str; 5] = ["starts", "exits", "opens", "closes", "lost"];

impl ObservationSink for Counts {
    fn send(&self, observation: Observation) {
        let kind = match &observation.body {
            EventBody::ProcessStart(start) if !start.seeded => 0,
            EventBody::ProcessExit(_) => 1,
            EventBody::ConnectionOpen(_) => 2,
            EventBody::ConnectionClose(_) => 3,
            _ => return,
        };
        self.0[kind].fetch_add(1, Ordering::Relaxed);
    }

    fn lost(&self, _: LossStage, _: LossReason, count: u64) {
        self.0[4].fetch_add(count, Ordering::Relaxed);
    }
}

impl Counts {
    fn now(&self) -> [u64; 5] {
        std::array::from_fn(|kind| self.0[kind].load(Ordering::Relaxed))
    }

    /// What came in between, when nothing more comes.
    fn settled_since(&self, before: [u64; 5]) -> [u64; 5] {
        let mut last = self.now();
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.now();
            if now == last {
                return std::array::from_fn(|kind| now[kind] - before[kind]);
            }
            last = now;
        }
    }
}

fn measure(what: &str, config: &SensorConfig, load: impl FnOnce()) {
    let counts = Counts::default();
    let context = SensorContext {
        sender: counts.clone(),
        own_remotes: Vec::new(),
        state_dir: None,
        ebpf: None,
        hardening: Hardening::default(),
    };
    let sensors: SensorSet = start(config, context).unwrap();
    std::thread::sleep(SETTLE);
    println!("{what}");
    for mode in &sensors.modes {
        println!("  {}: {:?} {}", mode.name, mode.origin, mode.reason);
    }
    let (times, resident, seen) = (thread_times(), resident_kib(), counts.now());
    let begin = Instant::now();
    load();
    let took = begin.elapsed();
    let seen: Vec<String> =
        KINDS.iter().zip(counts.settled_since(seen)).map(|(kind, count)| format!("{count} {kind}")).collect();
    println!("  in {took:?}: {}", seen.join(", "));
    for (name, after) in thread_times().iter().filter(|(name, _)| name.starts_with("sensor-")) {
        let spent = after - times.get(name).copied().unwrap_or(0);
        println!("  {name}: {:.1} % of a processor", spent as f64 / took.as_micros() as f64 * 100.0);
    }
    println!("  resident: {resident} KiB before, {} KiB after", resident_kib());
    sensors.stop_and_join(STOP_TIMEOUT);
}

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
fn at_rate(per_second: u32, mut action: impl FnMut()) -> Duration {
    let begin = Instant::now();
    for number in 0..per_second * SECONDS {
        let due = begin + Duration::from_secs(1) * number / per_second;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        action();
    }
    begin.elapsed()
}

fn play_load() {
    let connections = std::thread::spawn(connect_at_full_rate);
    let took = at_rate(PROCESSES_PER_SECOND, || {
        assert!(Command::new("/bin/true").status().unwrap().success());
    });
    let connections_took = connections.join().unwrap();
    println!(
        "  played {} processes in {took:?}, {} connections in {connections_took:?}",
        PROCESSES_PER_SECOND * SECONDS,
        CONNECTIONS_PER_SECOND * SECONDS
    );
}

/// Opens connections to a listener of its own at the full rate.
fn connect_at_full_rate() -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..CONNECTIONS_PER_SECOND * SECONDS {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        }
    });
    let payload = [7; PAYLOAD_BYTES];
    let took = at_rate(CONNECTIONS_PER_SECOND, || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&payload).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    server.join().unwrap();
    took
}

/// Starts tiny programs from several threads; as many a second as the machine can, up to the rate.
fn many_processes() {
    let program = static_program();
    let threads: Vec<_> = (0..FAST_THREADS)
        .map(|_| {
            let path = program.path().join("nothing");
            std::thread::spawn(move || {
                at_rate(FAST_PROCESSES_PER_SECOND / FAST_THREADS, || {
                    assert!(Command::new(&path).status().unwrap().success());
                })
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
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

fn burst() {
    for _ in 0..BURST_PROCESSES / BURST_AT_ONCE {
        let children: Vec<_> = (0..BURST_AT_ONCE).map(|_| Command::new("/bin/true").spawn().unwrap()).collect();
        children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
    }
}
