//! `query-request` and its response: stored observations (draft-ietf-sacm-arch-13 §5.5.9, P-15).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::{ContentHash, ContentHasher};
use crate::id::{ComponentId, EndpointId, RequestId};
use crate::observation::{EndpointFacts, Flag, Item, Method};
use crate::plan::ObjectKey;

/// Observations of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct QueryRequest {
    /// The request that the answer is needed for. An evaluator reads what it was asked to evaluate, and nothing else; an
    /// orchestrator asks for its operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// Of which endpoint.
    pub endpoint: EndpointId,
    /// Of which objects, in the order wanted. None, where `is_brief`: of all that the request's policy reads, in their order.
    pub objects: Vec<ObjectKey>,
    /// As they were known at that time; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
    /// Whether the hashes of what was found are enough (versions before it answer in full).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_brief: bool,
    /// Where `is_brief`: of which other endpoints besides, at most [`FLEET_ENDPOINTS_MAX`](crate::limits::FLEET_ENDPOINTS_MAX)
    /// (versions before it answer of `endpoint` alone).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<EndpointId>,
}

/// One page: it ends where the limit on the payload does, and `next` is where to go on.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct QueryResponse {
    /// What the endpoint last said of itself.
    pub facts: EndpointFacts,
    /// Items; rows refer to them by position.
    pub items: Vec<Item>,
    /// Observations.
    pub rows: Vec<QueryRow>,
    /// Objects that nothing is stored for.
    pub missing: Vec<ObjectKey>,
    /// How many of the objects asked for this page has answered; fewer than asked: ask for the rest.
    pub answered: u64,
    /// The answer to a brief question, in the place of items and rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brief: Option<Brief>,
    /// The answer to one about many endpoints; then `answered` is how many endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub briefs: Option<Briefs>,
}

/// Where what is known of an object is in a brief answer: the positions of its content, its time, and its report where that is
/// known; nothing where nothing is stored.
pub type KnownAt = Option<(u32, u32, Option<u32>)>;

/// All that is known of an endpoint, in one word that its repository gives it: as long as it is the same, everything is as it was,
/// whenever it was looked at. Nobody but the repository reads more out of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Knowledge(pub String);

/// What is known of objects, by its hash. Whoever has seen it before need not read it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Brief {
    /// SHA-256 of the names of the objects that are answered, each with a newline behind it.
    pub objects: ContentHash,
    /// Hashes of what was found; `known` refers to them by position, as to the others.
    pub contents: Vec<ContentHash>,
    /// When endpoints were last looked at.
    pub times: Vec<Timestamp>,
    /// SHA-256 of the envelopes of the reports that last brought it.
    pub reports: Vec<ContentHash>,
    /// Of each object in turn: its content, its time, and its report where that is known; nothing where nothing is stored.
    pub known: Vec<KnownAt>,
    /// What is known of the endpoint in all (absent from versions before it, and where that cannot be said).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knowledge: Option<Knowledge>,
}

impl Brief {
    /// What `objects` is of these.
    pub fn hash_of<'objects>(objects: impl IntoIterator<Item = &'objects ObjectKey>) -> ContentHash {
        let mut hasher = ContentHasher::default();
        for object in objects {
            hasher.update(object.0.as_bytes());
            hasher.update(b"\n");
        }
        hasher.finish()
    }
}

/// What is known of the first of many endpoints, of as many as fit into an answer and at least of one: what a [`Brief`] says of
/// one, with what is the same listed once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Briefs {
    /// SHA-256 of the names of the objects, each with a newline behind it.
    pub objects: ContentHash,
    /// Hashes of what was found; `endpoints` refers to them by position, as to the others.
    pub contents: Vec<ContentHash>,
    /// When endpoints were last looked at.
    pub times: Vec<Timestamp>,
    /// SHA-256 of the envelopes of the reports that last brought it.
    pub reports: Vec<ContentHash>,
    /// Of each endpoint in turn, of each object in turn: its content, its time, and its report where that is known; nothing where
    /// nothing is stored.
    pub endpoints: Vec<Vec<KnownAt>>,
    /// Of each endpoint in turn what is known of it in all, where that can be said (none from versions before it).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub knowledge: Vec<Option<Knowledge>>,
}

/// One stored observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct QueryRow {
    /// Which object.
    pub object: ObjectKey,
    /// How completely.
    pub flag: Flag,
    /// When the endpoint was last looked at and this was so.
    pub collected: Timestamp,
    /// Who looked.
    pub origin: ComponentId,
    /// How.
    pub method: Method,
    /// SHA-256 of the envelope of the report that last brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ContentHash>,
    /// Positions in `items`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<u32>,
    /// Why it is not complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// The hash by which a brief answer names this (absent from versions before it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentHash>,
}
