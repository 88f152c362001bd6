//! The SQL of the store, for whichever back end includes this file.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::Timestamp;
use proto::content::ContentHash;
use proto::id::EndpointId;
use proto::limits::RESULT_PART_BYTES;
use proto::message::{
    AttributeChange, AuditCheckpoint, ChainRequest, ChainResponse, ChangesRequest, ChangesResponse, CollectedPart,
    CollectionResults, EndpointAssignment, EvaluationResults, Message as _, PolicyDescription, QueryRequest,
    QueryResponse, QueryRow, ResultsRequest, ResultsResponse, StalenessResponse,
};
use proto::observation::{EndpointFacts, Item};
use proto::plan::ObjectKey;
use proto::verdict::EvaluationSummary;
use sqlx::{Row as _, Transaction};

use super::super::{
    Counts, Received, Report, Store, StoreError, Stored, endpoint_text, id, json, label, time, unjson, unlabel,
};
use super::{BEGIN, Database, Pool};

/// The store over a pool.
#[derive(Debug, Clone)]
pub struct SqlStore {
    pool: Pool,
}

#[path = "changes.rs"]
mod changes;
#[path = "identity.rs"]
mod identity;
#[path = "reports.rs"]
mod reports;
#[path = "verdicts.rs"]
mod verdicts;

/// An endpoint, the first parameter, and what was merged into it.
const ALIASES: &str = "SELECT CAST($1 AS TEXT) UNION ALL SELECT endpoint FROM endpoint_alias WHERE alias_of = $1";

type Tx = Transaction<'static, Database>;

/// Objects that one page of a query answers, whether anything is stored for them or not: each is looked up.
const PAGE_OBJECTS_MAX: u64 = 1_000;

impl SqlStore {
    pub(super) fn over(pool: Pool) -> Self {
        Self { pool }
    }

