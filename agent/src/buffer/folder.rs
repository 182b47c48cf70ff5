//! The buffer's folder: opening it under guard, and setting it aside when the store inside is damaged.
//!
//! Opening runs on its own thread, so that a panic inside the store ends there and a recovery that never ends can be
//! given up. A damaged length could also make sled abort the whole process: the file `opening` counts attempts that
//! never came back, and after [`ATTEMPTS_MAX`] the store is set aside without another try.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::buffer::BufferError;
use crate::buffer::store::{Changes, KeyValue, Store, StoreKind, panic_message};
use crate::state_file;

/// How many damaged stores are kept for people to look at.
pub const SET_ASIDE_MAX: usize = 2;
/// How often opening may take the process down before the store counts as damaged.
const ATTEMPTS_MAX: usize = 5;
/// How long a store may take to recover.
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

/// Pairs taken over from another kind of store in one step: at most some 200 KiB.
const PAIRS_PER_STEP: usize = 64;

/// Opens the store in `folder`; sets a damaged one aside and starts afresh.
pub(crate) fn open_or_set_aside(folder: &Path, kind: StoreKind) -> Result<(Store, Option<Damage>), BufferError> {
    make_folder(folder)?;
    finish_replacement(folder)?;
    let detail = match take_over(folder, kind).and_then(|()| open_guarded(folder, kind)) {
        Ok(store) => return Ok((store, None)),
        Err(BufferError::Damaged { detail }) => detail,
        Err(other) => return Err(other),
    };
    let damage = set_aside(folder, &detail)?;
    make_folder(folder)?;
    Ok((open_guarded(folder, kind)?, Some(damage)))
}

/// Takes over what a store of another kind holds. Killed at any moment, the next opening begins again or finds it done.
fn take_over(folder: &Path, kind: StoreKind) -> Result<(), BufferError> {
    let io = |source| BufferError::Io { operation: "take over", path: folder.to_owned(), source };
    let current = folder.join(kind.folder());
    for other in StoreKind::ALL.into_iter().filter(|other| *other != kind) {
        let old = folder.join(other.folder());
        if !old.exists() {
            continue;
        }
        if !current.exists() {
            let begun = Instant::now();
            let new = with_suffix(&current, NEW);
            remove_if_there(&new).map_err(io)?;
            copy(&open_guarded(folder, other)?, &mut open_with_retries(kind, &new)?)?;
            fs::rename(&new, &current).map_err(io)?;
            state_file::sync_folder_of(&current).map_err(io)?;
            tracing::info!(from = other.folder(), to = kind.folder(), took = ?begun.elapsed(), "the buffer moved");
        }
        // Both are there only where this was cut short: the new one is whole.
        remove_if_there(&old).map_err(io)?;
    }
    Ok(())
}

/// Copies every pair, durably.
fn copy(from: &Store, to: &mut Store) -> Result<(), BufferError> {
    let mut low = Vec::new();
    loop {
        let pairs = from.page(&low, PAIRS_PER_STEP)?;
        let Some((last, _)) = pairs.last() else { return to.flush() };
        // The next key there can be.
        low = [last.as_slice(), &[0]].concat();
        let mut changes = Changes::default();
        for (key, value) in pairs {
            changes.insert(key, value);
        }
        to.apply(changes)?;
    }
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
pub(crate) fn replace_store(
    folder: &Path,
    kind: StoreKind,
    store: &mut Store,
    pairs: Vec<KeyValue>,
) -> Result<(), BufferError> {
    let current = folder.join(kind.folder());
    let (new, old) = (with_suffix(&current, NEW), with_suffix(&current, OLD));
    let io = |source| BufferError::Io { operation: "replace", path: folder.to_owned(), source };
    remove_if_there(&new).map_err(io)?;
    let mut fresh = open_with_retries(kind, &new)?;
    let mut changes = Changes::default();
    for (key, value) in pairs {
        changes.insert(key, value);
    }
    fresh.apply_durably(changes)?;
    fresh.close();
    store.close();
    fs::rename(&current, &old).and_then(|()| fs::rename(&new, &current)).map_err(io)?;
    state_file::sync_folder_of(&current).map_err(io)?;
    *store = open_with_retries(kind, &current)?;
    remove_if_there(&old).map_err(io)
}

/// What [`replace_store`] or [`take_over`] left when it did not come to its end.
fn finish_replacement(folder: &Path) -> Result<(), BufferError> {
    let finish = |kind: StoreKind| {
        let current = folder.join(kind.folder());
        let (new, old) = (with_suffix(&current, NEW), with_suffix(&current, OLD));
        if old.exists() && !current.exists() {
            fs::rename(&old, &current)?;
        }
        remove_if_there(&new)?;
        remove_if_there(&old)
    };
    StoreKind::ALL.into_iter().try_for_each(finish).map_err(|source| BufferError::Io {
        operation: "tidy up",
        path: folder.to_owned(),
        source,
    })
}

/// Ends of the names of folders that are on their way in or out.
const NEW: &str = ".new";
const OLD: &str = ".old";

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn open_guarded(folder: &Path, kind: StoreKind) -> Result<Store, BufferError> {
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
    let result = open_with_retries(kind, &folder.join(kind.folder()));
    match fs::remove_file(&marker) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(io)?,
    }
    result
}

fn open_with_retries(kind: StoreKind, path: &Path) -> Result<Store, BufferError> {
    let mut tries = 0;
    loop {
        match open_on_own_thread(kind, path) {
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

fn open_on_own_thread(kind: StoreKind, path: &Path) -> Result<Store, BufferError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let owned = path.to_owned();
    let thread = thread::Builder::new()
        .name("buffer-open".to_owned())
        .spawn(move || {
            // The receiver is gone only after a time-out; then nobody wants the answer.
            drop(sender.send(Store::open(kind, &owned)));
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
