//! Connections as state changes told of them, until the socket itself was seen or had ended.
//!
//! The kernel gives the memory of a socket that ended to the next at once, mostly before its end is told: an attempt
//! stays known by its ends when its socket has become another's.
//!
//! Bounded: the oldest go first. What is lost so (or was never told) is only what a change knows better than the
//! socket: who began it, and the ends of a socket that was reset.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use picket_common::event::Direction;

use crate::enrich::socket_owner::Owner;
use crate::sensor::connection::sock_diag::{DiagSocket, TcpState};
use crate::sensor::connection::state_trace::StateChange;
use crate::sensor::connection::table::Witness;

/// Most attempts remembered.
const ATTEMPTS_MAX: usize = 8192;

/// The attempts, numbered as they came.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    attempts: BTreeMap<u64, Attempt>,
    next_number: u64,
    /// The latest attempt of a socket.
    by_socket: HashMap<u64, u64>,
    by_ends: HashMap<(SocketAddr, SocketAddr), u64>,
    /// What is left of the ends of a socket that was reset: local port and remote address.
    by_remainder: HashMap<(u16, IpAddr), u64>,
}

#[derive(Debug)]
struct Attempt {
    socket: u64,
    /// When it was last told of.
    monotonic_ns: u64,
    witness: Witness,
}

impl Attempts {
    /// Takes in a change; `owner` tells whose a task is. Says whether a connection was established with it.
    pub(super) fn observe(&mut self, change: &StateChange, owner: impl FnOnce(u32) -> Option<Owner>) -> bool {
        match (change.from, change.to) {
            (_, TcpState::SYN_SENT) => {
                let owner = owner(change.task);
                let latest = self.by_socket.get(&change.socket).and_then(|number| self.attempts.get_mut(number));
                match latest {
                    // Seen late: what followed was recorded by another processor and is known already.
                    Some(attempt) if attempt.monotonic_ns > change.monotonic_ns => attempt.witness.owner = owner,
                    _ => self.begin(change, Direction::Outbound, owner),
                }
                false
            }
            (TcpState::SYN_SENT, to) => {
                let is_established = to == TcpState::ESTABLISHED;
                if !self.by_socket.contains_key(&change.socket) {
                    self.begin(change, Direction::Outbound, None);
                }
                self.settle(change, is_established);
                is_established
            }
            (TcpState::SYN_RECV, TcpState::ESTABLISHED) => {
                self.begin(change, Direction::Inbound, None);
                self.settle(change, true);
                true
            }
            _ => false,
        }
    }

    /// Takes out what is known of a socket.
    pub(super) fn take(&mut self, socket: &DiagSocket) -> Option<Witness> {
        let number = match self.by_ends.get(&(socket.local, socket.remote)) {
            None if socket.remote.port() == 0 => {
                self.by_remainder.get(&(socket.local.port(), socket.remote.ip())).copied()
            }
            number => number.copied(),
        };
        self.remove(number?)
    }

    fn begin(&mut self, change: &StateChange, direction: Direction, owner: Option<Owner>) {
        let number = self.next_number;
        self.next_number += 1;
        let witness = Witness {
            local: change.local,
            remote: change.remote,
            direction,
            owner,
            time: change.time,
            established: false,
            outcome: None,
        };
        let attempt = Attempt { socket: change.socket, monotonic_ns: change.monotonic_ns, witness };
        self.attempts.insert(number, attempt);
        self.by_socket.insert(change.socket, number);
        while self.attempts.len() > ATTEMPTS_MAX {
            let Some((&oldest, _)) = self.attempts.first_key_value() else { break };
            self.remove(oldest);
        }
    }

