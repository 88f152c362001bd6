//! What is past goes when it is old, for whichever back end includes this file. Much of it goes in many small transactions:
//! nobody who has something to store waits for long.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use jiff::{SignedDuration, Timestamp};
use proto::content::ContentHash;
use sqlx::Row as _;

use super::super::super::{StoreError, unjson};
use super::super::LOCK_CONTENT;
use super::statement::{BATCH, places};
use super::{Query, Row, SqlStore, Tx};
use crate::retention::{Expired, Retention, before};

/// Rows of one transaction, where they go by themselves.
const ROWS: i64 = 1_000;
/// Evaluations of one transaction: each has rows in several tables.
const EVALUATIONS: i64 = 100;
/// Rows that are read at a time.
const PAGE: i64 = 5_000;
/// Tasks of one statement: on SQLite each goes through what all reports answer.
const TASKS: usize = 1_000;
/// How long the id of a message is remembered. Whoever was away for longer and sends again what it was never told is stored
/// may have it stored twice; observations and verdicts are as they were all the same.
const MESSAGES: SignedDuration = SignedDuration::from_hours(24 * 90);

/// Whether an evaluation that is kept was decided while the observation held, or has it as its evidence. `evaluated` stands for
/// when the evaluator read.
const IS_NEEDED: &str = "EXISTS (SELECT 1 FROM evaluation WHERE (evaluation.endpoint = observation.endpoint OR evaluation.endpoint IN \
     (SELECT alias_of FROM endpoint_alias WHERE endpoint_alias.endpoint = observation.endpoint)) \
     AND COALESCE(evaluation.as_of, evaluation.evaluated) >= observation.valid_from \
     AND COALESCE(evaluation.as_of, evaluation.evaluated) < observation.valid_to) \
     OR EXISTS (SELECT 1 FROM evidence WHERE evidence.report = observation.report)";

/// What refers to rows by number.
struct Referring {
    /// All that are referred to.
    all: &'static str,
    /// How far that has come.
    last: &'static str,
    /// Those that are referred to since.
    since: &'static str,
}

const BY_OBSERVED: Referring = Referring {
    all: "SELECT DISTINCT finding AS number FROM observed",
    last: "SELECT COALESCE(MAX(id), 0) AS last FROM observed",
    since: "SELECT DISTINCT finding AS number FROM observed WHERE id > $1",
};

/// Verdicts have no numbers of their own: all are looked at again.
const BY_DECIDED: Referring = Referring {
    all: "SELECT DISTINCT decision AS number FROM decided",
    last: "SELECT CAST(0 AS BIGINT) AS last",
    since: "SELECT DISTINCT decision AS number FROM decided WHERE decision > $1",
};

impl SqlStore {
    pub(super) async fn expire_all(&self, retention: &Retention, now: Timestamp) -> Result<Expired, StoreError> {
        let verdict_count = self.expire_verdicts(before(now, retention.verdicts)).await?;
        if verdict_count > 0 {
            self.expire_numbered("decision", BY_DECIDED).await?;
        }
        let evaluation_count =
            self.expire_evaluations((before(now, retention.evaluations), before(now, retention.verdicts)), now).await?;
        // Before the observations that they go from and to.
        let change_count = self.expire_changes(retention, now).await?;
        let observation_count = self.expire_observations(retention, now).await?;
        let item_count = if observation_count > 0 { self.expire_items().await? } else { 0 };
        self.expire_streams(before(now, retention.observations)).await?;
        sqlx::query("DELETE FROM told WHERE NOT EXISTS (SELECT 1 FROM report WHERE report.id = told.report)")
            .execute(&self.writer)
            .await?;
        self.delete_some(
            "DELETE FROM message WHERE (sender, id) IN (SELECT sender, id FROM message WHERE received < $1 LIMIT $2)",
            before(now, MESSAGES),
        )
        .await?;
        Ok(Expired { observation_count, change_count, item_count, verdict_count, evaluation_count })
    }

