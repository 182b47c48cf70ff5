#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use picket_common::event::{Connection, ConnectionClose, ConnectionOutcome, Direction, EventBody, Origin};
use rustix::net::sockopt::socket_cookie;

use crate::sensor::config::{ModeChoice, SensorConfig};
use crate::sensor::test_sink::TestSink;
use crate::sensor::{Observation, SensorError, SensorSet};

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

fn config(mode: ModeChoice) -> SensorConfig {
    let mut config = SensorConfig::all_off();
    config.connection.mode = mode;
    config.connection.dump_interval_ms = 10;
    config
}

/// A way in which the kernel itself tells of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Ebpf,
    NetlinkWithTrace,
    Netlink,
}

impl Way {
    const ALL: [Self; 3] = [Self::Ebpf, Self::NetlinkWithTrace, Self::Netlink];

    /// Beginnings are told, and so the owners of what is short.
    fn tells_beginnings(self) -> bool {
        self != Self::Netlink
    }
}

/// The sensor in a way, where that is permitted. It sees this process, which opens the connections.
fn started(sink: &TestSink, way: Way) -> Option<SensorSet> {
    let (mode, origin) = match way {
        Way::Ebpf => (ModeChoice::Ebpf, Origin::AgentEbpf),
        _ => (ModeChoice::Netlink, Origin::AgentNetlink),
    };
    let config = SensorConfig { trace: way == Way::NetlinkWithTrace, ..config(mode) };
    let set = match crate::sensor::start_seeing(&config, sink.context(), None) {
        Ok(set) => set,
        Err(SensorError::ModeUnavailable { reason, .. }) => {
            eprintln!("skipped: {reason}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let mode = &set.modes[0];
    if mode.origin == origin && (mode.reason.is_empty() || way == Way::Netlink) {
        return Some(set);
    }
    eprintln!("skipped: {}", mode.reason);
    set.stop_and_join(STOP_TIMEOUT);
    None
}

/// Runs a test in each way that is permitted, and says whether beginnings are told.
fn with_each_way(test: impl Fn(&TestSink, bool)) {
    for way in Way::ALL {
        let sink = TestSink::default();
        let Some(set) = started(&sink, way) else { continue };
        test(&sink, way.tells_beginnings());
        assert_eq!(sink.lost(), 0);
        assert_eq!(set.stop_and_join(STOP_TIMEOUT), Vec::<&str>::new());
    }
}

/// A listener that the sensor knows.
fn known_listener(sink: &TestSink) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    assert_eq!(wait_for_open(sink, cookie(&server)).direction, Direction::Inbound);
    listener
}

fn cookie(socket: &impl std::os::fd::AsFd) -> u64 {
    socket_cookie(socket).unwrap()
}

/// Client and server end of a connection, and the listener.
fn pair(address: SocketAddr) -> (TcpStream, TcpStream, TcpListener) {
    let listener = TcpListener::bind(address).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0, listener)
}

/// Ends both directions so that each end has seen the other's FIN.
fn close_in_order(client: &mut TcpStream, server: &mut TcpStream) {
    client.shutdown(Shutdown::Write).unwrap();
    std::io::copy(server, &mut std::io::sink()).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    std::io::copy(client, &mut std::io::sink()).unwrap();
}

fn opens(observations: &[Observation], cookie: u64) -> Vec<Connection> {
    let open = |observation: &Observation| match &observation.body {
        EventBody::ConnectionOpen(connection) if connection.cookie == cookie => Some((**connection).clone()),
        _ => None,
    };
    observations.iter().filter_map(open).collect()
}

fn closes(observations: &[Observation], cookie: u64) -> Vec<ConnectionClose> {
    let close = |observation: &Observation| match &observation.body {
        EventBody::ConnectionClose(close) if close.connection.cookie == cookie => Some((**close).clone()),
        _ => None,
    };
    observations.iter().filter_map(close).collect()
}

fn wait_for_open(sink: &TestSink, cookie: u64) -> Connection {
    sink.wait_for("open", |observations| opens(observations, cookie).into_iter().next())
}

fn wait_for_close(sink: &TestSink, cookie: u64) -> ConnectionClose {
    sink.wait_for("close", |observations| closes(observations, cookie).into_iter().next())
}

/// Where connections are refused as long as the socket exists: it is bound, so that nobody else can get the port, and
/// does not listen.
fn nowhere() -> (SocketAddr, OwnedFd) {
    use rustix::net::{AddressFamily, SocketType};

    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    (address, socket)
}

#[test]
fn both_ends_of_a_connection_are_reported_with_owner_and_bytes() {
    with_each_way(|sink, _| {
        for address in [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()] {
            check_both_ends(sink, address);
        }
    });
}

fn check_both_ends(sink: &TestSink, address: SocketAddr) {
    let (mut client, mut server, _listener) = pair(address);
    let cookies = [cookie(&client), cookie(&server)];
    let (local, remote) = (client.local_addr().unwrap(), server.local_addr().unwrap());
    let opened = cookies.map(|cookie| wait_for_open(sink, cookie));
    let executable = std::env::current_exe().unwrap();
    for end in &opened {
        assert_eq!(end.process.unwrap().pid, std::process::id());
        assert_eq!(end.executable.as_bytes(), executable.as_os_str().as_encoded_bytes());
        assert_eq!(end.user_id, Some(rustix::process::geteuid().as_raw()));
    }
    assert_eq!((opened[0].local, opened[0].remote, opened[0].direction), (local, remote, Direction::Outbound));
    assert_eq!((opened[1].local, opened[1].remote, opened[1].direction), (remote, local, Direction::Inbound));
    client.write_all(&[1; 100_000]).unwrap();
    server.write_all(&[2; 777]).unwrap();
    close_in_order(&mut client, &mut server);
    drop((client, server));
    let closed = cookies.map(|cookie| wait_for_close(sink, cookie));
    assert_eq!((closed[0].bytes_sent, closed[0].bytes_received), (Some(100_000), Some(777)));
    assert_eq!((closed[1].bytes_sent, closed[1].bytes_received), (Some(777), Some(100_000)));
    for (opened, closed) in opened.iter().zip(&closed) {
        // Of one that was found by a look first, the cgroup is known only later.
        let cgroup_id = opened.cgroup_id.and(closed.connection.cgroup_id);
        assert_eq!(Connection { cgroup_id, ..closed.connection.clone() }, *opened);
        assert_eq!(closed.outcome, ConnectionOutcome::Closed);
        assert!(closed.duration_ns.unwrap() > 0 && closed.segments_sent.unwrap() > 2);
    }
}

#[test]
fn each_short_connection_ends_exactly_once() {
    const COUNT: usize = 200;
    with_each_way(|sink, trace| {
        let listener = known_listener(sink);
        let address = listener.local_addr().unwrap();
        let mut expected = Vec::new();
        for number in 1..=COUNT {
            let mut client = TcpStream::connect(address).unwrap();
            let mut server = listener.accept().unwrap().0;
            client.write_all(&vec![0; number]).unwrap();
            close_in_order(&mut client, &mut server);
            expected.push((cookie(&client), number, 0));
            expected.push((cookie(&server), 0, number));
        }
        for (number, &(cookie, sent, received)) in expected.iter().enumerate() {
            let close = wait_for_close(sink, cookie);
            assert_eq!((close.bytes_sent, close.bytes_received), (Some(sent as u64), Some(received as u64)));
            assert_eq!(close.outcome, ConnectionOutcome::Closed);
            if trace {
                assert_eq!(
                    close.connection.process.map(|process| process.pid),
                    Some(std::process::id()),
                    "{number} {close:?}"
                );
                assert!(close.duration_ns.is_some());
            }
        }
        let observations = sink.observations();
        for (cookie, ..) in expected {
            assert_eq!(closes(&observations, cookie).len(), 1);
            assert!(opens(&observations, cookie).len() <= 1);
        }
    });
}

#[test]
fn a_refused_attempt_failed() {
    with_each_way(|sink, trace| {
        let (remote, _bound) = nowhere();
        assert!(TcpStream::connect_timeout(&remote, STOP_TIMEOUT).is_err());
        let close = wait_for_close_to(sink, |to| to == remote);
        assert!(close.outcome.is_failure(), "{close:?}");
        assert_eq!(close.connection.direction, Direction::Outbound);
        assert_eq!((close.bytes_sent, close.bytes_received), (Some(0), Some(0)));
        let pid = close.connection.process.map(|process| process.pid);
        assert_eq!(pid, trace.then(std::process::id));
    });
}

#[test]
fn an_attempt_refused_while_the_caller_waits_is_known_in_full_only_by_its_beginning() {
    with_each_way(|sink, trace| {
        // An address of its own, since without the beginning nothing else tells it from others.
        let address = if trace { Ipv4Addr::new(127, 77, 0, 1) } else { Ipv4Addr::new(127, 77, 0, 2) };
        assert!(TcpStream::connect((address, 1)).is_err());
        let close = wait_for_close_to(sink, |to| to.ip() == address);
        assert!(close.outcome.is_failure(), "{close:?}");
        let known = (close.connection.remote.port() == 1, close.connection.process.is_some());
        // Without the beginning, only a look in that very moment knows more.
        assert!(known == (trace, trace) || !trace && known.0, "{close:?}");
    });
}

#[test]
fn a_connection_that_is_cut_off_was_one() {
    with_each_way(|sink, trace| {
        let (client, server, _listener) = pair((Ipv4Addr::LOCALHOST, 0).into());
        let cookies = [cookie(&client), cookie(&server)];
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        let remote = client.peer_addr().unwrap();
        drop(client);
        drop(server);
        let closed = cookies.map(|cookie| wait_for_close(sink, cookie));
        for close in &closed {
            assert!(matches!(close.outcome, ConnectionOutcome::Closed | ConnectionOutcome::Reset), "{closed:?}");
        }
        if trace {
            assert_eq!(closed[0].connection.remote, remote);
        }
    });
}

/// The sensor on eBPF programs, where that is permitted.
fn with_ebpf(test: impl FnOnce(&TestSink)) {
    let sink = TestSink::default();
    let Some(set) = started(&sink, Way::Ebpf) else { return };
    test(&sink);
    assert_eq!(sink.lost(), 0);
    assert_eq!(set.stop_and_join(STOP_TIMEOUT), Vec::<&str>::new());
}

#[test]
fn ebpf_tells_connections_of_one_socket_apart() {
    use rustix::net::{AddressFamily, SocketType};

    with_ebpf(|sink| {
        let ((refusing, _bound), listener) = (nowhere(), TcpListener::bind("127.0.0.1:0").unwrap());
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let plain = cookie(&socket);
        rustix::net::connect(&socket, &refusing).unwrap_err();
        let failed = wait_for_close(sink, plain);
        assert_eq!((failed.outcome, failed.connection.remote), (ConnectionOutcome::Refused, refusing));
        let address = listener.local_addr().unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        drop(listener.accept().unwrap());
        drop(socket);
        let close = wait_for_close_to(sink, |to| to == address);
        assert_eq!(close.outcome, ConnectionOutcome::Closed);
        let id = close.connection.cookie;
        assert!(id != plain);
        let observations = sink.observations();
        for (id, open) in [(plain, 0), (id, 1)] {
            assert_eq!((opens(&observations, id).len(), closes(&observations, id).len()), (open, 1));
        }
    });
}

#[test]
fn ebpf_tells_refused_cut_and_closed_apart() {
    with_ebpf(|sink| {
        let (refusing, _bound) = nowhere();
        assert!(TcpStream::connect(refusing).is_err());
        assert_eq!(wait_for_close_to(sink, |to| to == refusing).outcome, ConnectionOutcome::Refused);

        let (mut client, mut server, _listener) = pair((Ipv4Addr::LOCALHOST, 0).into());
        let in_order = [cookie(&client), cookie(&server)];
        close_in_order(&mut client, &mut server);
        drop((client, server));
        let (client, server, _listener) = pair((Ipv4Addr::LOCALHOST, 0).into());
        let cut = [cookie(&client), cookie(&server)];
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        for cookie in in_order {
            let close = wait_for_close(sink, cookie);
            assert_eq!(close.outcome, ConnectionOutcome::Closed, "{close:?}");
            assert!(close.segments_sent.unwrap() > 0 && close.segments_received.unwrap() > 0);
        }
        for cookie in cut {
            assert_eq!(wait_for_close(sink, cookie).outcome, ConnectionOutcome::Reset);
        }
        drop(server);
    });
}

#[test]
fn ebpf_tells_what_was_not_answered() {
    with_ebpf(|sink| {
        // Sent to loopback, where nobody has that address: there is no answer of any kind.
        let script = "ip link set lo up && ip route add 192.0.2.0/24 dev lo && cd /proc/sys/net/ipv4 && \
                      echo 1 >tcp_syn_retries && { [ ! -e tcp_syn_linear_timeouts ] || echo 0 >tcp_syn_linear_timeouts; } && \
                      echo ready && exec 3<>/dev/tcp/192.0.2.1/9";
        let made = std::process::Command::new("unshare").args(["--net", "bash", "-c", script]).output();
        let Ok(made) = made else { return eprintln!("skipped: no unshare") };
        if !made.stdout.starts_with(b"ready") {
            return eprintln!("skipped: no network namespace: {}", String::from_utf8_lossy(&made.stderr));
        }
        let close = wait_for_close_to(sink, |to| to == (Ipv4Addr::new(192, 0, 2, 1), 9).into());
        assert_eq!(close.outcome, ConnectionOutcome::TimedOut);
        assert!(close.duration_ns.unwrap() > 1_000_000_000 && close.segments_sent == Some(2), "{close:?}");
    });
}

#[test]
fn ebpf_tells_of_sockets_that_listen() {
    let before = TcpListener::bind("127.0.0.1:0").unwrap();
    with_ebpf(|sink| {
        let after = TcpListener::bind("127.0.0.1:0").unwrap();
        for listener in [&before, &after] {
            let local = listener.local_addr().unwrap();
            let listens = sink.wait_for("a listening socket", |observations| {
                observations.iter().find_map(|observation| match &observation.body {
                    EventBody::ConnectionListen(connection) if connection.local == local => {
                        Some((**connection).clone())
                    }
                    _ => None,
                })
            });
            assert_eq!((listens.cookie, listens.remote.port()), (cookie(listener), 0));
            assert_eq!(listens.process.map(|process| process.pid), Some(std::process::id()));
        }
    });
}

#[test]
fn ebpf_names_the_process_also_when_it_is_gone() {
    with_ebpf(|sink| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("echo hello >/dev/tcp/127.0.0.1/{port}");
        let mut shell = std::process::Command::new("/bin/bash").args(["-c", &script]).spawn().unwrap();
        shell.wait().unwrap();
        let close = wait_for_close_to(sink, |to| to.port() == port);
        assert_eq!((close.bytes_sent, close.connection.direction), (Some(6), Direction::Outbound));
        assert_eq!(close.connection.process.unwrap().pid, shell.id());
        assert_eq!(close.connection.user_id, Some(rustix::process::geteuid().as_raw()));
    });
}

