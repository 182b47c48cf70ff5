//! Where the events of hosts went: the agents' own accounts against what is stored.
//!
//! Of each epoch the agent reports how many events its sensors saw, and how many of them were delivered, wait, or were lost at
//! which stage and for what reason. The server knows how many rows it has, and which losses it was told of by events. An event that
//! is in none of these is *unaccounted*: that must never happen, and is shown when it does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array as _, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::StreamExt as _;
use picket_common::event::EventClass;
use picket_common::id::{HostId, ParseIdError};

use crate::clock::UnixSeconds;
use crate::fleet::{EpochAccount, Fleet};
use crate::lake::{Lake, LakeError};
use crate::metastore::{AccountStore as _, HostStore as _, Metastore, MetastoreError};

#[cfg(test)]
mod tests;

/// Longest time of one of the queries.
const QUERY_TIME_MAX: Duration = Duration::from_secs(60);
/// Most rows of one of them: epochs of all hosts, and their kinds of losses.
const ROWS_MAX: usize = 1_000_000;

/// Puts accounts and rows together.
#[derive(Clone)]
pub struct Losses {
    metastore: Metastore,
    fleet: Arc<Fleet>,
    lake: Arc<Lake>,
}

/// Where the events of one epoch went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochLosses {
    /// Whose.
    pub host: HostId,
    /// Which epoch.
    pub epoch: u64,
    /// Events the sensors handed over, and those they know to have missed.
    pub generated: u64,
    /// Rows in the lake.
    pub stored: u64,
    /// Losses by stage and reason.
    pub lost: Vec<EventLoss>,
    /// In the agent's buffer.
    pub waiting: u64,
    /// Between its sensors and the buffer.
    pub in_flight: u64,
    /// In none of these.
    pub unaccounted: u64,
    /// When the agent last reported on it; none: it never did.
    pub reported: Option<UnixSeconds>,
}

/// Events lost for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLoss {
    /// Where.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// How many.
    pub events: u64,
    /// How many of them the server was told of by stored events.
    pub announced: u64,
}

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
pub enum LossesError {
    /// There is no such host.
    #[error("there is no host {0}")]
    NoHost(HostId),
    /// The metastore failed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The lake answered something else than it should.
    #[error("the lake's answer cannot be read: {0}")]
    Answer(#[from] arrow::error::ArrowError),
    /// A row's host is none.
    #[error("the lake's answer cannot be read: {0}")]
    Host(#[from] ParseIdError),
}

/// What the server knows of an epoch by itself.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    stored: u64,
    /// By stage and reason.
    announced: BTreeMap<(String, String), u64>,
}

impl Losses {
    /// Over these.
    pub fn new(metastore: Metastore, fleet: Arc<Fleet>, lake: Arc<Lake>) -> Self {
        Self { metastore, fleet, lake }
    }

    /// Where the events of one host, or of all, went, oldest epoch first. Moves what is acknowledged into the lake first.
    ///
    /// # Errors
    /// [`LossesError`].
    pub async fn report(&self, host: Option<HostId>) -> Result<Vec<EpochLosses>, LossesError> {
        if let Some(host) = host
            && self.metastore.host(host).await?.is_none()
        {
            return Err(LossesError::NoHost(host));
        }
        // Accounts first: what is stored after them can only be more.
        self.fleet.save_reports().await?;
        let accounts = self.metastore.accounts(host).await?;
        self.lake.commit().await?;
        let mut seen = self.seen(host).await?;
        let mut report = Vec::with_capacity(accounts.len());
        for record in accounts {
            let seen = seen.remove(&(record.host, record.account.epoch)).unwrap_or_default();
            report.push(balance(record.host, &record.account, record.reported, &seen));
        }
        report.extend(seen.into_iter().map(|((host, epoch), seen)| without_account(host, epoch, &seen)));
        report.sort_by_key(|losses| (losses.host, losses.epoch));
        Ok(report)
    }

    async fn seen(&self, host: Option<HostId>) -> Result<BTreeMap<(HostId, u64), Seen>, LossesError> {
        let filter = host.map_or(String::new(), |host| format!("WHERE host_id = '{host}'"));
        let is_sensors = |class: &EventClass| !matches!(class, EventClass::SensorLoss | EventClass::AgentActivity);
        let tables = EventClass::ALL.into_iter().filter(is_sensors);
        let rows: Vec<String> =
            tables.map(|class| format!("SELECT host_id, epoch FROM {} {filter}", class.name())).collect();
        let mut seen: BTreeMap<(HostId, u64), Seen> = BTreeMap::new();
        let sql = format!("SELECT host_id, epoch, count(*) FROM ({}) AS e GROUP BY 1, 2", rows.join(" UNION ALL "));
        for (texts, numbers) in self.rows(&sql, 1).await? {
            seen.entry((texts[0].parse()?, numbers[0])).or_default().stored = numbers[1];
        }
        let sql = format!(
            "SELECT host_id, stage, reason, lost_epoch, sum(\"count\") FROM sensor_loss {filter} GROUP BY 1, 2, 3, 4"
        );
        for (texts, numbers) in self.rows(&sql, 3).await? {
            let [host, stage, reason] = texts.as_slice() else { continue };
            let epoch = seen.entry((host.parse()?, numbers[0])).or_default();
            epoch.announced.insert((stage.clone(), reason.clone()), numbers[1]);
        }
        Ok(seen)
    }

