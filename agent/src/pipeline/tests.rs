use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use picket_common::batch;
use picket_common::event::{ByteString, LossReason, LossStage, ProcessExit, ProcessId};
use picket_common::id::Digest;
use proptest::prelude::*;

use super::*;
use crate::budget::BudgetConfig;
use crate::budget::control::BudgetControl;
use crate::buffer::BufferConfig;
use crate::pipeline::account::EpochAccount;
use crate::pipeline::intake::SensorSender;
use crate::pipeline::spool::{LeasedBatch, OpenedSpool, Settlement, SpoolPaths};
use crate::sensor::ObservationSink as _;

const ROOMY: BufferConfig = BufferConfig::in_sled(16 * 1024 * 1024);

type Tap = Box<dyn FnMut(Vec<Event>) + Send>;

/// An agent without threads: the test decides when what happens.
struct Agent {
    state: PathBuf,
    sender: SensorSender,
    worker: Worker<Tap>,
    epoch: Epoch,
    damage: bool,
}

impl Agent {
    fn start(state: &Path, config: BufferConfig) -> Self {
        let paths = SpoolPaths::in_state_dir(state);
        let OpenedSpool { spool, ledger, epoch, damage } = Spool::open(&paths, config, 1_000).unwrap();
        let (sender, queue) = intake::intake(ledger);
        let changes = Arc::new(Changes::default());
        let parts = Pipeline {
            config: PipelineConfig::default(),
            epoch,
            spool: Arc::new(spool),
            intake: sender.intake(),
            detector: Box::new(drop::<Vec<Event>>) as Tap,
            alerts: AlertMark::default(),
            counters: Arc::default(),
            shaper: Shaper::new(Arc::new(BudgetControl::new(BudgetConfig::default(), Arc::clone(&changes)))),
            changes,
            stop: CancellationToken::new(),
        };
        let mut worker = Worker::new(parts, queue);
        worker.own_event(EventBody::AgentStart(Box::new(AgentStart {
            agent_version: "1".into(),
            boot_id: ByteString::default(),
            sensors: Vec::new(),
        })));
        Self { state: state.to_owned(), sender, worker, epoch, damage: damage.is_some() }
    }

    fn send(&self, count: usize) {
        send(&self.sender, count);
    }

    fn pump(&mut self, count: usize) {
        for _ in 0..count {
            let Ok(observation) = self.worker.queue.try_recv() else { break };
            self.worker.observe(observation);
        }
    }

    fn store(&mut self) {
        self.worker.next_losses = Instant::now();
        self.worker.close();
    }

    fn spool(&self) -> &Spool {
        &self.worker.parts.spool
    }

    fn account(&self, epoch: Epoch) -> EpochAccount {
        let status = self.spool().status(&self.sender.intake().counters());
        status.accounts.into_iter().find(|account| account.epoch == epoch).unwrap()
    }

    fn accounts(&self) -> Vec<EpochAccount> {
        self.spool().status(&self.sender.intake().counters()).accounts
    }

    /// What `kill -9` leaves: the files as they are now. The copy is where the next life starts.
    fn kill(self, to: &Path) {
        copy_tree(&self.state, to);
    }

    /// A clean stop.
    fn stop(mut self) {
        self.pump(usize::MAX);
        self.store();
        self.spool().flush(&self.sender.intake().counters()).unwrap();
    }
}

fn send(sender: &SensorSender, count: usize) {
    for index in 0..count {
        let process = ProcessId { pid: u32::try_from(index).unwrap(), start_time: Timestamp(7) };
        // Hardly compressible, so that a few batches fill a small buffer.
        let noise = Digest::of(&index.to_le_bytes()).to_string();
        sender.send(Observation {
            time: Timestamp(1_000 + index as i64),
            origin: Origin::AgentNetlink,
            body: EventBody::ProcessExit(ProcessExit {
                process,
                executable: noise.as_str().into(),
                exit_code: Some(0),
                signal: None,
                duration_ns: None,
                cpu_time_ns: None,
            }),
        });
    }
}

