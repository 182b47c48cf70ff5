//! Messages of the kernel's process connector (`linux/cn_proc.h`).
//!
//! `struct cn_msg` (20 bytes: group, value, sequence, acknowledgement, length, flags) carries `struct proc_event`
//! (16 bytes: kind, processor, time; then what depends on the kind). The sequence counts the messages of each
//! processor, so that a gap is exactly the number of messages lost.

use crate::sensor::netlink::{u16_at, u32_at, u64_at};

/// The connector's group and value for process events (`CN_IDX_PROC`, `CN_VAL_PROC`).
const PROC_CONNECTOR: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
const CN_HEADER_BYTES: usize = 20;
const EVENT_HEADER_BYTES: usize = 16;

const KIND_ACKNOWLEDGEMENT: u32 = 0;
const KIND_FORK: u32 = 0x0000_0001;
const KIND_EXEC: u32 = 0x0000_0002;
const KIND_EXIT: u32 = 0x8000_0000;

/// The netlink group that carries process events.
pub(crate) const GROUPS: u32 = PROC_CONNECTOR;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcMessage {
    /// Which processor it was sent by.
    pub(crate) processor: u32,
    /// How many that processor had sent before; wraps around.
    pub(crate) sequence: u32,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) monotonic_ns: u64,
    /// What it says.
    pub(crate) event: ProcEvent,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcEvent {
    /// The answer to a request: 0, or an error number.
    Acknowledgement {
        /// The error number.
        error: u32,
    },
    /// A process or thread was created.
    Fork {
        /// Process of the creator.
        parent_pid: u32,
        /// The new task.
        child_task: u32,
        /// The process the new task belongs to.
        child_pid: u32,
    },
    /// A process began to execute a program.
    Exec {
        /// The process.
        pid: u32,
    },
    /// A process or thread ended.
    Exit {
        /// The task.
        task: u32,
        /// Its process.
        pid: u32,
        /// Its wait status.
        status: u32,
    },
    /// Something that is of no interest here.
    Other,
}

/// The payload of a request for process events.
pub(crate) fn listen_request() -> Vec<u8> {
    let mut request = Vec::with_capacity(CN_HEADER_BYTES + 4);
    for word in [PROC_CONNECTOR, PROC_CONNECTOR, 0, 0] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    request.extend_from_slice(&4_u16.to_ne_bytes());
    request.extend_from_slice(&0_u16.to_ne_bytes());
    request.extend_from_slice(&LISTEN.to_ne_bytes());
    request
}

/// Reads the payload of a netlink message. `None` for what is not a whole process event.
pub(crate) fn parse(payload: &[u8]) -> Option<ProcMessage> {
    if (u32_at(payload, 0)?, u32_at(payload, 4)?) != (PROC_CONNECTOR, PROC_CONNECTOR) {
        return None;
    }
    let sequence = u32_at(payload, 8)?;
    let length = usize::from(u16_at(payload, 16)?);
    let event = payload.get(CN_HEADER_BYTES..)?.get(..length)?;
    let data = event.get(EVENT_HEADER_BYTES..)?;
    let word = |index: usize| u32_at(data, index * 4);
    Some(ProcMessage {
        processor: u32_at(event, 4)?,
        sequence,
        monotonic_ns: u64_at(event, 8)?,
        event: match u32_at(event, 0)? {
            KIND_ACKNOWLEDGEMENT => ProcEvent::Acknowledgement { error: word(0)? },
            KIND_FORK => ProcEvent::Fork { parent_pid: word(1)?, child_task: word(2)?, child_pid: word(3)? },
            KIND_EXEC => ProcEvent::Exec { pid: word(1)? },
            KIND_EXIT => ProcEvent::Exit { task: word(0)?, pid: word(1)?, status: word(2)? },
            _ => ProcEvent::Other,
        },
    })
}

/// Counts messages lost by the gaps in each processor's sequence.
#[derive(Debug, Default)]
pub(crate) struct SequenceGaps {
    expected: Vec<Option<u32>>,
}

impl SequenceGaps {
    /// Most processors told apart (the kernel's own limit); a gap on one beyond is not seen.
    const PROCESSORS_MAX: usize = 8192;
    /// A step further than this is not a loss but a sequence that went back.
    const GAP_MAX: u32 = u32::MAX / 2;

