//! `collection-request` and `cancel-request` (draft-ietf-sacm-arch-13 §6.4.2, proposals P-8 and P-9).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::content::ContentRef;
use crate::id::{EndpointId, RequestId};
use crate::plan::ObjectKey;

/// Collect a plan now. Results go to the repositories; the requester gets status notifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CollectionRequest {
    /// Names this request; a collector that has it already does not start it again.
    pub request: RequestId,
    /// The collection plan (`proto::plan::CollectionPlan`, JSON, raw deflate), to be pulled from the
    /// orchestrator unless the collector has it.
    pub plan: ContentRef,
    /// Endpoints to look at; empty: all that the collector speaks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<EndpointId>,
    /// Objects to look at, of those that the plan reports; empty: all of them. What is fresh enough is not looked at again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectKey>,
    /// After this nobody waits for an answer.
    pub deadline: Timestamp,
    /// What it may cost the endpoint, where that is less than what the collector has for its tasks.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
    /// Whether somebody waits for it.
    #[serde(default, skip_serializing_if = "Priority::is_interactive")]
    pub priority: Priority,
}

/// What goes first where several tasks wait (proposal P-8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// It comes by itself, and comes again: it waits for the others.
    Scheduled,
}

impl Priority {
    /// Whether somebody waits.
    pub fn is_interactive(&self) -> bool {
        *self == Self::Interactive
    }
}

/// Stop a request, if it is still running. Who asked for it may stop it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CancelRequest {
    /// Which.
    pub request: RequestId,
}
