//! `audit-checkpoint` and `audit-witness`: an orchestrator tells repositories how far its log of acts has come, and they
//! remember it, so that a log that was cut off or written anew is found out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::ContentHash;

/// How far the log has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AuditCheckpoint {
    /// The number of the last entry.
    pub number: u64,
    /// Its hash, which follows from all that come before.
    pub hash: ContentHash,
}

/// What was ever told, the first and the latest of it; empty in answer to anything but a checkpoint with the number 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AuditWitness {
    /// Up to a thousand.
    pub checkpoints: Vec<AuditCheckpoint>,
}