/// What the server would have: each batch once.
#[derive(Default)]
struct Server {
    seen: HashSet<(u64, u64)>,
    rows: BTreeMap<Epoch, u64>,
    losses: BTreeMap<(Epoch, LossStage, LossReason), u64>,
}

impl Server {
    fn store(&mut self, batch: &LeasedBatch) {
        let (header, events) = batch::decode(&batch.frame).unwrap();
        if !self.seen.insert((header.epoch.0, header.batch_sequence.0)) {
            return;
        }
        for event in events {
            match event.body {
                EventBody::AgentStart(_) => {}
                EventBody::SensorLoss(loss) => {
                    *self.losses.entry((loss.epoch, loss.stage, loss.reason)).or_default() += loss.count;
                }
                _ => *self.rows.entry(event.key.epoch).or_default() += 1,
            }
        }
    }

    /// Takes up to `count` batches; `settled` of them reach the agent as an answer.
    fn take(&mut self, agent: &Agent, count: usize, settled: usize) {
        let lease = agent.spool().lease(count, usize::MAX).unwrap();
        lease.batches.iter().for_each(|batch| self.store(batch));
        let answers: Vec<_> = lease
            .batches
            .into_iter()
            .take(settled)
            .map(|batch| (batch.into_parts().0, Settlement::Delivered))
            .collect();
        agent.spool().settle(&answers).unwrap();
        agent.spool().rollback();
    }

    fn lost(&self, epoch: Epoch) -> u64 {
        self.losses.iter().filter(|((of, ..), _)| *of == epoch).map(|(_, count)| count).sum()
    }

    fn rows(&self, epoch: Epoch) -> u64 {
        self.rows.get(&epoch).copied().unwrap_or(0)
    }

    /// Delivers everything there is and checks every epoch.
    fn drain_and_check(&mut self, agent: &mut Agent) {
        agent.pump(usize::MAX);
        for _ in 0..3 {
            agent.store();
            self.take(agent, usize::MAX, usize::MAX);
        }
        for account in agent.accounts() {
            let (epoch, found) = (account.epoch, self.rows(account.epoch) + self.lost(account.epoch));
            assert_eq!(account.generated(), found, "{account:?}\nrows {}\n{:?}", self.rows(epoch), self.losses);
            assert!(account.is_settled(), "{account:?}");
            assert_eq!((account.waiting(), account.in_flight(), account.pending.total()), (0, 0, 0));
        }
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[test]
fn a_kill_loses_exactly_what_was_not_in_a_durable_batch_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&dir.path().join("a"), ROOMY);
    let first = agent.epoch;
    agent.send(100);
    agent.pump(100);
    agent.store();
    agent.send(30);
    agent.pump(20);
    agent.sender.lost(LossStage::Sensor, LossReason::QueueFull, 7);
    agent.kill(&dir.path().join("b"));

    let mut server = Server::default();
    let mut agent = Agent::start(&dir.path().join("b"), ROOMY);
    assert!(agent.epoch > first);
    server.drain_and_check(&mut agent);
    assert_eq!(server.rows(first), 100);
    let expected = BTreeMap::from([
        ((first, LossStage::Sensor, LossReason::QueueFull), 7),
        ((first, LossStage::Pipeline, LossReason::AgentKilled), 30),
    ]);
    assert_eq!(server.losses, expected);
}

#[test]
fn a_clean_stop_loses_nothing_and_epochs_grow() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::default();
    let mut last = Epoch(0);
    for round in 0..3 {
        let mut agent = Agent::start(dir.path(), ROOMY);
        assert!(agent.epoch > last, "the clock stands still, epochs do not");
        last = agent.epoch;
        agent.send(50 + round);
        agent.pump(10);
        agent.stop();
    }
    let mut agent = Agent::start(dir.path(), ROOMY);
    server.drain_and_check(&mut agent);
    assert_eq!(server.losses, BTreeMap::new());
    assert_eq!(server.rows.values().copied().collect::<Vec<_>>(), [50, 51, 52]);
}

