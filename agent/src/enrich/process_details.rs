//! One process, as it looks at one moment.

use std::num::NonZeroU64;

use picket_common::event::limits::{ARGUMENTS_BYTES_MAX, ARGUMENTS_MAX, STRING_BYTES_MAX};
use picket_common::event::{ByteString, FileId, StreamKind, Timestamp};

/// What can be read about a process from outside. What could not be read is empty or `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessDetails {
    /// Absolute path of the executable.
    pub executable: Vec<u8>,
    /// The executable has no name any more (or never had one).
    pub executable_deleted: Option<bool>,
    /// The file that is the executable.
    pub executable_file: Option<FileId>,
    /// The script, where the executable is its interpreter and the kernel said so.
    pub script: ByteString,
    /// Arguments.
    pub arguments: Arguments,
    /// Current directory.
    pub working_directory: ByteString,
    /// Effective user id.
    pub user_id: Option<u32>,
    /// Effective group id.
    pub group_id: Option<u32>,
    /// POSIX session id.
    pub session_id: Option<u32>,
    /// Whether it has a controlling terminal.
    pub has_terminal: Option<bool>,
    /// Standard input, output and error.
    pub standard_streams: [StreamKind; 3],
    /// Process id of its present parent.
    pub parent_pid: Option<u32>,
    /// When it was created.
    pub start_time: Option<Timestamp>,
    /// Number of its threads.
    pub thread_count: Option<u32>,
    /// It is a thread of the kernel, not a program.
    pub is_kernel_thread: bool,
    /// Id of its cgroup (version 2).
    pub cgroup_id: Option<NonZeroU64>,
    /// Path of that cgroup below the root of the hierarchy.
    pub cgroup: ByteString,
}

impl Default for ProcessDetails {
    fn default() -> Self {
        Self {
            executable: Vec::new(),
            executable_deleted: None,
            executable_file: None,
            script: ByteString::default(),
            arguments: Arguments::default(),
            working_directory: ByteString::default(),
            user_id: None,
            group_id: None,
            session_id: None,
            has_terminal: None,
            standard_streams: [StreamKind::Unknown; 3],
            parent_pid: None,
            start_time: None,
            thread_count: None,
            is_kernel_thread: false,
            cgroup_id: None,
            cgroup: ByteString::default(),
        }
    }
}

/// An argument vector within the limits of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// The arguments kept.
    pub values: Vec<ByteString>,
    /// Whether something was cut.
    pub truncated: bool,
}

impl Arguments {
    /// Keeps of `arguments` what an event may hold.
    pub fn collect<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut kept = Self::default();
        let mut bytes_left = ARGUMENTS_BYTES_MAX;
        for argument in arguments {
            if kept.values.len() == ARGUMENTS_MAX {
                kept.truncated = true;
                break;
            }
            let length = argument.len().min(bytes_left).min(STRING_BYTES_MAX);
            kept.values.push(ByteString::truncated(&argument[..length]));
            bytes_left -= length;
            if length < argument.len() {
                kept.truncated = true;
                if bytes_left == 0 {
                    break;
                }
            }
        }
        kept
    }

    /// Splits a `NUL`-terminated list such as `/proc/PID/cmdline`. `cut` says that the list itself was cut.
    pub fn from_nul_terminated(list: &[u8], cut: bool) -> Self {
        if list.is_empty() {
            return Self { values: Vec::new(), truncated: cut };
        }
        let list = list.strip_suffix(b"\0").unwrap_or(list);
        let mut arguments = Self::collect(list.split(|&byte| byte == 0));
        arguments.truncated |= cut;
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(arguments: &Arguments) -> usize {
        arguments.values.iter().map(ByteString::len).sum()
    }

    #[test]
    fn a_list_is_split_at_nul() {
        let arguments = Arguments::from_nul_terminated(b"sh\0-c\0\0echo a b\0", false);
        let values: Vec<&[u8]> = arguments.values.iter().map(ByteString::as_bytes).collect();
        assert_eq!(values, [b"sh" as &[u8], b"-c", b"", b"echo a b"]);
        assert!(!arguments.truncated);
        assert_eq!(Arguments::from_nul_terminated(b"", false), Arguments::default());
    }

    #[test]
    fn what_exceeds_the_limits_is_cut_and_said_to_be() {
        let many = b"x\0".repeat(ARGUMENTS_MAX + 1);
        let arguments = Arguments::from_nul_terminated(&many, false);
        assert_eq!((arguments.values.len(), arguments.truncated), (ARGUMENTS_MAX, true));

        let long = vec![b'y'; ARGUMENTS_BYTES_MAX * 2];
        let arguments = Arguments::collect([&long[..], &long, b"z"].into_iter());
        assert!(arguments.truncated);
        assert_eq!(bytes(&arguments), ARGUMENTS_BYTES_MAX);

        let exact = Arguments::from_nul_terminated(&b"x\0".repeat(ARGUMENTS_MAX), false);
        assert!(!exact.truncated);
    }
}
