//! eBPF programs and what they record (Linux).
//!
//! The programs are C, compiled ahead (`agent/bpf/`, see the README there) and part of this executable. They are
//! adjusted to the running kernel by its own type information when they are loaded, attached to tracepoints, and write
//! records into ring buffers: each sensor has its own, so that none waits for the other. They end with the agent,
//! however that ends.
//!
//! Nothing is lost silently: a record that does not fit into its ring buffer is counted by kind and processor, and a
//! run that the kernel had to leave out (it was in the midst of the same program on the same processor) by the kernel.

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use aya::maps::ring_buf::RingBufItem;
use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::tp_btf::BtfTracePointLink;
use aya::programs::{BtfTracePoint, ProgramFd, RawTracePoint};
use aya::{Btf, BtfError, Ebpf, EbpfLoader, Endianness};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Resource, Rlimit};

/// Kinds of records of one program, 0 included.
pub(super) const KINDS: usize = 4;
/// Most programs of one sensor.
const PROGRAMS_MAX: usize = 3;
/// What `/proc/self/ns/pid` is called in the namespace that the kernel numbers its processes in (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Where the kernel says what its structures look like.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";
/// Longest reason that is kept of an error, characters: what the kernel's verifier says can be a book.
const REASON_CHARACTERS_MAX: usize = 200;
/// `CAP_SYS_ADMIN`, which stands for the next two, `CAP_PERFMON` and `CAP_BPF`.
const CAPABILITIES: [u32; 3] = [21, 38, 39];

static PROCESS_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/process.bpf.o"));
static CONNECTION_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/connection.bpf.o"));

/// Why there are no eBPF programs.
#[derive(Debug, thiserror::Error)]
pub(super) enum EbpfError {
    #[error("eBPF: the agent is not in the host's own pid namespace")]
    PidNamespace,
    #[error("eBPF: {KERNEL_TYPES}: {0}; it needs CONFIG_DEBUG_INFO_BTF")]
    KernelTypes(String),
    #[error("eBPF: not permitted; run as root or with CAP_BPF and CAP_PERFMON")]
    Forbidden,
    #[error("eBPF: {0}")]
    Refused(String),
    #[error("eBPF: the object has no {0}")]
    Lacking(&'static str),
}

/// The ring buffer of some programs, which run as long as it exists.
pub(super) struct RecordSource {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    lost_reported: [u64; KINDS],
    programs: AttachedPrograms,
    missed_reported: u64,
}

/// Not on the heap: what outlives the kernel's types there would keep their memory from being given back.
type AttachedPrograms = [Option<AttachedProgram>; PROGRAMS_MAX];

/// A program, for as long as it shall run.
#[derive(Debug)]
struct AttachedProgram {
    program: ProgramFd,
    _link: Link,
}

#[derive(Debug)]
enum Link {
    Raw(#[expect(dead_code, reason = "detaches when dropped")] RawTracePointLink),
    Typed(#[expect(dead_code, reason = "detaches when dropped")] BtfTracePointLink),
}

/// What was lost since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NewLosses {
    /// Records that did not fit, by kind.
    pub(super) full: [u64; KINDS],
    /// Runs of a program that were left out.
    pub(super) missed: u64,
}

/// The programs of each sensor, until the sensor takes them, or why there are none.
#[derive(Debug, Default)]
pub(super) struct EbpfSources {
    process: Option<Result<RecordSource, String>>,
    connection: Option<Result<RecordSource, String>>,
}

impl EbpfSources {
    /// Loads and attaches the programs of the sensors that want them.
    pub(super) fn load(process: bool, connection: bool) -> Self {
        if !process && !connection {
            return Self::default();
        }
        // The kernel's types take some hundred thousand small allocations: on a thread of its own, they leave no holes
        // among those that stay.
        let loader = thread::Builder::new().name("ebpf-loader".to_owned()).spawn(move || load(process, connection));
        let refused = |error: &str| {
            let reason = || Err(EbpfError::Refused(error.to_owned()).to_string());
            Self { process: process.then(reason), connection: connection.then(reason) }
        };
        match loader.map(thread::JoinHandle::join) {
            Ok(Ok(Ok(sources))) => sources,
            Ok(Ok(Err(error))) => refused(&error.to_string()),
            Ok(Err(_)) => refused("the loader failed"),
            Err(error) => refused(&error.to_string()),
        }
    }

    /// The records about processes.
    pub(super) fn take_process(&mut self) -> Result<RecordSource, String> {
        self.process.take().unwrap_or_else(|| Err("eBPF: not loaded".to_owned()))
    }

    /// The records about connections.
    pub(super) fn take_connection(&mut self) -> Result<RecordSource, String> {
        self.connection.take().unwrap_or_else(|| Err("eBPF: not loaded".to_owned()))
    }
}

fn load(process: bool, connection: bool) -> Result<EbpfSources, EbpfError> {
    permitted()?;
    // Kernels before 5.11 count maps as locked memory.
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = rustix::process::setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "the limit of locked memory stays as it is");
    }
    let mut loader = EbpfLoader::new();
    // The loader reads the types, too, but keeps them to itself: they need not be there twice at once.
    loader.btf(None);
    let types = Btf::parse_file(KERNEL_TYPES, Endianness::default()).map_err(|error| match error {
        BtfError::FileError { error, .. } => EbpfError::KernelTypes(error.to_string()),
        error => EbpfError::KernelTypes(error.to_string()),
    })?;
    loader.btf(Some(&types));
    Ok(EbpfSources {
        process: process.then(|| load_process(&mut loader).map_err(|error| error.to_string())),
        connection: connection.then(|| load_connection(&mut loader, &types).map_err(|error| error.to_string())),
    })
}

