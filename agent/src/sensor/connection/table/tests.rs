#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use picket_common::event::ProcessId;

use super::*;

const LISTENING: &str = "127.0.0.1:80";
const CLIENT: &str = "127.0.0.1:40000";
const AGENT: u32 = 999;

fn socket(cookie: u64, state: TcpState, local: &str, remote: &str) -> DiagSocket {
    DiagSocket {
        state,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        cookie,
        network: 0,
        user_id: 1000,
        inode: u32::try_from(cookie).unwrap() + 100,
        cgroup_id: None,
        info: None,
    }
}

fn listener(cookie: u64) -> DiagSocket {
    socket(cookie, TcpState::LISTEN, LISTENING, "0.0.0.0:0")
}

fn destroyed(cookie: u64, local: &str, remote: &str) -> DiagSocket {
    let info = TcpInfo { round_trip_min_us: Some(20), ..TcpInfo::default() };
    DiagSocket { user_id: 0, inode: 0, info: Some(info), ..socket(cookie, TcpState(7), local, remote) }
}

fn refused(cookie: u64, local: &str, remote: &str) -> DiagSocket {
    let info = TcpInfo { round_trip_min_us: Some(u32::MAX), ..TcpInfo::default() };
    DiagSocket { info: Some(info), ..destroyed(cookie, local, remote) }
}

fn owner(pid: u32) -> Owner {
    let process = ProcessId { pid, start_time: Timestamp(5) };
    Owner { process, executable: Arc::from(&b"/bin/nc"[..]) }
}

fn table() -> ConnectionTable {
    let remotes = vec!["192.0.2.1:8443".parse().unwrap()];
    ConnectionTable::new(OwnConnections { pid: Some(AGENT), remotes, visible_user: None })
}

fn opened(table: &mut ConnectionTable) -> Vec<(Timestamp, Connection)> {
    let connection = |(time, body)| match body {
        EventBody::ConnectionOpen(connection) => (time, *connection),
        other => panic!("{other:?}"),
    };
    table.take_opened().into_iter().map(connection).collect()
}

#[test]
fn a_connection_is_opened_once_and_closed_once_with_its_owner() {
    let mut table = table();
    table.begin_look();
    let client = socket(1, TcpState::ESTABLISHED, CLIENT, LISTENING);
    table.see(&client, Timestamp(10), None);
    assert_eq!(table.wanted_owners(), HashMap::from([(101, 1)]));
    table.set_owner(1, &owner(7));
    let events = opened(&mut table);
    assert_eq!(events.len(), 1);
    let (time, connection) = &events[0];
    assert_eq!((*time, connection.cookie, connection.direction), (Timestamp(10), 1, Direction::Outbound));
    assert_eq!((connection.process, connection.user_id), (Some(owner(7).process), Some(1000)));
    assert_eq!(connection.executable, ByteString::from("/bin/nc"));
    table.see(&client, Timestamp(20), None);
    assert!(opened(&mut table).is_empty() && table.wanted_owners().is_empty());
    let close = table.destroy(&destroyed(1, CLIENT, LISTENING), Timestamp(110), None).unwrap();
    assert_eq!((close.connection, close.duration_ns), (connection.clone(), Some(100)));
    assert_eq!(close.outcome, ConnectionOutcome::Closed);
}

#[test]
fn who_began_is_told_by_the_listener_and_so_is_who_accepts() {
    let mut table = table();
    table.begin_look();
    table.see(&listener(1), Timestamp(0), None);
    table.see(&socket(2, TcpState::ESTABLISHED, LISTENING, CLIENT), Timestamp(0), None);
    table.see(&socket(3, TcpState::ESTABLISHED, CLIENT, LISTENING), Timestamp(0), None);
    assert_eq!(table.wanted_owners().len(), 3);
    table.set_owner(1, &owner(7));
    let events = opened(&mut table);
    let seen = |(_, connection): &(Timestamp, Connection)| (connection.direction, connection.process);
    let expected = [(Direction::Inbound, Some(owner(7).process)), (Direction::Outbound, None)];
    assert_eq!(events.iter().map(seen).collect::<Vec<_>>(), expected);
    // A worker that has the accepted socket is a better owner than the process that listens.
    table.set_owner(2, &owner(8));
    let close = table.destroy(&destroyed(2, LISTENING, CLIENT), Timestamp(9), None).unwrap();
    assert_eq!(close.connection.process, Some(owner(8).process));
    // One that was never seen alive.
    let close = table.destroy(&destroyed(4, LISTENING, "127.0.0.1:5"), Timestamp(9), None).unwrap();
    assert_eq!((close.connection.direction, close.connection.process), expected[0]);
    assert_eq!((close.connection.user_id, close.duration_ns), (None, None));
    // Without the listener it is taken to have begun here.
    assert_eq!(table.destroy(&listener(1), Timestamp(9), None), None);
    let close = table.destroy(&destroyed(5, LISTENING, "127.0.0.1:5"), Timestamp(9), None).unwrap();
    assert_eq!(close.connection.direction, Direction::Outbound);
}

