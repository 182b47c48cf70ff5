//! Loads objects into the kernel and attaches their programs, in this process.
//!
//! The kernel's types take 16 MB for as long as this lasts, and some hundred thousand small allocations: see
//! [`super::helper`] for how the agent is spared them.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use aya::maps::{Map, MapData};
use aya::programs::links::FdLink;
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program, ProgramError, ProgramFd, RawTracePoint,
};
use aya::{Btf, BtfError, Ebpf, EbpfLoader, Endianness};
use rustix::process::{Resource, Rlimit};

use super::object::{Attachment, ObjectDefinition, ProgramDefinition, Role, Turn};
use super::{EbpfError, KERNEL_TYPES, REASON_CHARACTERS_MAX};
use crate::enrich::cgroup;

/// What `/proc/self/ns/pid` is called in the namespace that the kernel numbers its processes in (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// `CAP_SYS_ADMIN`, which stands for the next two, `CAP_PERFMON` and `CAP_BPF`.
const CAPABILITIES: [u32; 3] = [21, 38, 39];

/// An object in the kernel, its programs attached for as long as this exists.
#[derive(Debug)]
pub(super) struct LoadedObject {
    /// By name.
    pub(super) maps: BTreeMap<&'static str, Map>,
    pub(super) programs: Vec<AttachedProgram>,
    pub(super) missing: MissingPrograms,
}

/// Programs that could not be attached and are not needed, by name, each with the reason.
pub(super) type MissingPrograms = Vec<(String, String)>;

/// What became of each object that was asked for.
pub(super) type Outcomes<E> = Vec<(&'static ObjectDefinition, Result<LoadedObject, E>)>;

/// A program, for as long as it shall run.
#[derive(Debug)]
pub(super) struct AttachedProgram {
    pub(super) role: Role,
    pub(super) program: ProgramDescriptor,
    pub(super) link: Link,
}

impl AttachedProgram {
    fn new(role: Role, program: ProgramFd, link: FdLink) -> Self {
        Self { role, program: ProgramDescriptor::Loaded(program), link: Link::Attached(link) }
    }
}

/// A program's descriptor.
#[derive(Debug)]
pub(super) enum ProgramDescriptor {
    Loaded(ProgramFd),
    Received(OwnedFd),
}

/// What keeps a program attached.
#[derive(Debug)]
pub(super) enum Link {
    Attached(FdLink),
    Received(#[expect(dead_code, reason = "detaches when closed")] OwnedFd),
}

impl AsFd for ProgramDescriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Loaded(descriptor) => descriptor.as_fd(),
            Self::Received(descriptor) => descriptor.as_fd(),
        }
    }
}

/// Loads each of the objects and attaches its programs.
///
/// # Errors
/// None of them can be loaded here.
pub(super) fn load(objects: &[&'static ObjectDefinition]) -> Result<Outcomes<EbpfError>, EbpfError> {
    permitted()?;
    // Kernels before 5.11 count maps as locked memory.
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = rustix::process::setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "the limit of locked memory stays as it is");
    }
    if let Err(error) = File::open(KERNEL_TYPES) {
        return Err(EbpfError::KernelTypes(error.to_string()));
    }
    let load = |turn, loader: &mut EbpfLoader<'_>, types: &KernelTypes| -> Outcomes<_> {
        let objects = objects.iter().filter(|object| object.turn == turn);
        objects.map(|object| (*object, load_object(loader, types, object))).collect()
    };
    let of = |turn| objects.iter().filter(move |object| object.turn == turn);
    let mut outcomes = thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let is_wanted = of(Turn::Beside).next().is_some();
            if is_wanted { load(Turn::Beside, &mut EbpfLoader::new(), &KernelTypes::default()) } else { Vec::new() }
        });
        let (mut loader, types) = (EbpfLoader::new(), KernelTypes::default());
        let mut outcomes = load(Turn::First, &mut loader, &types);
        match beside.join() {
            Ok(beside) => outcomes.extend(beside),
            Err(_) => outcomes.extend(
                of(Turn::Beside).map(|object| (*object, Err(EbpfError::Refused("the loader failed".to_owned())))),
            ),
        }
        outcomes.extend(load(Turn::Last, &mut loader, &types));
        outcomes
    });
    // As they were asked for.
    outcomes.sort_by_key(|(object, _)| objects.iter().position(|asked| asked.name == object.name));
    Ok(outcomes)
}

/// What the kernel's structures look like, read when they are needed first. (Each loader reads them, too, and keeps them
/// to itself.)
#[derive(Default)]
pub(super) struct KernelTypes(OnceCell<Result<Btf, String>>);

impl KernelTypes {
    fn get(&self) -> Result<&Btf, EbpfError> {
        let read = || {
            Btf::parse_file(KERNEL_TYPES, Endianness::default()).map_err(|error| match error {
                BtfError::FileError { error, .. } => error.to_string(),
                error => error.to_string(),
            })
        };
        self.0.get_or_init(read).as_ref().map_err(|error| EbpfError::KernelTypes(error.clone()))
    }
}

