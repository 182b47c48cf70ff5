//! Which system calls are refused: seccomp, of the thread that asks and those it starts.
//!
//! What nothing here has any use for is refused with `EPERM`; everything else is allowed. A list of what is allowed would
//! be tighter, but it differs between C libraries and their versions, and a call that is missing from it takes an agent
//! down on somebody's host long after it was tested here.

use std::collections::BTreeMap;

use picket_common::event::Origin;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{self, Eq, MaskedEq, Ne};
use seccompiler::{BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};

/// System calls, each with the arguments it is refused for; without any it is refused always.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// Refused with `EPERM`.
    calls: BTreeMap<i64, Vec<Arguments>>,
    /// Refused as if this kernel did not know them, so that callers take an older one, which can be looked into.
    unknown: Vec<i64>,
}

/// Arguments that must all be so: position, comparison, value.
type Arguments = Vec<(u8, SeccompCmpOp, u64)>;

/// Set in the number of a call that is made through the x32 interface.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
/// Calls that x32 has under numbers of its own; `execve`, `ptrace` and others like them are among these.
#[cfg(target_arch = "x86_64")]
const X32_OWN: std::ops::RangeInclusive<i64> = 512..=547;

/// Commands of `bpf` for maps that are there: the only ones that are allowed.
const BPF_COMMANDS: [u64; 10] = [1, 2, 3, 4, 15, 21, 24, 25, 26, 27];
/// `TIOCSTI` and `TIOCLINUX`: typing for the user of a terminal.
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];

/// Refused always and to all threads: to run programs, to look into other processes, to change the system as a whole, and
/// interfaces with a history of holes that nothing here uses.
const ALWAYS: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_mknodat,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_personality,
];

/// As [`ALWAYS`], those that only this architecture has.
#[cfg(target_arch = "x86_64")]
const ALWAYS_HERE: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_HERE: &[i64] = &[];

/// Refused to sensors: to change files and folders by their names.
const CHANGES: &[i64] = &[
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
];

/// As [`CHANGES`], those that only this architecture has.
#[cfg(target_arch = "x86_64")]
const CHANGES_HERE: &[i64] = &[
    libc::SYS_creat,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_mkdir,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
];
#[cfg(not(target_arch = "x86_64"))]
const CHANGES_HERE: &[i64] = &[];

/// What is refused to every thread.
pub(super) fn common() -> Refused {
    let mut refused = Refused::default();
    for call in ALWAYS.iter().chain(ALWAYS_HERE) {
        refused.calls.insert(*call, Vec::new());
    }
    // A new process. Threads are not one.
    let thread = libc::CLONE_THREAD.cast_unsigned().into();
    refused.refuse(libc::SYS_clone, [vec![(0, MaskedEq(thread), 0)]]);
    refused.unknown.push(libc::SYS_clone3);
    refused.refuse(libc::SYS_bpf, [BPF_COMMANDS.map(|command| (0, Ne, command)).to_vec()]);
    refused.refuse(libc::SYS_ioctl, TERMINAL_INPUT.map(|request| vec![(1, Eq, request)]));
    // Memory that is writable and executable, or becomes executable.
    let [write, execute] = [libc::PROT_WRITE, libc::PROT_EXEC].map(|flag| u64::from(flag.cast_unsigned()));
    let both = write | execute;
    refused.refuse(libc::SYS_mmap, [vec![(2, MaskedEq(both), both)]]);
    for call in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        refused.refuse(call, [vec![(2, MaskedEq(execute), execute)]]);
    }
    refused.only_families(&[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]);
    refused
}

/// What is refused to a sensor. One that uses trace events opens and removes files of the kernel's; one that follows logs
/// writes down how far it came.
pub(super) fn sensor(origin: Origin) -> Refused {
    let mut refused = common();
    refused.only_families(&[libc::AF_UNIX, libc::AF_NETLINK]);
    if matches!(origin, Origin::AgentNetlink | Origin::AgentLog) {
        return refused;
    }
    for call in CHANGES.iter().chain(CHANGES_HERE) {
        refused.calls.insert(*call, Vec::new());
    }
    let mut opens = vec![(libc::SYS_openat, 2)];
    #[cfg(target_arch = "x86_64")]
    opens.push((libc::SYS_open, 1));
    for (call, flags) in opens {
        let access: u64 = libc::O_ACCMODE.cast_unsigned().into();
        let flag = |mask: i32| vec![(flags, MaskedEq(mask.cast_unsigned().into()), mask.cast_unsigned().into())];
        let with = |mode: i32| vec![(flags, MaskedEq(access), mode.cast_unsigned().into())];
        let refuse = [with(libc::O_WRONLY), with(libc::O_RDWR), flag(libc::O_CREAT), flag(libc::O_TRUNC)];
        refused.refuse(call, refuse);
    }
    // Its flags are behind a pointer.
    refused.unknown.push(libc::SYS_openat2);
    refused
}

impl Refused {
    /// Refuses `call` with any of these arguments.
    fn refuse<const N: usize>(&mut self, call: i64, arguments: [Arguments; N]) {
        self.calls.insert(call, arguments.into());
    }

    /// Refuses sockets of all families but these.
    fn only_families(&mut self, families: &[i32]) {
        let other = families.iter().map(|family| (0, Ne, family.cast_unsigned().into())).collect();
        self.refuse(libc::SYS_socket, [other]);
    }
}

/// Refuses these calls to the calling thread and those it starts, for good. It cannot gain privileges from then on.
pub(super) fn apply(refused: &Refused) -> Result<String, String> {
    let error = |error: &dyn std::fmt::Display| error.to_string();
    for program in compile(refused).map_err(|message| error(&message))? {
        seccompiler::apply_filter(&program).map_err(|message| error(&message))?;
    }
    Ok(String::new())
}

fn compile(refused: &Refused) -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let mut calls = BTreeMap::new();
    for (call, alternatives) in &refused.calls {
        let rules = alternatives.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        #[cfg(target_arch = "x86_64")]
        calls.insert(call | X32, rules.clone());
        calls.insert(*call, rules);
    }
    #[cfg(target_arch = "x86_64")]
    calls.extend(X32_OWN.map(|call| (call | X32, Vec::new())));
    let mut unknown: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in &refused.unknown {
        unknown.insert(*call, Vec::new());
        #[cfg(target_arch = "x86_64")]
        unknown.insert(call | X32, Vec::new());
    }
    let program = |rules, errno: i32| {
        let answer = SeccompAction::Errno(errno.cast_unsigned());
        let arch: TargetArch = std::env::consts::ARCH.try_into()?;
        SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)?.try_into()
    };
    Ok([program(calls, libc::EPERM)?, program(unknown, libc::ENOSYS)?])
}

fn rule(arguments: &Arguments) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = |(position, comparison, value): &(u8, SeccompCmpOp, u64)| {
        SeccompCondition::new(*position, Dword, comparison.clone(), *value)
    };
    SeccompRule::new(arguments.iter().map(condition).collect::<Result<_, _>>()?)
}