    /// The latest attempt of a socket was decided, and its ends are final.
    fn settle(&mut self, change: &StateChange, is_established: bool) {
        let Some(&number) = self.by_socket.get(&change.socket) else { return };
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        let witness = &mut attempt.witness;
        attempt.monotonic_ns = change.monotonic_ns;
        (witness.local, witness.remote) = (change.local, change.remote);
        if is_established {
            (witness.established, witness.time) = (true, change.time);
        }
        self.by_ends.insert((change.local, change.remote), number);
        // The port of an attempt is its own; that of an accepted connection it shares with all others.
        if witness.direction == Direction::Outbound {
            self.by_remainder.insert((change.local.port(), change.remote.ip()), number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Witness> {
        let Attempt { socket, witness, .. } = self.attempts.remove(&number)?;
        remove_if(&mut self.by_socket, &socket, number);
        remove_if(&mut self.by_ends, &(witness.local, witness.remote), number);
        remove_if(&mut self.by_remainder, &(witness.local.port(), witness.remote.ip()), number);
        Some(witness)
    }
}

/// Removes an entry that may have become that of a later attempt.
fn remove_if<K: Eq + std::hash::Hash>(numbers: &mut HashMap<K, u64>, key: &K, number: u64) {
    if numbers.get(key) == Some(&number) {
        numbers.remove(key);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use picket_common::event::{ProcessId, Timestamp};

    use super::*;

    const CLOSE: TcpState = TcpState(7);
    const SYN_RECV: TcpState = TcpState(3);
    const CLIENT: &str = "127.0.0.1:40000";
    const SERVER: &str = "127.0.0.1:80";

    fn owner(pid: u32) -> Option<Owner> {
        Some(Owner { process: ProcessId { pid, start_time: Timestamp(0) }, executable: Arc::from(&b""[..]) })
    }

    fn change(time: i64, socket: u64, states: (TcpState, TcpState), local: &str, remote: &str) -> StateChange {
        let (from, to) = states;
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        StateChange {
            time: Timestamp(time),
            monotonic_ns: time.cast_unsigned(),
            socket,
            task: 7,
            from,
            to,
            local,
            remote,
        }
    }

    fn destroyed(local: &str, remote: &str) -> DiagSocket {
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        DiagSocket {
            state: CLOSE,
            local,
            remote,
            cookie: 1,
            network: 0,
            user_id: 0,
            inode: 0,
            cgroup_id: None,
            info: None,
        }
    }

    #[test]
    fn an_outbound_connection_has_the_owner_of_its_beginning() {
        let mut attempts = Attempts::default();
        let begin = change(1, 100, (CLOSE, TcpState::SYN_SENT), "127.0.0.1:0", SERVER);
        assert!(!attempts.observe(&begin, owner));
        let established = change(2, 100, (TcpState::SYN_SENT, TcpState::ESTABLISHED), CLIENT, SERVER);
        assert!(attempts.observe(&established, |_| panic!("in any context")));
        let witness = attempts.take(&destroyed(CLIENT, SERVER)).unwrap();
        assert_eq!((witness.owner, witness.time, witness.established), (owner(7), Timestamp(2), true));
        assert_eq!((witness.direction, witness.local), (Direction::Outbound, CLIENT.parse().unwrap()));
        assert_eq!(attempts.take(&destroyed(CLIENT, SERVER)), None);
    }

    #[test]
    fn an_inbound_connection_is_established_at_once() {
        let mut attempts = Attempts::default();
        let established = change(2, 100, (SYN_RECV, TcpState::ESTABLISHED), SERVER, CLIENT);
        assert!(attempts.observe(&established, |_| panic!("in any context")));
        let witness = attempts.take(&destroyed(SERVER, CLIENT)).unwrap();
        assert_eq!((witness.direction, witness.owner), (Direction::Inbound, None));
    }

    #[test]
    fn a_refused_attempt_is_known_by_what_is_left_of_it() {
        let mut attempts = Attempts::default();
        attempts.observe(&change(1, 100, (CLOSE, TcpState::SYN_SENT), "127.0.0.1:0", SERVER), owner);
        assert!(!attempts.observe(&change(2, 100, (TcpState::SYN_SENT, CLOSE), CLIENT, SERVER), owner));
        let witness = attempts.take(&destroyed("0.0.0.0:40000", "127.0.0.1:0")).unwrap();
        assert_eq!((witness.remote, witness.time), (SERVER.parse().unwrap(), Timestamp(1)));
        assert_eq!((witness.owner, witness.established), (owner(7), false));
        assert!(attempts.by_ends.is_empty() && attempts.by_remainder.is_empty() && attempts.attempts.is_empty());
    }

    #[test]
    fn changes_may_come_out_of_order() {
        let mut attempts = Attempts::default();
        let established = change(2, 100, (TcpState::SYN_SENT, TcpState::ESTABLISHED), CLIENT, SERVER);
        assert!(attempts.observe(&established, owner));
        attempts.observe(&change(1, 100, (CLOSE, TcpState::SYN_SENT), "127.0.0.1:0", SERVER), owner);
        let witness = attempts.take(&destroyed(CLIENT, SERVER)).unwrap();
        assert_eq!((witness.owner, witness.established), (owner(7), true));
    }

    #[test]
    fn a_socket_used_again_is_a_new_attempt_and_the_old_one_stays_known() {
        let mut attempts = Attempts::default();
        attempts.observe(&change(1, 100, (CLOSE, TcpState::SYN_SENT), "127.0.0.1:0", SERVER), owner);
        attempts.observe(&change(2, 100, (TcpState::SYN_SENT, TcpState::ESTABLISHED), CLIENT, SERVER), owner);
        let next = "127.0.0.1:40001";
        attempts.observe(&change(3, 100, (CLOSE, TcpState::SYN_SENT), "127.0.0.1:0", SERVER), |_| owner(8));
        attempts.observe(&change(4, 100, (TcpState::SYN_SENT, CLOSE), next, SERVER), owner);
        let first = attempts.take(&destroyed(CLIENT, SERVER)).unwrap();
        assert_eq!((first.owner, first.established), (owner(7), true));
        let second = attempts.take(&destroyed("0.0.0.0:40001", "127.0.0.1:0")).unwrap();
        assert_eq!((second.owner, second.established), (owner(8), false));
        assert!(attempts.attempts.is_empty() && attempts.by_socket.is_empty());
    }

    #[test]
    fn attempts_are_bounded() {
        let mut attempts = Attempts::default();
        for number in 0..100_000_u32 {
            let [_, high, middle, low] = number.to_be_bytes();
            let remote = format!("10.{high}.{middle}.{low}:80");
            let states = (TcpState::SYN_SENT, TcpState::ESTABLISHED);
            attempts.observe(&change(i64::from(number), number.into(), states, CLIENT, &remote), owner);
        }
        assert_eq!(attempts.attempts.len(), ATTEMPTS_MAX);
        assert_eq!((attempts.by_ends.len(), attempts.by_socket.len()), (ATTEMPTS_MAX, ATTEMPTS_MAX));
        assert!(attempts.by_remainder.len() <= ATTEMPTS_MAX);
    }
}
