//! eBPF programs and what they record (Linux).
//!
//! The programs are C, compiled ahead (`agent/bpf/`, see the README there) and part of this executable
//! ([`object`] lists them). They are adjusted to the running kernel by its own type information when they are loaded
//! ([`load`]), which a short-lived process does for the agent ([`helper`]), attached to tracepoints, and write records
//! into ring buffers: each sensor has its own, so that none waits for the other. They end with the agent, however that
//! ends.
//!
//! Nothing is lost silently: a record that does not fit into its ring buffer is counted by kind and processor, and a
//! run that the kernel had to leave out (it was in the midst of the same program on the same processor) by the kernel.
//! Where that happens often, a second program is attached that tells what the first was left out of.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use aya::maps::ring_buf::RingBufItem;
use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};

use crate::own_program::OwnProgram;
use crate::sensor::config::{EbpfChoice, SensorConfig};
use crate::sensor::ebpf::helper::{Helper, HelperError};
use crate::sensor::ebpf::load::{AttachedProgram, LoadedObject, MissingPrograms, ProgramDescriptor, refusal};
use crate::sensor::ebpf::object::{ObjectDefinition, Role};
use crate::sensor::stop::StopSignal;

pub(crate) mod helper;
mod load;
pub(crate) mod object;
pub(super) mod turns;

/// Kinds of records of one program, 0 included.
pub(super) const KINDS: usize = 4;
/// No kind of record: its counter is of what a first program was left out of without harm, as a second told it.
const TOLD_BY_SECOND: usize = 0;
const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;
/// Where the kernel says what its structures look like.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";
/// Longest reason that is kept of an error, characters: what the kernel's verifier says can be a book.
const REASON_CHARACTERS_MAX: usize = 200;

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
    /// As one of the others says.
    #[error("{0}")]
    Told(String),
}

/// The ring buffer of some programs, which run as long as it exists.
pub(super) struct RecordSource {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    lost_reported: [u64; 2 * KINDS],
    /// What else the sensor uses, until it takes it.
    maps: BTreeMap<&'static str, Map>,
    programs: Vec<AttachedProgram>,
    missing: MissingPrograms,
    missed_reported: u64,
}

/// What was lost since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NewLosses {
    /// Records that did not fit, by kind.
    pub(super) full: [u64; KINDS],
    /// Records that were more than the limit of their cgroup.
    pub(super) throttled: u64,
    /// Runs of a program that were left out, and that no second one made up for.
    pub(super) missed: u64,
}

/// The programs of each sensor, until the sensor takes them, or why there are none.
#[derive(Debug, Default)]
pub(super) struct EbpfSources {
    by_object: BTreeMap<&'static str, Result<RecordSource, String>>,
}

/// Programs on their way into the kernel. They take a moment, in which the agent can do other things.
#[derive(Debug)]
pub struct EbpfLoading {
    objects: Vec<&'static ObjectDefinition>,
    /// Not permitted; or not by a helper, and why.
    helper: Result<Option<Helper>, EbpfError>,
}

impl EbpfLoading {
    /// Begins to load what the sensors need, by a helper process where `program` says how one is started. The thread
    /// needs the rights for it.
    pub fn begin(config: &SensorConfig, program: Option<&OwnProgram>) -> Self {
        let objects = [
            config.process.mode.wants_ebpf().then_some(&object::PROCESS),
            config.connection.mode.wants_ebpf().then_some(&object::CONNECTION),
            (config.datagram.mode != EbpfChoice::Off).then_some(&object::DATAGRAM),
            (config.kernel.mode != EbpfChoice::Off).then_some(&object::KERNEL),
        ];
        Self::begin_with(objects.into_iter().flatten().collect(), program)
    }

    pub(super) fn begin_with(objects: Vec<&'static ObjectDefinition>, program: Option<&OwnProgram>) -> Self {
        if objects.is_empty() {
            return Self { objects, helper: Ok(None) };
        }
        // What is not permitted here is not permitted to the helper.
        let helper = load::permitted().map(|()| {
            let helper = Helper::start(program?, &objects);
            helper.inspect_err(warn_of_memory).ok()
        });
        Self { objects, helper }
    }

    /// Waits for the programs; what the helper did not do is done here.
    pub(super) fn finish(self) -> EbpfSources {
        let Self { objects, helper } = self;
        if objects.is_empty() {
            return EbpfSources::default();
        }
        let outcomes = helper.map_err(|error| error.to_string()).and_then(|helper| {
            let by_helper = helper.map(|helper| helper.finish(&objects).inspect_err(warn_of_memory));
            by_helper.and_then(Result::ok).map_or_else(|| load_here(&objects), Ok)
        });
        EbpfSources::new(&objects, outcomes)
    }
}

fn warn_of_memory(error: &HelperError) {
    tracing::warn!(%error, "the agent loads its eBPF programs itself: that takes it 20 MB of memory for a moment");
}

