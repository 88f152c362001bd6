//! `attribute-change`, `attribute-changes` and `changes-request` (proposal P-11): what a repository saw change. The message
//! is a nudge and may be lost; the rows that are asked for are the truth.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StreamPosition;
use crate::id::{ComponentId, EndpointId};
use crate::observation::{Flag, Item};
use crate::plan::ObjectKey;

/// One object of one endpoint is no longer what it was (information model: an event with past and
/// current state).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AttributeChange {
    /// Grows with every change in this repository.
    pub change: u64,
    /// On which endpoint.
    pub endpoint: EndpointId,
    /// Which object.
    pub object: ObjectKey,
    /// Who looked.
    pub origin: ComponentId,
    /// When the new state was seen.
    pub collected: Timestamp,
    /// What it was; none where nothing was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<ObjectState>,
    /// What it is.
    pub current: ObjectState,
    /// The observation that noticed it, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamPosition>,
}

/// Several changes. Where many come at once their states are without items, though `item-count` says that there are some:
/// whoever wants them asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AttributeChanges {
    /// In the order of their numbers.
    pub changes: Vec<AttributeChange>,
}

impl AttributeChange {
    /// Whether there may be more in it than it says: there are items, and none is named.
    pub fn is_brief(&self) -> bool {
        let mut sides = self.past.iter().chain([&self.current]);
        sides.clone().all(|side| side.items.is_empty()) && sides.any(|side| side.item_count > 0)
    }
}

/// One side of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ObjectState {
    /// When it was last seen so, of the past; first, of the current state.
    pub seen: Timestamp,
    /// How completely it was collected.
    pub flag: Flag,
    /// How many items there are.
    pub item_count: u64,
    /// Those that the other side does not have, as many as fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// Why it is not complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
}

/// Ask a repository for changes, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ChangesRequest {
    /// Of these endpoints; empty: of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointId>,
    /// Only changes before this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
    /// These, by their numbers, and no others; empty: whichever there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<u64>,
}

/// One page of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ChangesResponse {
    /// The newest first. Objects that were seen for the first time are not among them.
    pub changes: Vec<AttributeChange>,
    /// Where to go on with `before`; none where there is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// The observations that reports came from, with what is missing of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamState>,
}

/// What a repository has of an observation's newest epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StreamState {
    /// Who reports.
    pub origin: ComponentId,
    /// Which observation.
    pub observation_identifier: String,
    /// The epoch.
    pub epoch: Uuid,
    /// The highest number that came.
    pub highest: u64,
    /// How many of them came; fewer than `highest`: some are missing, or still on their way.
    pub received: u64,
}
