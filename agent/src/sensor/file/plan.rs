//! Which folders are watched for what, as the file system is now.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::sensor::config::FileSensorConfig;

/// Most folders watched.
const FOLDERS_MAX: usize = 1024;
/// Most homes that `~` stands for.
const HOMES_MAX: usize = 256;
/// How deep below a watched folder its folders are watched, too: drop-ins of a unit, links of a target.
const DEPTH_MAX: u32 = 2;
/// Longest user database that is read, in bytes.
const PASSWD_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A folder whose entries are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Every entry is reported.
    pub(super) everything: bool,
    /// Entries that are programs are reported.
    pub(super) programs: bool,
    /// Entries that are reported by name.
    names: BTreeSet<Vec<u8>>,
}

impl Folder {
    /// Whether an entry is reported by its name alone.
    pub(super) fn wants(&self, name: &[u8]) -> bool {
        self.everything || self.names.contains(name)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) folders: Vec<Folder>,
}

impl Plan {
    /// Looks at the file system. A path that is a folder is watched with what is in it; any other is watched by the
    /// folder it is, or would be, in; where that is missing, the nearest one above it is watched until it comes.
    pub(super) fn make(config: &FileSensorConfig) -> Self {
        let homes = homes(&fs_text(Path::new("/etc/passwd")));
        let mut folders = BTreeMap::new();
        for path in expanded(&config.paths, &homes) {
            if path.is_dir() {
                add_everything(&mut folders, &path, DEPTH_MAX);
            }
            if let Some((folder, name)) = parent_of(&path) {
                add_name(&mut folders, folder, name);
            }
        }
        for path in expanded(&config.program_folders, &homes) {
            if let Some(folder) = folder_at(&mut folders, &path) {
                folder.programs = true;
            }
        }
        Self { folders: folders.into_values().collect() }
    }
}

type Folders = BTreeMap<PathBuf, Folder>;

fn folder_at<'a>(folders: &'a mut Folders, path: &Path) -> Option<&'a mut Folder> {
    // Two names of one folder are one mark: the last would take the other's place.
    let path = path.canonicalize().ok().filter(|path| path.is_dir())?;
    if folders.len() >= FOLDERS_MAX && !folders.contains_key(&path) {
        return None;
    }
    Some(folders.entry(path.clone()).or_insert_with(|| Folder { path, ..Folder::default() }))
}

fn add_everything(folders: &mut Folders, path: &Path, depth: u32) {
    let Some(folder) = folder_at(folders, path) else { return };
    folder.everything = true;
    if depth == 0 {
        return;
    }
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        // A link to a folder leads elsewhere.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_everything(folders, &entry.path(), depth - 1);
        }
    }
}

fn add_name(folders: &mut Folders, folder: &Path, name: &[u8]) {
    let mut folder = folder;
    let mut name = name;
    loop {
        if let Some(folder) = folder_at(folders, folder) {
            folder.names.insert(name.to_vec());
            return;
        }
        let Some((above, this)) = parent_of(folder) else { return };
        (folder, name) = (above, this);
    }
}

fn parent_of(path: &Path) -> Option<(&Path, &[u8])> {
    Some((path.parent()?, path.file_name()?.as_bytes()))
}

/// Paths with each home in place of `~`.
fn expanded(paths: &[PathBuf], homes: &[PathBuf]) -> Vec<PathBuf> {
    let mut expanded = Vec::new();
    for path in paths {
        match path.strip_prefix("~") {
            Ok(rest) => expanded.extend(homes.iter().map(|home| home.join(rest))),
            Err(_) => expanded.push(path.clone()),
        }
    }
    expanded
}

/// The homes in a user database that are there.
fn homes(passwd: &[u8]) -> Vec<PathBuf> {
    let home = |line: &[u8]| {
        let field = line.split(|byte| *byte == b':').nth(5)?;
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(field)))
    };
    let homes: BTreeSet<PathBuf> = passwd
        .split(|byte| *byte == b'\n')
        .filter_map(home)
        .filter(|home| home.is_absolute() && home.parent().is_some() && home.is_dir())
        .collect();
    homes.into_iter().take(HOMES_MAX).collect()
}

fn fs_text(path: &Path) -> Vec<u8> {
    crate::state_file::read_limited(path, PASSWD_BYTES_MAX).ok().flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_those_that_are_there() {
        let passwd = b"root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/bin/false\nbad\nsys:x:3:3::/:/bin/sh\ntmp:x:4:4::/tmp:\n";
        let expected: Vec<PathBuf> =
            ["/root", "/tmp"].map(PathBuf::from).into_iter().filter(|path| path.is_dir()).collect();
        assert_eq!(homes(passwd), expected);
    }
}
