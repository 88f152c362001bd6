//! The SQL of the store, for whichever back end includes this file.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use oval::condition::Matcher;
use proto::content::ContentHash;
use proto::id::EndpointId;
use proto::message::{
    AttributeChange, AuditCheckpoint, ChainRequest, ChainResponse, ChangesRequest, ChangesResponse, EndpointAssignment,
    PolicyDescription, QueryRequest, QueryResponse, ResultsRequest, ResultsResponse, SearchRequest, SearchResponse,
    StalenessResponse,
};
use proto::plan::ObjectKey;
use proto::verdict::EvaluationSummary;
use sqlx::{Row as _, Transaction};
use uuid::Uuid;

use super::super::{Counts, Incoming, Received, Store, StoreError, Stored, endpoint_text, json, unjson};
use super::{BEGIN, Database, INSERT, Pool, SHARE_CONTENT};
use crate::retention::{Expired, Retention};
use statement::{BATCH, rows_of};

/// The store over pools: of connections that read, and of those that write.
#[derive(Debug, Clone)]
pub struct SqlStore {
    pub(super) readers: Pool,
    pub(super) writer: Pool,
    names: Arc<names::Names>,
    /// What this process calls itself in what others give back to it.
    process: Uuid,
}

#[path = "brief.rs"]
mod brief;
#[path = "changes.rs"]
mod changes;
#[path = "gather.rs"]
mod gather;
#[path = "identity.rs"]
mod identity;
#[path = "keep_observations.rs"]
mod keep_observations;
#[path = "keep_verdicts.rs"]
mod keep_verdicts;
#[path = "knowledge.rs"]
mod knowledge;
#[path = "names.rs"]
mod names;
#[path = "observations.rs"]
mod observations;
#[path = "overtaken.rs"]
mod overtaken;
#[path = "reports.rs"]
mod reports;
#[path = "retention.rs"]
mod retention;
#[path = "search.rs"]
mod search;
#[path = "statement.rs"]
mod statement;
#[path = "told.rs"]
mod told;
#[cfg(test)]
#[path = "upgrade.rs"]
pub(super) mod upgrade;
#[path = "verdicts.rs"]
mod verdicts;

/// An endpoint, the first parameter, and what was merged into it.
const ALIASES: &str = "SELECT CAST($1 AS TEXT) UNION ALL SELECT endpoint FROM endpoint_alias WHERE alias_of = $1";

type Tx = Transaction<'static, Database>;
type Row = <Database as sqlx::Database>::Row;
type Query<'query> = sqlx::query::Query<'query, Database, <Database as sqlx::Database>::Arguments>;

impl SqlStore {
    pub(super) fn over(readers: Pool, writer: Pool) -> Self {
        Self { readers, writer, names: Arc::default(), process: Uuid::new_v4() }
    }

    async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(self.writer.begin_with(BEGIN).await?)
    }

    /// Ends the connections.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Whether the message is new; remembers it.
