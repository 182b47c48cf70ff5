//! A server's admin side in this process: real listener, metastore, log, lake and registry, on a free port; and a host
//! whose life is a script.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use picket_common::batch::BatchBuilder;
use picket_common::event::{ByteString, Event, EventBody, Origin, ProcessId, ProcessStart, StreamKind, Timestamp};
use picket_common::id::{BatchSequence, Epoch, EventId, EventKey, HostId, Sequence};
use picket_learn::gate::Policy;
use picket_proto::v1;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{ADMIN_STREAMS_MAX, AdminServices};
use crate::auth::{Auth, Role};
use crate::chain::Chains;
use crate::clock::UnixSeconds;
use crate::ctl::arguments::Arguments;
use crate::ctl::client::{Client, connect};
use crate::dataset::Datasets;
use crate::fleet::{Fleet, HostInventory};
use crate::ingest::{AgentRate, Ingest, Verdict};
use crate::label::Labels;
use crate::lake::{Lake, LakeConfig};
use crate::listener::{HostConnections, Listener, ListenerConfig, Timeouts, admin_tls};
use crate::losses::Losses;
use crate::metastore::Metastore;
use crate::pki::{Authorities, Enrollment, EnrollmentConfig, ServerCertificate};
use crate::registry::Registry;
use crate::release::Releases;
use crate::training::Trainings;
use crate::wal::{Wal, WalConfig};

const DAY: Duration = Duration::from_secs(86_400);
/// When the script begins.
const START_NS: i64 = 1_800_000_000_000_000_000;
const EPOCH: Epoch = Epoch(1_799_999_999_000_000_000);