#[test]
fn an_attempt_is_opened_only_when_the_ends_met() {
    let mut table = table();
    table.begin_look();
    table.see(&socket(1, TcpState::SYN_SENT, "10.0.0.1:9", "10.0.0.2:80"), Timestamp(1), None);
    assert!(opened(&mut table).is_empty());
    table.see(&socket(1, TcpState::ESTABLISHED, "10.0.0.1:9", "10.0.0.2:80"), Timestamp(2), None);
    assert_eq!(opened(&mut table).len(), 1);
    table.see(&socket(2, TcpState::SYN_SENT, "10.0.0.1:10", "10.0.0.2:80"), Timestamp(1), None);
    table.set_owner(2, &owner(7));
    let close = table.destroy(&refused(2, "0.0.0.0:10", "10.0.0.2:0"), Timestamp(5), None).unwrap();
    assert_eq!((close.outcome, close.duration_ns), (ConnectionOutcome::Failed, Some(4)));
    assert_eq!(close.connection.remote, "10.0.0.2:80".parse().unwrap(), "the socket itself has forgotten the port");
    assert_eq!(close.connection.process, Some(owner(7).process));
}

#[test]
fn what_was_no_connection_has_no_end() {
    let mut table = table();
    assert_eq!(table.destroy(&refused(1, "0.0.0.0:0", "0.0.0.0:0"), Timestamp(5), None), None);
    assert_eq!(table.destroy(&refused(2, "127.0.0.1:80", "0.0.0.0:0"), Timestamp(5), None), None);
    table.see(&socket(3, TcpState(9), "127.0.0.1:80", "127.0.0.1:0"), Timestamp(5), None);
    assert!(opened(&mut table).is_empty());
}

#[test]
fn a_witness_makes_up_for_what_the_socket_does_not_tell() {
    let mut table = table();
    let witness = Witness {
        local: CLIENT.parse().unwrap(),
        remote: LISTENING.parse().unwrap(),
        direction: Direction::Outbound,
        owner: Some(owner(7)),
        time: Timestamp(100),
        established: false,
        outcome: None,
    };
    let close =
        table.destroy(&refused(1, "0.0.0.0:40000", "127.0.0.1:0"), Timestamp(150), Some(witness.clone())).unwrap();
    assert_eq!((close.outcome, close.duration_ns), (ConnectionOutcome::Failed, Some(50)));
    assert_eq!(close.connection.remote, witness.remote);
    assert_eq!(close.connection.process, Some(owner(7).process));
    let established = Witness { established: true, ..witness.clone() };
    let close = table.destroy(&refused(2, "0.0.0.0:40000", "127.0.0.1:0"), Timestamp(150), Some(established)).unwrap();
    assert_eq!(close.outcome, ConnectionOutcome::Closed);
    table.see(&socket(3, TcpState::ESTABLISHED, CLIENT, LISTENING), Timestamp(200), Some(witness));
    let events = opened(&mut table);
    assert_eq!((events[0].0, events[0].1.process), (Timestamp(100), Some(owner(7).process)));
}

