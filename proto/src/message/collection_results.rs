//! `collection-results` (draft-ietf-sacm-arch-13 §6.4.3, proposal P-10).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StreamPosition;
use crate::content::ContentHash;
use crate::id::{EndpointId, RequestId};
use crate::observation::{EndpointFacts, Flag, Item, Method};
use crate::plan::ObjectKey;

/// A part of what one request found on one endpoint. A repository stores a part in one transaction
/// and acknowledges it after the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CollectionResults {
    /// The request that this answers.
    pub request: RequestId,
    /// The request that began the schedule or the observation, if this is one of its runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<RequestId>,
    /// SHA-256 of the envelope that asked: a `collection-request`, `periodic-collection` or `observation-request`. The
    /// answer is signed with it, so that whoever has both can tell what was asked (absent from versions before it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<ContentHash>,
    /// The plan that was followed.
    pub plan: ContentHash,
    /// Of which endpoint.
    pub endpoint: EndpointId,
    /// What the endpoint said of itself at that time.
    pub facts: EndpointFacts,
    /// How it was learned.
    pub method: Method,
    /// Parts count from 0.
    pub part: u32,
    /// Whether this is the last part.
    pub is_final: bool,
    /// Where it stands in an observation's reports, if it is one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamPosition>,
    /// Items; `objects` refers to them by position.
    pub items: Vec<Item>,
    /// What each object found.
    pub objects: Vec<CollectedPart>,
}

/// What one object found, with its items by position in the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CollectedPart {
    /// Which object.
    pub object: ObjectKey,
    /// How completely.
    pub flag: Flag,
    /// When it was looked at.
    pub collected: Timestamp,
    /// Positions in `items`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<u32>,
    /// Why it is not complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
}
