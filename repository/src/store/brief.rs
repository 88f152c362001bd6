//! What is known of objects by its hash, for whichever back end includes this file. Evaluators ask so of every endpoint, of one or
//! of many at once, and read what they have not seen before.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::id::EndpointId;
use proto::message::{Brief, Briefs, KnownAt, QueryRequest};
use sqlx::Row as _;

use super::super::super::{StoreError, endpoint_text, time};
use super::names::Hashes;
use super::observations::{collected_at, collected_by};
use super::statement::{NAMED_MAX, gathered, places, rows_in, rows_of};
use super::{ALIASES, Row, SqlStore};

/// Objects of one answer: a hash each, at worst.
pub(super) const OBJECTS_MAX: usize = 2_000;
/// Rows of an answer about many endpoints; and bytes of it, about, after which no other endpoint is added.
const ROWS_MAX: usize = 10_000;
const BYTES_MAX: usize = 384 * 1024;
/// Bytes of a hash in JSON, of a time, and of the positions for an object.
const HASH_BYTES: usize = 67;
const TIME_BYTES: usize = 31;
const POSITIONS_BYTES: usize = 18;

/// What is listed once and referred to by position.
struct Listed<Value> {
    positions: HashMap<i64, u32>,
    values: Vec<Value>,
}

impl<Value> Default for Listed<Value> {
    fn default() -> Self {
        Self { positions: HashMap::new(), values: Vec::new() }
    }
}

impl<Value> Listed<Value> {
    fn position(&mut self, of: i64, value: impl FnOnce() -> Result<Value, StoreError>) -> Result<u32, StoreError> {
        Ok(match self.positions.entry(of) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                self.values.push(value()?);
                *vacant.insert(u32::try_from(self.values.len() - 1).unwrap_or(u32::MAX))
            }
        })
    }
}

/// What was found, when, by which reports.
#[derive(Default)]
struct Lists {
    contents: Listed<ContentHash>,
    times: Listed<Timestamp>,
    reports: Listed<ContentHash>,
}

impl Lists {
    /// How long it is in JSON, about.
    fn bytes(&self) -> usize {
        HASH_BYTES * (self.contents.values.len() + self.reports.values.len()) + TIME_BYTES * self.times.values.len()
    }

    fn position(&mut self, hashes: &(Hashes, Hashes), seen: &Seen) -> Result<KnownAt, StoreError> {
        let (findings, sources) = hashes;
        let content = self.contents.position(seen.finding, || content_of(findings, seen.finding))?;
        let at = self.times.position(seen.collected, || time(seen.collected))?;
        // One that is not kept any more is not known, as in a full answer.
        let report = seen.report.filter(|report| sources.contains_key(report));
        let report = report.map(|report| self.reports.position(report, || content_of(sources, report))).transpose()?;
        Ok(Some((content, at, report)))
    }
}

/// One row of `observed`, in numbers.
struct Seen {
    finding: i64,
    report: Option<i64>,
    collected: i64,
    /// When it was last looked at, and the row's number: the greatest is the latest.
    looked: (i64, i64),
}

impl Seen {
    fn of(row: &Row, as_of: i64) -> Result<Self, StoreError> {
        Ok(Self {
            finding: row.try_get("finding")?,
            report: row.try_get("report")?,
            collected: collected_by(row, as_of)?,
            looked: (row.try_get("last_seen")?, row.try_get("id")?),
        })
    }
}

/// Which rows held at a time, the second parameter.
fn held(as_of: Option<Timestamp>) -> &'static str {
    match as_of {
        None => "valid_to IS NULL AND valid_from <= $2",
        Some(_) => "valid_from <= $2 AND (valid_to IS NULL OR valid_to > $2)",
    }
}

fn content_of(hashes: &Hashes, number: i64) -> Result<ContentHash, StoreError> {
    let hash = hashes.get(&number).and_then(|hash| hash.parse().ok());
    hash.ok_or_else(|| StoreError::Damaged(format!("the hash of the row {number}")))
}

impl SqlStore {
    pub(super) async fn brief(&self, request: &QueryRequest) -> Result<Brief, StoreError> {
        let objects = &request.objects[..request.objects.len().min(OBJECTS_MAX)];
        let names: Vec<&str> = objects.iter().map(|object| object.0.as_str()).collect();
        let numbers = self.known_numbers(&names).await?;
        let seen = self.seen(&endpoint_text(request.endpoint), &numbers, request.as_of).await?;
        let hashes = self.hashes_of(numbers.iter().flatten().filter_map(|number| seen.get(number))).await?;
        let mut lists = Lists::default();
        let mut known = Vec::with_capacity(numbers.len());
        for number in &numbers {
            let seen = number.and_then(|number| seen.get(&number));
            known.push(seen.map_or(Ok(None), |seen| lists.position(&hashes, seen))?);
        }
        Ok(Brief {
            objects: Brief::hash_of(objects),
            contents: lists.contents.values,
            times: lists.times.values,
            reports: lists.reports.values,
            known,
        })
    }