#[test]
fn ebpf_sees_other_network_namespaces() {
    with_ebpf(|sink| {
        // In a namespace of its own, whose loopback answers only once it is up.
        let script = "ip link set lo up && exec 3<>/dev/tcp/127.0.0.1/9";
        let made = std::process::Command::new("unshare").args(["--net", "bash", "-c", script]).output();
        let Ok(made) = made else { return eprintln!("skipped: no unshare") };
        let said = String::from_utf8_lossy(&made.stderr);
        if !said.contains("refused") {
            return eprintln!("skipped: no network namespace: {said}");
        }
        let close = wait_for_close_to(sink, |to| to == (Ipv4Addr::LOCALHOST, 9).into());
        assert_eq!(close.outcome, ConnectionOutcome::Refused);
        assert!(close.connection.process.is_some());
    });
}

fn wait_for_close_to(sink: &TestSink, is_remote: impl Fn(SocketAddr) -> bool) -> ConnectionClose {
    sink.wait_for("failed attempt", |observations| {
        observations.iter().find_map(|observation| match &observation.body {
            EventBody::ConnectionClose(close) if is_remote(close.connection.remote) => Some((**close).clone()),
            _ => None,
        })
    })
}

#[test]
fn connections_that_exist_already_are_opened() {
    let (client, server, _listener) = pair((Ipv4Addr::LOCALHOST, 0).into());
    with_each_way(|sink, _| {
        for end in [&client, &server] {
            assert_eq!(wait_for_open(sink, cookie(end)).process.unwrap().pid, std::process::id());
        }
    });
}

