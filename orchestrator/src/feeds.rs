//! Policy feeds: directories in which data streams turn up. What is new in one waits as a version, like what an operator
//! imports; what is wrong is told once, and tried again at every look.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use proto::fault::{Fault, FaultCode};
use proto::limits::{CONTENT_BYTES_MAX, shown};
use proto::operator::{FeedChange, PolicyFeed, PolicyImport};
use service::audit::{Act, Actor};
use service::report::Chain;

use crate::driver::Handle;
use crate::policies::is_name;

/// Seconds between two looks, at least.
const EVERY_SECONDS_MIN: u64 = 5;
/// Files that are looked at in one directory.
const FILES_MAX: usize = 500;
/// How often feeds are looked for that are due.
const TICK: Duration = Duration::from_secs(1);

/// How a file and its signature were when they were last looked at.
type State = (SystemTime, u64, Option<SystemTime>);

type Seen = BTreeMap<PathBuf, State>;

/// The name of a policy in a file of this name; none for what is no data stream.
pub fn policy_name(file: &str) -> Option<&str> {
    let plain = file.strip_suffix(".xz").or_else(|| file.strip_suffix(".gz")).unwrap_or(file);
    let name = plain.strip_suffix(".xml")?;
    Some(name.strip_suffix("-ds").unwrap_or(name)).filter(|name| is_name(name))
}

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

impl Handle {
    /// Follows a directory, or no longer.
    pub(crate) async fn change_feed(&self, actor: Actor, change: FeedChange) -> Result<String, Fault> {
        match change {
            FeedChange::Add { name, directory, every_seconds } => {
                let wrong = |text: String| Fault::new(FaultCode::Malformed, text);
                if !is_name(&name) {
                    let text = "a feed's name is up to 64 letters, digits, dots, dashes and underscores";
                    return Err(wrong(text.to_owned()));
                }
                if every_seconds < EVERY_SECONDS_MIN {
                    return Err(wrong(format!("a feed is looked at every {EVERY_SECONDS_MIN} s at most")));
                }
                let path = PathBuf::from(&directory);
                if !path.is_absolute() {
                    return Err(wrong("the orchestrator needs the whole path of the directory".to_owned()));
                }
                if let Err(error) = std::fs::read_dir(&path) {
                    return Err(wrong(format!("the orchestrator cannot read {}: {error}", shown(&directory))));
                }
                let feed =
                    PolicyFeed { name: name.clone(), directory, every_seconds, looked: None, problems: Vec::new() };
                let act = Act::new(actor, "add-policy-feed", &name).because(shown(&feed.directory));
                self.inner.store.put_feed(&feed, Some(&act)).await?;
                Ok(format!(
                    "`{name}` is looked at every {every_seconds} s; `muster policy feed list` says how that goes"
                ))
            }
            FeedChange::Remove { name } => {
                if !self.inner.store.feeds().await?.iter().any(|feed| feed.name == name) {
                    let text = format!("no feed is called `{}`; `muster policy feed list`", shown(&name));
                    return Err(Fault::new(FaultCode::UnknownIdentifier, text));
                }
                self.inner.store.remove_feed(&name, &Act::new(actor, "remove-policy-feed", &name)).await?;
                Ok(format!("`{name}` is followed no more; its policies stay"))
            }
        }
    }

    /// Looks at feeds whenever they are due.
    pub(crate) async fn mind_feeds(self) {
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        loop {
            tokio::time::sleep(TICK).await;
            let feeds = match self.inner.store.feeds().await {
                Ok(feeds) => feeds,
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "feeds cannot be read");
                    continue;
                }
            };
            seen.retain(|name, _| feeds.iter().any(|feed| feed.name == *name));
            for feed in feeds {
                let every = SignedDuration::from_secs(i64::try_from(feed.every_seconds).unwrap_or(i64::MAX));
                let now = Timestamp::now();
                let is_due = |looked: Timestamp| now.duration_since(looked) >= every || looked > now;
                // After a start everything is looked at once.
                if seen.contains_key(&feed.name) && !feed.looked.is_none_or(is_due) {
                    continue;
                }
                let of_feed = seen.entry(feed.name.clone()).or_default();
                let looked = self.look_at(feed, of_feed).await;
                // Removed meanwhile, it stays removed.
                let is_there = self.inner.store.feeds().await;
                if is_there.is_ok_and(|feeds| feeds.iter().any(|feed| feed.name == looked.name))
                    && let Err(error) = self.inner.store.put_feed(&looked, None).await
                {
                    tracing::error!(error = %Chain(&error), "how a feed is cannot be stored");
                }
            }
        }
    }

    async fn look_at(&self, feed: PolicyFeed, seen: &mut Seen) -> PolicyFeed {
        let directory = PathBuf::from(&feed.directory);
        let listed = tokio::task::spawn_blocking(move || files_in(&directory)).await;
        let files = match listed.map_err(std::io::Error::other).and_then(|listed| listed) {
            Ok(files) => files,
            Err(error) => {
                let problems = vec![format!("the directory cannot be read: {error}")];
                return PolicyFeed { looked: Some(Timestamp::now()), problems, ..feed };
            }
        };
        seen.retain(|path, _| files.iter().any(|(known, _)| known == path));
        let mut problems: Vec<String> = Vec::new();
        for (path, state) in files {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if seen.get(&path) == Some(&state) {
                continue;
            }
            // What is not taken is tried again: what was wrong may have been the store, or a signer who was not believed yet.
            match self.take_from_feed(&feed.name, &name, &path, state.1).await {
                Ok(()) => {
                    seen.insert(path, state);
                }
                Err(text) => {
                    let problem = format!("{}: {text}", shown(&name));
                    if !feed.problems.contains(&problem) {
                        tracing::warn!(feed = feed.name, problem, "a file of a policy feed is not taken");
                    }
                    problems.push(problem);
                }
            }
        }
        PolicyFeed { looked: Some(Timestamp::now()), problems, ..feed }
    }

    async fn take_from_feed(&self, feed: &str, file: &str, path: &Path, bytes: u64) -> Result<(), String> {
        let Some(name) = policy_name(file) else { return Ok(()) };
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&path, bytes)).await;
        let (content, signature) = read.map_err(|error| error.to_string())??;
        let import = PolicyImport { name: name.to_owned(), signature, ..PolicyImport::default() };
        let taken = self.import_policy(import, content, Actor::Orchestrator).await;
        let (policy, notices) = taken.map_err(|fault| fault.message)?;
        let number = policy.number.unwrap_or(1);
        tracing::info!(
            feed,
            policy = policy.name,
            number,
            notices = notices.join("; "),
            "looked at a file of a policy feed"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_its_policy_is_called() {
        for (file, name) in [
            ("ssg-debian12-ds.xml.xz", Some("ssg-debian12")),
            ("cis.xml", Some("cis")),
            ("cis.xml.gz", Some("cis")),
            ("cis.xml.sig", None),
            ("notes.txt", None),
            ("a name.xml", None),
            (".xml", None),
        ] {
            assert_eq!(policy_name(file), name, "{file}");
        }
    }
}
