//! Tests of the features: what they say about scenes that analysts know.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::*;
use crate::event::{
    ByteString, Connection, ConnectionClose, ConnectionOutcome, Direction, Event, EventBody, Origin, ProcessExit,
    ProcessId, ProcessStart, Protocol, StreamKind,
};
use crate::id::{Epoch, Sequence};

const SECOND: i64 = 1_000_000_000;
const T0: i64 = 1_700_000_000 * SECOND;

/// A host that plays scenes and keeps the latest vector.
struct Host {
    pipeline: FeaturePipeline,
    sequence: u64,
    latest: Vec<f32>,
    subject: Subject,
}

impl Host {
    fn new() -> Self {
        let pipeline = FeaturePipeline::new(ContextLimits::default());
        Self { pipeline, sequence: 0, latest: Vec::new(), subject: Subject::ProcessStart }
    }

    fn observe(&mut self, time: i64, body: EventBody) -> bool {
        let key = EventKey { epoch: Epoch(1), sequence: Sequence(self.sequence) };
        self.sequence += 1;
        let event = Event { key, time: Timestamp(time), origin: Origin::Replay, body };
        let vector = self.pipeline.observe(&event);
        let Some(vector) = vector else { return false };
        assert_eq!((vector.event, vector.time), (key, event.time));
        self.subject = vector.subject;
        self.latest = vector.values.to_vec();
        true
    }

    fn value(&self, name: &str) -> f32 {
        self.latest[FeatureSpec::v1(self.subject).index_of(name).expect(name)]
    }

    /// The quantity behind a logarithm.
    fn quantity(&self, name: &str) -> f64 {
        libm::expm1(f64::from(self.value(name))).round()
    }

    fn start(&mut self, time: i64, start: ProcessStart) {
        assert!(self.observe(time, EventBody::ProcessStart(Box::new(start))));
    }

    fn close(&mut self, time: i64, close: ConnectionClose) {
        assert!(self.observe(time, EventBody::ConnectionClose(Box::new(close))));
    }
}

fn id(pid: u32) -> ProcessId {
    ProcessId { pid, start_time: Timestamp(T0) }
}

fn process(pid: u32, parent: u32, executable: &str, arguments: &[&str]) -> ProcessStart {
    ProcessStart {
        process: id(pid),
        parent: Some(id(parent)),
        executable: executable.into(),
        arguments: arguments.iter().map(|argument| ByteString::from(*argument)).collect(),
        arguments_truncated: false,
        working_directory: "/".into(),
        user_id: Some(1000),
        group_id: Some(1000),
        user_name: "u".into(),
        session_id: Some(1),
        has_terminal: Some(false),
        standard_streams: [StreamKind::Null; 3],
        ancestors: vec!["/usr/bin/bash".into()],
        executable_deleted: Some(false),
        seeded: false,
        cgroup_id: None,
        cgroup: ByteString::default(),
        executable_file: None,
        script: ByteString::default(),
    }
}

fn connection(port: u16, owner: Option<u32>) -> ConnectionClose {
    let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
    ConnectionClose {
        connection: Connection {
            cookie: 1,
            protocol: Protocol::Tcp,
            direction: Direction::Outbound,
            local: SocketAddr::new(host, 50_000),
            remote: SocketAddr::new(host, port),
            process: owner.map(id),
            executable: ByteString::default(),
            user_id: Some(1000),
            cgroup_id: None,
        },
        bytes_sent: Some(100),
        bytes_received: Some(300),
        segments_sent: Some(4),
        segments_received: Some(4),
        duration_ns: Some(2_000_000),
        outcome: ConnectionOutcome::Closed,
    }
}