#[test]
fn the_agents_own_connections_are_not_reported() {
    let (client, _server, _listener) = pair((Ipv4Addr::LOCALHOST, 0).into());
    let sink = TestSink::default();
    let set = sink.start(&config(ModeChoice::Auto));
    let (own, _own_server, _own_listener) = pair((Ipv4Addr::LOCALHOST, 0).into());
    let (listener, mut shell) = listener_and_shell();
    let (stream, address) = listener.accept().unwrap();
    sink.wait_for("open of another process", |observations| {
        observations.iter().find(|observation| match &observation.body {
            EventBody::ConnectionOpen(connection) => {
                connection.local == address && connection.process.is_some_and(|process| process.pid == shell.id())
            }
            _ => false,
        })?;
        Some(())
    });
    drop(stream);
    shell.kill().unwrap();
    shell.wait().unwrap();
    for cookie in [cookie(&client), cookie(&own)] {
        assert!(opens(&sink.observations(), cookie).is_empty());
    }
    set.stop_and_join(STOP_TIMEOUT);
}

fn listener_and_shell() -> (TcpListener, std::process::Child) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; exec sleep 60");
    let shell = std::process::Command::new("/bin/bash").args(["-c", &script]).spawn().unwrap();
    (listener, shell)
}

#[test]
fn polling_sees_what_stays() {
    let sink = TestSink::default();
    let set = sink.start_seeing_itself(&config(ModeChoice::Polling));
    assert_eq!(set.modes[0].origin, Origin::AgentPolling);
    assert!(!set.modes[0].reason.is_empty());
    let (mut client, server, _listener) = pair((Ipv4Addr::LOCALHOST, 0).into());
    let cookies = [cookie(&client), cookie(&server)];
    for cookie in cookies {
        assert_eq!(wait_for_open(&sink, cookie).process.unwrap().pid, std::process::id());
    }
    client.write_all(b"hello").unwrap();
    drop((client, server));
    for cookie in cookies {
        let close = wait_for_close(&sink, cookie);
        assert_eq!(close.outcome, ConnectionOutcome::Closed);
        assert!(close.bytes_sent.is_some() && close.duration_ns.unwrap() > 0);
    }
    assert_eq!(set.status()[0].name, "connection");
    set.stop_and_join(STOP_TIMEOUT);
}

