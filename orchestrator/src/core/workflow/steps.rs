//! How workflows go on.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proto::capability::{Capability, ComponentType};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId, RequestId, TransactionId};
use proto::limits::shown;
use proto::message::{COLLECTION_CUT, CollectionRequest, EndpointAlias, EvaluationRequest, StatusNotification};
use proto::operator::{ComponentState, OperatorEvent};
use proto::plan::ObjectKey;

use super::lease::Fate;
use super::{Operation, Plan, Responder, ResponderState, Stale, Targets, Telling, Workflow};
use crate::core::roster::Component;
use crate::core::{
    ASK_AGAIN_DOUBLINGS_MAX, ASK_AGAIN_SECONDS, Action, Core, ENDED_RESPONDERS_MAX, ENDED_WORKFLOWS_MAX,
    EVALUATION_SECONDS, words,
};

/// Endpoints that one evaluator is asked about at a time, at most; with several evaluators it is as many as make equal parts.
const SHARD_ENDPOINTS_MAX: usize = 500;
/// Endpoints that are not worth dividing: an evaluator looks at so many at once.
const SHARD_ENDPOINTS_MIN: usize = 16;
/// Objects that are asked for by name; beyond that everything is looked at.
const OBJECTS_NAMED_MAX: usize = 400;
/// Repositories beside the first that an evaluation may ask.
const STAND_INS_MAX: usize = 8;
/// Seconds in which a component answers that it was told to stop.
const CANCEL_SECONDS: i64 = 10;
/// Seconds that a request holds, at most: a year.
const EXPIRES_SECONDS_MAX: i64 = 366 * 86_400;

