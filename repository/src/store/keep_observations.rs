//! Observations, as they are stored; for whichever back end includes this file.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proto::content::ContentHash;
use proto::message::{CollectedPart, CollectionResults};
use proto::observation::Item;
use sqlx::Row as _;

use super::super::super::{Received, Report, StoreError, endpoint_text, json, label};
use super::super::{INSERT, MARKS, UPDATE};
use super::names::ByHash;
use super::statement::{BATCH, NAMED_MAX, marks, rows_of};
use super::{SqlStore, Tx, changes, reports};

/// What is current at most once: an object of an endpoint as one collector sees it, each by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    endpoint: i64,
    origin: i64,
    object: i64,
}

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
        Self { hash: ContentHash::of(text.as_bytes()).into(), text }
    }
}

impl Finding {
    fn of(part: &CollectedPart, contents: &[Content]) -> Self {
        let items: Vec<&String> =
            part.items.iter().filter_map(|at| contents.get(*at as usize)).map(|content| &content.hash).collect();
        let (items, messages, flag) = (json(&items), json(&part.messages), label(&part.flag));
        let hash = ContentHash::of([flag.as_str(), &items, &messages].join("\n").as_bytes()).into();
        Self { hash, flag, items, messages }
    }
}

/// A report with the numbers of its names, and its observations as they are stored.
pub(super) struct Prepared<'report> {
    results: &'report CollectionResults,
    from: Received,
    pub(super) origin_text: String,
    pub(super) endpoint_text: String,
    endpoint: i64,
    origin: i64,
    method: i64,
    objects: Vec<i64>,
    contents: Vec<Content>,
    findings: Vec<Finding>,
}

/// A report that is stored, with its number.
struct Source<'batch> {
    prepared: &'batch Prepared<'batch>,
    report: i64,
}

/// An object of a report, and what it found.
struct Looked<'batch> {
    /// Which of the reports.
    source: usize,
    part: &'batch CollectedPart,
    found: &'batch Finding,
}

impl Looked<'_> {
    fn collected(&self) -> i64 {
        self.part.collected.as_microsecond()
    }
}

/// Objects that are looked up together, each once.
type Batch<'batch> = BTreeMap<Key, Looked<'batch>>;

/// What is new of one object.
struct Fresh<'batch> {
    key: Key,
    looked: &'batch Looked<'batch>,
    finding: i64,
    /// What it takes the place of.
    before: Option<Current>,
}

/// An observation that is as it was.
struct Confirmed {
    id: i64,
    collected: i64,
    report: i64,
}

/// What storing reports did.
#[derive(Default)]
pub(super) struct Recorded {
    /// Of each of them: how many observations are new or changed, and the changes of what was known before.
    pub(super) changes: Vec<(u64, Vec<u64>)>,
    /// Reports that said what one of these confirms.
    replaced: BTreeSet<i64>,
    /// Objects that had no kind.
    pub(super) with_kind: Vec<i64>,
}

