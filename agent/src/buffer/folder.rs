//! The buffer's folder: opening it under guard, and setting it aside when the store inside is damaged.
//!
//! Opening runs on its own thread, so that a panic inside sled ends there and a recovery that never ends can be
//! given up. A damaged length could also make sled abort the whole process: the file `opening` counts attempts that
//! never came back, and after [`ATTEMPTS_MAX`] the store is set aside without another try.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::buffer::BufferError;
use crate::buffer::store::{KeyValue, Store, panic_message};
use crate::state_file;

/// How many damaged stores are kept for people to look at.
pub const SET_ASIDE_MAX: usize = 2;
/// How often opening may take the process down before the store counts as damaged.
const ATTEMPTS_MAX: usize = 5;
/// How long sled may take to recover.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the lock of a store that was just closed may linger.
const LOCK_RETRIES: u32 = 20;
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A store that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it lies now.
    pub set_aside: PathBuf,
    /// What was wrong with it.
    pub detail: String,
}

/// Opens the store in `folder`; sets a damaged one aside and starts afresh.
pub(crate) fn open_or_set_aside(folder: &Path) -> Result<(Store, Option<Damage>), BufferError> {
    make_folder(folder)?;
    finish_replacement(folder)?;
    let detail = match open_guarded(folder) {
        Ok(store) => return Ok((store, None)),
        Err(BufferError::Damaged { detail }) => detail,
        Err(other) => return Err(other),
    };
    let damage = set_aside(folder, &detail)?;
    make_folder(folder)?;
    Ok((open_guarded(folder)?, Some(damage)))
}

/// Renames the folder to the next free `<folder>.damaged-<n>` and removes the oldest beyond [`SET_ASIDE_MAX`].
pub(crate) fn set_aside(folder: &Path, detail: &str) -> Result<Damage, BufferError> {
    let io = |source| BufferError::Io { operation: "set aside", path: folder.to_owned(), source };
    let mut earlier = set_aside_folders(folder).map_err(io)?;
    earlier.sort_unstable();
    let next = earlier.last().map_or(0, |(number, _)| number + 1);
    let target = numbered(folder, next);
    fs::rename(folder, &target).map_err(io)?;
    let excess = (earlier.len() + 1).saturating_sub(SET_ASIDE_MAX);
    for (_, path) in earlier.iter().take(excess) {
        if let Err(error) = fs::remove_dir_all(path) {
            tracing::warn!(path = %path.display(), %error, "an old damaged buffer could not be removed");
        }
    }
    Ok(Damage { set_aside: target, detail: detail.to_owned() })
}

fn numbered(folder: &Path, number: u64) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".damaged-{number}"));
    folder.with_file_name(name)
}

fn set_aside_folders(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let prefix = format!("{}.damaged-", folder.file_name().unwrap_or_default().to_string_lossy());
    let mut found = Vec::new();
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&prefix)).and_then(|rest| rest.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    Ok(found)
}

fn make_folder(folder: &Path) -> Result<(), BufferError> {
    state_file::make_private_folder(folder).map_err(|source| BufferError::Io {
        operation: "make",
        path: folder.to_owned(),
        source,
    })
}

/// Replaces a store by a new one that holds only `pairs`. Killed at any moment, the next opening finds the old store
/// or the new one.
pub(crate) fn replace_store(folder: &Path, store: &mut Store, pairs: Vec<KeyValue>) -> Result<(), BufferError> {
    let (current, new, old) = (folder.join("sled"), folder.join("sled.new"), folder.join("sled.old"));
    let io = |source| BufferError::Io { operation: "replace", path: folder.to_owned(), source };
    remove_if_there(&new).map_err(io)?;
    let mut fresh = open_with_retries(&new)?;
    let mut batch = sled::Batch::default();
    for (key, value) in pairs {
        batch.insert(key, value);
    }
    fresh.apply(batch)?;
    fresh.flush()?;
    fresh.close();
    store.close();
    fs::rename(&current, &old).and_then(|()| fs::rename(&new, &current)).map_err(io)?;
    state_file::sync_folder_of(&current).map_err(io)?;
    *store = open_with_retries(&current)?;
    remove_if_there(&old).map_err(io)
}

/// What [`replace_store`] left when it did not come to its end.
fn finish_replacement(folder: &Path) -> Result<(), BufferError> {
    let (current, new, old) = (folder.join("sled"), folder.join("sled.new"), folder.join("sled.old"));
    let finish = || {
        if old.exists() && !current.exists() {
            fs::rename(&old, &current)?;
        }
        remove_if_there(&new)?;
        remove_if_there(&old)
    };
    finish().map_err(|source| BufferError::Io { operation: "tidy up", path: folder.to_owned(), source })
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn open_guarded(folder: &Path) -> Result<Store, BufferError> {
    let marker = folder.join("opening");
    let io = |source| BufferError::Io { operation: "open", path: marker.clone(), source };
    // The marker's length is the number of attempts that have not come back.
    let attempts = fs::read(&marker).map_or(0, |bytes| bytes.len());
    if attempts >= ATTEMPTS_MAX {
        return Err(BufferError::Damaged { detail: format!("opening it ended the agent {attempts} times") });
    }
    match fs::write(&marker, vec![b'.'; attempts + 1]) {
        // On a full disk the attempt goes uncounted: what there is must be readable, to be delivered and make room.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
        written => written.map_err(io)?,
    }
    let result = open_with_retries(&folder.join("sled"));
    match fs::remove_file(&marker) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(io)?,
    }
    result
}

fn open_with_retries(path: &Path) -> Result<Store, BufferError> {
    let mut tries = 0;
    loop {
        match open_on_own_thread(path) {
            Err(BufferError::Io { source, .. }) if is_locked(&source) && tries < LOCK_RETRIES => {
                tries += 1;
                thread::sleep(LOCK_RETRY_DELAY);
            }
            result => return result,
        }
    }
}

/// sled reports a held lock as an error without a kind of its own.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

fn open_on_own_thread(path: &Path) -> Result<Store, BufferError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let owned = path.to_owned();
    let thread = thread::Builder::new()
        .name("buffer-open".to_owned())
        .spawn(move || {
            // The receiver is gone only after a time-out; then nobody wants the answer.
            drop(sender.send(Store::open(&owned)));
        })
        .map_err(|source| BufferError::Io { operation: "open", path: path.to_owned(), source })?;
    match receiver.recv_timeout(OPEN_TIMEOUT) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(BufferError::Damaged { detail: format!("recovery did not end within {} s", OPEN_TIMEOUT.as_secs()) })
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let detail = match thread.join() {
                Err(panic) => panic_message(panic.as_ref()),
                Ok(()) => "recovery ended without a result".to_owned(),
            };
            Err(BufferError::Damaged { detail })
        }
    }
}
