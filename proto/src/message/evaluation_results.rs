//! `evaluation-results`: verdicts for the repositories, and for whoever watches.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::ContentHash;
use crate::id::{EndpointId, RequestId};
use crate::plan::ObjectKey;
use crate::verdict::{EvaluationSummary, RuleResult};

/// A part of the verdicts on one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EvaluationResults {
    /// The request that this answers.
    pub request: RequestId,
    /// SHA-256 of the envelope of the `evaluation-request` (absent from versions before it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<ContentHash>,
    /// On which endpoint.
    pub endpoint: EndpointId,
    /// The policy's name, the profile, and when it was decided, in every part (absent from versions before it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// Parts count from 0.
    pub part: u32,
    /// How many rules there will be in all parts.
    pub rule_count: u32,
    /// Verdicts of this part.
    pub results: Vec<RuleResult>,
    /// The reports that the observations came with on which these verdicts rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// With the last part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<EvaluationSummary>,
}

/// What verdicts are about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct About {
    /// The policy's name.
    pub policy: String,
    /// The profile's id, or `(default)`.
    pub profile: String,
    /// When it was decided.
    pub evaluated: Timestamp,
    /// The policy's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentHash>,
    /// How many parts there are.
    pub part_count: u32,
    /// Whether the verdicts are what holds now: those as of a time in the past are not.
    pub is_current: bool,
    /// Whether rules that are not in any part keep the verdict that they have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
}

/// Observations that a verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Evidence {
    /// SHA-256 of the envelope of the `collection-results` that brought them.
    pub report: ContentHash,
    /// Of which objects.
    pub objects: Vec<ObjectKey>,
}
