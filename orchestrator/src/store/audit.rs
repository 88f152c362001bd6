//! The log of acts in the store: an entry is written in the transaction of what it tells.

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::message::AuditCheckpoint;
use service::audit::{Act, Entry, Line, beginning, hash_of};
use sqlx::Row as _;

use super::{READ, RowOf, SqlStore, StoreError, Tx};

/// SHA-256 of a document, before and after an act.
#[derive(Debug, Clone, Default)]
pub(super) struct Effect {
    pub(super) before: Option<ContentHash>,
    pub(super) after: Option<ContentHash>,
}

fn hash(text: &str) -> Result<ContentHash, StoreError> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(StoreError::Damaged)
}

fn point(row: &RowOf) -> Result<AuditCheckpoint, StoreError> {
    let number = row.try_get::<i64, _>("number")?.cast_unsigned();
    Ok(AuditCheckpoint { number, hash: hash(&row.try_get::<String, _>("hash")?)? })
}

/// Writes an entry after the last one.
pub(super) async fn record(tx: &mut Tx, act: &Act, effect: Effect) -> Result<(), StoreError> {
    let last =
        sqlx::query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1").fetch_optional(&mut **tx).await?;
    let (number, previous) = match last {
        Some(row) => (row.try_get::<i64, _>("number")?.cast_unsigned(), hash(&row.try_get::<String, _>("hash")?)?),
        None => (0, beginning()),
    };
    let entry = Entry {
        number: number + 1,
        at: Timestamp::now(),
        actor: act.actor.clone(),
        act: act.act.clone(),
        subject: act.subject.clone(),
        detail: act.detail.clone(),
        before: effect.before,
        after: effect.after,
        previous,
    };
    let text = serde_json::to_string(&entry).expect("an entry always serialises");
    sqlx::query("INSERT INTO audit (number, entry, hash) VALUES ($1, $2, $3)")
        .bind(entry.number.cast_signed())
        .bind(&text)
        .bind(hash_of(&text).as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl SqlStore {
    /// How far the log has come, unless that is signed already.
    pub async fn unsigned(&self) -> Result<Option<AuditCheckpoint>, StoreError> {
        let row = sqlx::query(
            "SELECT number, hash FROM audit WHERE number > (SELECT coalesce(max(number), 0) FROM audit_checkpoint) \
             ORDER BY number DESC LIMIT 1",
        )
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(point).transpose()
    }

    /// How far the log has come.
    pub async fn last_entry(&self) -> Result<Option<AuditCheckpoint>, StoreError> {
        let row = sqlx::query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(point).transpose()
    }

    /// Keeps what the orchestrator has signed.
    pub async fn put_checkpoint(&self, number: u64, sealed: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO audit_checkpoint (number, sealed) VALUES ($1, $2)")
            .bind(number.cast_signed())
            .bind(sealed)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// The log from an entry on: so many entries, and the checkpoints that were signed among them.
    pub async fn audit_lines(&self, after: u64, limit: u32) -> Result<(Vec<Line>, u64), StoreError> {
        // Both are read as they were at one time; what was done after the last signature is not part of it.
        let mut tx = self.readers.begin_with(READ).await?;
        let rows = sqlx::query(
            "SELECT number, entry FROM audit WHERE number > $1 \
             AND number <= (SELECT coalesce(max(number), 0) FROM audit_checkpoint) ORDER BY number LIMIT $2",
        )
        .bind(after.cast_signed())
        .bind(i64::from(limit))
        .fetch_all(&mut *tx)
        .await?;
        let mut lines = Vec::with_capacity(rows.len());
        let mut last = after;
        for row in rows {
            last = row.try_get::<i64, _>("number")?.cast_unsigned();
            lines.push(Line::Entry(row.try_get("entry")?));
        }
        // Those beyond the last entry come with it: they tell that something was cut off.
        let until = if lines.len() < limit as usize { i64::MAX } else { last.cast_signed() };
        let rows =
            sqlx::query("SELECT sealed FROM audit_checkpoint WHERE number > $1 AND number <= $2 ORDER BY number")
                .bind(after.cast_signed())
                .bind(until)
                .fetch_all(&mut *tx)
                .await?;
        for row in rows {
            lines.push(Line::Checkpoint(row.try_get("sealed")?));
        }
        Ok((lines, last))
    }
}
