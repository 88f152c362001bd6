//! Versions of policies, as operators see them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::EndpointId;
use crate::verdict::{Severity, Verdict};

/// A data stream that is to be a policy, or a tailoring that is to make one of another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyImport {
    /// The policy's name.
    pub name: String,
    /// The policy that what follows tailors; without, what follows is a data stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tailors: Option<String>,
    /// A signature of what follows (SSHSIG, armored).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Put it in force at once, where another version is.
    #[serde(default)]
    pub is_activated: bool,
}

/// What another version of a policy would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyPreview {
    /// The policy.
    pub policy: String,
    /// The version that is in force.
    pub from: Option<u64>,
    /// The other one.
    pub to: Option<u64>,
    /// The profile.
    pub profile: String,
    /// As of when both were decided.
    pub as_of: Timestamp,
    /// How many endpoints were decided.
    pub endpoint_count: u64,
    /// Of these, endpoints of which something would change.
    pub changed_endpoint_count: u64,
    /// Rule results that would stay as they are.
    pub unchanged_count: u64,
    /// What would change, in the order of the rules.
    pub changes: Vec<PreviewChange>,
}

/// A rule whose verdict would be another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PreviewChange {
    /// The rule.
    pub rule: String,
    /// Its title.
    pub title: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is; absent: the version in force does not select the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Verdict>,
    /// What it would be; absent: the other version does not select the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Verdict>,
    /// Why it would be unknown, of the first endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// On how many endpoints.
    pub endpoint_count: u64,
    /// The first of them.
    pub endpoints: Vec<EndpointId>,
}

/// A key that signs policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicySigner {
    /// What operators call it.
    pub name: String,
    /// The key, as OpenSSH writes public keys.
    pub key: String,
    /// Since when it is believed.
    pub added: Timestamp,
}

/// A key is believed, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignerChange {
    /// It is.
    Add {
        /// What it is called.
        name: String,
        /// The key, as OpenSSH writes public keys.
        key: String,
    },
    /// It is not.
    Remove {
        /// What it is called.
        name: String,
    },
}

/// Where a feed's policies come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedSource {
    /// A directory, on the orchestrator's machine: every data stream in it.
    Directory(String),
    /// One data stream at a URL.
    Https(HttpsSource),
}

/// A data stream at a URL; its signature is at the same with `.sig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HttpsSource {
    /// The URL, with `https:`.
    pub url: String,
    /// Who is trusted to certify the server beside those whom the orchestrator's machine trusts: certificates, PEM, at most
    /// [`FEED_CA_BYTES_MAX`](crate::limits::FEED_CA_BYTES_MAX).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

impl fmt::Display for FeedSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => formatter.write_str(directory),
            Self::Https(source) => formatter.write_str(&source.url),
        }
    }
}

/// A place in which policies are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyFeed {
    /// What operators call it.
    pub name: String,
    /// The place.
    #[serde(flatten)]
    pub source: FeedSource,
    /// Seconds between two looks.
    pub every_seconds: u64,
    /// When it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<Timestamp>,
    /// What went wrong then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// A feed is followed, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedChange {
    /// It is; one of the same name is replaced.
    #[serde(rename_all = "kebab-case")]
    Add {
        /// What it is called.
        name: String,
        /// The place.
        #[serde(flatten)]
        source: FeedSource,
        /// Seconds between two looks.
        every_seconds: u64,
    },
    /// It is not.
    Remove {
        /// What it is called.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_that_an_earlier_version_has_stored_is_read() {
        let stored = r#"{"name":"incoming","directory":"/srv/policies","every-seconds":60,"problems":["x"]}"#;
        let feed: PolicyFeed = serde_json::from_str(stored).unwrap();
        assert_eq!(feed.source, FeedSource::Directory("/srv/policies".to_owned()));
        assert_eq!(serde_json::to_string(&feed).unwrap(), stored);
    }

    #[test]
    fn a_feed_over_https_is_written_and_read() {
        let source = FeedSource::Https(HttpsSource { url: "https://example.org/a.xml".to_owned(), ca: None });
        let change = FeedChange::Add { name: "web".to_owned(), source, every_seconds: 60 };
        let written = serde_json::to_string(&change).unwrap();
        assert_eq!(written, r#"{"add":{"name":"web","https":{"url":"https://example.org/a.xml"},"every-seconds":60}}"#);
        assert_eq!(serde_json::from_str::<FeedChange>(&written).unwrap(), change);
    }
}
