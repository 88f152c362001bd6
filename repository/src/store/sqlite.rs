//! The store on SQLite: one file, write-ahead log, flushed at every commit.

use std::path::Path;

use ::store::migrations;
use ::store::sqlite::{Connections, Shape, open};
use ::store::statement::Marks;
use sqlx::migrate::{Migration, Migrator};

use super::StoreError;

#[path = "sql.rs"]
mod sql;

type Database = sqlx::Sqlite;
type Pool = sqlx::SqlitePool;

/// Writers must not begin by reading: the upgrade of the lock would fail at once.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// How parameters are named in statements that have each once, in order.
const MARKS: Marks = Marks::InOrder;

/// How a row is written: where one of a statement's rows cannot be, nothing is committed. SQLite need not remember for each statement
/// what was there before it.
const INSERT: &str = "INSERT OR FAIL INTO";
const UPDATE: &str = "UPDATE OR FAIL";

/// A transaction has the database to itself.
const LOCK_CONTENT: Option<&str> = None;
const SHARE_CONTENT: Option<&str> = None;

const SHAPE: Shape = Shape {
    readers: 3,
    writer_cache_kib: 64_000,
    reader_cache_kib: 16_000,
    // Pages that change again and again go into the file once, not at every few commits.
    log_pages: 16_000,
    rows_ahead: 2_000,
};

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
        16 "dense" "../../migrations/sqlite/0016_dense.sql",
        17 "told" "../../migrations/sqlite/0017_told.sql",
    ]
}

impl SqliteStore {
    /// Opens or makes the file.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = open(path, SHAPE).await;
        let Connections { readers, writer } = opened.map_err(|error| StoreError::Open(path.to_owned(), error))?;
        Migrator::with_migrations(migrations()).run(&writer).await.map_err(StoreError::Migrate)?;
        Ok(Self::over(readers, writer))
    }

    /// What is read when everything is moved.
    pub(crate) fn everything(&self) -> &Pool {
        &self.readers
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;

    #[tokio::test]
    async fn what_an_earlier_version_stored_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(directory.path().join("x.db")).create_if_missing(true);
        sql::upgrade::check(Pool::connect_with(options).await.unwrap(), migrations()).await;
    }
}
