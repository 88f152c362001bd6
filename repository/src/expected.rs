//! Whether a report was asked for. A collector reports what it was asked, and an evaluator decides what it was asked:
//! the orchestrator knows what that was, and a repository asks it once for each task; about many tasks in one message.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus::{Bus, Context, RequestError};
use proto::content::{ContentHash, ContentRef};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId, RequestId, TransactionId};
use proto::limits::TASKS_MAX;
use proto::message::{
    CollectionResults, ContentRequest, EvaluationResults, FleetResults, Message as _, QueryRequest, Task, TaskAnswer,
    TaskRequest, TaskResponse, TasksRequest, TasksResponse,
};
use proto::plan::ObjectKey;
use proto::topic::Topic;
use service::content::{ContentStore, plan_of};

/// Seconds for the orchestrator's answer.
const ANSWER_SECONDS: u64 = 3;
/// Seconds that an answer holds: a schedule may be cancelled.
const KNOWN_SECONDS: u64 = 600;
/// Seconds that a no holds, and that an orchestrator which does not answer is left alone.
const REFUSED_SECONDS: u64 = 10;
const SILENT_SECONDS: u64 = 2;
/// Seconds until an orchestrator that did not understand a question about many tasks is asked one again.
const ALONE_SECONDS: u64 = 600;
/// Answers, answers about many endpoints, and plans that are remembered.
const KNOWN_MAX: usize = 20_000;
const SHARED_MAX: usize = 64;
const PLANS_MAX: usize = 32;

/// What it said, and until when that holds.
type Known = (Result<TaskResponse, Fault>, Instant);

/// What a component was asked, by which message, about whatever endpoints.
type Asked = (ComponentId, Task, Option<ContentHash>);

/// An answer that holds for many endpoints.
#[derive(Debug)]
struct Shared {
    task: TaskResponse,
    endpoints: HashSet<EndpointId>,
    until: Instant,
}

/// The objects that a plan reports, with their kinds.
pub(crate) type Objects = BTreeMap<ObjectKey, String>;

/// What the orchestrator said of tasks.
#[derive(Debug)]
pub(crate) struct Expected {
    bus: Bus,
    content: ContentStore,
    known: Mutex<BTreeMap<TaskRequest, Known>>,
    shared: Mutex<BTreeMap<Asked, Shared>>,
    plans: Mutex<BTreeMap<ContentHash, Arc<Objects>>>,
    /// What is being asked: who wants to know the same waits.
    asking: Mutex<BTreeMap<Asked, Arc<tokio::sync::Mutex<()>>>>,
    /// It did not answer; until then it is not asked.
    silent: Mutex<Option<Instant>>,
    /// It did not understand a question about many tasks; until then it is asked about one at a time.
    alone: Mutex<Option<Instant>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn asked_of(request: &TaskRequest) -> Asked {
    (request.responder, request.task.clone(), request.message.clone())
}

fn is_over(until: &Mutex<Option<Instant>>) -> bool {
    locked(until).is_none_or(|until| until <= Instant::now())
}

fn refused(text: &str) -> Fault {
    Fault::new(FaultCode::NotAuthorized, text)
}

fn is_to_evaluate(task: &TaskResponse) -> Result<(), Fault> {
    if task.is_collection { Err(refused("the task is not to evaluate")) } else { Ok(()) }
}

fn later(text: &str) -> Fault {
    Fault::new(FaultCode::Busy, text)
}

/// What a report says that it answers; one that does not say it cannot be followed back to what was asked.
fn asked_by(task: Option<&ContentHash>) -> Result<Option<ContentHash>, Fault> {
    match task {
        Some(task) => Ok(Some(task.clone())),
        None => Err(refused("the report does not name the message that asked for it")),
    }
}

impl Expected {
    pub(crate) fn new(bus: Bus) -> Self {
        let content = ContentStore::new(None);
        Self {
            bus,
            content,
            known: Mutex::default(),
            shared: Mutex::default(),
            plans: Mutex::default(),
            asking: Mutex::default(),
            silent: Mutex::default(),
            alone: Mutex::default(),
        }
    }

