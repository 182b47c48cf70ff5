//! Nothing that was acknowledged is lost, and nothing is counted twice, whenever agent or server are killed.

use std::collections::BTreeMap;
use std::time::Duration;

use picket_agent::pipeline::ledger::Ledger;
use picket_tests::accounting::Stored;
use picket_tests::admin::AdminClient;
use picket_tests::recording;
use picket_tests::sandbox::Agent;
use picket_tests::wait;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::support::{QUIET, check_chains, only_host, record, sandbox, wait_until_stored};

/// Kills of each test.
const KILLS: usize = 50;

/// Events the agent's sensors make each second, while it lives.
const EVENTS_PER_SECOND: u32 = 20_000;

/// Events an agent may have seen when it is killed, at most.
const EVENTS_BEFORE_KILL_MAX: u64 = 4_000;

/// How long an agent or a server may take until it does something.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// What the sensors of each epoch have handed over, or know to have missed.
#[derive(Debug, Default)]
struct Generated(BTreeMap<u64, u64>);

impl Generated {
    /// Notes what the ledger of a dead agent says.
    fn note(&mut self, agent: &Agent) {
        if let Some(counters) = Ledger::read(&agent.state_dir().join("ledger")).unwrap() {
            self.0.insert(counters.epoch.0, counters.accepted + counters.reported.total());
        }
    }

    fn is_settled(&self, stored: &Stored) -> bool {
        self.0.iter().all(|(epoch, generated)| stored.events_of(*epoch) + stored.lost_of(*epoch) >= *generated)
    }

    /// Every event is stored once or counted as lost once.
    fn check(&self, stored: &Stored, admin: &mut AdminClient) {
        for (epoch, generated) in &self.0 {
            let (events, lost) = (stored.events_of(*epoch), stored.lost_of(*epoch));
            assert_eq!(events + lost, *generated, "epoch {epoch}: {events} stored, {:?}", stored.lost.get(epoch));
        }
        assert_eq!(stored.duplicates, 0);
        // The replay sensor numbers the events of an epoch in their pids: what is stored are those events, each once.
        let strangers = admin
            .query_number(
                "SELECT count(*) - count(DISTINCT epoch * 1000003 + pid) FROM (SELECT epoch, pid FROM process_activity \
                 UNION ALL SELECT epoch, pid FROM network_activity) AS e",
            )
            .unwrap();
        assert_eq!(strangers, 0, "events stored twice under different keys");
        println!("{} epochs, {} generated, {stored:?}", self.0.len(), self.0.values().sum::<u64>());
    }
}

#[test]
fn an_agent_killed_again_and_again_accounts_for_every_event() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();
    let recording = record(&sandbox, 3_000);
    let agent = sandbox.agent("agent").config(&recording::agent_config(&recording, EVENTS_PER_SECOND, 0));
    agent.enroll(&server).unwrap();
    let host = only_host(&mut admin);

    let mut rng = StdRng::seed_from_u64(11);
    let mut generated = Generated::default();
    let mut epochs_seen = 0;
    for kill in 0..KILLS {
        let mut running = agent.spawn().unwrap();
        // Some kills come while it starts, the others at a random number of events.
        let wanted = if kill % 10 == 9 { 0 } else { rng.random_range(1..=EVENTS_BEFORE_KILL_MAX) };
        if wanted > 0 {
            wait::until("the agent to see events", START_DEADLINE, || {
                assert!(running.process.is_running(), "{}", running.log_tail());
                let counters = Ledger::read(&agent.state_dir().join("ledger")).unwrap();
                let counters = counters.ok_or_else(|| "no ledger".to_owned())?;
                let is_new = !generated.0.contains_key(&counters.epoch.0);
                let seen = if is_new { counters.accepted } else { 0 };
                if seen >= wanted { Ok(()) } else { Err(format!("{seen} of {wanted}")) }
            })
            .unwrap();
        } else {
            std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
        }
        running.process.kill().unwrap();
        generated.note(&agent);
        epochs_seen += usize::from(wanted > 0);
        assert!(generated.0.len() >= epochs_seen);
    }
    // A last, quiet life books what the killed ones lost and delivers the rest.
    let quiet = agent.clone().config(QUIET);
    let running = quiet.start().unwrap();
    let stored = wait_until_stored(&mut admin, &host, "everything", |stored| generated.is_settled(stored));
    running.stop().unwrap();
    generated.check(&stored, &mut admin);
    assert!(stored.events_total() > 0);
    check_chains(&server);
    server.stop().unwrap();
}

#[test]
fn a_server_killed_again_and_again_loses_nothing_it_acknowledged() {
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let mut server = home.start().unwrap();
    let recording = record(&sandbox, 3_000);
    let agent = sandbox.agent("agent").config(&recording::agent_config(&recording, 2_000, 0));
    agent.enroll(&server).unwrap();
    let host = only_host(&mut server.admin().unwrap());
    let mut running = agent.start().unwrap();

    let mut rng = StdRng::seed_from_u64(12);
    let mut wal_grew = 0;
    for _ in 0..KILLS {
        let before = wal_bytes(&home);
        // Until batches arrive, then any moment.
        let arrived =
            wait::until_true("batches to arrive", Duration::from_millis(1_500), || wal_bytes(&home) != before);
        wal_grew += usize::from(arrived.is_ok());
        std::thread::sleep(Duration::from_millis(rng.random_range(0..40)));
        server.process.kill().unwrap();
        server = home.start().unwrap();
    }
    assert!(wal_grew >= KILLS / 2, "the server was under load at {wal_grew} of {KILLS} kills only");
    assert!(running.process.is_running());
    let stopped = running.stop();
    let mut generated = Generated::default();
    generated.note(&agent);
    stopped.unwrap();
    // What the agent could not deliver any more while it stopped is delivered by its next life.
    let quiet = agent.clone().config(QUIET);
    let running = quiet.start().unwrap();
    let mut admin = server.admin().unwrap();
    let stored = wait_until_stored(&mut admin, &host, "everything", |stored| generated.is_settled(stored));
    running.stop().unwrap();
    generated.check(&stored, &mut admin);
    assert!(stored.lost_total().is_empty(), "{:?}", stored.lost_total());
    check_chains(&server);
    server.stop().unwrap();
}

/// Bytes in the server's write-ahead log.
fn wal_bytes(server: &picket_tests::sandbox::Server) -> u64 {
    let Ok(entries) = std::fs::read_dir(server.state_dir().join("wal")) else { return 0 };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}
