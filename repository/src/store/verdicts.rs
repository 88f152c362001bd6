//! Verdicts: what holds now, since when, and what held; for whichever back end includes this file.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proto::id::EndpointId;
use proto::limits::RESULT_PART_BYTES;
use proto::message::{ResultsRequest, ResultsResponse, ResultsSelection, StaleEndpoint, StalenessResponse};
use proto::plan::ObjectKey;
use proto::verdict::{EvaluationSummary, RuleResult, Verdict};
use sqlx::Row as _;

use super::super::super::{StoreError, endpoint_text, json, time, unjson};
use super::statement::rows_of;
use super::{ALIASES, Row, SqlStore};

/// Evaluations on a page.
const PAGE_EVALUATIONS_MAX: i64 = 500;

/// Which verdicts belong together.
#[derive(Clone, Copy)]
struct Key<'key> {
    endpoint: &'key str,
    policy: &'key str,
    profile: &'key str,
}

impl SqlStore {
    pub(super) async fn newest_of(
        &self,
        endpoints: &[EndpointId],
        policy: &str,
        profile: &str,
    ) -> Result<Vec<Option<EvaluationSummary>>, StoreError> {
        let [policy_at, profile_at] = [1, 2].map(|at| 2 * endpoints.len() + at);
        let sql = format!(
            "SELECT asked.column1 AS at, (SELECT summary FROM evaluation WHERE endpoint = asked.column2 AND policy = ${policy_at} \
             AND profile = ${profile_at} AND is_past = 0 ORDER BY evaluated DESC LIMIT 1) AS summary FROM (VALUES {}) AS asked",
            rows_of(endpoints.len(), 2)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (at, endpoint) in (0_i64..).zip(endpoints) {
            query = query.bind(at).bind(endpoint_text(*endpoint));
        }
        let mut found: BTreeMap<i64, Row> = BTreeMap::new();
        for row in query.bind(policy).bind(profile).fetch_all(&self.readers).await? {
            found.insert(row.try_get("at")?, row);
        }
        let (mut newest, mut bytes) = (Vec::with_capacity(found.len()), 0);
        for row in found.into_values() {
            if bytes > RESULT_PART_BYTES {
                break;
            }
            let summary: Option<&str> = row.try_get("summary")?;
            bytes += summary.map_or(0, str::len);
            newest.push(summary.map(unjson).transpose()?);
        }
        Ok(newest)
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
                .fetch_all(&self.readers)
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
            .fetch_all(&self.readers)
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
        .fetch_optional(&self.readers)
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
        let kept = sqlx::query(
            "SELECT result FROM result WHERE transaction_id = $1 AND endpoint = $2 ORDER BY position, rule",
        )
        .bind(transaction)
        .bind(key.endpoint)
        .fetch_all(&self.readers)
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
        .fetch_all(&self.readers)
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
