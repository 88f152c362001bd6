//! The registry of messages. One operation, one file; a receiver's enum is generated from the lists
//! below, so that its `match` does not compile until every message that it may get has an arm.

use crate::envelope::{Envelope, decode_body};
use crate::fault::{Fault, FaultCode};
use crate::schema;

mod ack;
mod attribute_change;
mod audit;
mod capability_advertisement;
mod chain;
mod collection_request;
mod collection_results;
mod content;
mod endpoint_assignment;
mod evaluation_request;
mod evaluation_results;
mod fleet_results;
mod health_check;
mod heartbeat;
mod observation_request;
mod periodic_collection;
mod policy;
mod query;
mod reference;
mod registration;
mod results_query;
mod search;
mod staleness;
mod status_notification;
mod summary;
mod task;

pub use ack::Ack;
pub use attribute_change::{
    AttributeChange, AttributeChanges, ChangesRequest, ChangesResponse, ObjectState, StreamState,
};
pub use audit::{AuditCheckpoint, AuditWitness};
pub use capability_advertisement::{
    AdvertisedEndpoint, AssignedEndpoint, CapabilityAdvertisement, CapabilityAdvertisementResponse, CapabilityAnswer,
    LackedKind, RegistrationStatus,
};
pub use chain::{ChainRequest, ChainResponse, KeptMessage};
pub use collection_request::{CancelRequest, CollectionRequest, Priority};
pub use collection_results::{CollectedPart, CollectionResults};
pub use content::{ContentRequest, ContentResponse};
pub use endpoint_assignment::{Assignment, EndpointAlias, EndpointAssignment};
pub use evaluation_request::EvaluationRequest;
pub use evaluation_results::{About, EvaluationResults, Evidence};
pub use fleet_results::{EndpointResults, FleetEvidence, FleetResults};
pub use health_check::{HealthCheckAction, HealthCheckRequest, HealthCheckResponse};
pub use heartbeat::{HeartbeatAction, HeartbeatRequest, HeartbeatResponse, Success};
pub use observation_request::{
    FollowedBy, Following, ObservationEntry, ObservationMode, ObservationOperation, ObservationRequest,
    ObservationResponse, StreamPosition,
};
pub use periodic_collection::{PeriodicCollection, PeriodicCollectionResponse, PeriodicOperation, ScheduleEntry};
pub use policy::{
    PoliciesRequest, PoliciesResponse, PolicyDescription, PolicyOrigin, PolicyPublication, ProfileDescription,
};
pub use query::{Brief, Briefs, Knowledge, KnownAt, QueryRequest, QueryResponse, QueryRow};
pub use reference::{ReferenceRequest, ReferenceResponse};
pub use registration::{ComponentRegistrationRequest, ComponentRegistrationResponse, JoinProof};
pub use results_query::{ResultsRequest, ResultsResponse, ResultsSelection};
pub use search::{OnStale, SearchContent, SearchOutcome, SearchRequest, SearchResponse, SearchRow, SearchedEndpoint};
pub use staleness::{StaleEndpoint, StalenessRequest, StalenessResponse};
pub use status_notification::{COLLECTION_CUT, Phase, StatusNotification, TaskProgress};
pub use summary::{SummaryRequest, SummaryResponse};
pub use task::{Task, TaskAnswer, TaskRequest, TaskResponse, TasksRequest, TasksResponse};

/// A message's body.
pub trait Message:
    serde::Serialize + serde::de::DeserializeOwned + schemars::JsonSchema + Send + Sync + 'static
{
    /// Its kind: the envelope's `type`.
    const KIND: &'static str;
}