    /// Those of these tasks that something stored answers; all of them, as long as there are reports that do not say what they
    /// answer.
    pub(super) async fn referenced_of(&self, tasks: &[ContentHash]) -> Result<Vec<ContentHash>, StoreError> {
        let mut referenced = HashSet::new();
        for some in tasks.chunks(TASKS) {
            let sql =
                format!("SELECT DISTINCT task FROM report WHERE task IS NULL OR task IN ({})", places(1, some.len()));
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
            for task in some {
                query = query.bind(task.as_str());
            }
            for row in query.fetch_all(&self.readers).await? {
                let Some(task) = row.try_get::<Option<String>, _>("task")? else { return Ok(tasks.to_vec()) };
                referenced.insert(task);
            }
        }
        Ok(tasks.iter().filter(|task| referenced.contains(task.as_str())).cloned().collect())
    }

    /// Runs a statement that deletes up to `$2` rows that are older than `$1` until there are none.
    async fn delete_some(&self, sql: &'static str, before: i64) -> Result<u64, StoreError> {
        let mut count = 0;
        loop {
            let deleted = sqlx::query(sql).bind(before).bind(ROWS).execute(&self.writer).await?.rows_affected();
            count += deleted;
            if deleted < ROWS.unsigned_abs() {
                return Ok(count);
            }
        }
    }

    async fn expire_verdicts(&self, before: i64) -> Result<u64, StoreError> {
        self.delete_some(
            "DELETE FROM decided WHERE (endpoint, policy, profile, rule, valid_from) IN \
             (SELECT endpoint, policy, profile, rule, valid_from FROM decided WHERE valid_to < $1 LIMIT $2)",
            before,
        )
        .await
    }

    /// Evaluations, but for the newest and those in which a verdict that is kept was decided. Those of earlier versions, which do
    /// not say which these are or keep verdicts of their own, stay as long as verdicts do.
    async fn expire_evaluations(
        &self,
        (before, before_verdicts): (i64, i64),
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut count = 0;
        loop {
            let mut tx = self.begin().await?;
            let rows = sqlx::query(
                "SELECT transaction_id, endpoint FROM evaluation WHERE evaluated < $1 AND (is_past <> 0 OR EXISTS \
                 (SELECT 1 FROM evaluation AS newer WHERE newer.endpoint = evaluation.endpoint \
                  AND newer.policy = evaluation.policy AND newer.profile = evaluation.profile AND newer.is_past = 0 \
                  AND newer.evaluated > evaluation.evaluated)) \
                 AND NOT EXISTS (SELECT 1 FROM verdict WHERE verdict.endpoint = evaluation.endpoint \
                  AND verdict.transaction_id = evaluation.transaction_id) \
                 AND (evaluated < $3 OR NOT EXISTS (SELECT 1 FROM verdict WHERE verdict.endpoint = evaluation.endpoint \
                  AND verdict.policy = evaluation.policy AND verdict.profile = evaluation.profile \
                  AND verdict.valid_from = evaluation.evaluated AND verdict.transaction_id IS NULL)) \
                 AND (evaluated < $3 OR is_past <> 0 OR NOT EXISTS (SELECT 1 FROM result WHERE \
                  result.transaction_id = evaluation.transaction_id AND result.endpoint = evaluation.endpoint)) LIMIT $2",
            )
            .bind(before)
            .bind(EVALUATIONS)
            .bind(before_verdicts)
            .fetch_all(&mut *tx)
            .await?;
            for row in &rows {
                delete_evaluation(&mut tx, row, now).await?;
            }
            tx.commit().await?;
            for row in &rows {
                self.names.forget(row.try_get("transaction_id")?);
            }
            count += rows.len() as u64;
            if rows.len() as u64 != EVALUATIONS.unsigned_abs() {
                return Ok(count);
            }
        }
    }

