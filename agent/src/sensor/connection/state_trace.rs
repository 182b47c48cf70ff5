//! Changes of the state of TCP sockets, as the kernel's trace event `sock/inet_sock_set_state` tells them.
//!
//! It is told in the context of whoever causes the change: for a `connect` that is the process that calls it, which is
//! known in no other way once a short connection is over. Sockets are named by their address in the kernel, which
//! serves only to connect one change with the next.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use picket_common::event::Timestamp;

use crate::enrich::boot_clock;
use crate::sensor::connection::sock_diag::TcpState;
use crate::sensor::event_clock::EventClock;
use crate::sensor::trace::format::{Field, RecordFormat};
use crate::sensor::trace::{TraceEvent, TraceInstance};

/// Beginnings only: of attempts, connections and listening, and failures. Ends are told with more by notifications.
const EVENT: TraceEvent = TraceEvent {
    name: "sock/inet_sock_set_state",
    filter: "protocol == 6 && (newstate == 1 || newstate == 2 || newstate == 10 || oldstate == 2)",
};
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A socket changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateChange {
    pub(super) time: Timestamp,
    /// The same as the kernel recorded it: what came first.
    pub(super) monotonic_ns: u64,
    /// The socket's address in the kernel: unique among those alive.
    pub(super) socket: u64,
    /// The task (process or thread) in whose context it changed.
    pub(super) task: u32,
    pub(super) from: TcpState,
    pub(super) to: TcpState,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// The changes, as the kernel records them.
#[derive(Debug)]
pub(super) struct StateTrace {
    instance: TraceInstance,
    fields: Fields,
    clock: EventClock,
}

impl StateTrace {
    /// Starts the recording.
    pub(super) fn start() -> io::Result<Self> {
        let instance = TraceInstance::create("connection", &[EVENT])?;
        let format = instance.format(EVENT.name)?;
        let fields = Fields::of(format)
            .ok_or_else(|| io::Error::other(format!("trace event {} is not understood", EVENT.name)))?;
        Ok(Self { instance, fields, clock: EventClock::default() })
    }

    /// What to wait on for changes.
    pub(super) fn files(&self) -> &[File] {
        self.instance.processors()
    }

    /// Puts the changes that were recorded since this was last called into `changes`, in order; gives back how many
    /// were overwritten before.
    pub(super) fn take(&mut self, changes: &mut Vec<StateChange>) -> io::Result<u64> {
        changes.clear();
        let (fields, clock, now) = (&self.fields, &mut self.clock, boot_clock::now());
        let lost = self.instance.drain(|record| {
            let time = clock.wall_clock(record.monotonic_ns, now);
            changes.extend(fields.read(record.data, record.monotonic_ns, time));
        })?;
        changes.sort_by_key(|change| change.monotonic_ns);
        Ok(lost)
    }
}

/// Where things are in a record.
#[derive(Debug)]
struct Fields {
    format: RecordFormat,
    task: Field,
    socket: Field,
    from: Field,
    to: Field,
    local_port: Field,
    remote_port: Field,
    family: Field,
    local: Field,
    remote: Field,
    local_v6: Field,
    remote_v6: Field,
}

impl Fields {
    fn of(format: RecordFormat) -> Option<Self> {
        let field = |name, size| format.field(name, size);
        Some(Self {
            task: field("common_pid", 4)?,
            // Kernels of 32 bits are not supported: there it has four bytes.
            socket: field("skaddr", 8)?,
            from: field("oldstate", 4)?,
            to: field("newstate", 4)?,
            local_port: field("sport", 2)?,
            remote_port: field("dport", 2)?,
            family: field("family", 2)?,
            local: field("saddr", 4)?,
            remote: field("daddr", 4)?,
            local_v6: field("saddr_v6", 16)?,
            remote_v6: field("daddr_v6", 16)?,
            format,
        })
    }

    fn read(&self, record: &[u8], monotonic_ns: u64, time: Timestamp) -> Option<StateChange> {
        if !self.format.is_of(record) {
            return None;
        }
        let state = |field: Field| Some(TcpState(u8::try_from(field.u32(record)?).ok()?));
        let family = self.family.u16(record)?;
        let address = |v4: Field, v6: Field| -> Option<IpAddr> {
            match family {
                AF_INET => Some(Ipv4Addr::from(v4.bytes::<4>(record)?).into()),
                AF_INET6 => Some(Ipv6Addr::from(v6.bytes::<16>(record)?).to_canonical()),
                _ => None,
            }
        };
        Some(StateChange {
            time,
            monotonic_ns,
            socket: self.socket.u64(record)?,
            task: self.task.u32(record)?,
            from: state(self.from)?,
            to: state(self.to)?,
            local: SocketAddr::new(address(self.local, self.local_v6)?, self.local_port.u16(record)?),
            remote: SocketAddr::new(address(self.remote, self.remote_v6)?, self.remote_port.u16(record)?),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a kernel 6.18 describes it.
    const FORMAT: &str = "name: inet_sock_set_state
ID: 2287
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:const void * skaddr;	offset:8;	size:8;	signed:0;
	field:int oldstate;	offset:16;	size:4;	signed:1;
	field:int newstate;	offset:20;	size:4;	signed:1;
	field:__u16 sport;	offset:24;	size:2;	signed:0;
	field:__u16 dport;	offset:26;	size:2;	signed:0;
	field:__u16 family;	offset:28;	size:2;	signed:0;
	field:__u16 protocol;	offset:30;	size:2;	signed:0;
	field:__u8 saddr[4];	offset:32;	size:4;	signed:0;
	field:__u8 daddr[4];	offset:36;	size:4;	signed:0;
	field:__u8 saddr_v6[16];	offset:40;	size:16;	signed:0;
	field:__u8 daddr_v6[16];	offset:56;	size:16;	signed:0;
";

    fn fields() -> Fields {
        Fields::of(RecordFormat::parse(FORMAT).unwrap()).unwrap()
    }

    fn record(family: u16) -> Vec<u8> {
        let mut record = 2287_u16.to_ne_bytes().to_vec();
        record.extend_from_slice(&[0, 0]);
        record.extend_from_slice(&453_u32.to_ne_bytes());
        record.extend_from_slice(&0xffff_8882_0885_af00_u64.to_ne_bytes());
        record.extend_from_slice(&7_u32.to_ne_bytes());
        record.extend_from_slice(&2_u32.to_ne_bytes());
        for word in [0, 49959, family, 6] {
            record.extend_from_slice(&u16::to_ne_bytes(word));
        }
        record.extend_from_slice(&[127, 0, 0, 1, 127, 0, 0, 2]);
        record.extend_from_slice(&Ipv6Addr::LOCALHOST.octets());
        record.extend_from_slice(&Ipv4Addr::new(10, 0, 0, 9).to_ipv6_mapped().octets());
        record
    }

    #[test]
    fn a_record_is_read_as_the_kernel_describes_it() {
        let change = fields().read(&record(AF_INET), 7, Timestamp(5)).unwrap();
        assert_eq!((change.task, change.socket), (453, 0xffff_8882_0885_af00));
        assert_eq!((change.from, change.to, change.time), (TcpState(7), TcpState::SYN_SENT, Timestamp(5)));
        assert_eq!(change.local, "127.0.0.1:0".parse().unwrap());
        assert_eq!(change.remote, "127.0.0.2:49959".parse().unwrap());
        let change = fields().read(&record(AF_INET6), 7, Timestamp(5)).unwrap();
        assert_eq!((change.local, change.remote), ("[::1]:0".parse().unwrap(), "10.0.0.9:49959".parse().unwrap()));
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        let whole = record(AF_INET6);
        for length in 0..whole.len() {
            assert_eq!(fields().read(&whole[..length], 7, Timestamp(5)), None, "{length}");
        }
        assert_eq!(fields().read(&record(17), 7, Timestamp(5)), None);
        let mut other = record(AF_INET);
        other[0] ^= 1;
        assert_eq!(fields().read(&other, 7, Timestamp(5)), None);
        assert!(Fields::of(RecordFormat::parse(&FORMAT.replace("skaddr", "address")).unwrap()).is_none());
        assert_eq!(RecordFormat::parse("name: x\nID: 7\nformat:\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..100), format in ".{0,200}") {
            let _ = fields().read(&bytes, 0, Timestamp(0));
            let _ = RecordFormat::parse(&format!("ID: 1\nfield:{format}"));
        }
    }
}
