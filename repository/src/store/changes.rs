//! Changes, and the epochs of the observations that brought them, for whichever back end includes this file.

use std::collections::{BTreeMap, BTreeSet};

use proto::message::{AttributeChange, ChangesRequest, ChangesResponse, ObjectState, StreamPosition, StreamState};
use proto::observation::Item;
use proto::plan::ObjectKey;
use service::report::Chain;
use sqlx::Row as _;

use super::super::super::{Received, StoreError, endpoint_text, id, json, time, unjson, unlabel};
use super::statement::{BATCH, marks, places};
use super::{Row, SqlStore, Tx};

/// Bytes of the items of one side of a change.
const SIDE_BYTES_MAX: usize = 16 * 1024;
/// Epochs that are looked at for one answer.
const STREAMS_MAX: i64 = 1_000;
/// Changes on a page.
const PAGE_CHANGES_MAX: u32 = 50;
/// Pages of changes that are asked for by number.
const NUMBERED_PAGES_MAX: usize = 4;
/// Changes of what was known before, with both of their sides.
const CHANGES: &str = "SELECT change.id AS id, endpoint.text AS endpoint, object.text AS object, origin.text AS origin, stream, \
     past.last_seen AS past_seen, past_finding.flag AS past_flag, past_finding.items AS past_items, \
     past_finding.messages AS past_messages, present.valid_from AS present_seen, present_finding.flag AS present_flag, \
     present_finding.items AS present_items, present_finding.messages AS present_messages FROM change \
     JOIN name AS endpoint ON endpoint.id = change.endpoint JOIN name AS object ON object.id = change.object \
     JOIN name AS origin ON origin.id = change.origin \
     JOIN observed AS past ON past.id = change.old_observation JOIN finding AS past_finding ON past_finding.id = past.finding \
     JOIN observed AS present ON present.id = change.new_observation \
     JOIN finding AS present_finding ON present_finding.id = present.finding";

