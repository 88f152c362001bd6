//! `search-request` and its response: which items are stored of which endpoints, under a condition (draft-ietf-sacm-arch-13
//! §5.5.9, proposal P-15). An orchestrator asks for its operators.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ComponentId, EndpointId};
use crate::observation::{Flag, Item};
use crate::plan::ObjectKey;
use crate::query::PostureQuery;

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SearchRequest {
    /// The question.
    pub query: PostureQuery,
    /// Only in what these objects found; empty: in whatever is stored of the kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectKey>,
    /// Objects that together find everything that is asked for: where all of them found completely nothing that matches, there is
    /// nothing. Empty: that cannot be said, for somebody may have looked for something else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decides: Vec<ObjectKey>,
    /// Only of these endpoints; empty: of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointId>,
    /// As it was known at that time; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
    /// What was collected earlier is stale; absent: nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected_since: Option<Timestamp>,
    /// What becomes of what is stale.
    #[serde(default)]
    pub on_stale: OnStale,
    /// How much of it is answered.
    #[serde(default)]
    pub content: SearchContent,
    /// Go on after this, from the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What becomes of what is stale. That it is collected first is for whoever asks a collector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnStale {
    /// It is answered, and marked.
    #[default]
    Mark,
    /// It is left out.
    Omit,
}

/// How much is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SearchContent {
    /// The items.
    #[default]
    Data,
    /// Where they come from, and how old they are, without themselves.
    Metadata,
    /// How many there are of each endpoint.
    Count,
}

/// One page. It ends behind an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SearchResponse {
    /// Every endpoint of which anything of that kind is stored.
    pub endpoints: Vec<SearchedEndpoint>,
    /// Items; rows refer to them by position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// Where something matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<SearchRow>,
    /// Where the next page begins; none where there is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What came of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SearchedEndpoint {
    /// Which.
    pub endpoint: EndpointId,
    /// How many different items match, what is stale included.
    pub matched: u64,
    /// What that says of it.
    pub outcome: SearchOutcome,
}

/// Whether an endpoint has what is searched for. What is stale says neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SearchOutcome {
    /// An item matches.
    Matched,
    /// None of what was completely collected does.
    Unmatched,
    /// Neither can be said: it is stale, incomplete, or does not say enough.
    Unknown,
}

/// One observation, or one verdict, with what matches of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SearchRow {
    /// Of which endpoint.
    pub endpoint: EndpointId,
    /// What was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectKey>,
    /// Who looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<ComponentId>,
    /// How completely.
    pub flag: Flag,
    /// When the endpoint was last looked at and this was so.
    pub collected: Timestamp,
    /// Since when it has been so.
    pub since: Timestamp,
    /// Whether it is older than asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_stale: bool,
    /// How many items match.
    pub matched: u64,
    /// They, by position in `items`; as many as fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<u32>,
}
