//! A local folder as an object store whose writes are durable when they return.
//!
//! `object_store`'s own local store leaves the moment of writing to the kernel. The write-ahead log is shortened when a
//! table has its events, so a table's files must not be lost in a power failure after that, and a table's log must
//! never show half an entry. Here a file is written under a temporary name, synced, given its name, and its folder
//! synced; then the write returns.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use futures::stream::BoxStream;

/// Characters of a temporary name between the file's own name and a number: local stores do not list such names.
const TEMPORARY_MARK: char = '#';

/// See the module.
#[derive(Debug)]
pub(super) struct DurableStore {
    local: LocalFileSystem,
    temporary: AtomicU64,
    #[cfg(test)]
    probe: super::tests::probe::Probe,
}

impl DurableStore {
    /// The whole file system: paths are absolute.
    pub(super) fn new(#[cfg(test)] probe: super::tests::probe::Probe) -> Self {
        Self {
            local: LocalFileSystem::new(),
            temporary: AtomicU64::new(0),
            #[cfg(test)]
            probe,
        }
    }

    fn probe(&self, _step: &'static str) {
        #[cfg(test)]
        self.probe.reached(_step);
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) {
            return self.local.put_opts(location, payload, opts).await;
        }
        let target = self.local.path_to_filesystem(location)?;
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        self.probe("before a file is written");
        let staged = blocking(move || stage(&target, number, &payload).map(|temporary| (temporary, target))).await?;
        self.probe("before a file gets its name");
        let path = location.to_string();
        blocking(move || {
            let (temporary, target) = staged;
            let named = match opts.mode {
                PutMode::Create => fs::hard_link(&temporary, &target).and_then(|()| fs::remove_file(&temporary)),
                _ => fs::rename(&temporary, &target),
            };
            if let Err(error) = named {
                drop(fs::remove_file(&temporary));
                return Err(error);
            }
            sync_parent(&target)
        })
        .await
        .map_err(|error| match error {
            Error::Generic { source, .. } if is_kind(source.as_ref(), ErrorKind::AlreadyExists) => {
                Error::AlreadyExists { path, source }
            }
            other => other,
        })?;
        self.probe("after a file got its name");
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let target = self.local.path_to_filesystem(location)?;
        let parent = target.clone();
        blocking(move || create_parent(&parent)).await?;
        let upload = self.local.put_multipart_opts(location, opts).await?;
        Ok(Box::new(DurableUpload { upload, target }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.local.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.local.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.local.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.local.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.local.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.local.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.local.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.local.rename_opts(from, to, options).await
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("durable local files")
    }
}

/// A large file, written in parts. Nothing refers to it before it is complete.
#[derive(Debug)]
struct DurableUpload {
    upload: Box<dyn MultipartUpload>,
    target: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.complete().await?;
        let target = self.target.clone();
        blocking(move || File::open(&target)?.sync_all().and_then(|()| sync_parent(&target))).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

/// Removes the temporary files that a crash left under `folder`.
pub(super) fn remove_temporary_files(folder: &FilePath) -> io::Result<()> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if is_temporary(&path) {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

fn is_temporary(path: &FilePath) -> bool {
    let suffix = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once(TEMPORARY_MARK));
    suffix.is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Writes and syncs the payload under a temporary name.
fn stage(target: &FilePath, number: u64, payload: &PutPayload) -> io::Result<PathBuf> {
    create_parent(target)?;
    let mut name = target.as_os_str().to_owned();
    name.push(format!("{TEMPORARY_MARK}{number}"));
    let temporary = PathBuf::from(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
        payload.iter().try_for_each(|chunk| file.write_all(chunk))?;
        file.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    Ok(temporary)
}

fn create_parent(path: &FilePath) -> io::Result<()> {
    path.parent().map_or(Ok(()), create_folder)
}

/// Creates a folder and those above it, durably, where there are none.
pub(super) fn create_folder(path: &FilePath) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.exists() {
        return Ok(());
    }
    create_parent(path)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => sync_parent(path),
    }
}

fn sync_parent(path: &FilePath) -> io::Result<()> {
    let parent = path.parent().map(|parent| if parent.as_os_str().is_empty() { FilePath::new(".") } else { parent });
    parent.map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?.map_err(|error| Error::Generic { store: "local", source: Box::new(error) })
}

fn is_kind(error: &(dyn std::error::Error + Send + Sync + 'static), kind: ErrorKind) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == kind)
}
