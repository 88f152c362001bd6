//! Policy feeds: directories in which data streams turn up, and URLs of data streams. What is new in one waits as a version, like
//! what an operator imports; what is wrong is told once, and tried again at every look.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto::fault::{Fault, FaultCode};
use proto::limits::shown;
use proto::operator::{FeedChange, FeedSource, PolicyFeed, PolicyImport};
use service::audit::{Act, Actor};
use service::report::Chain;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::driver::Handle;
use crate::policies::is_name;

mod directory;
mod fetch;
mod https;

pub use directory::signature_of;
pub use fetch::FeedLimits;

/// Seconds between two looks, at least.
const EVERY_SECONDS_MIN: u64 = 5;
/// Feeds that are looked at at once: a server that is slow holds up few others, and each may fill its memory.
const LOOKS_MAX: usize = 4;
/// How often feeds are looked for that are due.
const TICK: Duration = Duration::from_secs(1);

/// What was taken of a feed since the start.
#[derive(Debug)]
struct Seen {
    /// Of another source it says nothing.
    source: FeedSource,
    files: directory::Seen,
    url: https::Seen,
}

impl Seen {
    fn nothing_of(source: &FeedSource) -> Self {
        Self { source: source.clone(), files: directory::Seen::default(), url: https::Seen::default() }
    }
}

/// The name of a policy in a file of this name; none for what is no data stream.
pub fn policy_name(file: &str) -> Option<&str> {
    let plain = file.strip_suffix(".xz").or_else(|| file.strip_suffix(".gz")).unwrap_or(file);
    let name = plain.strip_suffix(".xml")?;
    Some(name.strip_suffix("-ds").unwrap_or(name)).filter(|name| is_name(name))
}

impl Handle {
    /// Follows a feed, or no longer.
    pub(crate) async fn change_feed(&self, actor: Actor, change: FeedChange) -> Result<String, Fault> {
        match change {
            FeedChange::Add { name, source, every_seconds } => {
                let wrong = |text: String| Fault::new(FaultCode::Malformed, text);
                if !is_name(&name) {
                    let text = "a feed's name is up to 64 letters, digits, dots, dashes and underscores";
                    return Err(wrong(text.to_owned()));
                }
                if every_seconds < EVERY_SECONDS_MIN {
                    return Err(wrong(format!("a feed is looked at every {EVERY_SECONDS_MIN} s at most")));
                }
                match &source {
                    FeedSource::Directory(directory) => directory::check(directory).map_err(wrong)?,
                    FeedSource::Https(source) => https::check(source).map_err(wrong)?,
                }
                let feed = PolicyFeed { name: name.clone(), source, every_seconds, looked: None, problems: Vec::new() };
                let act = Act::new(actor, "add-policy-feed", &name).because(shown(&feed.source.to_string()));
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
    pub(crate) async fn mind_feeds(self, limits: FeedLimits) {
        // Who looks at a feed holds its lock.
        let mut seen: BTreeMap<String, Arc<Mutex<Seen>>> = BTreeMap::new();
        let mut looks = JoinSet::new();
        loop {
            tokio::time::sleep(TICK).await;
            while let Some(ended) = looks.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(error = %Chain(&error), "a look at a feed failed badly");
                }
            }
            let feeds = match self.inner.store.feeds().await {
                Ok(feeds) => feeds,
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "feeds cannot be read");
                    continue;
                }
            };
            seen.retain(|name, _| feeds.iter().any(|feed| feed.name == *name));
            for feed in feeds {
                if looks.len() >= LOOKS_MAX {
                    break;
                }
                let every = SignedDuration::from_secs(i64::try_from(feed.every_seconds).unwrap_or(i64::MAX));
                let now = Timestamp::now();
                let is_due = |looked: Timestamp| now.duration_since(looked) >= every || looked > now;
                // After a start everything is looked at once.
                if seen.contains_key(&feed.name) && !feed.looked.is_none_or(is_due) {
                    continue;
                }
                let nothing = || Arc::new(Mutex::new(Seen::nothing_of(&feed.source)));
                let of_feed = Arc::clone(seen.entry(feed.name.clone()).or_insert_with(nothing));
                if let Ok(mut of_feed) = of_feed.try_lock_owned() {
                    let handle = self.clone();
                    looks.spawn(async move { handle.look_at(feed, &mut of_feed, limits).await });
                }
            }
        }
    }

    async fn look_at(&self, feed: PolicyFeed, seen: &mut Seen, limits: FeedLimits) {
        if seen.source != feed.source {
            *seen = Seen::nothing_of(&feed.source);
        }
        let problems = match &feed.source {
            FeedSource::Directory(directory) => self.look_into(&feed, directory, &mut seen.files).await,
            FeedSource::Https(source) => self.look_at_url(&feed, source, &mut seen.url, limits).await,
        };
        for problem in problems.iter().filter(|problem| !feed.problems.contains(problem)) {
            tracing::warn!(feed = feed.name, problem, "something of a policy feed is not taken");
        }
        // Removed or replaced meanwhile, it stays so.
        if self.is_followed(&feed).await {
            let looked = PolicyFeed { looked: Some(Timestamp::now()), problems, ..feed };
            if let Err(error) = self.inner.store.put_feed(&looked, None).await {
                tracing::error!(error = %Chain(&error), "how a feed is cannot be stored");
            }
        }
    }

    /// Whether an operator still wants this feed, as it is.
    async fn is_followed(&self, feed: &PolicyFeed) -> bool {
        let is_same = |known: &PolicyFeed| {
            known.name == feed.name && known.source == feed.source && known.every_seconds == feed.every_seconds
        };
        self.inner.store.feeds().await.is_ok_and(|feeds| feeds.iter().any(is_same))
    }

    async fn take_from_feed(
        &self,
        feed: &str,
        file: &str,
        content: Vec<u8>,
        signature: Option<String>,
    ) -> Result<(), String> {
        let Some(name) = policy_name(file) else { return Ok(()) };
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
