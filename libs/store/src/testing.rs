//! A database for a test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use uuid::Uuid;

use crate::postgres::DatabaseUrl;

/// An empty database on the server that `MUSTER_TEST_POSTGRES` names, called by who wants it; `None`, and a word about it, where
/// there is no server, which is an error where `MUSTER_REQUIRE_POSTGRES` is set.
pub async fn database(whose: &str) -> Option<DatabaseUrl> {
    let Ok(server) = std::env::var("MUSTER_TEST_POSTGRES") else {
        assert!(std::env::var_os("MUSTER_REQUIRE_POSTGRES").is_none(), "PostgreSQL is required here and is missing");
        let _ = writeln!(std::io::stderr(), "SKIPPED: MUSTER_TEST_POSTGRES is not set: PostgreSQL was not tested");
        return None;
    };
    let name = format!("{whose}_{}", Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&server).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    let (begin, _) = server.rsplit_once('/').unwrap();
    Some(format!("{begin}/{name}").parse().unwrap())
}

/// Does something to the file of a process that has ended, with one parameter; how many rows that was about.
pub async fn tamper(database: &Path, sql: &'static str, parameter: &str) -> u64 {
    let options = SqliteConnectOptions::new().filename(database);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let done = sqlx::query(sql).bind(parameter).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    done.rows_affected()
}