    /// The same of many endpoints, of the first so many as fit into an answer.
    pub(super) async fn briefs(&self, request: &QueryRequest) -> Result<Briefs, StoreError> {
        let QueryRequest { endpoint, others, objects, as_of, .. } = request;
        let endpoints: Vec<EndpointId> = [*endpoint].into_iter().chain(others.iter().copied()).collect();
        let endpoints = &endpoints[..endpoints.len().min(ROWS_MAX / objects.len().max(1)).max(1)];
        let places: HashMap<i64, usize> = {
            let names: Vec<&str> = objects.iter().map(|object| object.0.as_str()).collect();
            let numbers = self.known_numbers(&names).await?.into_iter().enumerate();
            numbers.filter_map(|(place, number)| Some((number?, place))).collect()
        };
        let seen = self.seen_of(endpoints, &places, *as_of).await?;
        let hashes = self.hashes_of(seen.iter().flatten().flatten()).await?;
        let mut lists = Lists::default();
        let mut known = Vec::with_capacity(seen.len());
        for of_it in &seen {
            if lists.bytes() + POSITIONS_BYTES * objects.len() * known.len() > BYTES_MAX {
                break;
            }
            let at = |seen: &Option<Seen>| seen.as_ref().map_or(Ok(None), |seen| lists.position(&hashes, seen));
            known.push(of_it.iter().map(at).collect::<Result<Vec<KnownAt>, StoreError>>()?);
        }
        Ok(Briefs {
            objects: Brief::hash_of(objects),
            contents: lists.contents.values,
            times: lists.times.values,
            reports: lists.reports.values,
            endpoints: known,
        })
    }

    /// The hashes of findings, and of reports.
    async fn hashes_of<'seen>(
        &self,
        seen: impl Iterator<Item = &'seen Seen> + Clone,
    ) -> Result<(Hashes, Hashes), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let findings = seen.clone().map(|seen| seen.finding).collect();
        let findings = self.hashes(&mut connection, "finding", findings).await?;
        let sources = seen.filter_map(|seen| seen.report).collect();
        Ok((findings, self.hashes(&mut connection, "report_number", sources).await?))
    }

    /// Of each endpoint, of each object that has a place, what was seen last.
    async fn seen_of(
        &self,
        endpoints: &[EndpointId],
        places: &HashMap<i64, usize>,
        as_of: Option<Timestamp>,
    ) -> Result<Vec<Vec<Option<Seen>>>, StoreError> {
        let count = places.values().max().map_or(0, |place| place + 1);
        let mut seen: Vec<Vec<Option<Seen>>> = endpoints.iter().map(|_| (0..count).map(|_| None).collect()).collect();
        let texts: Vec<String> = endpoints.iter().map(|endpoint| endpoint_text(*endpoint)).collect();
        let asked: HashMap<&str, usize> = texts.iter().enumerate().map(|(at, text)| (text.as_str(), at)).collect();
        // What was merged into one of them counts as it.
        let aliases = self.aliases().await?;
        let merged = aliases.iter().filter_map(|(endpoint, of)| Some((endpoint.as_str(), *asked.get(of.as_str())?)));
        let (names, of): (Vec<&str>, Vec<usize>) = asked.iter().map(|(text, at)| (*text, *at)).chain(merged).unzip();
        let numbers = self.known_numbers(&names).await?.into_iter().zip(of);
        let of: HashMap<i64, usize> = numbers.filter_map(|(number, of)| Some((number?, of))).collect();
        if of.is_empty() {
            return Ok(seen);
        }
        let held = held(as_of).replace("$2", &format!("${}", of.len() + 1));
        let columns = ["object", "finding", "COALESCE(report, 0)", "valid_from", "last_seen", "id"];
        let rows = gathered(&columns, &format!("observed WHERE endpoint = asked.column1 AND {held}"));
        let sql =
            format!("SELECT asked.column1 AS endpoint, {rows} AS seen FROM (VALUES {}) AS asked", rows_of(of.len(), 1));
        let as_of = as_of.unwrap_or(Timestamp::MAX).as_microsecond();
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for number in of.keys() {
            query = query.bind(*number);
        }
        for row in query.bind(as_of).fetch_all(&self.pool).await? {
            let at = of.get(&row.try_get::<i64, _>("endpoint")?);
            let Some((at, rows)) = at.zip(row.try_get::<Option<&str>, _>("seen")?) else { continue };
            for [object, finding, report, valid_from, last_seen, id] in rows_in(rows) {
                let Some(place) = places.get(&object) else { continue };
                let seen = &mut seen[*at][*place];
                let looked = (last_seen, id);
                // Of several origins, the one that looked last.
                if seen.as_ref().is_none_or(|before| before.looked < looked) {
                    let collected = collected_at(valid_from, last_seen, as_of);
                    *seen = Some(Seen { finding, report: (report > 0).then_some(report), collected, looked });
                }
            }
        }
        Ok(seen)
    }

    /// Of each object what was seen last.
    async fn seen(
        &self,
        endpoint: &str,
        objects: &[Option<i64>],
        as_of: Option<Timestamp>,
    ) -> Result<HashMap<i64, Seen>, StoreError> {
        let objects: Vec<i64> = objects.iter().flatten().copied().collect();
        let mut seen = HashMap::with_capacity(objects.len());
        if objects.is_empty() {
            return Ok(seen);
        }
        let held = held(as_of);
        let named = if objects.len() > NAMED_MAX { &[] } else { objects.as_slice() };
        let which =
            if named.is_empty() { String::new() } else { format!("AND object IN ({})", places(3, named.len())) };
        let sql = format!(
            "SELECT id, object, finding, report, valid_from, last_seen FROM observed \
             WHERE endpoint IN (SELECT id FROM name WHERE text IN ({ALIASES})) AND {held} {which}"
        );
        let as_of = as_of.unwrap_or(Timestamp::MAX).as_microsecond();
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(endpoint).bind(as_of);
        for object in named {
            query = query.bind(*object);
        }
        for row in query.fetch_all(&self.pool).await? {
            // Of several origins, the one that looked last.
            let (object, row) = (row.try_get("object")?, Seen::of(&row, as_of)?);
            if seen.get(&object).is_none_or(|before: &Seen| before.looked < row.looked) {
                seen.insert(object, row);
            }
        }
        Ok(seen)
    }
}
