//! The sealed messages that observations and verdicts came with, for whichever back end includes this file.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use proto::content::{ContentHash, ContentRef};
use proto::message::{ChainRequest, ChainResponse, KeptMessage};
use sqlx::Row as _;

use super::super::super::{Received, Report, StoreError, endpoint_text, time};
use super::super::mark;
use super::statement::{BATCH, marks, rows_of};
use super::{SqlStore, Tx};

/// Seconds for which a report is kept that nothing current refers to any more: an evaluator may still be at work on
/// what it read before.
const RELEASED_SECONDS: i64 = 3_600;

/// Keeps sealed messages of their kinds, with the hash of what each answers.
pub(super) async fn keep(
    tx: &mut Tx,
    kept: &[(&Report, &'static str, Option<&ContentHash>, Received)],
) -> Result<(), StoreError> {
    for some in kept.chunks(BATCH) {
        let sql = format!(
            "INSERT INTO report (hash, kind, content, bytes, received, task) VALUES {} ON CONFLICT (hash) DO NOTHING",
            rows_of(some.len(), 6)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (report, kind, task, from) in some {
            query = query
                .bind(report.hash.as_str())
                .bind(*kind)
                .bind(ContentRef::to(&report.packed).sha256.to_string())
                .bind(report.packed.as_slice())
                .bind(from.received.as_microsecond())
                .bind(task.map(ContentHash::as_str));
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// The numbers of reports of observations, in their order.
pub(super) async fn numbers<'report>(
    tx: &mut Tx,
    reports: impl Iterator<Item = &'report Report> + Clone,
) -> Result<Vec<i64>, StoreError> {
    // In this order: transactions beside each other never wait for each other in a circle.
    let hashes: BTreeSet<&str> = reports.clone().map(|report| report.hash.as_str()).collect();
    let hashes: Vec<&str> = hashes.into_iter().collect();
    let mut numbers = HashMap::with_capacity(hashes.len());
    for some in hashes.chunks(BATCH) {
        let sql = format!(
            "INSERT INTO report_number (hash) VALUES {} ON CONFLICT (hash) DO UPDATE SET hash = excluded.hash RETURNING id, hash",
            rows_of(some.len(), 1)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for hash in some {
            query = query.bind(*hash);
        }
        for row in query.fetch_all(&mut **tx).await? {
            numbers.insert(row.try_get::<String, _>("hash")?, row.try_get("id")?);
        }
    }
    let number = |report: &Report| numbers.get(report.hash.as_str()).copied();
    let lacking = || StoreError::Damaged("the number of a report is not there".to_owned());
    reports.map(|report| number(report).ok_or_else(lacking)).collect()
}

/// These reports have been replaced by newer ones that say the same. They go once nothing refers to them, neither an
/// observation of the past nor a verdict.
pub(super) async fn release(tx: &mut Tx, replaced: &BTreeSet<i64>, received: Timestamp) -> Result<(), StoreError> {
    let replaced: Vec<i64> = replaced.iter().copied().collect();
    for some in replaced.chunks(BATCH) {
        let sql = format!(
            "UPDATE report SET released = {} WHERE hash IN (SELECT hash FROM report_number WHERE id IN ({}))",
            mark(1),
            marks(2, some.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(received.as_microsecond());
        for number in some {
            query = query.bind(*number);
        }
        query.execute(&mut **tx).await?;
    }
    let long_ago = received.saturating_sub(SignedDuration::from_secs(RELEASED_SECONDS));
    let before = long_ago.map_or(i64::MIN, Timestamp::as_microsecond);
    let gone = sqlx::query(
        "DELETE FROM report WHERE released < $1 \
         AND NOT EXISTS (SELECT 1 FROM report_number JOIN observed ON observed.report = report_number.id \
          WHERE report_number.hash = report.hash) \
         AND NOT EXISTS (SELECT 1 FROM evidence WHERE evidence.report = report.hash) RETURNING hash",
    )
    .bind(before)
    .fetch_all(&mut **tx)
    .await?;
    for row in gone {
        let hash: &str = row.try_get("hash")?;
        sqlx::query("DELETE FROM report_number WHERE hash = $1").bind(hash).execute(&mut **tx).await?;
    }
    // Something refers to the others, and will as long as it is kept.
    sqlx::query("UPDATE report SET released = NULL WHERE released < $1").bind(before).execute(&mut **tx).await?;
    Ok(())
}

impl SqlStore {
    pub(super) async fn chain_of(&self, request: &ChainRequest) -> Result<ChainResponse, StoreError> {
        let rows = sqlx::query(
            "SELECT hash, content, CAST(length(bytes) AS BIGINT) AS size, received FROM report WHERE hash IN \
             (SELECT report FROM evaluation_part WHERE transaction_id = $1 AND endpoint = $2 \
              UNION SELECT evidence.report FROM evidence JOIN evaluation_part ON evaluation_part.report = evidence.verdicts \
              WHERE transaction_id = $1 AND evaluation_part.endpoint = $2 \
              AND (evidence.endpoint IS NULL OR evidence.endpoint = $2)) ORDER BY hash",
        )
        .bind(request.transaction.to_string())
        .bind(endpoint_text(request.endpoint))
        .fetch_all(&self.pool)
        .await?;
        let hash = |text: String| text.parse().map_err(|_| StoreError::Damaged("a hash in report".to_owned()));
        let messages = rows.into_iter().map(|row| {
            let size_bytes = row.try_get::<i64, _>("size")?.unsigned_abs();
            Ok(KeptMessage {
                hash: hash(row.try_get("hash")?)?,
                content: ContentRef { sha256: hash(row.try_get("content")?)?, size_bytes },
                received: time(row.try_get("received")?)?,
            })
        });
        Ok(ChainResponse { messages: messages.collect::<Result<_, StoreError>>()? })
    }
}
