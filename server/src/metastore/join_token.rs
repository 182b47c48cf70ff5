//! Join tokens: what lets a new host in.

use std::future::Future;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::clock::UnixSeconds;
use crate::metastore::{Metastore, MetastoreError, digest_column};

/// Most tokens one listing returns.
const LISTED_MAX: i64 = 10_000;

/// A join token to be kept.
#[derive(Clone, Debug)]
pub struct NewJoinToken {
    /// Its public half.
    pub token_id: String,
    /// SHA-256 of its secret half.
    pub secret_sha256: [u8; 32],
    /// Who made it.
    pub author: String,
    /// When.
    pub created: UnixSeconds,
    /// From when on it is refused.
    pub expires: UnixSeconds,
    /// How many hosts may enrol with it.
    pub max_uses: u32,
}

/// A join token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTokenRecord {
    /// Its public half.
    pub token_id: String,
    /// SHA-256 of its secret half.
    pub secret_sha256: [u8; 32],
    /// Who made it.
    pub author: String,
    /// When.
    pub created: UnixSeconds,
    /// From when on it is refused.
    pub expires: UnixSeconds,
    /// How many hosts may enrol with it.
    pub max_uses: u32,
    /// How many did.
    pub uses: u32,
    /// When it was revoked.
    pub revoked: Option<UnixSeconds>,
}

impl JoinTokenRecord {
    /// Whether a host may enrol with it now.
    pub fn is_usable(&self, now: UnixSeconds) -> bool {
        self.revoked.is_none() && now < self.expires && self.uses < self.max_uses
    }
}

/// Join tokens. They are used up by [`HostStore::enroll`](crate::metastore::HostStore::enroll).
pub trait JoinTokenStore: Send + Sync {
    /// Keeps a new token.
    fn create_join_token(&self, token: &NewJoinToken) -> impl Future<Output = Result<(), MetastoreError>> + Send;
    /// The token of this id.
    fn join_token(
        &self,
        token_id: &str,
    ) -> impl Future<Output = Result<Option<JoinTokenRecord>, MetastoreError>> + Send;
    /// The newest tokens, newest first, at most 10,000.
    fn join_tokens(&self) -> impl Future<Output = Result<Vec<JoinTokenRecord>, MetastoreError>> + Send;
    /// Refuses the token from now on. False when there is no such token.
    fn revoke_join_token(
        &self,
        token_id: &str,
        now: UnixSeconds,
    ) -> impl Future<Output = Result<bool, MetastoreError>> + Send;
}

impl JoinTokenStore for Metastore {
    async fn create_join_token(&self, token: &NewJoinToken) -> Result<(), MetastoreError> {
        let error = MetastoreError::during("create a join token");
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO join_tokens (token_id, secret_sha256, author, created_unix_s, expires_unix_s, max_uses) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&token.token_id)
        .bind(token.secret_sha256.as_slice())
        .bind(&token.author)
        .bind(token.created.0)
        .bind(token.expires.0)
        .bind(token.max_uses)
        .execute(&mut *transaction)
        .await
        .map_err(&error)?;
        transaction.commit().await.map_err(&error)
    }

    async fn join_token(&self, token_id: &str) -> Result<Option<JoinTokenRecord>, MetastoreError> {
        let row = sqlx::query("SELECT * FROM join_tokens WHERE token_id = ?")
            .bind(token_id)
            .fetch_optional(self.read())
            .await
            .map_err(MetastoreError::during("read a join token"))?;
        row.as_ref().map(record).transpose()
    }

    async fn join_tokens(&self) -> Result<Vec<JoinTokenRecord>, MetastoreError> {
        let rows = sqlx::query("SELECT * FROM join_tokens ORDER BY created_unix_s DESC, token_id LIMIT ?")
            .bind(LISTED_MAX)
            .fetch_all(self.read())
            .await
            .map_err(MetastoreError::during("list join tokens"))?;
        rows.iter().map(record).collect()
    }

    async fn revoke_join_token(&self, token_id: &str, now: UnixSeconds) -> Result<bool, MetastoreError> {
        let error = MetastoreError::during("revoke a join token");
        let mut transaction = self.write().await?;
        let done =
            sqlx::query("UPDATE join_tokens SET revoked_unix_s = coalesce(revoked_unix_s, ?) WHERE token_id = ?")
                .bind(now.0)
                .bind(token_id)
                .execute(&mut *transaction)
                .await
                .map_err(&error)?;
        transaction.commit().await.map_err(&error)?;
        Ok(done.rows_affected() > 0)
    }
}

fn record(row: &SqliteRow) -> Result<JoinTokenRecord, MetastoreError> {
    let error = MetastoreError::during("read a join token");
    Ok(JoinTokenRecord {
        token_id: row.try_get("token_id").map_err(&error)?,
        secret_sha256: digest_column("a join token's secret", row.try_get("secret_sha256").map_err(&error)?)?,
        author: row.try_get("author").map_err(&error)?,
        created: UnixSeconds(row.try_get("created_unix_s").map_err(&error)?),
        expires: UnixSeconds(row.try_get("expires_unix_s").map_err(&error)?),
        max_uses: row.try_get("max_uses").map_err(&error)?,
        uses: row.try_get("uses").map_err(&error)?,
        revoked: row.try_get::<Option<i64>, _>("revoked_unix_s").map_err(&error)?.map(UnixSeconds),
    })
}
