#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use picket_common::event::{Connection, ConnectionClose, Direction, DnsAction, DnsActivity, EventBody, Protocol};

use crate::sensor::config::{EbpfChoice, SensorConfig};
use crate::sensor::test_sink::TestSink;
use crate::sensor::{Observation, SensorError, SensorSet};

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The sensor, where it is permitted. It sees this process.
fn started(sink: &TestSink) -> Option<SensorSet> {
    let mut config = SensorConfig::all_off();
    (config.datagram.mode, config.datagram.flow_idle_ms) = (EbpfChoice::Ebpf, 1_000);
    match crate::sensor::start_seeing(&config, sink.context(), None) {
        Ok(set) => Some(set),
        Err(SensorError::ModeUnavailable { reason, .. }) => {
            eprintln!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn with_sensor(test: impl FnOnce(&TestSink)) {
    let sink = TestSink::default();
    let Some(set) = started(&sink) else { return };
    test(&sink);
    assert_eq!(sink.lost(), 0);
    assert_eq!(set.stop_and_join(STOP_TIMEOUT), Vec::<&str>::new());
}

fn opens(observations: &[Observation], remote: SocketAddr) -> Vec<Connection> {
    let open = |observation: &Observation| match &observation.body {
        EventBody::ConnectionOpen(connection) if connection.remote == remote => Some((**connection).clone()),
        _ => None,
    };
    observations.iter().filter_map(open).collect()
}

fn wait_for_close(sink: &TestSink, local: SocketAddr, remote: SocketAddr) -> ConnectionClose {
    sink.wait_for("end of a flow", |observations| {
        observations.iter().find_map(|observation| match &observation.body {
            EventBody::ConnectionClose(close)
                if close.connection.local == local && close.connection.remote == remote =>
            {
                Some((**close).clone())
            }
            _ => None,
        })
    })
}

/// All DNS messages about a name.
fn messages(observations: &[Observation], name: &str) -> Vec<DnsActivity> {
    let message = |observation: &Observation| match &observation.body {
        EventBody::DnsActivity(activity) if activity.name.as_bytes().eq_ignore_ascii_case(name.as_bytes()) => {
            Some((**activity).clone())
        }
        _ => None,
    };
    observations.iter().filter_map(message).collect()
}

fn wait_for_messages(sink: &TestSink, name: &str, count: usize) -> Vec<DnsActivity> {
    sink.wait_for("DNS messages", |observations| {
        let found = messages(observations, name);
        (found.len() >= count).then_some(found)
    })
}

#[test]
fn a_flow_is_counted_from_its_first_packet_until_it_is_idle() {
    with_sensor(|sink| {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let [here, there] = [&client, &server].map(|socket| socket.local_addr().unwrap());
        let mut bytes = [0; 2_000];
        for _ in 0..10 {
            client.send_to(&[1; 100], there).unwrap();
            let (length, from) = server.recv_from(&mut bytes).unwrap();
            assert_eq!((length, from), (100, here));
        }
        server.send_to(&[2; 1_000], here).unwrap();
        client.recv_from(&mut bytes).unwrap();

        let (sent, received) = (wait_for_close(sink, here, there), wait_for_close(sink, there, here));
        assert_eq!((sent.bytes_sent, sent.bytes_received), (Some(1_000), Some(1_000)));
        assert_eq!((sent.segments_sent, sent.segments_received), (Some(10), Some(1)));
        assert_eq!((received.bytes_sent, received.bytes_received), (Some(1_000), Some(1_000)));
        assert_eq!((received.segments_sent, received.segments_received), (Some(1), Some(10)));
        assert_eq!(sent.connection.direction, Direction::Outbound);
        assert_eq!(received.connection.direction, Direction::Inbound);
        for close in [&sent, &received] {
            assert_eq!(close.connection.protocol, Protocol::Udp);
            assert_eq!(close.connection.process.map(|process| process.pid), Some(std::process::id()));
            assert_eq!(close.connection.user_id, Some(rustix::process::geteuid().as_raw()));
            let opened = opens(&sink.observations(), close.connection.remote);
            let ids: Vec<u64> = opened.iter().map(|open| open.cookie).collect();
            assert_eq!(ids, [close.connection.cookie], "begun once");
        }
        assert!(sent.duration_ns.unwrap() > 0 && sent.connection.cgroup_id == received.connection.cgroup_id);
    });
}

#[test]
fn a_flow_that_goes_on_after_it_was_idle_is_another() {
    with_sensor(|sink| {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let [here, there] = [&client, &server].map(|socket| socket.local_addr().unwrap());
        client.send_to(b"first", there).unwrap();
        let first = wait_for_close(sink, here, there).connection.cookie;
        client.send_to(b"second", there).unwrap();
        sink.wait_for("a second flow", |observations| {
            let ids: Vec<u64> = opens(observations, there).iter().map(|open| open.cookie).collect();
            (ids.len() == 2 && ids[0] == first && ids[1] != first).then_some(())
        });
    });
}

#[test]
fn flows_of_ipv6_and_of_other_network_namespaces_are_seen() {
    with_sensor(|sink| {
        let Ok(server) = UdpSocket::bind("[::1]:0") else { return eprintln!("skipped: no IPv6 here") };
        let there = server.local_addr().unwrap();
        let client = UdpSocket::bind("[::1]:0").unwrap();
        client.send_to(b"hello", there).unwrap();
        let close = wait_for_close(sink, client.local_addr().unwrap(), there);
        assert_eq!((close.bytes_sent, close.segments_sent), (Some(5), Some(1)));

        let script = "ip link set lo up && echo -n hello >/dev/udp/127.0.0.9/9";
        let made = Command::new("unshare").args(["--net", "bash", "-c", script]).output();
        if !made.is_ok_and(|made| made.status.success()) {
            return eprintln!("skipped: no network namespace");
        }
        sink.wait_for("a flow of another namespace", |observations| {
            opens(observations, (Ipv4Addr::new(127, 0, 0, 9), 9).into()).into_iter().next()
        });
    });
}

/// A DNS server at port 53 of an address of its own on loopback; `None` where that is taken or not permitted. It
/// answers each query with one address, over UDP and TCP, and ends with this process.
struct TinyDnsServer {
    address: Ipv4Addr,
}

impl TinyDnsServer {
    fn start(address: Ipv4Addr) -> Option<Self> {
        let udp = UdpSocket::bind((address, 53)).ok()?;
        let tcp = TcpListener::bind((address, 53)).ok()?;
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut bytes) {
                udp.send_to(&answer(&bytes[..length]), from).ok();
            }
        });
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = tcp.accept() {
                serve_tcp(&mut stream).ok();
            }
        });
        Some(Self { address })
    }
}

