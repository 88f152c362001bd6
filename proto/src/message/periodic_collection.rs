//! `periodic-collection` (draft-ietf-sacm-arch-07 §5.4.2, proposal P-12).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CollectionRequest;
use crate::fault::Fault;
use crate::schedule::Schedule;

/// Schedule, cancel or list periodic collection at a collector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PeriodicCollection {
    /// Unique at the orchestrator. A second schedule with it is a fault unless it is identical.
    pub collection_identifier: String,
    /// What to do.
    pub operation: PeriodicOperation,
    /// When; for `schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection_schedule: Option<Schedule>,
    /// With `schedule`: once at once. With `cancel`: once more before it ends.
    #[serde(default)]
    pub collect_upon_acknowledgement: bool,
    /// What; for `schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection_instructions: Option<CollectionRequest>,
}

/// `operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PeriodicOperation {
    /// Begin.
    Schedule,
    /// End. Ending what is not there is no fault.
    Cancel,
    /// Say what is scheduled.
    List,
}

/// What is scheduled, or why it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PeriodicCollectionResponse {
    /// Which operation this answers.
    pub operation: PeriodicOperation,
    /// Which schedule.
    pub collection_identifier: String,
    /// All schedules, for `list`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<ScheduleEntry>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// One schedule at a collector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ScheduleEntry {
    /// Its identifier.
    pub collection_identifier: String,
    /// When it runs.
    pub collection_schedule: Schedule,
    /// When it runs next; absent where it has ended (and from versions before it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
}
