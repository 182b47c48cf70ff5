//! Records of the eBPF programs about risky activities, as `agent/bpf/kernel.bpf.c` writes them.
//!
//! Numbers are in the machine's byte order.

use picket_common::event::{ByteString, KernelAction};

use crate::sensor::netlink::{u32_at, u64_at};

/// The only kind of record.
pub(super) const ACTIVITY: u32 = 1;

const NAME: usize = 56;
const NAME_BYTES: usize = 64;
/// The namespaces as `/proc/PID/ns` names them, by their flags of `clone(2)`.
const NAMESPACES: [(u64, &str); 8] = [
    (0x0000_0080, "time"),
    (0x0002_0000, "mnt"),
    (0x0200_0000, "cgroup"),
    (0x0400_0000, "uts"),
    (0x0800_0000, "ipc"),
    (0x1000_0000, "user"),
    (0x2000_0000, "pid"),
    (0x4000_0000, "net"),
];

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KernelRecord {
    /// `CLOCK_MONOTONIC`.
    pub(super) monotonic_ns: u64,
    pub(super) action: KernelAction,
    pub(super) object: ByteString,
    pub(super) value: Option<u64>,
    pub(super) process: RecordedProcess,
    pub(super) target: Option<RecordedProcess>,
    /// Whether the kernel did it, where that is certain.
    pub(super) success: Option<bool>,
}

/// A process, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordedProcess {
    pub(super) pid: u32,
    /// Nanoseconds after boot.
    pub(super) created_ns: u64,
    /// Effective user.
    pub(super) user_id: u32,
}

/// Reads a record. `None` for what is none.
pub(super) fn parse(bytes: &[u8]) -> Option<KernelRecord> {
    if u32_at(bytes, 0)? != ACTIVITY {
        return None;
    }
    let action = action(u32_at(bytes, 4)?)?;
    let value = u64_at(bytes, 48)?;
    let name = bytes.get(NAME..NAME + NAME_BYTES)?.split(|&byte| byte == 0).next()?;
    let object = match action {
        KernelAction::NamespaceChange => namespaces(value).as_str().into(),
        KernelAction::CapabilityGain => capabilities(value).as_str().into(),
        _ => ByteString::from(name),
    };
    Some(KernelRecord {
        monotonic_ns: u64_at(bytes, 8)?,
        action,
        object,
        value: (action != KernelAction::ModuleUnload).then_some(value),
        process: process(bytes, 16)?,
        target: Some(process(bytes, 32)?).filter(|target| target.pid != 0),
        // A program is told before it is verified.
        success: (action != KernelAction::BpfProgramLoad).then_some(true),
    })
}

fn process(bytes: &[u8], at: usize) -> Option<RecordedProcess> {
    Some(RecordedProcess {
        created_ns: u64_at(bytes, at)?,
        pid: u32_at(bytes, at + 8)?,
        user_id: u32_at(bytes, at + 12)?,
    })
}

fn action(code: u32) -> Option<KernelAction> {
    Some(match code {
        0 => KernelAction::ModuleLoad,
        1 => KernelAction::ModuleUnload,
        2 => KernelAction::PtraceAttach,
        3 => KernelAction::BpfProgramLoad,
        6 => KernelAction::NamespaceChange,
        7 => KernelAction::BecomeRoot,
        8 => KernelAction::CapabilityGain,
        _ => return None,
    })
}

fn namespaces(flags: u64) -> String {
    let names = NAMESPACES.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name);
    names.collect::<Vec<_>>().join(" ")
}

/// The names in a set; those that are newer than the list of this build are not among them.
fn capabilities(set: u64) -> String {
    let mut contained: Vec<_> = caps::all().into_iter().filter(|capability| set & capability.bitmask() != 0).collect();
    contained.sort_by_key(caps::Capability::index);
    contained.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(action: u32, value: u64, name: &[u8]) -> Vec<u8> {
        let mut bytes = [ACTIVITY, action].map(u32::to_ne_bytes).concat();
        bytes.extend_from_slice(&7_u64.to_ne_bytes());
        for (created_ns, pid, user) in [(9_u64, 42_u32, 1000_u32), (11, 0, 0)] {
            bytes.extend_from_slice(&created_ns.to_ne_bytes());
            bytes.extend_from_slice(&[pid, user].map(u32::to_ne_bytes).concat());
        }
        bytes.extend_from_slice(&value.to_ne_bytes());
        bytes.extend_from_slice(name);
        bytes.resize(NAME + NAME_BYTES, 0);
        bytes
    }

    #[test]
    fn an_activity_is_read() {
        let read = parse(&record(0, 4096, b"dummy\0rest")).unwrap();
        assert_eq!((read.action, read.object, read.value), (KernelAction::ModuleLoad, "dummy".into(), Some(4096)));
        let process = RecordedProcess { pid: 42, created_ns: 9, user_id: 1000 };
        assert_eq!((read.monotonic_ns, read.process, read.target), (7, process, None));
        assert_eq!((read.success, parse(&record(3, 1, b"x")).unwrap().success), (Some(true), None));
        assert_eq!(parse(&record(1, 0, b"dummy")).unwrap().value, None);
        assert_eq!((parse(&record(4, 0, b"")), parse(&record(99, 0, b""))), (None, None));
    }

    #[test]
    fn sets_are_named() {
        let named = |action, set| parse(&record(action, set, b"")).unwrap().object.to_string();
        assert_eq!(named(6, 0x6002_0000), "mnt pid net");
        assert_eq!(named(8, 1 << 13 | 1 << 0), "CAP_CHOWN CAP_NET_RAW");
        assert_eq!((named(6, 1), named(8, 1 << 63)), (String::new(), String::new()));
    }

    #[test]
    fn what_is_cut_is_refused() {
        let whole = record(2, 16, b"sleep");
        assert!(parse(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_hurt(action in 0_u32..12, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse(&[&ACTIVITY.to_ne_bytes()[..], &action.to_ne_bytes(), &bytes].concat());
        }
    }
}
