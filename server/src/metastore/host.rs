//! Hosts, their certificates and what they last reported.

use std::future::Future;

use picket_common::id::HostId;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};

use crate::clock::UnixSeconds;
use crate::fleet::{AgentStatus, EpochAccount, HostInventory};
use crate::metastore::account::save_accounts;
use crate::metastore::{Metastore, MetastoreError, host_column};

/// Most hosts one listing returns.
const LISTED_MAX: i64 = 100_000;
/// Newest certificates of a host that stay on record, besides the one in use.
const CERTIFICATES_KEPT: i64 = 8;

/// A host that enrols.
#[derive(Clone, Debug)]
pub struct NewHost {
    /// Its new identity.
    pub host: HostId,
    /// The join token it came with.
    pub join_token_id: String,
    /// What it says about itself.
    pub inventory: HostInventory,
    /// Its first certificate.
    pub certificate: CertificateRecord,
}

/// A certificate that was issued to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRecord {
    /// Serial number, big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// When it was issued.
    pub issued: UnixSeconds,
    /// Until when it is valid.
    pub not_after: UnixSeconds,
}

/// A host as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct HostRecord {
    /// Its identity.
    pub host: HostId,
    /// The token it enrolled with.
    pub join_token_id: String,
    /// When it enrolled.
    pub enrolled: UnixSeconds,
    /// When it was revoked.
    pub revoked: Option<UnixSeconds>,
    /// Since when it is in quarantine.
    pub quarantined: Option<UnixSeconds>,
    /// Why; empty when it is not.
    pub quarantine_reason: String,
    /// When it last reported.
    pub last_seen: Option<UnixSeconds>,
    /// What it said about itself last.
    pub inventory: HostInventory,
    /// Its last report.
    pub status: Option<AgentStatus>,
}

/// What a host reported since the last time reports were kept.
#[derive(Clone, Debug)]
pub struct HostReport {
    /// The host.
    pub host: HostId,
    /// When it last reported.
    pub last_seen: UnixSeconds,
    /// What it says about itself, if that came again.
    pub inventory: Option<HostInventory>,
    /// Its status, if it sent one.
    pub status: Option<AgentStatus>,
    /// Accounts of its epochs that have changed.
    pub accounts: Vec<EpochAccount>,
}

/// Whether a certificate of the server's CA still admits its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It does.
    Admitted,
    /// The CA signed it, but the host or the certificate is not on record: a restored or foreign database.
    Unknown,
    /// The host was revoked.
    Revoked,
    /// Two agents used the host's identity.
    Quarantined,
    /// The host has begun to use a certificate issued later.
    Superseded,
}

/// Why a host was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The join token is unknown, expired, used up or revoked.
    #[error("the join token is not usable")]
    TokenRefused,
    /// The metastore failed; nothing was changed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
}

/// Hosts and their certificates.
pub trait HostStore: Send + Sync {
    /// Uses the join token once and records the host with its certificate: all of it or nothing.
    fn enroll(&self, host: &NewHost, now: UnixSeconds) -> impl Future<Output = Result<(), EnrollError>> + Send;
    /// Records a further certificate of a host. The earlier ones are superseded when this one is first used, so that
    /// an agent that never got the answer is not locked out.
    fn record_certificate(
        &self,
        host: HostId,
        certificate: &CertificateRecord,
    ) -> impl Future<Output = Result<(), MetastoreError>> + Send;
    /// Whether this certificate admits this host, and supersedes the host's earlier ones if it does.
    fn admit(
        &self,
        host: HostId,
        serial: &[u8],
        now: UnixSeconds,
    ) -> impl Future<Output = Result<Admission, MetastoreError>> + Send;
    /// Refuses the host from now on. Returns since when it is revoked, which may be earlier; none when there is no
    /// such host.
    fn revoke_host(
        &self,
        host: HostId,
        now: UnixSeconds,
    ) -> impl Future<Output = Result<Option<UnixSeconds>, MetastoreError>> + Send;
    /// Refuses the host until it is released.
    fn quarantine_host(
        &self,
        host: HostId,
        now: UnixSeconds,
        reason: &str,
    ) -> impl Future<Output = Result<(), MetastoreError>> + Send;
    /// Ends the host's quarantine. `Some(false)`: it was in none; none when there is no such host.
    fn release_host(&self, host: HostId) -> impl Future<Output = Result<Option<bool>, MetastoreError>> + Send;
    /// One host.
    fn host(&self, host: HostId) -> impl Future<Output = Result<Option<HostRecord>, MetastoreError>> + Send;
    /// All hosts in order of enrolment, at most 100,000.
    fn hosts(&self) -> impl Future<Output = Result<Vec<HostRecord>, MetastoreError>> + Send;
    /// Keeps what hosts reported, in one transaction. Hosts that are not on record are passed over.
    fn record_reports(&self, reports: &[HostReport]) -> impl Future<Output = Result<(), MetastoreError>> + Send;
}

