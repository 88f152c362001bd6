//! The sealed messages that observations and verdicts came with, for whichever back end includes this file.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use proto::content::{ContentHash, ContentRef};
use proto::id::TransactionId;
use proto::message::{ChainRequest, ChainResponse, KeptMessage};
use sqlx::Row as _;

use super::super::super::{Received, Report, StoreError, endpoint_text, id, time};
use super::super::{INSERT, MARKS, UPDATE};
use super::names::numbered;
use super::statement::{BATCH, marks, rows_of};
use super::{SqlStore, Tx};

/// Seconds for which a report is kept that nothing current refers to any more: an evaluator may still be at work on
/// what it read before.
const RELEASED_SECONDS: i64 = 3_600;

/// The numbers of reports, by hash.
pub(super) type Numbers = HashMap<String, i64>;

/// Keeps sealed messages of their kinds, with the hash of what each answers.
pub(super) async fn keep(
    tx: &mut Tx,
    kept: &[(&Report, &'static str, Option<&ContentHash>, Received)],
) -> Result<Numbers, StoreError> {
    // In this order: transactions beside each other never wait for each other in a circle.
    let by_hash: BTreeMap<&str, _> = kept.iter().map(|kept| (kept.0.hash.as_str(), kept)).collect();
    let by_hash: Vec<_> = by_hash.into_iter().collect();
    let mut numbers = Numbers::with_capacity(by_hash.len());
    for some in by_hash.chunks(BATCH) {
        let sql = format!(
            "{INSERT} report (hash, kind, content, task, received, bytes) VALUES {} ON CONFLICT DO NOTHING RETURNING id, hash",
            rows_of(some.len(), 6)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (hash, (report, kind, task, from)) in some {
            query = query
                .bind(*hash)
                .bind(*kind)
                .bind(ContentRef::to(&report.packed).sha256.to_string())
                .bind(task.map(ContentHash::as_str))
                .bind(from.received.as_microsecond())
                .bind(report.packed.as_slice());
        }
        let hashes = some.iter().map(|(hash, _)| *hash);
        numbers.extend(numbered(tx, "report", query, hashes).await?);
    }
    Ok(numbers)
}

/// These reports have been replaced by newer ones that say the same. They go once nothing refers to them, neither an
/// observation of the past nor a verdict.
pub(super) async fn release(tx: &mut Tx, replaced: &BTreeSet<i64>, received: Timestamp) -> Result<(), StoreError> {
    let replaced: Vec<i64> = replaced.iter().copied().collect();
    for some in replaced.chunks(BATCH) {
        let sql = format!("{UPDATE} report SET released = {} WHERE id IN ({})", MARKS.one(1), marks(2, some.len()));
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(received.as_microsecond());
        for number in some {
            query = query.bind(*number);
        }
        query.execute(&mut **tx).await?;
    }
    let long_ago = received.saturating_sub(SignedDuration::from_secs(RELEASED_SECONDS));
    let before = long_ago.map_or(i64::MIN, Timestamp::as_microsecond);
    sqlx::query(
        "DELETE FROM report WHERE released < $1 AND NOT EXISTS (SELECT 1 FROM observed WHERE observed.report = report.id) \
         AND NOT EXISTS (SELECT 1 FROM evidence WHERE evidence.report = report.hash)",
    )
    .bind(before)
    .execute(&mut **tx)
    .await?;
    // Something refers to the others, and will as long as it is kept.
    sqlx::query("UPDATE report SET released = NULL WHERE released < $1").bind(before).execute(&mut **tx).await?;
    Ok(())
}

impl SqlStore {
    /// What an evaluation of an endpoint rests on. What is told here can be asked for by its content.
    pub(super) async fn chain_of(&self, request: &ChainRequest) -> Result<ChainResponse, StoreError> {
        let rows = sqlx::query(
            "SELECT report.id AS id, hash, report.content AS content, CAST(length(bytes) AS BIGINT) AS size, received, \
             told.report AS told FROM report LEFT JOIN told ON told.content = report.content WHERE hash IN \
             (SELECT report FROM evaluation_part WHERE transaction_id = $1 AND endpoint = $2 \
              UNION SELECT evidence.report FROM evidence JOIN evaluation_part ON evaluation_part.report = evidence.verdicts \
              WHERE transaction_id = $1 AND evaluation_part.endpoint = $2 \
              AND (evidence.endpoint IS NULL OR evidence.endpoint = $2)) ORDER BY hash",
        )
        .bind(request.transaction.to_string())
        .bind(endpoint_text(request.endpoint))
        .fetch_all(&self.readers)
        .await?;
        // In this order: whoever tells of the same never waits for each other in a circle.
        let mut untold: BTreeMap<&str, i64> = BTreeMap::new();
        for row in &rows {
            let (id, told): (i64, Option<i64>) = (row.try_get("id")?, row.try_get("told")?);
            if told != Some(id) {
                untold.insert(row.try_get("content")?, id);
            }
        }
        for some in untold.into_iter().collect::<Vec<_>>().chunks(BATCH) {
            let sql = format!(
                "{INSERT} told (content, report) VALUES {} ON CONFLICT (content) DO UPDATE SET report = excluded.report",
                rows_of(some.len(), 2)
            );
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
            for (content, report) in some {
                query = query.bind(*content).bind(*report);
            }
            query.execute(&self.writer).await?;
        }
        let hash = |text: String| text.parse().map_err(|_| StoreError::Damaged("a hash in report".to_owned()));
        let messages = rows.into_iter().map(|row| {
            let size_bytes = row.try_get::<i64, _>("size")?.unsigned_abs();
            Ok(KeptMessage {
                hash: hash(row.try_get("hash")?)?,
                content: ContentRef { sha256: hash(row.try_get("content")?)?, size_bytes },
                received: time(row.try_get("received")?)?,
            })
        });
        let messages = messages.collect::<Result<_, StoreError>>()?;
        Ok(ChainResponse { messages, taken_over: self.taken_over(request).await? })
    }

    /// The workflows whose verdicts held when this one had decided a part, but for its own.
    async fn taken_over(&self, request: &ChainRequest) -> Result<Vec<TransactionId>, StoreError> {
        let rows = sqlx::query(
            "SELECT verdict.rule AS rule, verdict.transaction_id AS decided_in FROM evaluation JOIN verdict \
             ON verdict.endpoint = evaluation.endpoint AND verdict.policy = evaluation.policy AND verdict.profile = evaluation.profile \
             WHERE evaluation.transaction_id = $1 AND evaluation.endpoint = $2 AND evaluation.is_partial = 1 \
             AND verdict.transaction_id <> $1 AND verdict.valid_from <= evaluation.evaluated \
             AND (verdict.valid_to IS NULL OR verdict.valid_to > evaluation.evaluated)",
        )
        .bind(request.transaction.to_string())
        .bind(endpoint_text(request.endpoint))
        .fetch_all(&self.readers)
        .await?;
        let mut workflows = BTreeSet::new();
        for row in rows {
            let rule: &str = row.try_get("rule")?;
            if request.rule.as_ref().is_none_or(|wanted| rule.ends_with(wanted.as_str())) {
                workflows.insert(row.try_get::<String, _>("decided_in")?);
            }
        }
        workflows.iter().map(|workflow| id(workflow)).collect()
    }
}
