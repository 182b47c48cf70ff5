//! Records of the eBPF program about connections, as `agent/bpf/connection.bpf.c` writes them.
//!
//! Numbers are in the machine's byte order, addresses in network order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use picket_common::event::{ConnectionOutcome, Direction};

use crate::sensor::connection::sock_diag::{TcpInfo, TcpState};
use crate::sensor::netlink::{u32_at, u64_at};

/// Kinds of records.
pub(super) const ESTABLISHED: u8 = 1;
pub(super) const ENDED: u8 = 2;
pub(super) const LISTENS: u8 = 3;

const FIN_RECEIVED: u8 = 1;
const HAS_OWNER: u8 = 2;
/// Error numbers.
const EPIPE: u16 = 32;
const ECONNRESET: u16 = 104;
const ETIMEDOUT: u16 = 110;
const ECONNREFUSED: u16 = 111;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// Spreads what is counted over all bits, so that no two sockets get one id: 2^64 divided by the golden ratio.
const REUSE_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ConnectionRecord {
    pub(super) change: Change,
    /// The state of the socket before.
    pub(super) from: TcpState,
    pub(super) direction: Direction,
    pub(super) monotonic_ns: u64,
    /// When it was established, or begun if it was not; `None`: before the program was.
    pub(super) begun_ns: Option<u64>,
    /// The socket's own cookie.
    pub(super) cookie: u64,
    /// How many attempts or connections of the same socket ended before.
    pub(super) ended_before: u32,
    /// Inode of the network namespace.
    pub(super) network: u32,
    pub(super) owner: Option<RecordedOwner>,
    pub(super) user_id: u32,
    /// Error number that the socket ended with; 0: none.
    pub(super) error: u16,
    /// Id of the cgroup of the socket (version 2); 0: none.
    pub(super) cgroup: u64,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) info: TcpInfo,
}

/// What happened to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Established,
    Ended,
    Listens,
}

/// A process, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordedOwner {
    pub(super) pid: u32,
    /// When it was created, nanoseconds after boot.
    pub(super) created_ns: u64,
}

impl ConnectionRecord {
    /// What names the connection. A program may connect a socket again after an attempt has failed: then the cookie alone
    /// would name two, and is mixed with how many there were before.
    pub(super) fn id(&self) -> u64 {
        self.cookie ^ u64::from(self.ended_before).wrapping_mul(REUSE_FACTOR)
    }

    /// How the connection or attempt ended, of an end.
    pub(super) fn outcome(&self) -> Option<ConnectionOutcome> {
        if self.change != Change::Ended {
            return None;
        }
        Some(match (self.from, self.error) {
            (TcpState::SYN_SENT, ECONNREFUSED) => ConnectionOutcome::Refused,
            (TcpState::SYN_SENT, ETIMEDOUT) => ConnectionOutcome::TimedOut,
            (TcpState::SYN_SENT, _) => ConnectionOutcome::Failed,
            // A close in good order goes through other states first; what is cut from here was cut by this end.
            (TcpState::ESTABLISHED | TcpState::CLOSE_WAIT, 0) => ConnectionOutcome::Reset,
            (_, ECONNRESET | EPIPE | ETIMEDOUT) => ConnectionOutcome::Reset,
            _ => ConnectionOutcome::Closed,
        })
    }

    /// Reads a record. `None` for what is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[kind, from, direction, flags] = bytes.first_chunk()?;
        let family = u16_at(bytes, 4)?;
        let address = |offset: usize| -> Option<IpAddr> {
            match family {
                AF_INET => Some(Ipv4Addr::from(*bytes.get(offset..)?.first_chunk::<4>()?).into()),
                AF_INET6 => Some(Ipv6Addr::from(*bytes.get(offset..)?.first_chunk::<16>()?).to_canonical()),
                _ => None,
            }
        };
        // Only an end has counters.
        let counters = if kind == ENDED { counters(bytes, flags)? } else { TcpInfo::default() };
        let owner = RecordedOwner { pid: u32_at(bytes, 48)?, created_ns: u64_at(bytes, 40)? };
        Some(Self {
            change: match kind {
                ESTABLISHED => Change::Established,
                ENDED => Change::Ended,
                LISTENS => Change::Listens,
                _ => return None,
            },
            from: TcpState(from),
            direction: match direction {
                1 => Direction::Inbound,
                2 => Direction::Outbound,
                _ => Direction::Unknown,
            },
            monotonic_ns: u64_at(bytes, 8)?,
            begun_ns: Some(u64_at(bytes, 16)?).filter(|&time| time != 0),
            cookie: u64_at(bytes, 24)?,
            ended_before: u32_at(bytes, 32)?,
            network: u32_at(bytes, 36)?,
            owner: (flags & HAS_OWNER != 0).then_some(owner),
            user_id: u32_at(bytes, 52)?,
            error: u16_at(bytes, 6)?,
            cgroup: u64_at(bytes, 56)?,
            local: SocketAddr::new(address(64)?, u16_at(bytes, 96)?),
            remote: SocketAddr::new(address(80)?, u16_at(bytes, 98)?),
            info: TcpInfo { round_trip_min_us: Some(u32_at(bytes, 100)?), ..counters },
        })
    }
}

