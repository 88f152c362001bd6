//! What is known of objects, and was, for whichever back end includes this file. They are read many at a time, as each statement
//! costs more than what is in it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use proto::limits::RESULT_PART_BYTES;
use proto::message::{QueryRequest, QueryResponse, QueryRow};
use proto::observation::{EndpointFacts, Item};
use proto::plan::ObjectKey;
use sqlx::Row as _;

use super::super::super::{StoreError, endpoint_text, id, time, unjson, unlabel};
use super::statement::{BATCH, marks, places};
use super::{ALIASES, Row, SqlStore};

/// Objects that one page of a query answers, whether anything is stored for them or not: each is looked up.
const PAGE_OBJECTS_MAX: usize = 1_000;

impl SqlStore {
    pub(super) async fn observations(&self, request: &QueryRequest) -> Result<QueryResponse, StoreError> {
        let endpoint = endpoint_text(request.endpoint);
        let sql = format!("SELECT facts FROM endpoint WHERE endpoint IN ({ALIASES}) ORDER BY collected DESC LIMIT 1");
        let facts = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&endpoint).fetch_optional(&self.readers).await?;
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
             last_seen, finding.hash AS content, report.hash AS report FROM observed JOIN name AS origin ON origin.id = observed.origin \
             JOIN name AS method ON method.id = observed.method JOIN finding ON finding.id = observed.finding \
             LEFT JOIN report ON report.id = observed.report \
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
        Ok(query.fetch_all(&self.readers).await?)
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
            for row in query.fetch_all(&self.readers).await? {
                contents.insert(row.try_get("hash")?, row.try_get("content")?);
            }
        }
        Ok(contents)
    }
}

/// When it was looked at, as far as that was known at a time: of the looks between the first and the last of an interval nothing
/// is kept.
pub(super) fn collected_by(row: &Row, as_of: i64) -> Result<i64, StoreError> {
    Ok(collected_at(row.try_get("valid_from")?, row.try_get("last_seen")?, as_of))
}

pub(super) fn collected_at(valid_from: i64, last_seen: i64, as_of: i64) -> i64 {
    if last_seen > as_of { valid_from } else { last_seen }
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
