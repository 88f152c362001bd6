//! `staleness-request` and its response: what has to be collected so that an evaluation finds it fresh (proposals P-14 and
//! P-15). A repository says what it lacks; whoever asked has it collected, once.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::ContentRef;
use crate::id::EndpointId;
use crate::plan::ObjectKey;

/// What is missing or stale of what a plan reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StalenessRequest {
    /// The collection plan.
    pub plan: ContentRef,
    /// Of which endpoints; as many as fit are answered.
    pub endpoints: Vec<EndpointId>,
    /// What was collected earlier is stale.
    pub collected_since: Timestamp,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StalenessResponse {
    /// Endpoints of which something is missing or stale.
    pub stale: Vec<StaleEndpoint>,
    /// How many of the endpoints, from the first, this answers; fewer than asked: ask for the rest.
    pub answered: u64,
}

/// What of an endpoint is missing or stale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StaleEndpoint {
    /// Which.
    pub endpoint: EndpointId,
    /// The objects; empty: all that the plan reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectKey>,
}