#[test]
fn specifications_are_complete_and_their_names_unique() {
    for subject in Subject::ALL {
        let spec = FeatureSpec::v1(subject);
        assert_eq!(spec.subject, subject);
        assert!(spec.features.len() >= 24);
        for (index, feature) in spec.features.iter().enumerate() {
            assert_eq!(spec.index_of(feature.name), Some(index), "{} occurs twice", feature.name);
            assert!(!feature.meaning.is_empty());
            assert_eq!(feature.unit.is_empty(), feature.kind == FeatureKind::Flag, "{}", feature.name);
            assert!(
                feature.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert!(!describe(subject, index, 1.0).contains("{}"));
        }
        assert_eq!(subject.name().parse(), Ok(subject));
    }
    assert_ne!(FeatureSpec::v1(Subject::ProcessStart).hash(), FeatureSpec::v1(Subject::Connection).hash());
}

#[test]
fn the_hash_covers_version_order_names_kinds_and_units() {
    let spec = *FeatureSpec::v1(Subject::Connection);
    let hash = spec.hash();
    assert_ne!(FeatureSpec { version: 2, ..spec }.hash(), hash);
    assert_ne!(FeatureSpec { subject: Subject::ProcessStart, ..spec }.hash(), hash);
    let changed = |change: fn(&mut Vec<FeatureDefinition>)| {
        let mut features = spec.features.to_vec();
        change(&mut features);
        FeatureSpec { features: features.leak(), ..spec }.hash()
    };
    assert_eq!(changed(|_| ()), hash);
    assert_ne!(changed(|features| features.swap(0, 1)), hash);
    assert_ne!(changed(|features| features[3].name = "x"), hash);
    assert_ne!(changed(|features| features[3].unit = "x"), hash);
    assert_ne!(changed(|features| features[3].kind = FeatureKind::Number), hash);
    assert_ne!(changed(|features| features.truncate(24)), hash);
}

#[test]
fn what_nobody_could_learn_is_missing_and_not_zero() {
    let mut host = Host::new();
    let mut gone = process(10, 2, "", &[]);
    gone.parent = None;
    gone.ancestors.clear();
    gone.user_id = None;
    gone.session_id = None;
    gone.has_terminal = None;
    gone.executable_deleted = None;
    gone.standard_streams = [StreamKind::Unknown; 3];
    host.start(T0, gone);
    let known: Vec<&str> = FeatureSpec::v1(Subject::ProcessStart)
        .features
        .iter()
        .zip(&host.latest)
        .filter(|(_, value)| value.to_bits() != MISSING.to_bits())
        .map(|(feature, _)| feature.name)
        .collect();
    assert_eq!(known, ["host_starts_1s", "host_starts_10s"]);
}

#[test]
fn seeded_processes_only_add_to_the_picture() {
    let mut host = Host::new();
    let mut parent = process(2, 1, "/usr/bin/dash", &["sh"]);
    parent.seeded = true;
    parent.user_id = Some(0);
    assert!(!host.observe(T0, EventBody::ProcessStart(Box::new(parent))));
    host.start(T0 + SECOND, process(3, 2, "/usr/bin/id", &["id"]));
    assert_eq!(host.value("user_differs_from_parent"), 1.0);
    assert_eq!(host.quantity("host_starts_10s"), 1.0, "the seeded one did not start now");
}

#[test]
fn a_burst_of_discovery_commands_is_counted_below_their_common_ancestor() {
    let mut host = Host::new();
    host.start(T0, process(2, 1, "/usr/bin/bash", &["bash"]));
    let commands = ["whoami", "id", "uname", "ps", "ss"];
    for (index, command) in commands.iter().enumerate() {
        let time = T0 + index as i64 * SECOND;
        let shell = 10 + 2 * index as u32;
        host.start(time, process(shell, 2, "/usr/bin/dash", &["sh", "-c", command]));
        host.start(time, process(shell + 1, shell, &format!("/usr/bin/{command}"), &[command]));
    }
    assert_eq!(host.quantity("parent_discovery_30s"), 1.0);
    assert_eq!(host.quantity("grandparent_discovery_3s"), 3.0, "one a second");
    assert_eq!(host.quantity("session_discovery_30s"), 5.0);
    host.start(T0 + 5 * SECOND, process(40, 2, "/usr/bin/cat", &["cat", "/etc/passwd"]));
    assert_eq!(host.quantity("parent_discovery_30s"), 6.0);
    assert_eq!(host.value("mentions_system_information"), 1.0);
    host.start(T0 + 60 * SECOND, process(41, 2, "/usr/bin/id", &["id"]));
    assert_eq!(host.quantity("parent_discovery_30s"), 1.0, "the burst is over");
}

#[test]
fn a_burst_below_one_child_is_none_of_its_siblings_business() {
    let mut host = Host::new();
    host.start(T0, process(10, 2, "/usr/bin/dash", &["sh", "-c", "whoami; id; uname; ps; ss"]));
    for (index, command) in ["whoami", "id", "uname", "ps", "ss"].iter().enumerate() {
        host.start(T0, process(20 + index as u32, 10, &format!("/usr/bin/{command}"), &[command]));
    }
    assert_eq!(host.quantity("parent_discovery_3s"), 5.0);
    host.start(T0, process(11, 2, "/usr/bin/make", &["make"]));
    assert_eq!(host.quantity("parent_discovery_3s"), 0.0, "it takes no part in it");
    host.start(T0, process(12, 2, "/usr/bin/hostname", &["hostname"]));
    assert_eq!(host.quantity("parent_discovery_3s"), 2.0, "for their common parent the burst is one thing of many");
}

#[test]
fn a_reverse_shell_shows_in_its_streams() {
    let mut host = Host::new();
    let mut shell = process(5, 2, "/usr/bin/dash", &["sh", "-i"]);
    shell.standard_streams = [StreamKind::Socket; 3];
    host.start(T0, shell);
    for name in ["socket_input", "socket_output", "is_shell", "interactive_shell"] {
        assert_eq!(host.value(name), 1.0, "{name}");
    }
    host.close(T0 + SECOND, connection(4444, Some(5)));
    for name in ["owner_is_shell", "owner_socket_streams", "owner_known"] {
        assert_eq!(host.value(name), 1.0, "{name}");
    }
}

#[test]
fn a_misleading_name_in_a_temporary_directory_shows() {
    let mut host = Host::new();
    host.start(T0, process(5, 2, "/tmp/.cache/sshd", &["[kworker/0:1]"]));
    for name in
        ["executable_in_temporary_directory", "executable_hidden", "name_imitates_system_program", "called_otherwise"]
    {
        assert_eq!(host.value(name), 1.0, "{name}");
    }
    assert_eq!(host.value("executable_in_system_directory"), 0.0);
}

#[test]
fn a_port_scan_shows_in_distinct_ports_and_failures_even_without_an_owner() {
    let mut host = Host::new();
    for port in 0..40 {
        let mut attempt = connection(1000 + port, None);
        attempt.outcome = ConnectionOutcome::Failed;
        host.close(T0 + i64::from(port) * 1_000_000, attempt);
    }
    assert_eq!(host.quantity("host_distinct_ports_10s"), 40.0);
    assert_eq!(host.value("host_failures_10s"), 1.0);
    assert_eq!(host.quantity("host_failed_ports_10s"), 40.0);
    assert_eq!(host.quantity("neighbouring_ports_60s"), 39.0);
    assert_eq!(host.quantity("destination_connections_60s"), 1.0);
    assert!(host.value("owner_connections_1s").is_nan());
    assert_eq!(host.value("owner_known"), 0.0);
}

#[test]
fn a_beacon_is_regular_and_chance_is_not() {
    let variation = |gaps: &[i64]| {
        let mut host = Host::new();
        let mut time = T0;
        host.close(time, connection(8080, Some(7)));
        assert!(host.value("destination_interval_variation").is_nan(), "one contact has no interval");
        for gap in gaps {
            time += gap * SECOND / 10;
            host.close(time, connection(8080, Some(7)));
        }
        assert_eq!(host.value("destination_size_variation"), 0.0);
        host.value("destination_interval_variation")
    };
    let beacon = variation(&[50, 53, 48, 51, 47, 52, 50, 49]);
    let chance = variation(&[1, 130, 2, 1, 90, 5, 3, 160]);
    assert!(beacon < 0.1 && chance > 1.0, "{beacon} {chance}");
}

#[test]
fn an_upload_in_pieces_adds_up() {
    let mut host = Host::new();
    for piece in 0..5 {
        let mut upload = connection(443, Some(7));
        upload.bytes_sent = Some(1_000_000);
        upload.bytes_received = Some(200);
        host.close(T0 + piece * 20 * SECOND, upload);
    }
    assert_eq!(describe_latest(&host, "owner_bytes_sent_60s"), "about 4.2 MB sent by the same process in 60 s");
    assert_eq!(host.value("destination_share_of_host_sent_600s"), 1.0);
    host.close(T0 + 100 * SECOND, connection(8080, Some(9)));
    assert!(host.value("destination_share_of_host_sent_600s") < 0.001, "others send nearly nothing");
}

fn describe_latest(host: &Host, name: &str) -> String {
    let feature = FeatureSpec::v1(host.subject).index_of(name).expect(name);
    describe(host.subject, feature, host.latest[feature])
}

#[test]
fn failures_of_siblings_are_known_from_their_exits() {
    let mut host = Host::new();
    for pid in 10..14 {
        host.start(T0, process(pid, 2, "/usr/bin/test", &["test"]));
        let exit = ProcessExit {
            process: id(pid),
            executable: ByteString::default(),
            exit_code: Some(i32::from(pid != 10)),
            signal: None,
            duration_ns: None,
            cpu_time_ns: None,
        };
        assert!(!host.observe(T0, EventBody::ProcessExit(exit)));
    }
    host.start(T0, process(14, 2, "/usr/bin/test", &["test"]));
    assert_eq!(host.value("sibling_failures_60s"), 0.75);
}

#[test]
fn a_full_context_takes_little_memory() {
    let bytes = ContextLimits::default().memory_bytes_max();
    assert!(bytes <= 8 << 20, "{bytes}");
}

#[test]
fn a_beacon_without_an_owner_shows_among_other_traffic() {
    let mut host = Host::new();
    for turn in 0..30 {
        let time = T0 + turn * SECOND / 4;
        if turn % 2 == 0 {
            host.close(time, connection(8080, None));
        }
        let mut other = connection(8080, None);
        other.bytes_received = Some(1000 << (turn % 7));
        host.close(time + (turn * turn * 7_919) % SECOND / 8, other);
    }
    host.close(T0 + 15 * SECOND / 2, connection(8080, None));
    assert!(host.value("similar_interval_variation") < 0.01);
    assert!(host.value("destination_interval_variation") > 0.3);
    assert_eq!(host.quantity("similar_contacts"), 16.0);
}

#[test]
fn what_is_new_stays_new_for_three_times_only() {
    let mut host = Host::new();
    let mut seen = Vec::new();
    for contact in 0..5 {
        host.start(T0, process(30 + contact, 2, "/usr/bin/curl", &["curl", "http://192.0.2.1/"]));
        let started = host.quantity("executable_seen_before");
        host.close(T0, connection(8080, Some(30 + contact)));
        let of_program = host.quantity("executable_destination_seen_before");
        assert_eq!(host.quantity("destination_seen_before"), of_program);
        seen.push((started, of_program));
    }
    assert_eq!(seen, [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (3.0, 3.0)]);
    host.start(T0, process(40, 2, "/usr/bin/wget", &["wget"]));
    host.close(T0, connection(8080, Some(40)));
    assert_eq!(host.quantity("executable_destination_seen_before"), 0.0, "another program");
    assert_eq!(host.quantity("destination_seen_before"), 3.0);
}

#[test]
fn a_process_is_known_by_its_start_when_it_connects() {
    let mut host = Host::new();
    host.start(T0, process(7, 2, "/tmp/.x/sync", &["[kworker/0:1]", "192.0.2.1"]));
    host.close(T0 + SECOND, connection(443, Some(7)));
    for name in ["owner_is_hidden", "owner_called_otherwise", "owner_mentions_network_address"] {
        assert_eq!(host.value(name), 1.0, "{name}");
    }
    assert_eq!((host.value("owner_inline_script"), host.value("owner_has_terminal")), (0.0, 0.0));
    host.close(T0 + SECOND, connection(443, Some(8)));
    assert!(host.value("owner_is_hidden").is_nan(), "nobody saw it start");
}

#[test]
fn a_process_is_measured_against_others_with_the_same_destination() {
    let mut host = Host::new();
    for second in 0..6 {
        host.close(T0 + second * SECOND, connection(8080, Some(7)));
    }
    assert_eq!((host.value("owner_share_of_destination"), host.value("owner_share_of_host_10s")), (1.0, 1.0));
    let mut upload = connection(8080, Some(8));
    upload.bytes_sent = Some(400 * 401 - 301);
    host.close(T0 + 6 * SECOND, upload);
    assert!((host.value("owner_share_of_destination") - 1.0 / 7.0).abs() < 1e-6);
    assert!(host.value("size_over_owner_median").is_nan(), "its first contact");
    assert_eq!(
        describe_latest(&host, "size_over_destination_median"),
        "400.00 times the usual payload with the same destination"
    );
}

#[test]
fn a_loop_shows_in_what_it_starts_again_and_again() {
    let deviation = |gaps: &[i64]| {
        let mut host = Host::new();
        let mut time = T0;
        for (run, gap) in gaps.iter().enumerate() {
            host.start(time, process(10 + run as u32, 2, "/usr/bin/curl", &["curl"]));
            time += gap * SECOND / 10;
        }
        assert_eq!(host.quantity("repeats"), gaps.len() as f64);
        (host.value("repeat_deviation"), host.quantity("repeat_interval"))
    };
    assert_eq!(deviation(&[50; 6]), (0.0, 5000.0));
    let (jitter, interval) = deviation(&[50, 40, 62, 48, 57, 50]);
    assert!((0.05..0.3).contains(&jitter) && interval == 5000.0, "{jitter} {interval}");
    assert!(deviation(&[50; 3]).0.is_nan(), "two intervals say nothing");
}
