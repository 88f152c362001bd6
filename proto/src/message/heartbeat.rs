//! `heartbeat-request` and its response (draft-ietf-sacm-arch-13 §6.2.3): the component says that it
//! is alive. §5.3.3 needs no answer and §6.2.3 defines one: we always answer.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The component is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HeartbeatRequest {
    /// Always `pulse`.
    pub action: HeartbeatAction,
    /// Messages in the component's outbox that nobody has acknowledged yet.
    #[serde(default)]
    pub unacknowledged_count: u64,
}

/// `action` of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HeartbeatAction {
    /// Alive.
    Pulse,
}

/// The orchestrator heard it; the component resets its timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HeartbeatResponse {
    /// Always `success`.
    pub response: Success,
    /// Seconds until the next one, from now on. Where it is absent, the interval stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<u64>,
    /// Until when a collector looks at nothing, by an operator's word. Where it is absent, it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<Timestamp>,
}

/// `response: success`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Success {
    /// It worked.
    Success,
}
