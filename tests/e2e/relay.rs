//! A relay between agent and server that fails as networks do.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How often a direction that is held back looks whether it still is.
const HOLD_INTERVAL: Duration = Duration::from_millis(5);

/// Relays connections for as long as the test's process lives.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    /// Connections with a number below this are dead: nothing passes, and nobody is told.
    dead_below: AtomicUsize,
    connections: AtomicUsize,
    /// Nothing passes from the server to the agent.
    are_answers_held: AtomicBool,
    /// Bytes a second and direction; 0: no limit.
    bytes_per_second: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToAgent,
}

impl Relay {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Faults::default());
        let shared = Arc::clone(&faults);
        thread::spawn(move || {
            for agent in listener.incoming() {
                let (Ok(agent), Ok(server)) = (agent, TcpStream::connect(server)) else { continue };
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let (Ok(from_agent), Ok(to_server)) = (agent.try_clone(), server.try_clone()) else { continue };
                let faults = [Arc::clone(&shared), Arc::clone(&shared)];
                let [up, down] = faults;
                thread::spawn(move || up.pass(number, Direction::ToServer, from_agent, to_server));
                thread::spawn(move || down.pass(number, Direction::ToAgent, server, agent));
            }
        });
        Self { address, faults }
    }

    /// Connections made so far.
    pub(crate) fn connections(&self) -> usize {
        self.faults.connections.load(Ordering::SeqCst)
    }

    /// Every connection that stands is dead from now on, and neither side knows.
    pub(crate) fn cut_silently(&self) {
        self.faults.dead_below.store(self.connections(), Ordering::SeqCst);
    }

    /// Whether what the server says is held back.
    pub(crate) fn hold_answers(&self, held: bool) {
        self.faults.are_answers_held.store(held, Ordering::SeqCst);
    }

    /// Lets so many bytes a second pass, each way.
    pub(crate) fn slow_down(&self, bytes_per_second: u64) {
        self.faults.bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }
}

impl Faults {
    fn pass(&self, number: usize, direction: Direction, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).unwrap_or(0);
            while direction == Direction::ToAgent && self.are_answers_held.load(Ordering::SeqCst) {
                thread::sleep(HOLD_INTERVAL);
            }
            if number < self.dead_below.load(Ordering::SeqCst) {
                // Both sockets stay open: closing them would tell.
                std::mem::forget((from, to));
                return;
            }
            if read == 0 || to.write_all(&buffer[..read]).is_err() {
                drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
                return;
            }
            if let rate @ 1.. = self.bytes_per_second.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_secs_f64(read as f64 / rate as f64));
            }
        }
    }
}