#[test]
fn notifications_that_do_not_fit_are_counted() {
    use crate::sensor::connection::sock_diag::DestroySubscription;

    let Ok(mut subscription) = DestroySubscription::open() else {
        return eprintln!("skipped: no notifications here");
    };
    subscription.shrink_receive_buffer();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sent = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        sent.extend([cookie(&client), cookie(&server)]);
    }
    let (mut received, mut dropped) = (0, 0);
    let deadline = std::time::Instant::now() + crate::sensor::test_sink::DEADLINE;
    // The kernel sends them later: nothing is read before the buffer was full.
    while dropped == 0 {
        dropped += subscription.new_drops();
        assert!(std::time::Instant::now() < deadline, "nothing dropped");
        std::thread::sleep(Duration::from_millis(2));
    }
    // Others open connections too: theirs may be among the dropped, so there are at least as many as of ours are missing.
    while received + dropped < sent.len() as u64 {
        subscription.take(1000, |socket| received += u64::from(sent.contains(&socket.cookie))).unwrap();
        dropped += subscription.new_drops();
        assert!(std::time::Instant::now() < deadline, "{received} received, {dropped} dropped");
    }
}

/// Where the cgroup hierarchy of version 2 is mounted.
fn cgroup_root() -> Option<std::path::PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[2] == "cgroup2")?;
    Some(mount[1].into())
}

#[test]
fn ebpf_names_the_cgroup_of_a_connection_out_of_namespaces_of_its_own() {
    use std::os::unix::fs::MetadataExt as _;

    let Some(root) = cgroup_root() else { return eprintln!("skipped: no cgroup2 here") };
    let cgroup = root.join(format!("picket-test-{}", std::process::id()));
    if let Err(error) = std::fs::create_dir(&cgroup) {
        return eprintln!("skipped: no cgroup to be had: {error}");
    }
    let id = std::fs::metadata(&cgroup).unwrap().ino();
    with_ebpf(|sink| {
        let inside = "ip link set lo up && exec 3<>/dev/tcp/127.0.0.77/9";
        let script =
            format!("echo $$ >{}/cgroup.procs && unshare --net --pid --fork bash -c '{inside}'", cgroup.display());
        let made = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        if !said.contains("refused") {
            return eprintln!("skipped: no namespaces: {said}");
        }
        let close = wait_for_close_to(sink, |to| to == (Ipv4Addr::new(127, 0, 0, 77), 9).into());
        assert_eq!(close.connection.cgroup_id.map(u64::from), Some(id));
        assert!(close.connection.process.is_some());
    });
    std::fs::remove_dir(&cgroup).unwrap();
}
