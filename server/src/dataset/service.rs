//! Building, keeping and reading data sets.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt as _;
use picket_common::feature::{FeatureSpec, Subject};
use picket_common::id::Digest;
use tokio::sync::Semaphore;

use crate::clock::UnixSeconds;
use crate::dataset::files::{self, RowFileError};
use crate::dataset::manifest::{
    LabelCounts, MANIFEST_FORMAT, Manifest, ManifestError, ManifestSpec, ManifestSplit, Part, dataset_id,
};
use crate::dataset::replay::Replay;
use crate::dataset::split::{self, Split, SplitError};
use crate::dataset::{LABELS_MAX, Rows, TEST_FRACTION_MAX, TEST_FRACTION_MIN};
use crate::lake::{EventFilter, Lake, LakeError, TableVersions};
use crate::metastore::{DatasetRecord, DatasetStore as _, LabelStore as _, Metastore, MetastoreError};
use picket_learn::train::Observer;

/// Folder of the data sets, in the state folder.
const DATASETS_FOLDER: &str = "datasets";
/// What the name of a folder begins with while it is being written.
const UNFINISHED_PREFIX: &str = ".unfinished-";
const MANIFEST_FILE: &str = "manifest.json";
/// Builds at a time; further ones wait. Each holds its rows in memory.
const BUILDS_MAX: usize = 2;
/// Events between two reports of progress.
const EVENTS_PER_REPORT: u64 = 2048;

/// What to build.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewDataset {
    subject: Subject,
    test_fraction: f64,
}

/// Why a data set was not built or read.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The share of the test part is out of its limits.
    #[error("test_fraction is {0}, allowed is {TEST_FRACTION_MIN} to {TEST_FRACTION_MAX}")]
    TestFraction(f64),
    /// Nobody has labelled anything.
    #[error("there are no labels yet: add some first")]
    NoLabels,
    /// More labels than one data set can take.
    #[error("there are more than {LABELS_MAX} labels")]
    TooManyLabels,
    /// The rows cannot be divided.
    #[error("cannot split the {subject} rows: {source} ({counts})")]
    Split {
        /// What the rows are.
        subject: Subject,
        /// Why not.
        source: SplitError,
        /// What became of the labels.
        counts: LabelCounts,
    },
    /// There is no such data set.
    #[error("there is no data set {0:?}")]
    NotFound(String),
    /// A file of rows could not be written or read.
    #[error(transparent)]
    Rows(#[from] RowFileError),
    /// A folder or the manifest could not be written or read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The manifest is unusable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The metastore failed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// Whoever asked has gone.
    #[error("cancelled")]
    Cancelled,
}

impl std::fmt::Display for LabelCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "of {} labels in force {} became rows, {} are of other events, {} of events the lake has not",
            self.in_force, self.rows, self.not_a_subject, self.event_missing
        )
    }
}

impl NewDataset {
    /// A data set of this subject, of which evaluation alone sees this share.
    ///
    /// # Errors
    /// [`DatasetError::TestFraction`].
    pub fn new(subject: Subject, test_fraction: f64) -> Result<Self, DatasetError> {
        if (TEST_FRACTION_MIN..=TEST_FRACTION_MAX).contains(&test_fraction) {
            Ok(Self { subject, test_fraction })
        } else {
            Err(DatasetError::TestFraction(test_fraction))
        }
    }
}

/// The data sets. Clones share what they stand on.
#[derive(Clone)]
pub struct Datasets {
    metastore: Metastore,
    lake: Arc<Lake>,
    folder: PathBuf,
    builds: Arc<Semaphore>,
}