#[test]
fn what_a_full_buffer_evicts_is_announced_and_so_is_a_lost_announcement() {
    let dir = tempfile::tempdir().unwrap();
    let config = BufferConfig::in_sled(20_000);
    let mut agent = Agent::start(dir.path(), config);
    for _ in 0..30 {
        agent.send(100);
        agent.pump(100);
        agent.store();
    }
    let account = agent.account(agent.epoch);
    assert!(account.booked.get(LossStage::Buffer, LossReason::BufferFull) > 1_000, "{account:?}");
    let mut server = Server::default();
    server.drain_and_check(&mut agent);
    assert_eq!(server.rows(agent.epoch) + server.lost(agent.epoch), 3_000);
}

#[test]
fn a_rejected_batch_is_counted_by_its_events_and_its_announcements_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(dir.path(), ROOMY);
    agent.send(40);
    agent.pump(40);
    agent.sender.lost(LossStage::Sensor, LossReason::QueueFull, 5);
    agent.store();
    let lease = agent.spool().lease(8, usize::MAX).unwrap();
    assert_eq!(lease.batches.len(), 1);
    let answers: Vec<_> = lease.batches.into_iter().map(|batch| (batch.into_parts().0, Settlement::Rejected)).collect();
    agent.spool().settle(&answers).unwrap();
    let mut server = Server::default();
    server.drain_and_check(&mut agent);
    let expected = BTreeMap::from([
        ((agent.epoch, LossStage::Sensor, LossReason::QueueFull), 5),
        ((agent.epoch, LossStage::Server, LossReason::Rejected), 40),
    ]);
    assert_eq!(server.losses, expected);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(dir.path(), ROOMY);
    agent.send(40_000);
    let mut server = Server::default();
    server.drain_and_check(&mut agent);
    let dropped = server.losses[&(agent.epoch, LossStage::Pipeline, LossReason::QueueFull)];
    assert_eq!(server.rows(agent.epoch) + dropped, 40_000);
    assert!(dropped > 0);
}

#[test]
fn a_batch_that_cannot_be_written_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(dir.path(), ROOMY);
    agent.send(25);
    agent.pump(25);
    let Output::Inline(writer) = &mut agent.worker.output else { panic!("no thread here") };
    writer.is_failing = true;
    // The buffer's folder is gone and cannot be made again: every attempt fails.
    let buffer = dir.path().join("buffer");
    agent.spool().fail_for_test();
    fs::rename(&buffer, dir.path().join("elsewhere")).unwrap();
    fs::write(&buffer, b"in the way").unwrap();
    agent.store();
    assert_eq!(agent.worker.parts.counters.batches_given_up.load(Ordering::Relaxed), 1);
    fs::remove_file(&buffer).unwrap();
    fs::rename(dir.path().join("elsewhere"), &buffer).unwrap();
    std::thread::sleep(Duration::from_millis(260));
    agent.send(5);
    let mut server = Server::default();
    server.drain_and_check(&mut agent);
    assert_eq!(server.rows(agent.epoch), 5);
    assert_eq!(server.losses[&(agent.epoch, LossStage::Buffer, LossReason::WriteFailed)], 25);
}

#[test]
fn a_damaged_store_costs_what_waited_in_it_and_not_one_event_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::default();
    let mut agent = Agent::start(dir.path(), ROOMY);
    let first = agent.epoch;
    for _ in 0..4 {
        agent.send(50);
        agent.pump(50);
        agent.store();
    }
    server.take(&agent, 1, 1);
    agent.sender.lost(LossStage::Sensor, LossReason::QueueFull, 3);
    agent.stop();
    for entry in fs::read_dir(dir.path().join("buffer/sled")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::write(path, vec![0x5a; 5_000]).unwrap();
        }
    }
    let mut agent = Agent::start(dir.path(), ROOMY);
    assert!(agent.damage);
    server.drain_and_check(&mut agent);
    assert_eq!(server.rows(first), 50);
    assert_eq!(server.losses[&(first, LossStage::Buffer, LossReason::StoreDamaged)], 150);
    assert_eq!(server.losses[&(first, LossStage::Sensor, LossReason::QueueFull)], 3);
    assert!(dir.path().join("buffer.damaged-0").is_dir());
}

