use picket_common::batch::BatchBuilder;
use picket_common::chain::ChainPlace;
use picket_common::event::{Event, EventBody, LossReason, LossStage, Origin, ProcessExit, ProcessId, Timestamp};
use picket_common::feature::Subject;
use picket_common::id::{BatchSequence, Digest, Epoch, EventKey, Sequence};
use picket_proto::v1;

use super::*;
use crate::buffer::{BufferConfig, Priority};
use crate::identity::tests::enrolled;
use crate::model_store::tests::{key, model_file};
use crate::pipeline::ledger::{IntakeCounters, Ledger};
use crate::pipeline::spool::{OpenedSpool, PreparedBatch, SpoolPaths};
use crate::pipeline::tag::BatchTag;
use crate::test_server::{Ingest, TestServer, wait_for};

const EVENTS_PER_BATCH: u64 = 10;

/// An agent without sensors: the test fills the spool.
struct Fixture {
    dir: tempfile::TempDir,
    spool: Arc<Spool>,
    ledger: Ledger,
    epoch: Epoch,
    batches: u64,
    models: Arc<Mutex<ModelStore>>,
    state: Arc<UplinkState>,
    finish: CancellationToken,
    stop: CancellationToken,
    status: watch::Sender<Arc<Snapshot>>,
}

