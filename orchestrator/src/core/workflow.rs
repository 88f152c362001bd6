//! Workflows: ad-hoc collection and ad-hoc evaluation. Every responder that was asked ends in exactly
//! one terminal state; what one says after that changes nothing.

use jiff::{SignedDuration, Timestamp};
use proto::capability::{Capability, ComponentType};
use proto::content::ContentRef;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId, RequestId, TransactionId};
use proto::message::{CollectionRequest, EndpointAlias, EvaluationRequest, Phase, StatusNotification, TaskResponse};
use proto::operator::{Activity, ComponentState, OperatorEvent, ResponderView, TransactionView};
use serde::{Deserialize, Serialize};

use super::{ASK_AGAIN_SECONDS, Action, Core, ENDED_WORKFLOWS_MAX, EVALUATION_SECONDS, words};

/// Seconds after its deadline in which what a request asks for may still be collected.
const LATE_SECONDS: i64 = 3_600;
/// Seconds by which an observation may seem older than the request that it answers: clocks differ.
const CLOCK_SLACK_SECONDS: i64 = 5;

/// What a workflow is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// Evaluate after collecting.
    pub is_evaluation: bool,
    /// Collect nothing.
    pub is_stored_only: bool,
    /// Ask collectors by one broadcast.
    pub is_broadcast: bool,
    /// The policy's name.
    pub policy: String,
    /// The compiled policy.
    pub policy_content: ContentRef,
    /// The collection plan.
    pub collection_plan: ContentRef,
    /// The profile's id.
    pub profile: Option<String>,
    /// Endpoints by label or name; empty: all.
    pub targets: Vec<String>,
    /// How long responders have.
    pub timeout_seconds: i64,
}

/// What a responder was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// To collect.
    Collect,
    /// To evaluate.
    Evaluate,
}

/// Where a responder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResponderState {
    /// Asked.
    Asked,
    /// It has taken the request on.
    Accepted,
    /// Done.
    Completed,
    /// Done in part.
    Partial,
    /// It said no.
    Rejected,
    /// It tried, and could not.
    Failed,
    /// It stopped when it was told to.
    Cancelled,
    /// Nobody was there to ask.
    Offline,
    /// It did not answer in time.
    NoAnswer,
}

impl ResponderState {
    fn is_terminal(self) -> bool {
        !matches!(self, Self::Asked | Self::Accepted)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Accepted => "accepted",
            Self::Completed => "completed",
            Self::Partial => "partial",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Offline => "offline",
            Self::NoAnswer => "no-answer",
        }
    }
}

/// Who was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Responder {
    /// Who.
    pub component: ComponentId,
    /// What.
    pub operation: Operation,
    /// By which request.
    pub request: RequestId,
    /// About which endpoints of its own; an evaluator is asked about all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointId>,
    /// Where it is.
    pub state: ResponderState,
    /// Why.
    pub detail: Option<String>,
    /// When it was last asked.
    pub asked: Timestamp,
    /// Until when it may answer.
    pub deadline: Timestamp,
    /// How much is done.
    #[serde(default)]
    pub progress: (u64, u64),
}

/// A workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Workflow {
    /// Its id.
    pub id: TransactionId,
    /// What it is for.
    pub plan: Plan,
    /// The endpoints that it is about.
    pub endpoints: Vec<EndpointId>,
    /// When it began.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Everybody who was asked.
    pub responders: Vec<Responder>,
    /// Why it could not go on.
    #[serde(default)]
    pub fault: Option<String>,
}

impl Workflow {
    /// What a component was asked by a request of this workflow.
    pub fn task(&self, responder: ComponentId, request: RequestId, endpoint: EndpointId) -> Option<TaskResponse> {
        let asked = self.responders.iter().find(|asked| asked.component == responder && asked.request == request)?;
        let is_collection = asked.operation == Operation::Collect;
        // What a collector may report, an evaluator may read.
        let plan = Some(self.plan.collection_plan.clone());
        // Whoever is late, or was away, may still come with what it found in time.
        let until = asked.deadline.saturating_add(SignedDuration::from_secs(LATE_SECONDS)).unwrap_or(Timestamp::MAX);
        let is_about = self.endpoints.contains(&endpoint);
        is_about.then_some(TaskResponse { is_collection, plan, until: Some(until) })
    }