#[test]
fn a_store_that_silently_lost_its_end_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::default();
    let mut agent = Agent::start(dir.path(), ROOMY);
    let first = agent.epoch;
    for round in 0..40 {
        agent.send(200);
        agent.pump(200);
        agent.store();
        if round == 10 {
            server.take(&agent, usize::MAX, usize::MAX);
        }
    }
    agent.stop();
    let log = dir.path().join("buffer/sled/db");
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() * 2 / 3]).unwrap();
    for entry in fs::read_dir(dir.path().join("buffer/sled")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("snap") {
            fs::remove_file(path).unwrap();
        }
    }
    let mut agent = Agent::start(dir.path(), ROOMY);
    assert!(agent.damage);
    server.drain_and_check(&mut agent);
    assert_eq!(server.rows(first) + server.lost(first), 8_000);
}

#[test]
fn an_event_over_the_limits_is_counted_and_takes_no_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(dir.path(), ROOMY);
    agent.send(1);
    let mut too_many = process_start();
    too_many.arguments = vec![ByteString::default(); 1_000];
    let body = EventBody::ProcessStart(Box::new(too_many));
    agent.sender.send(Observation { time: Timestamp(1), origin: Origin::Replay, body });
    agent.send(1);
    let mut server = Server::default();
    server.drain_and_check(&mut agent);
    assert_eq!(server.rows(agent.epoch), 2);
    assert_eq!(server.losses[&(agent.epoch, LossStage::Pipeline, LossReason::Rejected)], 1);
}

fn process_start() -> picket_common::event::ProcessStart {
    use picket_common::event::{ProcessStart, StreamKind};
    ProcessStart {
        process: ProcessId { pid: 1, start_time: Timestamp(1) },
        parent: None,
        executable: "/bin/true".into(),
        arguments: Vec::new(),
        arguments_truncated: false,
        working_directory: ByteString::default(),
        user_id: None,
        group_id: None,
        user_name: ByteString::default(),
        session_id: None,
        has_terminal: None,
        standard_streams: [StreamKind::Unknown; 3],
        ancestors: Vec::new(),
        executable_deleted: None,
        seeded: false,
        cgroup_id: None,
        cgroup: ByteString::default(),
        executable_file: None,
        script: ByteString::default(),
    }
}

#[test]
fn more_epochs_than_are_remembered_lose_no_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut accounts = accounts::Accounts::default();
    let mut generated = 0;
    for round in 0..(accounts::EPOCHS_MAX as u64 + 40) {
        let (epoch, _) = accounts.begin(Epoch(1), None);
        let mut counters = ledger::IntakeCounters::new(epoch);
        counters.accepted = round;
        generated += round;
        accounts = accounts::Accounts::settle(&accounts, &accounts::Accounts::default(), Some(&counters));
    }
    assert_eq!(accounts.iter().count(), accounts::EPOCHS_MAX);
    assert_eq!(accounts.iter().map(EpochAccount::generated).sum::<u64>(), generated);
    assert_eq!(accounts.iter().map(|account| account.pending.total()).sum::<u64>(), generated);
    drop(dir);
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Pump(usize),
    Store,
    SensorLoss(u64),
    /// Batches the server takes, and how many of its answers arrive.
    Deliver(usize, usize),
    Kill,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..120_usize).prop_map(Step::Send),
        4 => (0..150_usize).prop_map(Step::Pump),
        3 => Just(Step::Store),
        1 => (1..9_u64).prop_map(Step::SensorLoss),
        3 => (0..4_usize, 0..4_usize).prop_map(|(batches, answers)| Step::Deliver(batches, answers)),
        2 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Killed at any point, with a buffer too small, with answers lost on the way: every event of every epoch is a row
    /// or in a count, and no event is both.
    #[test]
    fn every_event_is_accounted_for(steps in prop::collection::vec(step(), 1..50), ceiling in 6_000..100_000_u64) {
        let config = BufferConfig::in_sled(ceiling);
        let dir = tempfile::tempdir().unwrap();
        let mut life = 0;
        let mut server = Server::default();
        let mut agent = Agent::start(&dir.path().join("0"), config);
        for step in steps {
            match step {
                Step::Send(count) => agent.send(count),
                Step::Pump(count) => agent.pump(count),
                Step::Store => agent.store(),
                Step::SensorLoss(count) => agent.sender.lost(LossStage::Sensor, LossReason::QueueFull, count),
                Step::Deliver(batches, answers) => server.take(&agent, batches, answers),
                Step::Kill => {
                    life += 1;
                    let next = dir.path().join(life.to_string());
                    agent.kill(&next);
                    agent = Agent::start(&next, config);
                    prop_assert!(!agent.damage);
                }
                Step::Stop => {
                    let state = agent.state.clone();
                    agent.stop();
                    agent = Agent::start(&state, config);
                    prop_assert!(!agent.damage);
                }
            }
        }
        server.drain_and_check(&mut agent);
    }
}

