//! Verdicts: what holds now, since when, and what held; for whichever back end includes this file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::id::EndpointId;
use proto::limits::RESULT_PART_BYTES;
use proto::message::{
    About, EvaluationResults, Message as _, ResultsRequest, ResultsResponse, ResultsSelection, StaleEndpoint,
    StalenessResponse,
};
use proto::plan::ObjectKey;
use proto::verdict::{EvaluationSummary, RuleResult, Verdict};
use sqlx::Row as _;

use super::super::super::{Received, Report, StoreError, Stored, endpoint_text, json, time, unjson};
use super::super::{Database, mark};
use super::names::ByHash;
use super::observations::{BATCH, NAMED_MAX, marks, rows_of};
use super::{ALIASES, SqlStore, Tx, is_first, overtaken, reports, share};

type Row = <Database as sqlx::Database>::Row;

/// Evaluations on a page.
const PAGE_EVALUATIONS_MAX: i64 = 500;
/// A policy of which nothing is said: of versions before it.
const NO_CONTENT: &str = "";

/// A verdict that is current.
struct Current {
    position: i64,
    decided: i64,
    decision: i64,
    content: i64,
    since: i64,
}

/// What a current verdict says.
struct Said {
    verdict: String,
    /// What it came to, where the hash of that is not known.
    result: Option<String>,
}

/// Which verdicts belong together.
#[derive(Clone, Copy)]
struct Key<'key> {
    endpoint: &'key str,
    policy: &'key str,
    profile: &'key str,
}

/// The same in numbers, with the policy's content and the evaluation, and each rule.
struct Numbers {
    endpoint: i64,
    policy: i64,
    profile: i64,
    content: i64,
    transaction: i64,
    rules: Vec<i64>,
}

