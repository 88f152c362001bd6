//! What is known of objects by its hash, for whichever back end includes this file. Evaluators ask so of every endpoint, and read
//! what they have not seen before.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::message::{Brief, QueryRequest};
use sqlx::Row as _;

use super::super::super::{StoreError, endpoint_text, time};
use super::names::Hashes;
use super::observations::collected_by;
use super::statement::{NAMED_MAX, places};
use super::{ALIASES, SqlStore};

/// Objects of one answer: a hash each, at worst.
const OBJECTS_MAX: usize = 2_000;

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

/// One row of `observed`, in numbers.
struct Seen {
    finding: i64,
    report: Option<i64>,
    collected: i64,
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
        let meant = || numbers.iter().flatten().filter_map(|number| seen.get(number));
        let mut connection = self.pool.acquire().await?;
        let findings = meant().map(|seen| seen.finding).collect();
        let findings = self.hashes(&mut connection, "finding", findings).await?;
        let sources = meant().filter_map(|seen| seen.report).collect();
        let sources = self.hashes(&mut connection, "report_number", sources).await?;
        let (mut contents, mut times, mut reports) = (Listed::default(), Listed::default(), Listed::default());
        let mut known = Vec::with_capacity(numbers.len());
        for number in &numbers {
            let Some(seen) = number.and_then(|number| seen.get(&number)) else {
                known.push(None);
                continue;
            };
            let content = contents.position(seen.finding, || content_of(&findings, seen.finding))?;
            let at = times.position(seen.collected, || time(seen.collected))?;
            // One that is not kept any more is not known, as in a full answer.
            let report = seen.report.filter(|report| sources.contains_key(report));
            let report = report.map(|report| reports.position(report, || content_of(&sources, report))).transpose()?;
            known.push(Some((content, at, report)));
        }
        Ok(Brief {
            objects: Brief::hash_of(objects),
            contents: contents.values,
            times: times.values,
            reports: reports.values,
            known,
        })
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
        let held = match as_of {
            None => "valid_to IS NULL AND valid_from <= $2",
            Some(_) => "valid_from <= $2 AND (valid_to IS NULL OR valid_to > $2)",
        };
        let named = if objects.len() > NAMED_MAX { &[] } else { objects.as_slice() };
        let which =
            if named.is_empty() { String::new() } else { format!("AND object IN ({})", places(3, named.len())) };
        let sql = format!(
            "SELECT object, finding, report, valid_from, last_seen FROM observed \
             WHERE endpoint IN (SELECT id FROM name WHERE text IN ({ALIASES})) AND {held} {which} \
             ORDER BY last_seen DESC, id DESC"
        );
        let as_of = as_of.unwrap_or(Timestamp::MAX).as_microsecond();
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(endpoint).bind(as_of);
        for object in named {
            query = query.bind(*object);
        }
        for row in query.fetch_all(&self.pool).await? {
            // Of several origins, the one that looked last: they come in that order.
            if let Entry::Vacant(vacant) = seen.entry(row.try_get("object")?) {
                vacant.insert(Seen {
                    finding: row.try_get("finding")?,
                    report: row.try_get("report")?,
                    collected: collected_by(&row, as_of)?,
                });
            }
        }
        Ok(seen)
    }
}