    async fn expire_changes(&self, retention: &Retention, now: Timestamp) -> Result<u64, StoreError> {
        let (age, first) = age_of(retention, 2);
        let sql = format!(
            "DELETE FROM change WHERE id IN (SELECT change.id FROM change JOIN name ON name.id = change.object \
             LEFT JOIN object_kind ON object_kind.object = name.text WHERE change.collected < {age} \
             AND change.collected < $1 LIMIT ${first})"
        );
        let mut count = 0;
        loop {
            let query = sqlx::query(sqlx::AssertSqlSafe(sql.as_str())).bind(youngest(retention, now));
            let deleted = bind_ages(query, retention, now).bind(ROWS).execute(&self.writer).await?.rows_affected();
            count += deleted;
            if deleted < ROWS.unsigned_abs() {
                return Ok(count);
            }
        }
    }

    async fn expire_observations(&self, retention: &Retention, now: Timestamp) -> Result<u64, StoreError> {
        let (age, first) = age_of(retention, 2);
        let old = format!(
            "SELECT observation.id AS id FROM observation \
             LEFT JOIN object_kind ON object_kind.object = observation.object \
             WHERE observation.valid_to < $1 AND observation.valid_to < {age} AND observation.id > ${first} \
             AND NOT ({IS_NEEDED}) ORDER BY observation.id LIMIT ${}",
            first + 1
        );
        let (mut count, mut last) = (0, i64::MIN);
        loop {
            let query = sqlx::query(sqlx::AssertSqlSafe(old.as_str())).bind(youngest(retention, now));
            let rows = bind_ages(query, retention, now).bind(last).bind(ROWS).fetch_all(&self.readers).await?;
            for some in rows.chunks(BATCH) {
                let ids: Vec<i64> = some.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
                last = ids.last().copied().unwrap_or(last);
                let mut tx = self.begin().await?;
                // A verdict that rests on it may have come in since.
                let sql = format!(
                    "DELETE FROM observed WHERE id IN (SELECT id FROM observation WHERE id IN ({}) AND NOT ({IS_NEEDED})) \
                     RETURNING report",
                    places(1, ids.len())
                );
                let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
                for id in &ids {
                    query = query.bind(*id);
                }
                let gone = query.fetch_all(&mut *tx).await?;
                count += gone.len() as u64;
                let reports = gone.iter().filter_map(|row| row.try_get::<Option<i64>, _>("report").transpose());
                let reports: HashSet<i64> = reports.collect::<Result<_, _>>()?;
                release(&mut tx, &reports.into_iter().collect::<Vec<_>>(), now).await?;
                tx.commit().await?;
            }
            if rows.len() as u64 != ROWS.unsigned_abs() {
                return Ok(count);
            }
        }
    }