impl Core {
    /// Begins a workflow; `stale` says what has to be collected, and everything has to be where it is absent.
    pub fn begin(
        &mut self,
        mut plan: Plan,
        stale: Option<&Stale>,
        now: Timestamp,
    ) -> Result<(TransactionId, Vec<Action>), Fault> {
        let targets = self.targets_of(&plan)?;
        plan.timeout_seconds = plan.timeout_seconds.clamp(1, 86_400);
        plan.expires_seconds = plan.expires_seconds.clamp(0, EXPIRES_SECONDS_MAX);
        // What has to be collected differs from one to the next.
        plan.is_broadcast &= stale.is_none();
        let endpoints: Vec<EndpointId> = targets.iter().flat_map(|targets| targets.endpoints.clone()).collect();
        let mut workflow = Workflow {
            id: TransactionId(self.ids.next()),
            due: if plan.is_evaluation { endpoints.iter().copied().collect() } else { BTreeSet::default() },
            endpoints,
            undecided: targets.iter().flat_map(|targets| targets.undecided.clone()).collect(),
            begun: now,
            settled: None,
            cancelled: None,
            ended: None,
            responders: Vec::new(),
            fault: None,
            plan,
            open: [0, 0],
            by_component: BTreeMap::default(),
            telling: Telling::default(),
        };
        if !workflow.plan.is_stored_only {
            self.meant(&mut workflow, &targets, stale, now);
        }
        let id = workflow.id;
        let started = OperatorEvent::Started { transaction: id, endpoint_count: workflow.endpoints.len() as u64 };
        let mut actions = vec![Action::StoreWorkflow(Box::new(workflow.header()))];
        for (position, responder) in workflow.responders.iter().enumerate() {
            actions.push(Action::StoreResponder(id, position, Box::new(responder.clone())));
        }
        actions.push(Action::Tell(id, Box::new(started)));
        let mut asked = workflow.responders.iter().filter(|responder| responder.state == ResponderState::Asked);
        if workflow.plan.is_broadcast {
            // It reaches collectors that are not meant.
            actions.extend(asked.next().map(|responder| Action::Collect {
                to: None,
                transaction: id,
                request: CollectionRequest {
                    targets: workflow.endpoints.clone(),
                    ..workflow.collection_request(responder)
                },
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

    /// A line for everybody who is meant.
    fn meant(&mut self, workflow: &mut Workflow, targets: &[Targets], stale: Option<&Stale>, now: Timestamp) {
        let deadline = now + SignedDuration::from_secs(workflow.plan.timeout_seconds);
        let shared = self.request_id();
        let wanted =
            if workflow.plan.is_broadcast { Capability::CollectOvalBroadcast } else { Capability::CollectOval };
        let is_broadcast = workflow.plan.is_broadcast;
        for Targets { component, endpoints, excluded, is_there, .. } in targets {
            let mut add = |request: RequestId, endpoints: Vec<EndpointId>, objects, state, detail: Option<String>| {
                workflow.add(Responder {
                    component: *component,
                    operation: Operation::Collect,
                    request,
                    endpoints,
                    objects,
                    state,
                    detail,
                    first_asked: Some(now),
                    asked: now,
                    again: 0,
                    given: None,
                    deadline,
                    ended: (!state.is_open()).then_some(now),
                    progress: (0, 0),
                    is_missed: false,
                });
            };
            if !excluded.is_empty() {
                add(self.request_id(), excluded.clone(), Vec::new(), ResponderState::Waived, None);
            }
            let is_stale = |endpoint: &EndpointId| stale.is_none_or(|stale| !stale.fresh.contains(endpoint));
            let (lacking, fresh): (Vec<EndpointId>, Vec<EndpointId>) = endpoints.iter().partition(|one| is_stale(one));
            if !fresh.is_empty() {
                add(self.request_id(), fresh, Vec::new(), ResponderState::Fresh, None);
            }
            if lacking.is_empty() {
                continue;
            }
            let objects = objects_of(&lacking, stale);
            let request = if is_broadcast { shared } else { self.request_id() };
            let offers = self.components.get(component).is_some_and(|component| component.has(wanted));
            let (state, detail) = if *is_there && offers {
                (ResponderState::Asked, None)
            } else if *is_there {
                // Nobody is asked for what it has not said that it can.
                (ResponderState::Rejected, Some(format!("the collector does not offer {}", wanted.as_str())))
            } else {
                (ResponderState::Offline, Some("the collector was not there when it was to be asked".to_owned()))
            };
            add(request, lacking, objects, state, detail);
        }
    }

    /// An operator wants no more of it: everybody who is at it is told to stop.
    pub fn cancel(&mut self, id: TransactionId, now: Timestamp) -> Result<Vec<Action>, Fault> {
        let Some(workflow) = self.workflows.get_mut(&id) else {
            let text = "no workflow of that id is open; `muster transactions` lists them";
            return Err(Fault::new(FaultCode::UnknownIdentifier, text));
        };
        if workflow.ended.is_some() {
            return Err(Fault::new(FaultCode::Conflict, format!("it has ended: {}", workflow.state())));
        }
        workflow.cancelled = Some(now);
        workflow.due.clear();
        let mut actions = vec![Action::StoreWorkflow(Box::new(workflow.header()))];
        for position in 0..workflow.responders.len() {
            let responder = &mut workflow.responders[position];
            if responder.state.is_open() {
                responder.deadline = responder.deadline.min(now + SignedDuration::from_secs(CANCEL_SECONDS));
                let (to, request) = (responder.component, responder.request);
                actions.push(Action::StoreResponder(id, position, Box::new(responder.clone())));
                actions.push(Action::Cancel { to, transaction: id, request });
            }
        }
        actions.extend(self.advance(id, now));
        Ok(actions)
    }

    /// A workflow that only waits for those who were not there waits no more.
    pub fn expire(&mut self, id: TransactionId, now: Timestamp) -> Vec<Action> {
        let Some(workflow) = self.workflows.get_mut(&id) else { return Vec::new() };
        if workflow.ended.is_some() || workflow.settled.is_none() {
            return Vec::new();
        }
        workflow.plan.expires_seconds = 0;
        self.advance(id, now)
    }

    /// A responder says how far it is. What comes after its end, or from somebody else, changes
    /// nothing.
    pub fn status(&mut self, transaction: TransactionId, status: &StatusNotification, now: Timestamp) -> Vec<Action> {
        let (Some(request), Some(phase)) = (status.request, status.phase) else { return Vec::new() };
        let publisher = self.components.get_mut(&status.publisher);
        let Some(publisher) = publisher.filter(|component| component.state != ComponentState::Quarantined) else {
            return Vec::new();
        };
        publisher.said = Some(now);
        let Some(workflow) = self.workflows.get_mut(&transaction) else { return Vec::new() };
        let is_meant = |position: &&usize| workflow.responders[**position].request == request;
        let Some(position) = workflow.of(status.publisher).iter().find(is_meant).copied() else { return Vec::new() };
        let responder = &mut workflow.responders[position];
        let is_late = responder.state == ResponderState::NoAnswer && workflow.ended.is_none() && phase.is_terminal();
        if !responder.state.is_open() && !is_late {
            return Vec::new();
        }
        let operation = responder.operation;
        if let Some(progress) = status.progress {
            responder.progress = (progress.done.min(progress.total), progress.total);
        }
        responder.detail = status.fault.as_ref().map(words);
        if status.code == COLLECTION_CUT {
            // Done, but for what the budget cut off: that is no fault, and worth a word.
            responder.detail = Some(shown(&status.message));
        }
        let state = ResponderState::of(phase);
        workflow.set_state(position, state, now);
        let mut actions = Vec::new();
        let responder = &workflow.responders[position];
        if !state.is_open() {
            if operation == Operation::Collect
                && workflow.plan.is_evaluation
                && workflow.cancelled.is_none()
                && matches!(state, ResponderState::Completed | ResponderState::Partial)
            {
                workflow.due.extend(responder.endpoints.iter().copied());
            }
            // That it has been taken on is known anew after a restart; an end is kept, and what is due by it.
            actions.push(Action::StoreResponder(transaction, position, Box::new(responder.clone())));
        }
        if let Some(progress) = workflow.step(operation, !state.is_open(), now) {
            actions.push(Action::Tell(transaction, Box::new(progress)));
        }
        if !state.is_open() {
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
        let (is_due, may_wait) = (!workflow.due.is_empty(), workflow.settled.is_some() && now < workflow.expires());
        let mut actions = Vec::new();
        if is_due {
            match self.ask_evaluators(id, now) {
                Ok(asked) => actions = asked,
                // Those that were there are done; the others are evaluated when somebody can.
                Err(_) if may_wait => return Vec::new(),
                Err(fault) => return self.fail(id, fault, now),
            }
        }
        let Some(workflow) = self.workflows.get_mut(&id) else { return actions };
        // Who is evaluated elsewhere at the moment comes next.
        if workflow.is_open(Operation::Evaluate) || !workflow.due.is_empty() {
            return actions;
        }
        if workflow.waits(now) {
            if workflow.settled.is_some() {
                return actions;
            }
            workflow.settled = Some(now);
        } else {
            workflow.settled.get_or_insert(now);
            workflow.ended = Some(now);
        }
        let view = workflow.view();
        actions.push(Action::StoreWorkflow(Box::new(workflow.header())));
        actions.push(Action::Tell(id, Box::new(OperatorEvent::Ended(Box::new(view)))));
        actions
    }

    fn fail(&mut self, id: TransactionId, fault: Fault, now: Timestamp) -> Vec<Action> {
        let Some(workflow) = self.workflows.get_mut(&id) else { return Vec::new() };
        workflow.ended = Some(now);
        workflow.fault = Some(words(&fault));
        vec![
            Action::StoreWorkflow(Box::new(workflow.header())),
            Action::Tell(id, Box::new(OperatorEvent::Fault(fault))),
        ]
    }

    /// Asks evaluators about every endpoint that is due, each about a part.
    fn ask_evaluators(&mut self, id: TransactionId, now: Timestamp) -> Result<Vec<Action>, Fault> {
        let none = |what: &str| Fault::new(FaultCode::Busy, format!("no {what} is active; `muster roster` shows why"));
        if self.repository().is_none() {
            return Err(none("repository"));
        }
        let mut evaluators = self.evaluators_for(id);
        if evaluators.is_empty() {
            return Err(none("evaluator"));
        }
        let busy = self.in_evaluation(id);
        let due: Vec<EndpointId> = match self.workflows.get_mut(&id) {
            Some(workflow) => {
                let (later, now): (BTreeSet<_>, BTreeSet<_>) =
                    std::mem::take(&mut workflow.due).into_iter().partition(|endpoint| busy.contains(endpoint));
                workflow.due = later;
                now.into_iter().collect()
            }
            None => return Ok(Vec::new()),
        };
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let mut actions = Vec::new();
        let shard_endpoints = due.len().div_ceil(evaluators.len()).clamp(SHARD_ENDPOINTS_MIN, SHARD_ENDPOINTS_MAX);
        for shard in due.chunks(shard_endpoints) {
            // The one with the least to do.
            evaluators.sort_unstable();
            let request = self.request_id();
            evaluators[0].1 += 1;
            let evaluator = evaluators[0].2;
            let Some(workflow) = self.workflows.get_mut(&id) else { return Ok(actions) };
            let position = workflow.responders.len();
            workflow.add(Responder {
                component: evaluator,
                operation: Operation::Evaluate,
                request,
                endpoints: shard.to_vec(),
                objects: Vec::new(),
                state: ResponderState::Asked,
                detail: None,
                first_asked: Some(now),
                asked: now,
                again: 0,
                given: Some(now),
                deadline: now + SignedDuration::from_secs(EVALUATION_SECONDS),
                ended: None,
                progress: (0, 0),
                is_missed: false,
            });
            actions.push(Action::StoreResponder(id, position, Box::new(workflow.responders[position].clone())));
            actions.extend(self.evaluation_request(id, position));
        }
        if let Some(workflow) = self.workflows.get(&id) {
            actions.push(Action::StoreWorkflow(Box::new(workflow.header())));
        }
        Ok(actions)
    }

    /// Endpoints that this workflow or others are evaluating by the same policy and profile. One evaluation goes on from what the
    /// one before has decided, so they are made one after the other.
    fn in_evaluation(&self, id: TransactionId) -> BTreeSet<EndpointId> {
        let Some(own) = self.workflows.get(&id).filter(|workflow| workflow.plan.as_of.is_none()) else {
            return BTreeSet::new();
        };
        let open = self.workflows.values().filter(|workflow| {
            workflow.ended.is_none()
                && workflow.is_open(Operation::Evaluate)
                && workflow.plan.as_of.is_none()
                && (&workflow.plan.policy, &workflow.plan.profile) == (&own.plan.policy, &own.plan.profile)
        });
        let responders = open.flat_map(|workflow| &workflow.responders);
        responders
            .filter(|responder| responder.operation == Operation::Evaluate && responder.state.is_open())
            .flat_map(|responder| responder.endpoints.iter().copied())
            .collect()
    }

    /// Of several repositories, the first that is there.
    fn repository(&self) -> Option<ComponentId> {
        self.repositories().next().map(|component| component.id)
    }

    fn repositories(&self) -> impl Iterator<Item = &Component> {
        self.components.values().filter(|component| {
            component.component_type == ComponentType::RepositoryInterface
                && component.state == ComponentState::Active
                && component.has(Capability::QueryPosture)
        })
    }

    /// Those that keep the same as a repository: they use its database.
    pub(super) fn stand_ins(&self, repository: ComponentId) -> Vec<ComponentId> {
        let store = self.components.get(&repository).and_then(|component| component.store);
        let is_same =
            |component: &&Component| store.is_some() && component.store == store && component.id != repository;
        self.repositories().filter(is_same).take(STAND_INS_MAX).map(|component| component.id).collect()
    }

    fn evaluation_request(&self, id: TransactionId, position: usize) -> Option<Action> {
        let workflow = self.workflows.get(&id)?;
        let responder = workflow.responders.get(position)?;
        let repository = self.repository()?;
        let endpoints = if responder.endpoints.is_empty() { &workflow.endpoints } else { &responder.endpoints };
        let request = EvaluationRequest {
            request: responder.request,
            policy: workflow.plan.policy.clone(),
            content: workflow.plan.policy_content.clone(),
            profile: workflow.plan.profile.clone(),
            targets: endpoints.clone(),
            aliases: self
                .aliases()
                .filter(|(_, of)| endpoints.contains(of))
                .map(|(endpoint, of)| EndpointAlias { endpoint, of })
                .collect(),
            repository,
            stand_ins: self.stand_ins(repository),
            collected_since: workflow.plan.fresh_since(workflow.begun),
            as_of: workflow.plan.as_of,
            changed: workflow.plan.changed.clone(),
            is_stored_only: workflow.plan.is_stored_only,
            deadline: responder.deadline,
            priority: workflow.plan.priority(),
        };
        Some(Action::Evaluate { to: responder.component, transaction: id, request: Box::new(request) })
    }

    /// A component is there again: it may have died in between, or may not have been there when it was to be asked. A
    /// request keeps its id, so a component that is still at it does nothing twice.
    pub(in crate::core) fn ask_again(&mut self, component: ComponentId, now: Timestamp) -> Vec<Action> {
        self.ask_again_where(component, now, |_| true)
    }

    /// The heartbeat of a component: it is asked again what it never said that it has. Whoever was cut off for less time than
    /// anybody notices makes no handshake afterwards, and what came meanwhile came too late.
    pub(in crate::core) fn ask_missed(&mut self, component: ComponentId, now: Timestamp) -> Vec<Action> {
        self.ask_again_where(component, now, |responder| responder.is_missed)
    }

    fn ask_again_where(
        &mut self,
        component: ComponentId,
        now: Timestamp,
        is_meant: impl Fn(&Responder) -> bool,
    ) -> Vec<Action> {
        let mut again = Vec::new();
        let is_open = |workflow: &&mut Workflow| workflow.ended.is_none() && workflow.cancelled.is_none();
        for workflow in self.workflows.values_mut().filter(is_open) {
            let may_catch_up = now < workflow.expires();
            let holds = workflow.expires();
            for position in workflow.of(component).to_vec() {
                let responder = &mut workflow.responders[position];
                if !is_meant(responder) {
                    continue;
                }
                if responder.state.is_open() {
                    (responder.asked, responder.again, responder.given) = (now, 0, Some(now));
                    again.push((workflow.id, position, false));
                } else if responder.state.is_away() && responder.operation == Operation::Collect && may_catch_up {
                    let patience = SignedDuration::from_secs(workflow.plan.timeout_seconds);
                    (responder.asked, responder.again, responder.detail) = (now, 0, None);
                    responder.deadline = (now + patience).min(holds);
                    workflow.set_state(position, ResponderState::Asked, now);
                    again.push((workflow.id, position, true));
                }
            }
        }
        self.asked(again)
    }

    pub(super) fn asked(&self, again: Vec<(TransactionId, usize, bool)>) -> Vec<Action> {
        let mut actions = Vec::new();
        for (id, position, is_stored) in again {
            let Some(workflow) = self.workflows.get(&id) else { continue };
            let responder = &workflow.responders[position];
            if is_stored {
                actions.push(Action::StoreResponder(id, position, Box::new(responder.clone())));
            }
            match responder.operation {
                // What was broadcast was never said to it alone; and one that was not there has another deadline now.
                Operation::Collect if is_stored || workflow.plan.is_broadcast => actions.push(Action::Collect {
                    to: Some(responder.component),
                    transaction: id,
                    request: workflow.collection_request(responder),
                }),
                Operation::Collect => actions.push(Action::AskAgain {
                    to: responder.component,
                    transaction: id,
                    request: responder.request,
                    priority: workflow.plan.priority(),
                }),
                Operation::Evaluate => actions.extend(self.evaluation_request(id, position)),
            }
        }
        actions
    }

    /// Deadlines, requests that nobody took on, evaluators that say nothing, and requests that expire.
    pub(in crate::core) fn watch_workflows(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        let (mut changed, mut again, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        let leases = self.leases(now);
        for workflow in self.workflows.values_mut().filter(|workflow| workflow.ended.is_none()) {
            if let Some(progress) = workflow.rest(now) {
                actions.push(Action::Tell(workflow.id, Box::new(progress)));
            }
            if workflow.open == [0, 0] {
                // Waiting: for somebody to come back, for an evaluator, or for the end.
                if !workflow.due.is_empty() || workflow.settled.is_none() || !workflow.waits(now) {
                    changed.push(workflow.id);
                }
                continue;
            }
            let mut is_changed = false;
            for position in 0..workflow.responders.len() {
                if !workflow.responders[position].state.is_open() {
                    continue;
                }
                let fate = Self::fate(&self.components, &leases, (workflow, position), now);
                let responder = &mut workflow.responders[position];
                let patience = ASK_AGAIN_SECONDS << responder.again.min(ASK_AGAIN_DOUBLINGS_MAX);
                let ended = match fate {
                    Fate::Stays => None,
                    Fate::Late => Some((ResponderState::NoAnswer, "no answer until the deadline".to_owned())),
                    Fate::Moves(why) => {
                        // Somebody else decides in its place.
                        workflow.due.extend(responder.endpoints.iter().copied());
                        moved.push((workflow.id, position));
                        Some((ResponderState::Moved, why))
                    }
                };
                if let Some((state, why)) = ended {
                    let is_asked = responder.state == ResponderState::Asked;
                    responder.detail = Some(why);
                    workflow.set_state(position, state, now);
                    let responder = &mut workflow.responders[position];
                    responder.is_missed = is_asked && responder.operation == Operation::Collect;
                    let responder = Box::new(responder.clone());
                    actions.push(Action::StoreResponder(workflow.id, position, responder));
                    is_changed = true;
                } else if responder.state == ResponderState::Asked
                    && now.duration_since(responder.asked).as_secs() >= patience
                    && workflow.cancelled.is_none()
                    && self.components.get(&responder.component).is_some_and(Component::is_active)
                {
                    (responder.asked, responder.again) = (now, responder.again + 1);
                    again.push((workflow.id, position, false));
                }
            }
            if is_changed {
                actions.push(Action::StoreWorkflow(Box::new(workflow.header())));
                changed.push(workflow.id);
            }
        }
        actions.extend(self.let_go(&moved));
        for id in changed {
            actions.extend(self.advance(id, now));
        }
        actions.extend(self.asked(again));
        actions
    }

    /// Forgets workflows that ended before a time; the requests of those that are open.
    pub fn forget_workflows(&mut self, before: Timestamp) -> BTreeSet<RequestId> {
        self.workflows.retain(|_, workflow| workflow.ended.is_none_or(|ended| ended >= before));
        let open = self.workflows.values().filter(|workflow| workflow.ended.is_none());
        open.flat_map(|workflow| &workflow.responders).map(|responder| responder.request).collect()
    }

    fn forget_old_workflows(&mut self) {
        let ended = self.workflows.values().filter(|workflow| workflow.ended.is_some());
        let ended: Vec<(TransactionId, usize)> =
            ended.map(|workflow| (workflow.id, workflow.responders.len())).collect();
        let mut responders = 0;
        for (later, (id, count)) in ended.into_iter().rev().enumerate() {
            responders += count;
            if later > 0 && (later >= ENDED_WORKFLOWS_MAX || responders > ENDED_RESPONDERS_MAX) {
                self.workflows.remove(&id);
            }
        }
    }
}

/// What of these endpoints of one collector has to be looked at; none: everything.
fn objects_of(endpoints: &[EndpointId], stale: Option<&Stale>) -> Vec<ObjectKey> {
    let mut objects = BTreeSet::new();
    for of_endpoint in endpoints.iter().map(|endpoint| stale?.objects.get(endpoint)) {
        let Some(of_endpoint) = of_endpoint.filter(|objects| !objects.is_empty()) else { return Vec::new() };
        objects.extend(of_endpoint.iter().cloned());
    }
    if objects.len() > OBJECTS_NAMED_MAX { Vec::new() } else { objects.into_iter().collect() }
}
