//! Observations with their history, for whichever back end includes this file. A report has hundreds of objects: they are read
//! and written many at a time, as each statement costs more than what is in it.

use std::collections::hash_map::Entry;
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
use super::names::ByHash;
use super::{ALIASES, SqlStore, Tx, changes, is_first, reports, share};

type Row = <Database as sqlx::Database>::Row;

/// Objects, or items, of one statement.
pub(super) const BATCH: usize = 200;
/// From so many on, what is known of all objects of an endpoint is read: that is faster than to name those that are meant.
pub(super) const NAMED_MAX: usize = 100;
/// Objects that one page of a query answers, whether anything is stored for them or not: each is looked up.
const PAGE_OBJECTS_MAX: usize = 1_000;

/// What is current of one object.
struct Current {
    id: i64,
    finding: i64,
    last_seen: i64,
    report: Option<i64>,
}

/// What looking at an object gave, as it is stored.
struct Finding {
    hash: String,
    flag: String,
    items: String,
    messages: String,
}

/// An item as it is stored.
struct Content {
    hash: String,
    text: String,
}

impl Content {
    fn of(item: &Item) -> Self {
        let text = json(item);
        Self { hash: ContentHash::of(text.as_bytes()).to_string(), text }
    }
}

impl Finding {
    fn of(part: &CollectedPart, contents: &[Content]) -> Self {
        let items: Vec<&String> =
            part.items.iter().filter_map(|at| contents.get(*at as usize)).map(|content| &content.hash).collect();
        let (items, messages, flag) = (json(&items), json(&part.messages), label(&part.flag));
        let hash = ContentHash::of(format!("{flag}\n{items}\n{messages}").as_bytes()).to_string();
        Self { hash, flag, items, messages }
    }
}

/// An object of a report, and what it found.
struct Looked<'part> {
    part: &'part CollectedPart,
    object: i64,
    found: &'part Finding,
}

impl Looked<'_> {
    fn collected(&self) -> i64 {
        self.part.collected.as_microsecond()
    }
}

/// Where a report is from and what it is about, in numbers.
struct Source {
    endpoint: i64,
    origin: i64,
    origin_text: String,
    method: i64,
    report: i64,
    received: i64,
}