impl HostStore for Metastore {
    async fn enroll(&self, host: &NewHost, now: UnixSeconds) -> Result<(), EnrollError> {
        let error = MetastoreError::during("enrol a host");
        let inventory = to_json(&host.inventory)?;
        let mut transaction = self.write().await?;
        let used = sqlx::query(
            "UPDATE join_tokens SET uses = uses + 1 \
             WHERE token_id = ? AND uses < max_uses AND revoked_unix_s IS NULL AND ? < expires_unix_s",
        )
        .bind(&host.join_token_id)
        .bind(now.0)
        .execute(&mut *transaction)
        .await
        .map_err(&error)?;
        if used.rows_affected() != 1 {
            return Err(EnrollError::TokenRefused);
        }
        sqlx::query("INSERT INTO hosts (host_id, join_token_id, enrolled_unix_s, inventory) VALUES (?, ?, ?, ?)")
            .bind(host.host.as_bytes().as_slice())
            .bind(&host.join_token_id)
            .bind(now.0)
            .bind(inventory)
            .execute(&mut *transaction)
            .await
            .map_err(&error)?;
        insert_certificate(&mut transaction, host.host, &host.certificate).await?;
        transaction.commit().await.map_err(&error)?;
        Ok(())
    }

    async fn record_certificate(&self, host: HostId, certificate: &CertificateRecord) -> Result<(), MetastoreError> {
        let mut transaction = self.write().await?;
        insert_certificate(&mut transaction, host, certificate).await?;
        transaction.commit().await.map_err(MetastoreError::during("record a certificate"))
    }

    async fn admit(&self, host: HostId, serial: &[u8], now: UnixSeconds) -> Result<Admission, MetastoreError> {
        let error = MetastoreError::during("look up a certificate");
        let row = sqlx::query(
            "SELECT hosts.revoked_unix_s, hosts.quarantined_unix_s, mine.issue, mine.superseded_unix_s, \
                    EXISTS (SELECT 1 FROM host_certificates AS older WHERE older.host_id = mine.host_id \
                            AND older.issue < mine.issue AND older.superseded_unix_s IS NULL) AS older_in_use \
             FROM host_certificates AS mine JOIN hosts USING (host_id) WHERE mine.serial = ? AND mine.host_id = ?",
        )
        .bind(serial)
        .bind(host.as_bytes().as_slice())
        .fetch_optional(self.read())
        .await
        .map_err(&error)?;
        let Some(row) = row else { return Ok(Admission::Unknown) };
        if row.try_get::<Option<i64>, _>("revoked_unix_s").map_err(&error)?.is_some() {
            return Ok(Admission::Revoked);
        }
        if row.try_get::<Option<i64>, _>("quarantined_unix_s").map_err(&error)?.is_some() {
            return Ok(Admission::Quarantined);
        }
        if row.try_get::<Option<i64>, _>("superseded_unix_s").map_err(&error)?.is_some() {
            return Ok(Admission::Superseded);
        }
        if row.try_get::<bool, _>("older_in_use").map_err(&error)? {
            let issue: i64 = row.try_get("issue").map_err(&error)?;
            supersede_before(self, host, issue, now).await?;
        }
        Ok(Admission::Admitted)
    }

    async fn revoke_host(&self, host: HostId, now: UnixSeconds) -> Result<Option<UnixSeconds>, MetastoreError> {
        let error = MetastoreError::during("revoke a host");
        let mut transaction = self.write().await?;
        let revoked = sqlx::query_scalar(
            "UPDATE hosts SET revoked_unix_s = coalesce(revoked_unix_s, ?) WHERE host_id = ? RETURNING revoked_unix_s",
        )
        .bind(now.0)
        .bind(host.as_bytes().as_slice())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(&error)?;
        transaction.commit().await.map_err(&error)?;
        Ok(revoked.map(UnixSeconds))
    }

    async fn quarantine_host(&self, host: HostId, now: UnixSeconds, reason: &str) -> Result<(), MetastoreError> {
        let error = MetastoreError::during("put a host in quarantine");
        let mut transaction = self.write().await?;
        sqlx::query(
            "UPDATE hosts SET quarantined_unix_s = ?, quarantine_reason = ? \
             WHERE host_id = ? AND quarantined_unix_s IS NULL",
        )
        .bind(now.0)
        .bind(reason)
        .bind(host.as_bytes().as_slice())
        .execute(&mut *transaction)
        .await
        .map_err(&error)?;
        transaction.commit().await.map_err(&error)
    }