    /// Findings that no observation refers to, and items that no finding does. Findings name items in lists: all of them are read,
    /// and what is named is remembered by a hash; where two hashes are the same, an item stays that could go.
    async fn expire_items(&self) -> Result<u64, StoreError> {
        self.expire_numbered("finding", BY_OBSERVED).await?;
        let mut tx = self.locked().await?;
        // Whoever stores a finding has stored its items before, and has its number after: up to here all are seen.
        let row = sqlx::query("SELECT COALESCE(MAX(id), 0) AS last FROM finding").fetch_one(&mut *tx).await?;
        let last: i64 = row.try_get("last")?;
        tx.commit().await?;
        let mut named = HashSet::new();
        let mut at = i64::MIN;
        loop {
            let rows = sqlx::query("SELECT id, items FROM finding WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3")
                .bind(at)
                .bind(last)
                .bind(PAGE)
                .fetch_all(&self.readers)
                .await?;
            name(&mut named, &rows)?;
            let Some(row) = rows.last() else { break };
            at = row.try_get("id")?;
        }
        let (mut count, mut after) = (0, String::new());
        loop {
            let rows = sqlx::query("SELECT hash FROM item WHERE hash > $1 ORDER BY hash LIMIT $2")
                .bind(after)
                .bind(PAGE)
                .fetch_all(&self.readers)
                .await?;
            let hashes: Vec<String> = rows.iter().map(|row| row.try_get("hash")).collect::<Result<_, _>>()?;
            let Some(last_hash) = hashes.last().cloned() else { return Ok(count) };
            after = last_hash;
            let unnamed: Vec<&String> = hashes.iter().filter(|hash| !named.contains(&short(hash))).collect();
            if unnamed.is_empty() {
                continue;
            }
            let mut tx = self.locked().await?;
            let since =
                sqlx::query("SELECT id, items FROM finding WHERE id > $1").bind(last).fetch_all(&mut *tx).await?;
            name(&mut named, &since)?;
            let unnamed: Vec<&String> = unnamed.into_iter().filter(|hash| !named.contains(&short(hash))).collect();
            for some in unnamed.chunks(BATCH) {
                let sql = format!("DELETE FROM item WHERE hash IN ({})", places(1, some.len()));
                let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
                for hash in some {
                    query = query.bind(hash.as_str());
                }
                count += query.execute(&mut *tx).await?.rows_affected();
            }
            tx.commit().await?;
        }
    }

    /// Rows of a table of what is kept once, by number, that nothing refers to.
    async fn expire_numbered(&self, table: &'static str, referring: Referring) -> Result<(), StoreError> {
        let Referring { all, last, since } = referring;
        let mut tx = self.locked().await?;
        // Whoever refers to a row does so in a row that is numbered after it has the row: up to here all are seen.
        let last: i64 = sqlx::query(last).fetch_one(&mut *tx).await?.try_get("last")?;
        tx.commit().await?;
        let is_used = |rows: Vec<Row>| -> Result<HashSet<i64>, sqlx::Error> {
            rows.iter().map(|row| row.try_get("number")).collect()
        };
        let used = is_used(sqlx::query(all).fetch_all(&self.readers).await?)?;
        let mut at = i64::MIN;
        loop {
            let page = format!("SELECT id FROM {table} WHERE id > $1 ORDER BY id LIMIT $2");
            let rows = sqlx::query(sqlx::AssertSqlSafe(page)).bind(at).bind(PAGE).fetch_all(&self.readers).await?;
            let ids: Vec<i64> = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
            let Some(last_id) = ids.last().copied() else { return Ok(()) };
            at = last_id;
            let unused: Vec<i64> = ids.into_iter().filter(|id| !used.contains(id)).collect();
            if unused.is_empty() {
                continue;
            }
            let mut tx = self.locked().await?;
            let used = is_used(sqlx::query(since).bind(last).fetch_all(&mut *tx).await?)?;
            let unused: Vec<i64> = unused.into_iter().filter(|id| !used.contains(id)).collect();
            for some in unused.chunks(BATCH) {
                let sql = format!("DELETE FROM {table} WHERE id IN ({})", places(1, some.len()));
                let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
                for id in some {
                    query = query.bind(*id);
                }
                query.execute(&mut *tx).await?;
            }
            tx.commit().await?;
        }
    }

    /// A transaction beside which nobody stores what is kept once.
    async fn locked(&self) -> Result<Tx, StoreError> {
        let mut tx = self.begin().await?;
        if let Some(lock) = LOCK_CONTENT {
            sqlx::query(lock).execute(&mut *tx).await?;
        }
        Ok(tx)
    }

    /// Epochs that others have followed.
    async fn expire_streams(&self, before: i64) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM stream WHERE begun < $1 AND EXISTS (SELECT 1 FROM stream AS newer WHERE newer.origin = stream.origin \
             AND newer.observation = stream.observation AND newer.begun > stream.begun)",
        )
        .bind(before)
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}

