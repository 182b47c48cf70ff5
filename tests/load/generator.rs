//! Processes and connections at a rate.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes sent over each connection.
const PAYLOAD_BYTES: usize = 3_000;

/// Threads that run processes: one alone waits too long for each.
const SPAWNERS: u32 = 2;

/// Pause between two probes.
const PROBE_PAUSE: Duration = Duration::from_millis(200);

/// A process that was run to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: u32,
    /// Just before it was started.
    pub(crate) before: Instant,
}

impl Spawned {
    pub(crate) fn run(program: &Path, argument: &str) -> Self {
        let before = Instant::now();
        let mut command = Command::new(program);
        command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        Self { pid, before }
    }
}

/// What was done.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) processes: Vec<Spawned>,
    processes_took: Duration,
    pub(crate) connections: u64,
    connections_took: Duration,
    /// Where the connections went.
    pub(crate) port: u16,
    /// Runs of the other program in between.
    pub(crate) probes: Vec<Spawned>,
}

impl Load {
    /// Runs `work` and connects at these rates for so long, and `probe` now and then.
    pub(crate) fn run(work: &Path, processes: u32, connections: u32, seconds: u32, probe: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let server = scope.spawn(|| serve(&listener, connections * seconds));
            let clients = scope.spawn(|| connect(port, connections, seconds));
            let probes = scope.spawn(|| {
                let mut probes = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    probes.push(Spawned::run(probe, &format!("--probe={}", probes.len())));
                    std::thread::sleep(PROBE_PAUSE);
                }
                probes
            });
            let spawners: Vec<_> = (0..SPAWNERS)
                .map(|spawner| scope.spawn(move || spawn(work, spawner, processes / SPAWNERS, seconds)))
                .collect();
            let (mut spawned, mut processes_took) = (Vec::new(), Duration::ZERO);
            for spawner in spawners {
                let (processes, took) = spawner.join().unwrap();
                spawned.extend(processes);
                processes_took = processes_took.max(took);
            }
            let connections_took = clients.join().unwrap();
            server.join().unwrap();
            done.store(true, Ordering::Relaxed);
            Self {
                processes: spawned,
                processes_took,
                connections: u64::from(connections * seconds),
                connections_took,
                port,
                probes: probes.join().unwrap(),
            }
        })
    }

    /// How often each process id was there, of all programs run.
    pub(crate) fn processes_by_pid(&self) -> BTreeMap<u32, u64> {
        let mut times = BTreeMap::new();
        for process in self.processes.iter().chain(&self.probes) {
            *times.entry(process.pid).or_default() += 1;
        }
        times
    }
}

impl fmt::Display for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |count: u64, took: Duration| count as f64 / took.as_secs_f64();
        let processes = self.processes.len() as u64;
        write!(
            out,
            "{processes} processes at {:.0}/s, {} connections at {:.0}/s",
            rate(processes, self.processes_took),
            self.connections,
            rate(self.connections, self.connections_took)
        )
    }
}

fn spawn(program: &Path, spawner: u32, per_second: u32, seconds: u32) -> (Vec<Spawned>, Duration) {
    let mut spawned = Vec::new();
    let took = at_rate(per_second, seconds, |number| {
        spawned.push(Spawned::run(program, &format!("--item={spawner}.{number}")));
    });
    (spawned, took)
}

fn connect(port: u16, per_second: u32, seconds: u32) -> Duration {
    let payload = [7; PAYLOAD_BYTES];
    at_rate(per_second, seconds, |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(&payload).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    })
}

fn serve(listener: &TcpListener, connections: u32) {
    for _ in 0..connections {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    }
}

/// Calls `action` at a rate; what came too late is made up for. Returns how long it all took.
fn at_rate(per_second: u32, seconds: u32, mut action: impl FnMut(u32)) -> Duration {
    let begin = Instant::now();
    for number in 0..per_second * seconds {
        let due = begin + Duration::from_secs(1) * number / per_second;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        action(number);
    }
    begin.elapsed()
}
