//! What the eBPF programs about packets write, as `agent/bpf/datagram.bpf.c` does.
//!
//! Numbers are in the machine's byte order, addresses in network order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;

use picket_common::event::{Direction, Protocol};

use crate::sensor::netlink::{u32_at, u64_at};

/// Kinds of records; at 0, packets of flows for which there was no room.
pub(super) const UNCOUNTED: usize = 0;
pub(super) const FLOW_BEGUN: u32 = 1;
pub(super) const DNS_MESSAGE: u32 = 2;

/// Bytes of what names a flow, and of what is counted of it.
pub(super) const ENDS_BYTES: usize = 48;
pub(super) const FLOW_BYTES: usize = 72;

const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const ENDS: usize = 8;
const FLOW: usize = ENDS + ENDS_BYTES;
const COPIED: usize = FLOW + FLOW_BYTES + 4;
const MESSAGE: usize = COPIED + 4;
/// Spreads what is mixed over all bits: 2^64 divided by the golden ratio.
const MIX_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum DatagramRecord {
    FlowBegun { ends: Ends, flow: Flow },
    DnsMessage { ends: Ends, flow: Flow, direction: Direction, bytes: Vec<u8> },
}

/// A socket and what it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) protocol: Protocol,
    /// Of the socket.
    pub(super) cookie: u64,
}

/// What is known of a flow; of DNS over TCP times and owner only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    /// `CLOCK_MONOTONIC`.
    pub(super) begun_ns: u64,
    /// Time of the last packet.
    pub(super) last_ns: u64,
    /// Payload.
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) packets_sent: u32,
    pub(super) packets_received: u32,
    pub(super) owner: Option<RecordedOwner>,
    pub(super) user_id: u32,
    pub(super) cgroup_id: Option<NonZeroU64>,
    /// Who sent the first packet.
    pub(super) direction: Direction,
}

/// A process, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordedOwner {
    pub(super) pid: u32,
    /// When it was created, nanoseconds after boot.
    pub(super) created_ns: u64,
}

impl Ends {
    /// What names a flow that began then. One socket may talk to many ends, and with one of them again after a while:
    /// its cookie alone would name them all.
    pub(super) fn flow_id(&self, begun_ns: u64) -> u64 {
        let address = match self.remote.ip() {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        };
        let (high, low) = ((address >> 64) as u64, address as u64);
        [high, low, self.remote.port().into(), begun_ns]
            .into_iter()
            .fold(self.cookie, |id, part| (id ^ part).wrapping_mul(MIX_FACTOR).rotate_left(29))
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let family = u16_at(bytes, 36)?;
        let address = |offset: usize| -> Option<IpAddr> {
            match family {
                AF_INET => Some(Ipv4Addr::from(*bytes.get(offset..)?.first_chunk::<4>()?).into()),
                AF_INET6 => Some(Ipv6Addr::from(*bytes.get(offset..)?.first_chunk::<16>()?).to_canonical()),
                _ => None,
            }
        };
        Some(Self {
            local: SocketAddr::new(address(0)?, u16_at(bytes, 32)?),
            remote: SocketAddr::new(address(16)?, u16_at(bytes, 34)?),
            protocol: match u16_at(bytes, 38)? {
                IPPROTO_TCP => Protocol::Tcp,
                IPPROTO_UDP => Protocol::Udp,
                _ => return None,
            },
            cookie: u64_at(bytes, 40)?,
        })
    }
}

impl Flow {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let owner = RecordedOwner { created_ns: u64_at(bytes, 40)?, pid: u32_at(bytes, 48)? };
        Some(Self {
            begun_ns: u64_at(bytes, 0)?,
            last_ns: u64_at(bytes, 8)?,
            bytes_sent: u64_at(bytes, 16)?,
            bytes_received: u64_at(bytes, 24)?,
            packets_sent: u32_at(bytes, 32)?,
            packets_received: u32_at(bytes, 36)?,
            owner: (owner.pid != 0).then_some(owner),
            user_id: u32_at(bytes, 52)?,
            cgroup_id: NonZeroU64::new(u64_at(bytes, 56)?),
            direction: direction(u32_at(bytes, 64)?),
        })
    }
}

