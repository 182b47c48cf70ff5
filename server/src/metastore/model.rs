//! Models, their stages and which of them agents should use.

use std::future::Future;

use picket_common::feature::Subject;
use picket_common::id::Digest;
use picket_common::model::Algorithm;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};

use crate::clock::UnixSeconds;
use crate::fleet::{DesiredModel, DesiredState};
use crate::metastore::{Metastore, MetastoreError, digest_column};
use crate::registry::{Judgement, ModelRecord, NewModel, RunRecord, Stage, StageChange};
use picket_learn::evaluate::Report;

/// Most models one listing returns.
const LISTED_MAX: i64 = 10_000;

/// A model with its present stage.
const SELECT: &str = "SELECT models.*, (SELECT stage FROM model_stages WHERE model_stages.model_sha256 = \
                      models.model_sha256 ORDER BY change_id DESC LIMIT 1) AS stage FROM models";

/// Models. What was recorded of a model never changes; stages and desired models are histories.
pub trait ModelStore: Send + Sync {
    /// Records a model as the next version of its subject, stage candidate. A model that is there already stays as it
    /// is.
    fn add_model(
        &self,
        model: &NewModel,
        author: &str,
        now: UnixSeconds,
    ) -> impl Future<Output = Result<ModelRecord, MetastoreError>> + Send;
    /// One model.
    fn model(&self, digest: Digest) -> impl Future<Output = Result<Option<ModelRecord>, MetastoreError>> + Send;
    /// All models or those of a subject, the newest first, at most 10,000.
    fn models(&self, subject: Option<Subject>)
    -> impl Future<Output = Result<Vec<ModelRecord>, MetastoreError>> + Send;
    /// Makes a model the one that agents should use for its subject: the one before it is retired, and a new
    /// generation begins, all in one step. What the gate said of it is kept. `None` when there is no such model.
    fn desire_model(
        &self,
        digest: Digest,
        author: &str,
        judgement: &Judgement,
        now: UnixSeconds,
    ) -> impl Future<Output = Result<Option<DesiredState>, MetastoreError>> + Send;
    /// What agents should be.
    fn desired_state(&self) -> impl Future<Output = Result<DesiredState, MetastoreError>> + Send;
    /// Every stage a model has been in, in order.
    fn stage_history(&self, digest: Digest) -> impl Future<Output = Result<Vec<StageChange>, MetastoreError>> + Send;
}

impl ModelStore for Metastore {
    async fn add_model(&self, model: &NewModel, author: &str, now: UnixSeconds) -> Result<ModelRecord, MetastoreError> {
        let error = MetastoreError::during("record a model");
        let mut transaction = self.write().await?;
        if let Some(known) = fetch(&mut transaction, model.digest).await? {
            return Ok(known);
        }
        let run = serde_json::to_string(&model.run).map_err(MetastoreError::damaged("a run record"))?;
        let evaluation = serde_json::to_string(&model.evaluation).map_err(MetastoreError::damaged("an evaluation"))?;
        sqlx::query(
            "INSERT INTO models (model_sha256, subject, version, algorithm, dataset_id, model_bytes, threshold, \
             created_unix_s, training_seconds, run, evaluation) VALUES (?1, ?2, \
             (SELECT coalesce(max(version), 0) + 1 FROM models WHERE subject = ?2), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .bind(model.digest.as_bytes().as_slice())
        .bind(model.subject.name())
        .bind(model.algorithm.name())
        .bind(&model.dataset_id)
        .bind(i64::try_from(model.model_bytes).map_err(MetastoreError::damaged("a model's length"))?)
        .bind(model.threshold)
        .bind(now.0)
        .bind(model.training_seconds)
        .bind(run)
        .bind(evaluation)
        .execute(&mut *transaction)
        .await
        .map_err(&error)?;
        change_stage(&mut transaction, (model.digest, Stage::Candidate), None, author, now).await?;
        let record = fetch(&mut transaction, model.digest).await?;
        transaction.commit().await.map_err(&error)?;
        record.ok_or_else(|| MetastoreError::damaged("a model")("it is not there after it was recorded"))
    }

    async fn model(&self, digest: Digest) -> Result<Option<ModelRecord>, MetastoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} WHERE model_sha256 = ?")))
            .bind(digest.as_bytes().as_slice())
            .fetch_optional(self.read())
            .await
            .map_err(MetastoreError::during("read a model"))?;
        row.as_ref().map(record).transpose()
    }

    async fn models(&self, subject: Option<Subject>) -> Result<Vec<ModelRecord>, MetastoreError> {
        let sql = format!(
            "{SELECT} WHERE ?1 IS NULL OR subject = ?1 ORDER BY created_unix_s DESC, subject, version DESC LIMIT ?2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(subject.map(Subject::name))
            .bind(LISTED_MAX)
            .fetch_all(self.read())
            .await
            .map_err(MetastoreError::during("list models"))?;
        rows.iter().map(record).collect()
    }

    async fn desire_model(
        &self,
        digest: Digest,
        author: &str,
        judgement: &Judgement,
        now: UnixSeconds,
    ) -> Result<Option<DesiredState>, MetastoreError> {
        let error = MetastoreError::during("push a model");
        let mut transaction = self.write().await?;
        let Some(model) = fetch(&mut transaction, digest).await? else { return Ok(None) };
        let before = desired(&mut transaction).await?;
        for replaced in
            before.models.iter().filter(|other| other.subject == model.model.subject && other.digest != digest)
        {
            change_stage(&mut transaction, (replaced.digest, Stage::Retired), None, author, now).await?;
        }
        if model.stage != Stage::Production {
            change_stage(&mut transaction, (digest, Stage::Production), Some(judgement), author, now).await?;
        }
        sqlx::query("INSERT INTO desired_models (subject, model_sha256, set_unix_s, author) VALUES (?, ?, ?, ?)")
            .bind(model.model.subject.name())
            .bind(digest.as_bytes().as_slice())
            .bind(now.0)
            .bind(author)
            .execute(&mut *transaction)
            .await
            .map_err(&error)?;
        let after = desired(&mut transaction).await?;
        transaction.commit().await.map_err(&error)?;
        Ok(Some(after))
    }

    async fn desired_state(&self) -> Result<DesiredState, MetastoreError> {
        let mut connection = self.read().begin().await.map_err(MetastoreError::during("read the desired state"))?;
        desired(&mut connection).await
    }

    async fn stage_history(&self, digest: Digest) -> Result<Vec<StageChange>, MetastoreError> {
        let error = MetastoreError::during("read a model's stages");
        let rows = sqlx::query("SELECT * FROM model_stages WHERE model_sha256 = ? ORDER BY change_id")
            .bind(digest.as_bytes().as_slice())
            .fetch_all(self.read())
            .await
            .map_err(&error)?;
        rows.iter()
            .map(|row| {
                let judgement: Option<String> = row.try_get("judgement").map_err(&error)?;
                let judgement = judgement.as_deref().map(serde_json::from_str).transpose();
                Ok(StageChange {
                    stage: stage(row)?,
                    changed: UnixSeconds(row.try_get("changed_unix_s").map_err(&error)?),
                    author: row.try_get("author").map_err(&error)?,
                    judgement: judgement.map_err(MetastoreError::damaged("a judgement"))?,
                })
            })
            .collect()
    }
}

