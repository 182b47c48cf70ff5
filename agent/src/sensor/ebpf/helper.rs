//! A short-lived process that loads the programs for the agent.
//!
//! Adjusting programs to the kernel takes the kernel's types: 16 MB that the agent itself shall never hold. So it starts
//! itself again as `picket-agent ebpf-load OBJECT…`, which loads and attaches, and hands maps, programs and links over
//! as descriptors. What is attached stays so for as long as somebody has its link: the helper may end, the agent may not.
//!
//! The helper's standard input is the socket. It sends one message for each object ([`Header`], with descriptors: the
//! kept maps, then each program and its link), and ends.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData};
use aya::programs::links::FdLink;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};
use serde::{Deserialize, Serialize};

use super::EbpfError;
use super::load::{
    AttachedProgram, Link, LoadedObject, MissingPrograms, Outcomes, ProgramDescriptor, load, map_data, refusal,
};
use super::object::{ObjectDefinition, ProgramDefinition};
use crate::own_program::OwnProgram;

/// The agent's subcommand that this is.
pub(crate) const SUBCOMMAND: &str = "ebpf-load";
/// How long the helper may take for all objects.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Largest message. What the kernel's verifier says is cut before.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Most descriptors of one object.
const DESCRIPTORS_MAX: usize = 64;

/// What a message says of its descriptors.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    object: String,
    /// Why it could not be loaded; there are no descriptors then.
    error: Option<String>,
    /// What it does without.
    #[serde(default)]
    missing: MissingPrograms,
}

/// Why the helper gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    #[error("cannot start the eBPF loader: {0}")]
    Start(io::Error),
    #[error("the eBPF loader did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("the eBPF loader ended without an answer")]
    Ended,
    #[error("the eBPF loader cannot be understood: {0}")]
    Answer(String),
    #[error("standard input is no socket: {SUBCOMMAND} is a part of the agent, which starts it itself")]
    NotStarted,
    #[error("there is no eBPF object called {0}")]
    Unknown(String),
    #[error("cannot hand eBPF programs over: {0}")]
    HandOver(io::Error),
}

/// The helper at work.
#[derive(Debug)]
pub(super) struct Helper {
    socket: OwnedFd,
    process: Child,
    deadline: Instant,
    has_answered: bool,
}