#[test]
fn batches_written_by_a_thread_are_all_there_in_order_with_each_loss_announced_once() {
    let state = tempfile::tempdir().unwrap();
    let agent = Agent::start(state.path(), ROOMY);
    let Agent { mut worker, epoch, sender, .. } = agent;
    worker.parts.config.batch_events_max = 50;
    let (spool, stop) = (Arc::clone(&worker.parts.spool), worker.parts.stop.clone());
    let start = AgentStart { agent_version: "1".into(), boot_id: ByteString::default(), sensors: Vec::new() };
    let thread = std::thread::spawn(move || worker.run(start));
    for _ in 0..20 {
        send(&sender, 100);
        sender.lost(LossStage::Sensor, LossReason::QueueFull, 3);
    }
    stop.cancel();
    thread.join().unwrap().unwrap();
    let account = {
        let status = spool.status(&sender.intake().counters());
        status.accounts.into_iter().find(|account| account.epoch == epoch).unwrap()
    };
    let mut server = Server::default();
    let lease = spool.lease(1_000, usize::MAX).unwrap();
    let sequences: Vec<u64> =
        lease.batches.iter().map(|batch| batch::decode(&batch.frame).unwrap().0.batch_sequence.0).collect();
    assert!(sequences.is_sorted() && sequences.len() >= 40, "{sequences:?}");
    lease.batches.iter().for_each(|batch| server.store(batch));
    assert_eq!(server.rows[&epoch], 2_000);
    assert_eq!(server.losses[&(epoch, LossStage::Sensor, LossReason::QueueFull)], 60);
    assert_eq!(account.in_flight(), 0);
}

#[test]
fn a_writer_that_ends_ends_the_pipeline_and_no_event_is_forgotten() {
    let state = tempfile::tempdir().unwrap();
    let agent = Agent::start(state.path(), ROOMY);
    let Agent { mut worker, epoch, sender, .. } = agent;
    worker.parts.config.batch_events_max = 10;
    // What is in the buffer when it happens stays there.
    send(&sender, 30);
    while let Ok(observation) = worker.queue.try_recv() {
        worker.observe(observation);
    }
    worker.close();
    worker.output = Output::failing();
    // Nobody stops it.
    let start = AgentStart { agent_version: "1".into(), boot_id: ByteString::default(), sensors: Vec::new() };
    let thread = std::thread::spawn(move || worker.run(start));
    send(&sender, 70);
    let error = thread.join().unwrap().unwrap_err();
    let PipelineError::WriterEnded { events } = error;
    assert!(events <= 70 && error.to_string().contains("ended unexpectedly"), "{error}");
    // Sensors still hand over; nobody takes it any more, and it is counted all the same.
    send(&sender, 5);
    drop(sender);
    let mut next = Agent::start(state.path(), ROOMY);
    let account = next.account(epoch);
    assert_eq!((account.accepted, account.waiting(), account.in_flight()), (105, 30, 0));
    assert_eq!(account.booked.total(), 75);
    let mut server = Server::default();
    server.drain_and_check(&mut next);
}
