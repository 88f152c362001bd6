//! A file of SQLite: one connection writes, others read.
//!
//! A connection's pages, and what it has prepared, are its own, and its pages are as they were only as long as nobody else has
//! written. Writers that take turns read again at each turn what they wrote before, and wait for each other by looking again
//! and again whether the file is free.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqlitePool};

/// For how long somebody waits for a connection that others have.
const TURN_MAX: Duration = Duration::from_secs(30);

/// What a service's file is like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Connections that read.
    pub readers: u32,
    /// Kibibytes of pages that the connection that writes remembers.
    pub writer_cache_kib: u32,
    /// The same of each connection that reads.
    pub reader_cache_kib: u32,
    /// Pages in the log after which they go into the file.
    pub log_pages: u32,
    /// Rows that are read ahead: the threads of a connection and of who asks wait for each other as often as that is full.
    pub rows_ahead: usize,
}

/// The connections to a file.
#[derive(Debug, Clone)]
pub struct Connections {
    /// These cannot write.
    pub readers: SqlitePool,
    /// The one that does. Who has it must not wait for somebody else who wants it.
    pub writer: SqlitePool,
}

/// Opens or makes a file: write-ahead log, flushed at every commit.
pub async fn open(path: &Path, shape: Shape) -> Result<Connections, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // There may be no other directory that can be written to.
        .pragma("temp_store", "memory")
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", shape.log_pages.to_string())
        .busy_timeout(Duration::from_secs(10))
        .row_buffer_size(shape.rows_ahead)
        .disable_statement_logging();
    let cache = |kib: u32| format!("-{kib}");
    let writer = options.clone().pragma("cache_size", cache(shape.writer_cache_kib));
    let reader = options.pragma("cache_size", cache(shape.reader_cache_kib)).pragma("query_only", "1");
    Ok(Connections { writer: pool(writer, 1).await?, readers: pool(reader, shape.readers).await? })
}

async fn pool(options: SqliteConnectOptions, connections_max: u32) -> Result<SqlitePool, sqlx::Error> {
    // SQLite ends a transaction by itself when the disk is full; `sqlx` does not notice, and the connection could begin none any
    // more.
    SqlitePoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(TURN_MAX)
        // A connection's pages and statements are what it is kept for.
        .max_lifetime(None)
        .idle_timeout(None)
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_with(options)
        .await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { readers: 2, writer_cache_kib: 2_000, reader_cache_kib: 2_000, log_pages: 1_000, rows_ahead: 50 };

    async fn count(connections: &Connections) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM x").fetch_one(&connections.readers).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_written_is_read_at_once_and_nobody_else_writes() {
        let directory = tempfile::tempdir().unwrap();
        let connections = open(&directory.path().join("x.db"), SHAPE).await.unwrap();
        sqlx::query("CREATE TABLE x (y BIGINT)").execute(&connections.writer).await.unwrap();
        // So many at once as there are connections of both kinds, and more.
        for round in 1..=20 {
            let write = || async { sqlx::query("INSERT INTO x VALUES (1)").execute(&connections.writer).await };
            let (one, other, read) = tokio::join!(write(), write(), count(&connections));
            one.unwrap();
            other.unwrap();
            assert!((2 * round - 2..=2 * round).contains(&read), "{read} in round {round}");
            assert_eq!(count(&connections).await, 2 * round);
        }
        let refused = sqlx::query("INSERT INTO x VALUES (1)").execute(&connections.readers).await.unwrap_err();
        assert!(refused.to_string().contains("readonly"), "{refused}");
        // Who reads has a state of one time, whatever is written meanwhile, and holds nobody up.
        let mut reading = connections.readers.begin_with("BEGIN").await.unwrap();
        let before: i64 = sqlx::query_scalar("SELECT count(*) FROM x").fetch_one(&mut *reading).await.unwrap();
        sqlx::query("DELETE FROM x").execute(&connections.writer).await.unwrap();
        let after: i64 = sqlx::query_scalar("SELECT count(*) FROM x").fetch_one(&mut *reading).await.unwrap();
        assert_eq!((before, after, count(&connections).await), (40, 40, 0));
    }
}
