//! `health-check-request` and its response (draft-ietf-sacm-arch-13 §6.2.2): the orchestrator asks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::heartbeat::Success;

/// Is the component alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HealthCheckRequest {
    /// What is asked.
    pub action: HealthCheckAction,
}

/// The actions of draft -13 and, for capability refresh, of draft -07.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthCheckAction {
    /// Answer.
    Ping,
    /// Answer, then advertise the capabilities again.
    PingWithCapabilities,
}

/// The component is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HealthCheckResponse {
    /// Always `success`.
    pub response: Success,
}