impl Fixture {
    async fn enrolled_at(server: &TestServer) -> Self {
        let identity = enrolled(server).await;
        let fixture = Self::new();
        IdentityStore::in_state_dir(fixture.dir.path()).save(&identity).unwrap();
        fixture
    }

    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = BufferConfig::in_sled(64 << 20);
        let opened = Spool::open(&SpoolPaths::in_state_dir(dir.path()), config, 1).unwrap();
        let OpenedSpool { spool, ledger, epoch, .. } = opened;
        let models = ModelStore::open(&dir.path().join("models"), Vec::new()).unwrap();
        Self {
            spool: Arc::new(spool),
            ledger,
            epoch,
            batches: 0,
            models: Arc::new(Mutex::new(models)),
            state: Arc::default(),
            finish: CancellationToken::new(),
            stop: CancellationToken::new(),
            status: watch::channel(Arc::default()).0,
            dir,
        }
    }

    fn counters(&self) -> IntakeCounters {
        *self.ledger.counters()
    }

    fn append(&mut self, batches: u64) {
        for _ in 0..batches {
            let mut builder = BatchBuilder::new();
            for index in 0..EVENTS_PER_BATCH {
                self.ledger.accept(1);
                let sequence = Sequence(self.batches * EVENTS_PER_BATCH + index);
                let body = EventBody::ProcessExit(ProcessExit {
                    process: ProcessId { pid: 1, start_time: Timestamp(1) },
                    executable: "/bin/true".into(),
                    exit_code: None,
                    signal: None,
                    duration_ns: None,
                    cpu_time_ns: None,
                });
                let key = EventKey { epoch: self.epoch, sequence };
                builder.push(&Event { key, time: Timestamp(1), origin: Origin::Replay, body }).unwrap();
            }
            let frame = builder.finish(self.epoch, BatchSequence(self.batches)).unwrap();
            let batch = PreparedBatch {
                frame,
                priority: Priority::Normal,
                event_count: EVENTS_PER_BATCH as u32,
                tag: BatchTag {
                    epoch: self.epoch,
                    sensor_events: EVENTS_PER_BATCH as u32,
                    closed_unix_ns: 1,
                    chain: ChainPlace::unlinked(BatchSequence(self.batches)),
                    losses: Vec::new(),
                },
                sequence: self.batches,
            };
            self.spool.append(&batch, &self.counters()).unwrap();
            self.batches += 1;
        }
    }

    fn uplink(&self) -> Uplink {
        Uplink {
            config: UplinkConfig {
                backoff_max_ms: 100,
                acknowledgement_timeout_ms: 1000,
                check_in_interval_ms: 50,
                ..UplinkConfig::default()
            },
            identities: IdentityStore::in_state_dir(self.dir.path()),
            spool: Arc::clone(&self.spool),
            models: Some(Arc::clone(&self.models)),
            status: self.status.subscribe(),
            state: Arc::clone(&self.state),
            pace: Pace::default(),
            host: Arc::default(),
            finish: self.finish.clone(),
            stop: self.stop.clone(),
        }
    }

    fn start(&self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(self.uplink().run())
    }

    fn delivered(&self) -> u64 {
        let status = self.spool.status(&self.counters());
        status.accounts.iter().map(|account| account.delivered).sum()
    }

    /// Ends the uplink as the agent does, and checks that nothing waits.
    async fn finish(&self, task: tokio::task::JoinHandle<()>) {
        self.finish.cancel();
        tokio::time::timeout(Duration::from_secs(10), task).await.expect("the uplink ends").unwrap();
        assert_eq!(self.spool.status(&self.counters()).buffer.records, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_delivered_once_and_forgotten() {
    let server = TestServer::start().await;
    let mut fixture = Fixture::enrolled_at(&server).await;
    fixture.append(100);
    let task = fixture.start();
    server.wait_for("first hundred", |script| script.rows == 1_000).await;
    fixture.append(7);
    server.wait_for("what came later", |script| script.rows == 1_070).await;
    fixture.finish(task).await;
    assert_eq!((server.script.lock().duplicates, fixture.delivered()), (0, 1_070));
    let status = fixture.state.status();
    assert_eq!((status.batches_sent, status.batches_accepted, status.connections), (107, 107, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_is_kept_and_what_was_not_acknowledged_comes_again() {
    let server = TestServer::start().await;
    let mut fixture = Fixture::enrolled_at(&server).await;
    fixture.append(90);
    server.script.lock().ingest = Ingest::Silent;
    let task = fixture.start();
    server.wait_for("full window", |script| script.unanswered == delivery::WINDOW_BATCHES).await;
    // No answer in time: a new connection, the same batches, no more than the window.
    server.wait_for("second session", |script| script.sessions >= 2).await;
    assert!(server.script.lock().batches.len() <= delivery::WINDOW_BATCHES);
    assert_eq!(fixture.delivered(), 0);
    server.script.lock().ingest = Ingest::Accept;
    server.wait_for("everything", |script| script.rows == 900).await;
    wait_for("acknowledgements", || fixture.delivered() == 900).await;
    fixture.finish(task).await;
    assert!(server.script.lock().duplicates >= delivery::WINDOW_BATCHES as u64);
    assert_eq!((server.script.lock().rows, fixture.delivered()), (900, 900));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_after_the_server_ends_streams_and_after_it_was_gone() {
    let server = TestServer::start().await;
    let mut fixture = Fixture::enrolled_at(&server).await;
    fixture.append(40);
    server.script.lock().ingest = Ingest::EndAfter(9);
    let task = fixture.start();
    server.wait_for("third session", |script| script.sessions >= 3).await;
    server.stop();
    wait_for("back-off", || fixture.state.status().phase == UplinkPhase::BackingOff).await;
    assert_ne!(fixture.state.status().last_error, "");
    fixture.append(5);
    server.script.lock().ingest = Ingest::Accept;
    let (authority, script) = (Arc::clone(&server.authority), Arc::clone(&server.script));
    let server = TestServer::start_at(server.address, authority, script).await;
    server.wait_for("everything", |script| script.rows == 450).await;
    fixture.finish(task).await;
    assert_eq!((server.script.lock().rows, fixture.delivered()), (450, 450));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_batch_is_forgotten_and_counted() {
    let server = TestServer::start().await;
    let mut fixture = Fixture::enrolled_at(&server).await;
    fixture.append(3);
    server.script.lock().ingest = Ingest::Reject;
    let task = fixture.start();
    wait_for("rejections", || fixture.state.status().batches_rejected == 3).await;
    fixture.finish(task).await;
    let status = fixture.spool.status(&fixture.counters());
    let account = status.accounts.last().unwrap();
    assert_eq!((account.delivered, account.booked.get(LossStage::Server, LossReason::Rejected)), (0, 30));
    assert_eq!(account.pending.total(), 30, "to be announced with the next batch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_it_ends_at_once_when_told_to() {
    let server = TestServer::start().await;
    let mut fixture = Fixture::enrolled_at(&server).await;
    server.stop();
    fixture.append(3);
    let task = fixture.start();
    wait_for("back-off", || fixture.state.status().phase == UplinkPhase::BackingOff).await;
    fixture.finish.cancel();
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("the uplink ends").unwrap();
    assert_eq!(fixture.spool.status(&fixture.counters()).buffer.records, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_enrols_later_starts_to_deliver() {
    let server = TestServer::start().await;
    let mut fixture = Fixture::new();
    fixture.append(2);
    let task = fixture.start();
    wait_for("phase", || fixture.state.status().phase == UplinkPhase::NotEnrolled).await;
    let identity = enrolled(&server).await;
    IdentityStore::in_state_dir(fixture.dir.path()).save(&identity).unwrap();
    server.wait_for("events", |script| script.rows == 20).await;
    fixture.finish(task).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_authority_gets_nothing() {
    let server = TestServer::start().await;
    let mut fixture = Fixture::enrolled_at(&server).await;
    let imposter = TestServer::start().await;
    let store = IdentityStore::in_state_dir(fixture.dir.path());
    let mut identity = store.load().unwrap().unwrap();
    identity.server = imposter.address();
    store.save(&identity).unwrap();
    fixture.append(1);
    let task = fixture.start();
    wait_for("refusal", || fixture.state.status().last_error.contains("invalid peer certificate")).await;
    assert_eq!(imposter.script.lock().sessions, 0);
    fixture.stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_refused_in_clear_words() {
    let server = TestServer::start().await;
    let other = TestServer::start().await;
    let mut fixture = Fixture::enrolled_at(&other).await;
    let store = IdentityStore::in_state_dir(fixture.dir.path());
    let mut identity = store.load().unwrap().unwrap();
    identity.server = server.address();
    identity.trust_bundle = enrolled(&server).await.trust_bundle.clone();
    store.save(&identity).unwrap();
    fixture.append(1);
    let task = fixture.start();
    wait_for("refusal", || fixture.state.status().last_error.contains("not take this host's certificate")).await;
    assert_eq!((server.script.lock().sessions, fixture.delivered()), (0, 0));
    // The connection that does stand has the errors of its calls, not this one.
    identity.server = other.address();
    identity.trust_bundle = enrolled(&other).await.trust_bundle.clone();
    store.save(&identity).unwrap();
    other.wait_for("events", |script| script.rows == 10).await;
    fixture.finish(task).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_in_time_and_used() {
    let server = TestServer::start().await;
    server.script.lock().certificate_life_s = 2;
    let mut fixture = Fixture::enrolled_at(&server).await;
    let store = IdentityStore::in_state_dir(fixture.dir.path());
    let before = store.load().unwrap().unwrap();
    let task = fixture.start();
    server.wait_for("renewal", |script| script.renewals == 1).await;
    wait_for("new identity", || store.load().unwrap().unwrap().expires_unix_s() > before.expires_unix_s()).await;
    let after = store.load().unwrap().unwrap();
    assert_ne!(after.key, before.key);
    server.wait_for("session with the new certificate", |script| script.sessions >= 2).await;
    fixture.append(1);
    server.wait_for("events", |script| script.rows == 10).await;
    fixture.finish(task).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_says_what_to_do_and_enrolling_again_goes_on_without_a_loss() {
    let server = TestServer::start().await;
    server.script.lock().certificate_life_s = 1;
    let mut fixture = Fixture::enrolled_at(&server).await;
    let store = IdentityStore::in_state_dir(fixture.dir.path());
    let identity = store.load().unwrap().unwrap();
    fixture.append(3);
    // The host was off until it was too late.
    wait_for("expiry", || identity.is_expired(SystemTime::now())).await;
    let task = fixture.start();
    wait_for("the reason", || fixture.state.status().last_error.contains("certificate has expired")).await;
    assert!(fixture.state.status().last_error.contains("picket-agent enroll --force"));
    assert_eq!(server.script.lock().sessions, 0);
    server.script.lock().certificate_life_s = 86_400;
    store.save(&enrolled(&server).await).unwrap();
    server.wait_for("events", |script| script.rows == 30).await;
    fixture.finish(task).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_says_of_trust_is_kept_and_a_renewal_it_wants_is_made_at_once() {
    let server = TestServer::start().await;
    let other = TestServer::start().await;
    let fixture = Fixture::enrolled_at(&server).await;
    let store = IdentityStore::in_state_dir(fixture.dir.path());
    let before = store.load().unwrap().unwrap();
    let other_anchor = enrolled(&other).await.trust_bundle[0].to_vec();
    let both = vec![before.trust_bundle[0].to_vec(), other_anchor];
    let task = fixture.start();
    server.say_trust(v1::Trust { trust_bundle_der: both.clone(), renew: false });
    wait_for("both anchors", || store.load().unwrap().unwrap().trust_bundle.len() == 2).await;
    let kept = store.load().unwrap().unwrap();
    assert_eq!(
        (kept.key.clone(), kept.certificate.clone()),
        (before.key.clone(), before.certificate),
        "nothing else changes"
    );
    server
        .wait_for("the anchors in a report", |script| {
            script.reports.iter().any(|report| report.trust_anchors_sha256.len() == 2)
        })
        .await;
    // What cannot be trusted changes nothing.
    for bad in [Vec::new(), vec![b"rubbish".to_vec()], vec![both[0].clone(); 17]] {
        server.say_trust(v1::Trust { trust_bundle_der: bad, renew: false });
    }
    server.say_trust(v1::Trust { trust_bundle_der: both, renew: true });
    server.wait_for("renewal", |script| script.renewals >= 1).await;
    wait_for("a new key", || store.load().unwrap().unwrap().key != before.key).await;
    fixture.finish(task).await;
}

fn desired(generation: u64, bytes: &[u8]) -> v1::DesiredState {
    let model = v1::DesiredModel {
        subject: "connection".to_owned(),
        model_digest: Digest::of(bytes).to_string(),
        model_bytes: bytes.len() as u64,
        version: generation,
    };
    let unknown = v1::DesiredModel { subject: "weather".to_owned(), ..model.clone() };
    v1::DesiredState { generation, models: vec![unknown, model] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_desired_model_is_fetched_resumed_verified_and_put_in_force() {
    let server = TestServer::start().await;
    let file = model_file(Subject::Connection, 1.0, &key(1));
    {
        let mut script = server.script.lock();
        script.model_keys = vec![key(1).verifying_key().as_bytes().to_vec()];
        script.models.insert(Digest::of(&file).to_string(), file.clone());
        script.cut_fetch_after = Some(500);
    }
    let fixture = Fixture::enrolled_at(&server).await;
    let task = fixture.start();
    server.desired.send_replace(Some(desired(1, &file)));
    let active = fixture.models.lock().active();
    wait_for("model", || active.digest(Subject::Connection) == Some(Digest::of(&file))).await;
    assert_eq!(server.script.lock().fetch_offsets, [0, 500], "the second fetch goes on where the first ended");
    assert!(fixture.dir.path().join("models").join(format!("{}.model", Digest::of(&file))).exists());
    fixture.finish(task).await;
    let reports = std::mem::take(&mut server.script.lock().reports);
    assert!(reports[0].inventory.as_ref().is_some_and(|inventory| !inventory.kernel_release.is_empty()));
    assert!(reports[0].status.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_model_is_refused_and_batches_go_on() {
    let server = TestServer::start().await;
    let file = model_file(Subject::Connection, 1.0, &key(2));
    {
        let mut script = server.script.lock();
        script.model_keys = vec![key(1).verifying_key().as_bytes().to_vec()];
        script.models.insert(Digest::of(&file).to_string(), file.clone());
    }
    let mut fixture = Fixture::enrolled_at(&server).await;
    let task = fixture.start();
    let active = fixture.models.lock().active();
    let error = || active.all()[1].last_error.clone().unwrap_or_default();
    server.desired.send_replace(Some(desired(3, &file)));
    wait_for("refusal of a foreign key", || error().contains("not trusted")).await;
    server.desired.send_replace(Some(desired(4, b"there is no such model")));
    wait_for("refusal of what is not there", || error().contains("no such model")).await;
    server.desired.send_replace(Some(desired(2, &file)));
    wait_for("refusal of an older generation", || error().contains("generation 4")).await;
    assert_eq!(active.digest(Subject::Connection), None);
    fixture.append(1);
    server.wait_for("events", |script| script.rows == 10).await;
    fixture.finish(task).await;
    assert_eq!(server.script.lock().sessions, 1, "none of it cost the connection");
}

/// The catch-up after a long time offline is bounded by the window, not by the backlog.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_never_exceed_the_window() {
    let server = TestServer::start().await;
    let mut fixture = Fixture::enrolled_at(&server).await;
    fixture.append(300);
    let task = fixture.start();
    let mut most = 0;
    while server.script.lock().rows < 3_000 {
        most = most.max(fixture.spool.status(&fixture.counters()).buffer.leased);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(most <= delivery::WINDOW_BATCHES as u64, "{most}");
    fixture.finish(task).await;
}
