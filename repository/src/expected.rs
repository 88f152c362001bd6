//! Whether a report was asked for. A collector reports what it was asked, and an evaluator decides what it was asked:
//! the orchestrator knows what that was, and a repository asks it once for each task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bus::{Bus, Context, RequestError};
use proto::content::{ContentHash, ContentRef};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId, RequestId, TransactionId};
use proto::message::{
    CollectionResults, ContentRequest, EvaluationResults, Message as _, QueryRequest, Task, TaskRequest, TaskResponse,
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
/// Answers and plans that are remembered.
const KNOWN_MAX: usize = 20_000;
const PLANS_MAX: usize = 32;

/// What it said, and until when that holds.
type Known = (Result<TaskResponse, Fault>, Instant);

/// The objects that a plan reports, with their kinds.
pub(crate) type Objects = BTreeMap<ObjectKey, String>;

/// What the orchestrator said of tasks.
#[derive(Debug)]
pub(crate) struct Expected {
    bus: Bus,
    content: ContentStore,
    known: Mutex<BTreeMap<TaskRequest, Known>>,
    plans: Mutex<BTreeMap<ContentHash, Arc<Objects>>>,
    /// It did not answer; until then it is not asked.
    silent: Mutex<Option<Instant>>,
}

fn refused(text: &str) -> Fault {
    Fault::new(FaultCode::NotAuthorized, text)
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
        Self { bus, content, known: Mutex::default(), plans: Mutex::default(), silent: Mutex::default() }
    }

    /// An error for observations that nobody asked this collector for.
    pub(crate) async fn collection(
        &self,
        responder: ComponentId,
        transaction: TransactionId,
        results: &CollectionResults,
    ) -> Result<(), Fault> {
        let asked = Task::Workflow { transaction, request: results.request };
        let task = results.standing.map_or(asked, Task::Standing);
        let message = asked_by(results.task.as_ref())?;
        let request = TaskRequest { responder, endpoint: results.endpoint, task, message };
        let is_late = |task: &TaskResponse| {
            task.until.is_some_and(|until| results.objects.iter().any(|part| part.collected > until))
        };
        let mut task = self.task(request.clone()).await?;
        if is_late(&task) {
            // It may have been given again since.
            self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&request);
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
        let task = Task::Workflow { transaction, request: results.request };
        let message = asked_by(results.task.as_ref())?;
        let task = self.task(TaskRequest { responder, endpoint: results.endpoint, task, message }).await?;
        if task.is_collection {
            return Err(refused("the task is not to evaluate"));
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
        task.plan.filter(|_| !task.is_collection).ok_or_else(|| refused("the task is not to evaluate"))
    }

    async fn task(&self, request: TaskRequest) -> Result<TaskResponse, Fault> {
        let now = Instant::now();
        if let Some((answer, until)) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&request)
            && *until > now
        {
            return answer.clone();
        }
        if self.silent.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| until > now) {
            return Err(later("the orchestrator does not say what was asked"));
        }
        let up = Topic::AdminUp(self.bus.own(), TaskRequest::KIND.to_owned());
        let deadline = Duration::from_secs(ANSWER_SECONDS);
        let (answer, seconds) = match self.bus.request(&up, &request, Context::alone(), deadline).await {
            Ok(answer) => (Ok(answer), KNOWN_SECONDS),
            Err(RequestError::Fault(fault)) if fault.code == FaultCode::UnknownIdentifier => {
                (Err(refused(&format!("nobody asked for this: {}", fault.message))), REFUSED_SECONDS)
            }
            // Every other fault is about the question, and not about the report.
            Err(error) => {
                let until = Instant::now() + Duration::from_secs(SILENT_SECONDS);
                *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
                return Err(later(&format!("the orchestrator does not say what was asked: {error}")));
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(request, (answer.clone(), Instant::now() + Duration::from_secs(seconds)));
        answer
    }

    /// The objects that a plan reports.
    pub(crate) async fn objects(&self, plan: &ContentRef) -> Result<Arc<Objects>, Fault> {
        if let Some(known) = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&plan.sha256) {
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
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.insert(plan.sha256.clone(), Arc::clone(&objects));
        Ok(objects)
    }
}