/// Whether it is worth trying.
fn permitted() -> Result<(), EbpfError> {
    if cfg!(target_endian = "big") {
        return Err(EbpfError::Refused("the programs are for little-endian machines".to_owned()));
    }
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    if namespace.as_os_str() != INITIAL_PID_NAMESPACE {
        return Err(EbpfError::PidNamespace);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if has_capabilities(&status) { Ok(()) } else { Err(EbpfError::Forbidden) }
}

/// Whether a `/proc/PID/status` has the effective capabilities for eBPF.
fn has_capabilities(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(set) = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else { return false };
    let [admin, tracing, bpf] = CAPABILITIES.map(|capability| set >> capability & 1 == 1);
    admin || tracing && bpf
}

fn load_process(loader: &mut EbpfLoader<'_>) -> Result<RecordSource, EbpfError> {
    const PROGRAMS: [(&str, &str); PROGRAMS_MAX] = [
        ("process_fork", "sched_process_fork"),
        ("process_exit", "sched_process_exit"),
        ("process_exec", "sched_process_exec"),
    ];
    let mut object = loader.load(PROCESS_OBJECT).map_err(|error| refusal(&error))?;
    let mut programs = AttachedPrograms::default();
    for ((name, tracepoint), program) in PROGRAMS.into_iter().zip(&mut programs) {
        *program = Some(attach_raw(&mut object, name, tracepoint)?);
    }
    RecordSource::new(object, "process_records", "process_lost", programs)
}

fn load_connection(loader: &mut EbpfLoader<'_>, types: &Btf) -> Result<RecordSource, EbpfError> {
    let mut object = loader.load(CONNECTION_OBJECT).map_err(|error| refusal(&error))?;
    let program = attach_typed(&mut object, types, "connection_state", "inet_sock_set_state")?;
    RecordSource::new(object, "connection_records", "connection_lost", [Some(program), None, None])
}

fn attach_raw(object: &mut Ebpf, name: &'static str, tracepoint: &str) -> Result<AttachedProgram, EbpfError> {
    let program = object.program_mut(name).ok_or(EbpfError::Lacking(name))?;
    let program: &mut RawTracePoint = program.try_into().map_err(|error| refusal(&error))?;
    let mut attach = || {
        program.load()?;
        let link = program.attach(tracepoint)?;
        let link = Link::Raw(program.take_link(link)?);
        Ok(AttachedProgram { program: program.fd()?.try_clone()?, _link: link })
    };
    attach().map_err(|error: aya::programs::ProgramError| refusal(&error))
}

fn attach_typed(
    object: &mut Ebpf,
    types: &Btf,
    name: &'static str,
    tracepoint: &str,
) -> Result<AttachedProgram, EbpfError> {
    let program = object.program_mut(name).ok_or(EbpfError::Lacking(name))?;
    let program: &mut BtfTracePoint = program.try_into().map_err(|error| refusal(&error))?;
    let mut attach = || {
        program.load(tracepoint, types)?;
        let link = program.attach()?;
        let link = Link::Typed(program.take_link(link)?);
        Ok(AttachedProgram { program: program.fd()?.try_clone()?, _link: link })
    };
    attach().map_err(|error: aya::programs::ProgramError| refusal(&error))
}

/// What an error of the loader means.
fn refusal(error: &(dyn Error + 'static)) -> EbpfError {
    tracing::debug!(?error, "eBPF programs cannot be used");
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = error.downcast_ref::<io::Error>();
        if cause.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return EbpfError::Forbidden;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(error.to_string().lines().next().unwrap_or_default());
        next = error.source();
    }
    EbpfError::Refused(text.chars().take(REASON_CHARACTERS_MAX).collect())
}

impl RecordSource {
    fn new(
        mut object: Ebpf,
        ring: &'static str,
        lost: &'static str,
        programs: AttachedPrograms,
    ) -> Result<Self, EbpfError> {
        let mut map = |name| object.take_map(name).ok_or(EbpfError::Lacking(name));
        let (ring, lost) = (map(ring)?, map(lost)?);
        Ok(Self {
            ring: RingBuf::try_from(ring).map_err(|error| refusal(&error))?,
            lost: PerCpuArray::try_from(lost).map_err(|error| refusal(&error))?,
            lost_reported: [0; KINDS],
            programs,
            missed_reported: 0,
        })
    }

    /// Waits until there is a record, at most `timeout` (less than a second).
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(&self.ring, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next record, in the order they were written.
    pub(super) fn next(&mut self) -> Option<RingBufItem<'_>> {
        self.ring.next()
    }

    /// What was lost since this was last asked.
    pub(super) fn new_losses(&mut self) -> NewLosses {
        let mut new = NewLosses::default();
        for (kind, reported) in (0_u32..).zip(&mut self.lost_reported) {
            let counts = self.lost.get(&kind, 0);
            let total = counts.map_or(*reported, |counts| counts.iter().sum());
            if let Some(new) = new.full.get_mut(kind as usize) {
                *new = total.saturating_sub(*reported);
            }
            *reported = total;
        }
        let missed = self.programs.iter().flatten().filter_map(|program| missed_runs(&program.program)).sum::<u64>();
        new.missed = missed.saturating_sub(self.missed_reported);
        self.missed_reported = self.missed_reported.max(missed);
        new
    }
}

impl AsFd for RecordSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl std::fmt::Debug for RecordSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordSource").field("programs", &self.programs).finish_non_exhaustive()
    }
}

/// How often the kernel did not run a program because it ran already.
fn missed_runs(program: &ProgramFd) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
