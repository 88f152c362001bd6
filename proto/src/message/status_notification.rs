//! `status-notification` (draft-ietf-sacm-arch-13 §6.3), with the fields that close a task.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::id::{ComponentId, RequestId};

/// What happened. With `request`, how far a task is; the last phase is sent exactly once, and is
/// durable: it is sent again until the orchestrator acknowledges it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StatusNotification {
    /// Who says it.
    pub publisher: ComponentId,
    /// For people.
    pub message: String,
    /// A family and a word: `collect.completed`, `liveness.suspect`, `security.not-authorized`.
    pub code: String,
    /// The request that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// How far that request is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// How much is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<TaskProgress>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// The code of a collection that is done, but for what its budget cut off.
pub const COLLECTION_CUT: &str = "collect.cut";

/// The life of a task at its responder (spec proposal P-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It was taken on. A responder that dies is asked again when it comes back.
    Accepted,
    /// It is being done.
    Progress,
    /// Done: every result was acknowledged by a repository.
    Completed,
    /// Some of it was done; `fault` says what was not.
    Partial,
    /// Refused.
    Rejected,
    /// Tried, and nothing came of it.
    Failed,
    /// Stopped by who asked.
    Cancelled,
}

impl Phase {
    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Accepted | Self::Progress)
    }
}

/// How much of a task is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TaskProgress {
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
}