    /// `running`, or how it ended.
    pub fn state(&self) -> &'static str {
        let completed = self.responders.iter().filter(|responder| responder.state == ResponderState::Completed).count();
        match self.ended {
            None => "running",
            Some(_) if self.fault.is_some() => "failed",
            Some(_) if completed == self.responders.len() => "completed",
            Some(_) if completed == 0 => "failed",
            Some(_) => "partial",
        }
    }

    /// As operators see it.
    pub fn view(&self) -> TransactionView {
        TransactionView {
            transaction: self.id,
            workflow: if self.plan.is_evaluation { "evaluate" } else { "collect" }.to_owned(),
            policy: self.plan.policy.clone(),
            state: self.state().to_owned(),
            begun: self.begun,
            ended: self.ended,
            responders: self
                .responders
                .iter()
                .map(|responder| ResponderView {
                    component: responder.component,
                    operation: match responder.operation {
                        Operation::Collect => "collect",
                        Operation::Evaluate => "evaluate",
                    }
                    .to_owned(),
                    state: responder.state.as_str().to_owned(),
                    detail: responder.detail.clone(),
                })
                .collect(),
        }
    }

    fn is_open(&self, operation: Operation) -> bool {
        self.responders.iter().any(|responder| responder.operation == operation && !responder.state.is_terminal())
    }

    fn collection_request(&self, responder: &Responder) -> CollectionRequest {
        CollectionRequest {
            request: responder.request,
            plan: self.plan.collection_plan.clone(),
            // A broadcast reaches collectors that are not meant.
            targets: if self.plan.is_broadcast { self.endpoints.clone() } else { responder.endpoints.clone() },
            deadline: responder.deadline,
        }
    }

    fn progress(&self, operation: Operation, activity: Activity) -> OperatorEvent {
        let (mut done, mut total) = (0, 0);
        for responder in self.responders.iter().filter(|responder| responder.operation == operation) {
            // A responder that has not said how much there is counts as one unit.
            let (units, of) = responder.progress;
            total = u64::saturating_add(total, of.max(1));
            let share = if responder.state.is_terminal() { of.max(1) } else { units };
            done = u64::saturating_add(done, share);
        }
        OperatorEvent::Progress { activity, done, total }
    }
}

impl Core {
    /// Begins a workflow.
    pub fn begin(&mut self, plan: Plan, now: Timestamp) -> Result<(TransactionId, Vec<Action>), Fault> {
        let collectors = self.collectors_of(&plan.targets)?;
        let deadline = now + SignedDuration::from_secs(plan.timeout_seconds.clamp(1, 86_400));
        let mut workflow = Workflow {
            id: TransactionId(self.ids.next()),
            endpoints: collectors.iter().flat_map(|(_, endpoints, _)| endpoints.clone()).collect(),
            begun: now,
            ended: None,
            responders: Vec::new(),
            fault: None,
            plan,
        };
        if !workflow.plan.is_stored_only {
            let shared = self.request_id();
            for (component, endpoints, is_there) in &collectors {
                let request = if workflow.plan.is_broadcast { shared } else { self.request_id() };
                let wanted =
                    if workflow.plan.is_broadcast { Capability::CollectOvalBroadcast } else { Capability::CollectOval };
                let offers = self.components.get(component).is_some_and(|component| component.has(wanted));
                let (state, detail) = if *is_there && offers {
                    (ResponderState::Asked, None)
                } else if *is_there {
                    // Nobody is asked for what it has not said that it can.
                    (ResponderState::Rejected, Some(format!("the collector does not offer {}", wanted.as_str())))
                } else {
                    (ResponderState::Offline, Some("the collector was not there when it was to be asked".to_owned()))
                };
                workflow.responders.push(Responder {
                    component: *component,
                    operation: Operation::Collect,
                    request,
                    endpoints: endpoints.clone(),
                    state,
                    detail,
                    asked: now,
                    deadline,
                    progress: (0, 0),
                });
            }
        }
        let id = workflow.id;
        let started = OperatorEvent::Started { transaction: id, endpoint_count: workflow.endpoints.len() as u64 };
        let mut actions = vec![Action::StoreWorkflow(Box::new(workflow.clone())), Action::Tell(id, Box::new(started))];
        let mut asked = workflow.responders.iter().filter(|responder| responder.state == ResponderState::Asked);
        if workflow.plan.is_broadcast {
            actions.extend(asked.next().map(|responder| Action::Collect {
                to: None,
                transaction: id,
                request: workflow.collection_request(responder),
            }));
        } else {
            actions.extend(asked.map(|responder| Action::Collect {
                to: Some(responder.component),
                transaction: id,
                request: workflow.collection_request(responder),
            }));
        }
        self.workflows.insert(id, workflow);
        actions.extend(self.advance(id, now));
        self.forget_old_workflows();
        Ok((id, actions))
    }

