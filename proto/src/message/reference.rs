//! `reference-request` and its response: which of these messages asked for something that a repository still keeps. An
//! orchestrator keeps what it has asked for as long as that (draft-ietf-sacm-arch-13 leaves retention open).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::ContentHash;

/// Messages that asked for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ReferenceRequest {
    /// The SHA-256 of their envelopes.
    pub tasks: Vec<ContentHash>,
}

/// Those of them that something stored answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ReferenceResponse {
    /// They.
    pub tasks: Vec<ContentHash>,
}
