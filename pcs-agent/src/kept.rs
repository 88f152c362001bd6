//! What a collector keeps over a restart: small JSON files, written whole.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why something cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The file cannot be read or written.
    #[error("{path} cannot be read or written")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{0} is damaged: move the file away; the orchestrator can send again what was in it")]
    Damaged(PathBuf),
}

/// What an earlier process kept; the default where there was none.
pub(crate) fn load<T: DeserializeOwned + Default>(path: &Path) -> Result<T, KeptError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| KeptError::Damaged(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(source) => Err(KeptError::Io { path: path.to_owned(), source }),
    }
}

/// Keeps it; what was there before stays whole if this fails.
pub(crate) fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), KeptError> {
    let bytes = serde_json::to_vec_pretty(value).expect("what is kept always serialises");
    service::data::write_private(path, &bytes).map_err(|source| KeptError::Io { path: path.to_owned(), source })
}