fn serve_tcp(stream: &mut std::net::TcpStream) -> std::io::Result<()> {
    use std::io::{Read as _, Write as _};
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut query)?;
    let answer = answer(&query);
    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &answer].concat())
}

/// 192.0.2.7, whatever was asked; no such name for what begins with `no`.
fn answer(query: &[u8]) -> Vec<u8> {
    let question_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let found = !query[13..].starts_with(b"no");
    let (flags, count) = if found { (0x8180_u16, 1_u16) } else { (0x8183, 0) };
    let mut answer = query[..2].to_vec();
    answer.extend([flags, 1, count, 0, 0].map(u16::to_be_bytes).concat());
    answer.extend(&query[12..question_end]);
    if found {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
    }
    answer
}

/// A query for the address of a name.
fn query(transaction_id: u16, name: &str) -> Vec<u8> {
    let mut bytes = [transaction_id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

#[test]
fn queries_and_responses_are_told_with_who_asked() {
    let Some(server) = TinyDnsServer::start(Ipv4Addr::new(127, 53, 0, 1)) else {
        return eprintln!("skipped: port 53 is not to be had");
    };
    with_sensor(|sink| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut bytes = [0; 512];
        for (id, name) in [(7, "www.picket.example"), (8, "no.picket.example")] {
            socket.send_to(&query(id, name), (server.address, 53)).unwrap();
            socket.recv_from(&mut bytes).unwrap();
        }
        let [asked, answered] = <[DnsActivity; 2]>::try_from(wait_for_messages(sink, "www.picket.example", 2)).unwrap();
        assert_eq!((asked.action, answered.action), (DnsAction::Query, DnsAction::Response));
        assert_eq!((asked.response_code, answered.response_code), (None, Some(0)));
        assert!(asked.answers.is_empty());
        assert_eq!(answered.answers, ["192.0.2.7".into()]);
        assert!(asked.duration_ns.is_none() && answered.duration_ns.unwrap() > 0);
        for message in [&asked, &answered] {
            assert_eq!((message.transaction_id, message.query_type, message.protocol), (7, 1, Protocol::Udp));
            assert_eq!(message.server, Some((server.address, 53).into()));
            assert_eq!(message.process.map(|process| process.pid), Some(std::process::id()));
        }
        let unknown = wait_for_messages(sink, "no.picket.example", 2);
        assert_eq!((unknown[1].response_code, unknown[1].answers.len()), (Some(3), 0));
    });
}

#[test]
fn dns_over_tcp_is_told_and_what_is_no_dns_is_not() {
    use std::io::{Read as _, Write as _};

    let Some(server) = TinyDnsServer::start(Ipv4Addr::new(127, 53, 0, 2)) else {
        return eprintln!("skipped: port 53 is not to be had");
    };
    with_sensor(|sink| {
        let mut stream = std::net::TcpStream::connect((server.address, 53)).unwrap();
        let query = query(9, "tcp.picket.example");
        stream.write_all(&[&u16::try_from(query.len()).unwrap().to_be_bytes()[..], &query].concat()).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        let told = wait_for_messages(sink, "tcp.picket.example", 2);
        assert_eq!((told[0].action, told[1].action), (DnsAction::Query, DnsAction::Response));
        assert_eq!((told[0].protocol, told[1].answers.len()), (Protocol::Tcp, 1));
        assert!(told[1].process.is_some_and(|process| process.pid == std::process::id()));

        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let nowhere = SocketAddr::from((Ipv4Addr::new(127, 53, 0, 9), 53));
        for garbage in [&b"\xff"[..], &[0xc0; 600], &[0; 12]] {
            socket.send_to(garbage, nowhere).ok();
        }
        wait_for_close(sink, socket.local_addr().unwrap(), nowhere);
        let about_it = |observation: &Observation| match &observation.body {
            EventBody::DnsActivity(activity) => activity.server == Some(nowhere),
            _ => false,
        };
        assert!(!sink.observations().iter().any(about_it));
    });
}

/// A real resolver: the C library's, in another process that is over before anybody could look at it.
#[test]
fn a_real_resolver_is_understood() {
    let Some(server) = TinyDnsServer::start(Ipv4Addr::new(127, 53, 0, 3)) else {
        return eprintln!("skipped: port 53 is not to be had");
    };
    with_sensor(|sink| {
        // In a mount namespace of its own, where the resolver's configuration names the server.
        let folder = tempfile::tempdir().unwrap();
        let configuration = folder.path().join("resolv.conf");
        std::fs::write(&configuration, format!("nameserver {}\noptions attempts:1 timeout:2\n", server.address))
            .unwrap();
        let script = format!(
            "mount --bind {} /etc/resolv.conf && exec getent -s dns ahostsv4 real.picket.example",
            configuration.display()
        );
        let asked = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output();
        match asked {
            Ok(output) if output.status.success() => {}
            other => return eprintln!("skipped: no resolver to be had: {other:?}"),
        }
        let told = wait_for_messages(sink, "real.picket.example", 2);
        let response = told.iter().find(|message| message.action == DnsAction::Response).unwrap();
        assert_eq!(response.answers, ["192.0.2.7".into()]);
        assert!(response.process.is_some_and(|process| process.pid != std::process::id()));
    });
}
