//! `content-request` and its response: a chunk of content by hash.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::ContentHash;

/// A chunk, please.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ContentRequest {
    /// Of which content.
    pub sha256: ContentHash,
    /// From which byte.
    pub offset: u64,
}

/// The chunk. The requester checks the hash of the whole when it has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ContentResponse {
    /// Of which content.
    pub sha256: ContentHash,
    /// From which byte.
    pub offset: u64,
    /// Bytes in all.
    pub size_bytes: u64,
    /// At most `limits::CONTENT_CHUNK_BYTES`, base64.
    pub chunk: String,
}