async fn fetch(
    transaction: &mut Transaction<'static, Sqlite>,
    digest: Digest,
) -> Result<Option<ModelRecord>, MetastoreError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} WHERE model_sha256 = ?")))
        .bind(digest.as_bytes().as_slice())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(MetastoreError::during("read a model"))?;
    row.as_ref().map(record).transpose()
}

async fn change_stage(
    transaction: &mut Transaction<'static, Sqlite>,
    (digest, stage): (Digest, Stage),
    judgement: Option<&Judgement>,
    author: &str,
    now: UnixSeconds,
) -> Result<(), MetastoreError> {
    let judgement = judgement.map(serde_json::to_string).transpose().map_err(MetastoreError::damaged("a judgement"))?;
    sqlx::query(
        "INSERT INTO model_stages (model_sha256, stage, changed_unix_s, author, judgement) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(digest.as_bytes().as_slice())
    .bind(stage.name())
    .bind(now.0)
    .bind(author)
    .bind(judgement)
    .execute(&mut **transaction)
    .await
    .map_err(MetastoreError::during("change a model's stage"))?;
    Ok(())
}

/// The last desired model of each subject; the generation is the newest of all.
async fn desired(transaction: &mut Transaction<'static, Sqlite>) -> Result<DesiredState, MetastoreError> {
    let error = MetastoreError::during("read the desired state");
    let rows = sqlx::query(
        "SELECT desired_models.generation, models.* FROM desired_models JOIN models USING (model_sha256) \
         WHERE generation IN (SELECT max(generation) FROM desired_models GROUP BY subject) ORDER BY models.subject",
    )
    .fetch_all(&mut **transaction)
    .await
    .map_err(&error)?;
    let mut state = DesiredState::default();
    for row in &rows {
        let number = |column| row.try_get::<i64, _>(column).map_err(&error).map(i64::unsigned_abs);
        state.generation = state.generation.max(number("generation")?);
        state.models.push(DesiredModel {
            subject: subject(row)?,
            digest: digest(row)?,
            bytes: number("model_bytes")?,
            version: number("version")?,
        });
    }
    Ok(state)
}

fn subject(row: &SqliteRow) -> Result<Subject, MetastoreError> {
    let text: String = row.try_get("subject").map_err(MetastoreError::during("read a model"))?;
    text.parse().map_err(MetastoreError::damaged("a model's subject"))
}

fn digest(row: &SqliteRow) -> Result<Digest, MetastoreError> {
    let bytes = row.try_get("model_sha256").map_err(MetastoreError::during("read a model"))?;
    Ok(Digest::from_bytes(digest_column("a model's digest", bytes)?))
}

fn stage(row: &SqliteRow) -> Result<Stage, MetastoreError> {
    let text: String = row.try_get("stage").map_err(MetastoreError::during("read a model's stage"))?;
    text.parse().map_err(MetastoreError::damaged("a model's stage"))
}

fn record(row: &SqliteRow) -> Result<ModelRecord, MetastoreError> {
    let error = MetastoreError::during("read a model");
    let text = |column| row.try_get::<String, _>(column).map_err(&error);
    let number = |column| row.try_get::<i64, _>(column).map_err(&error).map(i64::unsigned_abs);
    let algorithm: Algorithm = text("algorithm")?.parse().map_err(MetastoreError::damaged("a model's algorithm"))?;
    let run: RunRecord = serde_json::from_str(&text("run")?).map_err(MetastoreError::damaged("a run record"))?;
    let evaluation: Report =
        serde_json::from_str(&text("evaluation")?).map_err(MetastoreError::damaged("an evaluation"))?;
    Ok(ModelRecord {
        version: number("version")?,
        stage: stage(row)?,
        created: UnixSeconds(row.try_get("created_unix_s").map_err(&error)?),
        model: NewModel {
            digest: digest(row)?,
            subject: subject(row)?,
            algorithm,
            dataset_id: text("dataset_id")?,
            model_bytes: number("model_bytes")?,
            threshold: row.try_get("threshold").map_err(&error)?,
            training_seconds: row.try_get("training_seconds").map_err(&error)?,
            run,
            evaluation,
        },
    })
}