    /// The endpoints that are meant, by label or name.
    pub fn endpoints_of(&self, targets: &[String]) -> Result<Vec<EndpointId>, Fault> {
        Ok(self.collectors_of(targets)?.into_iter().flat_map(|(_, endpoints, _)| endpoints).collect())
    }

    /// The collectors of the endpoints that are meant, with names, and whether each is there; those that
    /// cannot do it are named in the fault.
    pub fn collectors_named(
        &self,
        targets: &[String],
        capability: Capability,
    ) -> Result<Vec<(ComponentId, String, bool)>, Fault> {
        let mut named = Vec::new();
        for (id, _, is_there) in self.collectors_of(targets)? {
            let Some(component) = self.components.get(&id) else { continue };
            if !component.has(capability) {
                let text = format!("the collector `{}` does not offer {}", component.name, capability.as_str());
                return Err(Fault::new(FaultCode::UnsupportedCapability, text));
            }
            named.push((id, component.name.clone(), is_there));
        }
        Ok(named)
    }

    /// Collectors with the endpoints that are meant, and whether each is there.
    fn collectors_of(&self, targets: &[String]) -> Result<Vec<(ComponentId, Vec<EndpointId>, bool)>, Fault> {
        let mut unknown: Vec<&String> = targets.iter().collect();
        let mut found = Vec::new();
        for component in self.components.values() {
            if !component.is_member() || component.component_type != ComponentType::PostureCollectionService {
                continue;
            }
            let mut endpoints = Vec::new();
            for (_, entry) in &component.endpoints {
                let is_named = |target: &str| {
                    target == entry.endpoint.to_string()
                        || target == entry.facts.host_name
                        || target == component.name
                        || component.labels.iter().any(|label| label == target)
                };
                if targets.is_empty() || targets.iter().any(|target| is_named(target)) {
                    unknown.retain(|target| !is_named(target));
                    endpoints.push(entry.endpoint);
                }
            }
            if !endpoints.is_empty() {
                let is_there = !matches!(component.state, ComponentState::Unavailable);
                found.push((component.id, endpoints, is_there));
            }
        }
        if let Some(target) = unknown.first() {
            let text = format!("no endpoint is called `{target}`; `muster roster` lists them");
            return Err(Fault::new(FaultCode::TargetUnknown, text));
        }
        if found.is_empty() {
            return Err(Fault::new(FaultCode::TargetUnknown, "no collector has joined yet"));
        }
        Ok(found)
    }