impl SqlStore {
    pub(super) async fn record_verdicts(
        &self,
        results: &EvaluationResults,
        from: Received,
        report: &Report,
    ) -> Result<Stored, StoreError> {
        let numbers = match results.about.as_ref().filter(|about| about.is_current) {
            Some(about) => Some(self.numbers_of(results, about, from).await?),
            None => None,
        };
        let mut tx = self.begin().await?;
        share(&mut tx).await?;
        if !is_first(&mut tx, from).await? {
            return Ok(Stored::Again);
        }
        reports::keep(&mut tx, report, EvaluationResults::KIND, results.task.as_ref(), from).await?;
        for evidence in &results.evidence {
            sqlx::query("INSERT INTO evidence (verdicts, report) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(report.hash.as_str())
                .bind(evidence.report.as_str())
                .execute(&mut *tx)
                .await?;
        }
        let (transaction, endpoint) = (from.transaction.to_string(), endpoint_text(results.endpoint));
        sqlx::query(
            "INSERT INTO evaluation_part (transaction_id, endpoint, part, report) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (transaction_id, endpoint, part) DO UPDATE SET report = excluded.report",
        )
        .bind(&transaction)
        .bind(&endpoint)
        .bind(i64::from(results.part))
        .bind(report.hash.as_str())
        .execute(&mut *tx)
        .await?;
        let (results, is_current) = overtaken::placed(&mut tx, &endpoint, results, from).await?;
        let results = &*results;
        let about = results.about.as_ref().filter(|about| about.is_current);
        let change_count = match about.zip(numbers.as_ref()).filter(|_| is_current) {
            Some((about, numbers)) => self.hold(&mut tx, numbers, about, results).await?,
            None => keep(&mut tx, &transaction, &endpoint, results, report).await?,
        };
        if let Some(summary) = &results.summary {
            // Verdicts of versions that do not say when they were decided are the latest until others come.
            let is_past = results.about.is_some() && !is_current;
            sqlx::query(
                "INSERT INTO evaluation (transaction_id, endpoint, policy, profile, evaluated, summary, is_past, is_partial, as_of) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                 ON CONFLICT (transaction_id, endpoint) DO UPDATE SET evaluated = excluded.evaluated, summary = excluded.summary, \
                 is_past = excluded.is_past, is_partial = excluded.is_partial, as_of = excluded.as_of WHERE excluded.evaluated >= evaluation.evaluated",
            )
            .bind(&transaction)
            .bind(&endpoint)
            .bind(&summary.policy)
            .bind(&summary.profile)
            .bind(summary.evaluated.as_microsecond())
            .bind(json(summary))
            .bind(i64::from(is_past))
            .bind(i64::from(summary.is_partial))
            .bind(summary.as_of.map(Timestamp::as_microsecond))
            .execute(&mut *tx)
            .await?;
        }
        if let Some((about, numbers)) = about.zip(numbers).filter(|(about, _)| is_current && !about.is_partial) {
            let there = sqlx::query("SELECT count(*) FROM evaluation_part WHERE transaction_id = $1 AND endpoint = $2")
                .bind(&transaction)
                .bind(&endpoint)
                .fetch_one(&mut *tx)
                .await?;
            if there.try_get::<i64, _>(0)? >= i64::from(about.part_count) {
                // Rules that the policy does not have any more.
                sqlx::query(
                    "UPDATE decided SET valid_to = $4 WHERE endpoint = $1 AND policy = $2 AND profile = $3 \
                     AND valid_to IS NULL AND content <> $5 AND decided <= $4",
                )
                .bind(numbers.endpoint)
                .bind(numbers.policy)
                .bind(numbers.profile)
                .bind(about.evaluated.as_microsecond())
                .bind(numbers.content)
                .execute(&mut *tx)
                .await?;
            }
        }
        tx.commit().await?;
        Ok(Stored::New { change_count, changed: Vec::new() })
    }

    async fn numbers_of(
        &self,
        results: &EvaluationResults,
        about: &About,
        from: Received,
    ) -> Result<Numbers, StoreError> {
        let (endpoint, transaction) = (endpoint_text(results.endpoint), from.transaction.to_string());
        let content = about.content.as_ref().map_or(NO_CONTENT, ContentHash::as_str);
        let rules = results.results.iter().map(|result| result.rule.as_str());
        let names = [endpoint.as_str(), &about.policy, &about.profile, content, &transaction];
        let names: Vec<&str> = names.into_iter().chain(rules).collect();
        let mut numbers = self.numbers(&names).await?;
        let rules = numbers.split_off(5);
        Ok(Numbers {
            endpoint: numbers[0],
            policy: numbers[1],
            profile: numbers[2],
            content: numbers[3],
            transaction: numbers[4],
            rules,
        })
    }

    pub(super) async fn newest_of(
        &self,
        endpoint: EndpointId,
        policy: &str,
        profile: &str,
    ) -> Result<Option<EvaluationSummary>, StoreError> {
        let row = sqlx::query(
            "SELECT summary FROM evaluation WHERE endpoint = $1 AND policy = $2 AND profile = $3 AND is_past = 0 \
             ORDER BY evaluated DESC LIMIT 1",
        )
        .bind(endpoint_text(endpoint))
        .bind(policy)
        .bind(profile)
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| unjson(&row.try_get::<String, _>("summary")?)).transpose()
    }