#[test]
fn a_witness_may_come_after_the_socket_was_seen() {
    let mut table = table();
    let witness = Witness {
        local: CLIENT.parse().unwrap(),
        remote: LISTENING.parse().unwrap(),
        direction: Direction::Inbound,
        owner: Some(owner(7)),
        time: Timestamp(90),
        established: true,
        outcome: None,
    };
    for cookie in [1, 2] {
        table.see(&socket(cookie, TcpState::ESTABLISHED, CLIENT, LISTENING), Timestamp(100), None);
    }
    assert_eq!(opened(&mut table).len(), 2);
    table.see(&socket(1, TcpState::ESTABLISHED, CLIENT, LISTENING), Timestamp(110), Some(witness.clone()));
    let seen = table.destroy(&destroyed(1, CLIENT, LISTENING), Timestamp(150), None).unwrap();
    let heard = table.destroy(&destroyed(2, CLIENT, LISTENING), Timestamp(150), Some(witness)).unwrap();
    for close in [seen, heard] {
        assert_eq!(close.connection.process, Some(owner(7).process));
        assert_eq!(close.connection.direction, Direction::Outbound, "as it was opened");
        assert_eq!(close.duration_ns, Some(50));
    }
}

#[test]
fn the_agents_own_connections_are_not_reported() {
    let mut table = table();
    table.begin_look();
    table.see(&socket(1, TcpState::ESTABLISHED, CLIENT, LISTENING), Timestamp(1), None);
    table.set_owner(1, &owner(AGENT));
    assert!(opened(&mut table).is_empty());
    assert_eq!(table.destroy(&destroyed(1, CLIENT, LISTENING), Timestamp(2), None), None);
    let own = "192.0.2.1:8443";
    assert_eq!(table.destroy(&refused(2, "192.0.2.9:40000", own), Timestamp(2), None), None);
    assert!(table.destroy(&refused(3, "192.0.2.9:40000", "192.0.2.1:80"), Timestamp(2), None).is_some());
    assert!(table.destroy(&destroyed(4, "192.0.2.9:40000", own), Timestamp(2), None).is_some());
}

#[test]
fn without_notifications_a_connection_that_is_not_shown_any_more_has_ended() {
    let mut table = table();
    table.begin_look();
    let info = TcpInfo { bytes_acknowledged: Some(11), bytes_sent: Some(10), ..TcpInfo::default() };
    let info = Some(TcpInfo { bytes_retransmitted: Some(0), ..info });
    table.see(&DiagSocket { info, ..socket(1, TcpState::ESTABLISHED, CLIENT, LISTENING) }, Timestamp(1), None);
    table.see(&socket(2, TcpState::ESTABLISHED, "127.0.0.1:7", LISTENING), Timestamp(1), None);
    assert_eq!(opened(&mut table).len(), 2);
    assert!(table.take_missing(1, Timestamp(1)).is_empty());
    table.begin_look();
    table.see(&socket(2, TcpState::ESTABLISHED, "127.0.0.1:7", LISTENING), Timestamp(3), None);
    let ended = table.take_missing(1, Timestamp(3));
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].connection.cookie, ended[0].bytes_sent), (1, Some(10)));
    assert_eq!((ended[0].outcome, ended[0].duration_ns), (ConnectionOutcome::Closed, Some(2)));
}

#[test]
fn an_end_that_nothing_told_takes_as_many_looks_as_are_asked_for() {
    let mut table = table();
    table.begin_look();
    let elsewhere = DiagSocket { network: 7, ..socket(2, TcpState::ESTABLISHED, "127.0.0.1:7", LISTENING) };
    table.see(&socket(1, TcpState::ESTABLISHED, CLIENT, LISTENING), Timestamp(1), None);
    table.see(&elsewhere, Timestamp(1), None);
    assert_eq!(opened(&mut table).len(), 2);
    table.see(&socket(3, TcpState::ESTABLISHED, "127.0.0.1:8", LISTENING), Timestamp(1), None);
    assert_eq!(opened(&mut table).len(), 1);
    table.begin_look();
    assert!(table.take_missing(2, Timestamp(2)).is_empty(), "a look may have skipped it");
    table.begin_look();
    table.take_back_look();
    assert!(table.take_missing(2, Timestamp(2)).is_empty(), "a look that was cut short says nothing");
    table.begin_look();
    table.mark_alive(3);
    table.mark_alive(4);
    assert!(opened(&mut table).is_empty(), "what was forgotten is not opened again");
    let ended = table.take_missing(2, Timestamp(3));
    assert_eq!(ended.iter().map(|close| close.connection.cookie).collect::<Vec<_>>(), [1], "a look shows no others");
    assert!(table.take_missing(2, Timestamp(4)).is_empty());
}