    async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(self.pool.begin_with(BEGIN).await?)
    }

    /// Ends the connections.
    pub async fn close(&self) {
        self.pool.close().await;
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

fn added_nothing() -> Stored {
    Stored::New { change_count: 0, changed: Vec::new() }
}

/// What storing one object's observation did.
enum Recorded {
    /// It is older than what is known.
    Nothing,
    /// It is as it was: the report that said so last, before this one.
    Confirmed(Option<String>),
    /// Nothing was known of it.
    First,
    /// It was otherwise: the number of the change.
    Changed(u64),
}

/// Stores what one object found.
async fn record_object(
    tx: &mut Tx,
    results: &CollectionResults,
    hashes: &[String],
    part: &CollectedPart,
    from: Received,
    report: &Report,
) -> Result<Recorded, StoreError> {
    let items: Vec<&String> = part.items.iter().filter_map(|at| hashes.get(*at as usize)).collect();
    let items = json(&items);
    let messages = json(&part.messages);
    let flag = label(&part.flag);
    let content = ContentHash::of(format!("{flag}\n{items}\n{messages}").as_bytes()).to_string();
    let (endpoint, object, origin) =
        (endpoint_text(results.endpoint), part.object.to_string(), from.sender.to_string());
    let collected = part.collected.as_microsecond();
    let current = sqlx::query(
        "SELECT id, content, last_seen, report FROM observation WHERE endpoint = $1 AND object = $2 AND origin = $3 AND valid_to IS NULL",
    )
    .bind(&endpoint)
    .bind(&object)
    .bind(&origin)
    .fetch_optional(&mut **tx)
    .await?;
    let (mut old_content, mut old_observation) = (None, None);
    if let Some(current) = current {
        let (row, known, last_seen): (i64, String, i64) =
            (current.try_get("id")?, current.try_get("content")?, current.try_get("last_seen")?);
        // What was seen earlier never overwrites what was seen later.
        if collected < last_seen {
            return Ok(Recorded::Nothing);
        }
        if known == content {
            sqlx::query("UPDATE observation SET last_seen = $1, report = $2 WHERE id = $3")
                .bind(collected)
                .bind(report.hash.as_str())
                .bind(row)
                .execute(&mut **tx)
                .await?;
            return Ok(Recorded::Confirmed(current.try_get("report")?));
        }
        sqlx::query("UPDATE observation SET valid_to = $1 WHERE id = $2")
            .bind(collected)
            .bind(row)
            .execute(&mut **tx)
            .await?;
        (old_content, old_observation) = (Some(known), Some(row));
    }
    let inserted = sqlx::query(
        "INSERT INTO observation (endpoint, object, origin, method, flag, items, messages, content, valid_from, last_seen, received, report) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11) RETURNING id",
    )
    .bind(&endpoint)
    .bind(&object)
    .bind(&origin)
    .bind(label(&results.method))
    .bind(flag)
    .bind(items)
    .bind(messages)
    .bind(&content)
    .bind(collected)
    .bind(from.received.as_microsecond())
    .bind(report.hash.as_str())
    .fetch_one(&mut **tx)
    .await?;
    let change = sqlx::query(
        "INSERT INTO change (endpoint, object, origin, old_content, new_content, collected, old_observation, new_observation, stream) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
    )
    .bind(&endpoint)
    .bind(&object)
    .bind(&origin)
    .bind(old_content)
    .bind(&content)
    .bind(collected)
    .bind(old_observation)
    .bind(inserted.try_get::<i64, _>("id")?)
    .bind(results.stream.as_ref().map(json))
    .fetch_one(&mut **tx)
    .await?;
    let number: i64 = change.try_get("id")?;
    Ok(if old_observation.is_some() { Recorded::Changed(number.unsigned_abs()) } else { Recorded::First })
}

#[async_trait]
impl Store for SqlStore {
    async fn record_collection(
        &self,
        results: &CollectionResults,
        from: Received,
        report: &Report,
    ) -> Result<Stored, StoreError> {
        let mut tx = self.begin().await?;
        if !is_first(&mut tx, from).await? {
            return Ok(Stored::Again);
        }
        let speaker = sqlx::query(
            // What was asked about an endpoint before it turned out to be another comes in afterwards.
            "SELECT collector FROM assignment WHERE endpoint = $1 \
             OR endpoint = (SELECT alias_of FROM endpoint_alias WHERE endpoint = $1)",
        )
        .bind(endpoint_text(results.endpoint))
        .fetch_optional(&mut *tx)
        .await?;
        match speaker {
            None => return Err(StoreError::Unassigned(results.endpoint)),
            Some(row) if row.try_get::<String, _>("collector")? != from.sender.to_string() => {
                return Err(StoreError::NotAssigned(results.endpoint));
            }
            Some(_) => {}
        }
        reports::keep(&mut tx, report, CollectionResults::KIND, from).await?;
        let mut hashes = Vec::with_capacity(results.items.len());
        for item in &results.items {
            let content = json(item);
            // The sender's word for the hash is never taken.
            let hash = ContentHash::of(content.as_bytes()).to_string();
            sqlx::query("INSERT INTO item (hash, content) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(&hash)
                .bind(content)
                .execute(&mut *tx)
                .await?;
            hashes.push(hash);
        }
        let (mut change_count, mut changed, mut replaced) = (0, Vec::new(), BTreeSet::new());
        for part in &results.objects {
            match record_object(&mut tx, results, &hashes, part, from, report).await? {
                Recorded::Nothing => {}
                Recorded::Confirmed(before) => replaced.extend(before),
                Recorded::First => change_count += 1,
                Recorded::Changed(number) => {
                    change_count += 1;
                    changed.push(number);
                }
            }
        }
        reports::release(&mut tx, &replaced, from).await?;
        if let Some(position) = &results.stream {
            changes::count_report(&mut tx, position, from).await?;
        }
        let seen = results.objects.iter().map(|part| part.collected).max().unwrap_or(from.received);
        sqlx::query(
            "INSERT INTO endpoint (endpoint, facts, collected) VALUES ($1, $2, $3) \
             ON CONFLICT (endpoint) DO UPDATE SET facts = excluded.facts, collected = excluded.collected \
             WHERE excluded.collected >= endpoint.collected",
        )
        .bind(endpoint_text(results.endpoint))
        .bind(json(&results.facts))
        .bind(seen.as_microsecond())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Stored::New { change_count, changed })
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
            .execute(&self.pool)
            .await?;
            return Ok(Vec::new());
        }
        // Whoever said it, the first and the latest: of a log that was written anew, the first are not in it.
        let mut known = BTreeMap::new();
        for sql in [
            "SELECT number, hash FROM audit_witness ORDER BY received, number LIMIT 500",
            "SELECT number, hash FROM audit_witness ORDER BY received DESC, number DESC LIMIT 500",
        ] {
            for row in sqlx::query(sql).fetch_all(&self.pool).await? {
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

    async fn record_evaluation(
        &self,
        results: &EvaluationResults,
        from: Received,
        report: &Report,
    ) -> Result<Stored, StoreError> {
        self.record_verdicts(results, from, report).await
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
        endpoint: EndpointId,
        policy: &str,
        profile: &str,
    ) -> Result<Option<EvaluationSummary>, StoreError> {
        self.newest_of(endpoint, policy, profile).await
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
        .bind(policy.imported.as_microsecond())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Stored::New { change_count: 1, changed: Vec::new() })
    }

    async fn policies(&self) -> Result<Vec<PolicyDescription>, StoreError> {
        let rows = sqlx::query("SELECT description FROM policy ORDER BY name, imported").fetch_all(&self.pool).await?;
        let mut newest: BTreeMap<String, PolicyDescription> = BTreeMap::new();
        for row in rows {
            let policy: PolicyDescription = unjson(&row.try_get::<String, _>("description")?)?;
            newest.insert(policy.name.clone(), policy);
        }
        Ok(newest.into_values().collect())
    }

    async fn content(&self, hash: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query(
            "SELECT bytes FROM content WHERE hash = $1 UNION ALL SELECT bytes FROM report WHERE content = $1 LIMIT 1",
        )
        .bind(hash.as_str())
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| row.try_get("bytes")).transpose()?)
    }

    async fn query(&self, request: &QueryRequest) -> Result<QueryResponse, StoreError> {
        let endpoint = endpoint_text(request.endpoint);
        let facts = sqlx::query("SELECT facts FROM endpoint WHERE endpoint IN (SELECT CAST($1 AS TEXT) UNION ALL SELECT endpoint FROM endpoint_alias WHERE alias_of = $1) ORDER BY collected DESC LIMIT 1")
            .bind(&endpoint)
            .fetch_optional(&self.pool)
            .await?;
        let facts: EndpointFacts = match facts {
            Some(row) => unjson(&row.try_get::<String, _>("facts")?)?,
            None => EndpointFacts::default(),
        };
        let mut response =
            QueryResponse { facts, items: Vec::new(), rows: Vec::new(), missing: Vec::new(), answered: 0 };
        let mut positions: BTreeMap<String, u32> = BTreeMap::new();
        let mut bytes = 0;
        let as_of = request.as_of.unwrap_or(Timestamp::MAX).as_microsecond();
        for object in &request.objects {
            if bytes > RESULT_PART_BYTES || response.answered == PAGE_OBJECTS_MAX {
                break;
            }
            response.answered += 1;
            // Of several origins, the one that looked last.
            let row = sqlx::query(
                "SELECT origin, method, flag, items, messages, last_seen, valid_to, report FROM observation \
                 WHERE endpoint IN (SELECT CAST($1 AS TEXT) UNION ALL SELECT endpoint FROM endpoint_alias WHERE alias_of = $1) \
                 AND object = $2 AND valid_from <= $3 AND (valid_to IS NULL OR valid_to > $3) \
                 ORDER BY last_seen DESC, id DESC LIMIT 1",
            )
            .bind(&endpoint)
            .bind(&object.0)
            .bind(as_of)
            .fetch_optional(&self.pool)
            .await?;
            let Some(row) = row else {
                response.missing.push(object.clone());
                continue;
            };
            let hashes: Vec<String> = unjson(&row.try_get::<String, _>("items")?)?;
            let mut items = Vec::with_capacity(hashes.len());
            for hash in hashes {
                if let Some(known) = positions.get(&hash) {
                    items.push(*known);
                    continue;
                }
                let item =
                    sqlx::query("SELECT content FROM item WHERE hash = $1").bind(&hash).fetch_one(&self.pool).await?;
                let content: String = item.try_get("content")?;
                bytes += content.len();
                let position = u32::try_from(response.items.len()).unwrap_or(u32::MAX);
                response.items.push(unjson::<Item>(&content)?);
                positions.insert(hash, position);
                items.push(position);
            }
            bytes += 200;
            response.rows.push(QueryRow {
                object: object.clone(),
                flag: unlabel(&row.try_get::<String, _>("flag")?)?,
                collected: time(row.try_get::<i64, _>("last_seen")?.min(as_of))?,
                origin: id(&row.try_get::<String, _>("origin")?)?,
                method: unlabel(&row.try_get::<String, _>("method")?)?,
                report: row.try_get::<Option<String>, _>("report")?.and_then(|hash| hash.parse().ok()),
                items,
                messages: unjson(&row.try_get::<String, _>("messages")?)?,
            });
        }
        Ok(response)
    }

    async fn chain(&self, request: &ChainRequest) -> Result<ChainResponse, StoreError> {
        self.chain_of(request).await
    }

    async fn change(&self, number: u64) -> Result<Option<AttributeChange>, StoreError> {
        self.change_numbered(number).await
    }

    async fn changes(&self, request: &ChangesRequest) -> Result<ChangesResponse, StoreError> {
        self.changes_page(request).await
    }

    async fn results(&self, request: &ResultsRequest) -> Result<ResultsResponse, StoreError> {
        self.results_page(request).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        let count = async |sql: &'static str| -> Result<u64, StoreError> {
            let row = sqlx::query(sql).fetch_one(&self.pool).await?;
            Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
        };
        Ok(Counts {
            item_count: count("SELECT count(*) FROM item").await?,
            current_count: count("SELECT count(*) FROM observation WHERE valid_to IS NULL").await?,
            past_count: count("SELECT count(*) FROM observation WHERE valid_to IS NOT NULL").await?,
            change_count: count("SELECT count(*) FROM change").await?,
            result_count: count("SELECT (SELECT count(*) FROM result) + (SELECT count(*) FROM verdict)").await?,
        })
    }
}
