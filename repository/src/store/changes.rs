//! Changes, and the epochs of the observations that brought them, for whichever back end includes this file.

use std::collections::{BTreeMap, BTreeSet};

use proto::message::{AttributeChange, ChangesRequest, ChangesResponse, ObjectState, StreamPosition, StreamState};
use proto::observation::Item;
use proto::plan::ObjectKey;
use sqlx::Row as _;

use super::super::super::{Received, StoreError, endpoint_text, id, json, time, unjson, unlabel};
use super::{Row, SqlStore, Tx};

/// Bytes of the items of one side of a change.
const SIDE_BYTES_MAX: usize = 16 * 1024;
/// Epochs that are looked at for one answer.
const STREAMS_MAX: i64 = 1_000;
/// Changes on a page.
const PAGE_CHANGES_MAX: u32 = 50;
const COLUMNS: &str = "id, endpoint, object, origin, old_observation, new_observation, stream";

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

/// One observation row, as one side of a change.
struct Side {
    state: ObjectState,
    hashes: Vec<String>,
}

impl SqlStore {
    pub(super) async fn change_numbered(&self, number: u64) -> Result<Option<AttributeChange>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM change WHERE id = $1 AND old_observation IS NOT NULL");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(i64::try_from(number).unwrap_or(i64::MAX))
            .fetch_optional(&self.pool)
            .await?;
        match row {
            Some(row) => self.change_of(&row).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn changes_page(&self, request: &ChangesRequest) -> Result<ChangesResponse, StoreError> {
        let before = request.before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        let limit = request.limit.clamp(1, PAGE_CHANGES_MAX);
        let mut wanted: BTreeSet<String> = request.endpoints.iter().map(|endpoint| endpoint_text(*endpoint)).collect();
        let merged = self.aliases().await?.into_iter().filter(|(_, of)| wanted.contains(of));
        let merged: Vec<String> = merged.map(|(endpoint, _)| endpoint).collect();
        wanted.extend(merged);
        let places: Vec<String> = (0..wanted.len()).map(|at| format!("${}", at + 3)).collect();
        let of_endpoints =
            if wanted.is_empty() { String::new() } else { format!(" AND endpoint IN ({})", places.join(", ")) };
        let sql = format!(
            "SELECT {COLUMNS} FROM change WHERE old_observation IS NOT NULL AND id < $1{of_endpoints} ORDER BY id DESC LIMIT $2"
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(before).bind(i64::from(limit) + 1);
        for endpoint in wanted {
            query = query.bind(endpoint);
        }
        let rows = query.fetch_all(&self.pool).await?;
        // Once is enough; later pages are about changes.
        let streams = if request.before.is_none() { self.streams().await? } else { Vec::new() };
        let mut response = ChangesResponse { changes: Vec::new(), next: None, streams };
        let mut bytes = 0;
        for row in rows {
            if response.changes.len() == limit as usize || bytes > proto::limits::RESULT_PART_BYTES {
                response.next = response.changes.last().map(|change: &AttributeChange| change.change);
                break;
            }
            let change = self.change_of(&row).await?;
            bytes += json(&change).len();
            response.changes.push(change);
        }
        Ok(response)
    }

    async fn change_of(&self, row: &Row) -> Result<AttributeChange, StoreError> {
        let mut past = self.side(row.try_get("old_observation")?, "last_seen").await?;
        let mut current = self.side(row.try_get("new_observation")?, "valid_from").await?;
        past.state.items = self.items_but(&past.hashes, &current.hashes).await?;
        current.state.items = self.items_but(&current.hashes, &past.hashes).await?;
        let number: i64 = row.try_get("id")?;
        let stream: Option<String> = row.try_get("stream")?;
        Ok(AttributeChange {
            change: number.unsigned_abs(),
            endpoint: id(&row.try_get::<String, _>("endpoint")?)?,
            object: ObjectKey(row.try_get("object")?),
            origin: id(&row.try_get::<String, _>("origin")?)?,
            collected: current.state.seen,
            past: Some(past.state),
            current: current.state,
            stream: stream.as_deref().map(unjson).transpose()?,
        })
    }

    async fn side(&self, observation: i64, seen: &str) -> Result<Side, StoreError> {
        let row = sqlx::query("SELECT flag, items, messages, valid_from, last_seen FROM observation WHERE id = $1")
            .bind(observation)
            .fetch_one(&self.pool)
            .await?;
        let hashes: Vec<String> = unjson(&row.try_get::<String, _>("items")?)?;
        let state = ObjectState {
            seen: time(row.try_get(seen)?)?,
            flag: unlabel(&row.try_get::<String, _>("flag")?)?,
            item_count: hashes.len() as u64,
            items: Vec::new(),
            messages: unjson(&row.try_get::<String, _>("messages")?)?,
        };
        Ok(Side { state, hashes })
    }

    async fn items_but(&self, hashes: &[String], others: &[String]) -> Result<Vec<Item>, StoreError> {
        let others: BTreeSet<&String> = others.iter().collect();
        let mut items = Vec::new();
        let mut bytes = 0;
        for hash in hashes.iter().filter(|hash| !others.contains(hash)) {
            let row = sqlx::query("SELECT content FROM item WHERE hash = $1").bind(hash).fetch_one(&self.pool).await?;
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
        .fetch_all(&self.pool)
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
