//! Feeds from directories: every data stream in one, its signature beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use proto::limits::{CONTENT_BYTES_MAX, shown};
use proto::operator::PolicyFeed;

use super::policy_name;
use crate::driver::Handle;

/// Files that are looked at in one directory.
const FILES_MAX: usize = 500;

/// How a file and its signature were when they were last looked at.
type State = (SystemTime, u64, Option<SystemTime>);

/// The files that were taken, as they were then.
pub(super) type Seen = BTreeMap<PathBuf, State>;

/// The data streams of a directory, by name, with how they are now.
fn files_in(directory: &Path) -> std::io::Result<Vec<(PathBuf, State)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // A link is what it leads to; anything but a file is nothing that is read.
        let metadata = std::fs::metadata(entry.path());
        let Some(metadata) = metadata.ok().filter(std::fs::Metadata::is_file) else { continue };
        if entry.file_name().to_str().and_then(policy_name).is_some() {
            let signed = std::fs::metadata(signature_of(&entry.path())).and_then(|signature| signature.modified());
            files.push((entry.path(), (metadata.modified()?, metadata.len(), signed.ok())));
        }
    }
    files.sort();
    files.truncate(FILES_MAX);
    Ok(files)
}

/// Where the signature of a file is, if it has one: beside it, in `FILE.sig`, as `ssh-keygen -Y sign` writes it.
pub fn signature_of(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".sig");
    PathBuf::from(beside)
}

fn read(path: &Path, bytes: u64) -> Result<(Vec<u8>, Option<String>), String> {
    if bytes > CONTENT_BYTES_MAX * 4 {
        return Err(format!("{bytes} bytes; at most {} MiB are taken", CONTENT_BYTES_MAX * 4 / 1024 / 1024));
    }
    let content = std::fs::read(path).map_err(|error| error.to_string())?;
    let signature = match std::fs::read_to_string(signature_of(path)) {
        Ok(signature) => Some(signature),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("its signature cannot be read: {error}")),
    };
    Ok((content, signature))
}

/// Whether a directory can be followed.
pub(super) fn check(directory: &str) -> Result<(), String> {
    let path = Path::new(directory);
    if !path.is_absolute() {
        return Err("the orchestrator needs the whole path of the directory".to_owned());
    }
    match std::fs::read_dir(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the orchestrator cannot read {}: {error}", shown(directory))),
    }
}

impl Handle {
    /// Looks into a directory; what went wrong.
    pub(super) async fn look_into(&self, feed: &PolicyFeed, directory: &str, seen: &mut Seen) -> Vec<String> {
        let directory = PathBuf::from(directory);
        let listed = tokio::task::spawn_blocking(move || files_in(&directory)).await;
        let files = match listed.map_err(std::io::Error::other).and_then(|listed| listed) {
            Ok(files) => files,
            Err(error) => return vec![format!("the directory cannot be read: {error}")],
        };
        seen.retain(|path, _| files.iter().any(|(known, _)| known == path));
        let mut problems = Vec::new();
        for (path, state) in files {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if seen.get(&path) == Some(&state) {
                continue;
            }
            // What is not taken is tried again: what was wrong may have been the store, or a signer who was not believed yet.
            match self.take_file(&feed.name, &name, &path, state.1).await {
                Ok(()) => {
                    seen.insert(path, state);
                }
                Err(text) => problems.push(format!("{}: {text}", shown(&name))),
            }
        }
        problems
    }

    async fn take_file(&self, feed: &str, file: &str, path: &Path, bytes: u64) -> Result<(), String> {
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&path, bytes)).await;
        let (content, signature) = read.map_err(|error| error.to_string())??;
        self.take_from_feed(feed, file, content, signature).await
    }
}