impl DatagramRecord {
    /// Reads a record. `None` for what is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let ends = Ends::parse(bytes.get(ENDS..)?)?;
        let flow = Flow::parse(bytes.get(FLOW..)?)?;
        let copied = u32_at(bytes, COPIED)? as usize;
        match u32_at(bytes, 0)? {
            FLOW_BEGUN => Some(Self::FlowBegun { ends, flow }),
            DNS_MESSAGE => Some(Self::DnsMessage {
                ends,
                flow,
                direction: direction(u32_at(bytes, 4)?),
                bytes: bytes.get(MESSAGE..MESSAGE + copied)?.to_vec(),
            }),
            _ => None,
        }
    }
}

fn direction(number: u32) -> Direction {
    match number {
        INBOUND => Direction::Inbound,
        OUTBOUND => Direction::Outbound,
        _ => Direction::Unknown,
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u32, family: u16, message: &[u8]) -> Vec<u8> {
        let mut bytes = [kind, OUTBOUND].map(u32::to_ne_bytes).concat();
        for last in [1, 2] {
            let address = if family == AF_INET6 {
                Ipv6Addr::from(last).octets()
            } else {
                [127, 0, 0, u8::try_from(last).unwrap(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            };
            bytes.extend(address);
        }
        bytes.extend([40_000_u16, 53, family, IPPROTO_UDP].map(u16::to_ne_bytes).concat());
        bytes.extend(77_u64.to_ne_bytes());
        bytes.extend([100_u64, 200, 30, 40].map(u64::to_ne_bytes).concat());
        bytes.extend([1_u32, 2].map(u32::to_ne_bytes).concat());
        bytes.extend(5_u64.to_ne_bytes());
        bytes.extend([453_u32, 1000].map(u32::to_ne_bytes).concat());
        bytes.extend(31_u64.to_ne_bytes());
        bytes.extend([OUTBOUND, 0].map(u32::to_ne_bytes).concat());
        let length = u32::try_from(message.len()).unwrap();
        bytes.extend([length, length].map(u32::to_ne_bytes).concat());
        bytes.extend(message);
        bytes
    }

    #[test]
    fn records_are_read() {
        let DatagramRecord::FlowBegun { ends, flow } =
            DatagramRecord::parse(&record(FLOW_BEGUN, AF_INET, b"")).unwrap()
        else {
            panic!("another kind");
        };
        assert_eq!((ends.local, ends.remote), ("127.0.0.1:40000".parse().unwrap(), "127.0.0.2:53".parse().unwrap()));
        assert_eq!((ends.protocol, ends.cookie, flow.direction), (Protocol::Udp, 77, Direction::Outbound));
        assert_eq!((flow.begun_ns, flow.last_ns, flow.bytes_sent, flow.bytes_received), (100, 200, 30, 40));
        assert_eq!((flow.packets_sent, flow.packets_received, flow.user_id), (1, 2, 1000));
        assert_eq!(flow.owner, Some(RecordedOwner { pid: 453, created_ns: 5 }));
        assert_eq!(flow.cgroup_id, NonZeroU64::new(31));
        let read = DatagramRecord::parse(&record(DNS_MESSAGE, AF_INET6, b"message")).unwrap();
        let DatagramRecord::DnsMessage { ends, bytes, direction, .. } = read else { panic!("another kind") };
        assert_eq!((ends.remote, direction), ("[::2]:53".parse().unwrap(), Direction::Outbound));
        assert_eq!(bytes, b"message");
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        let whole = record(DNS_MESSAGE, AF_INET, b"message");
        for length in 0..whole.len() {
            assert_eq!(DatagramRecord::parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(DatagramRecord::parse(&record(9, AF_INET, b"")), None);
        assert_eq!(DatagramRecord::parse(&record(FLOW_BEGUN, 17, b"")), None);
    }

    #[test]
    fn flows_of_one_socket_have_ids_of_their_own() {
        let ends = Ends::parse(&record(FLOW_BEGUN, AF_INET, b"")[ENDS..]).unwrap();
        let elsewhere = Ends { remote: "127.0.0.3:53".parse().unwrap(), ..ends };
        let ids = [ends.flow_id(1), ends.flow_id(2), elsewhere.flow_id(1)];
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        assert_eq!(ends.flow_id(1), ends.flow_id(1));
    }

    proptest! {
        #[test]
        fn no_bytes_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..300), length in any::<u32>()) {
            let _ = DatagramRecord::parse(&bytes);
            let mut bytes = record(DNS_MESSAGE, AF_INET, &bytes);
            bytes[COPIED..COPIED + 4].copy_from_slice(&length.to_ne_bytes());
            let _ = DatagramRecord::parse(&bytes);
        }
    }
}
