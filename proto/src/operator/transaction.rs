//! Workflows as operators see them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{ComponentId, EndpointId, TransactionId};

/// What became of the endpoints of a workflow; each counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Account {
    /// How many were meant: the sum of all others.
    pub asked: u64,
    /// Collected.
    pub answered: u64,
    /// Their collectors said no, or could not.
    pub refused: u64,
    /// Their collectors did not answer in time.
    pub timed_out: u64,
    /// Their collectors were not there.
    pub offline: u64,
    /// Left out by the operator.
    pub waived: u64,
    /// Not asked: what is stored is fresh enough.
    pub fresh: u64,
    /// Stopped by the operator.
    pub cancelled: u64,
    /// Not done yet.
    pub open: u64,
}

impl Account {
    /// All but `asked`, with the word for each.
    pub fn parts(&self) -> [(&'static str, u64); 8] {
        [
            ("answered", self.answered),
            ("refused", self.refused),
            ("timed out", self.timed_out),
            ("offline", self.offline),
            ("waived", self.waived),
            ("fresh", self.fresh),
            ("cancelled", self.cancelled),
            ("open", self.open),
        ]
    }

    /// What `asked` has to be.
    pub fn sum(&self) -> u64 {
        self.parts().iter().map(|(_, count)| count).sum()
    }
}

/// A workflow as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TransactionView {
    /// Its id.
    pub transaction: TransactionId,
    /// `collect` or `evaluate`.
    pub workflow: String,
    /// The policy's name.
    pub policy: String,
    /// The profile's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// `running`, `waiting` for those that were not there, `completed`, `partial`, `failed`, `cancelled`.
    pub state: String,
    /// When it began.
    pub begun: Timestamp,
    /// When it was done with everybody who was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Timestamp>,
    /// Until when those that were not there may catch up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// How many endpoints it is about.
    #[serde(default)]
    pub endpoint_count: u64,
    /// Endpoints of which it is not known whether a label means them: they were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<EndpointId>,
    /// What became of them, where they were to be collected from.
    #[serde(default)]
    pub account: Account,
    /// Why it could not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Every responder with its state.
    pub responders: Vec<ResponderView>,
}

/// One responder of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ResponderView {
    /// Who.
    pub component: ComponentId,
    /// What it was asked: `collect` or `evaluate`.
    pub operation: String,
    /// About which endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointId>,
    /// How many objects it was asked for by name; 0: all of the plan.
    #[serde(default)]
    pub object_count: u64,
    /// Its state: `asked`, `accepted`, or how it ended.
    pub state: String,
    /// When it was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
