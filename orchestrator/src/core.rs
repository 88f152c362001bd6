//! The orchestrator's core: roster, handshake, liveness, workflows. Synchronous and deterministic:
//! time and ids come in, actions go out; whoever drives it stores before it sends.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto::fault::Fault;
use proto::id::{ComponentId, EndpointId, RequestId, TransactionId};
use proto::message::{CollectionRequest, EvaluationRequest, HealthCheckAction, HeartbeatResponse, Priority};
use proto::operator::OperatorEvent;
use service::audit::Act;
use uuid::Uuid;

pub mod admission;
pub mod identity;
pub mod label;
pub mod pacing;
pub mod pause;
pub mod residency;
pub mod roster;
pub mod standing;
pub mod workflow;

use roster::Component;
use workflow::{Responder, Workflow};

/// Heartbeats that may be missed before a component is suspect.
pub const HEARTBEATS_MISSED_MAX: i64 = 3;
/// Seconds for the answer to a health check.
pub const HEALTH_CHECK_SECONDS: i64 = 5;
/// Seconds after which a request that nobody took on is sent again, the first time.
pub const ASK_AGAIN_SECONDS: i64 = 10;
/// How often that time doubles: whoever has much to do is not given more by being asked often.
pub const ASK_AGAIN_DOUBLINGS_MAX: u32 = 2;
/// Seconds that an evaluation gets after the collection.
pub const EVALUATION_SECONDS: i64 = 300;
/// Ended workflows that are kept in memory.
pub const ENDED_WORKFLOWS_MAX: usize = 200;
/// Responders of these, together: of a large fleet fewer workflows are kept. The latest is, however large it is.
pub const ENDED_RESPONDERS_MAX: usize = 50_000;

/// What the driver has to do, in order. Everything to be stored is stored before anything is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Store a component.
    StoreComponent(Box<Component>),
    /// Store that an endpoint was merged into another, or that it was not.
    StoreAlias(EndpointId, Option<EndpointId>),
    /// Write this into the log of acts.
    Record(Box<Act>),
    /// One more component has joined with this token.
    UseToken(String),
    /// Store a workflow, without its responders.
    StoreWorkflow(Box<Workflow>),
    /// Store a responder of a workflow, by its position.
    StoreResponder(TransactionId, usize, Box<Responder>),
    /// Ask a collector.
    Collect {
        /// Who; `None`: everybody, by broadcast.
        to: Option<ComponentId>,
        /// The workflow.
        transaction: TransactionId,
        /// What.
        request: CollectionRequest,
    },
    /// Ask an evaluator.
    Evaluate {
        /// Who.
        to: ComponentId,
        /// The workflow.
        transaction: TransactionId,
        /// What.
        request: Box<EvaluationRequest>,
    },
    /// Ask a component again, as it was asked: it may not have heard.
    AskAgain {
        /// Who.
        to: ComponentId,
        /// The workflow.
        transaction: TransactionId,
        /// What.
        request: RequestId,
        /// How urgent it is.
        priority: Priority,
    },
    /// Tell a component to stop a request.
    Cancel {
        /// Who.
        to: ComponentId,
        /// The workflow.
        transaction: TransactionId,
        /// Which.
        request: RequestId,
    },
    /// Ask a component whether it is alive.
    CheckHealth(ComponentId, HealthCheckAction),
    /// Tell a component what it hears with the answer to a heartbeat, before it asks.
    Pulse(ComponentId, HeartbeatResponse),
    /// Tell everybody who watches what became of a component.
    Announce {
        /// A family and a word.
        code: &'static str,
        /// For people.
        text: String,
    },
    /// End a component's connection.
    Kick(ComponentId),
    /// Tell the operators that follow a workflow.
    Tell(TransactionId, Box<OperatorEvent>),
}

/// Makes ids; a simulation makes the same ones for the same seed.
pub trait Ids: Send {
    /// An id that was never made before, later than those before it.
    fn next(&mut self) -> Uuid;
}

/// Real ids.
#[derive(Debug, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn next(&mut self) -> Uuid {
        Uuid::now_v7()
    }
}

/// The orchestrator's core.
pub struct Core {
    pub(crate) ids: Box<dyn Ids>,
    pub(crate) components: BTreeMap<ComponentId, Component>,
    pub(crate) workflows: BTreeMap<TransactionId, Workflow>,
    /// What operators call endpoints.
    pub(crate) labels: BTreeMap<String, label::Label>,
    /// The fingerprints of the CAs that everybody is to trust.
    pub(crate) trusted_cas: Vec<String>,
    /// Endpoints that were merged into others.
    pub(crate) aliases: BTreeMap<EndpointId, EndpointId>,
    /// Whether a machine whose component was put out has its label again when it joins anew.
    pub(crate) takes_back: bool,
    /// What was noticed on the way and is to be done with the answer.
    pub(crate) noted: Vec<Action>,
    /// When who may shake hands.
    pub(crate) pacing: pacing::Pacing,
    /// Seconds between the heartbeats of each component, as many as there are now.
    pub(crate) heartbeat_seconds: u64,
    /// When time last passed in this process.
    ticked: Option<Timestamp>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Core").field("components", &self.components.len()).finish_non_exhaustive()
    }
}

impl Core {
    /// A core with what an earlier process stored. Every component gets a fresh chance to be heard.
    pub fn new(ids: Box<dyn Ids>, components: Vec<Component>, workflows: Vec<Workflow>, now: Timestamp) -> Self {
        let components: BTreeMap<ComponentId, Component> = components
            .into_iter()
            .map(|mut component| {
                (component.heard, component.said) = (Some(now), Some(now));
                (component.id, component)
            })
            .collect();
        let workflows = workflows.into_iter().map(|workflow| (workflow.id, workflow.counted())).collect();
        let heartbeat_seconds = pacing::heartbeat_seconds(components.len());
        Self {
            ids,
            components,
            workflows,
            labels: BTreeMap::new(),
            trusted_cas: Vec::new(),
            aliases: BTreeMap::new(),
            takes_back: false,
            noted: Vec::new(),
            pacing: pacing::Pacing::default(),
            heartbeat_seconds,
            ticked: None,
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Action> {
        // What was stored may be of a clock that was ahead, too.
        let is_set_back = self.ticked.replace(now).is_none_or(|before| before > now);
        let mut actions = if is_set_back { self.mind_the_clock(now) } else { Vec::new() };
        actions.extend(self.watch_components(now));
        actions.extend(self.tell_cas(now));
        actions.extend(self.watch_workflows(now));
        actions
    }

    pub(crate) fn request_id(&mut self) -> RequestId {
        RequestId(self.ids.next())
    }

    /// The components, by id.
    pub fn components(&self) -> impl Iterator<Item = &Component> {
        self.components.values()
    }

    /// A workflow that is open, or ended of late.
    pub fn workflow(&self, id: TransactionId) -> Option<&Workflow> {
        self.workflows.get(&id)
    }

    /// The workflows, by id.
    pub fn workflows(&self) -> impl Iterator<Item = &Workflow> {
        self.workflows.values()
    }
}

/// Text for a fault that a workflow records.
pub(crate) fn words(fault: &Fault) -> String {
    fault.to_string()
}
