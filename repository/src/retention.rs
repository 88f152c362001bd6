//! How long what is past is kept. What is current is kept for as long as it is current, and so is what a verdict that is kept
//! rests on.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proto::limits::shown;
use service::config::{ConfigError, RepositoryConfig, Seconds};

/// A year, and some days to look back at it.
const HISTORY: SignedDuration = SignedDuration::from_hours(24 * 400);
const MONTH: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Ages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Of observations that hold no more, and of the changes that ended them.
    pub observations: SignedDuration,
    /// The same for items of a kind, such as `linux:inetlisteningservers`.
    pub observations_of: BTreeMap<String, SignedDuration>,
    /// Of verdicts that hold no more.
    pub verdicts: SignedDuration,
    /// Of evaluations that only confirmed what was decided before, or that were as of a time in the past.
    pub evaluations: SignedDuration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { observations: HISTORY, observations_of: BTreeMap::new(), verdicts: HISTORY, evaluations: MONTH }
    }
}

impl TryFrom<&RepositoryConfig> for Retention {
    type Error = ConfigError;

    fn try_from(config: &RepositoryConfig) -> Result<Self, ConfigError> {
        let built_in = Self::default();
        let age = |given: Option<Seconds>, otherwise| given.map_or(otherwise, Seconds::duration);
        let known = || oval::kinds::KINDS.iter().map(|kind| kind.name);
        if let Some(kind) = config.keep_observations_of.keys().find(|kind| !known().any(|name| name == *kind)) {
            let known: Vec<&str> = known().collect();
            let reason = format!("there are no items of the kind `{}`; there are {}", shown(kind), known.join(", "));
            return Err(ConfigError::Value { key: "keep-observations-of", reason });
        }
        let of_kind = |(kind, age): (&String, &Seconds)| (kind.clone(), age.duration());
        Ok(Self {
            observations: age(config.keep_observations, built_in.observations),
            observations_of: config.keep_observations_of.iter().map(of_kind).collect(),
            verdicts: age(config.keep_verdicts, built_in.verdicts),
            evaluations: age(config.keep_evaluations, built_in.evaluations),
        })
    }
}

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Observations that held once.
    pub observation_count: u64,
    /// Changes.
    pub change_count: u64,
    /// Items that nothing refers to any more.
    pub item_count: u64,
    /// Verdicts that held once.
    pub verdict_count: u64,
    /// Evaluations with the messages they came in.
    pub evaluation_count: u64,
}

impl Expired {
    /// Whether there was nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The time before which something of an age was.
pub(crate) fn before(now: Timestamp, age: SignedDuration) -> i64 {
    now.saturating_sub(age).map_or(i64::MIN, Timestamp::as_microsecond)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_that_are_configured_and_a_kind_is_one_that_there_is() {
        assert_eq!(Retention::try_from(&RepositoryConfig::default()).unwrap(), Retention::default());
        let of = |kind: &str| RepositoryConfig {
            keep_observations: Some(Seconds(60)),
            keep_observations_of: [(kind.to_owned(), Seconds(5))].into(),
            ..RepositoryConfig::default()
        };
        let retention = Retention::try_from(&of("unix:file")).unwrap();
        assert_eq!(retention.observations, SignedDuration::from_secs(60));
        assert_eq!(retention.observations_of["unix:file"], SignedDuration::from_secs(5));
        assert_eq!(retention.verdicts, Retention::default().verdicts);
        let error = Retention::try_from(&of("unix:files")).unwrap_err().to_string();
        assert!(error.contains("`unix:files`; there are") && error.contains("unix:file, "), "{error}");
    }
}
