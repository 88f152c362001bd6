//! What orchestrators on one database share beside its rows: the CA, whose files are in the database before anything is done
//! with them, content by its hash, and the id.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::{Authentic, Context};
use jiff::Timestamp;
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::message::{ContentRequest, ContentResponse, Message as _};
use proto::topic::Topic;
use service::content::chunk_of;
use service::data;
use service::identity::Identity;
use service::report::Chain;
use uuid::Uuid;

use crate::ca::{Ca, CaSettings};
use crate::driver::{Handle, RunError};
use crate::store::{Store, StoreError};

/// The directory of the CA in a data directory, and where it is made ready.
const CA: &str = "ca";
const CA_READY: &str = "ca.new";
/// The directory of content.
pub(crate) const CONTENT: &str = "content";
/// The certificate of the first CA of an installation.
const CERTIFICATE: &str = "ca.pem";
/// Directories below directories.
const DEPTH_MAX: usize = 2;

/// Why a database cannot be used by this orchestrator.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The CA's keys would be in the database as they are.
    #[error(
        "with a database the CA's keys are kept there, and only encrypted: give a file with a passphrase, `ca-passphrase-file`, the same to every orchestrator"
    )]
    Passphrase,
    /// The data directory is of another installation.
    #[error(
        "the data directory has a CA, in {0}, that is not the database's: `muster migrate` moves an installation into an empty database; to join the one in the database, give an empty data directory"
    )]
    Another(PathBuf),
    /// Files.
    #[error("the CA's files in {path} cannot be read or written")]
    Files {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: Error,
    },
}

/// What of the CA is not in the database yet.
#[derive(Debug, Default)]
pub(crate) struct CaKept {
    is_behind: bool,
}

/// Makes this data directory that of the active orchestrator: the CA as it is in the database, which gets one where it has none.
pub(crate) async fn take_over(data: &Path, store: &Store, settings: CaSettings) -> Result<(Ca, ComponentId), RunError> {
    let database = store.database().ok_or(StoreError::Deposed)?;
    let (place, ready) = (data.join(CA), data.join(CA_READY));
    let failed = |source| SharedError::Files { path: place.clone(), source };
    let own = read_if_there(&place.join(CERTIFICATE)).map_err(failed)?;
    let mut files = database.ca_files().await?;
    remove(&ready).map_err(failed)?;
    if files.is_empty() {
        if own.is_some() {
            return Err(SharedError::Another(place).into());
        }
        Ca::open_with(CaSettings { directory: ready.clone(), ..settings.clone() }, Timestamp::now())?;
        files = files_in(&ready).map_err(failed)?;
        database.put_ca_files(&files).await?;
        remove(&ready).map_err(failed)?;
    }
    let first = files.iter().find(|(path, _)| path == CERTIFICATE).map(|(_, bytes)| bytes);
    if own.as_ref().is_some_and(|own| Some(own) != first) {
        return Err(SharedError::Another(place).into());
    }
    for (path, bytes) in &files {
        let path = ready.join(path);
        path.parent().map_or(Ok(()), data::make).and_then(|()| data::write_private(&path, bytes)).map_err(failed)?;
    }
    remove(&place).map_err(failed)?;
    fs::rename(&ready, &place).map_err(failed)?;
    let ca = Ca::open_with(settings, Timestamp::now())?;
    let opened = files_in(&place).map_err(failed)?;
    if opened != files {
        database.put_ca_files(&opened).await?;
    }
    // What another one has told since must not be told as it was before; everybody is told anew at the handshake.
    remove(&data.join("outbox")).map_err(failed)?;
    // What is here from now on is in the database, too.
    remove(&data.join(CONTENT)).map_err(failed)?;
    let known = Identity::load(&data.join("identity"))?.map(|identity| identity.component);
    let component = database.component(known.unwrap_or_else(|| ComponentId(Uuid::now_v7()))).await?;
    Ok((ca, component))
}

fn remove(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The files below a directory by their path, in order; a key that is not encrypted is refused.
pub(crate) fn files_in(directory: &Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut files = Vec::new();
    collect(directory, "", DEPTH_MAX, &mut files)?;
    files.sort();
    if let Some((path, _)) = files.iter().find(|(_, bytes)| has_plain_key(bytes)) {
        return Err(Error::new(ErrorKind::InvalidData, format!("{path} is a key that is not encrypted")));
    }
    Ok(files)
}

fn has_plain_key(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).contains("BEGIN PRIVATE KEY")
}

fn collect(directory: &Path, prefix: &str, depth: usize, into: &mut Vec<(String, Vec<u8>)>) -> Result<(), Error> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_file() {
            into.push((name, fs::read(entry.path())?));
        } else if depth > 1 {
            collect(&entry.path(), &format!("{name}/"), depth - 1, into)?;
        }
    }
    Ok(())
}

impl Handle {
    /// The CA has changed: it is in the database before anything is done with it.
    pub(crate) async fn keep_ca(&self) -> Result<(), StoreError> {
        let Some(database) = self.inner.store.database() else { return Ok(()) };
        let mut kept = self.inner.ca_kept.lock().await;
        kept.is_behind = true;
        let files = files_in(&self.inner.data.join(CA)).map_err(StoreError::Ca)?;
        database.put_ca_files(&files).await?;
        kept.is_behind = false;
        Ok(())
    }

    /// What could not be kept when it changed.
    pub(crate) async fn catch_up_ca(&self) -> Result<(), StoreError> {
        let is_behind = self.inner.ca_kept.lock().await.is_behind;
        if is_behind { self.keep_ca().await } else { Ok(()) }
    }

    /// Keeps content, for those who pull it: where another may take over, in the database.
    pub(crate) async fn keep_content(&self, bytes: Vec<u8>) -> Result<Arc<Vec<u8>>, StoreError> {
        // What is here was there before: the same question is asked again and again.
        if let Some(found) = self.inner.content.find(&ContentHash::of(&bytes)) {
            return Ok(found);
        }
        if let Some(database) = self.inner.store.database() {
            database.put_content(&bytes).await?;
        }
        Ok(self.inner.content.keep(bytes))
    }

    /// Content by its hash, wherever it is kept.
    pub(crate) async fn find_content(&self, hash: &ContentHash) -> Option<Arc<Vec<u8>>> {
        if let Some(found) = self.inner.content.find(hash) {
            return Some(found);
        }
        match self.inner.store.database()?.content(hash).await {
            Ok(Some(bytes)) if ContentHash::of(&bytes) == *hash => Some(self.inner.content.keep(bytes)),
            Ok(_) => None,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "content cannot be read");
                None
            }
        }
    }

    /// Gives a chunk of content to whoever pulls it.
    pub(crate) async fn give_content(
        &self,
        sender: ComponentId,
        message: &Authentic,
        request: &ContentRequest,
    ) -> Result<(), Fault> {
        let bytes = self
            .find_content(&request.sha256)
            .await
            .ok_or_else(|| Fault::new(FaultCode::ContentUnavailable, "the orchestrator does not have it"))?;
        let chunk = chunk_of(&bytes, request);
        if matches!(message.topic(), Topic::Directed { .. }) {
            let topic =
                Topic::Directed { to: sender, operation: ContentResponse::KIND.to_owned(), from: self.inner.bus.own() };
            let _ = self.inner.bus.send(&topic, &chunk, Context::answering(message));
        } else {
            self.answer(sender, message, &chunk);
        }
        Ok(())
    }
}
