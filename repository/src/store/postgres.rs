//! The store on PostgreSQL.

use std::path::PathBuf;

use ::store::migrations;
pub use ::store::postgres::DatabaseUrl;
use ::store::postgres::NotMigrated;
use ::store::statement::Marks;
use sqlx::migrate::Migration;
use uuid::Uuid;

use super::{StoreError, id};

#[expect(clippy::duplicate_mod, reason = "the same SQL is compiled for both back ends; only the pool differs")]
#[path = "sql.rs"]
mod sql;

type Database = sqlx::Postgres;
type Pool = sqlx::PgPool;

const BEGIN: &str = "BEGIN";

/// How parameters are named in statements that have each once, in order.
const MARKS: Marks = Marks::Numbered;

/// How a row is written.
const INSERT: &str = "INSERT INTO";
const UPDATE: &str = "UPDATE";

/// Nobody stores what is kept once by its hash until the transaction ends.
const LOCK_CONTENT: Option<&str> = Some("LOCK TABLE item IN SHARE ROW EXCLUSIVE MODE");
/// Nobody takes it away.
const SHARE_CONTENT: Option<&str> = Some("LOCK TABLE item IN ROW EXCLUSIVE MODE");

pub use sql::SqlStore as PostgresStore;

/// Connections of one repository.
const CONNECTIONS_MAX: u32 = 8;

/// What brings the tables up to date.
fn migrations() -> Vec<Migration> {
    migrations![
        1 "init" "../../migrations/postgres/0001_init.sql",
        2 "changes" "../../migrations/both/0002_changes.sql",
        3 "assignments" "../../migrations/both/0003_assignments.sql",
        4 "audit_witness" "../../migrations/both/0004_audit_witness.sql",
        5 "reports" "../../migrations/postgres/0005_reports.sql",
        6 "endpoint_alias" "../../migrations/both/0006_endpoint_alias.sql",
        7 "verdicts" "../../migrations/both/0007_verdicts.sql",
        8 "object_kind" "../../migrations/postgres/0008_object_kind.sql",
        9 "retention" "../../migrations/both/0009_retention.sql",
        10 "store_name" "../../migrations/both/0010_store_name.sql",
        11 "numbers" "../../migrations/postgres/0011_numbers.sql",
        12 "taken_over" "../../migrations/both/0012_taken_over.sql",
        13 "views" "../../migrations/both/0013_views.sql",
        14 "sequence" "../../migrations/postgres/0014_sequence.sql",
        15 "fleet_evidence" "../../migrations/both/0015_fleet_evidence.sql",
        16 "dense" "../../migrations/postgres/0016_dense.sql",
        17 "told" "../../migrations/postgres/0017_told.sql",
    ]
}

impl PostgresStore {
    /// Connects, and brings the tables up to date; of several that come at once, one does.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let failed = |error| StoreError::Open(PathBuf::from(url.to_string()), error);
        let url = url.clone().named("muster-repository");
        let pool = url.connect(CONNECTIONS_MAX).await.map_err(failed)?;
        ::store::postgres::migrate(&pool, migrations()).await.map_err(|error| match error {
            NotMigrated::Absent(error) => failed(error),
            NotMigrated::Failed(error) => StoreError::Migrate(error),
        })?;
        Ok(Self::over(pool.clone(), pool))
    }

    /// Where everything is moved to.
    pub(crate) fn everything(&self) -> &Pool {
        &self.writer
    }

    /// The database's own name, made by the first who asks: whoever uses it says the same. A file has none, as nobody
    /// shares it.
    pub async fn name(&self) -> Result<Uuid, StoreError> {
        sqlx::query("INSERT INTO store_name (id, name) VALUES (1, $1) ON CONFLICT (id) DO NOTHING")
            .bind(Uuid::new_v4().to_string())
            .execute(&self.writer)
            .await?;
        let name: String =
            sqlx::query_scalar("SELECT name FROM store_name WHERE id = 1").fetch_one(&self.readers).await?;
        id(&name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_an_earlier_version_stored_is_taken_over() {
        let Some(url) = ::store::testing::database("repository").await else { return };
        sql::upgrade::check(url.connect(2).await.unwrap(), migrations()).await;
    }
}