    /// Takes note of a message; gives the number of those missing before it.
    pub(crate) fn observe(&mut self, message: &ProcMessage) -> u64 {
        let Some(processor) = usize::try_from(message.processor).ok().filter(|&index| index < Self::PROCESSORS_MAX)
        else {
            return 0;
        };
        if processor >= self.expected.len() {
            self.expected.resize(processor + 1, None);
        }
        let missing = self.expected[processor].map_or(0, |expected| message.sequence.wrapping_sub(expected));
        self.expected[processor] = Some(message.sequence.wrapping_add(1));
        if missing > Self::GAP_MAX { 0 } else { u64::from(missing) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Recorded from a kernel 6.18: fork of 26943 by 26942.
    fn recorded(kind: u32, words: [u32; 6]) -> Vec<u8> {
        let mut payload = Vec::new();
        for word in [1, 1, 9, 0] {
            payload.extend_from_slice(&u32::to_ne_bytes(word));
        }
        payload.extend_from_slice(&40_u16.to_ne_bytes());
        payload.extend_from_slice(&[0, 0]);
        payload.extend_from_slice(&kind.to_ne_bytes());
        payload.extend_from_slice(&1_u32.to_ne_bytes());
        payload.extend_from_slice(&2_468_113_670_738_u64.to_ne_bytes());
        for word in words {
            payload.extend_from_slice(&word.to_ne_bytes());
        }
        payload
    }

    #[test]
    fn each_kind_is_read() {
        let fork = parse(&recorded(1, [26942, 26942, 26943, 26943, 0, 0])).unwrap();
        assert_eq!(fork.event, ProcEvent::Fork { parent_pid: 26942, child_task: 26943, child_pid: 26943 });
        assert_eq!((fork.processor, fork.sequence, fork.monotonic_ns), (1, 9, 2_468_113_670_738));
        let exec = parse(&recorded(2, [26943, 26943, 0, 0, 0, 0])).unwrap();
        assert_eq!(exec.event, ProcEvent::Exec { pid: 26943 });
        let exit = parse(&recorded(0x8000_0000, [26945, 26944, 768, 17, 26943, 26943])).unwrap();
        assert_eq!(exit.event, ProcEvent::Exit { task: 26945, pid: 26944, status: 768 });
        assert_eq!(parse(&recorded(0x200, [1; 6])).unwrap().event, ProcEvent::Other);
        assert_eq!(parse(&recorded(0, [1; 6])).unwrap().event, ProcEvent::Acknowledgement { error: 1 });
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        let whole = recorded(0x8000_0000, [26945, 26944, 768, 17, 26943, 26943]);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        for (offset, value) in [(0, 2), (4, 9)] {
            let mut foreign = whole.clone();
            foreign[offset] = value;
            assert_eq!(parse(&foreign), None);
        }
        let mut short = whole.clone();
        short[16] = 20;
        assert_eq!(parse(&short), None);
        short[16] = 255;
        assert_eq!(parse(&short), None);
    }

    proptest! {
        #[test]
        fn no_bytes_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
            let mut addressed = vec![1, 0, 0, 0, 1, 0, 0, 0];
            addressed.extend(bytes);
            let _ = parse(&addressed);
        }
    }

    fn numbered(processor: u32, sequence: u32) -> ProcMessage {
        ProcMessage { processor, sequence, monotonic_ns: 0, event: ProcEvent::Other }
    }

    #[test]
    fn gaps_are_counted_for_each_processor() {
        let mut gaps = SequenceGaps::default();
        let seen = [(0, 5), (1, 100), (0, 6), (0, 9), (1, 101), (1, u32::MAX), (1, 1), (1, 0), (1, 1)];
        let missing: Vec<u64> = seen.map(|(cpu, sequence)| gaps.observe(&numbered(cpu, sequence))).to_vec();
        assert_eq!(missing[..5], [0, 0, 0, 2, 0]);
        // A huge step is a sequence that was reset; around the end of the range counting goes on.
        assert_eq!(missing[5..], [0, 1, 0, 0]);
        // Old kernels number acknowledgements apart, as of no processor.
        assert_eq!(gaps.observe(&numbered(u32::MAX, 3)), 0);
    }
}
