//! Observations with their history, for whichever back end includes this file. A report has hundreds of objects: they are read
//! and written many at a time, as each statement costs more than what is in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::limits::RESULT_PART_BYTES;
use proto::message::{CollectedPart, CollectionResults, Message as _, QueryRequest, QueryResponse, QueryRow};
use proto::observation::{EndpointFacts, Item};
use proto::plan::ObjectKey;
use sqlx::Row as _;

use super::super::super::{
    Received, Report, StoreError, Stored, endpoint_text, id, json, label, time, unjson, unlabel,
};
use super::super::{Database, mark};
use super::{ALIASES, SqlStore, Tx, changes, is_first, reports};

type Row = <Database as sqlx::Database>::Row;

/// Objects, or items, of one statement.
pub(super) const BATCH: usize = 200;
/// Objects that one page of a query answers, whether anything is stored for them or not: each is looked up.
const PAGE_OBJECTS_MAX: usize = 1_000;

/// What is current of one object.
struct Current {
    id: i64,
    content: String,
    last_seen: i64,
    report: Option<String>,
}

/// What one object found, as it is stored.
struct Finding<'part> {
    object: &'part str,
    flag: String,
    items: String,
    messages: String,
    content: String,
    collected: i64,
    /// What it takes the place of.
    before: Option<Current>,
}

/// What storing a report did.
#[derive(Default)]
struct Recorded {
    change_count: u64,
    /// Changes of what was known before.
    changed: Vec<u64>,
    /// Reports that said what this one confirms.
    replaced: BTreeSet<String>,
}

/// `$from, $from + 1, …`
pub(super) fn places(from: usize, count: usize) -> String {
    let places: Vec<String> = (from..from + count).map(|place| format!("${place}")).collect();
    places.join(", ")
}

/// The same for a statement that has its parameters in the order of their numbers, each once: SQLite goes through the names of
/// all parameters to find one, which takes longer than the statement where there are thousands.
pub(super) fn marks(from: usize, count: usize) -> String {
    let marks: Vec<String> = (from..from + count).map(mark).collect();
    marks.join(", ")
}

/// `($1, $2), ($3, $4), …`
pub(super) fn rows_of(count: usize, columns: usize) -> String {
    let rows: Vec<String> = (0..count).map(|row| format!("({})", marks(row * columns + 1, columns))).collect();
    rows.join(", ")
}

impl SqlStore {
    pub(super) async fn record_observations(
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
        reports::keep(&mut tx, report, CollectionResults::KIND, results.task.as_ref(), from).await?;
        let hashes = keep_items(&mut tx, &results.items).await?;
        let mut recorded = Recorded::default();
        let mut batch: BTreeMap<&str, &CollectedPart> = BTreeMap::new();
        for part in &results.objects {
            // An object that is there twice is two observations, one after the other.
            if batch.len() == BATCH || batch.contains_key(part.object.0.as_str()) {
                record(&mut tx, results, &hashes, &batch, (from, report), &mut recorded).await?;
                batch.clear();
            }
            batch.insert(&part.object.0, part);
        }
        record(&mut tx, results, &hashes, &batch, (from, report), &mut recorded).await?;
        reports::release(&mut tx, &recorded.replaced, from).await?;
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
        Ok(Stored::New { change_count: recorded.change_count, changed: recorded.changed })
    }

