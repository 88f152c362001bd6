//! `evaluation-request` (the empty headings of draft-ietf-sacm-arch-13 §6.5, proposal P-14).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::ContentRef;
use crate::id::{ComponentId, EndpointId, RequestId};
use crate::message::{EndpointAlias, Priority};
use crate::plan::ObjectKey;

/// Evaluate a policy on stored observations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EvaluationRequest {
    /// Names this request.
    pub request: RequestId,
    /// The policy's name, for people.
    pub policy: String,
    /// The compiled policy, to be pulled from the repository.
    pub content: ContentRef,
    /// The profile's id; absent: the rules that the benchmark selects by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Endpoints to evaluate.
    pub targets: Vec<EndpointId>,
    /// Endpoints that were merged into the targets: what was reported of those counts as of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<EndpointAlias>,
    /// The repository that has the observations and the policy.
    pub repository: ComponentId,
    /// Others that keep the same as that one, in the same database: whoever of them answers may be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stand_ins: Vec<ComponentId>,
    /// Observations that were collected earlier than this are stale: their rules become `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected_since: Option<Timestamp>,
    /// Evaluate what was known at that time, as of then; absent: what is known now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
    /// Decide again only what reads these objects, and take the other verdicts over from the newest evaluation of the same
    /// content; empty: decide everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<ObjectKey>,
    /// Whether nothing was collected for it: where nothing is known that was not before, verdicts of another version of the policy on
    /// rules that are the same in both may be taken over (from versions before it: no).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_stored_only: bool,
    /// After this nobody waits for an answer.
    pub deadline: Timestamp,
    /// Whether somebody waits for it.
    #[serde(default, skip_serializing_if = "Priority::is_interactive")]
    pub priority: Priority,
}
