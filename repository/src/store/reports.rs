//! The sealed messages that observations and verdicts came with, for whichever back end includes this file.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use proto::content::{ContentHash, ContentRef};
use proto::message::{ChainRequest, ChainResponse, KeptMessage};
use sqlx::Row as _;

use super::super::super::{Received, Report, StoreError, endpoint_text, time};
use super::{SqlStore, Tx};

/// Seconds for which a report is kept that nothing current refers to any more: an evaluator may still be at work on
/// what it read before.
const RELEASED_SECONDS: i64 = 3_600;

/// Keeps a sealed message, and what it answers.
pub(super) async fn keep(
    tx: &mut Tx,
    report: &Report,
    kind: &str,
    task: Option<&ContentHash>,
    from: Received,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO report (hash, kind, content, bytes, received, task) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (hash) DO NOTHING",
    )
    .bind(report.hash.as_str())
    .bind(kind)
    .bind(ContentRef::to(&report.packed).sha256.as_str())
    .bind(&report.packed)
    .bind(from.received.as_microsecond())
    .bind(task.map(ContentHash::as_str))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The number of a report of observations.
pub(super) async fn number(tx: &mut Tx, report: &Report) -> Result<i64, StoreError> {
    let row = sqlx::query(
        "INSERT INTO report_number (hash) VALUES ($1) ON CONFLICT (hash) DO UPDATE SET hash = excluded.hash RETURNING id",
    )
    .bind(report.hash.as_str())
    .fetch_one(&mut **tx)
    .await?;
    Ok(row.try_get("id")?)
}

/// These reports have been replaced by newer ones that say the same. They go once nothing refers to them, neither an
/// observation of the past nor a verdict.
pub(super) async fn release(tx: &mut Tx, replaced: &BTreeSet<i64>, from: Received) -> Result<(), StoreError> {
    for number in replaced {
        sqlx::query("UPDATE report SET released = $1 WHERE hash = (SELECT hash FROM report_number WHERE id = $2)")
            .bind(from.received.as_microsecond())
            .bind(*number)
            .execute(&mut **tx)
            .await?;
    }
    let long_ago = from.received.saturating_sub(SignedDuration::from_secs(RELEASED_SECONDS));
    let before = long_ago.map_or(i64::MIN, jiff::Timestamp::as_microsecond);
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
              WHERE transaction_id = $1 AND endpoint = $2) ORDER BY hash",
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