/// The time before which rows of a kind are old, in SQL whose places begin there, and the first place after them.
fn age_of(retention: &Retention, first: usize) -> (String, usize) {
    let count = retention.observations_of.len();
    if count == 0 {
        return (format!("${first}"), first + 1);
    }
    let cases: Vec<String> =
        (0..count).map(|at| format!("WHEN ${} THEN ${}", first + 1 + 2 * at, first + 2 + 2 * at)).collect();
    (format!("CASE object_kind.kind {} ELSE ${first} END", cases.join(" ")), first + 1 + 2 * count)
}

fn bind_ages<'query>(query: Query<'query>, retention: &'query Retention, now: Timestamp) -> Query<'query> {
    let mut query = query.bind(before(now, retention.observations));
    for (kind, age) in &retention.observations_of {
        query = query.bind(kind.as_str()).bind(before(now, *age));
    }
    query
}

/// The latest time before which anything is old.
fn youngest(retention: &Retention, now: Timestamp) -> i64 {
    let ages = retention.observations_of.values().chain([&retention.observations]);
    ages.map(|age| before(now, *age)).max().unwrap_or(i64::MIN)
}

fn short(hash: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(hash)
}

fn name(named: &mut HashSet<u64>, rows: &[Row]) -> Result<(), StoreError> {
    for row in rows {
        let hashes: Vec<String> = unjson(row.try_get::<&str, _>("items")?)?;
        named.extend(hashes.iter().map(|hash| short(hash)));
    }
    Ok(())
}

/// These may have lost the last that refers to them: if so, they go with those that were replaced.
async fn release(tx: &mut Tx, reports: &[i64], now: Timestamp) -> Result<(), StoreError> {
    for some in reports.chunks(BATCH) {
        let sql =
            format!("UPDATE report SET released = $1 WHERE released IS NULL AND id IN ({})", places(2, some.len()));
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(now.as_microsecond());
        for report in some {
            query = query.bind(*report);
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// An evaluation with its messages; what these rested on is let go of.
async fn delete_evaluation(tx: &mut Tx, row: &Row, now: Timestamp) -> Result<(), StoreError> {
    let (transaction, endpoint): (&str, &str) = (row.try_get("transaction_id")?, row.try_get("endpoint")?);
    let parts = "SELECT report FROM evaluation_part WHERE transaction_id = $1 AND endpoint = $2";
    // A message about many endpoints stays as long as it is needed for one of them.
    let own = format!(
        "verdicts IN ({parts}) AND (evidence.endpoint = $2 OR evidence.endpoint IS NULL AND NOT EXISTS \
         (SELECT 1 FROM evaluation_part WHERE evaluation_part.report = evidence.verdicts AND evaluation_part.endpoint <> $2))"
    );
    let sql = format!("SELECT id FROM report WHERE hash IN (SELECT report FROM evidence WHERE {own})");
    let rested = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(transaction).bind(endpoint).fetch_all(&mut **tx).await?;
    let rested: Vec<i64> = rested.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    for sql in [
        format!("DELETE FROM evidence WHERE {own}"),
        format!(
            "DELETE FROM report WHERE hash IN ({parts}) AND NOT EXISTS (SELECT 1 FROM evaluation_part \
             WHERE evaluation_part.report = report.hash AND evaluation_part.endpoint <> $2)"
        ),
        "DELETE FROM evaluation_part WHERE transaction_id = $1 AND endpoint = $2".to_owned(),
        "DELETE FROM result WHERE transaction_id = $1 AND endpoint = $2".to_owned(),
        "DELETE FROM evaluation WHERE transaction_id = $1 AND endpoint = $2".to_owned(),
        "DELETE FROM name WHERE text = $1 AND $2 = $2 AND NOT EXISTS (SELECT 1 FROM evaluation WHERE transaction_id = $1) \
         AND NOT EXISTS (SELECT 1 FROM decided WHERE decided.transaction_id = name.id)"
            .to_owned(),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(transaction).bind(endpoint).execute(&mut **tx).await?;
    }
    release(tx, &rested, now).await
}
