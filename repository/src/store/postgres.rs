//! The store on PostgreSQL.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use uuid::Uuid;

use super::{StoreError, id, migrations};

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

/// Connections of one repository.
const CONNECTIONS_MAX: u32 = 8;
/// How long a server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`. Shown without the password.
#[derive(Clone)]
pub struct DatabaseUrl(PgConnectOptions);

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        // What is wrong with it is said without saying it: it holds a password.
        let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
        if !is_postgres {
            return Err("the URL of a PostgreSQL database begins with postgres://".to_owned());
        }
        let options: PgConnectOptions = url.parse().map_err(|_| {
            "this is not the URL of a database: postgres://USER:PASSWORD@HOST:PORT/DATABASE is wanted, with % in place of odd letters"
                .to_owned()
        })?;
        Ok(Self(options.application_name("muster-repository").disable_statement_logging()))
    }
}

impl std::fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let database = self.0.get_database().unwrap_or_default();
        write!(formatter, "postgres://{}:{}/{database}", self.0.get_host(), self.0.get_port())
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, formatter)
    }
}

/// Whether a server that comes up, or that is busy, may soon do what it did not.
pub(super) fn is_absence(error: &sqlx::Error) -> bool {
    match error {
        // A certificate that is not believed is `InvalidData`.
        sqlx::Error::Io(error) => !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput),
        sqlx::Error::PoolTimedOut => true,
        // cannot_connect_now, too_many_connections, admin_shutdown, crash_shutdown
        sqlx::Error::Database(database) => {
            database.code().is_some_and(|code| ["57P03", "53300", "57P01", "57P02"].contains(&&*code))
        }
        _ => false,
    }
}

impl PostgresStore {
    /// Connects, and brings the tables up to date; of several that come at once, one does.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let failed = |error| StoreError::Open(PathBuf::from(url.to_string()), error);
        // A pool would only say that it took too long.
        match tokio::time::timeout(ANSWER_MAX, url.0.connect()).await {
            Ok(Ok(connection)) => drop(connection.close().await),
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => return Err(failed(sqlx::Error::Io(ErrorKind::TimedOut.into()))),
        }
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(ANSWER_MAX);
        let pool = pool.connect_with(url.0.clone()).await.map_err(failed)?;
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
            10 "store_name" "../../migrations/both/0010_store_name.sql",
        ];
        Migrator::with_migrations(migrations).run(&pool).await.map_err(|error| match error {
            MigrateError::Execute(error) if is_absence(&error) => failed(error),
            error => StoreError::Migrate(error),
        })?;
        Ok(Self::over(pool))
    }

    /// The database's own name, made by the first who asks: whoever uses it says the same. A file has none, as nobody
    /// shares it.
    pub async fn name(&self) -> Result<Uuid, StoreError> {
        sqlx::query("INSERT INTO store_name (id, name) VALUES (1, $1) ON CONFLICT (id) DO NOTHING")
            .bind(Uuid::new_v4().to_string())
            .execute(self.pool())
            .await?;
        let name: String =
            sqlx::query_scalar("SELECT name FROM store_name WHERE id = 1").fetch_one(self.pool()).await?;
        id(&name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let url: DatabaseUrl = "postgres://muster:s3cret@db.example:5433/posture?sslmode=require".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "postgres://db.example:5433/posture postgres://db.example:5433/posture");
        for wrong in ["mysql://muster:s3cret@db/x", "postgres://muster:s3cret@db:port/x", "/var/lib/s3cret"] {
            let error = wrong.parse::<DatabaseUrl>().unwrap_err();
            assert!(error.contains("postgres://") && !error.contains("s3cret"), "{error}");
        }
    }
}