fn counters(bytes: &[u8], flags: u8) -> Option<TcpInfo> {
    Some(TcpInfo {
        bytes_acknowledged: Some(u64_at(bytes, 104)?),
        bytes_received: Some(u64_at(bytes, 112)?),
        bytes_sent: Some(u64_at(bytes, 120)?),
        bytes_retransmitted: Some(u64_at(bytes, 128)?),
        segments_sent: Some(u32_at(bytes, 136)?),
        segments_received: Some(u32_at(bytes, 140)?),
        data_segments_sent: Some(u32_at(bytes, 144)?),
        data_segments_received: Some(u32_at(bytes, 148)?),
        fin_received: Some(flags & FIN_RECEIVED != 0),
        ..TcpInfo::default()
    })
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u8, family: u16) -> Vec<u8> {
        let mut bytes = vec![kind, 2, 2, FIN_RECEIVED | HAS_OWNER];
        bytes.extend_from_slice(&[family, 104].map(u16::to_ne_bytes).concat());
        bytes.extend_from_slice(&[100_u64, 90, 77].map(u64::to_ne_bytes).concat());
        bytes.extend_from_slice(&[0_u32, 4_026_531_833].map(u32::to_ne_bytes).concat());
        bytes.extend_from_slice(&5_u64.to_ne_bytes());
        bytes.extend_from_slice(&[453_u32, 1000].map(u32::to_ne_bytes).concat());
        bytes.extend_from_slice(&31_u64.to_ne_bytes());
        let local = if family == AF_INET6 {
            Ipv6Addr::LOCALHOST.octets()
        } else {
            [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        };
        bytes.extend_from_slice(&local);
        bytes.extend_from_slice(&if family == AF_INET6 {
            Ipv4Addr::new(10, 0, 0, 9).to_ipv6_mapped().octets()
        } else {
            local
        });
        bytes.extend_from_slice(&[40_000_u16, 443].map(u16::to_ne_bytes).concat());
        bytes.extend_from_slice(&20_u32.to_ne_bytes());
        if kind != ENDED {
            return bytes;
        }
        bytes.extend_from_slice(&[1002_u64, 78, 1000, 0].map(u64::to_ne_bytes).concat());
        bytes.extend_from_slice(&[5_u32, 4, 1, 1].map(u32::to_ne_bytes).concat());
        bytes
    }

    #[test]
    fn a_record_is_read() {
        let read = ConnectionRecord::parse(&record(ENDED, AF_INET)).unwrap();
        assert_eq!((read.change, read.from, read.direction), (Change::Ended, TcpState::SYN_SENT, Direction::Outbound));
        assert_eq!((read.monotonic_ns, read.begun_ns, read.network), (100, Some(90), 4_026_531_833));
        assert_eq!(read.owner, Some(RecordedOwner { pid: 453, created_ns: 5 }));
        assert_eq!((read.user_id, read.local), (1000, "127.0.0.1:40000".parse().unwrap()));
        assert_eq!(read.remote, "127.0.0.1:443".parse().unwrap());
        assert_eq!((read.info.bytes_acknowledged, read.info.segments_received), (Some(1002), Some(4)));
        assert_eq!((read.info.bytes_sent, read.info.fin_received), (Some(1000), Some(true)));
        assert_eq!((read.error, read.cgroup), (104, 31));
        let read = ConnectionRecord::parse(&record(ESTABLISHED, AF_INET6)).unwrap();
        assert_eq!((read.local.ip(), read.remote.ip()), ("::1".parse().unwrap(), "10.0.0.9".parse().unwrap()));
    }

    #[test]
    fn errors_tell_ends_apart() {
        let read = ConnectionRecord::parse(&record(ENDED, AF_INET)).unwrap();
        let outcome = |from, error| ConnectionRecord { from, error, ..read.clone() }.outcome().unwrap();
        for (error, expected) in [
            (ECONNREFUSED, ConnectionOutcome::Refused),
            (ETIMEDOUT, ConnectionOutcome::TimedOut),
            (113, ConnectionOutcome::Failed),
            (0, ConnectionOutcome::Failed),
        ] {
            assert_eq!(outcome(TcpState::SYN_SENT, error), expected, "{error}");
        }
        const LAST_ACK: TcpState = TcpState(9);
        assert_eq!(outcome(TcpState::ESTABLISHED, ECONNRESET), ConnectionOutcome::Reset);
        assert_eq!(outcome(TcpState::ESTABLISHED, 0), ConnectionOutcome::Reset);
        assert_eq!(outcome(TcpState::CLOSE_WAIT, EPIPE), ConnectionOutcome::Reset);
        assert_eq!(outcome(LAST_ACK, 0), ConnectionOutcome::Closed);
        assert_eq!(outcome(LAST_ACK, ECONNRESET), ConnectionOutcome::Reset);
        assert_eq!(ConnectionRecord { change: Change::Established, ..read }.outcome(), None);
    }

    #[test]
    fn a_socket_that_is_used_again_gets_another_id() {
        let first = ConnectionRecord::parse(&record(ENDED, AF_INET)).unwrap();
        assert_eq!(first.id(), 77);
        let again = ConnectionRecord { ended_before: 1, ..first.clone() };
        let once_more = ConnectionRecord { ended_before: 2, ..first.clone() };
        assert!(first.id() != again.id() && again.id() != once_more.id());
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        let whole = record(ENDED, AF_INET6);
        for length in 0..whole.len() {
            assert_eq!(ConnectionRecord::parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(ConnectionRecord::parse(&record(9, AF_INET)), None);
        assert_eq!(ConnectionRecord::parse(&record(ENDED, 17)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ConnectionRecord::parse(&bytes);
        }
    }
}
