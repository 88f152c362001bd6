//! What nobody can decide of a policy, as operators see it.

use serde::{Deserialize, Serialize};

use crate::id::EndpointId;
use crate::verdict::Severity;

/// How much of a policy can be decided on some endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CoverageView {
    /// The policy.
    pub policy: String,
    /// The profile; absent: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Rules that are selected.
    pub rule_count: u64,
    /// Of these, rules that can be decided on every endpoint.
    pub covered_count: u64,
    /// The endpoints.
    pub endpoints: Vec<EndpointId>,
    /// Endpoints whose collectors do not say what they can collect: they are taken to collect all that there is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<EndpointId>,
    /// The others, in the policy's order.
    pub gaps: Vec<CoverageGap>,
}

/// A rule that cannot be decided, or not everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CoverageGap {
    /// Its id.
    pub rule: String,
    /// Its title.
    pub title: String,
    /// Its severity.
    pub severity: Severity,
    /// The kind of items that cannot be collected; absent: it is not for want of a collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Why.
    pub reason: String,
    /// Where; empty: nowhere can it be decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointId>,
}
