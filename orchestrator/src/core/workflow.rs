//! Workflows: collection and evaluation. Everybody who is meant has a line of its own, and ends in exactly one state.
//! Who was not there may catch up until the request expires.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proto::budget::Budget;
use proto::content::ContentRef;
use proto::id::{ComponentId, EndpointId, RequestId, TransactionId};
use proto::limits::TASK_ENDPOINTS_MAX;
use proto::message::{CollectionRequest, Phase, Priority, TaskResponse};
use proto::operator::{Account, OperatorEvent, ResponderView, TransactionView};
use proto::plan::ObjectKey;
use serde::{Deserialize, Serialize};

mod clock;
mod lease;
mod steps;
mod targets;

pub use targets::Targets;

/// Seconds after its deadline in which what a request asks for may still be collected.
const LATE_SECONDS: i64 = 3_600;

/// What has to be collected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stale {
    /// Endpoints of which nothing has to be.
    pub fresh: BTreeSet<EndpointId>,
    /// Of the others, the objects that are missing or stale; none, or not there: all of them.
    pub objects: BTreeMap<EndpointId, Vec<ObjectKey>>,
}

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
    /// Those that are left out.
    #[serde(default)]
    pub excluded: Vec<String>,
    /// How long responders have.
    pub timeout_seconds: i64,
    /// How long the request holds for those who were not there, from its beginning.
    #[serde(default)]
    pub expires_seconds: i64,
    /// Evaluate what was known then.
    #[serde(default)]
    pub as_of: Option<Timestamp>,
    /// What is older is stale; absent: what is older than the request, or with `is-stored-only` nothing.
    #[serde(default)]
    pub max_age_seconds: Option<i64>,
    /// Decide only what reads these objects.
    #[serde(default)]
    pub changed: Vec<ObjectKey>,
    /// By an assigned policy: a word that means nobody now may mean somebody tomorrow.
    #[serde(default)]
    pub is_assigned: bool,
    /// What collecting may cost an endpoint.
    #[serde(default)]
    pub budget: Budget,
}

impl Plan {
    /// Nobody waits for what is assigned.
    pub fn priority(&self) -> Priority {
        if self.is_assigned { Priority::Scheduled } else { Priority::Interactive }
    }

    /// What was collected before this has to be collected, where a workflow begins now.
    pub fn stale_before(&self, now: Timestamp) -> Timestamp {
        let age = SignedDuration::from_secs(self.max_age_seconds.unwrap_or(0));
        now.saturating_sub(age).unwrap_or(Timestamp::MIN)
    }

    /// From when on an observation is fresh, for a workflow that began then.
    pub fn fresh_since(&self, begun: Timestamp) -> Option<Timestamp> {
        // A look that a request leads to may seem a little older than the request: clocks differ.
        let slack = SignedDuration::from_secs(CLOCK_SLACK_SECONDS);
        match (self.max_age_seconds, self.as_of) {
            (Some(age), as_of) => {
                let slack = if self.is_stored_only { SignedDuration::ZERO } else { slack };
                let age = SignedDuration::from_secs(age);
                let since = as_of.unwrap_or(begun).saturating_sub(age).unwrap_or(Timestamp::MIN);
                // What a request with no tolerance has collected is fresh.
                let latest = begun.saturating_sub(slack).unwrap_or(begun);
                Some(if as_of.is_some() { since } else { since.min(latest) })
            }
            (None, None) if !self.is_stored_only => begun.saturating_sub(slack).ok(),
            (None, _) => None,
        }
    }
}

/// Seconds by which an observation may seem older than the request that it answers: clocks differ.
const CLOCK_SLACK_SECONDS: i64 = 5;

/// So often it is said how far a workflow is, where there are more responders than these.
const TOLD_EVERY: SignedDuration = SignedDuration::from_millis(100);
const TOLD_ALL_MAX: usize = 100;

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
    /// Nobody was there to ask. It is asked when it comes back, until the workflow expires.
    Offline,
    /// It did not answer in time. It is asked again when it comes back, until the workflow expires.
    NoAnswer,
    /// What is stored of it is fresh enough.
    Fresh,
    /// The operator left it out.
    Waived,
    /// It was not heard of for too long, or is gone, and its work went to somebody else.
    Moved,
}

