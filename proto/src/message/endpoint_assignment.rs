//! `endpoint-assignment`: which collector speaks for which endpoint. Nobody else's word about an endpoint is
//! stored: who owns one collector can lie about that one machine, and nothing else.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ComponentId, EndpointId};

/// From the orchestrator to a repository, at every handshake of either side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointAssignment {
    /// Each stands for all that was assigned to its collector before.
    pub assignments: Vec<Assignment>,
    /// All endpoints that were merged into others; absent where that is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aliases: Option<Vec<EndpointAlias>>,
}

/// An endpoint that turned out to be another: what is known of it is known of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointAlias {
    /// Its own label.
    pub endpoint: EndpointId,
    /// The label of the other.
    pub of: EndpointId,
}

/// The endpoints of one collector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Assignment {
    /// Who speaks for them.
    pub collector: ComponentId,
    /// Their labels.
    pub endpoints: Vec<EndpointId>,
}