    /// Rows of a query whose first `texts` columns are texts and whose others are numbers.
    async fn rows(&self, sql: &str, texts: usize) -> Result<Vec<(Vec<String>, Vec<u64>)>, LossesError> {
        let mut stream = self.lake.query(sql, ROWS_MAX, QUERY_TIME_MAX).await?;
        let mut rows = Vec::new();
        while let Some(batch) = stream.next().await {
            read(&batch?, texts, &mut rows)?;
        }
        Ok(rows)
    }
}

fn read(
    batch: &RecordBatch,
    texts: usize,
    rows: &mut Vec<(Vec<String>, Vec<u64>)>,
) -> Result<(), arrow::error::ArrowError> {
    let (words, numbers) = batch.columns().split_at(texts.min(batch.num_columns()));
    let words = words.iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<Vec<_>, _>>()?;
    let numbers = numbers.iter().map(|column| cast(column, &DataType::Int64)).collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        let text = |column: &arrow::array::ArrayRef| {
            column.as_any().downcast_ref::<StringArray>().map_or(String::new(), |texts| texts.value(row).to_owned())
        };
        let number = |column: &arrow::array::ArrayRef| {
            column.as_any().downcast_ref::<Int64Array>().map_or(0, |numbers| numbers.value(row).cast_unsigned())
        };
        rows.push((words.iter().map(text).collect(), numbers.iter().map(number).collect()));
    }
    Ok(())
}

/// The agent's account, brought up to what is stored by now.
pub(crate) fn balance(host: HostId, account: &EpochAccount, reported: UnixSeconds, seen: &Seen) -> EpochLosses {
    let mut lost: BTreeMap<(String, String), EventLoss> = BTreeMap::new();
    for (cause, events) in &account.lost {
        let (stage, reason) = cause.split_once('/').unwrap_or((cause, ""));
        entry(&mut lost, stage, reason).events = *events;
    }
    for ((stage, reason), announced) in &seen.announced {
        let loss = entry(&mut lost, stage, reason);
        loss.announced = *announced;
        // Announced after the report.
        loss.events = loss.events.max(*announced);
    }
    let generated = account.accepted.saturating_add(account.sensor_lost);
    let lost: Vec<EventLoss> = lost.into_values().collect();
    let lost_total = lost.iter().fold(0u64, |sum, loss| sum.saturating_add(loss.events));
    // What has arrived since the report was waiting then, or had not happened.
    let arrived = seen.stored.saturating_sub(account.delivered);
    let waiting = account.waiting.saturating_sub(arrived);
    let found = [seen.stored, lost_total, waiting, account.in_flight].into_iter().fold(0u64, u64::saturating_add);
    EpochLosses {
        host,
        epoch: account.epoch,
        generated,
        stored: seen.stored,
        lost,
        waiting,
        in_flight: account.in_flight,
        unaccounted: generated.saturating_sub(found),
        reported: Some(reported),
    }
}

/// An epoch the agent never reported on.
fn without_account(host: HostId, epoch: u64, seen: &Seen) -> EpochLosses {
    let loss = |((stage, reason), announced): (&(String, String), &u64)| EventLoss {
        stage: stage.clone(),
        reason: reason.clone(),
        events: *announced,
        announced: *announced,
    };
    let lost: Vec<EventLoss> = seen.announced.iter().map(loss).collect();
    let generated = lost.iter().fold(seen.stored, |sum, loss| sum.saturating_add(loss.events));
    EpochLosses {
        host,
        epoch,
        generated,
        stored: seen.stored,
        lost,
        waiting: 0,
        in_flight: 0,
        unaccounted: 0,
        reported: None,
    }
}

fn entry<'a>(lost: &'a mut BTreeMap<(String, String), EventLoss>, stage: &str, reason: &str) -> &'a mut EventLoss {
    let (stage, reason) = (stage.to_owned(), reason.to_owned());
    lost.entry((stage.clone(), reason.clone())).or_insert(EventLoss { stage, reason, events: 0, announced: 0 })
}
