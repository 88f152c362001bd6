//! `evaluation-results`: verdicts for the repositories, and for whoever watches.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, RequestId};
use crate::verdict::{EvaluationSummary, RuleResult};

/// A part of the verdicts on one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EvaluationResults {
    /// The request that this answers.
    pub request: RequestId,
    /// On which endpoint.
    pub endpoint: EndpointId,
    /// Parts count from 0.
    pub part: u32,
    /// How many rules there will be in all parts.
    pub rule_count: u32,
    /// Verdicts of this part.
    pub results: Vec<RuleResult>,
    /// With the last part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<EvaluationSummary>,
}