/// Counts a report of an observation.
pub(super) async fn count_report(tx: &mut Tx, position: &StreamPosition, from: Received) -> Result<(), StoreError> {
    let sequence = i64::try_from(position.sequence).unwrap_or(i64::MAX);
    // What waited for a way comes in any order: which epoch is the newest, the collector says.
    let made = from.message.made().unwrap_or(from.received);
    sqlx::query(
        "INSERT INTO stream (origin, observation, epoch, begun, highest, received) VALUES ($1, $2, $3, $4, $5, 1) \
         ON CONFLICT (origin, observation, epoch) DO UPDATE SET received = stream.received + 1, \
         begun = CASE WHEN excluded.begun < stream.begun THEN excluded.begun ELSE stream.begun END, \
         highest = CASE WHEN excluded.highest > stream.highest THEN excluded.highest ELSE stream.highest END",
    )
    .bind(from.sender.to_string())
    .bind(&position.observation_identifier)
    .bind(position.epoch.to_string())
    .bind(made.as_microsecond())
    .bind(sequence)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A change with its two sides.
struct Changed {
    change: AttributeChange,
    past: ObjectState,
    /// The hashes of what there was, and of what there is.
    items: [Vec<String>; 2],
}

impl SqlStore {
    pub(super) async fn changes_of(&self, numbers: &[u64], is_whole: bool) -> Result<Vec<AttributeChange>, StoreError> {
        let mut changes = Vec::with_capacity(numbers.len());
        for some in numbers.chunks(BATCH) {
            let sql = format!("{CHANGES} WHERE change.id IN ({}) ORDER BY change.id", marks(1, some.len()));
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
            for number in some {
                query = query.bind(i64::try_from(*number).unwrap_or(i64::MAX));
            }
            for row in query.fetch_all(&self.readers).await? {
                match changed(&row) {
                    Ok(changed) => changes.push(self.told(changed, is_whole).await?),
                    // The others can be read.
                    Err(error) => tracing::warn!(error = %Chain(&error), "a change cannot be read"),
                }
            }
        }
        Ok(changes)
    }

    pub(super) async fn changes_page(&self, request: &ChangesRequest) -> Result<ChangesResponse, StoreError> {
        if !request.numbers.is_empty() {
            return self.changes_asked_for(&request.numbers).await;
        }
        let before = request.before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        let limit = request.limit.clamp(1, PAGE_CHANGES_MAX);
        let mut wanted: BTreeSet<String> = request.endpoints.iter().map(|endpoint| endpoint_text(*endpoint)).collect();
        if !wanted.is_empty() {
            let merged = self.aliases().await?.into_iter().filter(|(_, of)| wanted.contains(of));
            let merged: Vec<String> = merged.map(|(endpoint, _)| endpoint).collect();
            wanted.extend(merged);
        }
        let known = self.known_numbers(&wanted.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let of_endpoints = match wanted.len() {
            0 => String::new(),
            count => format!(" AND change.endpoint IN ({})", places(3, count)),
        };
        let sql = format!("{CHANGES} WHERE change.id < $1{of_endpoints} ORDER BY change.id DESC LIMIT $2");
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(before).bind(i64::from(limit) + 1);
        for endpoint in known {
            query = query.bind(endpoint);
        }
        let rows = query.fetch_all(&self.readers).await?;
        // Once is enough; later pages are about changes.
        let streams = if request.before.is_none() { self.streams().await? } else { Vec::new() };
        let mut response = ChangesResponse { changes: Vec::new(), next: None, streams };
        let mut bytes = 0;
        for row in rows {
            if response.changes.len() == limit as usize || bytes > proto::limits::RESULT_PART_BYTES {
                response.next = response.changes.last().map(|change: &AttributeChange| change.change);
                break;
            }
            let change = self.told(changed(&row)?, true).await?;
            bytes += json(&change).len();
            response.changes.push(change);
        }
        Ok(response)
    }

    /// As many of these as travel.
    async fn changes_asked_for(&self, numbers: &[u64]) -> Result<ChangesResponse, StoreError> {
        let mut response = ChangesResponse { changes: Vec::new(), next: None, streams: Vec::new() };
        let mut bytes = 0;
        for some in numbers.chunks(PAGE_CHANGES_MAX as usize).take(NUMBERED_PAGES_MAX) {
            for change in self.changes_of(some, true).await? {
                bytes += json(&change).len();
                response.changes.push(change);
                if bytes > proto::limits::RESULT_PART_BYTES {
                    return Ok(response);
                }
            }
        }
        Ok(response)
    }

    /// A change with what one of its sides has and the other has not, if that is wanted.
    async fn told(&self, changed: Changed, is_whole: bool) -> Result<AttributeChange, StoreError> {
        let Changed { mut change, mut past, items: [old, new] } = changed;
        if is_whole {
            past.items = self.items_but(&old, &new).await?;
            change.current.items = self.items_but(&new, &old).await?;
        }
        Ok(AttributeChange { past: Some(past), ..change })
    }

    async fn items_but(&self, hashes: &[String], others: &[String]) -> Result<Vec<Item>, StoreError> {
        let others: BTreeSet<&String> = others.iter().collect();
        let mut items = Vec::new();
        let mut bytes = 0;
        for hash in hashes.iter().filter(|hash| !others.contains(hash)) {
            let row = sqlx::query("SELECT content FROM item WHERE hash = $1")
                .bind(hash)
                .fetch_optional(&self.readers)
                .await?;
            // It may have gone with what was old.
            let Some(row) = row else { continue };
            let content: String = row.try_get("content")?;
            bytes += content.len();
            if bytes > SIDE_BYTES_MAX {
                break;
            }
            items.push(unjson(&content)?);
        }
        Ok(items)
    }

    /// The newest epoch of every observation, as many as travel.
    async fn streams(&self) -> Result<Vec<StreamState>, StoreError> {
        let rows = sqlx::query(
            "SELECT origin, observation, epoch, highest, received FROM stream ORDER BY begun DESC LIMIT $1",
        )
        .bind(STREAMS_MAX)
        .fetch_all(&self.readers)
        .await?;
        let mut newest = BTreeMap::new();
        for row in rows {
            let number = |name: &str| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
            let state = StreamState {
                origin: id(&row.try_get::<String, _>("origin")?)?,
                observation_identifier: row.try_get("observation")?,
                epoch: id(&row.try_get::<String, _>("epoch")?)?,
                highest: number("highest")?,
                received: number("received")?,
            };
            newest.entry((state.origin, state.observation_identifier.clone())).or_insert(state);
        }
        Ok(newest.into_values().collect())
    }
}

/// A row of [`CHANGES`].
fn changed(row: &Row) -> Result<Changed, StoreError> {
    let side = |side: &str| -> Result<(ObjectState, Vec<String>), StoreError> {
        let column = |name: &str| format!("{side}_{name}");
        let items: Vec<String> = unjson(row.try_get::<&str, _>(column("items").as_str())?)?;
        let state = ObjectState {
            seen: time(row.try_get(column("seen").as_str())?)?,
            flag: unlabel(row.try_get(column("flag").as_str())?)?,
            item_count: items.len() as u64,
            items: Vec::new(),
            messages: unjson(row.try_get::<&str, _>(column("messages").as_str())?)?,
        };
        Ok((state, items))
    };
    let ((past, old), (current, new)) = (side("past")?, side("present")?);
    let number: i64 = row.try_get("id")?;
    let stream: Option<&str> = row.try_get("stream")?;
    let change = AttributeChange {
        change: number.unsigned_abs(),
        endpoint: id(row.try_get("endpoint")?)?,
        object: ObjectKey(row.try_get("object")?),
        origin: id(row.try_get("origin")?)?,
        collected: current.seen,
        past: None,
        current,
        stream: stream.map(unjson).transpose()?,
    };
    Ok(Changed { change, past, items: [old, new] })
}
