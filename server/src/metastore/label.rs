//! Labels.

use std::future::Future;

use picket_common::event::Timestamp;
use picket_common::id::{Epoch, EventId, EventKey, Sequence};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::label::{Label, LabelPage, LabelParts, LabelRecord};
use crate::metastore::{Metastore, MetastoreError, host_column};

/// Labels. They are only added.
pub trait LabelStore: Send + Sync {
    /// Adds labels in their order, all or none.
    fn add_labels(
        &self,
        labels: &[Label],
        author: &str,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), MetastoreError>> + Send;
    /// At most `limit` labels with an id above `after`, in their order.
    fn labels_after(&self, after: u64, limit: u32) -> impl Future<Output = Result<LabelPage, MetastoreError>> + Send;
    /// The number of the newest label; 0 when there is none.
    fn label_snapshot(&self) -> impl Future<Output = Result<u64, MetastoreError>> + Send;
    /// The label in force of each event as of a snapshot, in order of host, epoch and sequence; at most `limit`.
    fn labels_in_force(
        &self,
        snapshot: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<LabelRecord>, MetastoreError>> + Send;
}

impl LabelStore for Metastore {
    async fn add_labels(&self, labels: &[Label], author: &str, now: Timestamp) -> Result<(), MetastoreError> {
        let error = MetastoreError::during("add labels");
        let mut transaction = self.write().await?;
        for label in labels {
            let event = label.event();
            sqlx::query(
                "INSERT INTO labels (host_id, epoch, sequence, verdict, technique, label_group, author, source, \
                 created_unix_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(event.host.as_bytes().as_slice())
            .bind(to_column(event.key.epoch.0)?)
            .bind(to_column(event.key.sequence.0)?)
            .bind(label.verdict().name())
            .bind(label.technique())
            .bind(label.group().unwrap_or_default())
            .bind(author)
            .bind(label.source())
            .bind(now.0)
            .execute(&mut *transaction)
            .await
            .map_err(&error)?;
        }
        transaction.commit().await.map_err(&error)
    }

    async fn labels_after(&self, after: u64, limit: u32) -> Result<LabelPage, MetastoreError> {
        let error = MetastoreError::during("list labels");
        let total: i64 =
            sqlx::query_scalar("SELECT count(*) FROM labels").fetch_one(self.read()).await.map_err(&error)?;
        let rows = sqlx::query("SELECT * FROM labels WHERE label_id > ? ORDER BY label_id LIMIT ?")
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(i64::from(limit) + 1)
            .fetch_all(self.read())
            .await
            .map_err(&error)?;
        let mut labels = rows.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        let more = labels.len() > limit as usize;
        labels.truncate(limit as usize);
        Ok(LabelPage { labels, more, total: total.unsigned_abs() })
    }

    async fn label_snapshot(&self) -> Result<u64, MetastoreError> {
        let newest: i64 = sqlx::query_scalar("SELECT coalesce(max(label_id), 0) FROM labels")
            .fetch_one(self.read())
            .await
            .map_err(MetastoreError::during("read the label snapshot"))?;
        Ok(newest.unsigned_abs())
    }

    async fn labels_in_force(&self, snapshot: u64, limit: u32) -> Result<Vec<LabelRecord>, MetastoreError> {
        let rows = sqlx::query(
            "SELECT * FROM labels WHERE label_id IN \
             (SELECT max(label_id) FROM labels WHERE label_id <= ? GROUP BY host_id, epoch, sequence) \
             ORDER BY host_id, epoch, sequence LIMIT ?",
        )
        .bind(i64::try_from(snapshot).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await
        .map_err(MetastoreError::during("read the labels in force"))?;
        rows.iter().map(record).collect()
    }
}

/// Epochs (nanoseconds since 1970) and sequences stay far below 2^63; the lake refuses events that do not.
fn to_column(number: u64) -> Result<i64, MetastoreError> {
    i64::try_from(number).map_err(MetastoreError::damaged("an event id"))
}

fn record(row: &SqliteRow) -> Result<LabelRecord, MetastoreError> {
    let error = MetastoreError::during("read a label");
    let number = |column| row.try_get::<i64, _>(column).map_err(&error).map(i64::unsigned_abs);
    let text = |column| row.try_get::<String, _>(column).map_err(&error);
    let event = EventId {
        host: host_column(row.try_get("host_id").map_err(&error)?)?,
        key: EventKey { epoch: Epoch(number("epoch")?), sequence: Sequence(number("sequence")?) },
    };
    let label = Label::new(LabelParts {
        event,
        verdict: text("verdict")?.parse()?,
        technique: &text("technique")?,
        group: &text("label_group")?,
        source: &text("source")?,
    })?;
    Ok(LabelRecord {
        label_id: number("label_id")?,
        label,
        author: text("author")?,
        created: Timestamp(row.try_get("created_unix_ns").map_err(&error)?),
    })
}