    /// What a report of observations says that it answers.
    pub(crate) fn of_collection(
        responder: ComponentId,
        transaction: TransactionId,
        results: &CollectionResults,
    ) -> Result<TaskRequest, Fault> {
        let asked = Task::Workflow { transaction, request: results.request };
        let task = results.standing.map_or(asked, Task::Standing);
        let message = asked_by(results.task.as_ref())?;
        Ok(TaskRequest { responder, endpoint: results.endpoint, task, message })
    }

    /// What a report of verdicts says that it answers.
    pub(crate) fn of_evaluation(
        responder: ComponentId,
        transaction: TransactionId,
        results: &EvaluationResults,
    ) -> Result<TaskRequest, Fault> {
        let task = Task::Workflow { transaction, request: results.request };
        let message = asked_by(results.task.as_ref())?;
        Ok(TaskRequest { responder, endpoint: results.endpoint, task, message })
    }

    /// The same of verdicts on many endpoints, of each of them.
    pub(crate) fn of_fleet(
        responder: ComponentId,
        transaction: TransactionId,
        results: &FleetResults,
    ) -> impl Iterator<Item = TaskRequest> {
        results.endpoints.iter().map(move |one| TaskRequest {
            responder,
            endpoint: one.summary.endpoint,
            task: Task::Workflow { transaction, request: results.request },
            message: Some(results.task.clone()),
        })
    }

    /// Asks about many tasks at once, so far as nothing is known of them: what is said is known afterwards.
    pub(crate) async fn ask_ahead(&self, requests: impl Iterator<Item = TaskRequest>) {
        let unknown: BTreeMap<Asked, TaskRequest> = requests
            .filter(|request| self.known(request).is_none())
            .map(|request| (asked_of(&request), request))
            .collect();
        // One is asked about when it is wanted.
        if unknown.len() < 2 || !is_over(&self.silent) || !is_over(&self.alone) {
            return;
        }
        let unknown: Vec<TaskRequest> = unknown.into_values().collect();
        let up = Topic::AdminUp(self.bus.own(), TasksRequest::KIND.to_owned());
        let deadline = Duration::from_secs(ANSWER_SECONDS);
        for some in unknown.chunks(TASKS_MAX) {
            let question = TasksRequest { tasks: some.to_vec() };
            match self.bus.request::<_, TasksResponse>(&up, &question, Context::alone(), deadline).await {
                Ok(response) => {
                    for (request, answer) in question.tasks.into_iter().zip(response.answers) {
                        let _ = self.keep(request, answer);
                    }
                }
                Err(RequestError::Fault(fault)) => {
                    if fault.code == FaultCode::Malformed {
                        *locked(&self.alone) = Some(Instant::now() + Duration::from_secs(ALONE_SECONDS));
                    }
                    return;
                }
                Err(_) => {
                    *locked(&self.silent) = Some(Instant::now() + Duration::from_secs(SILENT_SECONDS));
                    return;
                }
            }
        }
    }