    async fn release_host(&self, host: HostId) -> Result<Option<bool>, MetastoreError> {
        let error = MetastoreError::during("release a host");
        let mut transaction = self.write().await?;
        let was: Option<Option<i64>> = sqlx::query_scalar("SELECT quarantined_unix_s FROM hosts WHERE host_id = ?")
            .bind(host.as_bytes().as_slice())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&error)?;
        sqlx::query("UPDATE hosts SET quarantined_unix_s = NULL, quarantine_reason = NULL WHERE host_id = ?")
            .bind(host.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&error)?;
        transaction.commit().await.map_err(&error)?;
        Ok(was.map(|since| since.is_some()))
    }

    async fn host(&self, host: HostId) -> Result<Option<HostRecord>, MetastoreError> {
        let row = sqlx::query("SELECT * FROM hosts WHERE host_id = ?")
            .bind(host.as_bytes().as_slice())
            .fetch_optional(self.read())
            .await
            .map_err(MetastoreError::during("read a host"))?;
        row.as_ref().map(record).transpose()
    }

    async fn hosts(&self) -> Result<Vec<HostRecord>, MetastoreError> {
        let rows = sqlx::query("SELECT * FROM hosts ORDER BY enrolled_unix_s, host_id LIMIT ?")
            .bind(LISTED_MAX)
            .fetch_all(self.read())
            .await
            .map_err(MetastoreError::during("list hosts"))?;
        rows.iter().map(record).collect()
    }

    async fn record_reports(&self, reports: &[HostReport]) -> Result<(), MetastoreError> {
        let error = MetastoreError::during("record reports of hosts");
        let mut transaction = self.write().await?;
        for report in reports {
            let inventory = report.inventory.as_ref().map(to_json).transpose()?;
            let status = report.status.as_ref().map(to_json).transpose()?;
            sqlx::query(
                "UPDATE hosts SET last_seen_unix_s = max(coalesce(last_seen_unix_s, 0), ?), \
                 inventory = coalesce(?, inventory), status = coalesce(?, status) WHERE host_id = ?",
            )
            .bind(report.last_seen.0)
            .bind(inventory)
            .bind(status)
            .bind(report.host.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&error)?;
            save_accounts(&mut transaction, report).await?;
        }
        transaction.commit().await.map_err(&error)
    }
}

async fn insert_certificate(
    transaction: &mut Transaction<'_, Sqlite>,
    host: HostId,
    certificate: &CertificateRecord,
) -> Result<(), MetastoreError> {
    sqlx::query(
        "INSERT INTO host_certificates (serial, host_id, issue, not_after_unix_s, issued_unix_s) \
         VALUES (?1, ?2, (SELECT coalesce(max(issue), 0) + 1 FROM host_certificates WHERE host_id = ?2), ?3, ?4)",
    )
    .bind(&certificate.serial)
    .bind(host.as_bytes().as_slice())
    .bind(certificate.not_after.0)
    .bind(certificate.issued.0)
    .execute(&mut **transaction)
    .await
    .map_err(MetastoreError::during("record a certificate"))?;
    // A host that renews without end must not fill the table: the one in use and the newest stay.
    sqlx::query(
        "DELETE FROM host_certificates WHERE host_id = ?1 \
         AND issue <= (SELECT max(issue) FROM host_certificates WHERE host_id = ?1) - ?2 \
         AND issue <> (SELECT min(issue) FROM host_certificates WHERE host_id = ?1 AND superseded_unix_s IS NULL)",
    )
    .bind(host.as_bytes().as_slice())
    .bind(CERTIFICATES_KEPT)
    .execute(&mut **transaction)
    .await
    .map_err(MetastoreError::during("forget old certificates"))?;
    Ok(())
}

async fn supersede_before(
    metastore: &Metastore,
    host: HostId,
    issue: i64,
    now: UnixSeconds,
) -> Result<(), MetastoreError> {
    let error = MetastoreError::during("supersede certificates");
    let mut transaction = metastore.write().await?;
    sqlx::query(
        "UPDATE host_certificates SET superseded_unix_s = ? \
         WHERE host_id = ? AND issue < ? AND superseded_unix_s IS NULL",
    )
    .bind(now.0)
    .bind(host.as_bytes().as_slice())
    .bind(issue)
    .execute(&mut *transaction)
    .await
    .map_err(&error)?;
    transaction.commit().await.map_err(&error)
}

fn record(row: &SqliteRow) -> Result<HostRecord, MetastoreError> {
    let error = MetastoreError::during("read a host");
    let seconds = |column| row.try_get::<Option<i64>, _>(column).map(|value| value.map(UnixSeconds)).map_err(&error);
    let inventory: String = row.try_get("inventory").map_err(&error)?;
    let status: Option<String> = row.try_get("status").map_err(&error)?;
    Ok(HostRecord {
        host: host_column(row.try_get("host_id").map_err(&error)?)?,
        join_token_id: row.try_get("join_token_id").map_err(&error)?,
        enrolled: UnixSeconds(row.try_get("enrolled_unix_s").map_err(&error)?),
        revoked: seconds("revoked_unix_s")?,
        quarantined: seconds("quarantined_unix_s")?,
        quarantine_reason: row.try_get::<Option<String>, _>("quarantine_reason").map_err(&error)?.unwrap_or_default(),
        last_seen: seconds("last_seen_unix_s")?,
        inventory: serde_json::from_str(&inventory).map_err(MetastoreError::damaged("a host's inventory"))?,
        status: status
            .map(|status| serde_json::from_str(&status).map_err(MetastoreError::damaged("a host's status")))
            .transpose()?,
    })
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, MetastoreError> {
    serde_json::to_string(value).map_err(MetastoreError::damaged("a host's report"))
}