    pub(super) async fn stale_of(
        &self,
        endpoints: &[EndpointId],
        objects: &BTreeSet<ObjectKey>,
        collected_since: Timestamp,
    ) -> Result<StalenessResponse, StoreError> {
        let mut response = StalenessResponse { stale: Vec::new(), answered: 0 };
        let mut bytes = 0;
        let sql = format!(
            "SELECT DISTINCT object FROM observation WHERE endpoint IN ({ALIASES}) AND valid_to IS NULL AND last_seen >= $2"
        );
        for endpoint in endpoints {
            if bytes > RESULT_PART_BYTES {
                break;
            }
            response.answered += 1;
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql.as_str()))
                .bind(endpoint_text(*endpoint))
                .bind(collected_since.as_microsecond())
                .fetch_all(&self.pool)
                .await?;
            let fresh: BTreeSet<ObjectKey> =
                rows.iter().map(|row| row.try_get("object").map(ObjectKey)).collect::<Result<_, _>>()?;
            let mut stale: Vec<ObjectKey> = objects.difference(&fresh).cloned().collect();
            if stale.is_empty() {
                continue;
            }
            if stale.len() == objects.len() {
                stale.clear();
            }
            bytes += 60 + stale.iter().map(|object| object.0.len() + 3).sum::<usize>();
            response.stale.push(StaleEndpoint { endpoint: *endpoint, objects: stale });
        }
        Ok(response)
    }

    pub(super) async fn results_page(&self, request: &ResultsRequest) -> Result<ResultsResponse, StoreError> {
        let rows = self.evaluations(request).await?;
        let is_full = i64::try_from(rows.len()).is_ok_and(|count| count >= PAGE_EVALUATIONS_MAX);
        let aliases = self.aliases().await?;
        let mut response = ResultsResponse { summaries: Vec::new(), results: Vec::new(), is_cut: false, next: None };
        let mut bytes = 0;
        let mut last = None;
        for row in rows {
            if bytes > 2 * RESULT_PART_BYTES {
                (response.is_cut, response.next) = (true, last);
                return Ok(response);
            }
            let (transaction, endpoint, policy, profile): (String, String, String, String) = (
                row.try_get("transaction_id")?,
                row.try_get("endpoint")?,
                row.try_get("policy")?,
                row.try_get("profile")?,
            );
            last = Some(cursor(&endpoint, &policy, &profile));
            if aliases.contains_key(&endpoint) && self.is_overshadowed(&aliases, &row).await? {
                continue;
            }
            let summary: EvaluationSummary = unjson(&row.try_get::<String, _>("summary")?)?;
            bytes += 800;
            if !request.only_summaries {
                let key = Key { endpoint: &endpoint, policy: &policy, profile: &profile };
                let results = self.results_of(&transaction, key, &summary).await?;
                let is_wanted =
                    |result: &RuleResult| request.verdicts.is_empty() || request.verdicts.contains(&result.verdict);
                let results: Vec<RuleResult> = results.into_iter().filter(is_wanted).collect();
                bytes += results.iter().map(|result| json(result).len()).sum::<usize>();
                response.results.push(results);
            }
            response.summaries.push(summary);
        }
        response.next = last.filter(|_| is_full);
        response.is_cut = response.next.is_some();
        Ok(response)
    }

    /// The evaluations that are asked for, a page of them.
    async fn evaluations(&self, request: &ResultsRequest) -> Result<Vec<Row>, StoreError> {
        // Of each endpoint, policy and profile the newest that says what holds now.
        let newest = "evaluation.is_past = 0 AND evaluation.evaluated = (SELECT MAX(other.evaluated) FROM evaluation AS other \
                      WHERE other.endpoint = evaluation.endpoint AND other.policy = evaluation.policy \
                      AND other.profile = evaluation.profile AND other.is_past = 0)";
        let which = match &request.selection {
            ResultsSelection::Latest => newest.to_owned(),
            ResultsSelection::Endpoint(_) => format!("{newest} AND endpoint IN ({ALIASES})"),
            ResultsSelection::Transaction(_) => "transaction_id = $1".to_owned(),
        };
        let sql = format!(
            "SELECT transaction_id, endpoint, policy, profile, evaluated, summary FROM evaluation WHERE {which} \
             AND (endpoint || ' ' || policy || ' ' || profile) > $2 AND $1 = $1 \
             ORDER BY endpoint || ' ' || policy || ' ' || profile LIMIT $3"
        );
        let about = match &request.selection {
            ResultsSelection::Latest => String::new(),
            ResultsSelection::Endpoint(endpoint) => endpoint_text(*endpoint),
            ResultsSelection::Transaction(transaction) => transaction.to_string(),
        };
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(about)
            .bind(request.after.clone().unwrap_or_default())
            .bind(PAGE_EVALUATIONS_MAX)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows)
    }

    /// Whether what an endpoint was merged into has a newer evaluation: then that is the newest of both.
    async fn is_overshadowed(&self, aliases: &BTreeMap<String, String>, row: &Row) -> Result<bool, StoreError> {
        let of = aliases.get(&row.try_get::<String, _>("endpoint")?).cloned().unwrap_or_default();
        let newer = sqlx::query(
            "SELECT 1 FROM evaluation WHERE endpoint = $1 AND policy = $2 AND profile = $3 AND is_past = 0 AND evaluated >= $4",
        )
        .bind(of)
        .bind(row.try_get::<String, _>("policy")?)
        .bind(row.try_get::<String, _>("profile")?)
        .bind(row.try_get::<i64, _>("evaluated")?)
        .fetch_optional(&self.pool)
        .await?;
        Ok(newer.is_some())
    }

    /// What one evaluation decided: what was kept of it by itself, or what held when it was made.
    async fn results_of(
        &self,
        transaction: &str,
        key: Key<'_>,
        summary: &EvaluationSummary,
    ) -> Result<Vec<RuleResult>, StoreError> {
        let kept =
            sqlx::query("SELECT result FROM result WHERE transaction_id = $1 AND endpoint = $2 ORDER BY position")
                .bind(transaction)
                .bind(key.endpoint)
                .fetch_all(&self.pool)
                .await?;
        let kept: Vec<RuleResult> =
            kept.iter().map(|row| unjson(&row.try_get::<String, _>("result")?)).collect::<Result<_, StoreError>>()?;
        let decided = summary.counts.iter().filter(|(verdict, _)| *verdict != Verdict::NotSelected);
        if !kept.is_empty() && kept.len() as u64 >= decided.map(|(_, count)| count).sum::<u64>() {
            return Ok(kept);
        }
        let mut kept: BTreeMap<String, RuleResult> =
            kept.into_iter().map(|result| (result.rule.clone(), result)).collect();
        let held = sqlx::query(
            "SELECT result, since FROM verdict WHERE endpoint = $1 AND policy = $2 AND profile = $3 \
             AND valid_from <= $4 AND (valid_to IS NULL OR valid_to > $4) ORDER BY position, rule",
        )
        .bind(key.endpoint)
        .bind(key.policy)
        .bind(key.profile)
        .bind(summary.evaluated.as_microsecond())
        .fetch_all(&self.pool)
        .await?;
        let mut results = Vec::with_capacity(held.len());
        for row in held {
            let result: RuleResult = unjson(&row.try_get::<String, _>("result")?)?;
            // What was kept of it by itself, because it was overtaken on its way, is what it said.
            results.push(match kept.remove(&result.rule) {
                Some(kept) => kept,
                None => RuleResult { since: Some(time(row.try_get("since")?)?), ..result },
            });
        }
        results.extend(kept.into_values());
        Ok(results)
    }
}