/// Whether it is worth trying.
pub(super) fn permitted() -> Result<(), EbpfError> {
    if cfg!(target_endian = "big") {
        return Err(EbpfError::Refused("the programs are for little-endian machines".to_owned()));
    }
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    if namespace.as_os_str() != INITIAL_PID_NAMESPACE {
        return Err(EbpfError::PidNamespace);
    }
    // Of this thread: the others have given up their capabilities already.
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    if has_capabilities(&status) { Ok(()) } else { Err(EbpfError::Forbidden) }
}

/// Whether a `/proc/PID/status` has the effective capabilities for eBPF.
pub(super) fn has_capabilities(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(set) = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else { return false };
    let [admin, tracing, bpf] = CAPABILITIES.map(|capability| set >> capability & 1 == 1);
    admin || tracing && bpf
}

pub(super) fn load_object(
    loader: &mut EbpfLoader<'_>,
    types: &KernelTypes,
    definition: &'static ObjectDefinition,
) -> Result<LoadedObject, EbpfError> {
    let mut object = loader.load(definition.bytes).map_err(|error| refusal(&error))?;
    let (mut programs, mut missing) = (Vec::new(), Vec::new());
    for program in definition.programs {
        match attach(&mut object, types, program) {
            Ok(attached) => programs.push(attached),
            Err(error) if program.role == Role::Optional => missing.push((program.name.to_owned(), error.to_string())),
            Err(error) => return Err(error),
        }
    }
    let map = |name| Ok((name, object.take_map(name).ok_or(EbpfError::Lacking(name))?));
    let maps = definition.kept_maps().map(map).collect::<Result<_, _>>()?;
    Ok(LoadedObject { maps, programs, missing })
}

fn attach(
    object: &mut Ebpf,
    types: &KernelTypes,
    definition: &'static ProgramDefinition,
) -> Result<AttachedProgram, EbpfError> {
    let ProgramDefinition { name, attachment, role } = *definition;
    let program = object.program_mut(name).ok_or(EbpfError::Lacking(name))?;
    match attachment {
        Attachment::Raw(tracepoint) => attach_raw(role, program, tracepoint).map_err(|error| refusal(&error)),
        Attachment::Typed(tracepoint) => {
            attach_typed(role, program, tracepoint, types.get()?).map_err(|error| refusal(&error))
        }
        Attachment::SentPackets => attach_to_root_cgroup(role, program, CgroupSkbAttachType::Egress),
        Attachment::ReceivedPackets => attach_to_root_cgroup(role, program, CgroupSkbAttachType::Ingress),
    }
}

fn attach_raw(role: Role, program: &mut Program, tracepoint: &str) -> Result<AttachedProgram, ProgramError> {
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    let link = program.attach(tracepoint)?;
    Ok(AttachedProgram::new(role, program.fd()?.try_clone()?, program.take_link(link)?.into()))
}

fn attach_typed(
    role: Role,
    program: &mut Program,
    tracepoint: &str,
    types: &Btf,
) -> Result<AttachedProgram, ProgramError> {
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(tracepoint, types)?;
    let link = program.attach()?;
    Ok(AttachedProgram::new(role, program.fd()?.try_clone()?, program.take_link(link)?.into()))
}

/// A link always stands beside what others attach: nothing of theirs is disturbed.
fn attach_to_root_cgroup(
    role: Role,
    program: &mut Program,
    direction: CgroupSkbAttachType,
) -> Result<AttachedProgram, EbpfError> {
    let program: &mut CgroupSkb = program.try_into().map_err(|error: ProgramError| refusal(&error))?;
    let cgroup = root_cgroup()?;
    let attached = program.load().and_then(|()| {
        // No mode is told: a link has but one, and older kernels refuse to be told of it.
        let link = program.attach(&cgroup, direction, CgroupAttachMode::Single)?;
        Ok((program.fd()?.try_clone()?, program.take_link(link)?))
    });
    let (program, link) = attached.map_err(|error| refusal(&error))?;
    let link = FdLink::try_from(link).map_err(|error| refusal(&error))?;
    Ok(AttachedProgram::new(role, program, link))
}

/// The root of the cgroup hierarchy of version 2.
fn root_cgroup() -> Result<File, EbpfError> {
    let refused = |error: io::Error| EbpfError::Refused(error.to_string());
    let mounts = std::fs::read("/proc/self/mountinfo").map_err(refused)?;
    let path = cgroup::mount_point(&mounts)
        .ok_or_else(|| EbpfError::Refused("no cgroup2 hierarchy is mounted, which sees all packets".to_owned()))?;
    File::open(path).map_err(refused)
}

/// What an error of the loader means.
pub(super) fn refusal(error: &(dyn Error + 'static)) -> EbpfError {
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

impl LoadedObject {
    /// Takes a map out of it.
    pub(super) fn take_map(&mut self, name: &'static str) -> Result<Map, EbpfError> {
        self.maps.remove(name).ok_or(EbpfError::Lacking(name))
    }
}

/// What is behind a map, of the kinds that sensors use.
pub(super) fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}
