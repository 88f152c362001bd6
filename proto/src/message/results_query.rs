//! `results-request` and its response: stored verdicts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, TransactionId};
use crate::verdict::{EvaluationSummary, RuleResult, Verdict};

/// Which verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ResultsRequest {
    /// Which evaluations.
    pub selection: ResultsSelection,
    /// Only these verdicts; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Verdict>,
    /// Only the summaries.
    #[serde(default)]
    pub only_summaries: bool,
    /// Where the page before has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Which evaluations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResultsSelection {
    /// The newest of each endpoint, policy and profile.
    Latest,
    /// The newest of one endpoint.
    Endpoint(EndpointId),
    /// Of one workflow.
    Transaction(TransactionId),
}

/// Verdicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ResultsResponse {
    /// One summary an evaluation.
    pub summaries: Vec<EvaluationSummary>,
    /// The results of each, in the same order; empty when only summaries were asked for.
    pub results: Vec<Vec<RuleResult>>,
    /// Whether there is more.
    #[serde(default)]
    pub is_cut: bool,
    /// Where the next page begins, if there is one: what `after` is to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
