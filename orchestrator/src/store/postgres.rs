//! The store on PostgreSQL, which several orchestrators may share: one of them is active, by a lease.

use std::path::PathBuf;

use ::store::migrations;
pub use ::store::postgres::DatabaseUrl;
use ::store::postgres::NotMigrated;
use ::store::statement::Marks;

use super::StoreError;

mod lease;
mod shared;
#[expect(clippy::duplicate_mod, reason = "the same SQL is compiled for both back ends; only the pool differs")]
#[path = "sql.rs"]
mod sql;

use lease::Fence;
pub use lease::{Instance, LeaseRow};

type Database = sqlx::Postgres;
type Pool = sqlx::PgPool;

const BEGIN: &str = "BEGIN";
/// How parameters are named in statements about many rows.
const MARKS: Marks = Marks::Numbered;
/// Everything is read as it was at one time.
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";

pub use sql::SqlStore as PostgresStore;

/// Connections of one orchestrator.
const CONNECTIONS_MAX: u32 = 6;
/// A transaction of a process that was stopped in the middle holds up its successor no longer than this.
const IDLE_TRANSACTION_MILLISECONDS: u32 = 3_000;

impl PostgresStore {
    /// Connects, and brings the tables up to date; of several that come at once, one does.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let failed = |error| StoreError::Open(PathBuf::from(url.to_string()), error);
        let url = url.clone().named("muster-orchestrator").with_idle_transactions_of(IDLE_TRANSACTION_MILLISECONDS);
        let pool = url.connect(CONNECTIONS_MAX).await.map_err(failed)?;
        let migrations = migrations![
            1 "init" "../../migrations/postgres/0001_init.sql",
            2 "standing_task" "../../migrations/both/0002_standing_task.sql",
            3 "audit" "../../migrations/both/0003_audit.sql",
            4 "sent_task" "../../migrations/both/0004_sent_task.sql",
            5 "endpoint_alias" "../../migrations/both/0005_endpoint_alias.sql",
            6 "responder" "../../migrations/both/0006_responder.sql",
            7 "policy_assignment" "../../migrations/both/0007_policy_assignment.sql",
            8 "label" "../../migrations/both/0008_label.sql",
            9 "sent_task_request" "../../migrations/both/0009_sent_task_request.sql",
            10 "policy_version" "../../migrations/both/0010_policy_version.sql",
            11 "shared" "../../migrations/postgres/0011_shared.sql",
            12 "applied" "../../migrations/both/0012_applied.sql",
        ];
        ::store::postgres::migrate(&pool, migrations).await.map_err(|error| match error {
            NotMigrated::Absent(error) => failed(error),
            NotMigrated::Failed(error) => StoreError::Migrate(error),
        })?;
        Ok(Self::over(pool.clone(), pool, Fence::default()))
    }

    /// What is written when everything is moved.
    pub(crate) fn everything(&self) -> &Pool {
        &self.writer
    }
}
