//! The chains of hosts.

use std::future::Future;

use picket_common::id::HostId;
use sqlx::Row as _;

use crate::chain::EpochChain;
use crate::metastore::{Metastore, MetastoreError};

/// What is known of the hash chains over hosts' batches, by epoch.
pub trait ChainStore: Send + Sync {
    /// All epochs of one host, oldest first.
    fn chains(&self, host: HostId) -> impl Future<Output = Result<Vec<(u64, EpochChain)>, MetastoreError>> + Send;
    /// Keeps these, in one transaction, and of each host at most `epochs_max` epochs. Hosts that are not on record are
    /// passed over.
    fn save_chains(
        &self,
        chains: &[(HostId, u64, EpochChain)],
        epochs_max: usize,
    ) -> impl Future<Output = Result<(), MetastoreError>> + Send;
}

impl ChainStore for Metastore {
    async fn chains(&self, host: HostId) -> Result<Vec<(u64, EpochChain)>, MetastoreError> {
        let error = MetastoreError::during("read the chain of a host");
        let rows = sqlx::query("SELECT epoch, state FROM host_chains WHERE host_id = ? ORDER BY epoch")
            .bind(host.as_bytes().as_slice())
            .fetch_all(self.read())
            .await
            .map_err(&error)?;
        let chain = |row: &sqlx::sqlite::SqliteRow| {
            let epoch: i64 = row.try_get("epoch").map_err(&error)?;
            let state: String = row.try_get("state").map_err(&error)?;
            let chain = serde_json::from_str(&state).map_err(MetastoreError::damaged("the chain of a host"))?;
            Ok((epoch.cast_unsigned(), chain))
        };
        rows.iter().map(chain).collect()
    }

    async fn save_chains(&self, chains: &[(HostId, u64, EpochChain)], epochs_max: usize) -> Result<(), MetastoreError> {
        let error = MetastoreError::during("keep the chain of a host");
        let epochs_max = i64::try_from(epochs_max).unwrap_or(i64::MAX);
        let mut transaction = self.write().await?;
        for (host, epoch, chain) in chains {
            let state = serde_json::to_string(chain).map_err(MetastoreError::damaged("the chain of a host"))?;
            sqlx::query(
                "INSERT INTO host_chains (host_id, epoch, state) \
                 SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM hosts WHERE host_id = ?1) \
                 ON CONFLICT (host_id, epoch) DO UPDATE SET state = excluded.state",
            )
            .bind(host.as_bytes().as_slice())
            .bind(epoch.cast_signed())
            .bind(state)
            .execute(&mut *transaction)
            .await
            .map_err(&error)?;
            sqlx::query(
                "DELETE FROM host_chains WHERE host_id = ?1 AND epoch < coalesce((SELECT epoch FROM host_chains \
                 WHERE host_id = ?1 ORDER BY epoch DESC LIMIT 1 OFFSET ?2), 0)",
            )
            .bind(host.as_bytes().as_slice())
            .bind(epochs_max - 1)
            .execute(&mut *transaction)
            .await
            .map_err(&error)?;
        }
        transaction.commit().await.map_err(&error)
    }
}