/// What is new of one object.
struct Fresh<'batch> {
    looked: &'batch Looked<'batch>,
    finding: i64,
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
    replaced: BTreeSet<i64>,
    /// Objects that had no kind.
    with_kind: Vec<i64>,
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
        let (endpoint, origin, method) =
            (endpoint_text(results.endpoint), from.sender.to_string(), label(&results.method));
        let named = results.objects.iter().map(|part| part.object.0.as_str());
        let names: Vec<&str> = [endpoint.as_str(), &origin, &method].into_iter().chain(named).collect();
        let numbers = self.numbers(&names).await?;
        let (about, objects) = numbers.split_at(3);
        // The sender's word for the hash is never taken.
        let contents: Vec<Content> = results.items.iter().map(Content::of).collect();
        let findings: Vec<Finding> = results.objects.iter().map(|part| Finding::of(part, &contents)).collect();
        let mut tx = self.begin().await?;
        share(&mut tx).await?;
        if !is_first(&mut tx, from).await? {
            return Ok(Stored::Again);
        }
        let speaker = sqlx::query(
            // What was asked about an endpoint before it turned out to be another comes in afterwards.
            "SELECT collector FROM assignment WHERE endpoint = $1 \
             OR endpoint = (SELECT alias_of FROM endpoint_alias WHERE endpoint = $1)",
        )
        .bind(&endpoint)
        .fetch_optional(&mut *tx)
        .await?;
        match speaker {
            None => return Err(StoreError::Unassigned(results.endpoint)),
            Some(row) if row.try_get::<String, _>("collector")? != origin => {
                return Err(StoreError::NotAssigned(results.endpoint));
            }
            Some(_) => {}
        }
        reports::keep(&mut tx, report, CollectionResults::KIND, results.task.as_ref(), from).await?;
        let source = Source {
            endpoint: about[0],
            origin: about[1],
            origin_text: origin,
            method: about[2],
            report: reports::number(&mut tx, report).await?,
            received: from.received.as_microsecond(),
        };
        let mut recorded = Recorded::default();
        let mut batch: BTreeMap<i64, Looked<'_>> = BTreeMap::new();
        let mut is_first_batch = true;
        for ((part, object), found) in results.objects.iter().zip(objects).zip(&findings) {
            // An object that is there twice is two observations, one after the other.
            if batch.contains_key(object) {
                self.record(&mut tx, (results, &contents), &source, (&batch, is_first_batch), &mut recorded).await?;
                batch.clear();
                is_first_batch = false;
            }
            batch.insert(*object, Looked { part, object: *object, found });
        }
        self.record(&mut tx, (results, &contents), &source, (&batch, is_first_batch), &mut recorded).await?;
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
        .bind(&endpoint)
        .bind(json(&results.facts))
        .bind(seen.as_microsecond())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        self.names.have_kind(recorded.with_kind);
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
        let mut response = QueryResponse { facts, ..QueryResponse::default() };
        let mut positions: HashMap<String, u32> = HashMap::new();
        let mut bytes = 0;
        let as_of = request.as_of.unwrap_or(Timestamp::MAX).as_microsecond();
        for objects in request.objects[..request.objects.len().min(PAGE_OBJECTS_MAX)].chunks(BATCH) {
            let objects: Vec<&str> = objects.iter().map(|object| object.0.as_str()).collect();
            let numbers = self.known_numbers(&objects).await?;
            let rows = self.observed(&endpoint, &numbers, request.as_of).await?;
            let mut found: HashMap<i64, (&Row, Vec<String>)> = HashMap::new();
            for row in &rows {
                let object: i64 = row.try_get("object")?;
                // Of several origins, the one that looked last: they come in that order.
                if let Entry::Vacant(vacant) = found.entry(object) {
                    vacant.insert((row, unjson(row.try_get::<&str, _>("items")?)?));
                }
            }
            let wanted = found.values().flat_map(|(_, hashes)| hashes);
            let wanted: BTreeSet<&String> = wanted.filter(|hash| !positions.contains_key(*hash)).collect();
            let contents = self.items(&wanted.into_iter().collect::<Vec<_>>()).await?;
            for (object, number) in objects.into_iter().zip(numbers) {
                if bytes > RESULT_PART_BYTES {
                    return Ok(response);
                }
                response.answered += 1;
                let Some((row, hashes)) = number.and_then(|number| found.get(&number)) else {
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
        objects: &[Option<i64>],
        as_of: Option<Timestamp>,
    ) -> Result<Vec<Row>, StoreError> {
        let objects: Vec<i64> = objects.iter().flatten().copied().collect();
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let (held, first) = match as_of {
            None => ("valid_to IS NULL", 2),
            Some(_) => ("valid_from <= $2 AND (valid_to IS NULL OR valid_to > $2)", 3),
        };
        let sql = format!(
            "SELECT observed.object AS object, origin.text AS origin, method.text AS method, flag, items, messages, valid_from, \
             last_seen, finding.hash AS content, report_number.hash AS report FROM observed JOIN name AS origin ON origin.id = observed.origin \
             JOIN name AS method ON method.id = observed.method JOIN finding ON finding.id = observed.finding \
             LEFT JOIN report_number ON report_number.id = observed.report \
             WHERE endpoint IN (SELECT id FROM name WHERE text IN ({ALIASES})) AND object IN ({}) AND {held} \
             ORDER BY last_seen DESC, observed.id DESC",
            places(first, objects.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(endpoint);
        if let Some(as_of) = as_of {
            query = query.bind(as_of.as_microsecond());
        }
        for object in objects {
            query = query.bind(object);
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
        content: row.try_get::<&str, _>("content")?.parse().ok(),
    })
}

/// Stores items that are not there yet.
async fn keep_items(tx: &mut Tx, contents: &BTreeMap<&String, &String>) -> Result<(), StoreError> {
    let contents: Vec<(&String, &String)> = contents.iter().map(|(hash, text)| (*hash, *text)).collect();
    for some in contents.chunks(BATCH) {
        let sql = format!("INSERT INTO item (hash, content) VALUES {} ON CONFLICT DO NOTHING", rows_of(some.len(), 2));
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (hash, text) in some {
            query = query.bind(hash.as_str()).bind(text.as_str());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// The numbers of what these objects found. What is not there is stored, its items before it.
async fn keep_findings(
    tx: &mut Tx,
    looked: &[&Looked<'_>],
    contents: &[Content],
) -> Result<HashMap<String, i64>, StoreError> {
    let rows = looked.iter().map(|looked| looked.found);
    let rows = rows.map(|found| (found.hash.as_str(), [found.flag.as_str(), &found.items, &found.messages]));
    let by_hash = ByHash { table: "finding", columns: ["flag", "items", "messages"], rows: rows.collect() };
    let (mut numbers, lacking) = by_hash.known(tx).await?;
    if lacking.is_empty() {
        return Ok(numbers);
    }
    let mut items = BTreeMap::new();
    for looked in looked.iter().filter(|looked| lacking.binary_search(&looked.found.hash.as_str()).is_ok()) {
        let found = looked.part.items.iter().filter_map(|at| contents.get(*at as usize));
        items.extend(found.map(|content| (&content.hash, &content.text)));
    }
    keep_items(tx, &items).await?;
    numbers.extend(by_hash.keep(tx, &lacking).await?);
    Ok(numbers)
}

impl SqlStore {
    /// Stores what some objects found, each of them once.
    async fn record(
        &self,
        tx: &mut Tx,
        (results, contents): (&CollectionResults, &[Content]),
        source: &Source,
        (batch, is_first_batch): (&BTreeMap<i64, Looked<'_>>, bool),
        recorded: &mut Recorded,
    ) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let objects: Vec<i64> = batch.keys().copied().collect();
        let mut known = current(tx, source, &objects).await?;
        // Numbers that this transaction has given may be given again, if it fails.
        let findings =
            if is_first_batch { known.values().map(|current| current.finding).collect() } else { BTreeSet::new() };
        let hashes = self.hashes(&mut *tx, "finding", findings).await?;
        let (mut confirmed, mut others) = (Vec::new(), Vec::new());
        for (object, looked) in batch {
            match known.remove(object) {
                // What was seen earlier never overwrites what was seen later.
                Some(before) if looked.collected() < before.last_seen => {}
                Some(before) if hashes.get(&before.finding).is_some_and(|hash| **hash == *looked.found.hash) => {
                    recorded.replaced.extend(before.report);
                    confirmed.push((before.id, looked.collected()));
                }
                before => others.push((looked, before)),
            }
        }
        let looked: Vec<&Looked<'_>> = others.iter().map(|(looked, _)| *looked).collect();
        let numbers = keep_findings(tx, &looked, contents).await?;
        let mut fresh = Vec::with_capacity(others.len());
        for (looked, before) in others {
            let finding = numbers.get(&looked.found.hash).copied();
            let finding = finding.ok_or_else(|| StoreError::Damaged("a finding is not there".to_owned()))?;
            match before {
                Some(before) if before.finding == finding => {
                    recorded.replaced.extend(before.report);
                    confirmed.push((before.id, looked.collected()));
                }
                before => fresh.push(Fresh { looked, finding, before }),
            }
        }
        confirm(tx, source, &confirmed).await?;
        for some in fresh.chunks(BATCH) {
            self.keep_kinds(tx, results, some, recorded).await?;
            insert(tx, results, source, some, recorded).await?;
        }
        Ok(())
    }

    /// Of which kind the objects are that found something.
    async fn keep_kinds(
        &self,
        tx: &mut Tx,
        results: &CollectionResults,
        fresh: &[Fresh<'_>],
        recorded: &mut Recorded,
    ) -> Result<(), StoreError> {
        let without = self.names.without_kind(fresh.iter().map(|fresh| fresh.looked.object));
        let mut kinds = Vec::new();
        for Fresh { looked, .. } in fresh.iter().filter(|fresh| without.contains(&fresh.looked.object)) {
            let first = looked.part.items.first().and_then(|first| results.items.get(*first as usize));
            kinds.extend(first.map(|item| (*looked, item.kind.clone())));
        }
        if kinds.is_empty() {
            return Ok(());
        }
        let rows = rows_of(kinds.len(), 2);
        let sql = format!("INSERT INTO object_kind (object, kind) VALUES {rows} ON CONFLICT DO NOTHING");
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (looked, kind) in kinds {
            recorded.with_kind.push(looked.object);
            query = query.bind(&looked.part.object.0).bind(kind);
        }
        query.execute(&mut **tx).await?;
        Ok(())
    }
}

/// `WHEN $from THEN $from + 1 …`
fn cases(from: usize, count: usize) -> String {
    let case = |at: usize| format!("WHEN {} THEN {}", mark(from + 2 * at), mark(from + 2 * at + 1));
    (0..count).map(case).collect::<Vec<_>>().join(" ")
}

/// These were looked at again, and are as they were: numbers of rows, and when that was.
async fn confirm(tx: &mut Tx, source: &Source, confirmed: &[(i64, i64)]) -> Result<(), StoreError> {
    for some in confirmed.chunks(BATCH) {
        let rows: Vec<String> = (0..some.len()).map(|row| format!("({})", marks(2 * row + 2, 2))).collect();
        let sql = format!(
            "UPDATE observed SET report = {}, last_seen = seen.column2 FROM (VALUES {}) AS seen WHERE observed.id = seen.column1",
            mark(1),
            rows.join(", ")
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(source.report);
        for (id, collected) in some {
            query = query.bind(*id).bind(*collected);
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

async fn current(tx: &mut Tx, source: &Source, objects: &[i64]) -> Result<HashMap<i64, Current>, StoreError> {
    // Many are read faster without their names.
    let objects = if objects.len() > NAMED_MAX { &[] } else { objects };
    let which =
        if objects.is_empty() { String::new() } else { format!(" AND object IN ({})", marks(3, objects.len())) };
    let sql = format!(
        "SELECT id, object, finding, last_seen, report FROM observed \
         WHERE endpoint = {} AND origin = {} AND valid_to IS NULL{which}",
        mark(1),
        mark(2),
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(source.endpoint).bind(source.origin);
    for object in objects {
        query = query.bind(*object);
    }
    let mut known = HashMap::new();
    for row in query.fetch_all(&mut **tx).await? {
        let current = Current {
            id: row.try_get("id")?,
            finding: row.try_get("finding")?,
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
    source: &Source,
    fresh: &[Fresh<'_>],
    recorded: &mut Recorded,
) -> Result<(), StoreError> {
    recorded.change_count += fresh.len() as u64;
    // What nothing was known of before has not changed.
    let (changed, new): (Vec<&Fresh<'_>>, Vec<&Fresh<'_>>) = fresh.iter().partition(|fresh| fresh.before.is_some());
    if !new.is_empty() {
        begin(tx, source, &new, "").await?;
    }
    let changed: Vec<(&Fresh<'_>, &Current)> =
        changed.into_iter().filter_map(|fresh| Some((fresh, fresh.before.as_ref()?))).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "UPDATE observed SET valid_to = CASE id {} END WHERE id IN ({})",
        cases(1, changed.len()),
        marks(2 * changed.len() + 1, changed.len())
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for (fresh, before) in &changed {
        query = query.bind(before.id).bind(fresh.looked.collected());
    }
    for (_, before) in &changed {
        query = query.bind(before.id);
    }
    query.execute(&mut **tx).await?;
    let begun: Vec<&Fresh<'_>> = changed.iter().map(|(fresh, _)| *fresh).collect();
    let ids: HashMap<i64, i64> = begin(tx, source, &begun, " RETURNING object, id").await?.into_iter().collect();
    let row = |at: usize| {
        let [endpoint, object, origin, old, new, collected, before, now, stream] =
            std::array::from_fn(|column| mark(9 * at + column + 1));
        format!(
            "({endpoint}, {object}, {origin}, (SELECT hash FROM finding WHERE id = {old}), \
             (SELECT hash FROM finding WHERE id = {new}), {collected}, {before}, {now}, {stream})"
        )
    };
    let rows: Vec<String> = (0..changed.len()).map(row).collect();
    let sql = format!(
        "INSERT INTO change (endpoint, object, origin, old_content, new_content, collected, old_observation, \
         new_observation, stream) VALUES {} RETURNING id",
        rows.join(", ")
    );
    let stream = results.stream.as_ref().map(json);
    let (endpoint, origin) = (endpoint_text(results.endpoint), source.origin_text.as_str());
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for (fresh, before) in changed {
        let Looked { part, object, .. } = fresh.looked;
        query = query
            .bind(endpoint.as_str())
            .bind(part.object.0.as_str())
            .bind(origin)
            .bind(before.finding)
            .bind(fresh.finding)
            .bind(fresh.looked.collected())
            .bind(before.id)
            .bind(ids.get(object).copied())
            .bind(stream.as_deref());
    }
    for row in query.fetch_all(&mut **tx).await? {
        recorded.changed.push(row.try_get::<i64, _>("id")?.unsigned_abs());
    }
    recorded.changed.sort_unstable();
    Ok(())
}

/// Begins intervals; the objects with the numbers of their rows, where these are asked for.
async fn begin(
    tx: &mut Tx,
    source: &Source,
    fresh: &[&Fresh<'_>],
    returning: &str,
) -> Result<Vec<(i64, i64)>, StoreError> {
    let sql = format!(
        "INSERT INTO observed (endpoint, object, origin, method, finding, valid_from, last_seen, received, report) VALUES {}{returning}",
        rows_of(fresh.len(), 9)
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for Fresh { looked, finding, .. } in fresh {
        query = query
            .bind(source.endpoint)
            .bind(looked.object)
            .bind(source.origin)
            .bind(source.method)
            .bind(*finding)
            .bind(looked.collected())
            .bind(looked.collected())
            .bind(source.received)
            .bind(source.report);
    }
    let rows = query.fetch_all(&mut **tx).await?;
    rows.iter().map(|row| Ok((row.try_get("object")?, row.try_get("id")?))).collect()
}
