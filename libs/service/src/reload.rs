//! A configuration that is read again while a daemon runs: on SIGHUP (`systemctl reload`). What can take effect at once does; of
//! everything else it is said that it waits for the next start. What cannot be used changes nothing.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::signal::unix::{SignalKind, signal};

use crate::config::reference::TABLES;
use crate::config::{Config, ConfigError, Sources};
use crate::report::Chain;

/// A setting that may change while a daemon runs; clones share it.
#[derive(Debug)]
pub struct Live<T>(Arc<RwLock<T>>);

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> From<T> for Live<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }
}

impl<T: Clone> Live<T> {
    /// How it is now.
    pub fn get(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on it is as another one is.
    pub fn follow(&self, other: &Self) {
        let value = other.get();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

/// What has changed from one configuration to another.
#[derive(Debug, PartialEq, Eq)]
struct Changed {
    /// Keys that take effect at once.
    live: Vec<&'static str>,
    /// Those that wait for the next start.
    waiting: Vec<&'static str>,
}

fn changed(table: &str, started: &Sources, held: &Sources, new: &Sources) -> Changed {
    let keys = TABLES.iter().filter(|known| known.name == table).flat_map(|table| table.keys);
    let (live, waiting): (Vec<_>, Vec<_>) = keys.partition(|key| key.is_live);
    let differing = |keys: Vec<&'static crate::config::reference::Key>, from: &Sources| {
        let differs = |name: &&str| from.value(table, name) != new.value(table, name);
        keys.into_iter().map(|key| key.name).filter(differs).collect()
    };
    Changed { live: differing(live, held), waiting: differing(waiting, started) }
}

/// From now on, on each SIGHUP, the configuration of a table is loaded again and taken over; `take` sets what is [`Live`]. Must be
/// called inside a tokio runtime.
pub fn on_hangup(
    table: &'static str,
    started: Sources,
    load: impl Fn() -> Result<Sources, ConfigError> + Send + 'static,
    take: impl Fn(&Config) -> Result<(), ConfigError> + Send + 'static,
) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            tracing::error!(%error, "SIGHUP cannot be heard: a changed configuration waits for the next start");
            return;
        }
    };
    tokio::spawn(async move {
        let mut held = started.clone();
        while hangups.recv().await.is_some() {
            let new = match load().and_then(|new| take(&new.config()).map(|()| new)) {
                Ok(new) => new,
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "the configuration cannot be used; everything stays as it was");
                    continue;
                }
            };
            let Changed { live, waiting } = changed(table, &started, &held, &new);
            if !waiting.is_empty() {
                tracing::warn!(
                    keys = waiting.join(", "),
                    "changed in the configuration: takes effect at the next start"
                );
            }
            tracing::info!(keys = live.join(", "), "the configuration was read again: takes effect now");
            held = new;
        }
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_waits_is_told_until_it_is_as_it_was_at_the_start_and_what_took_effect_is_told_once() {
        let sources = |text: &str| {
            let mut sources = Sources::default();
            sources.add_text(Path::new("muster.toml"), text).unwrap();
            sources
        };
        let started = sources("[repository]\nname = 'one'\nkeep-verdicts = '7d'\n");
        let first = sources("[repository]\nname = 'two'\nkeep-verdicts = '8d'\n[pcs-agent]\nname = 'other'\n");
        let second = sources("[repository]\nname = 'two'\nkeep-verdicts = '8d'\nkeep-evaluations = '1d'\n");
        let of = |live, waiting| Changed { live, waiting };
        assert_eq!(changed("repository", &started, &started, &first), of(vec!["keep-verdicts"], vec!["name"]));
        assert_eq!(changed("repository", &started, &first, &second), of(vec!["keep-evaluations"], vec!["name"]));
        let back = sources("[repository]\nname = 'one'\nkeep-verdicts = '7d'\n");
        assert_eq!(
            changed("repository", &started, &second, &back),
            of(vec!["keep-verdicts", "keep-evaluations"], vec![])
        );
    }

    #[test]
    fn who_shares_a_setting_sees_it_change() {
        let one = Live::from(1);
        let shared = one.clone();
        one.follow(&Live::from(2));
        assert_eq!(shared.get(), 2);
    }
}