impl std::fmt::Debug for Datasets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datasets").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Datasets {
    /// Over the data sets in the server's state folder. Removes what an interrupted build left.
    ///
    /// # Errors
    /// [`DatasetError::Io`].
    pub fn open(state: &Path, metastore: Metastore, lake: Arc<Lake>) -> Result<Self, DatasetError> {
        let folder = state.join(DATASETS_FOLDER);
        let failed = |source| DatasetError::Io { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(failed)?;
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(Self { metastore, lake, folder, builds: Arc::new(Semaphore::new(BUILDS_MAX)) })
    }

    /// Builds a data set of the labels in force and the events stored now, or returns the one that is there already.
    /// Takes processor time between its waits: run it where that holds nobody up.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn build(
        &self,
        request: NewDataset,
        author: &str,
        observer: &dyn Observer,
    ) -> Result<DatasetRecord, DatasetError> {
        observer.progress("wait for other builds", 0, 0);
        let _turn = self.builds.acquire().await.map_err(|_| DatasetError::Cancelled)?;
        check(observer)?;
        // Labels first: the events of all labels in the snapshot are then in the versions pinned after it.
        let label_snapshot = self.metastore.label_snapshot().await?;
        let versions = self.lake.table_versions();
        let labels = self.metastore.labels_in_force(label_snapshot, LABELS_MAX + 1).await?;
        match labels.len() {
            0 => return Err(DatasetError::NoLabels),
            count if count > LABELS_MAX as usize => return Err(DatasetError::TooManyLabels),
            _ => {}
        }
        let mut replay = Replay::new(request.subject, labels);
        self.replay(&mut replay, &versions, observer).await?;
        let (rows, counts) = replay.finish();

        observer.progress("split", 0, 1);
        let split = split::split(&rows, request.test_fraction).map_err(|source| DatasetError::Split {
            subject: request.subject,
            source,
            counts,
        })?;
        check(observer)?;
        observer.progress("write", 0, 1);
        let draft = Draft { request, label_snapshot, versions: &versions, counts, rows: &rows, split: &split };
        let record = self.materialise(&draft, author)?;
        self.metastore.add_dataset(&record).await?;
        observer.progress("write", 1, 1);
        self.get(&record.dataset_id).await
    }

    /// Reads the events of every (host, epoch) with a label, up to its last label.
    async fn replay(
        &self,
        replay: &mut Replay,
        versions: &TableVersions,
        observer: &dyn Observer,
    ) -> Result<(), DatasetError> {
        let labels = replay.waiting() as u64;
        let mut events = 0;
        for ((host, epoch), last) in replay.needed() {
            let filter = EventFilter { hosts: vec![host], epoch: Some(epoch), ..EventFilter::default() };
            let mut stream = self.lake.read_events(versions, filter);
            while let Some(event) = stream.next().await {
                let (host, event) = event?;
                if events % EVENTS_PER_REPORT == 0 {
                    check(observer)?;
                    observer.progress("read events", labels - replay.waiting() as u64, labels);
                }
                events += 1;
                let sequence = event.key.sequence.0;
                replay.observe(host, &event);
                if sequence >= last {
                    break;
                }
            }
        }
        observer.progress("read events", labels, labels);
        Ok(())
    }

    /// Writes files and manifest under a temporary name, then gives the folder its name.
    fn materialise(&self, draft: &Draft<'_>, author: &str) -> Result<DatasetRecord, DatasetError> {
        static BUILDS: AtomicU64 = AtomicU64::new(0);
        let unfinished = Unfinished(self.folder.join(format!(
            "{UNFINISHED_PREFIX}{}-{}",
            std::process::id(),
            BUILDS.fetch_add(1, Ordering::Relaxed)
        )));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DatasetError::Io { path, source }
        };
        fs::create_dir(&unfinished.0).map_err(failed(&unfinished.0))?;
        let manifest = draft.write(&unfinished.0)?;
        let bytes = manifest.to_bytes()?;
        let digest = Digest::of(&bytes);
        let path = unfinished.0.join(MANIFEST_FILE);
        fs::write(&path, &bytes).and_then(|()| File::open(&path)?.sync_all()).map_err(failed(&path))?;
        sync(&unfinished.0).map_err(failed(&unfinished.0))?;

        let dataset_id = dataset_id(draft.request.subject, digest);
        let folder = self.folder.join(&dataset_id);
        // Files of an earlier build stay as they are, if they are whole; else these take their place.
        if !folder.exists() || self.read_part(&folder, &manifest, Part::ALL).is_err() {
            if folder.exists() {
                fs::remove_dir_all(&folder).map_err(failed(&folder))?;
            }
            fs::rename(&unfinished.0, &folder).map_err(failed(&folder))?;
            sync(&self.folder).map_err(failed(&self.folder))?;
        }
        Ok(DatasetRecord {
            dataset_id,
            created: UnixSeconds::now(),
            author: author.to_owned(),
            digest,
            manifest_json: String::from_utf8_lossy(&bytes).into_owned(),
            manifest,
        })
    }

    fn read_part<const N: usize>(
        &self,
        folder: &Path,
        manifest: &Manifest,
        parts: [Part; N],
    ) -> Result<[Rows; N], DatasetError> {
        let mut rows = Vec::with_capacity(N);
        for part in parts {
            rows.push(files::read(folder, manifest.file(part)?, &manifest.feature_spec.features)?);
        }
        rows.try_into().map_err(|_| DatasetError::Manifest(ManifestError::NoFile("")))
    }

    /// One data set.
    ///
    /// # Errors
    /// [`DatasetError::NotFound`], [`DatasetError::Metastore`].
    pub async fn get(&self, dataset_id: &str) -> Result<DatasetRecord, DatasetError> {
        self.metastore.dataset(dataset_id).await?.ok_or_else(|| DatasetError::NotFound(dataset_id.to_owned()))
    }

    /// All data sets, the newest first.
    ///
    /// # Errors
    /// [`DatasetError::Metastore`].
    pub async fn list(&self) -> Result<Vec<DatasetRecord>, DatasetError> {
        Ok(self.metastore.datasets().await?)
    }

    /// The rows of both parts, training part first, checked against the manifest. Reads files: run it where that holds
    /// nobody up.
    ///
    /// # Errors
    /// [`DatasetError::Rows`] when a file is missing or damaged.
    pub fn read_rows(&self, dataset: &DatasetRecord) -> Result<[Rows; 2], DatasetError> {
        self.read_part(&self.folder.join(&dataset.dataset_id), &dataset.manifest, Part::ALL)
    }
}

