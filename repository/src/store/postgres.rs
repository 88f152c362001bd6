//! The store on PostgreSQL.

use std::path::PathBuf;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{StoreError, migrations};

#[expect(clippy::duplicate_mod, reason = "the same SQL is compiled for both back ends; only the pool differs")]
#[path = "sql.rs"]
mod sql;

type Database = sqlx::Postgres;
type Pool = sqlx::PgPool;

const BEGIN: &str = "BEGIN";

/// A parameter of a statement that has each once, in order.
fn mark(number: usize) -> String {
    format!("${number}")
}

/// Nobody stores items until the transaction ends.
const LOCK_ITEMS: Option<&str> = Some("LOCK TABLE item IN SHARE ROW EXCLUSIVE MODE");

pub use sql::SqlStore as PostgresStore;

impl PostgresStore {
    /// Connects to `postgres://…`.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let failed = |error| StoreError::Open(PathBuf::from("on PostgreSQL"), error);
        let options: PgConnectOptions = url.parse().map_err(failed)?;
        let pool = PgPoolOptions::new().max_connections(8).connect_with(options).await.map_err(failed)?;
        let migrations = migrations![
            1 "init" "../../migrations/postgres/0001_init.sql",
            2 "changes" "../../migrations/both/0002_changes.sql",
            3 "assignments" "../../migrations/both/0003_assignments.sql",
            4 "audit_witness" "../../migrations/both/0004_audit_witness.sql",
            5 "reports" "../../migrations/postgres/0005_reports.sql",
            6 "endpoint_alias" "../../migrations/both/0006_endpoint_alias.sql",
            7 "verdicts" "../../migrations/both/0007_verdicts.sql",
            8 "object_kind" "../../migrations/postgres/0008_object_kind.sql",
            9 "retention" "../../migrations/both/0009_retention.sql",
        ];
        Migrator::with_migrations(migrations).run(&pool).await.map_err(StoreError::Migrate)?;
        Ok(Self::over(pool))
    }
}