    /// A responder says how far it is. What comes after its end, or from somebody else, changes
    /// nothing.
    pub fn status(&mut self, transaction: TransactionId, status: &StatusNotification, now: Timestamp) -> Vec<Action> {
        let (Some(request), Some(phase)) = (status.request, status.phase) else { return Vec::new() };
        let Some(workflow) = self.workflows.get_mut(&transaction) else { return Vec::new() };
        let Some(responder) = workflow
            .responders
            .iter_mut()
            .find(|responder| responder.request == request && responder.component == status.publisher)
        else {
            return Vec::new();
        };
        if responder.state.is_terminal() {
            return Vec::new();
        }
        let operation = responder.operation;
        if let Some(progress) = status.progress {
            responder.progress = (progress.done.min(progress.total), progress.total);
        }
        responder.detail = status.fault.as_ref().map(words);
        let state = match phase {
            Phase::Accepted | Phase::Progress => ResponderState::Accepted,
            Phase::Completed => ResponderState::Completed,
            Phase::Partial => ResponderState::Partial,
            Phase::Rejected => ResponderState::Rejected,
            Phase::Failed => ResponderState::Failed,
            Phase::Cancelled => ResponderState::Cancelled,
        };
        let is_step = responder.state != state;
        responder.state = state;
        let activity = match operation {
            Operation::Collect => Activity::Collecting,
            Operation::Evaluate => Activity::Evaluating,
        };
        let progress = workflow.progress(operation, activity);
        let mut actions = Vec::new();
        if is_step {
            actions.push(Action::StoreWorkflow(Box::new(workflow.clone())));
        }
        actions.push(Action::Tell(transaction, Box::new(progress)));
        if state.is_terminal() {
            actions.extend(self.advance(transaction, now));
        }
        actions
    }

    /// Goes on where everybody who was asked has ended.
    fn advance(&mut self, id: TransactionId, now: Timestamp) -> Vec<Action> {
        let Some(workflow) = self.workflows.get(&id) else { return Vec::new() };
        if workflow.ended.is_some() || workflow.is_open(Operation::Collect) {
            return Vec::new();
        }
        let was_asked = workflow.responders.iter().any(|responder| responder.operation == Operation::Evaluate);
        if workflow.plan.is_evaluation && !was_asked {
            return self.ask_evaluator(id, now);
        }
        if workflow.is_open(Operation::Evaluate) {
            return Vec::new();
        }
        let Some(workflow) = self.workflows.get_mut(&id) else { return Vec::new() };
        workflow.ended = Some(now);
        let view = workflow.view();
        vec![
            Action::StoreWorkflow(Box::new(workflow.clone())),
            Action::Tell(id, Box::new(OperatorEvent::Ended(Box::new(view)))),
        ]
    }

    fn ask_evaluator(&mut self, id: TransactionId, now: Timestamp) -> Vec<Action> {
        let request = self.request_id();
        let active = |component_type: ComponentType, capability: Capability| {
            self.components
                .values()
                .filter(move |component| {
                    component.component_type == component_type
                        && component.state == ComponentState::Active
                        && component.has(capability)
                })
                .map(|component| component.id)
        };
        // The evaluator with the least to do; of several repositories, the first.
        let evaluator = active(ComponentType::PostureEvaluationService, Capability::EvaluateXccdf)
            .min_by_key(|evaluator| self.open_requests_of(*evaluator));
        let repository = active(ComponentType::RepositoryInterface, Capability::QueryPosture).next();
        let Some(workflow) = self.workflows.get_mut(&id) else { return Vec::new() };
        let (Some(evaluator), Some(_)) = (evaluator, repository) else {
            workflow.ended = Some(now);
            let text = if evaluator.is_none() { "no evaluator is active" } else { "no repository is active" };
            let fault = Fault::new(FaultCode::Busy, format!("{text}; `muster roster` shows why"));
            workflow.fault = Some(words(&fault));
            return vec![
                Action::StoreWorkflow(Box::new(workflow.clone())),
                Action::Tell(id, Box::new(OperatorEvent::Fault(fault))),
            ];
        };
        workflow.responders.push(Responder {
            component: evaluator,
            operation: Operation::Evaluate,
            request,
            endpoints: Vec::new(),
            state: ResponderState::Asked,
            detail: None,
            asked: now,
            deadline: now + SignedDuration::from_secs(EVALUATION_SECONDS),
            progress: (0, 0),
        });
        let mut actions = vec![Action::StoreWorkflow(Box::new(workflow.clone()))];
        actions.extend(self.evaluation_request(id, evaluator));
        actions
    }