impl SqlStore {
    /// Reports with their names' numbers.
    pub(super) async fn prepared_observations<'report>(
        &self,
        reports: impl Iterator<Item = (&'report CollectionResults, Received)>,
    ) -> Result<Vec<Prepared<'report>>, StoreError> {
        let reports: Vec<(&CollectionResults, Received, [String; 3])> = reports
            .map(|(results, from)| {
                let about = [endpoint_text(results.endpoint), from.sender.to_string(), label(&results.method)];
                (results, from, about)
            })
            .collect();
        let names = reports.iter().flat_map(|(results, _, about)| {
            let objects = results.objects.iter().map(|part| part.object.0.as_str());
            about.iter().map(String::as_str).chain(objects)
        });
        let mut numbers = self.numbers(&names.collect::<Vec<_>>()).await?.into_iter();
        let mut prepared = Vec::with_capacity(reports.len());
        for (results, from, [endpoint_text, origin_text, _]) in reports {
            // The sender's word for the hash is never taken.
            let contents: Vec<Content> = results.items.iter().map(Content::of).collect();
            let findings = results.objects.iter().map(|part| Finding::of(part, &contents)).collect();
            let [endpoint, origin, method] = std::array::from_fn(|_| numbers.next().unwrap_or_default());
            let objects = numbers.by_ref().take(results.objects.len()).collect();
            prepared.push(Prepared {
                results,
                from,
                origin_text,
                endpoint_text,
                endpoint,
                origin,
                method,
                objects,
                contents,
                findings,
            });
        }
        Ok(prepared)
    }

    /// Stores what was seen.
    pub(super) async fn keep_observations<'report>(
        &self,
        tx: &mut Tx,
        seen: &[&'report Prepared<'report>],
        reports: impl Iterator<Item = &'report Report>,
        numbers: &reports::Numbers,
    ) -> Result<Recorded, StoreError> {
        let Some(received) = seen.iter().map(|prepared| prepared.from.received).max() else {
            return Ok(Recorded::default());
        };
        let source = |(prepared, report): (&&'report Prepared<'report>, &Report)| {
            let report = numbers.get(report.hash.as_str()).copied();
            let report = report.ok_or_else(|| StoreError::Damaged("the number of a report is not there".to_owned()))?;
            Ok(Source { prepared, report })
        };
        let sources: Vec<Source<'_>> = seen.iter().zip(reports).map(source).collect::<Result<_, StoreError>>()?;
        let recorded = self.record_all(tx, &sources).await?;
        reports::release(tx, &recorded.replaced, received).await?;
        for Source { prepared, .. } in &sources {
            if let Some(position) = &prepared.results.stream {
                changes::count_report(tx, position, prepared.from).await?;
            }
        }
        keep_facts(tx, &sources).await?;
        Ok(recorded)
    }

    async fn record_all(&self, tx: &mut Tx, sources: &[Source<'_>]) -> Result<Recorded, StoreError> {
        let mut recorded = Recorded { changes: vec![(0, Vec::new()); sources.len()], ..Recorded::default() };
        let mut batch = Batch::new();
        let mut is_first_batch = true;
        for (source, Source { prepared, .. }) in sources.iter().enumerate() {
            let objects = prepared.results.objects.iter().zip(&prepared.objects).zip(&prepared.findings);
            for ((part, object), found) in objects {
                let key = Key { endpoint: prepared.endpoint, origin: prepared.origin, object: *object };
                // An object that is there twice is two observations, one after the other.
                if batch.contains_key(&key) {
                    self.record(tx, sources, (&batch, is_first_batch), &mut recorded).await?;
                    batch.clear();
                    is_first_batch = false;
                }
                batch.insert(key, Looked { source, part, found });
            }
        }
        self.record(tx, sources, (&batch, is_first_batch), &mut recorded).await?;
        Ok(recorded)
    }

    /// Stores what some objects found, each of them once.
    async fn record(
        &self,
        tx: &mut Tx,
        sources: &[Source<'_>],
        (batch, is_first_batch): (&Batch<'_>, bool),
        recorded: &mut Recorded,
    ) -> Result<(), StoreError> {
        let mut known = current(tx, batch).await?;
        // Numbers that this transaction has given may be given again, if it fails.
        let findings =
            if is_first_batch { known.values().map(|current| current.finding).collect() } else { BTreeSet::new() };
        let hashes = self.hashes(&mut *tx, "finding", findings).await?;
        let (mut confirmed, mut others) = (Vec::new(), Vec::new());
        let mut confirm_one = |before: Current, looked: &Looked<'_>| {
            recorded.replaced.extend(before.report);
            let (report, collected) = (sources[looked.source].report, looked.collected());
            confirmed.push(Confirmed { id: before.id, collected, report });
        };
        for (key, looked) in batch {
            match known.remove(key) {
                // What was seen earlier never overwrites what was seen later.
                Some(before) if looked.collected() < before.last_seen => {}
                Some(before) if hashes.get(&before.finding).is_some_and(|hash| **hash == *looked.found.hash) => {
                    confirm_one(before, looked);
                }
                before => others.push((*key, looked, before)),
            }
        }
        let numbers = keep_findings(tx, sources, others.iter().map(|(_, looked, _)| *looked)).await?;
        let mut fresh = Vec::with_capacity(others.len());
        for (key, looked, before) in others {
            let finding = numbers.get(&looked.found.hash).copied();
            let finding = finding.ok_or_else(|| StoreError::Damaged("a finding is not there".to_owned()))?;
            match before {
                Some(before) if before.finding == finding => confirm_one(before, looked),
                before => fresh.push(Fresh { key, looked, finding, before }),
            }
        }
        confirm(tx, &confirmed).await?;
        for some in fresh.chunks(BATCH) {
            self.keep_kinds(tx, sources, some, recorded).await?;
            insert(tx, sources, some, recorded).await?;
        }
        Ok(())
    }

    /// Of which kind the objects are that found something.
    async fn keep_kinds(
        &self,
        tx: &mut Tx,
        sources: &[Source<'_>],
        fresh: &[Fresh<'_>],
        recorded: &mut Recorded,
    ) -> Result<(), StoreError> {
        let without = self.names.without_kind(fresh.iter().map(|fresh| fresh.key.object));
        let mut kinds = BTreeMap::new();
        for Fresh { key, looked, .. } in fresh.iter().filter(|fresh| without.contains(&fresh.key.object)) {
            let items = &sources[looked.source].prepared.results.items;
            let first = looked.part.items.first().and_then(|first| items.get(*first as usize));
            if let Some(item) = first {
                kinds.entry(key.object).or_insert((&looked.part.object.0, &item.kind));
            }
        }
        if kinds.is_empty() {
            return Ok(());
        }
        let rows = rows_of(kinds.len(), 2);
        let sql = format!("INSERT INTO object_kind (object, kind) VALUES {rows} ON CONFLICT DO NOTHING");
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (object, kind) in kinds.values() {
            query = query.bind(*object).bind(*kind);
        }
        query.execute(&mut **tx).await?;
        recorded.with_kind.extend(kinds.into_keys());
        Ok(())
    }
}

/// Who speaks for the endpoints of these reports.
pub(super) async fn speakers(tx: &mut Tx, prepared: &[Prepared<'_>]) -> Result<HashMap<String, String>, StoreError> {
    let endpoints: BTreeSet<&str> = prepared.iter().map(|prepared| prepared.endpoint_text.as_str()).collect();
    let count = endpoints.len();
    if count == 0 {
        return Ok(HashMap::new());
    }
    // What was asked about an endpoint before it turned out to be another comes in afterwards.
    let sql = format!(
        "SELECT 0 AS is_alias, endpoint, collector FROM assignment WHERE endpoint IN ({}) \
         UNION ALL SELECT 1 AS is_alias, endpoint_alias.endpoint AS endpoint, collector FROM endpoint_alias \
         JOIN assignment ON assignment.endpoint = endpoint_alias.alias_of WHERE endpoint_alias.endpoint IN ({}) ORDER BY is_alias",
        marks(1, count),
        marks(count + 1, count)
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for endpoint in endpoints.iter().chain(&endpoints) {
        query = query.bind(*endpoint);
    }
    let mut speakers = HashMap::with_capacity(count);
    for row in query.fetch_all(&mut **tx).await? {
        speakers.entry(row.try_get("endpoint")?).or_insert(row.try_get("collector")?);
    }
    Ok(speakers)
}

/// What the endpoints say of themselves, each what it said last.
async fn keep_facts(tx: &mut Tx, sources: &[Source<'_>]) -> Result<(), StoreError> {
    let mut newest = BTreeMap::new();
    for Source { prepared, .. } in sources {
        let collected = prepared.results.objects.iter().map(|part| part.collected).max();
        let seen = collected.unwrap_or(prepared.from.received).as_microsecond();
        let of_endpoint = newest.entry(prepared.endpoint_text.as_str()).or_insert((seen, *prepared));
        if of_endpoint.0 <= seen {
            *of_endpoint = (seen, *prepared);
        }
    }
    let sql = format!(
        "{INSERT} endpoint (endpoint, facts, collected) VALUES {} \
         ON CONFLICT (endpoint) DO UPDATE SET facts = excluded.facts, collected = excluded.collected \
         WHERE excluded.collected >= endpoint.collected",
        rows_of(newest.len(), 3)
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for (endpoint, (seen, prepared)) in newest {
        query = query.bind(endpoint).bind(json(&prepared.results.facts)).bind(seen);
    }
    query.execute(&mut **tx).await?;
    Ok(())
}

/// Stores items that are not there yet.
async fn keep_items(tx: &mut Tx, contents: &BTreeMap<&String, &String>) -> Result<(), StoreError> {
    let contents: Vec<(&String, &String)> = contents.iter().map(|(hash, text)| (*hash, *text)).collect();
    for some in contents.chunks(BATCH) {
        let sql = format!("{INSERT} item (hash, content) VALUES {} ON CONFLICT DO NOTHING", rows_of(some.len(), 2));
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (hash, text) in some {
            query = query.bind(hash.as_str()).bind(text.as_str());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// The numbers of what these objects found. What is not there is stored, its items before it.
async fn keep_findings<'batch>(
    tx: &mut Tx,
    sources: &'batch [Source<'_>],
    looked: impl Iterator<Item = &'batch Looked<'batch>> + Clone,
) -> Result<HashMap<String, i64>, StoreError> {
    let rows = looked.clone().map(|looked| looked.found);
    let rows = rows.map(|found| (found.hash.as_str(), [found.flag.as_str(), &found.items, &found.messages]));
    let by_hash = ByHash { table: "finding", columns: ["flag", "items", "messages"], rows: rows.collect() };
    let (mut numbers, lacking) = by_hash.known(tx).await?;
    if lacking.is_empty() {
        return Ok(numbers);
    }
    let mut items = BTreeMap::new();
    for looked in looked.filter(|looked| lacking.binary_search(&looked.found.hash.as_str()).is_ok()) {
        let contents = &sources[looked.source].prepared.contents;
        let found = looked.part.items.iter().filter_map(|at| contents.get(*at as usize));
        items.extend(found.map(|content| (&content.hash, &content.text)));
    }
    keep_items(tx, &items).await?;
    numbers.extend(by_hash.keep(tx, &lacking).await?);
    Ok(numbers)
}

/// These were looked at again, and are as they were.
async fn confirm(tx: &mut Tx, confirmed: &[Confirmed]) -> Result<(), StoreError> {
    for some in confirmed.chunks(BATCH) {
        let sql = format!(
            "{UPDATE} observed SET last_seen = seen.column2, report = seen.column3 FROM (VALUES {}) AS seen \
             WHERE observed.id = seen.column1",
            rows_of(some.len(), 3)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for Confirmed { id, collected, report } in some {
            query = query.bind(*id).bind(*collected).bind(*report);
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// What is current of these objects.
async fn current(tx: &mut Tx, batch: &Batch<'_>) -> Result<HashMap<Key, Current>, StoreError> {
    const COLUMNS: &str = "id, endpoint, object, origin, finding, last_seen, report";
    let mut known = HashMap::with_capacity(batch.len());
    let mut take = |row: super::Row| -> Result<(), StoreError> {
        let key =
            Key { endpoint: row.try_get("endpoint")?, origin: row.try_get("origin")?, object: row.try_get("object")? };
        let current = Current {
            id: row.try_get("id")?,
            finding: row.try_get("finding")?,
            last_seen: row.try_get("last_seen")?,
            report: row.try_get("report")?,
        };
        known.insert(key, current);
        Ok(())
    };
    let keys: Vec<Key> = batch.keys().copied().collect();
    let mut named = Vec::new();
    for of_speaker in keys.chunk_by(|one, other| (one.endpoint, one.origin) == (other.endpoint, other.origin)) {
        // Many are read faster without their names.
        if of_speaker.len() <= NAMED_MAX {
            named.extend(of_speaker);
            continue;
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM observed WHERE endpoint = {} AND origin = {} AND valid_to IS NULL",
            MARKS.one(1),
            MARKS.one(2)
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(of_speaker[0].endpoint).bind(of_speaker[0].origin);
        query.fetch_all(&mut **tx).await?.into_iter().try_for_each(&mut take)?;
    }
    for some in named.chunks(BATCH) {
        let sql = format!(
            "SELECT {COLUMNS} FROM (VALUES {}) AS asked JOIN observed ON endpoint = asked.column1 AND origin = asked.column2 \
             AND object = asked.column3 WHERE valid_to IS NULL",
            rows_of(some.len(), 3)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for Key { endpoint, origin, object } in some {
            query = query.bind(*endpoint).bind(*origin).bind(*object);
        }
        query.fetch_all(&mut **tx).await?.into_iter().try_for_each(&mut take)?;
    }
    Ok(known)
}

/// Ends what was, and begins what is, with the change from the one to the other.
async fn insert(
    tx: &mut Tx,
    sources: &[Source<'_>],
    fresh: &[Fresh<'_>],
    recorded: &mut Recorded,
) -> Result<(), StoreError> {
    for fresh in fresh {
        recorded.changes[fresh.looked.source].0 += 1;
    }
    // What nothing was known of before has not changed.
    let (changed, new): (Vec<&Fresh<'_>>, Vec<&Fresh<'_>>) = fresh.iter().partition(|fresh| fresh.before.is_some());
    if !new.is_empty() {
        begin(tx, sources, &new, "").await?;
    }
    let changed: Vec<(&Fresh<'_>, &Current)> =
        changed.into_iter().filter_map(|fresh| Some((fresh, fresh.before.as_ref()?))).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "{UPDATE} observed SET valid_to = ended.column2 FROM (VALUES {}) AS ended WHERE observed.id = ended.column1",
        rows_of(changed.len(), 2)
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for (fresh, before) in &changed {
        query = query.bind(before.id).bind(fresh.looked.collected());
    }
    query.execute(&mut **tx).await?;
    let begun: Vec<&Fresh<'_>> = changed.iter().map(|(fresh, _)| *fresh).collect();
    let rows = begin(tx, sources, &begun, " RETURNING id, endpoint, origin, object").await?;
    let ids: HashMap<Key, i64> = rows.into_iter().collect();
    let sql = format!(
        "{INSERT} change (endpoint, object, origin, collected, old_observation, new_observation, stream) VALUES {} \
         RETURNING id, new_observation",
        rows_of(changed.len(), 7)
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    let mut whose = HashMap::with_capacity(changed.len());
    for (fresh, before) in changed {
        let source = &fresh.looked.source;
        let stream = sources[*source].prepared.results.stream.as_ref();
        let now = ids.get(&fresh.key).copied();
        whose.extend(now.map(|now| (now, *source)));
        query = query
            .bind(fresh.key.endpoint)
            .bind(fresh.key.object)
            .bind(fresh.key.origin)
            .bind(fresh.looked.collected())
            .bind(before.id)
            .bind(now)
            .bind(stream.map(json));
    }
    for row in query.fetch_all(&mut **tx).await? {
        if let Some(source) = whose.get(&row.try_get::<i64, _>("new_observation")?) {
            recorded.changes[*source].1.push(row.try_get::<i64, _>("id")?.unsigned_abs());
        }
    }
    recorded.changes.iter_mut().for_each(|(_, changed)| changed.sort_unstable());
    Ok(())
}

/// Begins intervals; what they are about with the numbers of their rows, where these are asked for.
async fn begin(
    tx: &mut Tx,
    sources: &[Source<'_>],
    fresh: &[&Fresh<'_>],
    returning: &str,
) -> Result<Vec<(Key, i64)>, StoreError> {
    let sql = format!(
        "{INSERT} observed (endpoint, object, origin, method, finding, valid_from, last_seen, received, report) VALUES {}{returning}",
        rows_of(fresh.len(), 9)
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for Fresh { key, looked, finding, .. } in fresh {
        let Source { prepared, report } = &sources[looked.source];
        query = query
            .bind(key.endpoint)
            .bind(key.object)
            .bind(key.origin)
            .bind(prepared.method)
            .bind(*finding)
            .bind(looked.collected())
            .bind(looked.collected())
            .bind(prepared.from.received.as_microsecond())
            .bind(*report);
    }
    let rows = query.fetch_all(&mut **tx).await?;
    let of_row = |row: &super::Row| {
        let key =
            Key { endpoint: row.try_get("endpoint")?, origin: row.try_get("origin")?, object: row.try_get("object")? };
        Ok((key, row.try_get("id")?))
    };
    rows.iter().map(of_row).collect()
}