impl ResponderState {
    /// Asked, and not done.
    fn is_open(self) -> bool {
        matches!(self, Self::Asked | Self::Accepted)
    }

    /// It may come back.
    fn is_away(self) -> bool {
        matches!(self, Self::Offline | Self::NoAnswer)
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
            Self::Fresh => "fresh",
            Self::Waived => "waived",
            Self::Moved => "moved",
        }
    }

    fn of(phase: Phase) -> Self {
        match phase {
            Phase::Accepted | Phase::Progress => Self::Accepted,
            Phase::Completed => Self::Completed,
            Phase::Partial => Self::Partial,
            Phase::Rejected => Self::Rejected,
            Phase::Failed => Self::Failed,
            Phase::Cancelled => Self::Cancelled,
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
    /// About which endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointId>,
    /// Of which objects of the plan; empty: of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectKey>,
    /// Where it is.
    pub state: ResponderState,
    /// Why.
    pub detail: Option<String>,
    /// When it was asked first; versions of before do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_asked: Option<Timestamp>,
    /// When it was last asked.
    pub asked: Timestamp,
    /// How often it was asked again since then; not stored.
    #[serde(skip)]
    pub again: u32,
    /// When it was given the work, or given it again because it was back; not stored.
    #[serde(skip)]
    pub given: Option<Timestamp>,
    /// Until when it may answer.
    pub deadline: Timestamp,
    /// When it came to the state that it is in, if that is an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// How much is done.
    #[serde(default)]
    pub progress: (u64, u64),
    /// Its time was over before it said that it has the request, which may be lost: it is asked again at its next heartbeat.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_missed: bool,
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
    /// Those of which it was not known whether they are meant: nothing is done there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<EndpointId>,
    /// When it began.
    pub begun: Timestamp,
    /// When it was first done with everybody who was there.
    #[serde(default)]
    pub settled: Option<Timestamp>,
    /// When an operator cancelled it.
    #[serde(default)]
    pub cancelled: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Everybody who was asked. Kept in rows of their own: there may be ten thousand.
    #[serde(default, skip_serializing)]
    pub responders: Vec<Responder>,
    /// Endpoints that are still to be evaluated.
    #[serde(default)]
    pub due: BTreeSet<EndpointId>,
    /// Why it could not go on.
    #[serde(default)]
    pub fault: Option<String>,
    /// How many responders are open, of each operation; not stored.
    #[serde(skip)]
    open: [usize; 2],
    /// Responders by component; not stored.
    #[serde(skip)]
    by_component: BTreeMap<ComponentId, Vec<usize>>,
    /// What was said of how far it is; not stored.
    #[serde(skip)]
    telling: Telling,
}

/// What was said of how far a workflow is, since this process has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Telling {
    /// When that was last.
    told: Option<Timestamp>,
    /// Of which operation something has come since then.
    untold: Option<Operation>,
    /// Whether somebody has ended, of each operation.
    has_ends: [bool; 2],
}

impl Telling {
    fn is_due(&self, now: Timestamp) -> bool {
        self.told.is_none_or(|told| now.duration_since(told).abs() >= TOLD_EVERY)
    }
}

impl Workflow {
    /// With what is not stored.
    pub(super) fn counted(mut self) -> Self {
        self.open = [0, 0];
        self.by_component.clear();
        for (at, responder) in self.responders.iter().enumerate() {
            self.open[responder.operation as usize] += usize::from(responder.state.is_open());
            self.by_component.entry(responder.component).or_default().push(at);
        }
        let collected = self.collected();
        self.due.extend(collected);
        self
    }

    /// What was collected from and nobody was asked to evaluate since.
    fn collected(&self) -> Vec<EndpointId> {
        if !self.plan.is_evaluation || self.ended.is_some() || self.cancelled.is_some() {
            return Vec::new();
        }
        let of = |operation| self.responders.iter().filter(move |responder| responder.operation == operation);
        let mut asked = BTreeMap::new();
        for responder in of(Operation::Evaluate) {
            for endpoint in &responder.endpoints {
                let first = responder.first_asked.unwrap_or(responder.asked);
                let latest = asked.entry(*endpoint).or_insert(first);
                *latest = first.max(*latest);
            }
        }
        let is_there =
            |responder: &&Responder| matches!(responder.state, ResponderState::Completed | ResponderState::Partial);
        of(Operation::Collect)
            .filter(is_there)
            .flat_map(|responder| responder.endpoints.iter().map(move |endpoint| (*endpoint, responder.ended)))
            .filter(|(endpoint, ended)| asked.get(endpoint).is_none_or(|asked| Some(*asked) < *ended))
            .map(|(endpoint, _)| endpoint)
            .collect()
    }