/// Everything a manifest tells.
struct Draft<'a> {
    request: NewDataset,
    label_snapshot: u64,
    versions: &'a TableVersions,
    counts: LabelCounts,
    rows: &'a Rows,
    split: &'a Split,
}

impl Draft<'_> {
    fn write(&self, folder: &Path) -> Result<Manifest, DatasetError> {
        let feature_spec = ManifestSpec::of(FeatureSpec::v1(self.request.subject));
        let mut files = Vec::new();
        for (part, rows) in [(Part::Train, &self.split.train), (Part::Test, &self.split.test)] {
            files.push(files::write(folder, part, &feature_spec.features, &self.rows.select(rows))?);
        }
        Ok(Manifest {
            format: MANIFEST_FORMAT,
            subject: self.request.subject.name().to_owned(),
            feature_spec,
            lake_versions: self.versions.0.iter().map(|(class, version)| (class.name().to_owned(), *version)).collect(),
            label_snapshot: self.label_snapshot,
            labels: self.counts,
            split: ManifestSplit {
                rule: self.split.rule,
                test_fraction: self.request.test_fraction,
                boundary_unix_ns: self.split.boundary.0,
                duplicates_removed: self.split.duplicates_removed as u64,
                contradictions: self.split.contradictions as u64,
            },
            files,
        })
    }
}

/// A folder that goes away unless it was given its final name.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.0.exists()
            && let Err(error) = fs::remove_dir_all(&self.0)
        {
            tracing::warn!(path = %self.0.display(), %error, "could not remove an unfinished data set");
        }
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn check(observer: &dyn Observer) -> Result<(), DatasetError> {
    if observer.cancelled() { Err(DatasetError::Cancelled) } else { Ok(()) }
}
