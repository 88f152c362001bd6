//! `chain-request` and its response: the sealed messages from a verdict back to what was asked, for whoever wants to
//! check them without believing a repository (RFC 8248 G-006, DM-008).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::{ContentHash, ContentRef};
use crate::id::{EndpointId, TransactionId};

/// What verdicts rest on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ChainRequest {
    /// Verdicts of this workflow.
    pub transaction: TransactionId,
    /// On this endpoint.
    pub endpoint: EndpointId,
    /// Of this rule; absent: of all. An evaluation is kept as it came: there may be more in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// The verdicts' messages and those of their evidence; each is pulled by its hash as other content is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ChainResponse {
    /// In no particular order.
    pub messages: Vec<KeptMessage>,
    /// The workflows whose verdicts were taken over, where this one has decided a part: of the rule that is asked for, or of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_over: Vec<TransactionId>,
}

/// A sealed message that a repository keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct KeptMessage {
    /// SHA-256 of its envelope, by which others refer to it.
    pub hash: ContentHash,
    /// The sealed message, exactly as it came. It can be asked for (`content-request`) once a repository has told of it here.
    pub content: ContentRef,
    /// When it was received.
    pub received: Timestamp,
}
