//! What hosts count of their events, by epoch.

use std::future::Future;

use picket_common::id::HostId;
use sqlx::{Row as _, Sqlite, Transaction};

use crate::clock::UnixSeconds;
use crate::fleet::{ACCOUNTS_KEPT_MAX, EpochAccount};
use crate::metastore::{HostReport, Metastore, MetastoreError, host_column};

/// An account as it was last reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// Whose.
    pub host: HostId,
    /// The account.
    pub account: EpochAccount,
    /// When it was reported.
    pub reported: UnixSeconds,
}

/// Accounts of hosts. They are written with their reports:
/// [`HostStore::record_reports`](crate::metastore::HostStore::record_reports).
pub trait AccountStore: Send + Sync {
    /// The accounts of one host, or of all, oldest epoch first.
    fn accounts(&self, host: Option<HostId>)
    -> impl Future<Output = Result<Vec<AccountRecord>, MetastoreError>> + Send;
}

impl AccountStore for Metastore {
    async fn accounts(&self, host: Option<HostId>) -> Result<Vec<AccountRecord>, MetastoreError> {
        let error = MetastoreError::during("read the accounts of hosts");
        let rows = sqlx::query(
            "SELECT host_id, account, reported_unix_s FROM host_accounts WHERE ?1 IS NULL OR host_id = ?1 \
             ORDER BY host_id, epoch",
        )
        .bind(host.map(|host| host.as_bytes().to_vec()))
        .fetch_all(self.read())
        .await
        .map_err(&error)?;
        let record = |row: &sqlx::sqlite::SqliteRow| {
            let account: String = row.try_get("account").map_err(&error)?;
            Ok(AccountRecord {
                host: host_column(row.try_get("host_id").map_err(&error)?)?,
                account: serde_json::from_str(&account).map_err(MetastoreError::damaged("the account of a host"))?,
                reported: UnixSeconds(row.try_get("reported_unix_s").map_err(&error)?),
            })
        };
        rows.iter().map(record).collect()
    }
}

/// Writes the accounts of one report; those of hosts that are not on record are passed over.
pub(super) async fn save_accounts(
    transaction: &mut Transaction<'static, Sqlite>,
    report: &HostReport,
) -> Result<(), MetastoreError> {
    let error = MetastoreError::during("keep the accounts of a host");
    let host = report.host.as_bytes().as_slice();
    for account in &report.accounts {
        let json = serde_json::to_string(account).map_err(MetastoreError::damaged("the account of a host"))?;
        sqlx::query(
            "INSERT INTO host_accounts (host_id, epoch, account, reported_unix_s) \
             SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM hosts WHERE host_id = ?1) \
             ON CONFLICT (host_id, epoch) DO UPDATE \
             SET account = excluded.account, reported_unix_s = excluded.reported_unix_s",
        )
        .bind(host)
        .bind(account.epoch.cast_signed())
        .bind(json)
        .bind(report.last_seen.0)
        .execute(&mut **transaction)
        .await
        .map_err(&error)?;
    }
    if report.accounts.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM host_accounts WHERE host_id = ?1 AND epoch < coalesce((SELECT epoch FROM host_accounts \
         WHERE host_id = ?1 ORDER BY epoch DESC LIMIT 1 OFFSET ?2), 0)",
    )
    .bind(host)
    .bind(i64::try_from(ACCOUNTS_KEPT_MAX).unwrap_or(i64::MAX) - 1)
    .execute(&mut **transaction)
    .await
    .map_err(&error)?;
    Ok(())
}