pub(super) struct TestServer {
    pub(super) address: SocketAddr,
    pub(super) folder: TempDir,
    pub(super) host: HostId,
    pub(super) registry: Arc<Registry>,
    auth: Auth,
    ingest: Arc<Ingest>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl TestServer {
    pub(super) async fn start() -> Self {
        Self::start_with(Policy::default()).await
    }

    /// With a gate of this policy.
    pub(super) async fn start_with(policy: Policy) -> Self {
        let folder = TempDir::new().unwrap();
        let now = UnixSeconds::now();
        let authorities = Arc::new(Authorities::open(folder.path(), now).unwrap());
        let certificate = Arc::new(ServerCertificate::new(Arc::clone(&authorities), Vec::new(), DAY, now).unwrap());
        let metastore = Metastore::open(&folder.path().join("metadata.sqlite")).await.unwrap();
        let auth = Auth::new(metastore.clone());
        let wal = Arc::new(Wal::open(&folder.path().join("wal"), WalConfig::default()).unwrap());
        let lake_config = LakeConfig { threads: 2, ..LakeConfig::default() };
        let lake = Arc::new(Lake::open(&folder.path().join("lake"), Arc::clone(&wal), lake_config).await.unwrap());
        let registry = Arc::new(Registry::open(folder.path(), metastore.clone()).await.unwrap());
        let config = EnrollmentConfig { host_certificate_life: DAY, model_verifying_keys: vec![[3; 32]] };
        let enrollment = Arc::new(Enrollment::new(Arc::clone(&authorities), metastore.clone(), config));
        let host = enroll(&enrollment).await;
        let hosts = Arc::new(HostConnections::default());
        let fast = NonZeroU64::new(1 << 30).unwrap();
        let chains = Arc::new(Chains::new(metastore.clone(), Arc::clone(&wal)));
        let fleet = Arc::new(Fleet::new(metastore.clone(), hosts, registry.subscribe(), authorities));
        let ingest = Arc::new(Ingest::new(wal, AgentRate { bytes_per_second: fast, burst_bytes: fast }));
        let datasets = Datasets::open(folder.path(), metastore.clone(), Arc::clone(&lake)).unwrap();
        let services = AdminServices {
            auth: auth.clone(),
            enrollment,
            chains,
            losses: Losses::new(metastore.clone(), Arc::clone(&fleet), Arc::clone(&lake)),
            fleet,
            ingest: Arc::clone(&ingest),
            labels: Labels::new(metastore, Arc::clone(&lake)),
            lake,
            trainings: Arc::new(Trainings::new(datasets.clone(), Arc::clone(&registry))),
            releases: Releases::new(datasets.clone(), Arc::clone(&registry), policy),
            datasets,
            registry: Arc::clone(&registry),
        };
        let config = ListenerConfig {
            name: "admin",
            connections_max: 64,
            streams_max: ADMIN_STREAMS_MAX,
            connection_age: None,
            timeouts: Timeouts::default(),
            hosts: None,
        };
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
        let address = listener.address();
        let stop = CancellationToken::new();
        let tls = admin_tls(certificate).unwrap();
        let serving = tokio::spawn(listener.serve(tls, services.routes(), stop.clone()));
        Self { address, folder, host, registry, auth, ingest, stop, serving }
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }

    /// A file with a new API token of this role.
    pub(super) async fn token_file(&self, role: Role) -> PathBuf {
        let token = self.auth.create_token(role.name(), role, UnixSeconds::now()).await.unwrap();
        let path = self.folder.path().join(format!("{role}.token"));
        std::fs::write(&path, token.as_bytes()).unwrap();
        path
    }

    /// The beginning of a command line for an operator of this role.
    pub(super) async fn command_line(&self, role: Role) -> Vec<String> {
        let file = |path: PathBuf| path.to_str().unwrap().to_owned();
        let (ca, token) = (file(self.folder.path().join("ca.pem")), file(self.token_file(role).await));
        ["picketctl", "--server", &self.address.to_string(), "--ca", &ca, "--token-file", &token]
            .map(str::to_owned)
            .into()
    }

    /// A client of an operator of this role.
    pub(super) async fn client(&self, role: Role) -> Client {
        let mut line = self.command_line(role).await;
        line.extend(["host", "list"].map(str::to_owned));
        connect(&Arguments::try_parse_from(line).unwrap()).await.unwrap()
    }

    /// Takes events in, as an agent would deliver them.
    pub(super) async fn deliver(&self, events: &[Event]) {
        let stream = self.ingest.open_stream(self.host).unwrap();
        for events in events.chunks(100) {
            let mut builder = BatchBuilder::new();
            for event in events {
                builder.push(event).unwrap();
            }
            let first = events[0].key;
            let sequence = BatchSequence(first.sequence.0 / 100);
            let frame = builder.finish(first.epoch, sequence).unwrap();
            assert_eq!(stream.deliver(frame.into()).await.unwrap(), Verdict::Accepted);
        }
    }
}

async fn enroll(enrollment: &Enrollment) -> HostId {
    let now = UnixSeconds::now();
    let issued = enrollment.create_token("admin", DAY, 1, now).await.unwrap();
    let token = issued.text.rsplit_once('.').unwrap().0;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let inventory = HostInventory { hostname: "ada-laptop\u{1b}[2J".to_owned(), ..HostInventory::default() };
    enrollment.enroll(token, request.der(), inventory, now).await.unwrap().host
}

/// One scripted event, and what it was.
#[derive(Clone)]
pub(super) struct Scripted {
    pub(super) event: Event,
    pub(super) attack: bool,
    pub(super) group: String,
}

/// `groups` pieces of work of six process starts each, a minute apart; every third one is an attack.
pub(super) fn script(groups: u64) -> Vec<Scripted> {
    let mut scripted = Vec::new();
    for group in 0..groups {
        let attack = group % 3 == 2;
        for step in 0..6 {
            let sequence = scripted.len() as u64;
            let time = Timestamp(START_NS + (group as i64) * 60_000_000_000 + step * 700_000_000 + sequence as i64);
            let body = EventBody::ProcessStart(Box::new(start(attack, group, step, time)));
            let key = EventKey { epoch: EPOCH, sequence: Sequence(sequence) };
            let event = Event { key, time, origin: Origin::Replay, body };
            let kind = if attack { "attack" } else { "work" };
            scripted.push(Scripted { event, attack, group: format!("{kind}-{group}") });
        }
    }
    scripted
}

fn start(attack: bool, group: u64, step: i64, time: Timestamp) -> ProcessStart {
    let (executable, arguments, parent, streams) = if attack {
        let name = format!("/tmp/.x{group}/kworker{step}");
        let arguments = vec!["-i".to_owned(), format!("{:016x}", (group * 7919 + step as u64) * 0x9e37_79b9)];
        (name, arguments, "/tmp/.x/dropper", [StreamKind::Socket; 3])
    } else {
        let tools = ["ls", "grep", "cc", "make", "cat", "sed"];
        let tool = tools[(group as usize + step as usize) % tools.len()];
        let arguments = vec!["-l".to_owned(), format!("src/file{step}.c")];
        (format!("/usr/bin/{tool}"), arguments, "/usr/bin/bash", [StreamKind::Terminal; 3])
    };
    let process = ProcessId { pid: 1000 + group as u32 * 10 + step as u32, start_time: time };
    let mut argument_vector = vec![ByteString::from(executable.as_str())];
    argument_vector.extend(arguments.iter().map(|argument| ByteString::from(argument.as_str())));
    ProcessStart {
        process,
        parent: Some(ProcessId { pid: 500, start_time: Timestamp(START_NS - 1) }),
        executable: ByteString::from(executable.as_str()),
        arguments: argument_vector,
        arguments_truncated: false,
        working_directory: ByteString::from(if attack { "/tmp" } else { "/home/ada/project" }),
        user_id: Some(1000),
        group_id: Some(1000),
        user_name: ByteString::from("ada"),
        session_id: Some(400),
        has_terminal: Some(!attack),
        standard_streams: streams,
        ancestors: vec![ByteString::from(parent), ByteString::from("/usr/lib/systemd/systemd")],
        executable_deleted: Some(false),
        seeded: false,
        cgroup_id: None,
        cgroup: ByteString::default(),
        executable_file: None,
        script: ByteString::default(),
    }
}

/// The labels that the script's truth gives.
pub(super) fn labels(host: HostId, scripted: &[Scripted]) -> Vec<v1::Label> {
    let verdict = |attack| if attack { v1::Verdict::Malicious } else { v1::Verdict::Benign };
    scripted
        .iter()
        .map(|scripted| v1::Label {
            event: Some(reference(EventId { host, key: scripted.event.key })),
            verdict: verdict(scripted.attack).into(),
            technique: if scripted.attack { "T1059.004".to_owned() } else { String::new() },
            source: "script".to_owned(),
            group: scripted.group.clone(),
            ..v1::Label::default()
        })
        .collect()
}

pub(super) fn reference(event: EventId) -> v1::EventReference {
    v1::EventReference { host_id: event.host.to_string(), epoch: event.key.epoch.0, sequence: event.key.sequence.0 }
}
