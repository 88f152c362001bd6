//! The log of acts in the store: an entry is written in the transaction of what it tells.

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::message::AuditCheckpoint;
use service::audit::{Act, Entry, Line, beginning, hash_of};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Store, StoreError};

/// SHA-256 of a document, before and after an act.
#[derive(Debug, Clone, Default)]
pub(crate) struct Effect {
    pub(crate) before: Option<ContentHash>,
    pub(crate) after: Option<ContentHash>,
}

fn hash(text: &str) -> Result<ContentHash, StoreError> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(StoreError::Damaged)
}

fn point(row: &SqliteRow) -> Result<AuditCheckpoint, StoreError> {
    let number = row.try_get::<i64, _>("number")?.cast_unsigned();
    Ok(AuditCheckpoint { number, hash: hash(&row.try_get::<String, _>("hash")?)? })
}

/// Writes an entry after the last one.
pub(super) async fn record(tx: &mut Transaction<'_, Sqlite>, act: &Act, effect: Effect) -> Result<(), StoreError> {
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

impl Store {
    /// How far the log has come, unless that is signed already.
    pub(crate) async fn unsigned(&self) -> Result<Option<AuditCheckpoint>, StoreError> {
        let row = sqlx::query(
            "SELECT number, hash FROM audit WHERE number > (SELECT coalesce(max(number), 0) FROM audit_checkpoint) \
             ORDER BY number DESC LIMIT 1",
        )
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(point).transpose()
    }

    /// How far the log has come.
    pub(crate) async fn last_entry(&self) -> Result<Option<AuditCheckpoint>, StoreError> {
        let row = sqlx::query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(point).transpose()
    }

    /// Keeps what the orchestrator has signed.
    pub(crate) async fn put_checkpoint(&self, number: u64, sealed: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO audit_checkpoint (number, sealed) VALUES ($1, $2)")
            .bind(number.cast_signed())
            .bind(sealed)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The log from an entry on: so many entries, and the checkpoints that were signed among them.
    pub(crate) async fn audit_lines(&self, after: u64, limit: u32) -> Result<(Vec<Line>, u64), StoreError> {
        // Both are read as they were at one time; what was done after the last signature is not part of it.
        let mut tx = self.pool.begin().await?;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use service::audit::{Actor, Checkpoint, verify};
    use service::identity;

    use super::*;
    use crate::ca::Ca;

    /// A log of eight acts, signed after the fifth and after the last, and witnessed after the third.
    fn log() -> (Vec<Line>, Vec<Vec<u8>>) {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(build(directory.path()))
    }

    async fn build(directory: &Path) -> (Vec<Line>, Vec<Vec<u8>>) {
        let now = Timestamp::now();
        let ca = Ca::open(&directory.join("ca"), 3_600, now).unwrap();
        let identity = crate::driver::own_certificate(&ca, &directory.join("identity"), now).unwrap();
        let sealer = identity::Identity::sealer(&identity).unwrap();
        let store = Store::open(&directory.join("store.db")).await.unwrap();
        let mut witness = None;
        for number in 1..=8 {
            let mut tx = store.pool.begin().await.unwrap();
            let act = Act::new(Actor::Operator(0), "evict", number).because("of the test");
            record(&mut tx, &act, Effect::default()).await.unwrap();
            tx.commit().await.unwrap();
            if number == 3 {
                witness = store.unsigned().await.unwrap();
            }
            if number == 5 || number == 8 {
                let audit_checkpoint = store.unsigned().await.unwrap().unwrap();
                let checkpoint = Checkpoint { audit_checkpoint, at: now };
                store.put_checkpoint(number, &checkpoint.seal(&sealer)).await.unwrap();
            }
        }
        assert_eq!(store.unsigned().await.unwrap(), None);
        let (mut lines, last) = store.audit_lines(0, 5).await.unwrap();
        assert_eq!((lines.len(), last), (6, 5));
        lines.extend(store.audit_lines(last, 5).await.unwrap().0);
        lines.push(Line::Witness(witness.unwrap()));
        (lines, ca.ders())
    }

    #[test]
    fn a_log_that_nobody_touched_holds() {
        let (lines, cas) = log();
        let verified = verify(&lines, &cas).unwrap();
        assert_eq!((verified.entry_count, verified.checkpoint_count, verified.witness_count), (8, 2, 1));
        let (_, stranger) = log();
        assert!(verify(&lines, &stranger).unwrap_err().to_string().contains("cannot be believed"));
    }

    #[test]
    fn a_log_that_was_cut_off_is_told_by_what_was_signed_and_by_what_others_remember() {
        let (lines, cas) = log();
        let without_end = |kept: usize, is_signed: bool| -> Vec<Line> {
            let entries = lines.iter().filter(|line| matches!(line, Line::Entry(_))).take(kept);
            let others = lines.iter().filter(|line| match line {
                Line::Entry(_) => false,
                Line::Checkpoint(_) => is_signed,
                Line::Witness(_) => true,
            });
            entries.chain(others).cloned().collect()
        };
        assert!(verify(&without_end(7, true), &cas).unwrap_err().to_string().contains("cut off"));
        // Whoever deletes the signatures too is found out by the repository, or leaves entries that nobody signed.
        assert!(verify(&without_end(2, false), &cas).unwrap_err().to_string().contains("cut off"));
        assert!(verify(&without_end(7, false), &cas).unwrap_err().to_string().contains("not signed"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_entry_is_changed_moved_removed_or_invented(at in 0_usize..8, other in 0_usize..8, kind in 0_u8..4) {
            let (lines, cas) = log();
            let is_entry = |line: &Line| matches!(line, Line::Entry(_));
            let (mut entries, others): (Vec<Line>, Vec<Line>) = lines.into_iter().partition(is_entry);
            match kind {
                0 => {
                    if let Line::Entry(text) = &mut entries[at] {
                        *text = text.replace("evict", "approve");
                    }
                }
                1 => drop(entries.remove(at)),
                2 => entries.insert(at, entries[other].clone()),
                _ if at != other => entries.swap(at, other),
                _ => return Ok(()),
            }
            entries.extend(others);
            prop_assert!(verify(&entries, &cas).is_err());
        }
    }
}
