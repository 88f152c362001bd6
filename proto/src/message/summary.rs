//! `summary-request` and its response: the newest evaluation of endpoints, for an evaluator that is to decide again only what has
//! changed since.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, RequestId};
use crate::verdict::EvaluationSummary;

/// What was decided last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SummaryRequest {
    /// The request that it is needed for: an evaluator reads what it was asked to evaluate, and nothing else.
    pub request: RequestId,
    /// On which endpoint.
    pub endpoint: EndpointId,
    /// The policy's name.
    pub policy: String,
    /// The profile's id, or `(default)`.
    pub profile: String,
    /// On which other endpoints besides, at most [`FLEET_ENDPOINTS_MAX`](crate::limits::FLEET_ENDPOINTS_MAX) (versions before it
    /// answer of `endpoint` alone).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<EndpointId>,
}

/// The answer.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SummaryResponse {
    /// The newest evaluation that holds now; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<EvaluationSummary>,
    /// In its place where many are asked about: of each of the first of them in turn, of as many as fit into an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub newest: Vec<Option<EvaluationSummary>>,
}
