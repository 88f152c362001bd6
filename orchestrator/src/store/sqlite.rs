//! The store on SQLite: a file that one orchestrator uses.

use std::path::Path;

use ::store::migrations;
use ::store::sqlite::{Connections, Shape, open};
use ::store::statement::Marks;
use sqlx::migrate::Migrator;

use super::StoreError;

#[path = "sql.rs"]
mod sql;

type Database = sqlx::Sqlite;
type Pool = sqlx::SqlitePool;

/// Writers must not begin by reading: the upgrade of the lock would fail at once.
const BEGIN: &str = "BEGIN IMMEDIATE";
/// How parameters are named in statements about many rows.
const MARKS: Marks = Marks::InOrder;
/// Everything is read as it was at one time.
const READ: &str = "BEGIN";

const SHAPE: Shape =
    Shape { readers: 1, writer_cache_kib: 8_000, reader_cache_kib: 2_000, log_pages: 1_000, rows_ahead: 50 };

/// The lock of the data directory keeps others away.
#[derive(Debug, Clone, Copy)]
struct Fence;

impl Fence {
    #[expect(clippy::unused_async, reason = "a database is asked here")]
    async fn check(self, _: &mut sqlx::Transaction<'static, Database>) -> Result<(), StoreError> {
        Ok(())
    }
}

pub use sql::SqlStore as SqliteStore;

impl SqliteStore {
    /// Opens or makes the file.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = open(path, SHAPE).await;
        let Connections { readers, writer } = opened.map_err(|error| StoreError::Open(path.to_owned(), error))?;
        let migrations = migrations![
            1 "init" "../../migrations/sqlite/0001_init.sql",
            2 "standing_task" "../../migrations/both/0002_standing_task.sql",
            3 "audit" "../../migrations/both/0003_audit.sql",
            4 "sent_task" "../../migrations/both/0004_sent_task.sql",
            5 "endpoint_alias" "../../migrations/both/0005_endpoint_alias.sql",
            6 "responder" "../../migrations/both/0006_responder.sql",
            7 "policy_assignment" "../../migrations/both/0007_policy_assignment.sql",
            8 "label" "../../migrations/both/0008_label.sql",
            9 "sent_task_request" "../../migrations/both/0009_sent_task_request.sql",
            10 "policy_version" "../../migrations/both/0010_policy_version.sql",
            11 "shared" "../../migrations/sqlite/0011_shared.sql",
            12 "applied" "../../migrations/both/0012_applied.sql",
        ];
        Migrator::with_migrations(migrations).run(&writer).await.map_err(StoreError::Migrate)?;
        Ok(Self::over(readers, writer, Fence))
    }

    /// What is read when everything is moved.
    pub(crate) fn everything(&self) -> &Pool {
        &self.readers
    }
}