/// Where a page ends.
fn cursor(endpoint: &str, policy: &str, profile: &str) -> String {
    format!("{endpoint} {policy} {profile}")
}

/// A rule as it was decided now, and as it was.
struct Meant<'results> {
    at: usize,
    rule: i64,
    result: &'results RuleResult,
    text: String,
    hash: ContentHash,
    before: Option<Current>,
}

impl SqlStore {
    /// Verdicts that hold from now on: what is as it was is not written again.
    async fn hold(
        &self,
        tx: &mut Tx,
        numbers: &Numbers,
        about: &About,
        results: &EvaluationResults,
    ) -> Result<u64, StoreError> {
        let mut known = current(tx, numbers).await?;
        let hashes = known.values().map(|current| current.decision).collect();
        let hashes = self.hashes(&mut *tx, "decision", hashes).await?;
        // A rule that is there twice is decided once.
        let mut seen = HashSet::new();
        let evaluated = about.evaluated.as_microsecond();
        let (mut others, mut confirmed) = (Vec::new(), Vec::new());
        for (at, (result, rule)) in results.results.iter().zip(&numbers.rules).enumerate() {
            if !seen.insert(*rule) {
                continue;
            }
            let before = known.remove(rule);
            // Decided later, by an evaluation of what has changed.
            if before.as_ref().is_some_and(|before| before.decided > evaluated) {
                continue;
            }
            let text = json(&RuleResult { since: None, ..result.clone() });
            let hash = ContentHash::of(text.as_bytes());
            let is_same = |before: &Current| {
                before.content == numbers.content
                    && hashes.get(&before.decision).is_some_and(|known| **known == *hash.as_str())
            };
            if before.as_ref().is_some_and(is_same) {
                confirmed.push(*rule);
            } else {
                others.push(Meant { at, rule: *rule, result, text, hash, before });
            }
        }
        let rows = others.iter().map(|meant| (meant.hash.as_str(), [meant.result.verdict.as_str(), &meant.text]));
        let by_hash = ByHash { table: "decision", columns: ["verdict", "result"], rows: rows.collect() };
        let decisions = by_hash.numbers(tx).await?;
        let said = said(tx, &others).await?;
        let (mut change_count, mut fresh, mut ended) = (0, Vec::new(), Vec::new());
        for Meant { at, rule, result, text, hash, before } in &others {
            let decision = decisions.get(hash.as_str()).copied();
            let decision = decision.ok_or_else(|| StoreError::Damaged("a decision is not there".to_owned()))?;
            let said = before.as_ref().and_then(|before| said.get(&before.decision));
            let is_same = before.as_ref().is_some_and(|before| before.decision == decision)
                || said.is_some_and(|said| said.result.as_ref() == Some(text));
            if is_same && before.as_ref().is_some_and(|before| before.content == numbers.content) {
                confirmed.push(*rule);
                continue;
            }
            let is_same_verdict = said.is_some_and(|said| said.verdict == result.verdict.as_str());
            change_count += u64::from(!is_same_verdict);
            let since = before.as_ref().filter(|_| is_same_verdict).map_or(evaluated, |before| before.since);
            if before.is_some() {
                ended.push(*rule);
            }
            let position = i64::from(results.part) * 100_000 + i64::try_from(*at).unwrap_or(i64::MAX);
            // A part keeps the places of the whole.
            let position = before.as_ref().filter(|_| about.is_partial).map_or(position, |before| before.position);
            fresh.push((*rule, position, decision, since));
        }
        set(tx, numbers, "valid_to", &ended, evaluated).await?;
        if about.is_partial {
            set(tx, numbers, "decided", &confirmed, evaluated).await?;
        }
        begin(tx, numbers, &fresh, evaluated).await?;
        Ok(change_count)
    }
}

