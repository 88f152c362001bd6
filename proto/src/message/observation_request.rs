//! `observation-request` (draft-ietf-sacm-arch-13 §6.4.1.3 and §6.4.1.4, proposal P-13): watch what a
//! plan reads, report all of it once, and then what changes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::CollectionRequest;
use crate::fault::Fault;

/// Start, cancel or list event-based collection at a collector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ObservationRequest {
    /// Unique at the collector. A second observation with it is a fault unless it is identical.
    pub observation_identifier: String,
    /// What to do.
    pub operation: ObservationOperation,
    /// Seconds from one look to the next where watching in real time is not possible, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_seconds: Option<u64>,
    /// What to watch; for `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection_instructions: Option<CollectionRequest>,
}

/// `operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ObservationOperation {
    /// Begin.
    Start,
    /// End. Ending what is not there is no fault.
    Cancel,
    /// Say what is watched.
    List,
}

/// How a collector watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ObservationMode {
    /// It looks again and again.
    Polling,
    /// The kernel tells it of everything.
    Realtime,
    /// The kernel tells it of a part; at the rest it looks again and again.
    Mixed,
}

/// In which way a collector learns of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Following {
    /// The kernel tells of files and directories (inotify).
    Files,
    /// systemd tells of its units, over D-Bus.
    Units,
    /// The kernel tells of mounts.
    Mounts,
    /// A fingerprint is taken again and again, and a look follows where it is another one.
    Fingerprints,
    /// It looks again and again: nobody tells of everything.
    Polling,
}

/// One way in which objects are followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FollowedBy {
    /// Which.
    pub way: Following,
    /// How many objects it tells of, wholly or in part: one may be followed in several ways.
    pub count: u64,
    /// Seconds from one time to the next, where it is done again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// What is watched, or why it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ObservationResponse {
    /// Which operation this answers.
    pub operation: ObservationOperation,
    /// Which observation.
    pub observation_identifier: String,
    /// All observations for `list`, the one that was started for `start`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observations: Vec<ObservationEntry>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// One observation at a collector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ObservationEntry {
    /// Its identifier.
    pub observation_identifier: String,
    /// How it is watched.
    pub mode: ObservationMode,
    /// Seconds from one look to the next, at what nobody tells of.
    pub poll_seconds: u64,
    /// How many objects it is told of (absent from versions before it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched_count: Option<u64>,
    /// At how many it looks again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polled_count: Option<u64>,
    /// Each way in which its objects are followed at present (absent from versions before it).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followed: Vec<FollowedBy>,
    /// The epoch; none before the first report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Uuid>,
    /// The number of the last report in it.
    #[serde(default)]
    pub sequence: u64,
}

/// Where a report stands in the reports of an observation. An epoch begins with a full report, and its
/// numbers have no gap; whenever the collector cannot promise that, it begins a new epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StreamPosition {
    /// Which observation.
    pub observation_identifier: String,
    /// The epoch.
    pub epoch: Uuid,
    /// The report's number in the epoch, from 1; parts of a report count by themselves.
    pub sequence: u64,
    /// Whether it is of the full report that begins the epoch.
    pub is_baseline: bool,
}