    fn evaluation_request(&self, id: TransactionId, evaluator: ComponentId) -> Option<Action> {
        let workflow = self.workflows.get(&id)?;
        let responder = workflow.responders.iter().find(|responder| responder.operation == Operation::Evaluate)?;
        let repository = self
            .components
            .values()
            .find(|component| component.state == ComponentState::Active && component.has(Capability::QueryPosture))?;
        let since = workflow.begun - SignedDuration::from_secs(CLOCK_SLACK_SECONDS);
        let request = EvaluationRequest {
            request: responder.request,
            policy: workflow.plan.policy.clone(),
            content: workflow.plan.policy_content.clone(),
            profile: workflow.plan.profile.clone(),
            targets: workflow.endpoints.clone(),
            aliases: self
                .aliases()
                .filter(|(_, of)| workflow.endpoints.contains(of))
                .map(|(endpoint, of)| EndpointAlias { endpoint, of })
                .collect(),
            repository: repository.id,
            collected_since: (!workflow.plan.is_stored_only).then_some(since),
            deadline: responder.deadline,
        };
        Some(Action::Evaluate { to: evaluator, transaction: id, request: Box::new(request) })
    }

    fn open_requests_of(&self, component: ComponentId) -> usize {
        self.workflows
            .values()
            .flat_map(|workflow| &workflow.responders)
            .filter(|responder| responder.component == component && !responder.state.is_terminal())
            .count()
    }

    /// Asks a component again for everything that it has not ended: it may have died in between. A
    /// request keeps its id, so a component that is still at it does nothing twice.
    pub(super) fn ask_again(&mut self, component: ComponentId, now: Timestamp) -> Vec<Action> {
        self.ask_those(now, |responder| responder.component == component)
    }

    fn ask_those(&mut self, now: Timestamp, is_meant: impl Fn(&Responder) -> bool) -> Vec<Action> {
        let mut again = Vec::new();
        for workflow in self.workflows.values_mut().filter(|workflow| workflow.ended.is_none()) {
            for at in 0..workflow.responders.len() {
                let responder = &mut workflow.responders[at];
                if !responder.state.is_terminal() && is_meant(responder) {
                    responder.asked = now;
                    again.push((workflow.id, responder.clone()));
                }
            }
        }
        again
            .into_iter()
            .filter_map(|(id, responder)| match responder.operation {
                Operation::Collect => {
                    let request = self.workflows.get(&id)?.collection_request(&responder);
                    Some(Action::Collect { to: Some(responder.component), transaction: id, request })
                }
                Operation::Evaluate => self.evaluation_request(id, responder.component),
            })
            .collect()
    }

    /// Deadlines, and requests that nobody took on.
    pub(super) fn watch_workflows(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut changed = Vec::new();
        for workflow in self.workflows.values_mut().filter(|workflow| workflow.ended.is_none()) {
            let mut is_changed = false;
            for responder in workflow.responders.iter_mut().filter(|responder| !responder.state.is_terminal()) {
                if responder.deadline <= now {
                    responder.state = ResponderState::NoAnswer;
                    responder.detail = Some("no answer until the deadline".to_owned());
                    is_changed = true;
                }
            }
            if is_changed {
                actions.push(Action::StoreWorkflow(Box::new(workflow.clone())));
                changed.push(workflow.id);
            }
        }
        for id in changed {
            actions.extend(self.advance(id, now));
        }
        let patience = SignedDuration::from_secs(ASK_AGAIN_SECONDS);
        actions.extend(self.ask_those(now, |responder| {
            responder.state == ResponderState::Asked && now.duration_since(responder.asked) >= patience
        }));
        actions
    }

    fn forget_old_workflows(&mut self) {
        let ended: Vec<TransactionId> =
            self.workflows.values().filter(|workflow| workflow.ended.is_some()).map(|workflow| workflow.id).collect();
        for id in ended.iter().take(ended.len().saturating_sub(ENDED_WORKFLOWS_MAX)) {
            self.workflows.remove(id);
        }
    }
}
