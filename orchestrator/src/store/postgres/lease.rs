//! The lease in the database: who is active. Its times are the database's, so that nobody's clock matters.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Postgres, Row as _, Transaction};
use tokio::sync::Notify;

use super::{PostgresStore, StoreError};

/// The database's clock, in microseconds.
const NOW: &str = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";
/// Instances that were not seen for so long are forgotten.
const FORGOTTEN_SECONDS: i64 = 7 * 86_400;
/// The epoch of whoever has no lease.
const NONE: i64 = -1;

/// What keeps those who have no lease any more from writing.
#[derive(Debug, Clone)]
pub(super) struct Fence {
    epoch: Arc<AtomicI64>,
    /// Told when a write was refused.
    deposed: Arc<Notify>,
}

impl Default for Fence {
    fn default() -> Self {
        Self { epoch: Arc::new(AtomicI64::new(NONE)), deposed: Arc::default() }
    }
}

impl Fence {
    /// The lease is still one's own, and stays so until the transaction ends. It is locked for the transaction alone: the
    /// entries of the log of acts have to come one after another.
    pub(super) async fn check(&self, tx: &mut Transaction<'static, Postgres>) -> Result<(), StoreError> {
        let epoch: i64 =
            sqlx::query_scalar("SELECT epoch FROM lease WHERE id = 1 FOR UPDATE").fetch_one(&mut **tx).await?;
        if epoch == self.epoch.load(Ordering::Acquire) {
            return Ok(());
        }
        self.deposed.notify_one();
        Err(StoreError::Deposed)
    }
}

/// Who is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The instance; empty where it was given back.
    pub holder: String,
    /// Its number: grows with every change of hands.
    pub epoch: i64,
    /// Since when.
    pub since: Timestamp,
    /// Whether it has run out.
    pub is_over: bool,
}

/// An orchestrator's process on the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id, new at every start.
    pub id: String,
    /// The host's name.
    pub host: String,
    /// The program's version.
    pub version: String,
    /// Since when it runs.
    pub started: Timestamp,
    /// When it was last there, by the database's clock.
    pub seen: Timestamp,
}

fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or_default()
}

impl PostgresStore {
    /// Takes the lease where it is free or has run out, for so long; says whether it did.
    pub async fn take_lease(&self, holder: &str, hold: Duration) -> Result<bool, StoreError> {
        let sql = format!(
            "UPDATE lease SET holder = $1, epoch = epoch + 1, since = {NOW}, expires = {NOW} + $2 \
             WHERE id = 1 AND (holder = '' OR expires < {NOW}) RETURNING epoch"
        );
        let epoch: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(holder)
            .bind(microseconds(hold))
            .fetch_optional(&self.writer)
            .await?;
        if let Some(epoch) = epoch {
            self.fence.epoch.store(epoch, Ordering::Release);
        }
        Ok(epoch.is_some())
    }

    /// Holds the lease for so long from now on.
    pub async fn renew_lease(&self, hold: Duration) -> Result<(), StoreError> {
        let sql = format!("UPDATE lease SET expires = {NOW} + $2 WHERE id = 1 AND epoch = $1");
        let epoch = self.fence.epoch.load(Ordering::Acquire);
        let renewed =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(epoch).bind(microseconds(hold)).execute(&self.writer).await?;
        if renewed.rows_affected() == 0 { Err(StoreError::Deposed) } else { Ok(()) }
    }

    /// Gives the lease back; nothing is written from then on.
    pub async fn give_lease_back(&self) -> Result<(), StoreError> {
        let epoch = self.fence.epoch.swap(NONE, Ordering::AcqRel);
        sqlx::query("UPDATE lease SET holder = '', expires = 0 WHERE id = 1 AND epoch = $1")
            .bind(epoch)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Returns when a write was refused because another has the lease.
    pub async fn deposed(&self) {
        self.fence.deposed.notified().await;
    }

    /// Who has the lease.
    pub async fn lease(&self) -> Result<LeaseRow, StoreError> {
        let sql = format!("SELECT holder, epoch, since, expires < {NOW} AS is_over FROM lease WHERE id = 1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&self.readers).await?;
        Ok(LeaseRow {
            holder: row.try_get("holder")?,
            epoch: row.try_get("epoch")?,
            since: time(row.try_get("since")?),
            is_over: row.try_get("is_over")?,
        })
    }

    /// This process is there.
    pub async fn put_instance(&self, instance: &Instance) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT INTO instance (id, host, version, started, seen) VALUES ($1, $2, $3, $4, {NOW}) \
             ON CONFLICT (id) DO UPDATE SET seen = excluded.seen"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(&instance.id)
            .bind(&instance.host)
            .bind(&instance.version)
            .bind(instance.started.as_microsecond())
            .execute(&self.writer)
            .await?;
        let sql = format!("DELETE FROM instance WHERE seen < {NOW} - $1");
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(FORGOTTEN_SECONDS * 1_000_000).execute(&self.writer).await?;
        Ok(())
    }

    /// This process ends.
    pub async fn remove_instance(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM instance WHERE id = $1").bind(id).execute(&self.writer).await?;
        Ok(())
    }

    /// Who there is, with the database's time; the one that was seen last comes first.
    pub async fn instances(&self) -> Result<(Vec<Instance>, Timestamp), StoreError> {
        let sql = format!("SELECT id, host, version, started, seen, {NOW} AS now FROM instance ORDER BY seen DESC");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&self.readers).await?;
        let mut now = Timestamp::now();
        let mut instances = Vec::with_capacity(rows.len());
        for row in rows {
            now = time(row.try_get("now")?);
            instances.push(Instance {
                id: row.try_get("id")?,
                host: row.try_get("host")?,
                version: row.try_get("version")?,
                started: time(row.try_get("started")?),
                seen: time(row.try_get("seen")?),
            });
        }
        Ok((instances, now))
    }
}

fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