async fn is_first(tx: &mut Tx, from: Received) -> Result<bool, StoreError> {
    let inserted = sqlx::query("INSERT INTO message (sender, id, received) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(from.sender.to_string())
        .bind(from.message.to_string())
        .bind(from.received.as_microsecond())
        .execute(&mut **tx)
        .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Which of these messages are new, in their order; remembers them all.
async fn firsts(tx: &mut Tx, messages: impl Iterator<Item = Received>) -> Result<Vec<bool>, StoreError> {
    let messages: Vec<(String, String, i64)> = messages
        .map(|from| (from.sender.to_string(), from.message.to_string(), from.received.as_microsecond()))
        .collect();
    // In this order: transactions beside each other never wait for each other in a circle.
    let mut sorted: Vec<_> = messages.iter().collect();
    sorted.sort_unstable_by_key(|(sender, id, _)| (id, sender));
    let mut new = HashSet::with_capacity(messages.len());
    for some in sorted.chunks(BATCH) {
        let sql = format!(
            "{INSERT} message (sender, id, received) VALUES {} ON CONFLICT DO NOTHING RETURNING sender, id",
            rows_of(some.len(), 3)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (sender, id, received) in some {
            query = query.bind(sender.as_str()).bind(id.as_str()).bind(*received);
        }
        for row in query.fetch_all(&mut **tx).await? {
            new.insert((row.try_get::<String, _>("sender")?, row.try_get::<String, _>("id")?));
        }
    }
    // One that is there twice is new once.
    Ok(messages.into_iter().map(|(sender, id, _)| new.remove(&(sender, id))).collect())
}

/// Whether the message has had its effect before.
async fn is_known(tx: &mut Tx, from: Received) -> Result<bool, StoreError> {
    let known = sqlx::query("SELECT 1 FROM message WHERE sender = $1 AND id = $2")
        .bind(from.sender.to_string())
        .bind(from.message.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(known.is_some())
}

/// What is kept once by its hash stays until the transaction ends.
async fn share(tx: &mut Tx) -> Result<(), StoreError> {
    if let Some(sql) = SHARE_CONTENT {
        sqlx::query(sql).execute(&mut **tx).await?;
    }
    Ok(())
}

fn added_nothing() -> Stored {
    Stored::New { change_count: 0, changed: Vec::new() }
}

#[async_trait]
impl Store for SqlStore {
    async fn record(&self, reports: &[Incoming<'_>]) -> Vec<Result<Stored, StoreError>> {
        self.record_each(reports).await
    }

    async fn witness(&self, told: &AuditCheckpoint, from: Received) -> Result<Vec<AuditCheckpoint>, StoreError> {
        if told.number > 0 {
            sqlx::query(
                "INSERT INTO audit_witness (orchestrator, number, hash, received) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (orchestrator, number, hash) DO NOTHING",
            )
            .bind(from.sender.to_string())
            .bind(told.number.cast_signed())
            .bind(told.hash.as_str())
            .bind(from.received.as_microsecond())
            .execute(&self.writer)
            .await?;
            return Ok(Vec::new());
        }
        // Whoever said it, the first and the latest: of a log that was written anew, the first are not in it.
        let mut known = BTreeMap::new();
        for sql in [
            "SELECT number, hash FROM audit_witness ORDER BY received, number LIMIT 500",
            "SELECT number, hash FROM audit_witness ORDER BY received DESC, number DESC LIMIT 500",
        ] {
            for row in sqlx::query(sql).fetch_all(&self.readers).await? {
                let hash: ContentHash = row
                    .try_get::<String, _>("hash")?
                    .parse()
                    .map_err(|_| StoreError::Damaged("a hash in audit_witness".to_owned()))?;
                let number = row.try_get::<i64, _>("number")?.cast_unsigned();
                known.insert((number, hash.as_str().to_owned()), AuditCheckpoint { number, hash });
            }
        }
        Ok(known.into_values().collect())
    }

    async fn assign(&self, told: &EndpointAssignment, from: Received) -> Result<Stored, StoreError> {
        let mut tx = self.begin().await?;
        if !is_first(&mut tx, from).await? {
            return Ok(Stored::Again);
        }
        if let Some(aliases) = &told.aliases {
            identity::take_aliases(&mut tx, aliases, from).await?;
        }
        for assignment in &told.assignments {
            let collector = assignment.collector.to_string();
            // Message ids are in the order of their making (UUIDv7); messages may overtake each other.
            let told = sqlx::query(
                "INSERT INTO assignment_told (collector, message) VALUES ($1, $2) \
                 ON CONFLICT (collector) DO UPDATE SET message = excluded.message \
                 WHERE excluded.message > assignment_told.message",
            )
            .bind(&collector)
            .bind(from.message.to_string())
            .execute(&mut *tx)
            .await?;
            if told.rows_affected() == 0 {
                continue;
            }
            sqlx::query("DELETE FROM assignment WHERE collector = $1").bind(&collector).execute(&mut *tx).await?;
            for endpoint in &assignment.endpoints {
                sqlx::query(
                    "INSERT INTO assignment (endpoint, collector) VALUES ($1, $2) \
                     ON CONFLICT (endpoint) DO UPDATE SET collector = excluded.collector",
                )
                .bind(endpoint_text(*endpoint))
                .bind(&collector)
                .execute(&mut *tx)
                .await?;
            }
        }
        tx.commit().await?;
        Ok(added_nothing())
    }

    async fn search(&self, request: &SearchRequest, matcher: &Matcher) -> Result<SearchResponse, StoreError> {
        self.search_page(request, matcher).await
    }

    async fn stale(
        &self,
        endpoints: &[EndpointId],
        objects: &BTreeSet<ObjectKey>,
        collected_since: Timestamp,
    ) -> Result<StalenessResponse, StoreError> {
        self.stale_of(endpoints, objects, collected_since).await
    }

    async fn newest(
        &self,
        endpoints: &[EndpointId],
        policy: &str,
        profile: &str,
    ) -> Result<Vec<Option<EvaluationSummary>>, StoreError> {
        self.newest_of(endpoints, policy, profile).await
    }

    async fn record_policy(
        &self,
        policy: &PolicyDescription,
        bytes: &[u8],
        from: Received,
    ) -> Result<Stored, StoreError> {
        let mut tx = self.begin().await?;
        if !is_first(&mut tx, from).await? {
            return Ok(Stored::Again);
        }
        sqlx::query("INSERT INTO content (hash, bytes) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(policy.content.sha256.as_str())
            .bind(bytes)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO policy (name, content, description, imported) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (name, content) DO UPDATE SET description = excluded.description, imported = excluded.imported",
        )
        .bind(&policy.name)
        .bind(policy.content.sha256.as_str())
        .bind(json(policy))
        .bind(policy.in_force_since().unwrap_or(policy.imported).as_microsecond())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Stored::New { change_count: 1, changed: Vec::new() })
    }

    async fn policies(&self) -> Result<Vec<PolicyDescription>, StoreError> {
        let rows =
            sqlx::query("SELECT description FROM policy ORDER BY name, imported").fetch_all(&self.readers).await?;
        let mut newest: BTreeMap<String, PolicyDescription> = BTreeMap::new();
        for row in rows {
            let policy: PolicyDescription = unjson(&row.try_get::<String, _>("description")?)?;
            if !policy.is_waiting {
                newest.insert(policy.name.clone(), policy);
            }
        }
        Ok(newest.into_values().collect())
    }

    async fn content(&self, hash: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query(
            "SELECT bytes FROM content WHERE hash = $1 \
             UNION ALL SELECT report.bytes FROM told JOIN report ON report.id = told.report WHERE told.content = $1 LIMIT 1",
        )
        .bind(hash.as_str())
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.map(|row| row.try_get("bytes")).transpose()?)
    }

    async fn query(&self, request: &QueryRequest) -> Result<QueryResponse, StoreError> {
        if !request.is_brief {
            return self.observations(request).await;
        }
        if !request.others.is_empty() && request.objects.len() <= brief::OBJECTS_MAX {
            let briefs = self.briefs(request).await?;
            let answered = briefs.endpoints.len() as u64;
            return Ok(QueryResponse { answered, briefs: Some(briefs), ..QueryResponse::default() });
        }
        let brief = self.brief(request).await?;
        let answered = brief.known.len() as u64;
        Ok(QueryResponse { answered, brief: Some(brief), ..QueryResponse::default() })
    }

    async fn chain(&self, request: &ChainRequest) -> Result<ChainResponse, StoreError> {
        self.chain_of(request).await
    }

    async fn changes_numbered(&self, numbers: &[u64], is_whole: bool) -> Result<Vec<AttributeChange>, StoreError> {
        self.changes_of(numbers, is_whole).await
    }

    async fn changes(&self, request: &ChangesRequest) -> Result<ChangesResponse, StoreError> {
        self.changes_page(request).await
    }

    async fn results(&self, request: &ResultsRequest) -> Result<ResultsResponse, StoreError> {
        self.results_page(request).await
    }

    async fn expire(&self, retention: &Retention, now: Timestamp) -> Result<Expired, StoreError> {
        self.expire_all(retention, now).await
    }

    async fn referenced(&self, tasks: &[ContentHash]) -> Result<Vec<ContentHash>, StoreError> {
        self.referenced_of(tasks).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        let count = async |sql: &'static str| -> Result<u64, StoreError> {
            let row = sqlx::query(sql).fetch_one(&self.readers).await?;
            Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
        };
        Ok(Counts {
            item_count: count("SELECT count(*) FROM item").await?,
            finding_count: count("SELECT count(*) FROM finding").await?,
            decision_count: count("SELECT count(*) FROM decision").await?,
            current_count: count("SELECT count(*) FROM observed WHERE valid_to IS NULL").await?,
            past_count: count("SELECT count(*) FROM observed WHERE valid_to IS NOT NULL").await?,
            change_count: count("SELECT count(*) FROM change").await?,
            result_count: count("SELECT (SELECT count(*) FROM result) + (SELECT count(*) FROM decided)").await?,
        })
    }
}
