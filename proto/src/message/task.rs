//! `task-request` and `task-response`: a repository asks whether a report answers a task that was given (RFC 8248
//! ARCH-008; the drafts leave it open). `tasks-request` and `tasks-response` are about many reports at once.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::{ContentHash, ContentRef};
use crate::fault::Fault;
use crate::id::{ComponentId, EndpointId, RequestId, TransactionId};

/// Was this component asked for this?
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TaskRequest {
    /// Who reports.
    pub responder: ComponentId,
    /// About which endpoint.
    pub endpoint: EndpointId,
    /// What it says that it was asked.
    pub task: Task,
    /// SHA-256 of the envelope by which, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<ContentHash>,
}

/// What a report answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// A request of a workflow.
    #[serde(rename_all = "kebab-case")]
    Workflow {
        /// The workflow.
        transaction: TransactionId,
        /// The request.
        request: RequestId,
    },
    /// A schedule or an observation, by the request that began it.
    Standing(RequestId),
}

/// It was; a fault says that it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TaskResponse {
    /// Whether it was asked to collect; otherwise to evaluate.
    pub is_collection: bool,
    /// By which plan: what is to be reported, or may be read for an evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<ContentRef>,
    /// What was collected later than this does not answer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Everything that the request is about, where that is more than one endpoint: the same holds for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointId>,
}

/// Were these components asked for this? At most [`TASKS_MAX`](crate::limits::TASKS_MAX) questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TasksRequest {
    /// The questions.
    pub tasks: Vec<TaskRequest>,
}

/// What came of each of the questions, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TasksResponse {
    /// The answers.
    pub answers: Vec<TaskAnswer>,
}

/// What came of a question about a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskAnswer {
    /// It was given.
    Given(TaskResponse),
    /// It was not.
    NotGiven(Fault),
}