    /// An error for observations that nobody asked this collector for.
    pub(crate) async fn collection(
        &self,
        responder: ComponentId,
        transaction: TransactionId,
        results: &CollectionResults,
    ) -> Result<(), Fault> {
        let request = Self::of_collection(responder, transaction, results)?;
        let is_late = |task: &TaskResponse| {
            task.until.is_some_and(|until| results.objects.iter().any(|part| part.collected > until))
        };
        let mut task = self.task(request.clone()).await?;
        if is_late(&task) {
            // It may have been given again since.
            locked(&self.known).remove(&request);
            locked(&self.shared).remove(&asked_of(&request));
            task = self.task(request).await?;
        }
        let plan = task.plan.as_ref().filter(|_| task.is_collection);
        let Some(plan) = plan.filter(|plan| plan.sha256 == results.plan) else {
            return Err(refused("the task was given with another plan"));
        };
        if is_late(&task) {
            return Err(refused("the task had ended when this was collected"));
        }
        // Positions are the sender's word: those that point nowhere make up for no item.
        let used: BTreeSet<usize> =
            results.objects.iter().flat_map(|part| &part.items).map(|position| *position as usize).collect();
        if (0..results.items.len()).any(|position| !used.contains(&position)) {
            return Err(refused("an item belongs to no object"));
        }
        let asked = self.objects(plan).await?;
        for part in &results.objects {
            let Some(kind) = asked.get(&part.object) else {
                return Err(refused(&format!("the task does not ask for the object {}", part.object)));
            };
            // Of which kind an object is, everybody is told by what it finds.
            let mut items = part.items.iter().filter_map(|position| results.items.get(*position as usize));
            if items.any(|item| item.kind != *kind) {
                return Err(refused(&format!(
                    "the object {} finds items of the kind {kind} and of no other",
                    part.object
                )));
            }
        }
        Ok(())
    }

    /// An error for verdicts that nobody asked this evaluator for.
    pub(crate) async fn evaluation(
        &self,
        responder: ComponentId,
        transaction: TransactionId,
        results: &EvaluationResults,
    ) -> Result<(), Fault> {
        let task = self.task(Self::of_evaluation(responder, transaction, results)?).await?;
        is_to_evaluate(&task)
    }

    /// The same of verdicts on many endpoints.
    pub(crate) async fn fleet(
        &self,
        responder: ComponentId,
        transaction: TransactionId,
        results: &FleetResults,
    ) -> Result<(), Fault> {
        for request in Self::of_fleet(responder, transaction, results) {
            is_to_evaluate(&self.task(request).await?)?;
        }
        Ok(())
    }

    /// An error for what this evaluator was not asked to evaluate: another endpoint, or an object that the policy does
    /// not read. A question for all that the policy reads asks for that afterwards.
    pub(crate) async fn query(
        &self,
        responder: ComponentId,
        transaction: TransactionId,
        query: &mut QueryRequest,
    ) -> Result<(), Fault> {
        let Some(request) = query.request else {
            return Err(refused("a question has to name the request that it is asked for"));
        };
        let plan = self.may_evaluate(responder, transaction, query.endpoint, request).await?;
        for endpoint in &query.others {
            let of_it = self.may_evaluate(responder, transaction, *endpoint, request).await?;
            if of_it.sha256 != plan.sha256 {
                return Err(refused("the endpoints are not evaluated by one plan"));
            }
        }
        let read = self.objects(&plan).await?;
        if query.is_brief && query.objects.is_empty() {
            query.objects = read.keys().cloned().collect();
        }
        match query.objects.iter().find(|object| !read.contains_key(object)) {
            Some(object) => Err(refused(&format!("the policy does not read the object {object}"))),
            None => Ok(()),
        }
    }

    /// The plan of what this evaluator was asked to evaluate on an endpoint.
    pub(crate) async fn may_evaluate(
        &self,
        responder: ComponentId,
        transaction: TransactionId,
        endpoint: EndpointId,
        request: RequestId,
    ) -> Result<ContentRef, Fault> {
        let task = Task::Workflow { transaction, request };
        let task = self.task(TaskRequest { responder, endpoint, task, message: None }).await?;
        is_to_evaluate(&task)?;
        task.plan.ok_or_else(|| refused("the task has no plan"))
    }

    /// What is known of a task.
    fn known(&self, request: &TaskRequest) -> Option<Result<TaskResponse, Fault>> {
        let now = Instant::now();
        let known =
            locked(&self.known).get(request).filter(|(_, until)| *until > now).map(|(answer, _)| answer.clone());
        known.or_else(|| {
            let shared = locked(&self.shared);
            let shared = shared.get(&asked_of(request)).filter(|shared| shared.until > now)?;
            shared.endpoints.contains(&request.endpoint).then(|| Ok(shared.task.clone()))
        })
    }