    /// With the responders that were stored by themselves.
    #[must_use]
    pub fn with_responders(self, responders: Vec<Responder>) -> Self {
        Self { responders, ..self }.counted()
    }

    /// One of an earlier version, which did not say what is still to be evaluated.
    pub(crate) fn add_due(&mut self) {
        let is_asked = self.responders.iter().any(|responder| responder.operation == Operation::Evaluate);
        if self.plan.is_evaluation && self.ended.is_none() && !is_asked {
            self.due = self.endpoints.iter().copied().collect();
        }
    }

    /// Without the responders, which are stored by themselves.
    fn header(&self) -> Self {
        Self {
            id: self.id,
            plan: self.plan.clone(),
            endpoints: self.endpoints.clone(),
            undecided: self.undecided.clone(),
            begun: self.begun,
            settled: self.settled,
            cancelled: self.cancelled,
            ended: self.ended,
            responders: Vec::new(),
            due: self.due.clone(),
            fault: self.fault.clone(),
            open: [0, 0],
            by_component: BTreeMap::new(),
            telling: Telling::default(),
        }
    }

    fn add(&mut self, responder: Responder) {
        self.open[responder.operation as usize] += usize::from(responder.state.is_open());
        self.by_component.entry(responder.component).or_default().push(self.responders.len());
        self.responders.push(responder);
    }

    fn set_state(&mut self, at: usize, state: ResponderState, now: Timestamp) {
        let responder = &mut self.responders[at];
        let open = &mut self.open[responder.operation as usize];
        *open -= usize::from(responder.state.is_open());
        *open += usize::from(state.is_open());
        responder.state = state;
        responder.ended = (!state.is_open()).then_some(now);
        responder.is_missed = false;
    }

    fn is_open(&self, operation: Operation) -> bool {
        self.open[operation as usize] > 0
    }

    /// Those of a component, by position.
    fn of(&self, component: ComponentId) -> &[usize] {
        self.by_component.get(&component).map(Vec::as_slice).unwrap_or_default()
    }

    /// When it expires for those who were not there.
    pub fn expires(&self) -> Timestamp {
        let holds = self.plan.expires_seconds.max(0);
        self.begun.saturating_add(SignedDuration::from_secs(holds)).unwrap_or(Timestamp::MAX)
    }

    /// Whether somebody who was not there may still catch up.
    fn waits(&self, now: Timestamp) -> bool {
        self.cancelled.is_none()
            && self.ended.is_none()
            && now < self.expires()
            && self.responders.iter().any(|one| one.operation == Operation::Collect && one.state.is_away())
    }

    /// What a component was asked by a request of this workflow.
    pub fn task(&self, responder: ComponentId, request: RequestId, endpoint: EndpointId) -> Option<TaskResponse> {
        let asked = self.of(responder).iter().filter_map(|at| self.responders.get(*at));
        let asked = asked.into_iter().find(|asked| asked.request == request)?;
        let is_collection = asked.operation == Operation::Collect;
        // What a collector may report, an evaluator may read.
        let plan = Some(self.plan.collection_plan.clone());
        // Whoever is late, or was away, may still come with what it found in time.
        let until = asked.deadline.saturating_add(SignedDuration::from_secs(LATE_SECONDS)).unwrap_or(Timestamp::MAX);
        // Evaluators of before were asked about all.
        let about = if asked.endpoints.is_empty() { &self.endpoints } else { &asked.endpoints };
        let is_told = (2..=TASK_ENDPOINTS_MAX).contains(&about.len());
        let endpoints = || if is_told { about.clone() } else { Vec::new() };
        about.contains(&endpoint).then(|| TaskResponse {
            is_collection,
            plan,
            until: Some(until),
            endpoints: endpoints(),
        })
    }

