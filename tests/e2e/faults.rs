//! Faults of the way between agent and server: connections that die without a word, and one that is slow.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use picket_tests::recording;
use picket_tests::wait;

use crate::support::{
    DELIVERY_DEADLINE, check_chains, control, only_host, record, sandbox, wait_for_events, wait_until_stored,
};

/// A relay between agent and server that can fail like a network.
struct Relay {
    address: SocketAddr,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    /// Connections with a number below this are dead: nothing passes, and nobody is told.
    dead_below: AtomicUsize,
    connections: AtomicUsize,
    /// Bytes a second and direction; 0: no limit.
    bytes_per_second: AtomicU64,
}

impl Relay {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Faults::default());
        let shared = Arc::clone(&faults);
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(upstream)) = (client, TcpStream::connect(server)) else { continue };
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                for (from, to) in [(&client, &upstream), (&upstream, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let faults = Arc::clone(&shared);
                    thread::spawn(move || faults.pass(number, from, to));
                }
            }
        });
        Self { address, faults }
    }

    /// Every connection that stands is dead from now on, and neither side knows.
    fn cut_silently(&self) {
        let connections = self.faults.connections.load(Ordering::SeqCst);
        self.faults.dead_below.store(connections, Ordering::SeqCst);
    }
}

impl Faults {
    fn pass(&self, number: usize, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).unwrap_or(0);
            if number < self.dead_below.load(Ordering::SeqCst) {
                // Both sockets stay open: dropping them would tell.
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

#[test]
fn a_half_open_connection_is_given_up_and_the_next_one_takes_its_place() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let relay = Relay::to(server.endpoints.agent);
    let replay = recording::agent_config(&record(&sandbox, 3_000), 1_000, 0);
    let uplink =
        format!("[uplink]\nserver = \"{}\"\nbackoff_max_ms = 200\nacknowledgement_timeout_ms = 1000\n", relay.address);
    let agent = sandbox.agent("agent").config(&format!("{replay}{uplink}"));
    agent.enroll(&server).unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    let mut running = agent.start().unwrap();
    let mut delivered = 0;
    for cut in 0..3 {
        wait_until_stored(&mut admin, &host, "events", |stored| stored.events_total() > delivered);
        relay.cut_silently();
        let at = Instant::now();
        delivered = wait_until_stored(&mut admin, &host, "an account", |_| true).events_total();
        // The server still holds the dead connection; the agent's next one is not refused for it.
        let stored =
            wait_until_stored(&mut admin, &host, "more events", |stored| stored.events_total() > delivered + 500);
        println!("cut {cut}: delivering again after {:?}", at.elapsed());
        delivered = stored.events_total();
    }
    let (hosts, _) = control(&server, &["host", "list"]);
    assert!(hosts[0]["quarantined"].is_null(), "{hosts}");
    assert_eq!(hosts[0]["connected"], true, "{hosts}");
    let report = wait_for_events(&mut running, 1);
    assert!(report.events_lost.is_empty(), "{report:?}");
    let stored = wait_until_stored(&mut admin, &host, "an account", |_| true);
    assert_eq!(stored.duplicates, 0, "{stored:?}");
    check_chains(&server);
    running.process.kill().unwrap();
    server.stop().unwrap();
}

#[test]
fn a_slow_way_to_the_server_delays_and_loses_nothing() {
    const EVENTS: u64 = 6_000;
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let relay = Relay::to(server.endpoints.agent);
    relay.faults.bytes_per_second.store(24_000, Ordering::SeqCst);
    let replay = recording::agent_config(&record(&sandbox, 3_000), 0, 2);
    let uplink = format!("[uplink]\nserver = \"{}\"\nbackoff_max_ms = 200\n", relay.address);
    let config = format!("{replay}{uplink}[pipeline]\nbatch_events_max = 200\n");
    let agent = sandbox.agent("agent").config(&config);
    agent.enroll(&server).unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    let mut running = agent.start().unwrap();
    let report = wait_for_events(&mut running, EVENTS);
    assert!(report.buffer_bytes > 0, "it collects faster than it can deliver: {report:?}");
    let stored = wait_until_stored(&mut admin, &host, "everything", |stored| stored.events_total() >= EVENTS);
    assert_eq!((stored.events_total(), stored.duplicates), (EVENTS, 0), "{stored:?}");
    let status = wait::until("the buffer to be empty", DELIVERY_DEADLINE, || {
        let status = running.status().map_err(|error| error.to_string())?;
        if status["buffer"]["records"] == 0 { Ok(status) } else { Err(status["buffer"].to_string()) }
    })
    .unwrap();
    assert_eq!(status["uplink"]["connections"], 1, "slow is not dead: {}", status["uplink"]);
    running.process.kill().unwrap();
    server.stop().unwrap();
}
