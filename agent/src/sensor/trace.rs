//! Kernel trace events (Linux tracefs), read by one sensor from buffers of its own.
//!
//! A [`TraceInstance`] is a folder `instances/picket-PID-NAME-NUMBER` with its own ring buffers, one per processor; other users
//! of tracing and this one do not see each other. It is removed when dropped; what an agent that was killed left behind
//! is removed by the next. Records are read in the kernel's binary form (the text form can be forged by the name of a
//! process), laid out as the kernel's own description says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::mount::MsFlags;

use crate::sensor::trace::page::PageLayout;

pub(crate) mod format;
mod page;

/// Where tracefs is mounted by convention.
const TRACEFS: &str = "/sys/kernel/tracing";
/// Where it is mounted also, on older systems.
const TRACEFS_OF_DEBUGFS: &str = "/sys/kernel/debug/tracing";
/// Ring buffers of one instance, all processors together, KiB.
const BUFFERS_KIB: usize = 4096;
/// Ring buffer of one processor, KiB: some 400 to 3,000 records.
const BUFFER_KIB: std::ops::RangeInclusive<usize> = 32..=256;
/// Largest part of a ring buffer that is read at once, bytes.
const PAGE_BYTES_MAX: usize = 64 * 1024;
/// How long the removal of an instance is tried.
const REMOVAL_TIMEOUT: Duration = Duration::from_millis(200);
const INSTANCE_PREFIX: &str = "picket-";
/// Instances made so far by this process.
static INSTANCES: AtomicU32 = AtomicU32::new(0);

/// Ring buffers with the records of some trace events.
#[derive(Debug)]
pub(crate) struct TraceInstance {
    folder: PathBuf,
    processors: Vec<File>,
    layout: PageLayout,
    buffer: Box<[u8]>,
}

/// A trace event to be recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceEvent {
    /// `group/name`.
    pub(crate) name: &'static str,
    /// Which of them, in the kernel's filter language; empty: all.
    pub(crate) filter: &'static str,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceRecord<'a> {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) monotonic_ns: u64,
    /// The record, starting with the common fields.
    pub(crate) data: &'a [u8],
}

impl TraceInstance {
    /// Makes buffers named `name` and starts the recording of `events`.
    pub(crate) fn create(name: &str, events: &[TraceEvent]) -> io::Result<Self> {
        let instances = tracefs()?.join("instances");
        remove_left_behind(&instances);
        let number = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let folder = instances.join(format!("{INSTANCE_PREFIX}{}-{name}-{number}", std::process::id()));
        fs::create_dir(&folder)?;
        // From here on it is removed also when something fails.
        let mut instance = Self {
            layout: PageLayout::default(),
            processors: Vec::new(),
            buffer: vec![0; PAGE_BYTES_MAX].into_boxed_slice(),
            folder,
        };
        instance.layout = PageLayout::parse(&instance.read("events/header_page")?)
            .ok_or_else(|| io::Error::other("the layout of trace buffers is not understood"))?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let buffer_kib = (BUFFERS_KIB / processors).clamp(*BUFFER_KIB.start(), *BUFFER_KIB.end());
        instance.write("buffer_size_kb", &buffer_kib.to_string())?;
        // Readers are woken by the first record, not by a buffer half full. Kernels before 5.0 know nothing else.
        if instance.folder.join("buffer_percent").exists() {
            instance.write("buffer_percent", "0")?;
        }
        instance.write("trace_clock", "mono")?;
        instance.processors = instance.open_processors()?;
        for event in events {
            if !event.filter.is_empty() {
                instance.write(&format!("events/{}/filter", event.name), event.filter)?;
            }
            instance.write(&format!("events/{}/enable", event.name), "1")?;
        }
        Ok(instance)
    }

    /// The kernel's description of an event's records.
    pub(crate) fn format(&self, event: &str) -> io::Result<format::RecordFormat> {
        format::RecordFormat::parse(&self.read(&format!("events/{event}/format"))?)
            .ok_or_else(|| io::Error::other(format!("the format of trace event {event} is not understood")))
    }

    /// The buffers, for polling.
    pub(crate) fn processors(&self) -> &[File] {
        &self.processors
    }

    /// Gives every record that is there to `take`, in order for each processor; gives back how many were overwritten
    /// before they could be read.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(TraceRecord<'_>)) -> io::Result<u64> {
        let mut lost = 0;
        for mut processor in &self.processors {
            loop {
                match processor.read(&mut self.buffer) {
                    Ok(0) => break,
                    Ok(length) => lost += self.layout.records(&self.buffer[..length], &mut take),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(lost)
    }

    fn open_processors(&self) -> io::Result<Vec<File>> {
        let mut folders: Vec<PathBuf> =
            fs::read_dir(self.folder.join("per_cpu"))?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        folders.sort();
        let open = |folder: PathBuf| {
            let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            OpenOptions::new().read(true).custom_flags(flags).open(folder.join("trace_pipe_raw"))
        };
        folders.into_iter().map(open).collect()
    }

    fn read(&self, file: &str) -> io::Result<String> {
        let mut file = File::open(self.folder.join(file))?;
        let mut text = Vec::new();
        // Some of these files give what they have to the first read only: it must be a large one.
        let mut part = [0; 16 * 1024];
        loop {
            match file.read(&mut part)? {
                0 => break,
                length => text.extend_from_slice(&part[..length]),
            }
        }
        String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.folder.join(file), text)
            .map_err(|error| io::Error::new(error.kind(), format!("{file} of a trace instance: {error}")))
    }
}

impl Drop for TraceInstance {
    fn drop(&mut self) {
        // The kernel removes an instance only when nobody reads it.
        self.processors.clear();
        let mut removed = self.write("events/enable", "0");
        let deadline = Instant::now() + REMOVAL_TIMEOUT;
        while removed.is_ok() {
            removed = fs::remove_dir(&self.folder);
            let is_busy = removed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
            if !is_busy || Instant::now() >= deadline {
                break;
            }
            // A program being started has copies of all open files until it begins to run.
            std::thread::sleep(Duration::from_millis(1));
            removed = Ok(());
        }
        if let Err(error) = removed {
            tracing::warn!(folder = %self.folder.display(), %error, "trace instance cannot be removed");
        }
    }
}

/// Finds tracefs; mounts it at its usual place where it is not mounted, as systemd does.
fn tracefs() -> io::Result<&'static Path> {
    let is_mounted = |path: &Path| path.join("instances").is_dir();
    for path in [TRACEFS, TRACEFS_OF_DEBUGFS].map(Path::new) {
        if is_mounted(path) {
            return Ok(path);
        }
    }
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "only root may use tracefs"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("tracefs"), TRACEFS, Some("tracefs"), flags, None::<&str>).map_err(|error| {
        io::Error::new(io::Error::from(error).kind(), format!("tracefs cannot be mounted at {TRACEFS}: {error}"))
    })?;
    tracing::info!(path = TRACEFS, "tracefs was not mounted and is now");
    if is_mounted(Path::new(TRACEFS)) { Ok(Path::new(TRACEFS)) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Removes the instances of agents that are gone.
fn remove_left_behind(instances: &Path) {
    let Ok(entries) = fs::read_dir(instances) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner_of);
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            && let Err(error) = fs::remove_dir(entry.path())
        {
            tracing::debug!(?name, %error, "a trace instance left behind cannot be removed");
        }
    }
}

/// The process that an instance belongs to, by its name.
fn owner_of(instance: &str) -> Option<u32> {
    instance.strip_prefix(INSTANCE_PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests;