macro_rules! kinds {
    ($($kind:literal => $message:ty, $doc:literal;)*) => {
        $(impl Message for $message { const KIND: &'static str = $kind; })*

        /// Every kind with what it is for, in the order of `docs/wire.md`.
        pub const KINDS: &[(&str, &str)] = &[$(($kind, $doc)),*];

        /// Reads a body as its kind says and writes it again: what a round trip keeps. `None` for an
        /// unknown kind.
        pub fn round_trip(kind: &str, body: &serde_json::value::RawValue) -> Option<Result<String, Fault>> {
            match kind {
                $($kind => Some(decode_body::<$message>(kind, body).map(|message| {
                    serde_json::to_string(&message).expect("a message always serialises")
                })),)*
                _ => None,
            }
        }

        /// The JSON Schema of every kind's body.
        pub(crate) fn schemas() -> Vec<(&'static str, serde_json::Value)> {
            vec![$(($kind, schema::of::<$message>($kind))),*]
        }
    };
}

kinds! {
    "component-registration-request" => ComponentRegistrationRequest, "a component joins, comes back, or renews its certificate (draft -13 §6.1)";
    "component-registration-response" => ComponentRegistrationResponse, "its id and certificate";
    "capability-advertisement" => CapabilityAdvertisement, "what a component can do and for which endpoints (draft -13 §6.2.1)";
    "capability-advertisement-response" => CapabilityAdvertisementResponse, "success or failure for each URN, with the topics to subscribe to";
    "health-check-request" => HealthCheckRequest, "is the component alive (draft -13 §6.2.2)";
    "health-check-response" => HealthCheckResponse, "it is";
    "heartbeat-request" => HeartbeatRequest, "the component says that it is alive (draft -13 §6.2.3)";
    "heartbeat-response" => HeartbeatResponse, "the orchestrator heard it";
    "status-notification" => StatusNotification, "what happened, and how a task ended (draft -13 §6.3)";
    "collection-request" => CollectionRequest, "collect a plan now (draft -13 §6.4.2)";
    "cancel-request" => CancelRequest, "stop a request";
    "periodic-collection" => PeriodicCollection, "schedule, cancel or list periodic collection (draft -07 §5.4.2)";
    "periodic-collection-response" => PeriodicCollectionResponse, "what is scheduled";
    "observation-request" => ObservationRequest, "start, cancel or list event-based collection (draft -13 §6.4.1.4)";
    "observation-response" => ObservationResponse, "what is watched";
    "collection-results" => CollectionResults, "observations for the repositories (draft -13 §6.4.3)";
    "endpoint-assignment" => EndpointAssignment, "which collector speaks for which endpoint";
    "task-request" => TaskRequest, "does a report answer a task that was given";
    "task-response" => TaskResponse, "it does, and this is the task";
    "tasks-request" => TasksRequest, "do these reports answer tasks that were given";
    "tasks-response" => TasksResponse, "what came of each question";
    "audit-checkpoint" => AuditCheckpoint, "how far the orchestrator's log of acts has come";
    "audit-witness" => AuditWitness, "what the repository was told of it before";
    "evaluation-request" => EvaluationRequest, "evaluate a policy on stored observations (draft -13 §6.5)";
    "evaluation-results" => EvaluationResults, "verdicts for the repositories";
    "fleet-results" => FleetResults, "verdicts on many endpoints, what is the same in it once";
    "policy-publication" => PolicyPublication, "a policy for the repositories to fetch and keep";
    "policies-request" => PoliciesRequest, "which policies are there";
    "policies-response" => PoliciesResponse, "these";
    "query-request" => QueryRequest, "stored observations of an endpoint (draft -13 §5.5.9)";
    "query-response" => QueryResponse, "one page of them";
    "reference-request" => ReferenceRequest, "which of these messages asked for something that is kept";
    "reference-response" => ReferenceResponse, "these";
    "search-request" => SearchRequest, "which items are stored of which endpoints, under a condition (draft -13 §5.5.9)";
    "search-response" => SearchResponse, "one page of them";
    "staleness-request" => StalenessRequest, "what has to be collected so that it is fresh";
    "staleness-response" => StalenessResponse, "this";
    "summary-request" => SummaryRequest, "what was decided last, for an evaluation of what has changed since, there or in the policy";
    "summary-response" => SummaryResponse, "this";
    "results-request" => ResultsRequest, "stored verdicts";
    "results-response" => ResultsResponse, "one page of them";
    "chain-request" => ChainRequest, "the sealed messages that verdicts rest on";
    "chain-response" => ChainResponse, "where they are";
    "attribute-change" => AttributeChange, "an object of an endpoint is no longer what it was";
    "attribute-changes" => AttributeChanges, "several objects are no longer what they were";
    "changes-request" => ChangesRequest, "what changed of late";
    "changes-response" => ChangesResponse, "one page of it";
    "content-request" => ContentRequest, "a chunk of content by its hash";
    "content-response" => ContentResponse, "the chunk";
    "ack" => Ack, "the message is stored; its sender may forget it";
    "error" => Fault, "the message was refused";
}

macro_rules! receivers {
    ($($(#[doc = $doc:literal])+ $receiver:ident { $($message:ident,)* })*) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone)]
        pub enum $receiver { $(#[doc = "See the message of that name."] $message(Box<$message>),)* }

        impl $receiver {
            /// The kinds that this receiver takes.
            pub const KINDS: &[&str] = &[$($message::KIND),*];

            /// The message in this envelope, if it is one for this receiver.
            pub fn decode(envelope: &Envelope) -> Result<Self, Fault> {
                $(if envelope.kind == $message::KIND {
                    return decode_body(&envelope.kind, &envelope.body).map(|message| Self::$message(Box::new(message)));
                })*
                let text = format!("`{}` is not a message for this component", envelope.kind);
                Err(Fault::new(FaultCode::Malformed, text))
            }
        }
    )*};
}

receivers! {
    /// What an orchestrator receives.
    ToOrchestrator {
        ComponentRegistrationRequest, CapabilityAdvertisement, HeartbeatRequest, HealthCheckResponse,
        StatusNotification, PeriodicCollectionResponse, ObservationResponse, EvaluationResults, FleetResults,
        AttributeChange, AttributeChanges, ContentRequest, TaskRequest, TasksRequest,
    }
    /// What every registered component receives on its administrative interface.
    ToMember {
        CapabilityAdvertisementResponse, HealthCheckRequest, HeartbeatResponse,
    }
    /// What a collector receives besides.
    ToCollector {
        CollectionRequest, CancelRequest, PeriodicCollection, ObservationRequest,
    }
    /// What an evaluator receives besides.
    ToEvaluator {
        EvaluationRequest, CancelRequest,
    }
    /// What a repository receives besides.
    ToRepository {
        CollectionResults, EvaluationResults, FleetResults, PolicyPublication, PoliciesRequest, QueryRequest,
        ResultsRequest, ChangesRequest, ContentRequest, EndpointAssignment, AuditCheckpoint,
        ChainRequest, StalenessRequest, SearchRequest, ReferenceRequest, SummaryRequest,
    }
}