/// Begins intervals: rules with their positions, decisions, and since when the verdict is the same.
async fn begin(
    tx: &mut Tx,
    numbers: &Numbers,
    fresh: &[(i64, i64, i64, i64)],
    evaluated: i64,
) -> Result<(), StoreError> {
    for some in fresh.chunks(BATCH) {
        let sql = format!(
            "INSERT INTO decided (endpoint, policy, profile, rule, position, decision, content, since, decided, valid_from, \
             transaction_id) VALUES {} ON CONFLICT (endpoint, policy, profile, rule, valid_from) DO UPDATE SET \
             position = excluded.position, decision = excluded.decision, content = excluded.content, \
             decided = excluded.decided, transaction_id = excluded.transaction_id, valid_to = NULL",
            rows_of(some.len(), 11)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (rule, position, decision, since) in some {
            query = query
                .bind(numbers.endpoint)
                .bind(numbers.policy)
                .bind(numbers.profile)
                .bind(*rule)
                .bind(*position)
                .bind(*decision)
                .bind(numbers.content)
                .bind(*since)
                .bind(evaluated)
                .bind(evaluated)
                .bind(numbers.transaction);
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// What the verdicts of before say, by their decisions' numbers.
async fn said(tx: &mut Tx, meant: &[Meant<'_>]) -> Result<HashMap<i64, Said>, StoreError> {
    let decisions: BTreeSet<i64> =
        meant.iter().filter_map(|meant| meant.before.as_ref()).map(|before| before.decision).collect();
    let decisions: Vec<i64> = decisions.into_iter().collect();
    let mut said = HashMap::with_capacity(decisions.len());
    for some in decisions.chunks(BATCH) {
        let sql = format!(
            "SELECT id, verdict, CASE WHEN hash LIKE 'earlier %' THEN result END AS result FROM decision WHERE id IN ({})",
            marks(1, some.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for decision in some {
            query = query.bind(*decision);
        }
        for row in query.fetch_all(&mut **tx).await? {
            said.insert(row.try_get("id")?, Said { verdict: row.try_get("verdict")?, result: row.try_get("result")? });
        }
    }
    Ok(said)
}

/// Sets a column of these rules' current verdicts to a time.
async fn set(tx: &mut Tx, numbers: &Numbers, column: &'static str, rules: &[i64], time: i64) -> Result<(), StoreError> {
    for some in rules.chunks(BATCH) {
        let sql = format!(
            "UPDATE decided SET {column} = {} WHERE endpoint = {} AND policy = {} AND profile = {} \
             AND valid_to IS NULL AND rule IN ({})",
            mark(1),
            mark(2),
            mark(3),
            mark(4),
            marks(5, some.len())
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(time);
        let mut query = query.bind(numbers.endpoint).bind(numbers.policy).bind(numbers.profile);
        for rule in some {
            query = query.bind(*rule);
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

async fn current(tx: &mut Tx, numbers: &Numbers) -> Result<HashMap<i64, Current>, StoreError> {
    // Many are read faster without their names.
    let rules = if numbers.rules.len() > NAMED_MAX { &[] } else { numbers.rules.as_slice() };
    let which = if rules.is_empty() { String::new() } else { format!(" AND rule IN ({})", marks(4, rules.len())) };
    let sql = format!(
        "SELECT rule, position, decided, decision, content, since FROM decided \
         WHERE endpoint = {} AND policy = {} AND profile = {} AND valid_to IS NULL{which}",
        mark(1),
        mark(2),
        mark(3),
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(sql));
    let mut query = query.bind(numbers.endpoint).bind(numbers.policy).bind(numbers.profile);
    for rule in rules {
        query = query.bind(*rule);
    }
    let rows = query.fetch_all(&mut **tx).await?;
    rows.iter()
        .map(|row| {
            let current = Current {
                position: row.try_get("position")?,
                decided: row.try_get("decided")?,
                decision: row.try_get("decision")?,
                content: row.try_get("content")?,
                since: row.try_get("since")?,
            };
            Ok((row.try_get("rule")?, current))
        })
        .collect()
}

/// Verdicts that say nothing of what holds now.
async fn keep(
    tx: &mut Tx,
    transaction: &str,
    endpoint: &str,
    results: &EvaluationResults,
    report: &Report,
) -> Result<u64, StoreError> {
    for (at, result) in results.results.iter().enumerate() {
        let position = i64::from(results.part) * 100_000 + i64::try_from(at).unwrap_or(i64::MAX);
        // The same evaluation done twice, by an evaluator that was killed, counts once.
        sqlx::query(
            "INSERT INTO result (transaction_id, endpoint, rule, position, verdict, result, report) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (transaction_id, endpoint, rule) DO UPDATE SET position = excluded.position, \
             verdict = excluded.verdict, result = excluded.result, report = excluded.report",
        )
        .bind(transaction)
        .bind(endpoint)
        .bind(&result.rule)
        .bind(position)
        .bind(result.verdict.as_str())
        .bind(json(result))
        .bind(report.hash.as_str())
        .execute(&mut **tx)
        .await?;
    }
    Ok(results.results.len() as u64)
}