    /// `running`, `waiting` for those who were not there, or how it ended.
    pub fn state(&self) -> &'static str {
        let is_good =
            |state| matches!(state, ResponderState::Completed | ResponderState::Fresh | ResponderState::Waived);
        let good = self.responders.iter().filter(|responder| is_good(responder.state)).count();
        // What became of work that moved is told by whom it moved to.
        let moved = self.responders.iter().filter(|responder| responder.state == ResponderState::Moved).count();
        match self.ended {
            None if self.settled.is_some() && self.open == [0, 0] => "waiting",
            None => "running",
            Some(_) if self.fault.is_some() => "failed",
            Some(_) if self.cancelled.is_some() => "cancelled",
            Some(_) if good + moved == self.responders.len() => "completed",
            Some(_) if good == 0 => "failed",
            Some(_) => "partial",
        }
    }

    /// Who was asked to collect, and what became of each; an error where the sum is not right.
    pub fn account(&self) -> Result<Account, String> {
        let mut account = Account::default();
        let mut about = BTreeMap::<EndpointId, u32>::new();
        let collect = self.responders.iter().filter(|responder| responder.operation == Operation::Collect);
        for responder in collect {
            let count = responder.endpoints.len() as u64;
            let place = match responder.state {
                ResponderState::Asked | ResponderState::Accepted => &mut account.open,
                ResponderState::Completed | ResponderState::Partial => &mut account.answered,
                ResponderState::Rejected | ResponderState::Failed => &mut account.refused,
                ResponderState::Cancelled => &mut account.cancelled,
                ResponderState::Offline => &mut account.offline,
                ResponderState::NoAnswer | ResponderState::Moved => &mut account.timed_out,
                ResponderState::Fresh => &mut account.fresh,
                ResponderState::Waived => &mut account.waived,
            };
            *place += count;
            if responder.state != ResponderState::Waived {
                responder.endpoints.iter().for_each(|endpoint| *about.entry(*endpoint).or_default() += 1);
            }
        }
        if self.plan.is_stored_only {
            return Ok(account);
        }
        account.asked = self.endpoints.len() as u64 + account.waived;
        let is_each_once = about.len() == self.endpoints.len()
            && self.endpoints.iter().all(|endpoint| about.get(endpoint) == Some(&1));
        if account.sum() == account.asked && is_each_once {
            Ok(account)
        } else {
            Err(format!("{} endpoints were meant, and {} are accounted for", account.asked, account.sum()))
        }
    }

    /// As operators see it.
    pub fn view(&self) -> TransactionView {
        let account = self.account().unwrap_or_else(|error| {
            tracing::error!(transaction = %self.id, error, "the account of a workflow is wrong");
            Account::default()
        });
        let responders = self.responders.iter().map(|responder| ResponderView {
            component: responder.component,
            operation: match responder.operation {
                Operation::Collect => "collect",
                Operation::Evaluate => "evaluate",
            }
            .to_owned(),
            endpoints: responder.endpoints.clone(),
            object_count: responder.objects.len() as u64,
            state: responder.state.as_str().to_owned(),
            asked: Some(responder.asked),
            ended: responder.ended,
            detail: responder.detail.clone(),
        });
        TransactionView {
            transaction: self.id,
            workflow: if self.plan.is_evaluation { "evaluate" } else { "collect" }.to_owned(),
            policy: self.plan.policy.clone(),
            profile: self.plan.profile.clone(),
            state: self.state().to_owned(),
            begun: self.begun,
            settled: self.settled,
            expires: Some(self.expires()),
            ended: self.ended,
            endpoint_count: self.endpoints.len() as u64,
            undecided: self.undecided.clone(),
            account,
            fault: self.fault.clone(),
            responders: responders.collect(),
        }
    }

    /// Who is asked to collect by this request, as long as it is to.
    pub fn asked_to_collect(&self, component: ComponentId, request: RequestId) -> Option<&Responder> {
        let mut asked = self.of(component).iter().filter_map(|at| self.responders.get(*at));
        let asked = asked.find(|asked| asked.request == request && asked.operation == Operation::Collect)?;
        (self.cancelled.is_none() && self.ended.is_none() && asked.state.is_open()).then_some(asked)
    }

    /// What a collector is asked.
    pub fn collection_request(&self, responder: &Responder) -> CollectionRequest {
        CollectionRequest {
            request: responder.request,
            plan: self.plan.collection_plan.clone(),
            targets: responder.endpoints.clone(),
            objects: responder.objects.clone(),
            deadline: responder.deadline,
            budget: self.plan.budget,
            priority: self.plan.priority(),
        }
    }

    /// How far it is, if that is worth telling: of few every step, of many some a second, the first end and the last.
    fn step(&mut self, operation: Operation, is_end: bool, now: Timestamp) -> Option<OperatorEvent> {
        let is_first = is_end && !std::mem::replace(&mut self.telling.has_ends[operation as usize], true);
        let is_last = is_end && !self.is_open(operation);
        self.telling.untold = Some(operation);
        if is_first || is_last || self.responders.len() <= TOLD_ALL_MAX { self.say(now) } else { self.rest(now) }
    }

    /// What came after the last word, when there is time for another.
    fn rest(&mut self, now: Timestamp) -> Option<OperatorEvent> {
        if self.telling.is_due(now) { self.say(now) } else { None }
    }

    fn say(&mut self, now: Timestamp) -> Option<OperatorEvent> {
        let operation = self.telling.untold.take()?;
        self.telling.told = Some(now);
        Some(self.progress(operation))
    }

    fn progress(&self, operation: Operation) -> OperatorEvent {
        use proto::operator::Activity;
        let (mut done, mut total) = (0, 0);
        let counts =
            |responder: &&Responder| responder.operation == operation && responder.state != ResponderState::Moved;
        for responder in self.responders.iter().filter(counts) {
            // A responder that has not said how much there is counts as one unit.
            let (units, of) = responder.progress;
            total = u64::saturating_add(total, of.max(1));
            let share = if responder.state.is_open() { units } else { of.max(1) };
            done = u64::saturating_add(done, share);
        }
        let activity = match operation {
            Operation::Collect => Activity::Collecting,
            Operation::Evaluate => Activity::Evaluating,
        };
        OperatorEvent::Progress { activity, done, total }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millisecond).unwrap()
    }

    fn workflow(responders: u128) -> Workflow {
        let content = ContentRef::to(b"content");
        let workflow: Workflow = serde_json::from_value(json!({
            "id": TransactionId(Uuid::from_u128(1)),
            "plan": {
                "is-evaluation": false, "is-stored-only": false, "is-broadcast": false, "policy": "policy",
                "policy-content": content, "collection-plan": content, "profile": null, "targets": [], "timeout-seconds": 60,
            },
            "endpoints": [],
            "begun": at(0),
            "ended": null,
        }))
        .unwrap();
        let responder = |number| {
            json!({
                "component": ComponentId(Uuid::from_u128(number)), "operation": "collect", "state": "asked", "detail": null,
                "request": RequestId(Uuid::from_u128(number)), "asked": at(0), "deadline": at(60_000),
            })
        };
        workflow
            .with_responders((0..responders).map(|number| serde_json::from_value(responder(number)).unwrap()).collect())
    }

    #[test]
    fn of_many_some_words_a_second_are_told_and_the_first_end_and_the_last() {
        let done = |event: Option<OperatorEvent>| {
            event.map(|event| match event {
                OperatorEvent::Progress { done, .. } => done,
                other => panic!("{other:?}"),
            })
        };
        let mut few = workflow(100);
        assert!((0..100).all(|word| few.step(Operation::Collect, false, at(word)).is_some()));
        let mut many = workflow(101);
        // All take it on within a tenth of a second, then each ends, a millisecond after the other.
        let accepted: Vec<i64> =
            (0..101).filter(|word| many.step(Operation::Collect, false, at(*word)).is_some()).collect();
        assert_eq!(accepted, [0, 100]);
        let mut told = Vec::new();
        for (number, millisecond) in (0..101).zip(101..) {
            let now = at(millisecond);
            many.set_state(number, ResponderState::Completed, now);
            told.extend(done(many.step(Operation::Collect, true, now)));
        }
        assert_eq!(told, [1, 101]);
        // Words that were not told are, when there is time; the clock may have been set back meanwhile.
        let mut many = workflow(200);
        many.set_state(0, ResponderState::Completed, at(0));
        assert_eq!(done(many.step(Operation::Collect, true, at(0))), Some(1));
        many.set_state(1, ResponderState::Completed, at(50));
        assert_eq!(many.step(Operation::Collect, true, at(50)), None);
        assert_eq!(many.rest(at(99)), None);
        assert_eq!(done(many.rest(at(-3_600_000))), Some(2));
        assert_eq!(many.rest(at(0)), None);
    }
}