#[test]
fn an_owner_is_not_looked_for_forever() {
    let mut table = table();
    table.begin_look();
    table.see(&socket(1, TcpState::ESTABLISHED, CLIENT, LISTENING), Timestamp(1), None);
    let searches = (0..1000).filter(|_| !table.wanted_owners().is_empty()).count();
    assert!((5..100).contains(&searches), "{searches}");
}

#[test]
fn the_oldest_go_first_and_are_counted() {
    let mut table = ConnectionTable::with_capacity(10, OwnConnections::default());
    for cookie in 1..=5000 {
        table.see(&socket(cookie, TcpState::ESTABLISHED, CLIENT, LISTENING), Timestamp(1), None);
    }
    assert_eq!((table.entries.len(), table.evictions()), (10, 4990));
    assert_eq!(opened(&mut table).len(), 10);
    assert!(table.wanted_owners().len() <= 10);
    for cookie in 5001..=20_000 {
        table.see(&socket(cookie, TcpState::ESTABLISHED, CLIENT, LISTENING), Timestamp(1), None);
        table.destroy(&destroyed(cookie, CLIENT, LISTENING), Timestamp(2), None);
    }
    assert!(table.order.len() <= 2 * 1024 + 1, "{}", table.order.len());
}

#[test]
fn listeners_are_bounded_and_told_apart_by_address() {
    let mut table = table();
    table.begin_look();
    for number in 0..5000_u32 {
        let local = SocketAddr::from(([10, 0, 1, 1], u16::try_from(number).unwrap() + 1));
        let listener = DiagSocket { local, cookie: u64::from(number), ..listener(1) };
        table.see(&listener, Timestamp(0), None);
    }
    assert!(table.listeners.accept("10.0.1.1:80".parse().unwrap(), 0));
    assert!(!table.listeners.accept("10.0.1.2:80".parse().unwrap(), 0));
    assert!(!table.listeners.accept("10.0.1.1:5000".parse().unwrap(), 0));
    let any = DiagSocket { local: "0.0.0.0:4711".parse().unwrap(), cookie: 10_000, ..listener(1) };
    table.see(&any, Timestamp(0), None);
    assert!(!table.listeners.accept("10.9.9.9:4711".parse().unwrap(), 0), "there is no room");
    table.listeners.remove(10);
    table.see(&any, Timestamp(0), None);
    assert!(table.listeners.accept("10.9.9.9:4711".parse().unwrap(), 0));
}

#[test]
fn a_listener_of_another_network_namespace_accepts_nothing_here() {
    let mut table = table();
    table.see(&DiagSocket { network: 7, ..listener(1) }, Timestamp(0), None);
    table.set_owner(1, &owner(70));
    let (here, there) = (SocketAddr::from(([127, 0, 0, 1], 80)), 7);
    assert!(!table.listeners.accept(here, 0) && table.listeners.accept(here, there));
    let accepted = |cookie| socket(cookie, TcpState::ESTABLISHED, LISTENING, CLIENT);
    table.see(&accepted(2), Timestamp(1), None);
    table.see(&DiagSocket { network: there, ..accepted(3) }, Timestamp(1), None);
    let owners: Vec<_> = opened(&mut table).into_iter().map(|(_, open)| open.process.map(|id| id.pid)).collect();
    assert_eq!(owners, [None, Some(70)]);
}

#[test]
fn owners_that_cannot_be_seen_are_not_looked_for() {
    let own = OwnConnections { visible_user: Some(7), ..OwnConnections::default() };
    let mut table = ConnectionTable::new(own);
    table.see(&socket(1, TcpState::ESTABLISHED, CLIENT, LISTENING), Timestamp(1), None);
    table.see(&DiagSocket { user_id: 7, ..socket(2, TcpState::ESTABLISHED, CLIENT, LISTENING) }, Timestamp(1), None);
    assert_eq!(table.wanted_owners(), HashMap::from([(102, 2)]));
}