impl Helper {
    /// Has `objects` loaded by another process of this program.
    pub(super) fn start(program: &OwnProgram, objects: &[&'static ObjectDefinition]) -> Result<Self, HelperError> {
        let (socket, theirs) = socket_pair().map_err(HelperError::Start)?;
        let mut command = program.command(SUBCOMMAND);
        command.args(objects.iter().map(|object| object.name));
        command.stdin(theirs).stdout(Stdio::null());
        let process = command.spawn().map_err(HelperError::Start)?;
        // The command holds the other end of the socket, too: with it the end of the helper would not be noticed.
        drop(command);
        Ok(Self { socket, process, deadline: Instant::now() + TIMEOUT, has_answered: false })
    }

    /// Waits for what became of the objects, which are those it was started with.
    pub(super) fn finish(mut self, objects: &[&'static ObjectDefinition]) -> Result<Outcomes<String>, HelperError> {
        let outcomes = objects.iter().map(|object| receive(self.socket.as_fd(), object, self.deadline)).collect();
        self.has_answered = !matches!(outcomes, Err(HelperError::TimedOut));
        outcomes
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        end(&mut self.process, !self.has_answered);
    }
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// It ends by itself after its last message.
fn end(helper: &mut Child, is_stuck: bool) {
    if is_stuck && let Err(error) = helper.kill() {
        tracing::warn!(%error, "the eBPF loader cannot be ended");
        return;
    }
    if let Err(error) = helper.wait() {
        tracing::warn!(%error, "the eBPF loader cannot be waited for");
    }
}

/// The helper: loads the objects of these names and hands them over on standard input.
///
/// # Errors
/// [`HelperError`], when there is nobody to hand them to. That an object cannot be loaded is an answer.
pub(crate) fn run(names: &[String]) -> Result<(), HelperError> {
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    if rustix::net::sockopt::socket_type(socket) != Ok(SocketType::SEQPACKET) {
        return Err(HelperError::NotStarted);
    }
    let named = |name: &String| ObjectDefinition::named(name).ok_or_else(|| HelperError::Unknown(name.clone()));
    let objects = names.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    let outcomes = load(&objects).unwrap_or_else(|error| {
        let reason = error.to_string();
        objects.iter().map(|object| (*object, Err(EbpfError::Told(reason.clone())))).collect()
    });
    outcomes.into_iter().try_for_each(|(object, outcome)| send(socket, object, outcome)).map_err(HelperError::HandOver)
}

fn send(
    socket: BorrowedFd<'_>,
    definition: &ObjectDefinition,
    outcome: Result<LoadedObject, EbpfError>,
) -> io::Result<()> {
    let (loaded, error) = match outcome {
        Ok(loaded) => (Some(loaded), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let links = loaded.iter().flat_map(|loaded| &loaded.programs).map(|program| descriptor_of(&program.link));
    let links = links.collect::<io::Result<Vec<_>>>()?;
    let mut descriptors = Vec::new();
    if let Some(loaded) = &loaded {
        for name in definition.kept_maps() {
            let map = loaded.maps.get(name).and_then(map_data);
            descriptors
                .push(map.ok_or_else(|| io::Error::other(format!("{name} is no map to hand over")))?.fd().as_fd());
        }
        for (program, link) in loaded.programs.iter().zip(&links) {
            descriptors.extend([program.program.as_fd(), link.as_fd()]);
        }
    }
    let missing = loaded.as_ref().map(|loaded| loaded.missing.clone()).unwrap_or_default();
    let header = serde_json::to_vec(&Header { object: definition.name.to_owned(), error, missing })?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&header)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A descriptor of what keeps a program attached. The library does not give it away: it is found by the link's number
/// among the descriptors of this process.
fn descriptor_of(link: &Link) -> io::Result<OwnedFd> {
    let Link::Attached(link) = link else { return Err(io::Error::other("the link came from elsewhere")) };
    let line = format!("link_id:\t{}", link_number(link)?);
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        let entry = entry?;
        // One that is closed meanwhile is none of the links.
        let Ok(info) = std::fs::read_to_string(entry.path()) else { continue };
        if info.lines().any(|found| found == line) {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            let number = number.ok_or_else(|| io::Error::other("a descriptor that is no number"))?;
            let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
            return Ok(rustix::process::pidfd_getfd(own, number, PidfdGetfdFlags::empty())?);
        }
    }
    Err(io::Error::other("a link has no descriptor"))
}

fn link_number(link: &FdLink) -> io::Result<u32> {
    Ok(link.info().map_err(io::Error::other)?.id())
}

/// The next message, which must be about `definition`.
fn receive(
    socket: BorrowedFd<'_>,
    definition: &'static ObjectDefinition,
    deadline: Instant,
) -> Result<(&'static ObjectDefinition, Result<LoadedObject, String>), HelperError> {
    await_message(socket, deadline)?;
    let answer = |error: &dyn std::fmt::Display| HelperError::Answer(error.to_string());
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .map_err(|error| answer(&error))?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if message.bytes == 0 {
        return Err(HelperError::Ended);
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(answer(&"a message is too long"));
    }
    let header: Header =
        serde_json::from_slice(bytes.get(..message.bytes).unwrap_or_default()).map_err(|error| answer(&error))?;
    if header.object != definition.name {
        return Err(answer(&format_args!("it answered for {}, asked was {}", header.object, definition.name)));
    }
    let outcome = match header.error {
        Some(reason) => Err(reason),
        None => Ok(assemble(definition, header.missing, descriptors).map_err(|error| answer(&error))?),
    };
    Ok((definition, outcome))
}

fn await_message(socket: BorrowedFd<'_>, deadline: Instant) -> Result<(), HelperError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|error| HelperError::Answer(error.to_string()))?;
        match rustix::event::poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(HelperError::TimedOut),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(HelperError::Answer(error.to_string())),
        }
    }
}

/// The object that these are the descriptors of.
fn assemble(
    definition: &'static ObjectDefinition,
    missing: MissingPrograms,
    descriptors: Vec<OwnedFd>,
) -> Result<LoadedObject, EbpfError> {
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or(EbpfError::Lacking("descriptor"));
    let map = |descriptor| MapData::from_fd(descriptor).and_then(Map::from_map_data).map_err(|error| refusal(&error));
    let maps = definition.kept_maps().map(|name| Ok((name, map(next()?)?))).collect::<Result<_, _>>()?;
    let mut program = |role| {
        let (program, link) = (ProgramDescriptor::Received(next()?), Link::Received(next()?));
        Ok(AttachedProgram { role, program, link })
    };
    let is_there = |definition: &&ProgramDefinition| missing.iter().all(|(name, _)| name != definition.name);
    let programs =
        definition.programs.iter().filter(is_there).map(|there| program(there.role)).collect::<Result<_, _>>()?;
    Ok(LoadedObject { maps, programs, missing })
}

#[cfg(test)]
mod tests;
