use std::net::Ipv4Addr;

use picket_common::id::{Epoch, Sequence};

use super::*;
use crate::range::Round;
use crate::range::attack::Technique;
use crate::range::helper::client::ConnectionRecord;
use crate::range::truth::RootProcess;

const SECOND: i64 = 1_000_000_000;
const SERVICE_PID: u32 = 50;

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn key(sequence: u64) -> EventKey {
    EventKey { epoch: Epoch(1), sequence: Sequence(sequence) }
}

fn instance(id: &str, technique: Option<Technique>, pid: u32) -> InstanceTruth {
    InstanceTruth {
        id: id.to_owned(),
        technique,
        style: String::new(),
        roots: vec![RootProcess { pid, started_unix_ns: 10 * SECOND, ended_unix_ns: 20 * SECOND }],
        service_pids: Vec::new(),
        connections: Vec::new(),
        exclusive_ports: Vec::new(),
        started_unix_ns: 10 * SECOND,
        ended_unix_ns: 20 * SECOND,
        failure: None,
    }
}

fn truth() -> GroundTruth {
    let mut scan = instance("scan", Some(Technique::NetworkServiceDiscovery), 200);
    scan.exclusive_ports = vec![20_001, 20_002];
    scan.connections = vec![ConnectionRecord {
        time_unix_ns: 11 * SECOND,
        local: address(40_000),
        remote: address(80),
        established: true,
    }];
    GroundTruth {
        round: Round::One,
        instances: vec![instance("work", None, 100), scan],
        service_pids: vec![SERVICE_PID],
        started_unix_ns: 9 * SECOND,
        ended_unix_ns: 30 * SECOND,
    }
}

fn process(sequence: u64, process: ProcessKey, parent: Option<ProcessKey>) -> ObservedProcess {
    ObservedProcess { event: key(sequence), process, parent }
}

fn connection(sequence: u64, local: u16, remote: u16, owner: Option<ProcessKey>) -> ObservedConnection {
    ObservedConnection {
        event: key(sequence),
        time_unix_ns: 12 * SECOND,
        local: address(local),
        remote: address(remote),
        process: owner,
    }
}

fn belongings(processes: &[ObservedProcess], connections: &[ObservedConnection]) -> Vec<Belonging> {
    let attribution = attribute(&truth(), processes, connections);
    attribution.processes.iter().chain(&attribution.connections).map(|(_, belonging)| *belonging).collect()
}

#[test]
fn descendants_belong_to_the_root_whatever_the_order_of_their_events() {
    let root = (100, 10 * SECOND + 7);
    let (child, grandchild) = ((101, 11 * SECOND), (102, 12 * SECOND));
    let own = Belonging::Own { instance: 0 };
    let events = [process(0, grandchild, Some(child)), process(1, child, Some(root)), process(2, root, Some((1, 0)))];
    assert_eq!(belongings(&events, &[]), [own, own, own]);
}

#[test]
fn a_reused_pid_or_a_stranger_is_background() {
    let events = [process(0, (100, 300 * SECOND), None), process(1, (999, 10 * SECOND), Some((1, 0)))];
    assert_eq!(belongings(&events, &[]), [Belonging::Background, Belonging::Background]);
}

#[test]
fn a_connection_is_its_owners_and_its_other_end_the_far_end() {
    let owner = Some((100, 10 * SECOND));
    let service = Some((SERVICE_PID, 9 * SECOND));
    let events =
        [connection(0, 41_000, 80, owner), connection(1, 80, 41_000, service), connection(2, 80, 42_000, service)];
    assert_eq!(
        belongings(&[], &events),
        [Belonging::Own { instance: 0 }, Belonging::FarEnd { instance: 0 }, Belonging::Scenery]
    );
}

#[test]
fn without_an_owner_what_the_program_noted_or_an_exclusive_port_decides() {
    let events = [
        connection(0, 40_000, 80, None),
        connection(1, 80, 40_000, None),
        connection(2, 43_000, 20_002, None),
        connection(3, 43_000, 20_003, None),
    ];
    assert_eq!(
        belongings(&[], &events),
        [
            Belonging::Own { instance: 1 },
            Belonging::FarEnd { instance: 1 },
            Belonging::Own { instance: 1 },
            Belonging::Background
        ]
    );
    let mut late = connection(4, 43_000, 20_002, None);
    late.time_unix_ns = 40 * SECOND;
    assert_eq!(belongings(&[], &[late]), [Belonging::Background]);
}
