//! Small named values of the server itself.

use std::future::Future;

use sqlx::Row as _;

use crate::metastore::{Metastore, MetastoreError};

/// Named values, such as the generation of the desired state.
pub trait SettingStore: Send + Sync {
    /// The value, if it was ever set.
    fn setting(&self, name: &str) -> impl Future<Output = Result<Option<String>, MetastoreError>> + Send;
    /// Sets it.
    fn put_setting(&self, name: &str, value: &str) -> impl Future<Output = Result<(), MetastoreError>> + Send;
}

impl SettingStore for Metastore {
    async fn setting(&self, name: &str) -> Result<Option<String>, MetastoreError> {
        sqlx::query("SELECT value FROM settings WHERE name = ?")
            .bind(name)
            .fetch_optional(self.read())
            .await
            .and_then(|row| row.map(|row| row.try_get("value")).transpose())
            .map_err(MetastoreError::during("read a setting"))
    }

    async fn put_setting(&self, name: &str, value: &str) -> Result<(), MetastoreError> {
        let error = MetastoreError::during("write a setting");
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(&mut *transaction)
        .await
        .map_err(&error)?;
        transaction.commit().await.map_err(&error)
    }
}
