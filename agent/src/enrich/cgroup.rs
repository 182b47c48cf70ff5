//! Cgroups of version 2: their ids, and the paths that tell containers and services apart (Linux).
//!
//! The id is what the kernel calls a cgroup by; `stat` shows it as the folder's inode number. Hosts that keep their
//! containers in hierarchies of version 1 only have all processes in the root here: `/`.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use picket_common::event::ByteString;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};

/// Most cgroups whose paths are kept: more than the kernel's programs keep apart.
const PATHS_MAX: usize = 4096;
/// How the line of version 2 begins in `/proc/PID/cgroup`.
const LINE_PREFIX: &[u8] = b"0::";

/// The hierarchy, as it is mounted.
#[derive(Debug)]
pub struct CgroupTree {
    root: OwnedFd,
}

/// The paths of cgroups that were told, by id; the oldest are forgotten first.
#[derive(Debug, Default)]
pub struct CgroupPaths {
    by_id: HashMap<NonZeroU64, ByteString>,
    order: VecDeque<NonZeroU64>,
}

impl CgroupTree {
    /// Opens it, where it is mounted.
    pub fn open() -> Option<Self> {
        let mount_point = mount_point(&std::fs::read("/proc/self/mountinfo").ok()?)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Some(Self { root: rustix::fs::openat(CWD, &mount_point, flags, Mode::empty()).ok()? })
    }

    /// The id of the cgroup with this path; `None` when there is none (any more).
    pub fn id(&self, path: &[u8]) -> Option<NonZeroU64> {
        // Relative to the root, and never out of it.
        let below = path.strip_prefix(b"/")?;
        if Path::new(OsStr::from_bytes(below)).components().any(|part| part == std::path::Component::ParentDir) {
            return None;
        }
        let (below, flags) = if below.is_empty() { (&b""[..], AtFlags::EMPTY_PATH) } else { (below, AtFlags::empty()) };
        let flags = flags | AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statx(&self.root, OsStr::from_bytes(below), flags, StatxFlags::INO).ok()?;
        NonZeroU64::new(stat.stx_ino)
    }
}

impl CgroupPaths {
    /// A cgroup is called so.
    pub fn insert(&mut self, id: NonZeroU64, path: &[u8]) {
        if self.by_id.insert(id, ByteString::truncated(path)).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > PATHS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }

    /// Its path, if it was told.
    pub fn get(&self, id: NonZeroU64) -> Option<&ByteString> {
        self.by_id.get(&id)
    }
}

/// The path in the text of `/proc/PID/cgroup`. `None` where version 2 is not there, or for what is outside of the
/// agent's own part of the hierarchy.
pub fn path_of_process(text: &[u8]) -> Option<&[u8]> {
    let path = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(LINE_PREFIX))?;
    // A cgroup that was removed while it had a process.
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    (path.starts_with(b"/") && !path.starts_with(b"/..")).then_some(path)
}

/// Where the root of the hierarchy is mounted, in the text of `/proc/self/mountinfo`.
pub fn mount_point(mounts: &[u8]) -> Option<PathBuf> {
    mounts.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (root, mount_point) = (fields.nth(3)?, fields.next()?);
        // Optional fields follow, then a hyphen.
        let is_cgroup2 = fields.skip_while(|field| *field != b"-").nth(1) == Some(b"cgroup2");
        (is_cgroup2 && root == b"/").then(|| PathBuf::from(OsStr::from_bytes(mount_point)))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_among_the_mounts() {
        let mounts = b"25 30 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
            33 25 0:28 /docker/1 /mnt/part rw - cgroup2 cgroup2 rw\n\
            34 25 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
            35 25 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 master:3 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point(&mounts[..200]), None);
        assert_eq!(mount_point(b"\n \n- cgroup2"), None);
    }

    #[test]
    fn the_line_of_version_2_is_read() {
        assert_eq!(path_of_process(b"4:memory:/a\n0::/system.slice/x.service\n").unwrap(), b"/system.slice/x.service");
        assert_eq!(path_of_process(b"0::/gone (deleted)\n").unwrap(), b"/gone");
        assert_eq!(path_of_process(b"0::/\n").unwrap(), b"/");
        for text in [&b""[..], b"4:memory:/a\n", b"0::/../../other\n", b"0::x\n"] {
            assert_eq!(path_of_process(text), None);
        }
    }

    #[test]
    fn the_paths_told_last_are_kept() {
        let id = |number: usize| NonZeroU64::new(u64::try_from(number).unwrap() + 1).unwrap();
        let mut paths = CgroupPaths::default();
        for number in 0..=PATHS_MAX {
            paths.insert(id(number), format!("/{number}").as_bytes());
            paths.insert(id(number), format!("/{number}").as_bytes());
        }
        assert_eq!(paths.get(id(0)), None);
        assert_eq!(paths.get(id(1)), Some(&ByteString::from("/1")));
        assert_eq!((paths.by_id.len(), paths.order.len()), (PATHS_MAX, PATHS_MAX));
    }

    #[test]
    fn an_id_is_the_inode_number_of_the_folder_and_never_outside() {
        use std::os::unix::fs::MetadataExt;
        let Some(tree) = CgroupTree::open() else { return eprintln!("skipped: no cgroup2 hierarchy") };
        let root = mount_point(&std::fs::read("/proc/self/mountinfo").unwrap()).unwrap();
        assert_eq!(tree.id(b"/").unwrap().get(), std::fs::metadata(&root).unwrap().ino());
        assert_eq!(tree.id(b"/no such cgroup"), None);
        assert_eq!((tree.id(b"/../cpu"), tree.id(b""), tree.id(b"x")), (None, None, None));
    }
}
