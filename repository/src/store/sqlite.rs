//! The store on SQLite: one file, write-ahead log, flushed at every commit.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use ::store::migrations;

use super::StoreError;

#[path = "sql.rs"]
mod sql;

type Database = sqlx::Sqlite;
type Pool = sqlx::SqlitePool;

/// Writers must not begin by reading: the upgrade of the lock would fail at once.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// A parameter of a statement that has each once, in order.
fn mark(_: usize) -> String {
    "?".to_owned()
}

/// A transaction has the database to itself.
const LOCK_CONTENT: Option<&str> = None;
const SHARE_CONTENT: Option<&str> = None;
/// Rows that are read ahead: the threads of a connection and of who asks wait for each other as often as that is full.
const ROWS_AHEAD: usize = 2_000;

pub use sql::SqlStore as SqliteStore;

/// What brings the tables up to date.
fn migrations() -> Vec<Migration> {
    migrations![
        1 "init" "../../migrations/sqlite/0001_init.sql",
        2 "changes" "../../migrations/both/0002_changes.sql",
        3 "assignments" "../../migrations/both/0003_assignments.sql",
        4 "audit_witness" "../../migrations/both/0004_audit_witness.sql",
        5 "reports" "../../migrations/sqlite/0005_reports.sql",
        6 "endpoint_alias" "../../migrations/both/0006_endpoint_alias.sql",
        7 "verdicts" "../../migrations/both/0007_verdicts.sql",
        8 "object_kind" "../../migrations/sqlite/0008_object_kind.sql",
        9 "retention" "../../migrations/both/0009_retention.sql",
        10 "store_name" "../../migrations/both/0010_store_name.sql",
        11 "numbers" "../../migrations/sqlite/0011_numbers.sql",
        12 "taken_over" "../../migrations/both/0012_taken_over.sql",
        13 "views" "../../migrations/both/0013_views.sql",
        14 "sequence" "../../migrations/sqlite/0014_sequence.sql",
        15 "fleet_evidence" "../../migrations/both/0015_fleet_evidence.sql",
    ]
}

impl SqliteStore {
    /// Opens or makes the file.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |error| StoreError::Open(path.to_owned(), error);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // There may be no other directory that can be written to.
            .pragma("temp_store", "memory")
            .synchronous(SqliteSynchronous::Full)
            // Pages that change again and again go into the file once, not at every few commits.
            .pragma("wal_autocheckpoint", "8000")
            .pragma("cache_size", "-32000")
            .busy_timeout(Duration::from_secs(10))
            .row_buffer_size(ROWS_AHEAD)
            .disable_statement_logging();
        // SQLite ends a transaction by itself when the disk is full; `sqlx` does not notice, and the
        // connection could begin none any more.
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(options)
            .await
            .map_err(failed)?;
        Migrator::with_migrations(migrations()).run(&pool).await.map_err(StoreError::Migrate)?;
        Ok(Self::over(pool))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_an_earlier_version_stored_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(directory.path().join("x.db")).create_if_missing(true);
        sql::upgrade::check(Pool::connect_with(options).await.unwrap(), migrations()).await;
    }
}
