//! What services share that keep what they know in SQLite or PostgreSQL: how a file is written and read, how statements about many rows are written, which database, how it is
//! waited for, and how a file is moved into it. The tables are each service's own.

pub mod postgres;
pub mod sqlite;
pub mod statement;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transfer;
mod waiting;

pub use waiting::Waiting;

/// The steps that bring a database up to date.
#[macro_export]
macro_rules! migrations {
    ($($version:literal $name:literal $file:literal,)*) => {
        vec![$(sqlx::migrate::Migration::new(
            $version,
            $name.into(),
            sqlx::migrate::MigrationType::Simple,
            sqlx::SqlStr::from_static(include_str!($file)),
            false,
        )),*]
    };
}
