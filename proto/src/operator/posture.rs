//! Questions about posture, and labels, as operators give and see them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::id::EndpointId;
use crate::message::{OnStale, SearchContent};
use crate::query::PostureQuery;

/// A question about posture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Question {
    /// It.
    pub query: PostureQuery,
    /// Endpoints by label or name; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Endpoints that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// As it was known at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
    /// What is older is stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
    /// Collect what is missing or stale before it is answered; without an age, everything.
    #[serde(default)]
    pub is_collected: bool,
    /// What becomes of what is stale all the same.
    #[serde(default)]
    pub on_stale: OnStale,
    /// How much of it is answered.
    #[serde(default)]
    pub content: SearchContent,
    /// How long collectors have.
    pub timeout_seconds: u64,
    /// What collecting may cost an endpoint.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
}

/// A name for endpoints: some that are named, or those of which a question holds, or both. As a target it means them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LabelDefinition {
    /// It.
    pub name: String,
    /// Endpoints by label or name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// Endpoints that it does not mean, whatever else holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// It means the endpoints on which something is found that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<PostureQuery>,
    /// How often what the question is about is looked at.
    pub every_seconds: u64,
    /// What is older says nothing: it is not known whether the label means the endpoint. Absent: nothing is too old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
}

/// A label and what it means now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LabelView {
    /// What was said of it.
    pub definition: LabelDefinition,
    /// The endpoints that it means.
    pub endpoints: Vec<EndpointId>,
    /// Those of which that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<EndpointId>,
    /// When what the question is about was last searched for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searched: Option<Timestamp>,
}
