//! As many short processes and connections as asked for, by means as cheap as there are: the generator shares the
//! machine with the agent.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};

/// Threads that run processes.
const SPAWNERS: u32 = 2;

/// Threads that connect.
const CONNECTORS: u32 = 2;

/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 4096;

/// How often an accepting thread looks whether it is still needed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(1);

/// A program that ends at once, as an ELF file: one header, one segment, `exit(0)`. No library, no loader, no page
/// faults but its own.
#[cfg(target_arch = "x86_64")]
const PROGRAM: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\
    \x02\0\x3e\0\x01\0\0\0\x78\0\x40\0\0\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
    \0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0\
    \x01\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\x40\0\0\0\0\0\
    \x81\0\0\0\0\0\0\0\x81\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\
    \xb8\x3c\0\0\0\x31\xff\x0f\x05";

/// Writes the program that the processes run.
pub(crate) fn write_program(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("brief");
    #[cfg(target_arch = "x86_64")]
    fs::write(&path, PROGRAM)?;
    #[cfg(not(target_arch = "x86_64"))]
    fs::copy("/bin/true", &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// How much, how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storm {
    /// Processes a second; `u32::MAX`: as fast as possible.
    pub(crate) processes_per_second: u32,
    pub(crate) processes: u32,
    pub(crate) connections_per_second: u32,
    pub(crate) connections: u32,
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) processes: u64,
    pub(crate) processes_took: Duration,
    /// From the call that starts a process until its end was waited for.
    pub(crate) process_median: Duration,
    pub(crate) connections: u64,
    pub(crate) connections_took: Duration,
    /// From the call that makes a socket until the connection is cut off.
    pub(crate) connection_median: Duration,
    /// Where the connections went.
    pub(crate) port: u16,
}

impl Storm {
    /// Runs `program` and connects.
    pub(crate) fn run(self, program: &Path) -> Done {
        let listener = listener().unwrap();
        let address = listener.local_addr().unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let server = scope.spawn(|| accept(&listener, &over));
            let part = |of: u32, parts: u32, number: u32| of / parts + u32::from(number < of % parts);
            let spawners: Vec<_> = (0..SPAWNERS)
                .map(|number| {
                    let count = part(self.processes, SPAWNERS, number);
                    let rate = f64::from(self.processes_per_second) / f64::from(SPAWNERS);
                    scope.spawn(move || at_rate(rate, count, || run(program)))
                })
                .collect();
            let connectors: Vec<_> = (0..CONNECTORS)
                .map(|number| {
                    let count = part(self.connections, CONNECTORS, number);
                    let rate = f64::from(self.connections_per_second) / f64::from(CONNECTORS);
                    scope.spawn(move || at_rate(rate, count, || connect(address)))
                })
                .collect();
            let (processes_took, process_median) = joined(spawners);
            let (connections_took, connection_median) = joined(connectors);
            over.store(true, Ordering::Release);
            assert_eq!(server.join().unwrap(), self.connections);
            Done {
                processes: self.processes.into(),
                processes_took,
                process_median,
                connections: self.connections.into(),
                connections_took,
                connection_median,
                port: address.port(),
            }
        })
    }
}

impl Done {
    /// What the sensors have to say of it: starts and ends of processes; begin and end of both ends of connections.
    pub(crate) fn events(&self) -> u64 {
        2 * self.processes + 4 * self.connections
    }

    /// How long all of it took.
    pub(crate) fn took(&self) -> Duration {
        self.processes_took.max(self.connections_took)
    }
}

impl fmt::Display for Done {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |count: u64, took: Duration| count as f64 / took.as_secs_f64().max(f64::EPSILON);
        write!(
            out,
            "{} processes in {:.2?} ({:.0}/s, half of them within {:.0?}), {} connections in {:.2?} ({:.0}/s, {:.0?})",
            self.processes,
            self.processes_took,
            rate(self.processes, self.processes_took),
            self.process_median,
            self.connections,
            self.connections_took,
            rate(self.connections, self.connections_took),
            self.connection_median
        )
    }
}

fn run(program: &Path) {
    // Nothing is set up for the child: the standard library then uses posix_spawn.
    assert!(Command::new(program).status().unwrap().success());
}

fn listener() -> io::Result<TcpListener> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    rustix::net::listen(&socket, BACKLOG)?;
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects and cuts the connection off at once, so that no port stays taken for a minute.
fn connect(address: SocketAddr) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
}

/// Accepts until it is over and none is left; gives how many.
fn accept(listener: &TcpListener, over: &AtomicBool) -> u32 {
    let mut accepted = 0;
    loop {
        let last = over.load(Ordering::Acquire);
        while listener.accept().is_ok() {
            accepted += 1;
        }
        if last {
            return accepted;
        }
        thread::sleep(ACCEPT_PAUSE);
    }
}

/// How long some threads took, and half of the actions of all of them.
fn joined(threads: Vec<thread::ScopedJoinHandle<'_, Paced>>) -> (Duration, Duration) {
    let (mut took, mut each) = (Duration::ZERO, Vec::new());
    for thread in threads {
        let paced = thread.join().unwrap();
        took = took.max(paced.took);
        each.extend(paced.each);
    }
    each.sort();
    (took, each.get(each.len() / 2).copied().unwrap_or_default())
}

/// How long actions took.
struct Paced {
    took: Duration,
    each: Vec<Duration>,
}

/// Calls `action` so often at a rate; what came too late is made up for.
fn at_rate(per_second: f64, count: u32, mut action: impl FnMut()) -> Paced {
    let mut each = Vec::with_capacity(count as usize);
    let begin = Instant::now();
    for number in 0..count {
        let due = Duration::from_secs_f64(f64::from(number) / per_second);
        // A sleep is longer than asked for: what is nearly due is done now.
        let early = due.saturating_sub(begin.elapsed());
        if early > Duration::from_millis(1) {
            thread::sleep(early);
        }
        let begun = Instant::now();
        action();
        each.push(begun.elapsed());
    }
    Paced { took: begin.elapsed(), each }
}
