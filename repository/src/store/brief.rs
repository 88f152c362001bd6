//! What is known of objects by its hash, for whichever back end includes this file. Evaluators ask so of every endpoint, of one or
//! of many at once, and read what they have not seen before.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::id::EndpointId;
use proto::message::{Brief, Briefs, Knowledge, KnownAt, QueryRequest};
use proto::plan::ObjectKey;
use sqlx::Row as _;

use super::super::super::{StoreError, endpoint_text, time};
use super::names::Hashes;
use super::observations::collected_at;
use super::statement::{NAMED_MAX, gathered, places, rows_in, rows_of};
use super::{ALIASES, SqlStore, knowledge};

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

/// What was seen of an endpoint.
#[derive(Default)]
struct SeenOf {
    objects: HashMap<i64, Seen>,
    knowledge: Option<Knowledge>,
}

fn content_of(hashes: &Hashes, number: i64) -> Result<ContentHash, StoreError> {
    let hash = hashes.get(&number).and_then(|hash| hash.parse().ok());
    hash.ok_or_else(|| StoreError::Damaged(format!("the hash of the row {number}")))
}

impl SqlStore {
    pub(super) async fn brief(&self, request: &QueryRequest) -> Result<Brief, StoreError> {
        let objects = &request.objects[..request.objects.len().min(OBJECTS_MAX)];
        let Briefs { objects, contents, times, reports, mut endpoints, mut knowledge } =
            self.briefs_of(&[request.endpoint], objects, request.as_of).await?;
        let (known, knowledge) = (endpoints.pop().unwrap_or_default(), knowledge.pop().flatten());
        Ok(Brief { objects, contents, times, reports, known, knowledge })
    }

    /// The same of many endpoints, of the first so many as fit into an answer.
    pub(super) async fn briefs(&self, request: &QueryRequest) -> Result<Briefs, StoreError> {
        let QueryRequest { endpoint, others, objects, as_of, .. } = request;
        let fitting = (ROWS_MAX / objects.len().max(1)).max(1);
        let endpoints: Vec<EndpointId> = std::iter::once(endpoint).chain(others).copied().take(fitting).collect();
        self.briefs_of(&endpoints, objects, *as_of).await
    }

    async fn briefs_of(
        &self,
        endpoints: &[EndpointId],
        objects: &[ObjectKey],
        as_of: Option<Timestamp>,
    ) -> Result<Briefs, StoreError> {
        let names: Vec<&str> = objects.iter().map(|object| object.0.as_str()).collect();
        let numbers = self.known_numbers(&names).await?;
        let seen = self.seen(endpoints, &numbers, as_of).await?;
        let hashes = {
            let mut connection = self.readers.acquire().await?;
            let all = || seen.iter().flat_map(|of_one| of_one.objects.values());
            let findings = self.hashes(&mut connection, "finding", all().map(|seen| seen.finding).collect()).await?;
            let reports = all().filter_map(|seen| seen.report).collect();
            (findings, self.hashes(&mut connection, "report", reports).await?)
        };
        let mut lists = Lists::default();
        let mut known = Vec::with_capacity(seen.len());
        for SeenOf { objects: seen, .. } in &seen {
            if lists.bytes() + POSITIONS_BYTES * objects.len() * known.len() > BYTES_MAX {
                break;
            }
            let at = |number: &Option<i64>| {
                let seen = number.and_then(|number| seen.get(&number));
                seen.map_or(Ok(None), |seen| lists.position(&hashes, seen))
            };
            known.push(numbers.iter().map(at).collect::<Result<Vec<KnownAt>, StoreError>>()?);
        }
        Ok(Briefs {
            objects: Brief::hash_of(objects),
            contents: lists.contents.values,
            times: lists.times.values,
            reports: lists.reports.values,
            knowledge: seen.into_iter().take(known.len()).map(|seen| seen.knowledge).collect(),
            endpoints: known,
        })
    }

    /// Of each of these endpoints, of each object what was seen last; and what is known of it in all, where that is asked of now.
    async fn seen(
        &self,
        endpoints: &[EndpointId],
        objects: &[Option<i64>],
        as_of: Option<Timestamp>,
    ) -> Result<Vec<SeenOf>, StoreError> {
        let objects: BTreeSet<i64> = objects.iter().flatten().copied().collect();
        let mut seen: Vec<SeenOf> = endpoints.iter().map(|_| SeenOf::default()).collect();
        let time = 2 * endpoints.len() + 1;
        let held = match as_of {
            None => format!("valid_to IS NULL AND valid_from <= ${time}"),
            Some(_) => format!("valid_from <= ${time} AND (valid_to IS NULL OR valid_to > ${time})"),
        };
        let named = objects.len() <= NAMED_MAX;
        let which = match objects.len() {
            0 => "AND 1 = 0".to_owned(),
            count if named => format!("AND object IN ({})", places(time + 1, count)),
            _ => String::new(),
        };
        // What was merged into an endpoint counts as it.
        let numbers = format!("SELECT id FROM name WHERE text IN ({})", ALIASES.replace("$1", "asked.column2"));
        let rows = gathered(
            &["object", "finding", "COALESCE(report, 0)", "valid_from", "last_seen", "id"],
            &format!("observed WHERE endpoint IN ({numbers}) AND {held} {which}"),
        );
        // In one statement with the rows: it is the word for just them.
        let knowledge = if as_of.is_none() { knowledge::of("asked.column2") } else { "NULL AS knowledge".to_owned() };
        let asked = rows_of(endpoints.len(), 2);
        let sql = format!("SELECT asked.column1 AS at, {rows} AS seen, {knowledge} FROM (VALUES {asked}) AS asked");
        let as_of = as_of.unwrap_or(Timestamp::MAX).as_microsecond();
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (at, endpoint) in (0_i64..).zip(endpoints) {
            query = query.bind(at).bind(endpoint_text(*endpoint));
        }
        query = query.bind(as_of);
        for object in objects.iter().filter(|_| named) {
            query = query.bind(*object);
        }
        for row in query.fetch_all(&self.readers).await? {
            let seen = usize::try_from(row.try_get::<i64, _>("at")?).ok().and_then(|at| seen.get_mut(at));
            let Some(SeenOf { objects: seen, knowledge }) = seen else { continue };
            *knowledge = knowledge::in_row(&row, self.process)?;
            let rows = row.try_get::<Option<&str>, _>("seen")?.unwrap_or_default();
            for [object, finding, report, valid_from, last_seen, id] in rows_in(rows) {
                let looked = (last_seen, id);
                // Of several origins, the one that looked last.
                if objects.contains(&object) && seen.get(&object).is_none_or(|before| before.looked < looked) {
                    let collected = collected_at(valid_from, last_seen, as_of);
                    seen.insert(object, Seen { finding, report: (report > 0).then_some(report), collected, looked });
                }
            }
        }
        Ok(seen)
    }
}
