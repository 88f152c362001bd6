//! From the file in a data directory into a PostgreSQL database: everything, or nothing.

use std::path::Path;

use ::store::transfer::{CopyError, copy};
use service::data::{DataDirectory, DataError};

pub use ::store::transfer::Moved;

use crate::store::StoreError;
use crate::store::postgres::{DatabaseUrl, PostgresStore};
use crate::store::sqlite::SqliteStore;

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// There is nothing to move.
    #[error("{0} is not there: is this the data directory of a repository?")]
    NoFile(String),
    /// One of the two.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The rows.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

impl From<sqlx::Error> for TransferError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Copies what the repository with this data directory keeps into an empty database. The repository must not run; its file
/// stays as it is.
pub async fn transfer(data: &Path, url: &DatabaseUrl) -> Result<Moved, TransferError> {
    let file = data.join(crate::DATABASE_FILE);
    if !file.exists() {
        return Err(TransferError::NoFile(file.display().to_string()));
    }
    let _data = DataDirectory::open(data)?;
    // Both have the tables of this version afterwards.
    let (from, to) = (SqliteStore::open(&file).await?, PostgresStore::open(url).await?);
    let moved = async {
        let mut tx = to.everything().begin().await?;
        // The database's own name stays the same, whatever comes into it.
        let moved = copy(from.everything(), &mut tx, url, &["store_name"]).await?;
        tx.commit().await?;
        Ok(moved)
    }
    .await;
    from.close().await;
    to.close().await;
    moved
}