impl EbpfSources {
    fn new(objects: &[&'static ObjectDefinition], outcomes: Result<load::Outcomes<String>, String>) -> Self {
        let by_object = match outcomes {
            Ok(outcomes) => {
                let source = |object, loaded| RecordSource::new(object, loaded).map_err(|error| error.to_string());
                outcomes
                    .into_iter()
                    .map(|(object, loaded)| (object.name, loaded.and_then(|loaded| source(object, loaded))))
                    .collect()
            }
            Err(reason) => objects.iter().map(|object| (object.name, Err(reason.clone()))).collect(),
        };
        Self { by_object }
    }

    /// The records of an object's programs.
    pub(super) fn take(&mut self, object: &ObjectDefinition) -> Result<RecordSource, String> {
        self.by_object.remove(object.name).unwrap_or_else(|| Err("eBPF: not loaded".to_owned()))
    }
}

/// Whether eBPF programs can be loaded by this process, as far as it can be told without trying, or why not.
pub(crate) fn permitted() -> Result<(), String> {
    load::permitted().map_err(|error| error.to_string())
}

fn load_here(objects: &[&'static ObjectDefinition]) -> Result<load::Outcomes<String>, String> {
    let objects = objects.to_vec();
    // The kernel's types take some hundred thousand small allocations: on a thread of its own, they leave no holes
    // among those that stay.
    let loader = thread::Builder::new().name("ebpf-loader".to_owned()).spawn(move || load::load(&objects));
    let outcomes =
        loader.map(thread::JoinHandle::join).map_err(|error| EbpfError::Refused(error.to_string()).to_string())?;
    let outcomes = outcomes.map_err(|_| EbpfError::Refused("the loader failed".to_owned()).to_string())?;
    let told = |(object, loaded): (_, Result<_, EbpfError>)| (object, loaded.map_err(|error| error.to_string()));
    Ok(outcomes.map_err(|error| error.to_string())?.into_iter().map(told).collect())
}

impl RecordSource {
    fn new(definition: &ObjectDefinition, mut object: LoadedObject) -> Result<Self, EbpfError> {
        let ring = object.take_map(definition.records)?;
        let lost = object.take_map(definition.lost)?;
        Ok(Self {
            ring: RingBuf::try_from(ring).map_err(|error| refusal(&error))?,
            lost: PerCpuArray::try_from(lost).map_err(|error| refusal(&error))?,
            lost_reported: [0; 2 * KINDS],
            maps: object.maps,
            programs: object.programs,
            missing: object.missing,
            missed_reported: 0,
        })
    }

    /// Waits until there is a record, or the stop, at most `timeout`.
    pub(super) fn wait(&self, timeout: Duration, stop: &StopSignal) -> io::Result<()> {
        stop.wait_for(self.ring.as_fd(), timeout).map(drop)
    }

    /// The programs that are not there and not needed, by name, each with the reason.
    pub(super) fn missing(&self) -> &[(String, String)] {
        &self.missing
    }

    /// The next record, in the order they were written.
    pub(super) fn next(&mut self) -> Option<RingBufItem<'_>> {
        self.ring.next()
    }

    /// Sets how many records one cgroup may cause in a second on average; 0: no limit. A second's worth may come at once.
    ///
    /// # Errors
    /// The object has no such map, or the kernel refuses.
    pub(super) fn set_limit(&mut self, map: &'static str, per_second: u32) -> Result<(), String> {
        let map = self.take_map(map)?;
        let mut limits = Array::<MapData, [u64; 2]>::try_from(map).map_err(|error| error.to_string())?;
        let interval_ns = NANOSECONDS_PER_SECOND.checked_div(per_second.into()).unwrap_or(0);
        limits.set(0, [interval_ns, NANOSECONDS_PER_SECOND], 0).map_err(|error| error.to_string())
    }

    /// Takes a further map of the object.
    ///
    /// # Errors
    /// It has none of this name, or it was taken.
    pub(super) fn take_map(&mut self, name: &'static str) -> Result<Map, String> {
        self.maps.remove(name).ok_or_else(|| EbpfError::Lacking(name).to_string())
    }

    /// What was lost since this was last asked.
    pub(super) fn new_losses(&mut self) -> NewLosses {
        // Read before what the second programs told of them, which then is not less.
        let first = self.programs.iter().filter(|program| program.role != Role::Second);
        let left_out = first.filter_map(|program| missed_runs(&program.program)).sum::<u64>();
        let mut new = NewLosses::default();
        for (kind, reported) in (0_u32..).zip(&mut self.lost_reported) {
            let counts = self.lost.get(&kind, 0);
            let total = counts.map_or(*reported, |counts| counts.iter().sum());
            let since = total.saturating_sub(*reported);
            match new.full.get_mut(kind as usize) {
                Some(new) => *new = since,
                None => new.throttled += since,
            }
            *reported = total;
        }
        new.full[TOLD_BY_SECOND] = 0;
        let told_by_second = self.lost_reported[TOLD_BY_SECOND];
        let missed = left_out.saturating_sub(told_by_second);
        new.missed = missed.saturating_sub(self.missed_reported);
        if new != NewLosses::default() {
            tracing::debug!(losses = ?new, left_out, told_by_second, "records were lost");
        }
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
fn missed_runs(program: &ProgramDescriptor) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
