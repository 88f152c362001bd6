//! `summary-request` and its response: the newest evaluation of an endpoint, for an evaluator that is to decide again only
//! what has changed since.

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
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SummaryResponse {
    /// The newest evaluation that holds now; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<EvaluationSummary>,
}
