//! API tokens: what lets operators in.

use std::future::Future;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::auth::Role;
use crate::clock::UnixSeconds;
use crate::metastore::{Metastore, MetastoreError};

/// Most tokens one listing returns.
const LISTED_MAX: i64 = 10_000;

/// An API token to be kept.
#[derive(Clone, Debug)]
pub struct NewApiToken {
    /// Whose it is; the author of what is done with it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the token.
    pub secret_sha256: [u8; 32],
    /// When it was made.
    pub created: UnixSeconds,
}

/// An API token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTokenRecord {
    /// Its number.
    pub token_id: i64,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created: UnixSeconds,
    /// When it was revoked.
    pub revoked: Option<UnixSeconds>,
}

/// API tokens.
pub trait ApiTokenStore: Send + Sync {
    /// Keeps a new token and returns its number.
    fn create_api_token(&self, token: &NewApiToken) -> impl Future<Output = Result<i64, MetastoreError>> + Send;
    /// The token with this secret, revoked or not.
    fn api_token_by_secret(
        &self,
        secret_sha256: &[u8; 32],
    ) -> impl Future<Output = Result<Option<ApiTokenRecord>, MetastoreError>> + Send;
    /// All tokens by number, at most 10,000.
    fn api_tokens(&self) -> impl Future<Output = Result<Vec<ApiTokenRecord>, MetastoreError>> + Send;
    /// Refuses the token from now on. False when there is no such token.
    fn revoke_api_token(
        &self,
        token_id: i64,
        now: UnixSeconds,
    ) -> impl Future<Output = Result<bool, MetastoreError>> + Send;
}

impl ApiTokenStore for Metastore {
    async fn create_api_token(&self, token: &NewApiToken) -> Result<i64, MetastoreError> {
        let error = MetastoreError::during("create an API token");
        let mut transaction = self.write().await?;
        let done =
            sqlx::query("INSERT INTO api_tokens (name, role, secret_sha256, created_unix_s) VALUES (?, ?, ?, ?)")
                .bind(&token.name)
                .bind(token.role.name())
                .bind(token.secret_sha256.as_slice())
                .bind(token.created.0)
                .execute(&mut *transaction)
                .await
                .map_err(&error)?;
        transaction.commit().await.map_err(&error)?;
        Ok(done.last_insert_rowid())
    }

    async fn api_token_by_secret(&self, secret_sha256: &[u8; 32]) -> Result<Option<ApiTokenRecord>, MetastoreError> {
        let row = sqlx::query("SELECT * FROM api_tokens WHERE secret_sha256 = ?")
            .bind(secret_sha256.as_slice())
            .fetch_optional(self.read())
            .await
            .map_err(MetastoreError::during("read an API token"))?;
        row.as_ref().map(record).transpose()
    }

    async fn api_tokens(&self) -> Result<Vec<ApiTokenRecord>, MetastoreError> {
        let rows = sqlx::query("SELECT * FROM api_tokens ORDER BY token_id LIMIT ?")
            .bind(LISTED_MAX)
            .fetch_all(self.read())
            .await
            .map_err(MetastoreError::during("list API tokens"))?;
        rows.iter().map(record).collect()
    }

    async fn revoke_api_token(&self, token_id: i64, now: UnixSeconds) -> Result<bool, MetastoreError> {
        let error = MetastoreError::during("revoke an API token");
        let mut transaction = self.write().await?;
        let done = sqlx::query("UPDATE api_tokens SET revoked_unix_s = coalesce(revoked_unix_s, ?) WHERE token_id = ?")
            .bind(now.0)
            .bind(token_id)
            .execute(&mut *transaction)
            .await
            .map_err(&error)?;
        transaction.commit().await.map_err(&error)?;
        Ok(done.rows_affected() > 0)
    }
}

fn record(row: &SqliteRow) -> Result<ApiTokenRecord, MetastoreError> {
    let error = MetastoreError::during("read an API token");
    let role: String = row.try_get("role").map_err(&error)?;
    Ok(ApiTokenRecord {
        token_id: row.try_get("token_id").map_err(&error)?,
        name: row.try_get("name").map_err(&error)?,
        role: role.parse().map_err(MetastoreError::damaged("an API token's role"))?,
        created: UnixSeconds(row.try_get("created_unix_s").map_err(&error)?),
        revoked: row.try_get::<Option<i64>, _>("revoked_unix_s").map_err(&error)?.map(UnixSeconds),
    })
}
