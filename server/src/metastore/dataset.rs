//! Data sets.

use std::future::Future;

use picket_common::id::Digest;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::clock::UnixSeconds;
use crate::dataset::manifest::Manifest;
use crate::metastore::{Metastore, MetastoreError, digest_column};

/// Most data sets one listing returns.
const LISTED_MAX: i64 = 10_000;

/// A data set as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetRecord {
    /// Its name.
    pub dataset_id: String,
    /// When it was first built here.
    pub created: UnixSeconds,
    /// Whose token built it.
    pub author: String,
    /// SHA-256 of the manifest's bytes: the data set's digest.
    pub digest: Digest,
    /// The manifest's bytes.
    pub manifest_json: String,
    /// The same, read.
    pub manifest: Manifest,
}

/// Data sets.
pub trait DatasetStore: Send + Sync {
    /// Keeps a data set, unless it is kept already.
    fn add_dataset(&self, dataset: &DatasetRecord) -> impl Future<Output = Result<(), MetastoreError>> + Send;
    /// One data set.
    fn dataset(&self, dataset_id: &str) -> impl Future<Output = Result<Option<DatasetRecord>, MetastoreError>> + Send;
    /// All data sets, the newest first, at most 10,000.
    fn datasets(&self) -> impl Future<Output = Result<Vec<DatasetRecord>, MetastoreError>> + Send;
}

impl DatasetStore for Metastore {
    async fn add_dataset(&self, dataset: &DatasetRecord) -> Result<(), MetastoreError> {
        let error = MetastoreError::during("keep a data set");
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO datasets (dataset_id, subject, created_unix_s, author, manifest_sha256, manifest) \
             VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (manifest_sha256) DO NOTHING",
        )
        .bind(&dataset.dataset_id)
        .bind(&dataset.manifest.subject)
        .bind(dataset.created.0)
        .bind(&dataset.author)
        .bind(dataset.digest.as_bytes().as_slice())
        .bind(&dataset.manifest_json)
        .execute(&mut *transaction)
        .await
        .map_err(&error)?;
        transaction.commit().await.map_err(&error)
    }

    async fn dataset(&self, dataset_id: &str) -> Result<Option<DatasetRecord>, MetastoreError> {
        let row = sqlx::query("SELECT * FROM datasets WHERE dataset_id = ?")
            .bind(dataset_id)
            .fetch_optional(self.read())
            .await
            .map_err(MetastoreError::during("read a data set"))?;
        row.as_ref().map(record).transpose()
    }

    async fn datasets(&self) -> Result<Vec<DatasetRecord>, MetastoreError> {
        let rows = sqlx::query("SELECT * FROM datasets ORDER BY created_unix_s DESC, dataset_id LIMIT ?")
            .bind(LISTED_MAX)
            .fetch_all(self.read())
            .await
            .map_err(MetastoreError::during("list data sets"))?;
        rows.iter().map(record).collect()
    }
}

fn record(row: &SqliteRow) -> Result<DatasetRecord, MetastoreError> {
    let error = MetastoreError::during("read a data set");
    let manifest_json: String = row.try_get("manifest").map_err(&error)?;
    let kept = digest_column("a manifest's digest", row.try_get("manifest_sha256").map_err(&error)?)?;
    let digest = Digest::of(manifest_json.as_bytes());
    if *digest.as_bytes() != kept {
        return Err(MetastoreError::damaged("a manifest")("it does not have its digest"));
    }
    Ok(DatasetRecord {
        dataset_id: row.try_get("dataset_id").map_err(&error)?,
        created: UnixSeconds(row.try_get("created_unix_s").map_err(&error)?),
        author: row.try_get("author").map_err(&error)?,
        digest,
        manifest: Manifest::from_bytes(manifest_json.as_bytes()).map_err(MetastoreError::damaged("a manifest"))?,
        manifest_json,
    })
}
