//! From a file of SQLite into a PostgreSQL database with the same tables: everything, or nothing.

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Postgres, Row as _, SqlitePool, Transaction};

use crate::postgres::DatabaseUrl;

/// Rows in one statement: PostgreSQL takes 65,535 values.
const ROWS_MAX: usize = 500;
/// The same, of rows with a message in each.
const MESSAGES_MAX: usize = 50;

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The database is somebody's.
    #[error("the database {database} has {count} rows in `{table}` already: only an empty one is filled")]
    Filled {
        /// Which database.
        database: String,
        /// Which table.
        table: String,
        /// How many.
        count: u64,
    },
    /// Not everything arrived.
    #[error("of `{table}` {written} of {read} rows arrived; nothing was moved")]
    Lost {
        /// Which table.
        table: String,
        /// Rows in the file.
        read: u64,
        /// Rows in the database.
        written: u64,
    },
    /// One of the two.
    #[error("the copy failed")]
    Database(#[from] sqlx::Error),
}

/// How many rows each table has.
pub type Moved = Vec<(String, u64)>;

/// Copies all tables but `own`, which each database has of its own, in a transaction that the caller ends.
pub async fn copy(
    from: &SqlitePool,
    tx: &mut Transaction<'_, Postgres>,
    url: &DatabaseUrl,
    own: &[&str],
) -> Result<Moved, CopyError> {
    let mut moved = Moved::new();
    for table in Table::all(from, own).await? {
        let count = table.count(tx).await?;
        if count > 0 {
            return Err(CopyError::Filled { database: url.to_string(), table: table.name, count });
        }
        let read = table.copy(from, tx).await?;
        let written = table.count(tx).await?;
        if read != written {
            return Err(CopyError::Lost { table: table.name, read, written });
        }
        moved.push((table.name, written));
    }
    Ok(moved)
}

/// What the columns hold.
#[derive(Debug, Clone, Copy)]
enum Form {
    Number,
    Text,
    Bytes,
}

/// A table as the file has it; the database has the same.
#[derive(Debug)]
struct Table {
    name: String,
    columns: Vec<(String, Form)>,
    /// The column that the database numbers.
    numbered: Option<String>,
}

impl Table {
    /// All but these, which the database has of its own.
    async fn all(from: &SqlitePool, own: &[&str]) -> Result<Vec<Self>, CopyError> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
             AND name NOT LIKE '\\_sqlx%' ESCAPE '\\' ORDER BY name",
        )
        .fetch_all(from)
        .await?;
        let mut tables = Vec::with_capacity(names.len());
        for name in names.into_iter().filter(|name| !own.contains(&name.as_str())) {
            let rows = sqlx::query("SELECT name, type FROM pragma_table_info($1) ORDER BY cid");
            let mut columns = Vec::new();
            let mut numbered = None;
            for row in rows.bind(&name).fetch_all(from).await? {
                let column: String = row.try_get("name")?;
                let form = match row.try_get::<String, _>("type")?.as_str() {
                    "TEXT" => Form::Text,
                    "BLOB" => Form::Bytes,
                    // `INTEGER PRIMARY KEY` is what SQLite numbers by itself; other numbers are `BIGINT`.
                    "INTEGER" => {
                        numbered = Some(column.clone());
                        Form::Number
                    }
                    _ => Form::Number,
                };
                columns.push((column, form));
            }
            tables.push(Self { name, columns, numbered });
        }
        Ok(tables)
    }

    async fn count(&self, tx: &mut Transaction<'_, Postgres>) -> Result<u64, CopyError> {
        let sql = format!("SELECT count(*) FROM {}", self.name);
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut **tx).await?;
        Ok(count.unsigned_abs())
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    }

    /// How many rows there were.
    async fn copy(&self, from: &SqlitePool, tx: &mut Transaction<'_, Postgres>) -> Result<u64, CopyError> {
        // Bytes are whole messages.
        let has_bytes = self.columns.iter().any(|(_, form)| matches!(form, Form::Bytes));
        let page = if has_bytes { MESSAGES_MAX } else { ROWS_MAX };
        let sql = format!(
            "SELECT rowid AS place_in_file, {} FROM {} WHERE rowid > $1 ORDER BY rowid LIMIT $2",
            self.names(),
            self.name
        );
        let (mut place, mut count) = (i64::MIN, 0);
        loop {
            let query = sqlx::query(AssertSqlSafe(sql.clone())).bind(place).bind(i64::try_from(page).unwrap_or(1));
            let rows = query.fetch_all(from).await?;
            let Some(last) = rows.last() else { break };
            place = last.try_get("place_in_file")?;
            count += rows.len() as u64;
            self.insert(&rows, tx).await?;
        }
        if let Some(key) = &self.numbered {
            // What comes next has a number of its own.
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('{0}', '{key}'), coalesce(max({key}), 0) + 1, false) FROM {0}",
                self.name
            );
            sqlx::query(AssertSqlSafe(sql)).execute(&mut **tx).await?;
        }
        Ok(count)
    }

    async fn insert(&self, rows: &[SqliteRow], tx: &mut Transaction<'_, Postgres>) -> Result<(), CopyError> {
        let row = |at: usize| {
            let places = (1..=self.columns.len()).map(|column| format!("${}", at * self.columns.len() + column));
            format!("({})", places.collect::<Vec<_>>().join(", "))
        };
        let values: Vec<String> = (0..rows.len()).map(row).collect();
        let numbers = if self.numbered.is_some() { "OVERRIDING SYSTEM VALUE " } else { "" };
        let sql = format!("INSERT INTO {} ({}) {numbers}VALUES {}", self.name, self.names(), values.join(", "));
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for row in rows {
            for (name, form) in &self.columns {
                query = bound(query, row, name, *form)?;
            }
        }
        query.execute(&mut **tx).await?;
        Ok(())
    }
}

type Statement<'query> = Query<'query, Postgres, PgArguments>;

fn bound<'query>(
    query: Statement<'query>,
    row: &SqliteRow,
    column: &str,
    form: Form,
) -> Result<Statement<'query>, CopyError> {
    Ok(match form {
        Form::Number => query.bind(row.try_get::<Option<i64>, _>(column)?),
        Form::Text => query.bind(row.try_get::<Option<String>, _>(column)?),
        Form::Bytes => query.bind(row.try_get::<Option<Vec<u8>>, _>(column)?),
    })
}