    pub(super) async fn observations(&self, request: &QueryRequest) -> Result<QueryResponse, StoreError> {
        let endpoint = endpoint_text(request.endpoint);
        let sql = format!("SELECT facts FROM endpoint WHERE endpoint IN ({ALIASES}) ORDER BY collected DESC LIMIT 1");
        let facts = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&endpoint).fetch_optional(&self.pool).await?;
        let facts: EndpointFacts = match facts {
            Some(row) => unjson(&row.try_get::<String, _>("facts")?)?,
            None => EndpointFacts::default(),
        };
        let mut response =
            QueryResponse { facts, items: Vec::new(), rows: Vec::new(), missing: Vec::new(), answered: 0 };
        let mut positions: HashMap<String, u32> = HashMap::new();
        let mut bytes = 0;
        let as_of = request.as_of.unwrap_or(Timestamp::MAX).as_microsecond();
        for objects in request.objects[..request.objects.len().min(PAGE_OBJECTS_MAX)].chunks(BATCH) {
            let objects: Vec<&str> = objects.iter().map(|object| object.0.as_str()).collect();
            let rows = self.observed(&endpoint, &objects, request.as_of).await?;
            let mut found: HashMap<&str, (&Row, Vec<String>)> = HashMap::new();
            for row in &rows {
                let object: &str = row.try_get("object")?;
                // Of several origins, the one that looked last: they come in that order.
                if !found.contains_key(object) {
                    found.insert(object, (row, unjson(row.try_get::<&str, _>("items")?)?));
                }
            }
            let wanted = found.values().flat_map(|(_, hashes)| hashes);
            let wanted: BTreeSet<&String> = wanted.filter(|hash| !positions.contains_key(*hash)).collect();
            let contents = self.items(&wanted.into_iter().collect::<Vec<_>>()).await?;
            for object in objects {
                if bytes > RESULT_PART_BYTES {
                    return Ok(response);
                }
                response.answered += 1;
                let Some((row, hashes)) = found.get(object) else {
                    response.missing.push(ObjectKey(object.to_owned()));
                    continue;
                };
                let mut items = Vec::with_capacity(hashes.len());
                for hash in hashes {
                    if let Some(known) = positions.get(hash) {
                        items.push(*known);
                        continue;
                    }
                    let content = contents
                        .get(hash)
                        .ok_or_else(|| StoreError::Damaged(format!("the item {hash} is not there")))?;
                    bytes += content.len();
                    let position = u32::try_from(response.items.len()).unwrap_or(u32::MAX);
                    response.items.push(unjson::<Item>(content)?);
                    positions.insert(hash.clone(), position);
                    items.push(position);
                }
                bytes += 200;
                response.rows.push(row_of(object, row, items, as_of)?);
            }
        }
        Ok(response)
    }

    /// The rows of these objects that held at a time, those that were looked at last first.
    async fn observed(
        &self,
        endpoint: &str,
        objects: &[&str],
        as_of: Option<Timestamp>,
    ) -> Result<Vec<Row>, StoreError> {
        let (held, first) = match as_of {
            None => ("valid_to IS NULL", 2),
            Some(_) => ("valid_from <= $2 AND (valid_to IS NULL OR valid_to > $2)", 3),
        };
        let sql = format!(
            "SELECT object, origin, method, flag, items, messages, valid_from, last_seen, report FROM observation \
             WHERE endpoint IN ({ALIASES}) AND object IN ({}) AND {held} ORDER BY last_seen DESC, id DESC",
            places(first, objects.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(endpoint);
        if let Some(as_of) = as_of {
            query = query.bind(as_of.as_microsecond());
        }
        for object in objects {
            query = query.bind(*object);
        }
        Ok(query.fetch_all(&self.pool).await?)
    }

    /// The content of items, by hash.
    pub(super) async fn items(&self, hashes: &[&String]) -> Result<HashMap<String, String>, StoreError> {
        let mut contents = HashMap::with_capacity(hashes.len());
        for some in hashes.chunks(BATCH) {
            let sql = format!("SELECT hash, content FROM item WHERE hash IN ({})", marks(1, some.len()));
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
            for hash in some {
                query = query.bind(hash.as_str());
            }
            for row in query.fetch_all(&self.pool).await? {
                contents.insert(row.try_get("hash")?, row.try_get("content")?);
            }
        }
        Ok(contents)
    }
}

/// When it was looked at, as far as that was known at a time: of the looks between the first and the last of an interval nothing
/// is kept.
pub(super) fn collected_by(row: &Row, as_of: i64) -> Result<i64, StoreError> {
    let last_seen: i64 = row.try_get("last_seen")?;
    Ok(if last_seen > as_of { row.try_get("valid_from")? } else { last_seen })
}

fn row_of(object: &str, row: &Row, items: Vec<u32>, as_of: i64) -> Result<QueryRow, StoreError> {
    Ok(QueryRow {
        object: ObjectKey(object.to_owned()),
        flag: unlabel(row.try_get("flag")?)?,
        collected: time(collected_by(row, as_of)?)?,
        origin: id(row.try_get("origin")?)?,
        method: unlabel(row.try_get("method")?)?,
        report: row.try_get::<Option<String>, _>("report")?.and_then(|hash| hash.parse().ok()),
        items,
        messages: unjson(row.try_get("messages")?)?,
    })
}

/// Stores items that are not there yet; their hashes, in order.
async fn keep_items(tx: &mut Tx, items: &[Item]) -> Result<Vec<String>, StoreError> {
    let contents: Vec<String> = items.iter().map(json).collect();
    // The sender's word for the hash is never taken.
    let hashes: Vec<String> = contents.iter().map(|content| ContentHash::of(content.as_bytes()).to_string()).collect();
    let once: BTreeMap<&String, &String> = hashes.iter().zip(&contents).collect();
    let once: Vec<(&String, &String)> = once.into_iter().collect();
    for some in once.chunks(BATCH) {
        let sql = format!("INSERT INTO item (hash, content) VALUES {} ON CONFLICT DO NOTHING", rows_of(some.len(), 2));
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (hash, content) in some {
            query = query.bind(hash.as_str()).bind(content.as_str());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(hashes)
}

/// Stores what some objects found, each of them once.
async fn record(
    tx: &mut Tx,
    results: &CollectionResults,
    hashes: &[String],
    parts: &BTreeMap<&str, &CollectedPart>,
    (from, report): (Received, &Report),
    recorded: &mut Recorded,
) -> Result<(), StoreError> {
    if parts.is_empty() {
        return Ok(());
    }
    let (endpoint, origin) = (endpoint_text(results.endpoint), from.sender.to_string());
    let objects: Vec<&str> = parts.keys().copied().collect();
    let mut known = current(tx, &endpoint, &origin, &objects).await?;
    let (mut confirmed, mut fresh) = (Vec::new(), Vec::new());
    for (object, part) in parts {
        let items: Vec<&String> = part.items.iter().filter_map(|at| hashes.get(*at as usize)).collect();
        let (items, messages, flag) = (json(&items), json(&part.messages), label(&part.flag));
        let content = ContentHash::of(format!("{flag}\n{items}\n{messages}").as_bytes()).to_string();
        let collected = part.collected.as_microsecond();
        match known.remove(*object) {
            // What was seen earlier never overwrites what was seen later.
            Some(before) if collected < before.last_seen => {}
            Some(before) if before.content == content => {
                recorded.replaced.extend(before.report);
                confirmed.push((before.id, collected));
            }
            before => fresh.push(Finding { object, flag, items, messages, content, collected, before }),
        }
    }
    if !confirmed.is_empty() {
        let sql = format!(
            "UPDATE observation SET report = {}, last_seen = CASE id {} END WHERE id IN ({})",
            mark(1),
            cases(2, confirmed.len()),
            marks(2 * confirmed.len() + 2, confirmed.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(report.hash.as_str());
        for (id, collected) in &confirmed {
            query = query.bind(*id).bind(*collected);
        }
        for (id, _) in &confirmed {
            query = query.bind(*id);
        }
        query.execute(&mut **tx).await?;
    }
    if !fresh.is_empty() {
        keep_kinds(tx, results, &fresh, parts).await?;
        insert(tx, results, &fresh, (&endpoint, &origin), (from, report), recorded).await?;
    }
    Ok(())
}

/// Of which kind the objects are that found something.
async fn keep_kinds(
    tx: &mut Tx,
    results: &CollectionResults,
    fresh: &[Finding<'_>],
    parts: &BTreeMap<&str, &CollectedPart>,
) -> Result<(), StoreError> {
    let kind_of = |finding: &Finding<'_>| {
        let first = *parts.get(finding.object)?.items.first()?;
        Some((finding.object.to_owned(), results.items.get(first as usize)?.kind.clone()))
    };
    let kinds: Vec<(String, String)> = fresh.iter().filter_map(kind_of).collect();
    if kinds.is_empty() {
        return Ok(());
    }
    let rows = rows_of(kinds.len(), 2);
    let sql = format!("INSERT INTO object_kind (object, kind) VALUES {rows} ON CONFLICT DO NOTHING");
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for (object, kind) in kinds {
        query = query.bind(object).bind(kind);
    }
    query.execute(&mut **tx).await?;
    Ok(())
}

/// `WHEN $from THEN $from + 1 …`
fn cases(from: usize, count: usize) -> String {
    let case = |at: usize| format!("WHEN {} THEN {}", mark(from + 2 * at), mark(from + 2 * at + 1));
    (0..count).map(case).collect::<Vec<_>>().join(" ")
}

async fn current(
    tx: &mut Tx,
    endpoint: &str,
    origin: &str,
    objects: &[&str],
) -> Result<HashMap<String, Current>, StoreError> {
    let sql = format!(
        "SELECT id, object, content, last_seen, report FROM observation \
         WHERE endpoint = {} AND origin = {} AND valid_to IS NULL AND object IN ({})",
        mark(1),
        mark(2),
        marks(3, objects.len())
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(endpoint).bind(origin);
    for object in objects {
        query = query.bind(*object);
    }
    let mut known = HashMap::new();
    for row in query.fetch_all(&mut **tx).await? {
        let current = Current {
            id: row.try_get("id")?,
            content: row.try_get("content")?,
            last_seen: row.try_get("last_seen")?,
            report: row.try_get("report")?,
        };
        known.insert(row.try_get("object")?, current);
    }
    Ok(known)
}

/// Ends what was, and begins what is, with the change from the one to the other.
async fn insert(
    tx: &mut Tx,
    results: &CollectionResults,
    fresh: &[Finding<'_>],
    (endpoint, origin): (&str, &str),
    (from, report): (Received, &Report),
    recorded: &mut Recorded,
) -> Result<(), StoreError> {
    let ended: Vec<(i64, i64)> =
        fresh.iter().filter_map(|finding| Some((finding.before.as_ref()?.id, finding.collected))).collect();
    if !ended.is_empty() {
        let sql = format!(
            "UPDATE observation SET valid_to = CASE id {} END WHERE id IN ({})",
            cases(1, ended.len()),
            marks(2 * ended.len() + 1, ended.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (id, collected) in &ended {
            query = query.bind(*id).bind(*collected);
        }
        for (id, _) in &ended {
            query = query.bind(*id);
        }
        query.execute(&mut **tx).await?;
    }
    let sql = format!(
        "INSERT INTO observation (endpoint, object, origin, method, flag, items, messages, content, valid_from, \
         last_seen, received, report) VALUES {} RETURNING id, object",
        rows_of(fresh.len(), 12)
    );
    let (method, received) = (label(&results.method), from.received.as_microsecond());
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for finding in fresh {
        query = query
            .bind(endpoint)
            .bind(finding.object)
            .bind(origin)
            .bind(method.as_str())
            .bind(finding.flag.as_str())
            .bind(finding.items.as_str())
            .bind(finding.messages.as_str())
            .bind(finding.content.as_str())
            .bind(finding.collected)
            .bind(finding.collected)
            .bind(received)
            .bind(report.hash.as_str());
    }
    let mut ids: HashMap<String, i64> = HashMap::new();
    for row in query.fetch_all(&mut **tx).await? {
        ids.insert(row.try_get("object")?, row.try_get("id")?);
    }
    recorded.change_count += fresh.len() as u64;
    // What nothing was known of before has not changed.
    let changed: Vec<(&Finding<'_>, &Current)> =
        fresh.iter().filter_map(|finding| Some((finding, finding.before.as_ref()?))).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO change (endpoint, object, origin, old_content, new_content, collected, old_observation, \
         new_observation, stream) VALUES {} RETURNING id",
        rows_of(changed.len(), 9)
    );
    let stream = results.stream.as_ref().map(json);
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for (finding, before) in changed {
        query = query
            .bind(endpoint)
            .bind(finding.object)
            .bind(origin)
            .bind(before.content.as_str())
            .bind(finding.content.as_str())
            .bind(finding.collected)
            .bind(before.id)
            .bind(ids.get(finding.object).copied())
            .bind(stream.as_deref());
    }
    for row in query.fetch_all(&mut **tx).await? {
        recorded.changed.push(row.try_get::<i64, _>("id")?.unsigned_abs());
    }
    recorded.changed.sort_unstable();
    Ok(())
}