    fn keep(&self, request: TaskRequest, answer: TaskAnswer) -> Result<TaskResponse, Fault> {
        let until = |seconds| Instant::now() + Duration::from_secs(seconds);
        let (answer, until) = match answer {
            TaskAnswer::Given(mut task) => {
                let endpoints: HashSet<EndpointId> = std::mem::take(&mut task.endpoints).into_iter().collect();
                if endpoints.contains(&request.endpoint) {
                    let mut shared = locked(&self.shared);
                    if shared.len() >= SHARED_MAX {
                        shared.clear();
                    }
                    let all = Shared { task: task.clone(), endpoints, until: until(KNOWN_SECONDS) };
                    shared.insert(asked_of(&request), all);
                    return Ok(task);
                }
                (Ok(task), until(KNOWN_SECONDS))
            }
            TaskAnswer::NotGiven(fault) => {
                (Err(refused(&format!("nobody asked for this: {}", fault.message))), until(REFUSED_SECONDS))
            }
        };
        let mut known = locked(&self.known);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(request, (answer.clone(), until));
        answer
    }

    async fn task(&self, request: TaskRequest) -> Result<TaskResponse, Fault> {
        if let Some(known) = self.known(&request) {
            return known;
        }
        let asked = asked_of(&request);
        let turn = Arc::clone(locked(&self.asking).entry(asked.clone()).or_default());
        let answer = {
            let _turn = turn.lock().await;
            self.ask(request).await
        };
        locked(&self.asking).remove(&asked);
        answer
    }

    async fn ask(&self, request: TaskRequest) -> Result<TaskResponse, Fault> {
        if let Some(known) = self.known(&request) {
            return known;
        }
        if !is_over(&self.silent) {
            return Err(later("the orchestrator does not say what was asked"));
        }
        let up = Topic::AdminUp(self.bus.own(), TaskRequest::KIND.to_owned());
        let deadline = Duration::from_secs(ANSWER_SECONDS);
        match self.bus.request(&up, &request, Context::alone(), deadline).await {
            Ok(task) => self.keep(request, TaskAnswer::Given(task)),
            Err(RequestError::Fault(fault)) if fault.code == FaultCode::UnknownIdentifier => {
                self.keep(request, TaskAnswer::NotGiven(fault))
            }
            // Every other fault is about the question, and not about the report.
            Err(error) => {
                *locked(&self.silent) = Some(Instant::now() + Duration::from_secs(SILENT_SECONDS));
                Err(later(&format!("the orchestrator does not say what was asked: {error}")))
            }
        }
    }

    /// The objects that a plan reports.
    pub(crate) async fn objects(&self, plan: &ContentRef) -> Result<Arc<Objects>, Fault> {
        if let Some(known) = locked(&self.plans).get(&plan.sha256) {
            return Ok(Arc::clone(known));
        }
        let ask = Topic::AdminUp(self.bus.own(), ContentRequest::KIND.to_owned());
        let bytes = self.content.fetch(&self.bus, &ask, plan, Context::alone()).await;
        let bytes = bytes.map_err(|fault| later(&format!("the plan cannot be had: {}", fault.message)))?;
        let read = plan_of(&bytes).map_err(|fault| later(&format!("the plan cannot be read: {}", fault.message)))?;
        let kind_of = |object: ObjectKey| {
            let kind = read.objects.get(&object).map(|object| object.kind.clone()).unwrap_or_default();
            (object, kind)
        };
        let objects = Arc::new(read.report.iter().cloned().map(kind_of).collect::<Objects>());
        let mut plans = locked(&self.plans);
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.insert(plan.sha256.clone(), Arc::clone(&objects));
        Ok(objects)
    }
}
