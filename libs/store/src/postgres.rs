//! A PostgreSQL database, by its URL.

use std::io::ErrorKind;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgPool};

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
        Ok(Self(options.disable_statement_logging()))
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
pub fn is_absence(error: &sqlx::Error) -> bool {
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

impl DatabaseUrl {
    /// The same database, as this program.
    #[must_use]
    pub fn named(self, program: &str) -> Self {
        Self(self.0.application_name(program))
    }

    /// The server ends a transaction in which nothing is asked for so long: its locks hold up nobody whose process was stopped.
    #[must_use]
    pub fn with_idle_transactions_of(self, milliseconds: u32) -> Self {
        Self(self.0.options([("idle_in_transaction_session_timeout", milliseconds.to_string())]))
    }

    /// Connects; at most so many connections are held.
    pub async fn connect(&self, connections_max: u32) -> Result<PgPool, sqlx::Error> {
        // A pool would only say that it took too long.
        match tokio::time::timeout(ANSWER_MAX, self.0.connect()).await {
            Ok(Ok(connection)) => drop(connection.close().await),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(sqlx::Error::Io(ErrorKind::TimedOut.into())),
        }
        let pool = PgPoolOptions::new().max_connections(connections_max).acquire_timeout(ANSWER_MAX);
        pool.connect_with(self.0.clone()).await
    }
}

/// Why tables are not up to date.
#[derive(Debug)]
pub enum NotMigrated {
    /// The server is not there, or not yet.
    Absent(sqlx::Error),
    /// They cannot be.
    Failed(MigrateError),
}

/// Brings the tables up to date; of several that come at once, one does.
pub async fn migrate(pool: &PgPool, migrations: Vec<Migration>) -> Result<(), NotMigrated> {
    Migrator::with_migrations(migrations).run(pool).await.map_err(|error| match error {
        MigrateError::Execute(error) if is_absence(&error) => NotMigrated::Absent(error),
        error => NotMigrated::Failed(error),
    })
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
