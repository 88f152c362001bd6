//! From the files in a data directory into a PostgreSQL database that other orchestrators may share: everything, or nothing.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use proto::content::ContentHash;
use service::data::{DataDirectory, DataError};
use service::identity::{Identity, IdentityError};
use sqlx::{Postgres, Transaction};
use store::postgres::DatabaseUrl;
use store::transfer::{CopyError, copy};

pub use store::transfer::Moved;

use crate::ca::{Ca, CaError, CaSettings};
use crate::settings::CERTIFICATE_SECONDS;
use crate::shared::{CONTENT, SharedError, files_in};
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{DATABASE_FILE, StoreError};

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The CA's passphrase.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// Who the orchestrator is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It has never run.
    #[error("{0} does not say who the orchestrator is: has it ever run with this data directory?")]
    NoIdentity(PathBuf),
    /// A file.
    #[error("{path} cannot be read")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
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

/// Whether an orchestrator keeps its things in this data directory.
pub fn is_orchestrator(data: &Path) -> bool {
    data.join(DATABASE_FILE).exists()
}

/// Copies what the orchestrator with this data directory keeps into an empty database: its rows, its id, its CA, and content
/// by its hash. It must not run. Its files stay as they are, but that the CA's keys are encrypted.
pub async fn transfer(data: &Path, url: &DatabaseUrl, passphrase: Option<String>) -> Result<Moved, TransferError> {
    let passphrase = passphrase.ok_or(SharedError::Passphrase)?;
    let data = DataDirectory::open(data)?;
    let place = data.path().join("ca");
    Ca::open_with(
        CaSettings {
            directory: place.clone(),
            component_seconds: CERTIFICATE_SECONDS,
            passphrase: Some(passphrase),
            brought: None,
        },
        Timestamp::now(),
    )?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TransferError::Io { path, source }
    };
    let ca = files_in(&place).map_err(failed(&place))?;
    let identity = data.path().join("identity");
    let known = Identity::load(&identity)?.ok_or(TransferError::NoIdentity(identity))?;
    // Both have the tables of this version afterwards.
    let from = SqliteStore::open(&data.path().join(DATABASE_FILE)).await?;
    let to = PostgresStore::open(url).await?;
    let moved = async {
        let mut tx = to.everything().begin().await?;
        // What is read in between may take longer than an orchestrator's transaction may.
        sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0").execute(&mut *tx).await?;
        sqlx::query("SELECT epoch FROM lease WHERE id = 1 FOR UPDATE").execute(&mut *tx).await?;
        // Who is active, and who there is, is the database's own.
        let mut moved = copy(from.everything(), &mut tx, url, &["lease", "instance"]).await?;
        sqlx::query("INSERT INTO identity (id, component) VALUES (1, $1)")
            .bind(known.component.to_string())
            .execute(&mut *tx)
            .await?;
        for (path, bytes) in &ca {
            sqlx::query("INSERT INTO ca_file (path, bytes) VALUES ($1, $2)")
                .bind(path)
                .bind(bytes)
                .execute(&mut *tx)
                .await?;
        }
        let contents = data.path().join(CONTENT);
        let content_count = copy_content(&contents, &mut tx).await?.map_err(failed(&contents))?;
        for (table, count) in &mut moved {
            match table.as_str() {
                "identity" => *count = 1,
                "ca_file" => *count = ca.len() as u64,
                "content" => *count = content_count,
                _ => {}
            }
        }
        tx.commit().await?;
        Ok(moved)
    }
    .await;
    from.close().await;
    to.close().await;
    moved
}

/// Content that is whole; a file under another name is no content.
async fn copy_content(
    directory: &Path,
    tx: &mut Transaction<'_, Postgres>,
) -> Result<Result<u64, std::io::Error>, sqlx::Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Ok(0)),
        Err(error) => return Ok(Err(error)),
    };
    let mut count = 0;
    for entry in entries {
        let read = entry.and_then(|entry| Ok((entry.file_name(), fs::read(entry.path())?)));
        let (name, bytes) = match read {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        let hash = ContentHash::of(&bytes);
        if name.to_string_lossy() != hash.as_str() {
            continue;
        }
        let insert = sqlx::query("INSERT INTO content (hash, bytes) VALUES ($1, $2)").bind(hash.as_str());
        insert.bind(bytes).execute(&mut **tx).await?;
        count += 1;
    }
    Ok(Ok(count))
}
